"""Pictures for the documentation: each is drawn from the trace of a run of a small program.

`python docs/_pictures/traces.py [NAME ...]` runs the programs and writes two files for each, one
for light pages and one for dark pages. To add a picture, add a function to `PICTURES`.

With `--page` it writes docs/timeline.png, which shows the page of `write_timeline()`. This needs
Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path

import nurseryio
from nurseryio._telemetry.timeline import Slice, Timeline, Track, read_trace
from nurseryio.instruments import TraceFile, write_timeline

FOLDER = Path(__file__).parent


# -- the programs --------------------------------------------------------------------


async def download(seconds: float) -> None:
    """Work that takes a while, and tidies up when it is cancelled."""
    try:
        await nurseryio.sleep(seconds)
    except nurseryio.Cancelled:
        with nurseryio.CancelScope(shield=True):
            await nurseryio.sleep(0.02)  # remove the file that is not complete
        raise


async def fails() -> None:
    """Work that fails."""
    await nurseryio.sleep(0.06)
    raise OSError("connection lost")


async def failing_child() -> None:
    """A child fails; the others are cancelled, and the block ends when all have ended."""
    try:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(download, 0.04, name="download A")
            nursery.start_soon(fails, name="download B")
            nursery.start_soon(download, 1, name="download C")
    except Exception:  # a group with the OSError
        await nurseryio.sleep(0.02)  # the error is here, and no task is left


async def stubborn() -> None:
    """A task that catches a cancellation and goes on."""
    try:
        await nurseryio.sleep(1)
    except nurseryio.Cancelled:
        await nurseryio.sleep(1)  # is interrupted as well


async def timeout() -> None:
    """A timeout around a whole tree of tasks; one of them tries to go on."""
    with nurseryio.move_on_after(0.06):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0.03, name="fast")
            nursery.start_soon(nurseryio.sleep, 1, name="slow")
            nursery.start_soon(stubborn, name="stubborn")
    await nurseryio.sleep(0.02)


async def part(depth: int) -> None:
    """A task with a nursery that has a task with a nursery, and so on."""
    async with nurseryio.open_nursery() as nursery:
        if depth:
            nursery.start_soon(part, depth - 1, name=f"level {4 - depth}")
        else:
            nursery.start_soon(download, 1, name="download")


async def cancellation() -> None:
    """A cancellation goes down a tree of tasks; the ends of the blocks go up."""
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(part, 2, name="level 1")
        await nurseryio.sleep(0.05)
        nursery.cancel_scope.cancel("the user has left")


async def transfer(first: nurseryio.Lock, second: nurseryio.Lock) -> None:
    """Takes two locks."""
    async with first:
        await nurseryio.sleep(0.02)
        async with second:
            pass


async def hang() -> None:
    """Two tasks that wait for each other."""
    a, b = nurseryio.Lock(), nurseryio.Lock()
    with nurseryio.move_on_after(0.1):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(transfer, a, b, name="there")
            nursery.start_soon(transfer, b, a, name="back")


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        program: what is run.
        title: what the picture shows, in one line.
        text: the same for a reader who does not see it.
    """

    program: Callable[[], Awaitable[None]]
    title: str
    text: str


PICTURES: dict[str, Picture] = {
    "failing-child": Picture(
        failing_child,
        "A nursery with one child that fails",
        "Three downloads in a nursery. A ends. B fails with an OSError, which cancels the nursery."
        " C is cancelled and tidies up. Only then does the block end, and the main task goes on.",
    ),
    "timeout": Picture(
        timeout,
        "A timeout around a tree of tasks",
        "Three tasks in a nursery inside move_on_after(0.06). When the time is over, all tasks that"
        " are left are cancelled. One catches that and waits again. It is interrupted again, and"
        " the block ends in time.",
    ),
    "cancellation": Picture(
        cancellation,
        "A cancellation that travels",
        "Nurseries in nurseries. The outermost one is cancelled, and all below it at the same time."
        " The innermost task tidies up for a while. The blocks end from the inside to the outside.",
    ),
    "hang": Picture(
        hang,
        "Two tasks that wait for each other",
        "Each of the two tasks waits for a lock that the other holds, until the time is over.",
    ),
}


