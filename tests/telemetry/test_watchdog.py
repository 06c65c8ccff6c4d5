"""The watchdog: a thread that logs what stands still."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import pytest
from harness.core import forever, settle

import nurseryio
from nurseryio._base.watchers import watchers
from nurseryio._telemetry.watchdog import LOGGER, _Limits, _Watch, path_of
from nurseryio.instruments import Watchdog, task_tree
from nurseryio.lowlevel import current_task
from nurseryio.testing import wait_all_tasks_blocked


@pytest.fixture
def events() -> Iterator[list[Any]]:
    """The records of the watchdog's logger."""
    records: list[Any] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    yield records
    LOGGER.removeHandler(handler)


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Looks(_Watch):
    """A watch of the running loop whose looks the test makes itself, at times that it chooses."""

    def __init__(self, limits: _Limits) -> None:
        self.now = 0.0
        super().__init__(asyncio.get_running_loop(), limits, lambda: self.now)

    def look(self, now: float) -> None:
        self.now = now
        super().look(now)


def a_watch(**limits: float) -> Looks:
    return Looks(_Limits(**limits))


def text(record: logging.LogRecord) -> list[str]:
    return record.getMessage().splitlines()


# -- steps that block --------------------------------------------------------------------


async def test_watchdog_logs_a_slow_step_while_it_blocks_and_when_it_has_ended(
    events: list[Any], thread: ThreadPoolExecutor
) -> None:
    watch = a_watch(slow_step=0.1)
    now = time.monotonic()

    async def blocks() -> None:
        with nurseryio.move_on_after(1000):
            for seconds in (0.0, 0.05, 0.11, 0.5):
                thread.submit(watch.look, now + seconds).result()  # here
            assert len(events) == 1

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(blocks, name="slow")
        await settle()
    watch.look(now + 1)
    began, ended = events
    lines = text(began)
    assert lines[0] == "task 'slow' is blocking the loop, so far for 0.11 s, at:"
    assert any(line.endswith(".result()  # here") for line in lines)
    assert " > nursery > slow > scope, deadline in " in lines[-1]
    assert lines[-1].startswith("   inside: ")
    data = began.watchdog
    assert (data["event"], data["task"], data["ended"]) == ("slow step", "slow", False)
    assert any("in blocks(): " in line for line in data["stack"])
    assert text(ended)[0].startswith("task 'slow' has blocked the loop for ")
    assert ended.watchdog["ended"]


async def test_watchdog_logs_a_slow_step_at_its_end_if_it_was_not_seen_long_enough(
    events: list[Any], thread: ThreadPoolExecutor
) -> None:
    watch = a_watch(slow_step=0.1)

    async def blocks() -> None:
        past = time.monotonic() - 10
        thread.submit(watch.look, past).result()
        thread.submit(watch.look, past + 0.05).result()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(blocks, name="slow")
        await settle()
    watch.look(time.monotonic())
    (record,) = events
    assert text(record)[0].startswith("task 'slow' has blocked the loop, for 10.")
    assert any("in blocks(): " in line for line in text(record))


async def test_watchdog_does_not_log_many_short_steps_of_one_task(
    events: list[Any], thread: ThreadPoolExecutor
) -> None:
    watch = a_watch(slow_step=0.1)
    now = time.monotonic()
    for seconds in range(5):
        thread.submit(watch.look, now + seconds).result()
        await settle()
    assert events == []


async def test_watchdog_does_not_log_one_iteration_with_many_short_steps(
    events: list[Any], thread: ThreadPoolExecutor
) -> None:
    watch = a_watch(slow_step=0.1)
    now = time.monotonic()

    async def short(seconds: float) -> None:
        thread.submit(watch.look, now + seconds).result()

    async with nurseryio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(short, float(number))
    assert events == []


async def test_watchdog_logs_a_callback_that_blocks(
    events: list[Any], thread: ThreadPoolExecutor, loop_kind: str
) -> None:
    watch = a_watch(slow_step=0.1)
    now = time.monotonic()

    def callback() -> None:
        for seconds in (0.0, 0.2):
            thread.submit(watch.look, now + seconds).result()

    asyncio.get_running_loop().call_soon(callback)
    await settle()
    if loop_kind == "uvloop":  # it calls callbacks without a frame of Python
        assert events == []
        return
    (record,) = events
    assert text(record)[0] == "a callback is blocking the loop, so far for 0.20 s, at:"
    assert any("in callback(): " in line for line in text(record))
    assert record.watchdog["task"] is None


