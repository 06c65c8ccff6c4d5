"""The virtual clock: its arithmetic, and a loop that goes by it."""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from math import inf, nan
from typing import Any

import pytest

import nurseryio
from nurseryio.testing import MockClock, wait_all_tasks_blocked
from nurseryio.testing.clock import NEVER


class RealTime:
    """Stands in for the real clock."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def clock_over(real: RealTime) -> MockClock:
    clock = MockClock()
    clock._real_clock = real
    clock.rate = clock.rate  # take the new base
    return clock


# -- arithmetic -----------------------------------------------------------------


def test_a_new_mock_clock_stands_still_at_zero() -> None:
    clock = MockClock()
    assert clock.rate == 0
    assert clock.autojump_threshold == inf
    assert clock.current_time() == 0
    assert clock.deadline_to_sleep_time(0.1) == NEVER
    assert "time 0.0" in repr(clock)


def test_mock_clock_jump_moves_forward_only() -> None:
    clock = MockClock()
    clock.jump(1.2)
    assert clock.current_time() == 1.2
    for wrong in (-1, nan):
        with pytest.raises(ValueError, match="time can't go backwards"):
            clock.jump(wrong)
    assert clock.current_time() == 1.2
    assert clock.deadline_to_sleep_time(1.1) == 0
    assert clock.deadline_to_sleep_time(1.2) == 0
    assert clock.deadline_to_sleep_time(1.3) == NEVER


def test_mock_clock_rate_is_how_fast_time_passes_from_now_on() -> None:
    real = RealTime(123.0)
    clock = clock_over(real)
    clock.jump(1.2)
    clock.rate = 2
    assert clock.current_time() == 1.2
    real.now += 1
    assert clock.current_time() == 3.2
    assert clock.deadline_to_sleep_time(3.2) == 0
    assert clock.deadline_to_sleep_time(4.2) == 0.5

    clock.rate = 0.5
    assert clock.current_time() == 3.2
    assert clock.deadline_to_sleep_time(4.2) == 2.0
    clock.jump(0.8)
    assert clock.current_time() == 4.0
    real.now += 1
    assert clock.current_time() == 4.5

    clock.rate = 0
    real.now += 1000
    assert clock.current_time() == 4.5


@pytest.mark.parametrize("wrong", [-1, nan])
def test_a_negative_or_none_rate_or_autojump_threshold_is_refused(wrong: float) -> None:
    clock = MockClock(rate=3, autojump_threshold=4)
    with pytest.raises(ValueError, match="rate must be >= 0"):
        clock.rate = wrong
    with pytest.raises(ValueError, match="autojump_threshold must be >= 0"):
        clock.autojump_threshold = wrong
    with pytest.raises(ValueError, match="rate"):
        MockClock(rate=wrong)
    assert (clock.rate, clock.autojump_threshold) == (3, 4)


def test_mock_clock_is_a_clock_and_cannot_be_subclassed() -> None:
    assert isinstance(MockClock(), nurseryio.abc.Clock)
    with pytest.raises(TypeError):

        class Mine(MockClock):
            pass


# -- a loop that goes by it -----------------------------------------------------


async def test_everything_on_the_loop_goes_by_the_mock_clock(mock_clock: MockClock) -> None:
    loop = asyncio.get_running_loop()
    assert nurseryio.lowlevel.current_clock() is mock_clock
    mock_clock.jump(10)
    assert nurseryio.current_time() == loop.time() == 10


async def test_mock_clock_time_stands_still_until_the_test_calls_jump(
    mock_clock: MockClock,
) -> None:
    record = []

    async def sleep(name: str, function: Any, seconds: float) -> None:
        await function(seconds)
        record.append((name, nurseryio.current_time()))

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(sleep, "ours", nurseryio.sleep, 5)
        nursery.start_soon(sleep, "asyncio's", asyncio.sleep, 6)
        await wait_all_tasks_blocked()
        assert record == []
        mock_clock.jump(5)
        await wait_all_tasks_blocked()
        assert record == [("ours", 5)]
        mock_clock.jump(10)
        await wait_all_tasks_blocked()
        assert record == [("ours", 5), ("asyncio's", 15)]


async def test_the_autojump_clock_jumps_from_timer_to_timer(autojump_clock: MockClock) -> None:
    for i in range(10):
        start = nurseryio.current_time()
        await nurseryio.sleep(10 * i)
        assert nurseryio.current_time() == start + 10 * i


async def test_the_autojump_clock_jumps_to_asyncio_timers_too(autojump_clock: MockClock) -> None:
    loop = asyncio.get_running_loop()
    called = []
    loop.call_later(30, lambda: called.append(loop.time()))
    loop.call_at(40, lambda: called.append(loop.time()))
    await asyncio.sleep(3600)
    assert loop.time() == 3600
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), 60)
    assert loop.time() == 3660
    if sys.version_info >= (3, 11):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        assert loop.time() == 3720
    assert called == [30, 40]


async def test_the_autojump_clock_fires_nurseryio_and_asyncio_timers_in_order(
    autojump_clock: MockClock,
) -> None:
    record = []

    async def sleep(function: Any, seconds: float) -> None:
        await function(seconds)
        record.append(seconds)

    async with nurseryio.open_nursery() as nursery:
        for i in range(10):
            nursery.start_soon(sleep, (nurseryio.sleep, asyncio.sleep)[i % 2], float(10 - i))
    assert record == sorted(record)
    assert len(record) == 10


@pytest.mark.parametrize("late", [1e6, 1e9, 1e12, 1e15])
async def test_the_autojump_clock_reaches_times_at_the_limit_of_float_precision(
    autojump_clock: MockClock, late: float
) -> None:
    await nurseryio.sleep(late)
    assert nurseryio.current_time() == pytest.approx(late, rel=1e-12)
    await asyncio.sleep(late)
    assert nurseryio.current_time() == pytest.approx(2 * late, rel=1e-12)


async def test_the_autojump_clock_does_not_jump_to_a_removed_deadline(
    autojump_clock: MockClock,
) -> None:
    with nurseryio.move_on_after(1000):
        await nurseryio.sleep(1)
    with nurseryio.move_on_after(inf) as scope:
        scope.deadline = 5000
        scope.deadline = inf
        await nurseryio.sleep(2)
    assert nurseryio.current_time() == 3


async def test_a_change_of_autojump_threshold_takes_effect_at_once(mock_clock: MockClock) -> None:
    mock_clock.autojump_threshold = 10000
    await wait_all_tasks_blocked()
    mock_clock.autojump_threshold = 0
    await nurseryio.sleep(100000)
    assert nurseryio.current_time() == 100000


async def test_the_autojump_threshold_of_another_clock_has_no_effect(mock_clock: MockClock) -> None:
    other = MockClock(autojump_threshold=0)
    mock_clock.autojump_threshold = 0.02
    await wait_all_tasks_blocked(0.01)
    assert other.current_time() == nurseryio.current_time() == 0
    await nurseryio.sleep(1000)
    assert other.current_time() == 0
    assert nurseryio.current_time() == 1000


async def test_wait_all_tasks_blocked_returns_before_the_autojump(
    autojump_clock: MockClock,
) -> None:
    record = []

    async def sleeper() -> None:
        await nurseryio.sleep(100)
        record.append("slept")

    async def waiter(cushion: float) -> None:
        await wait_all_tasks_blocked(cushion)
        record.append("idle")
        await nurseryio.sleep(1000)
        record.append("slept long")

    for cushion in (0.0, 0.01):
        record.clear()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(sleeper)
            nursery.start_soon(waiter, cushion)
        assert record == ["idle", "slept", "slept long"]


async def test_a_positive_autojump_threshold_lets_real_io_go_first(mock_clock: MockClock) -> None:
    # The longer a thread takes, the larger the threshold has to be: here it is large.
    mock_clock.autojump_threshold = 30
    assert await nurseryio.to_thread.run_sync(time.sleep, 0.01) is None
    assert nurseryio.current_time() == 0


def test_a_mock_clock_with_a_rate_makes_the_loop_wait_less() -> None:
    start = time.perf_counter()
    nurseryio.run(nurseryio.sleep, 100, clock=MockClock(rate=10000))
    assert 0.01 <= time.perf_counter() - start < 10


def test_a_mock_clock_can_be_set_up_before_its_run() -> None:
    clock = MockClock(autojump_threshold=0.1)
    clock.autojump_threshold = 0.01
    nurseryio.run(nurseryio.sleep, 10000, clock=clock)
    assert clock.current_time() == 10000


def test_a_mock_clock_may_serve_several_runs_and_goes_on() -> None:
    clock = MockClock(autojump_threshold=0)
    for _ in range(3):
        nurseryio.run(nurseryio.sleep, 10, clock=clock)
    assert clock.current_time() == 30


def run_on_uvloop(function: Any, clock: nurseryio.abc.Clock) -> None:
    uvloop = pytest.importorskip("uvloop")
    nurseryio.run(function, clock=clock, loop_factory=uvloop.new_event_loop)


def test_uvloop_goes_by_an_autojump_clock() -> None:
    async def main() -> None:
        record = []

        async def sleep(function: Any, seconds: float) -> None:
            await function(seconds)
            record.append(seconds)

        async with nurseryio.open_nursery() as nursery:
            for i in range(10):
                nursery.start_soon(sleep, (nurseryio.sleep, asyncio.sleep)[i % 2], 60.0 * (10 - i))
        assert record == [60.0 * i for i in range(1, 11)]
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 60)
        with nurseryio.move_on_after(60):
            await nurseryio.sleep_forever()
        assert asyncio.get_running_loop().time() == nurseryio.current_time() == 720

    run_on_uvloop(main, MockClock(autojump_threshold=0))


def test_uvloop_goes_by_a_mock_clock_moved_by_jump() -> None:
    clock = MockClock()

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 5)
            nursery.start_soon(asyncio.sleep, 6)
            for left in (2, 1, 0):
                await wait_all_tasks_blocked()
                assert len(nursery.child_tasks) == left
                clock.jump(5.5 if left == 2 else 1)

    run_on_uvloop(main, clock)


def test_uvloop_goes_by_a_mock_clock_with_a_rate() -> None:
    start = time.perf_counter()
    run_on_uvloop(functools.partial(nurseryio.sleep, 100), MockClock(rate=10000))
    assert 0.01 <= time.perf_counter() - start < 10


def test_a_custom_clock_needs_only_the_abc_clock_methods() -> None:
    class Doubled(nurseryio.abc.Clock):
        started = 0

        def start_clock(self) -> None:
            self.started += 1

        def current_time(self) -> float:
            return 2000 * time.perf_counter()

        def deadline_to_sleep_time(self, deadline: float) -> float:
            return (deadline - self.current_time()) / 2000

    clock = Doubled()
    nurseryio.run(asyncio.sleep, 10, clock=clock)
    assert clock.started == 1


async def test_the_autojump_clock_jumps_through_ten_thousand_timers_quickly(
    autojump_clock: MockClock,
) -> None:
    async with nurseryio.open_nursery() as nursery:
        for i in range(5000):
            nursery.start_soon(nurseryio.sleep, i)
            nursery.start_soon(asyncio.sleep, i + 0.5)
    assert nurseryio.current_time() == 4999.5


def test_a_mock_clock_change_that_fails_leaves_the_time_as_it_is() -> None:
    clock = MockClock(rate=2.0)
    clock._real_clock = iter([clock._real_base + 5.0]).__next__

    with pytest.raises(StopIteration):
        clock.rate = 3.0  # the time is read twice
    clock._real_clock = lambda: clock._real_base + 5.0
    assert clock.rate == 2.0
    assert clock.current_time() == 10.0


# -- inside a clock of the user's -----------------------------------------------


class Around(nurseryio.abc.Clock):
    """A clock of a user, around one that jumps."""

    def __init__(self, shape: Any, inner: Any = None, starts: bool = True) -> None:
        self.shape = shape
        self.inner = inner or MockClock(autojump_threshold=0)
        self.starts = starts

    def start_clock(self) -> None:
        if self.starts:
            self.inner.start_clock()

    def current_time(self) -> float:
        time: float = self.shape(self.inner.current_time())
        return time

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return 0.0 if deadline <= self.current_time() else NEVER


AROUND = {
    "as it is": lambda: Around(lambda t: t),
    "never started": lambda: Around(lambda t: t, starts=False),
    "a wall clock": lambda: Around(lambda t: 1.7e9 + t),
    "faster": lambda: Around(lambda t: 3 * t),
    "slower": lambda: Around(lambda t: t / 7 - 5),
    "in steps": lambda: Around(lambda t: t // 0.5 * 0.5),
    "two deep": lambda: Around(lambda t: t + 1, Around(lambda t: 2 * t)),
}


@pytest.mark.parametrize("make", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("loop", ["stock", "uvloop"])
def test_an_autojump_clock_inside_a_users_clock_jumps(make: Any, loop: str) -> None:
    slept = []

    async def main() -> None:
        begun = nurseryio.current_time()
        for sleep, seconds in ((nurseryio.sleep, 2.0), (asyncio.sleep, 3600.25), (None, 0.7)):
            if sleep is not None:
                await sleep(seconds)
            else:
                with nurseryio.move_on_after(seconds):
                    await nurseryio.sleep_forever()
            slept.append(nurseryio.current_time() - begun)
            begun = nurseryio.current_time()

    if loop == "uvloop":
        run_on_uvloop(main, make())
    else:
        nurseryio.run(main, clock=make())
    # Never too short, and as exact as a clock is that shows half seconds.
    assert 2.0 - 1e-6 <= slept[0] <= 2.5 + 1e-6
    assert 3600.25 - 1e-6 <= slept[1] <= 3601
    assert 0.7 - 1e-6 <= slept[2] <= 1.25


@pytest.mark.parametrize("loop", ["stock", "uvloop"])
def test_a_mock_clock_inside_another_clock_can_jump_and_autojump(loop: str) -> None:
    clock = Around(lambda t: t + 100, MockClock())

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 5)
            await wait_all_tasks_blocked()
            clock.inner.jump(5)
        assert nurseryio.current_time() == 105
        clock.inner.autojump_threshold = 0
        await nurseryio.sleep(5)
        assert nurseryio.current_time() == 110

    if loop == "uvloop":
        run_on_uvloop(main, clock)
    else:
        nurseryio.run(main, clock=clock)


def test_an_autojump_clock_inside_another_clock_reports_a_deadlock() -> None:
    with pytest.raises(nurseryio.testing.DeadlockError):
        nurseryio.run(nurseryio.sleep_forever, clock=Around(lambda t: t))
