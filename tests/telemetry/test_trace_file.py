"""A trace of a program as a file in the Trace Event Format."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from harness import trace_loaders
from harness.forks import in_child
from harness.trace_format import Trace

import nurseryio
from nurseryio._telemetry import trace_file
from nurseryio._telemetry.trace_file import BUFFER, LONGEST
from nurseryio.instruments import TraceFile
from nurseryio.lowlevel import add_instrument, current_task, remove_instrument
from nurseryio.testing import wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


def read(path: Path, *, complete: bool = True) -> Trace:
    return Trace(path.read_text(encoding="ascii"), complete=complete)


async def traced(path: Path, function: Callable[[], Awaitable[object]], **options: Any) -> Trace:
    """The trace of a call, on any loop."""
    trace = TraceFile(path, **options)
    add_instrument(trace)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(function, name="program")
    remove_instrument(trace)
    trace.close()
    return read(path)


# -- what is in it --------------------------------------------------------------------


async def test_trace_file_has_steps_and_waits_with_their_reasons(tmp_path: Path) -> None:
    async def program() -> None:
        await nurseryio.sleep(0.05)  # here

    trace = await traced(tmp_path / "t", program)
    assert trace.of_kind("step").count(("program", "step")) == 2
    (wait,) = trace.named("sleep")
    assert wait["dur"] >= 1000
    assert wait["args"]["text"].startswith("sleeps for another 0.0")
    assert wait["args"]["at"].endswith("in program(): await nurseryio.sleep(0.05)  # here")


async def test_trace_file_without_names_of_waits_has_waits(tmp_path: Path) -> None:
    trace = await traced(tmp_path / "t", lambda: nurseryio.sleep(0.001), waits=False)
    assert ("program", "wait") in trace.of_kind("wait")
    assert not trace.named("sleep")


async def test_trace_file_names_a_yield_with_its_line(tmp_path: Path) -> None:
    async def program() -> None:
        await nurseryio.lowlevel.checkpoint()  # lets others run

    trace = await traced(tmp_path / "t", program)
    waits = [slice for slice in trace.named("yield") if trace.names[slice["tid"]] == "program"]
    assert [wait["args"]["at"].partition("  # ")[2] for wait in waits] == ["lets others run"]


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

    trace = await traced(tmp_path / "t", program)
    # In debug mode the line that has set the deadline follows.
    timed, shielded = sorted(name for _, name in trace.of_kind("scope"))
    assert re.fullmatch(r"scope, deadline in (1000\.00|999\.\d\d) s( \(set at .*\))?", timed)
    assert shielded == "scope, shield without a deadline"
    (outer,) = trace.named(timed)
    (inner,) = (each for each in trace.named("nursery") if each["tid"] == outer["tid"])
    waits = trace.named("sleep")
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
            await wait_all_tasks_blocked()
            event.set()
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel("enough")

    trace = await traced(tmp_path / "t", program)
    arrows = trace.arrows()
    assert ("spawn", "program", "waiter") in arrows
    assert ("wake", "program", "waiter") in arrows
    assert ("cancel", "program", "sleeper") in arrows
    ((track, reason),) = [each for each in trace.of_kind("cancel") if each[0] == "program"]
    assert "with reason 'enough'" in reason
    (nursery,) = (
        each
        for each in trace.named("nursery")
        if trace.names[each["tid"]] == "program" and each["cat"] == "nursery"
    )
    assert nursery["args"]["cancelled"] == reason
    assert track == "program"


async def test_trace_file_marks_an_error_and_the_cancellation_of_the_nursery_when_they_happen(
    tmp_path: Path,
) -> None:
    async def fails() -> None:
        raise ValueError("bad")

    async def cleans_up() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            with nurseryio.CancelScope(shield=True):
                await nurseryio.sleep(0.01)

    async def program() -> None:
        with pytest.raises(ExceptionGroup):
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(cleans_up, name="cleans up")
                nursery.start_soon(fails, name="fails")

    trace = await traced(tmp_path / "t", program)
    assert trace.of_kind("error") == [("fails", "ValueError: bad")]
    (error,) = (event for event in trace.events if event.get("cat") == "error")
    # The nursery waits on for 10 ms, and is marked at once.
    marks = [
        event
        for event in trace.events
        if event["ph"] == "i"
        and event["cat"] == "cancel"
        and trace.names[event["tid"]] == "program"
    ]
    (mark,) = marks
    assert abs(mark["ts"] - error["ts"]) < 9000
    (nursery,) = (
        each
        for each in trace.slices
        if each["cat"] == "nursery" and trace.names[each["tid"]] == "program"
    )
    assert nursery["args"]["cancelled"] == mark["name"]
    assert nursery["ts"] + nursery["dur"] - mark["ts"] > 9000


async def test_trace_file_marks_a_deadline_when_it_is_over(tmp_path: Path) -> None:
    async def cleans_up() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            with nurseryio.CancelScope(shield=True):
                await nurseryio.sleep(0.01)

    async def program() -> None:
        with nurseryio.move_on_after(0.02):
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(cleans_up, name="cleans up")

    trace = await traced(tmp_path / "t", program)
    marks = [event for event in trace.events if event.get("cat") == "cancel" and event["ph"] == "i"]
    (mark,) = (event for event in marks if trace.names[event["tid"]] == "program")
    # In debug mode the line that has set the deadline follows.
    assert mark["name"].partition(", set at")[0] == "cancelled due to deadline"
    (scope,) = (
        each
        for each in trace.slices
        if each["cat"] == "scope" and trace.names[each["tid"]] == "program"
    )
    assert scope["args"]["cancelled"] == mark["name"]
    assert mark["ts"] - scope["ts"] > 10_000
    assert scope["ts"] + scope["dur"] - mark["ts"] > 9_000


async def test_trace_file_marks_a_scope_that_is_cancelled_in_the_last_step_of_its_task(
    tmp_path: Path,
) -> None:
    async def program() -> None:
        with nurseryio.CancelScope() as scope:
            await nurseryio.sleep(0)
            scope.cancel("at the end")

    trace = await traced(tmp_path / "t", program)
    ((track, name),) = trace.of_kind("cancel")
    assert track == "program"
    assert "with reason 'at the end'" in name


async def test_trace_file_has_no_error_of_a_cancelled_task(tmp_path: Path) -> None:
    async def program() -> None:
        child = asyncio.create_task(asyncio.sleep(10))
        await asyncio.sleep(0)
        child.cancel()
        await asyncio.wait([child])

    assert (await traced(tmp_path / "t", program)).of_kind("error") == []


def test_trace_file_leaves_out_the_tasks_that_run_makes_for_itself(tmp_path: Path) -> None:
    async def main() -> None:
        await nurseryio.sleep(0)

    nurseryio.run(main, instruments=[TraceFile(tmp_path / "t")])
    assert list(read(tmp_path / "t").names.values()) == [f"{__name__}.{main.__qualname__}"]


async def test_trace_file_has_the_waits_of_a_task_in_a_thread(tmp_path: Path) -> None:
    def in_thread() -> None:
        nurseryio.from_thread.run(nurseryio.sleep, 0)

    trace = await traced(tmp_path / "t", lambda: nurseryio.to_thread.run_sync(in_thread))
    waits = trace.named("thread")
    assert "waits for a thread that runs " in waits[0]["args"]["text"]


async def test_trace_file_has_a_child_that_is_cancelled_before_its_first_step(
    tmp_path: Path,
) -> None:
    async def program() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 1, name="cancelled at once")
            nursery.cancel_scope.cancel()
        child = asyncio.ensure_future(asyncio.sleep(1))
        child.cancel()
        await asyncio.wait([child])

    trace = await traced(tmp_path / "t", program)
    assert trace.of_kind("step").count(("cancelled at once", "step")) >= 1
    assert ("spawn", "program", "cancelled at once") in trace.arrows()


async def test_trace_file_has_tasks_of_asyncio_with_the_names_that_they_get_later(
    tmp_path: Path,
) -> None:
    async def names_itself() -> None:
        current_task().name = "named in its first step"

    async def program() -> None:
        await asyncio.create_task(asyncio.sleep(0), name="made by asyncio")
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(names_itself)

    trace = await traced(tmp_path / "t", program)
    assert {"made by asyncio", "named in its first step"} <= set(trace.names.values())


async def test_trace_file_that_begins_in_the_middle_has_the_tasks_that_wait_already(
    tmp_path: Path,
) -> None:
    event = nurseryio.Event()

    async def waits() -> None:
        with nurseryio.CancelScope(shield=True):
            await event.wait()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(waits, name="waits all the time")
        await wait_all_tasks_blocked()
        await traced(tmp_path / "t", lambda: nurseryio.sleep(0))
        event.set()
    trace = read(tmp_path / "t")
    ((track, _),) = trace.of_kind("scope")
    assert track == "waits all the time"
    (wait,) = trace.named("event")
    assert trace.names[wait["tid"]] == "waits all the time"
    assert " in waits(): " in wait["args"]["at"]
    assert wait["dur"] > 0


async def test_trace_file_that_begins_in_a_step_has_the_track_of_its_task_first(
    tmp_path: Path,
) -> None:
    trace = TraceFile(tmp_path / "t")
    first = current_task().name
    async with nurseryio.open_nursery() as nursery:
        add_instrument(trace)
        nursery.start_soon(nurseryio.sleep, 0, name="child")
    remove_instrument(trace)
    trace.close()
    names = [*read(tmp_path / "t").names.values()]
    assert names[:2] == [first, "child"]
    assert names.count(first) == 1


async def test_trace_file_closed_while_tasks_run_ends_their_scopes(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "t")
    async with nurseryio.open_nursery() as nursery:
        add_instrument(trace)
        nursery.start_soon(nurseryio.sleep_forever, name="left")
        with nurseryio.move_on_after(1000):
            await wait_all_tasks_blocked()
            with trace:
                pass
            trace.close()
            assert "closed" in repr(trace)
            await nurseryio.sleep(0)  # events after the end are lost
        remove_instrument(trace)
        nursery.cancel_scope.cancel()
    found = read(tmp_path / "t")
    # The step in which it was closed is there as well.
    assert found.slices[-1]["cat"] in ("step", "scope", "nursery", "wait")
    (sleep,) = (each for each in found.named("sleep") if found.names[each["tid"]] == "left")
    assert sleep["dur"] > 0


def test_trace_file_as_an_instrument_of_run_is_complete_after_the_run(tmp_path: Path) -> None:
    async def main() -> None:
        await nurseryio.sleep(0)

    nurseryio.run(main, instruments=[TraceFile(tmp_path / "t")])
    assert any(name.endswith("main") for name in read(tmp_path / "t").names.values())


async def test_trace_file_has_a_wait_of_an_awaitable_that_cannot_be_looked_at(
    tmp_path: Path,
) -> None:
    class Hostile:
        def __init__(self) -> None:
            self.steps = iter([None])

        def __await__(self) -> Any:
            return self

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> None:
            return next(self.steps)

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    async def program() -> None:
        await Hostile()

    trace = await traced(tmp_path / "t", program)
    assert ("program", "wait") in trace.of_kind("wait")


async def test_trace_file_writes_names_of_any_characters_and_cuts_long_ones(
    tmp_path: Path,
) -> None:
    odd = 'quotes " and \\, \ud800, \n, </script>, ü, \U0001f600'

    async def program() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name=odd)
            nursery.start_soon(nurseryio.sleep, 0, name="x" * 10_000_000)

    trace = await traced(tmp_path / "t", program)
    assert odd in trace.names.values()
    assert "x" * LONGEST + "..." in trace.names.values()


# -- the file -------------------------------------------------------------------------


async def test_trace_file_begins_a_new_file_at_its_size_with_the_slices_that_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t"
    monkeypatch.chdir(tmp_path)

    async def program() -> None:
        (tmp_path / "other").mkdir()
        os.chdir(tmp_path / "other")  # the files stay where they are
        with nurseryio.CancelScope(shield=True):
            while not path.with_name("t.1").exists():
                await nurseryio.sleep(0)

    instrument = TraceFile("t", max_bytes=100_000)
    add_instrument(instrument)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(program, name="program")
    remove_instrument(instrument)
    instrument.close()
    trace, old = read(path), read(path.with_name("t.1"))
    assert 100_000 <= path.with_name("t.1").stat().st_size < 100_000 + 2 * BUFFER
    for part in (old, trace):
        assert ("program", "scope, shield without a deadline") in part.of_kind("scope")
        assert "program" in part.names.values()
    # Nothing is lost between the two.
    assert old.slices[-1]["ts"] <= trace.slices[0]["ts"] + trace.slices[0]["dur"]


@pytest.mark.costly("many tasks")
async def test_trace_file_needs_bounded_memory_for_many_tasks_and_steps(tmp_path: Path) -> None:
    trace = TraceFile(tmp_path / "t", max_bytes=200_000)
    add_instrument(trace)

    async def some() -> None:
        for _ in range(15):
            async with nurseryio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(nurseryio.sleep, 0)

    def held() -> int:
        """The bytes that the module has allocated and holds."""
        traces = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(True, trace_file.__file__)]
        )
        return sum(trace.size for trace in traces.traces)

    tracemalloc.start()
    try:
        await some()
        before = held()
        for _ in range(4):
            await some()
        after = held()
    finally:
        tracemalloc.stop()
    remove_instrument(trace)
    assert len(trace._tracks) < 5
    trace.close()
    # What is in the buffer: its texts, and the lists and objects around them.
    assert max(before, after) < 4 * BUFFER
    assert (tmp_path / "t").stat().st_size < 200_000 + 2 * BUFFER
    assert (tmp_path / "t.1").exists()


KILLED = """
import os, signal, sys, threading
import nurseryio
from nurseryio.instruments import TraceFile