async def test_watchdog_logs_the_same_line_again_only_after_a_pause(
    events: list[Any], thread: ThreadPoolExecutor
) -> None:
    for pause, number in ((60.0, 1), (1e-9, 3)):
        watch = a_watch(slow_step=0.1, pause=pause)
        now = time.monotonic()

        async def blocks(watch: _Watch = watch, now: float = now) -> None:
            for seconds in (0.0, 0.2):
                thread.submit(watch.look, now + seconds).result()

        for _ in range(3):
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(blocks)
            await settle()
            watch.look(now + 100)
            await settle()
        assert sum(not record.watchdog["ended"] for record in events) == number
        events.clear()


async def test_watchdog_sends_nothing_to_an_idle_loop(loop_kind: str) -> None:
    watch = a_watch(slow_step=0.1)
    loop = asyncio.get_running_loop()
    began, looked = threading.Event(), nurseryio.Event()

    def look() -> None:
        began.wait()
        if loop_kind != "uvloop":
            while watch._busy_with(None) is not None:
                pass
        for seconds in range(5):
            watch.look(float(seconds))
        loop.call_soon_threadsafe(looked.set)

    looking = threading.Thread(target=look)
    looking.start()
    loop.call_later(0, began.set)
    await looked.wait()
    looking.join()
    assert watch._step is None or watch._step.ended is not None


# -- scopes that do not end -----------------------------------------------------------------


async def test_watchdog_logs_a_cancelled_scope_that_does_not_end_with_its_explanation(
    events: list[Any],
) -> None:
    watch = a_watch(stuck_cancel=5.0)
    stop = threading.Event()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.to_thread.run_sync, stop.wait, name="in a thread")
        await settle()
        watch.look(0.0)
        nursery.cancel_scope.cancel("enough")
        try:
            for now in (10.0, 14.0, 16.0, 20.0):
                watch.look(now)
        finally:
            stop.set()
    (record,) = events
    lines = text(record)
    assert lines[0].startswith(
        "cancelled, and has not ended for at least 6.0 s: a nursery in task "
    )
    assert "  It was cancelled, but a thread cannot be stopped from outside." in lines
    assert record.watchdog["event"] == "stuck cancel"
    assert record.watchdog["blockers"]
    watch.look(100.0)
    assert len(events) == 1


async def test_watchdog_logs_only_the_outermost_of_cancelled_scopes(events: list[Any]) -> None:
    watch = a_watch(stuck_cancel=5.0)
    with (
        nurseryio.CancelScope() as outer,
        nurseryio.CancelScope(),
        nurseryio.CancelScope() as inner,
    ):
        inner.cancel()
        outer.cancel()
        for now in (0.0, 10.0):
            watch.look(now)
    assert len(events) == 1


# -- channels ------------------------------------------------------------------------------


async def test_watchdog_logs_a_stuck_channel_and_again_only_after_a_pause(
    events: list[Any],
) -> None:
    watch = a_watch(stuck_channel=30.0, pause=100.0)
    sender, receiver = nurseryio.open_memory_channel[int](0)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(sender.send, 1, name="producer")
        await wait_all_tasks_blocked()
        for now in range(0, 200, 10):
            watch.look(float(now))
        nursery.cancel_scope.cancel()
    receiver.close()
    first, second = events
    assert first.watchdog["event"] == second.watchdog["event"] == "stuck channel"
    assert (first.watchdog["seconds"], second.watchdog["seconds"]) == (30.0, 150.0)
    assert text(first)[0].startswith("a memory channel is stuck: for at least 30.0 s no task has")


async def test_watchdog_logs_a_big_buffer_of_a_channel_that_is_made_while_it_watches(
    events: list[Any],
) -> None:
    looked = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            looked.set()

    handler = Handler()
    LOGGER.addHandler(handler)
    try:
        with Watchdog(slow_step=inf, stuck_cancel=0.01, big_buffer=10):
            sender, receiver = nurseryio.open_memory_channel[int](inf)
            for number in range(10):
                sender.send_nowait(number)
            await nurseryio.to_thread.run_sync(looked.wait)
            receiver.close()
    finally:
        LOGGER.removeHandler(handler)
    (record,) = events
    assert text(record)[0] == "a memory channel without a limit holds 10 items"
    assert record.watchdog["items"] == 10


# -- what trees show ---------------------------------------------------------------------


async def test_trees_say_how_long_a_task_has_waited_while_a_watchdog_watches() -> None:
    def waited() -> float | None:
        (task,) = (task for task in task_tree().tasks if task.name == "waits")
        return None if task.wait is None else task.wait.waited

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(forever, name="waits")
        await wait_all_tasks_blocked()
        with Watchdog(slow_step=inf, stuck_cancel=0.01):
            while waited() is None:
                await asyncio.sleep(0)
        assert waited() is None
        nursery.cancel_scope.cancel()


# -- many tasks ---------------------------------------------------------------------------