# -- drawing -------------------------------------------------------------------------

WIDTH, NAMES, RIGHT = 760, 110, 12
ROW, GAP, TOP = 20, 8, 26
LETTER = 6.1  # the width of a letter, on average
LEAST = 2.5  # the width of a step that takes no time to speak of

COLOURS = {
    "light": {
        "paper": "#ffffff",
        "ink": "#1b1b1f",
        "soft": "#62626d",
        "line": "#e6e6ec",
        "step": ("#2458c6", "#ffffff"),
        "wait": ("#e2e6ee", "#33363f"),
        "scope": ("#f3d491", "#3d2c05"),
        "nursery": ("#bfe0b2", "#16340c"),
        "cancel": "#c53a2d",
        "arrow": "#8a8a98",
    },
    "dark": {
        "paper": "#17171b",
        "ink": "#ececf1",
        "soft": "#a3a3b0",
        "line": "#2a2a32",
        "step": ("#7aa5ff", "#0b1a3a"),
        "wait": ("#32353f", "#d5d7e0"),
        "scope": ("#6b5420", "#fbeccb"),
        "nursery": ("#2f5a24", "#dff3d8"),
        "cancel": "#f0695c",
        "arrow": "#7d7d8c",
    },
}


class Drawing:
    """A timeline as SVG."""

    def __init__(self, timeline: Timeline, picture: Picture, scheme: str) -> None:
        self._timeline = timeline
        self._colours = COLOURS[scheme]
        self._picture = picture
        self._tops: dict[int, int] = {}
        height = TOP
        for number, track in timeline.tracks.items():
            self._tops[number] = height + GAP // 2
            height += ROW * (1 + max(slice.level for slice in track.slices)) + GAP
        self._height = height + 4

    def text(self) -> str:
        """The file."""
        colours, title = self._colours, escape(self._picture.title)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self._height}" '
            f'width="{WIDTH}" height="{self._height}" role="img" '
            'font-family="system-ui, sans-serif" font-size="12">',
            f"<title>{title}</title><desc>{escape(self._picture.text)}</desc>",
            f'<rect width="100%" height="100%" rx="6" fill="{colours["paper"]}"/>',
        ]
        parts += self._axis()
        for number, track in self._timeline.tracks.items():
            parts += self._track(track, self._tops[number])
        parts += self._arrows()
        return "\n".join([*parts, "</svg>\n"])

    def _x(self, time: int) -> float:
        return NAMES + time / self._timeline.length * (WIDTH - NAMES - RIGHT)

    def _axis(self) -> list[str]:
        step = 20_000_000
        parts = []
        for time in range(0, self._timeline.length, step):
            x = self._x(time)
            label = f"{time // 1_000_000} ms" if x < WIDTH - 50 else ""
            parts.append(
                f'<path d="M{x:.1f} 0V{self._height}" stroke="{self._colours["line"]}"/>'
                + self._write(x + 4, 13, label, str(self._colours["soft"]))
            )
        return parts

    def _write(self, x: float, y: float, text: str, colour: str) -> str:
        return f'<text x="{x:.1f}" y="{y:.1f}" dy=".35em" fill="{colour}">{escape(text)}</text>'

    def _track(self, track: Track, top: int) -> list[str]:
        line = top - GAP / 2
        parts = [
            f'<path d="M0 {line}H{WIDTH}" stroke="{self._colours["line"]}"/>',
            self._write(10, top + ROW / 2 - 1, _short(track.name), str(self._colours["ink"])),
        ]
        # Steps last, because they are narrow and wider than they took.
        for slice in sorted(track.slices, key=lambda slice: slice.kind == "step"):
            parts += self._slice(slice, top + slice.level * ROW)
        for kind, text, time in track.marks:
            parts.append(self._mark(kind, text, self._x(time), top))
        return parts

    def _slice(self, slice: Slice, y: int) -> list[str]:
        left, right = self._x(slice.start), self._x(slice.end)
        fill, ink = self._colours[slice.kind]
        least = LEAST if slice.kind == "step" else 0
        width = max(right - left - 0.5, least)
        shape = f'x="{left:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 2}"'
        parts = [f'<rect {shape} fill="{fill}"/>']
        if slice.cancelled >= 0:
            since = self._x(slice.cancelled)
            parts.append(
                f'<rect x="{since:.1f}" y="{y + ROW - 5}" width="{max(right - since, 1):.1f}" '
                f'height="3" fill="{self._colours["cancel"]}"/>'
            )
        text = _fitted(slice.details.get("text", slice.name), right - left - 8)
        if text:
            parts.append(self._write(left + 5, y + ROW / 2 - 1, text, ink))
        return parts

    def _mark(self, kind: str, text: str, x: float, top: int) -> str:
        colour = self._colours["cancel"]
        if kind == "error":
            y = top + ROW / 2 - 1
            cross = f"M{x - 4:.1f} {y - 4}l8 8m0 -8l-8 8"
            beside = self._write(x + 9, y, text, str(colour))
            return f'<path d="{cross}" stroke="{colour}" stroke-width="2.5"/>{beside}'
        return f'<path d="M{x:.1f} {top + 2}l-4 -7h8z" fill="{colour}"/>'

    def _arrows(self) -> list[str]:
        parts = []
        for kind, source, begin, target, end in self._timeline.arrows:
            if kind == "wake":
                continue  # a child that ends wakes the nursery: that can be seen without
            left, right = self._x(begin), self._x(end)
            a, b = self._tops[source] + ROW / 2, self._tops[target] + ROW / 2 - 1
            bend = max(10.0, min(60.0, (right - left) / 2))
            colour = self._colours["cancel" if kind == "cancel" else "arrow"]
            parts.append(
                f'<path d="M{left:.1f} {a}C{left + bend:.1f} {a} {right - bend:.1f} {b} '
                f'{right:.1f} {b}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
                f'<path d="M{right:.1f} {b}l-6 -3v6z" fill="{colour}"/>'
            )
        return parts