async def main():
    async with nurseryio.open_nursery() as nursery:
        with nurseryio.move_on_after(1000):
            nursery.start_soon(nurseryio.sleep_forever, name="hangs")
            nursery.start_soon(nurseryio.to_thread.run_sync, kill, name="killer")

def kill():
    while not os.stat(sys.argv[1]).st_size or "hangs" not in open(sys.argv[1]).read():
        pass  # until the loop has gone to sleep
    os.kill(os.getpid(), signal.SIGKILL)

nurseryio.run(main, instruments=[TraceFile(sys.argv[1])])
"""


def killed(path: Path) -> Trace:
    """The trace of a program that SIGKILL has ended while its loop was asleep."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    return read(path, complete=False)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process by SIGKILL")
def test_trace_file_of_a_killed_program_has_what_its_tasks_were_waiting_for(
    tmp_path: Path,
) -> None:
    trace = killed(tmp_path / "t")
    waits = {
        trace.names[each["tid"]]: each["args"]["text"]
        for each in trace.slices
        if each["cat"] == "wait" and each["dur"] is None
    }
    assert waits["hangs"] == "sleeps for ever"
    assert "waits for a thread that runs kill()" in waits["killer"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
async def test_a_forked_child_does_not_write_to_the_trace_of_its_parent(tmp_path: Path) -> None:
    async def program() -> None:
        def child() -> None:
            trace._put('{"ph":"M","name":"child"},\n' * 10_000)
            trace._flush(0)
            trace.close()

        await nurseryio.sleep(0)  # there is something in the buffer
        assert in_child(child) == 0

    trace = TraceFile(tmp_path / "t")
    add_instrument(trace)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(program, name="program")
    remove_instrument(trace)
    trace.close()
    assert "child" not in {
        event["name"] for event in read(tmp_path / "t").events if "name" in event
    }
    assert ("program", "step") in read(tmp_path / "t").of_kind("step")


# The file may have 200,000 bytes: the write that goes beyond is cut, and the next one fails.
FULL = """
import logging, resource, sys
import nurseryio
from nurseryio.instruments import TraceFile

logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

async def main():
    for _ in range(5000):
        await nurseryio.sleep(0)
    print("the program has gone on")

with TraceFile(sys.argv[1]) as trace:
    nurseryio.run(main, instruments=[trace])
    print(trace)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files")
def test_trace_file_on_a_full_disk_ends_with_a_whole_line_and_the_program_goes_on(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "t")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("the program has gone on\n")
    assert done.stdout.endswith(", closed>\n")
    assert "Instrument has been disabled" in done.stderr
    assert os.strerror(errno.EFBIG) in done.stderr
    assert 100_000 < (tmp_path / "t").stat().st_size <= 200_000
    read(tmp_path / "t", complete=False)


async def test_trace_file_whose_descriptor_other_code_has_closed_is_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trace = TraceFile(tmp_path / "t")
    add_instrument(trace)
    await nurseryio.sleep(0)
    assert trace._descriptor is not None
    os.close(trace._descriptor)
    with nurseryio.fail_after(60):
        while not caplog.records:
            await nurseryio.sleep(0)
    assert "Instrument has been disabled" in caplog.text
    assert os.strerror(errno.EBADF) in caplog.text
    assert trace.failure is not None
    assert os.strerror(errno.EBADF) in trace.failure
    with pytest.raises(KeyError):
        remove_instrument(trace)
    trace.close()
    caplog.clear()


def test_trace_file_that_cannot_be_renamed_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "t.1").mkdir()
    trace = TraceFile(tmp_path / "t", max_bytes=100_000)

    async def many() -> None:
        for _ in range(2000):
            await nurseryio.sleep(0)

    nurseryio.run(many, instruments=[trace])
    assert trace.failure is not None
    assert os.strerror(errno.EISDIR) in trace.failure
    assert "Instrument has been disabled" in caplog.text
    caplog.clear()


def test_trace_file_refuses_a_path_that_cannot_be_written_and_a_tiny_size(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        TraceFile(os.path.join(tmp_path, "missing", "t"))
    with pytest.raises(ValueError, match="at least 100,000"):
        TraceFile(tmp_path / "t", max_bytes=float("nan"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 100,000"):
        TraceFile(tmp_path / "t", max_bytes=10)


# -- the programs that open it ----------------------------------------------------------


async def _busy() -> None:
    async def fails() -> None:
        await nurseryio.sleep(0.002)
        raise ValueError("bad")

    async def works() -> None:
        with nurseryio.move_on_after(5), nurseryio.CancelScope(shield=True):
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep, 0.004, name="grandchild")

    for _ in range(3):
        with pytest.raises(ExceptionGroup):
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(fails, name="fails")
                nursery.start_soon(works, name="works")
                nursery.start_soon(nurseryio.sleep_forever, name="sibling")


@pytest.mark.skipif(not trace_loaders.HERE, reason=trace_loaders.MISSING)
@pytest.mark.limit(240)
def test_perfetto_and_catapult_open_the_trace_without_a_complaint(tmp_path: Path) -> None:
    nurseryio.run(_busy, instruments=[TraceFile(tmp_path / "t")])
    text = (tmp_path / "t").read_text(encoding="ascii")
    trace = Trace(text)
    killed_trace = killed(tmp_path / "killed")
    killed_text = (tmp_path / "killed").read_text(encoding="ascii")
    with trace_loaders.loaders(tmp_path / "profile") as programs:
        (slices,) = programs.perfetto(killed_text[:-10], "select name from slice")  # half a line
        assert len(slices) > 5
        for each, expected in ((text, trace), (killed_text, killed_trace)):
            problems, slices, arrows = programs.perfetto(
                each,
                "select name, value from stats where severity != 'info' and value > 0",
                "select thread.name, slice.name, slice.dur from slice "
                "join thread_track on track_id = thread_track.id join thread using (utid)",
                "select a.name, a_thread.name, b.name, b_thread.name from flow "
                "join slice a on a.id = slice_out join slice b on b.id = slice_in "
                "join thread_track a_track on a_track.id = a.track_id "
                "join thread a_thread on a_thread.utid = a_track.utid "
                "join thread_track b_track on b_track.id = b.track_id "
                "join thread b_thread on b_thread.utid = b_track.utid",
            )
            found = programs.catapult(each)
            assert problems == []
            assert found["warnings"] == []
            marks = [event for event in expected.events if event["ph"] == "i"]
            ours = sorted(
                (expected.names[event["tid"]], event["name"])
                for event in [*expected.slices, *marks]
            )
            assert sorted((track, name) for track, name, _ in slices) == ours
            assert sorted((track, name) for track, name, _ in found["slices"]) == ours
            # To the nanosecond; -1 stands for a slice without an end.
            lengths = [each["dur"] for each in expected.slices]
            assert sorted(dur for _, _, dur in slices) == sorted(
                [-1 if length is None else round(length * 1000) for length in lengths]
                + [0] * len(marks)
            )
            between = sorted((source, target) for _, source, target in expected.arrows())
            assert sorted((source, target) for _, source, _, target in arrows) == between
            assert {(a, b) for a, _, b, _ in arrows} <= {("step", "step")}
            assert len(found["arrows"]) == len(between)
