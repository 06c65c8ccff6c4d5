"""A trace of a program as a file in the Trace Event Format."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from harness.forks import in_child

import nurseryio
from nurseryio._telemetry.trace_file import BUFFER
from nurseryio.instruments import TraceFile
from nurseryio.lowlevel import add_instrument, remove_instrument

Event = dict[str, Any]

# The keys that each kind of event must have, by the format's description.
REQUIRED = {
    "M": {"name", "pid", "tid", "args"},
    "X": {"name", "cat", "pid", "tid", "ts", "dur"},
    "i": {"name", "cat", "pid", "tid", "ts", "s"},
    "s": {"name", "cat", "pid", "tid", "ts", "id"},
    "f": {"name", "cat", "pid", "tid", "ts", "id", "bp"},
}


def check(events: list[Event]) -> None:
    """Assert that a trace is valid: keys, nesting of the slices of a track, pairs of arrows."""
    arrows: dict[int, list[Event]] = defaultdict(list)
    slices: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        assert REQUIRED[event["ph"]] <= event.keys(), event
        if event["ph"] in "sf":
            arrows[event["id"]].append(event)
        elif event["ph"] == "X":
            assert event["dur"] >= 0
            slices[event["tid"]].append(event)
    for track in slices.values():
        open_until: list[float] = []
        for event in sorted(track, key=lambda event: (event["ts"], -event["dur"])):
            while open_until and open_until[-1] <= event["ts"]:
                open_until.pop()
            end = event["ts"] + event["dur"]
            assert not open_until or end <= open_until[-1] + 0.001, event
            open_until.append(end)
    for start, *ends in arrows.values():
        assert start["ph"] == "s"
        assert [event["ph"] for event in ends] in (["f"], [])
        # An arrow begins inside a slice, else it is not drawn.
        assert any(
            each["ts"] <= start["ts"] <= each["ts"] + each["dur"] for each in slices[start["tid"]]
        )


def names(events: list[Event]) -> dict[int, str]:
    """The names of the tracks."""
    return {
        event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"
    }


async def traced(
    path: Path, function: Callable[[], Awaitable[object]], **options: Any
) -> list[Event]:
    """The events of a call, on any loop."""
    trace = TraceFile(path, **options)
    add_instrument(trace)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(function, name="program")
    remove_instrument(trace)
    trace.close()
    events: list[Event] = json.loads(path.read_text(encoding="utf-8"))
    check(events)
    return events


def of_kind(events: list[Event], category: str, phase: str = "X") -> list[tuple[str, str]]:
    """The track and the name of each event of a category."""
    tracks = names(events)
    return [
        (tracks[event["tid"]], event["name"])
        for event in events
        if event.get("cat") == category and event["ph"] == phase
    ]


async def test_trace_file_has_steps_and_waits_with_their_reasons(tmp_path: Path) -> None:
    async def program() -> None:
        await nurseryio.sleep(0.05)  # here

    events = await traced(tmp_path / "t", program)
    assert of_kind(events, "step").count(("program", "step")) == 2
    (wait,) = (event for event in events if event["name"] == "sleep")
    assert wait["dur"] >= 1000
    assert wait["args"]["text"].startswith("sleeps for another 0.0")
    assert wait["args"]["at"].endswith("in program(): await nurseryio.sleep(0.05)  # here")


async def test_trace_file_without_names_of_waits_has_waits(tmp_path: Path) -> None:
    events = await traced(tmp_path / "t", lambda: nurseryio.sleep(0.001), waits=False)
    assert ("program", "wait") in of_kind(events, "wait")
    assert not [event for event in events if event["name"] == "sleep"]


async def test_trace_file_has_scopes_and_nurseries_around_the_waits_in_them(
    tmp_path: Path,
) -> None:
    async def program() -> None:
        with nurseryio.move_on_after(1000):
            async with nurseryio.open_nursery():
                await nurseryio.sleep(0.001)
        await nurseryio.sleep(0.001)
        with nurseryio.CancelScope(shield=True):
            await nurseryio.sleep(0.001)

    events = await traced(tmp_path / "t", program)
    assert sorted(name for _, name in of_kind(events, "scope")) == [
        "scope, deadline in 1000.00 s",
        "scope, shield, without a deadline",
    ]
    (outer,) = (event for event in events if event["name"].startswith("scope, deadline"))
    (inner,) = (
        event for event in events if event["name"] == "nursery" and event["tid"] == outer["tid"]
    )
    waits = [event for event in events if event["name"] == "sleep"]
    assert [inner["ts"] <= wait["ts"] < inner["ts"] + inner["dur"] for wait in waits] == [
        True,
        False,
        False,
    ]
    assert outer["dur"] >= inner["dur"]


async def test_trace_file_has_arrows_for_spawning_waking_and_cancelling(tmp_path: Path) -> None:
    async def program() -> None:
        event = nurseryio.Event()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(event.wait, name="waiter")
            nursery.start_soon(nurseryio.sleep_forever, name="sleeper")
            await nurseryio.testing.wait_all_tasks_blocked()
            event.set()
            await nurseryio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel("enough")

    events = await traced(tmp_path / "t", program)
    tracks = names(events)
    arrows: dict[int, list[str]] = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            arrows[event["id"]] += [event["cat"]] * (event["ph"] == "s") + [tracks[event["tid"]]]
    assert ["spawn", "program", "waiter"] in arrows.values()
    assert ["wake", "program", "waiter"] in arrows.values()
    assert ["cancel", "program", "sleeper"] in arrows.values()
    (cancelled,) = of_kind(events, "cancel", "i")
    assert cancelled[0] == "program"
    assert "with reason 'enough'" in cancelled[1]


async def test_trace_file_closed_while_tasks_run_ends_their_scopes(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "t")
    async with nurseryio.open_nursery() as nursery:
        add_instrument(trace)
        nursery.start_soon(nurseryio.sleep_forever, name="left")
        with nurseryio.move_on_after(1000):
            await nurseryio.testing.wait_all_tasks_blocked()
            with trace:
                pass
            trace.close()
            assert "closed" in repr(trace)
            await nurseryio.sleep(0)  # events after the end are lost
        remove_instrument(trace)
        nursery.cancel_scope.cancel()
    events = json.loads((tmp_path / "t").read_text(encoding="utf-8"))
    check(events)
    assert "left" in names(events).values()


def test_trace_file_as_an_instrument_of_run_is_complete_after_the_run(tmp_path: Path) -> None:
    async def main() -> None:
        await nurseryio.sleep(0)

    nurseryio.run(main, instruments=[TraceFile(tmp_path / "t")])
    events = json.loads((tmp_path / "t").read_text(encoding="utf-8"))
    check(events)
    assert any(name.endswith("main") for name in names(events).values())


async def test_trace_file_of_a_killed_program_can_be_read_with_a_bracket_added(
    tmp_path: Path,
) -> None:
    trace = TraceFile(tmp_path / "t")
    trace._flush()
    text = (tmp_path / "t").read_text(encoding="utf-8")
    assert [event["ph"] for event in json.loads(text.rstrip().rstrip(",") + "]")] == ["M"]
    trace.close()


async def test_trace_file_begins_a_new_file_at_its_size_with_the_names_of_the_tasks(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t"

    async def program() -> None:
        while not path.with_name("t.1").exists():
            await nurseryio.sleep(0)

    events = await traced(path, program, max_bytes=100_000)
    assert "program" in names(events).values()
    old = path.with_name("t.1").read_text(encoding="utf-8")
    assert 100_000 <= len(old) < 100_000 + 2 * BUFFER
    check(json.loads(old.rstrip().rstrip(",") + "]"))


async def test_trace_file_keeps_no_data_of_tasks_that_have_ended(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "t")
    add_instrument(trace)
    async with nurseryio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(nurseryio.sleep, 0)
    remove_instrument(trace)
    assert len(trace._tracks) < 5
    trace.close()


async def test_a_forked_child_does_not_write_to_the_trace_of_its_parent(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "t")

    def child() -> None:
        trace._put({"ph": "M", "name": "child", "args": {}})
        trace._flush()
        trace.close()

    assert in_child(child) == 0
    trace.close()
    assert "child" not in (tmp_path / "t").read_text(encoding="utf-8")


def test_trace_file_refuses_a_path_that_cannot_be_written_and_a_tiny_size(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        TraceFile(os.path.join(tmp_path, "missing", "t"))
    with pytest.raises(ValueError, match="at least 100,000"):
        TraceFile(tmp_path / "t", max_bytes=10)