def _short(name: str) -> str:
    return _fitted(name.rpartition(".")[2] if name.startswith("__main__.") else name, NAMES - 16)


def _fitted(text: str, room: float) -> str:
    count = int(room / LETTER)
    if len(text) <= count:
        return text
    return text[: count - 1] + "…" if count > 3 else ""


def trace_of(picture: Picture) -> Timeline:
    """Run a program, and return its timeline."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"

        async def main() -> None:
            await picture.program()

        nurseryio.run(main, instruments=[TraceFile(path)])
        timeline = Timeline(read_trace(path))
    for track in timeline.tracks.values():
        if track.name.endswith("main"):
            track.name = "main"
    return timeline


async def several() -> None:
    """Some of the programs side by side."""
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(failing_child, name="downloads")
        nursery.start_soon(timeout, name="with a timeout")
        nursery.start_soon(hang, name="with two locks")


def write_page(path: Path) -> None:
    """Take a picture of the page that draws a trace."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("Chromium is not installed")

    with tempfile.TemporaryDirectory() as folder:
        trace, page = Path(folder) / "trace.json", Path(folder) / "page.html"
        nurseryio.run(several, instruments=[TraceFile(trace)])
        write_timeline(trace, page)
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        look = ["--window-size=960,640", "--force-device-scale-factor=1.5"]
        profile = f"--user-data-dir={Path(folder) / 'profile'}"
        shot = f"--screenshot={path}"
        command = [browser, *flags, *look, profile, shot, page.as_uri()]
        subprocess.run(command, check=True, capture_output=True)


def main(arguments: list[str] | None = None) -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PICTURES)}")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--page", action="store_true", help="write docs/timeline.png alone")
    chosen = parser.parse_args(arguments)
    if chosen.page:
        write_page(FOLDER.parent / "timeline.png")
        return
    for name in chosen.names or PICTURES:
        timeline = trace_of(PICTURES[name])
        for scheme in COLOURS:
            text = Drawing(timeline, PICTURES[name], scheme).text()
            (chosen.folder / f"{name}-{scheme}.svg").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
