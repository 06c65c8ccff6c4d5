"""Loops that do not report when they are idle: polled in each iteration, and driven by a clock."""

# Covered below 95 %: a loop that has to stay idle for some time is in test_idle.py.

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import nurseryio
from nurseryio._core.loop_state import loop_state
from nurseryio._loop.polled_idle import polled_idle_of
from nurseryio.lowlevel import checkpoint
from nurseryio.testing import MockClock, wait_all_tasks_blocked

uvloop = pytest.importorskip("uvloop")


def run(async_fn: Any, clock: MockClock) -> Any:
    return nurseryio.run(async_fn, clock=clock, loop_factory=uvloop.new_event_loop)


def test_the_autojump_clock_drives_every_kind_of_timer() -> None:
    async def main() -> list[float]:
        times = [nurseryio.current_time()]
        await nurseryio.sleep(3600)
        times.append(nurseryio.current_time())
        await asyncio.sleep(3600)
        times.append(nurseryio.current_time())
        with nurseryio.move_on_after(60):
            await asyncio.get_running_loop().create_future()
        times.append(asyncio.get_running_loop().time())
        return times

    assert run(main, MockClock(autojump_threshold=0)) == [0, 3600, 7200, 7260]


def test_timers_run_in_the_order_of_their_times_under_the_autojump_clock() -> None:
    record: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in (3, 1, 2):
            loop.call_later(number, record.append, number)
        never = loop.call_later(1, record.append, 0)
        never.cancel()
        await nurseryio.sleep(10)

    run(main, MockClock(autojump_threshold=0))
    assert record == [1, 2, 3]


def test_a_mock_clock_with_rate_zero_is_moved_by_jump() -> None:
    clock = MockClock()
    record: list[str] = []

    async def sleeper() -> None:
        await nurseryio.sleep(5)
        record.append("woke")

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(sleeper)
            await wait_all_tasks_blocked()
            assert record == []
            clock.jump(4)
            await wait_all_tasks_blocked()
            assert record == []
            clock.jump(1)
            await wait_all_tasks_blocked()
            assert record == ["woke"]

    run(main, clock)


def test_a_jump_of_the_mock_clock_takes_effect_at_the_next_checkpoint() -> None:
    clock = MockClock()

    async def main() -> None:
        with nurseryio.move_on_after(5):
            await checkpoint()
            clock.jump(10)
            with pytest.raises(nurseryio.Cancelled):
                await checkpoint()

    run(main, clock)


def test_a_mock_clock_with_a_high_rate_shortens_real_waits() -> None:
    async def main() -> float:
        await nurseryio.sleep(10)
        return nurseryio.current_time()

    assert run(main, MockClock(rate=1000)) >= 10


def test_an_error_in_a_virtual_timer_goes_to_the_loops_exception_handler() -> None:
    reports: list[Any] = []

    def fail() -> None:
        raise KeyError("timer")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
        loop.call_later(1, fail)
        await nurseryio.sleep(2)

    run(main, MockClock(autojump_threshold=0))
    assert [repr(report) for report in reports] == ["KeyError('timer')"]


async def test_polled_idle_of_a_loop_is_made_once() -> None:
    state = loop_state(asyncio.get_running_loop())
    assert polled_idle_of(state) is polled_idle_of(state)


def test_a_clock_that_fails_ends_the_run_with_its_error() -> None:
    clock = MockClock(autojump_threshold=0)

    async def main() -> None:
        await nurseryio.sleep(1)
        clock._real_clock = fail
        await nurseryio.sleep(1)

    def fail() -> float:
        clock._real_clock = real
        raise OSError("no time")

    real = clock._real_clock
    with pytest.raises(OSError, match="no time"):
        run(main, clock)


def test_a_clock_that_keeps_failing_ends_the_run_too() -> None:
    clock = MockClock(autojump_threshold=0)

    async def main() -> None:
        await nurseryio.sleep(1)
        clock._real_clock = fail
        await nurseryio.sleep_forever()

    def fail() -> float:
        raise OSError("no time")

    with pytest.raises(OSError, match="no time"):
        run(main, clock)


def test_wait_all_tasks_blocked_raises_an_error_of_the_idle_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object) -> None:
        raise MemoryError

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("nurseryio._loop.polled_idle.compat.count_tasks", fail)
            with pytest.raises(MemoryError):
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()

    nurseryio.run(main, loop_factory=uvloop.new_event_loop)
