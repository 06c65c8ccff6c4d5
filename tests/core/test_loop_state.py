"""The state of an event loop: its deadline timer, and how failures are finished."""

# Covered below 95 %: finishing what has failed half-way is in test_injection.py; calls from other
# threads are in test_wrong_thread.py.

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Any

import pytest
from harness import matrix, pypy
from harness.core import turns

import nurseryio
from nurseryio import open_nursery
from nurseryio._asyncio import loop_parts
from nurseryio._core import loop_state as loop_state_module
from nurseryio._core.loop_state import loop_state, sweep_closed_loops
from nurseryio._core.task import current_state
from nurseryio.lowlevel import checkpoint, current_task

VAR = contextvars.ContextVar("VAR", default="unset")


async def test_a_loop_has_one_state() -> None:
    state = current_state()
    assert loop_state(asyncio.get_running_loop()) is state
    assert current_task()._state is state


def test_a_loop_first_used_from_another_thread_is_asked_for_its_parts_in_its_own() -> None:
    async def main() -> tuple[object, object]:
        loop = asyncio.get_running_loop()
        state = await asyncio.to_thread(loop_state, loop)
        before = state.ready
        assert current_state() is state
        return before, state

    with contextlib.closing(matrix.new_loop("stock")) as loop:
        before, state = loop.run_until_complete(main())
        assert before is loop_parts.NOT_ASKED
        assert state.ready is loop._ready
        assert state.selector is loop._selector
        state.run_soon()
        assert len(loop._ready) == 1


def test_two_threads_that_use_a_loop_first_get_the_same_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def faster() -> None:
        monkeypatch.undo()
        states.append(loop_state(loop))

    states: list[object] = []
    monkeypatch.setattr("nurseryio._core.loop_state.sweep_closed_loops", faster)
    with contextlib.closing(asyncio.SelectorEventLoop()) as loop:
        states.append(loop_state(loop))
        assert states == [loop_state(loop)] * 2


async def test_many_deadlines_share_one_timer_of_the_loop() -> None:
    state = current_state()
    before = state.timer
    with nurseryio.move_on_after(50):
        armed = state.timer
        assert armed is not None
        assert armed is not before
        with nurseryio.move_on_after(60), nurseryio.move_on_after(70):
            assert state.timer is armed
        with nurseryio.move_on_after(40):
            assert state.timer is not armed
    for _ in range(3):
        with nurseryio.move_on_after(100):
            pass
    assert len(state.deadlines) == 0


async def test_an_overdue_deadline_timer_is_armed_again_once_and_not_for_each_deadline() -> None:
    state = current_state()
    with nurseryio.move_on_after(50):
        # As in an iteration of the loop that has taken long.
        late = state.timer
        state.armed_at = state.loop.time() - 1
        state.not_lost_until = -inf
        with nurseryio.move_on_after(60):
            again = state.timer
            assert again is not late
            state.armed_at = state.loop.time() - 1
            with nurseryio.move_on_after(70), nurseryio.move_on_after(80):
                assert state.timer is again
            state.not_lost_until = -inf
            with nurseryio.move_on_after(90):
                assert state.timer is not again


async def test_arm_exactly_after_a_dropped_deadline_arms_the_timer_for_the_next_one() -> None:
    state = current_state()
    with nurseryio.move_on_after(50):
        with nurseryio.move_on_after(40):
            pass
        assert state.armed_at < state.deadlines.next()
        state.arm_exactly()
        assert state.armed_at == state.deadlines.next()


async def test_after_a_deadline_the_timer_is_armed_once_for_the_remaining_deadlines() -> None:
    state = current_state()
    seen = []
    with nurseryio.move_on_after(60):
        with nurseryio.move_on_after(0.001):
            try:
                await nurseryio.sleep(50)
            finally:
                seen.append(state.armed_at)
        await turns(1)
        assert seen == [inf]
        assert state.armed_at == state.deadlines.next() < inf


def test_the_loop_state_of_a_closed_loop_is_freed_when_another_is_made() -> None:
    kept = []

    async def main() -> None:
        kept.append(weakref.ref(current_state()))

    nurseryio.run(main)
    nurseryio.run(main)
    gc.collect()
    assert kept[0]() is None


# -- a loop whose time is replaced --------------------------------------------------


@pytest.mark.stock_only("uvloop's own timers do not ask for loop.time()")
@pytest.mark.limit(10)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_deadlines_follow_a_loop_whose_time_method_is_replaced_without_spinning(
    when: str,
) -> None:
    loop: Any = asyncio.get_running_loop()
    real, ahead = loop.time, 0.0
    fired: list[str] = []
    counted: list[int] = []
    state = current_state()

    async def ours() -> None:
        await nurseryio.sleep(100)
        fired.append("ours")

    async def asyncios() -> None:
        await asyncio.sleep(100)
        fired.append("asyncio's")

    def replace() -> None:
        loop.time = lambda: real() + ahead

    if when == "before":
        replace()
    try:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(ours)
            await turns(3)
            if when == "after":
                replace()
            assert fired == []
            ahead = 101.0
            await turns(2)
            # A loop looks at its timers only because of a timer or of a new callback.
            with nurseryio.move_on_after(0.005):
                while True:
                    counted.append(1)
                    await asyncio.sleep(0.0005)
            assert fired == ["ours"]
            assert nurseryio.current_time() - real() > 100
    finally:
        del loop.time
    assert len(counted) < 100
    state.arm_exactly()