async def test_watchdog_logs_many_tasks_and_again_when_they_have_doubled(
    events: list[Any],
) -> None:
    watch = a_watch(many_tasks=100)
    now = 0.0
    async with nurseryio.open_nursery() as nursery:
        for count in (50, 100, 150, 400):
            while len(nursery.child_tasks) < count:
                nursery.start_soon(forever)
            await wait_all_tasks_blocked()
            now += 100.0
            watch.look(now)
        nursery.cancel_scope.cancel()
    first, second = events
    assert 100 <= first.watchdog["count"] < 150
    assert 400 <= second.watchdog["count"] < 450
    assert text(first)[0].endswith(" tasks; most of them are:")
    assert text(first)[1].lstrip().startswith("100 like ")


# -- the path -------------------------------------------------------------------------------


async def test_path_of_a_task_has_the_tasks_and_scopes_around_it_outermost_first() -> None:
    paths: list[list[str]] = []

    async def child() -> None:
        with nurseryio.CancelScope(shield=True):
            paths.append(path_of(current_task(), 0.0))

    async def parent() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child, name="child")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(parent, name="parent")
    assert paths[0][-5:] == [
        "nursery",
        "parent",
        "nursery",
        "child",
        "scope, shield without a deadline",
    ]


# -- the thread -----------------------------------------------------------------------------


async def test_watchdog_looks_from_a_thread_of_its_own_until_its_block_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []
    looked = threading.Event()

    def look(_watch: _Watch, _now: float) -> None:
        looks.append(threading.get_ident())
        looked.set()
        raise RuntimeError("must not end the thread")

    monkeypatch.setattr(_Watch, "look", look)
    with Watchdog(slow_step=0.001) as watchdog:
        assert "watching <" in repr(watchdog)
        while len(looks) < 2:
            looked.wait()
        with pytest.raises(RuntimeError, match="watching a loop already"):
            watchdog.start()
    assert threading.get_ident() not in looks
    assert "not watching" in repr(watchdog)
    assert "nurseryio watchdog" not in [thread.name for thread in threading.enumerate()]
    watchdog.stop()
    with watchdog:
        pass


def test_watchdog_as_an_instrument_watches_a_run_and_leaves_the_loop_at_full_speed() -> None:
    watchdog = Watchdog()

    async def main() -> None:
        assert "watching <" in repr(watchdog)
        assert "call_soon" not in vars(asyncio.get_running_loop())
        assert current_task()._state.step_hooks is None

    nurseryio.run(main, instruments=[watchdog])
    assert "not watching" in repr(watchdog)


def test_watchdog_logs_the_end_of_a_slow_step_after_which_the_run_ends(events: list[Any]) -> None:
    async def main() -> None:
        end = time.monotonic() + 10
        while not events and time.monotonic() < end:
            time.sleep(0.001)

    nurseryio.run(main, instruments=[Watchdog(slow_step=0.01)])
    assert [record.watchdog["ended"] for record in events] == [False, True]


def test_watchdog_ends_its_thread_after_its_loop_was_closed() -> None:
    watchdog = Watchdog(slow_step=0.001)

    async def main() -> None:
        watchdog.start()

    asyncio.run(main())
    while watchdog._watch is not None and watchdog._watch._thread.is_alive():
        watchdog._watch._thread.join(1)
    watchdog.stop()


async def test_watchdog_whose_thread_cannot_be_started_does_not_watch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    watchdog = Watchdog()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            watchdog.start()
    assert not watchers
    watchdog.stop()


def test_watchdog_without_a_loop_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        Watchdog().start()


@pytest.mark.parametrize(
    "name", ["slow_step", "stuck_cancel", "many_tasks", "stuck_channel", "big_buffer", "pause"]
)
def test_watchdog_refuses_values_that_are_no_positive_numbers(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        Watchdog(**{name: 0})
    with pytest.raises(TypeError, match=name):
        Watchdog(**{name: "x"})


async def test_watchdog_keeps_the_stack_of_each_cancel_while_it_watches() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_debug()
    loop.set_debug(False)
    try:
        stacks = []
        watchdog = Watchdog()
        for _ in range(2):
            with nurseryio.CancelScope() as scope:
                scope.cancel()
                try:
                    await nurseryio.sleep_forever()
                except nurseryio.Cancelled as error:
                    stacks.append(error.args[0].stack)
                    raise
            if len(stacks) == 1:
                watchdog.start()
        watchdog.stop()
        with nurseryio.CancelScope() as scope:
            scope.cancel()
        assert scope._reason is not None
        stacks.append(scope._reason.stack)
    finally:
        loop.set_debug(before)
    assert [stack is not None for stack in stacks] == [False, True, False]
    assert "scope.cancel()" in stacks[1]
