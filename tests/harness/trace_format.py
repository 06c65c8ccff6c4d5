"""The Trace Event Format, as far as ``TraceFile`` uses it: a strict reader.

The rules are those of the format's published description and of the two programs that read it,
Perfetto and Catapult (chrome://tracing): see ``trace_loaders``.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

Event = dict[str, Any]

NUMBER = (int, float)
# For each phase: the keys that an event must have with their types, and those that it may have.
COMMON: dict[str, Any] = {"ph": str, "pid": int, "tid": int}
MUST: dict[str, dict[str, Any]] = {
    "M": {"name": str, "args": dict},
    "B": {"name": str, "cat": str, "ts": NUMBER},
    "E": {"ts": NUMBER},
    "X": {"name": str, "cat": str, "ts": NUMBER, "dur": NUMBER},
    "i": {"name": str, "cat": str, "ts": NUMBER, "s": str},
    "s": {"name": str, "cat": str, "ts": NUMBER, "id": int},
    "f": {"name": str, "cat": str, "ts": NUMBER, "id": int, "bp": str},
}
MAY = {"B": {"args"}, "E": {"args"}, "X": {"args"}}
METADATA = {
    "process_name": ("name", str),
    "process_sort_index": ("sort_index", int),
    "thread_name": ("name", str),
    "thread_sort_index": ("sort_index", int),
}
CATEGORIES = {"B": {"wait", "scope", "nursery"}, "X": {"step"}, "i": {"cancel", "error"}}
ARROWS = {"spawn", "wake", "cancel"}


class Trace:
    """The events of a file, with the slices of each track put together.

    Attributes:
        events: all events, in the file's order.
        slices: all slices, in the order of their ends, each as an event of the phase "X". One that
            does not end has ``dur`` None.
        names: the names of the tracks.
    """

    def __init__(self, text: str, *, complete: bool = True) -> None:
        self.events = _lines(text, complete)
        self.slices: list[Event] = []
        self.names: dict[int, str] = {}
        self._open: dict[int, list[Event]] = defaultdict(list)
        self._last: dict[int, float] = defaultdict(float)
        self._arrows: dict[int, Event] = {}
        pids = {event["pid"] for event in self.events}
        assert len(pids) <= 1, pids
        for index, event in enumerate(self.events):
            _check_keys(event)
            getattr(self, "_see_" + event["ph"])(event, index)
        self._check_nesting()
        for stack in self._open.values():
            assert not stack or not complete, stack
            self.slices += [event | {"dur": None} for event in reversed(stack)]
        assert not self._arrows, "an arrow has no end"

    def of_kind(self, category: str) -> list[tuple[str, str]]:
        """The track and the name of each slice or mark of a category."""
        marks = [event for event in self.events if event["ph"] == "i"]
        return [
            (self.names[event["tid"]], event["name"])
            for event in [*self.slices, *marks]
            if event["cat"] == category
        ]

    def named(self, name: str) -> list[Event]:
        """The slices of a name."""
        return [event for event in self.slices if event["name"] == name]

    def arrows(self) -> list[tuple[str, str, str]]:
        """The kind of each arrow, and the tracks that it comes from and leads to."""
        starts = {event["id"]: event for event in self.events if event["ph"] == "s"}
        return [
            (event["cat"], self.names[starts[event["id"]]["tid"]], self.names[event["tid"]])
            for event in self.events
            if event["ph"] == "f"
        ]

    # -- phases ---------------------------------------------------------------------

    def _see_M(self, event: Event, index: int) -> None:
        key, kind = METADATA[event["name"]]
        assert list(event["args"]) == [key], event
        assert isinstance(event["args"][key], kind), event
        assert (event["tid"] > 0) == event["name"].startswith("thread"), event
        assert event["name"] != "process_name" or index == 0, event
        if event["name"] == "thread_name":
            self.names[event["tid"]] = event["args"]["name"]

    def _see_B(self, event: Event, _index: int) -> None:
        self._forward(event, event["ts"])
        self._open[event["tid"]].append(event)

    def _see_E(self, event: Event, _index: int) -> None:
        self._forward(event, event["ts"])
        begin = self._open[event["tid"]].pop()
        dur = event["ts"] - begin["ts"]
        args = {**begin.get("args", {}), **event.get("args", {})}
        self.slices.append(begin | {"ph": "X", "dur": dur, "args": args})

    def _see_X(self, event: Event, _index: int) -> None:
        # A step is written at its end.
        self._forward(event, event["ts"])
        assert event["dur"] >= 0, event
        self._last[event["tid"]] = event["ts"] + event["dur"] - 0.0005
        assert "wait" not in [slice["cat"] for slice in self._open[event["tid"]]], event
        self.slices.append(event)

    def _see_i(self, event: Event, _index: int) -> None:
        self._forward(event, event["ts"])
        assert event["s"] == "t", event

    def _see_s(self, event: Event, _index: int) -> None:
        assert event["cat"] == event["name"], event
        assert event["cat"] in ARROWS, event
        assert event["id"] not in self._arrows, event
        # It begins in a step that has been written, else no program draws it.
        assert any(
            step["ph"] == "X" and step["ts"] <= event["ts"] <= step["ts"] + step["dur"] + 0.0005
            for step in self.slices
            if step["tid"] == event["tid"]
        ), event
        self._arrows[event["id"]] = event

    def _see_f(self, event: Event, _index: int) -> None:
        start = self._arrows.pop(event["id"])
        assert (start["cat"], start["name"]) == (event["cat"], event["name"]), event
        assert start["ts"] <= event["ts"], event
        assert start["tid"] != event["tid"], event
        assert event["bp"] == "e", event
        # It leads to the step that was just written.
        assert self.slices[-1]["cat"] == "step", event
        assert (self.slices[-1]["tid"], self.slices[-1]["ts"]) == (event["tid"], event["ts"])

    # -- order ----------------------------------------------------------------------

    def _forward(self, event: Event, ts: float) -> None:
        """The events of a track are in the order of their times."""
        tid = event["tid"]
        assert tid in self.names, f"no name of the track before {event}"
        assert ts >= self._last[tid], (event, self._last[tid])
        self._last[tid] = ts
        kinds = CATEGORIES.get(event["ph"])
        assert kinds is None or event["cat"] in kinds, event

    def _check_nesting(self) -> None:
        """Of two slices of a track that overlap, one contains the other."""
        tracks: dict[int, list[Event]] = defaultdict(list)
        for event in self.slices:
            tracks[event["tid"]].append(event)
        for track in tracks.values():
            open_until: list[float] = []
            for event in sorted(track, key=lambda event: (event["ts"], -event["dur"])):
                while open_until and open_until[-1] <= event["ts"] + 0.0005:
                    open_until.pop()
                end = event["ts"] + event["dur"]
                assert not open_until or end <= open_until[-1] + 0.0005, event
                open_until.append(end)


def _lines(text: str, complete: bool) -> list[Event]:
    """The events of a file: one in a line, with a comma behind each but the last."""
    assert text.isascii()
    first, *lines = text.split("\n")
    assert first == "["
    if complete:
        assert lines[-2:] == ["]", ""]
        del lines[-2:]
        assert json.loads(text) is not None
    else:
        assert lines.pop() == "", "the last line is not whole"
    last = len(lines) - 1 if complete else None
    assert all(line.endswith("},") == (index != last) for index, line in enumerate(lines))
    return [json.loads(line.rstrip(",")) for line in lines]


def _check_keys(event: Event) -> None:
    must = COMMON | MUST[event["ph"]]
    assert must.keys() <= event.keys() <= must.keys() | MAY.get(event["ph"], set()), event
    for key, kind in must.items():
        assert isinstance(event[key], kind), event
    if event["ph"] != "M":
        assert all(isinstance(value, str) for value in event.get("args", {}).values()), event
        assert event["ts"] >= 0, event
