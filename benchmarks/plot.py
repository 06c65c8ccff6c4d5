"""The picture.

Ratios to asyncio and to the raw Protocol as bars, drawn by matplotlib from the samples of a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .figures import paired_ratio
from .libraries import STOCK
from .network.measure import BASE as NETWORK_BASE
from .network.rows import BY_NAME as NETWORK_ROWS
from .rows import BY_NAME as MICRO_ROWS

COLOURS = {"nurseryio": "#2a7f62", "trio": "#9a9fb0", "anyio": "#d98f4e", "streams": "#b9c4d0"}
_MOST = 6.0
"""Longer bars are cut here and carry their number."""


def ratios(data: dict[str, Any], part: str, names: list[str]) -> list[tuple[str, dict[str, float]]]:
    """Return for each row of the stock loop its title and the ratios of some libraries."""
    titles: dict[str, Any] = {**MICRO_ROWS, **NETWORK_ROWS}
    base = "asyncio" if part == "micro" else NETWORK_BASE
    loop = STOCK if STOCK in data.get(part, {}) else next(iter(data.get(part, {STOCK: {}})))
    found = []
    for name, row in data.get(part, {}).get(loop, {}).items():
        clock = getattr(titles[name], "clock", "cpu")
        samples = row["samples"]
        against = samples.get(base, {}).get(clock, [])
        values = {
            each: paired_ratio(samples[each][clock], against)
            for each in names
            if each in samples and samples[each][clock]
        }
        found.append((titles[name].title.replace("`", ""), values))
    return found


def draw(data: dict[str, Any], path: Path) -> None:
    """Draw the micro and the network rows of a run into a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = [
        ("micro", "time relative to asyncio's own idiom", ["nurseryio", "trio", "anyio"]),
        (
            "network",
            "server CPU relative to a raw Protocol",
            ["nurseryio", "streams", "trio", "anyio"],
        ),
    ]
    parts = [part for part in parts if data.get(part[0])]
    if not parts:
        return
    counts = [len(ratios(data, name, names)) for name, _, names in parts]
    figure, axes = pyplot.subplots(
        len(parts), 1, figsize=(9, 1.5 + 0.42 * sum(counts)), height_ratios=counts, squeeze=False
    )
    for axis, (name, title, names) in zip(axes[:, 0], parts, strict=True):
        _bars(axis, ratios(data, name, names), names, title)
    machine = data.get("machine", {})
    figure.text(
        0.01,
        0.004,
        f"{machine.get('python', '')}, stock loop, {machine.get('date', '')}",
        fontsize=7,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _bars(
    axis: Any, rows: list[tuple[str, dict[str, float]]], names: list[str], title: str
) -> None:
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        for line, (_, values) in enumerate(rows):
            if name not in values:
                continue
            at, value = line + (index - (len(names) - 1) / 2) * height, values[name]
            axis.barh(
                at,
                min(value, _MOST),
                height,
                color=COLOURS[name],
                label=name if line == 0 else None,
            )
            if value > _MOST:
                axis.text(_MOST, at, f" {value:.1f}", va="center", fontsize=6)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(range(len(rows)), [text for text, _ in rows], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, _MOST * 1.06)
    axis.set_title(f"{title} (smaller is faster)", fontsize=9)
    handles = [axis.barh([0], [0], color=COLOURS[name], label=name) for name in names]
    axis.legend(handles=handles, fontsize=7, loc="lower right")
