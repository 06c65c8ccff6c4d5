"""The scale part of the Markdown page: small tables from the scale data of one loop."""

from __future__ import annotations

import statistics
from typing import Any

from .figures import met, paired_ratio

SPAWN_TARGET = 1.15
TASK_TARGET = 2000
IDLE_TARGET = 1.0
IMPORT_TARGET = 1.3
_IDLE_TITLES = {
    "idle_shield": "a shielded child",
    "idle_thread": "a worker thread",
    "idle_swallow": "an asyncio task that swallows cancellation",
    "idle_refuse": "a future that refuses cancellation",
}


def _rows(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *lines])


def _verdict(value: float | None, target: float, unit: str = "") -> list[str]:
    return [f"≤ {target:g}{unit}", met(value, target) if value is not None else ""]


def spawn_table(found: dict[str, Any]) -> str:
    """Return spawn and cancel per task, each size against asyncio at that size."""
    libraries = list(next(iter(found.values())))
    lines = []
    for size, samples in found.items():
        base = samples["asyncio"]["cpu"]
        ratios = {name: paired_ratio(samples[name]["cpu"], base) for name in libraries}
        each = statistics.median(base) / int(size) * 1e6 if base else float("nan")
        cells = [f"{ratios[name]:.2f}" for name in libraries if name != "asyncio"]
        lines.append(
            [
                f"{int(size):,}",
                f"{each:.1f}",
                *cells,
                *_verdict(ratios.get("nurseryio"), SPAWN_TARGET),
            ]
        )
    head = [
        "sleeping tasks",
        "asyncio, µs per task",
        *[n for n in libraries if n != "asyncio"],
        "goal",
        "verdict",
    ]
    return "**Spawn and cancel, per task** (asyncio at the same size = 1)\n\n" + _rows(head, lines)


def memory_table(tasks: dict[str, Any], connections: dict[str, float]) -> str:
    """Return bytes per sleeping task and per idle connection."""
    lines = []
    for name, amounts in tasks.items():
        for amount, answer in amounts.items():
            ours = name == "nurseryio"
            verdict = _verdict(answer["bytes"], TASK_TARGET) if ours else ["", ""]
            lines.append(
                [
                    f"one of {int(amount):,} sleeping tasks, {name}",
                    f"{answer['bytes']:,.0f}",
                    *verdict,
                ]
            )
    for name, each in connections.items():
        lines.append([f"one idle connection of an echo server, {name}", f"{each:,.0f}", "", ""])
    return "**Resident memory**, bytes\n\n" + _rows(["what", "bytes", "goal", "verdict"], lines)


def idle_table(found: dict[str, Any]) -> str:
    """Return CPU while a cancelled scope waits, in percent of one core."""
    libraries = sorted({name for probe in found.values() for name in probe})
    lines = []
    for probe, by_library in found.items():
        cells = []
        for name in libraries:
            answer = next(iter(by_library.get(name, {}).values()), None)
            if answer is None:
                cells.append("–")
                continue
            cancels = f" ({answer['cancels']:,} cancels)" if "cancels" in answer else ""
            cells.append(f"{answer['percent']:.1f} %{cancels}")
        mine = next(iter(by_library.get("nurseryio", {}).values()), None)
        verdict = _verdict(mine["percent"] if mine else None, IDLE_TARGET, " %")
        lines.append([_IDLE_TITLES[probe], *cells, *verdict])
    return "**CPU while a cancelled scope waits for...**\n\n" + _rows(
        ["what", *libraries, "goal", "verdict"], lines
    )


def depth_table(found: dict[str, Any]) -> str:
    """Return a checkpoint's time by nesting depth, in microseconds."""
    depths = list(next(iter(found.values())))
    lines = [
        [name, *[f"{by_depth[d]['seconds'] * 1e6:.2f}" if d in by_depth else "–" for d in depths]]
        for name, by_depth in found.items()
    ]
    return "**A checkpoint under nested scopes**, µs\n\n" + _rows(["scopes", *depths], lines)


def growth_table(found: dict[str, Any]) -> str:
    """Return what timeouts entered and left leave behind."""
    lines = [
        [name, f"{int(amount):,}", f"{answer['bytes'] / 1024:,.0f}"]
        for name, amounts in found.items()
        for amount, answer in amounts.items()
    ]
    return "**Memory left by timeouts entered and left**, KiB\n\n" + _rows(
        ["library", "timeouts", "KiB"], lines
    )


def import_table(found: dict[str, Any]) -> str:
    """Return import time over `import asyncio`."""
    base = found["asyncio"]["cpu"]
    lines = []
    for name, samples in found.items():
        ratio = paired_ratio(samples["cpu"], base)
        verdict = _verdict(ratio, IMPORT_TARGET) if name == "nurseryio" else ["", ""]
        lines.append([name, f"{ratio:.2f}", *verdict])
    return "**Import time**, asyncio and then the library (`import asyncio` = 1)\n\n" + _rows(
        ["library", "ratio", "goal", "verdict"], lines
    )


def scale_tables(found: dict[str, Any], loop: str, with_imports: bool) -> str:
    """Return all scale tables of one loop."""
    parts = [f"### Scale, {loop} loop"]
    if found["spawn_and_cancel"]:
        parts.append(spawn_table(found["spawn_and_cancel"]))
    parts.append(memory_table(found["sleeping_tasks"], found["idle_connections"]))
    parts.append(idle_table(found["idle"]))
    if found["depth"]:
        parts.append(depth_table(found["depth"]))
    parts.append(growth_table(found["growth"]))
    if with_imports and found["imports"]:
        parts.append(import_table(found["imports"]))
    return "\n\n".join(parts)
