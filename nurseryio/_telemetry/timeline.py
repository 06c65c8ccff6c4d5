"""``write_timeline()``: a trace as one HTML file that draws it, without a network.

The page is in ``timeline.html``. It gets a :class:`Timeline` as JSON in place of a marker: the
tracks with their slices already put together and nested, as flat lists of numbers. That takes an
eighth of the size of the trace, and the page draws it without looking through the events.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# The text in the page that the data replace.
MARKER = "/*DATA*/"


def write_timeline(trace: str | os.PathLike[str], page: str | os.PathLike[str]) -> None:
    """Make an HTML page that draws a trace: the tracks of the tasks, with zoom and details.

    The page is one file, needs no network, and can be sent to others.

    Args:
        trace: A file that :class:`TraceFile` has written. It may be incomplete, because its
            program was killed.
        page: The HTML file; one that exists is overwritten.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: ``trace`` is not a trace.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    timeline = Timeline(read_trace(trace))
    template = Path(__file__).with_name("timeline.html").read_text(encoding="utf-8")
    # In a script element, "</" would end the element, and "<!--" change how it is read.
    data = json.dumps(timeline.data(), separators=(",", ":")).replace("<", "\\u003c")
    Path(page).write_text(template.replace(MARKER, data), encoding="utf-8")


def read_trace(trace: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The events of a trace file, which may be incomplete.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a trace.
    """
    with open(trace, encoding="utf-8", errors="replace") as file:
        if file.readline() != "[\n":
            raise ValueError(f"{os.fspath(trace)!r} is not a trace file")
        for line in file:
            try:
                event = json.loads(line.rstrip("\n,"))
            except ValueError:
                return  # the closing bracket, or the end of a file that was cut off
            yield event


# The part of a trace's length by which slices that do not end are drawn longer.
BEYOND = 10


class Timeline:
    """The tracks of a trace, with the beginnings and ends of slices put together.

    Times are whole nanoseconds after the first event.

    Args:
        events: the events of a trace, in the file's order.

    Attributes:
        tracks: the tracks by number, in the order in which their tasks were first seen.
        arrows: kind, track and time of the beginning, track and time of the end of each arrow.
        length: the time of the last event, and a little more if the trace has no end.
    """

    def __init__(self, events: Iterable[dict[str, Any]]) -> None:
        self.tracks: dict[int, Track] = {}
        self.arrows: list[tuple[str, int, int, int, int]] = []
        self.length = 0
        self._begin: int | None = None
        self._starts: dict[int, dict[str, Any]] = {}
        for event in events:
            self._see(event)
        if any(track.is_open for track in self.tracks.values()):
            # The program was killed, or is running. How long these slices lasted is not known, but
            # those that began last are the ones to look at, so they need a width.
            self.length += max(self.length // BEYOND, 1000)
        for track in self.tracks.values():
            track.end_all(self.length)

    def _see(self, event: dict[str, Any]) -> None:
        phase, number = event["ph"], event["tid"]
        if phase == "M":
            if event["name"] == "thread_name":
                self._track(number).name = event["args"]["name"]
            return
        time = round(event["ts"] * 1000)
        if self._begin is None:
            self._begin = time
        time -= self._begin
        track = self._track(number)
        end = time
        if phase == "B":
            track.begin(event, time)
        elif phase == "E":
            track.end(time, event.get("args", {}))
        elif phase == "X":
            end += round(event["dur"] * 1000)
            track.step(event, time, end)
        elif phase == "i":
            track.mark(event, time)
        elif phase == "s":
            self._starts[event["id"]] = event
        elif phase == "f" and event["id"] in self._starts:
            start = self._starts.pop(event["id"])
            at = round(start["ts"] * 1000) - self._begin
            self.arrows.append((event["cat"], start["tid"], at, number, time))
        self.length = max(self.length, end)

    def _track(self, number: int) -> Track:
        if number not in self.tracks:
            self.tracks[number] = Track()
        return self.tracks[number]

    def data(self) -> dict[str, Any]:
        """What the page gets. Texts are numbers: places in the list ``texts``."""
        texts: dict[str, int] = {"": 0}

        def number(text: str) -> int:
            return texts.setdefault(text, len(texts))

        tracks: list[dict[str, Any]] = []
        places: dict[int, int] = {}
        for each, track in self.tracks.items():
            if not track.slices:
                continue
            places[each] = len(tracks)
            flat: list[int] = []
            for slice in sorted(track.slices, key=lambda slice: (slice.start, slice.level)):
                flat += (
                    number(slice.kind),
                    number(slice.name),
                    slice.start,
                    slice.end - slice.start,
                    slice.level,
                    slice.cancelled,
                    number("\n".join(f"{key}: {value}" for key, value in slice.details.items())),
                )
            marks = [
                part
                for kind, name, time in track.marks
                for part in (number(kind), number(name), time)
            ]
            tracks.append({"name": track.name, "slices": flat, "marks": marks})
        arrows = [
            part
            for kind, source, begin, target, end in self.arrows
            if source in places and target in places
            for part in (number(kind), places[source], begin, places[target], end)
        ]
        return {
            "texts": list(texts),
            "tracks": tracks,
            "arrows": arrows,
            "length": self.length,
        }


class Track:
    """The slices of one task.

    Attributes:
        name: the name of the task.
        slices: those that have ended.
        marks: the kind, text and time of each mark.
    """

    def __init__(self) -> None:
        self.name = ""
        self.slices: list[Slice] = []
        self.marks: list[tuple[str, str, int]] = []
        self._open: list[Slice] = []

    def begin(self, event: dict[str, Any], time: int) -> None:
        """A slice begins."""
        slice = Slice(event, time, time, len(self._open))
        self._open.append(slice)
        self.slices.append(slice)

    def end(self, time: int, details: dict[str, str]) -> None:
        """The innermost slice that is open ends."""
        if self._open:
            slice = self._open.pop()
            slice.end = time
            if details:
                slice.details = {**slice.details, **details}
            reason = slice.details.get("cancelled")
            if reason is not None:
                slice.cancelled = next(
                    (at for _, name, at in self.marks if name == reason and at >= slice.start),
                    slice.start,
                )

    def mark(self, event: dict[str, Any], time: int) -> None:
        """A mark: a cancellation, or the error that ends the task."""
        self.marks.append((event["cat"], event["name"], time))

    def step(self, event: dict[str, Any], begin: int, end: int) -> None:
        """A slice that is complete."""
        self.slices.append(Slice(event, begin, end, len(self._open)))

    @property
    def is_open(self) -> bool:
        """Whether a slice has not ended."""
        return bool(self._open)

    def end_all(self, time: int) -> None:
        """End the slices that are open where the trace ends."""
        while self._open:
            self.end(time, {"end": "not in the trace"})


class Slice:
    """A step, a wait, a scope or a nursery. ``cancelled``: since when; -1 if it is not."""

    __slots__ = ("cancelled", "details", "end", "kind", "level", "name", "start")

    def __init__(self, event: dict[str, Any], start: int, end: int, level: int) -> None:
        self.kind: str = event["cat"]
        self.name: str = event["name"]
        self.details: dict[str, str] = event.get("args", {})
        self.start, self.end, self.level = start, end, level
        self.cancelled = -1