async def test_the_timer_of_a_page_is_relative_and_not_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``call_at`` of Pyodide's loop raises for a time in the past, which it may be by then."""
    monkeypatch.setattr(loop_state_module, "IS_WASM", True)
    loop = asyncio.get_running_loop()
    delays: list[float] = []
    call_later = loop.call_later

    def noting(delay: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        delays.append(delay)
        return call_later(delay, *args, **options)

    monkeypatch.setattr(loop, "call_later", noting, raising=False)
    with nurseryio.move_on_after(30 * 24 * 3600):
        with nurseryio.move_on_after(0.001) as scope:
            await nurseryio.sleep_forever()
    assert scope.cancelled_caught
    assert delays[0] == pytest.approx(loop_state_module.LONGEST_TIMER)
    assert 0 < delays[1] < 0.0011


# -- a loop that is closed with an open nursery -----------------------------------------


@pypy.needs_reference_counting
@pytest.mark.parametrize("another", ["", "asyncio", "run"])
@pytest.mark.parametrize("wait", ["child", "block", "start", "native"])
@pytest.mark.parametrize("kind", [kind for kind in ("stock", "uvloop") if kind in matrix.KINDS])
def test_a_loop_closed_with_an_open_nursery_prints_and_warns_nothing(
    kind: str,
    wait: str,
    another: str,
    monkeypatch: pytest.MonkeyPatch,
    loop_errors: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_value))
    steps: list[str] = []

    async def child() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            steps.append("child")

    async def starting(*, task_status: Any) -> None:
        await child()

    async def foreign() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            steps.append("child")

    async def host() -> None:
        try:
            with nurseryio.move_on_after(100):
                async with nurseryio.open_nursery() as nursery:
                    if wait == "start":
                        await nursery.start(starting)
                    nursery.start_soon(foreign if wait == "native" else child)
                    if wait == "block":
                        await nurseryio.sleep_forever()
        finally:
            steps.append("host")

    def leave_alone() -> Any:
        loop = matrix.new_loop(kind)
        task = loop.create_task(host())
        for _ in range(3):
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()
        return weakref.ref(task)

    reference = leave_alone()
    if another == "asyncio":
        asyncio.run(asyncio.sleep(0))
    elif another == "run":
        nurseryio.run(nurseryio.lowlevel.checkpoint)
    gc.collect()
    assert unraisable == []
    if another == "run":  # which sweeps out what is kept for loops that are closed
        assert reference() is None
        assert sorted(steps) == ["child", "host"]
    assert all("Task was destroyed but it is pending" in error for error in loop_errors)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    nurseryio.run(nurseryio.lowlevel.checkpoint)  # the states of closed loops go
    gc.collect()
    assert unraisable == []


# -- a loop that is closed while it has tasks -----------------------------------------


async def hold_together(thing: Any) -> None:
    """Have three tasks hold it, or wait for it."""

    async def hold() -> None:
        async with thing:
            await nurseryio.sleep_forever()

    async with open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hold)


async def hold_a_lock() -> None:
    await hold_together(nurseryio.Lock())


async def hold_a_strict_lock() -> None:
    await hold_together(nurseryio.StrictFIFOLock())


async def hold_a_semaphore() -> None:
    await hold_together(nurseryio.Semaphore(2))


async def hold_a_token() -> None:
    await hold_together(nurseryio.CapacityLimiter(2))


async def hold_a_condition() -> None:
    await hold_together(nurseryio.Condition())


async def wait_for_a_condition() -> None:
    condition = nurseryio.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    async with open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await checkpoint()
        await checkpoint()
        async with condition:
            await nurseryio.sleep_forever()


async def hold_a_channel() -> None:
    send, receive = nurseryio.open_memory_channel[int](0)
    async with send, receive, open_nursery() as nursery:
        nursery.start_soon(receive.receive)
        await receive.receive()


async def hold_a_safe_channel() -> None:
    @nurseryio.as_safe_channel
    async def numbers() -> AsyncIterator[int]:
        async with open_nursery():
            yield 1
            await nurseryio.sleep_forever()

    async with numbers() as channel:
        async for _ in channel:
            pass


@pypy.needs_reference_counting
@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize(
    "hold",
    [
        hold_a_lock,
        hold_a_strict_lock,
        hold_a_semaphore,
        hold_a_token,
        hold_a_condition,
        wait_for_a_condition,
        hold_a_channel,
        hold_a_safe_channel,
    ],
)
def test_locks_and_scopes_held_by_tasks_of_a_closed_loop_print_and_warn_nothing(
    hold: Callable[[], Awaitable[None]], running: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_closed_loops()
    gc.collect()  # leftovers of other tests are reported before
    noise: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", noise.append)

    async def main() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(hold)
            nursery.start_soon(nurseryio.sleep_forever)

    def close_with_tasks() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _loop, _context: None)  # "Task was destroyed ..."
        task = loop.create_task(main())
        for _ in range(20):  # iterations of the loop, in which the tasks begin to wait
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()
        assert not task.done()

    async def collect() -> None:
        await nurseryio.sleep(0)
        gc.collect()

    close_with_tasks()
    if running:
        asyncio.run(collect())
    else:
        sweep_closed_loops()
        gc.collect()
    assert [entry.exc_value for entry in noise] == []


def test_a_state_that_two_threads_make_at_the_same_time_is_shown_to_each_hook_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.new_event_loop()
    real, seen = loop_state_module.LoopState, []

    def make(its_loop: asyncio.AbstractEventLoop) -> Any:
        # Another thread makes the state meanwhile.
        monkeypatch.setattr(loop_state_module, "LoopState", real)
        seen.append(loop_state(its_loop))
        return real(its_loop)

    shown: list[Any] = []
    monkeypatch.setattr(loop_state_module, "new_state_hooks", [shown.append])
    monkeypatch.setattr(loop_state_module, "LoopState", make)
    assert loop_state(loop) is seen[0]
    assert shown == seen
    loop.close()
