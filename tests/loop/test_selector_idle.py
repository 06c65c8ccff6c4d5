"""Waiting until a loop is idle, on loops with a selector and without, and hooks into it."""

# Covered below 95 %: clocks are in test_clock.py.

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from math import inf, nan
from typing import Any

import pytest
from harness import fake_loops, matrix

import nurseryio
from nurseryio import to_thread
from nurseryio._core.loop_state import loop_state
from nurseryio._core.task import current_state, current_task
from nurseryio._core.wait_queue import maybe_yield
from nurseryio._loop.polled_idle import _call_later_uses
from nurseryio._loop.selector_idle import selector_idle_of
from nurseryio.lowlevel import checkpoint, current_clock
from nurseryio.testing import MockClock, wait_all_tasks_blocked


async def test_wait_all_tasks_blocked_waits_until_every_other_task_waits() -> None:
    record = []

    async def busy() -> None:
        for _ in range(10):
            await checkpoint()
        record.append("busy no more")

    async def wait() -> None:
        await wait_all_tasks_blocked()
        record.append("idle")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(busy)
        nursery.start_soon(wait)
    assert record == ["busy no more", "idle", "idle"]


async def test_wait_all_tasks_blocked_counts_asyncio_tasks_as_well() -> None:
    record = []

    async def busy() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        record.append("busy no more")

    task = asyncio.ensure_future(busy())
    await wait_all_tasks_blocked()
    assert record == ["busy no more"]
    await task


async def test_cushion_of_wait_all_tasks_blocked_is_real_time_without_activity() -> None:
    record: list[object] = []

    async def blink() -> None:
        for _ in range(3):
            await nurseryio.sleep(0.02)
        record.append("blinked")

    async def wait(cushion: float) -> None:
        await wait_all_tasks_blocked(cushion)
        record.append(cushion)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(blink)
        for cushion in (0, 0.05, 0.05, 0.06):
            nursery.start_soon(wait, cushion)
    assert record == [0, "blinked", 0.05, 0.05, 0.06]


async def test_wait_all_tasks_blocked_counts_ready_io_as_activity() -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    with left, right:
        received = []

        async def receive() -> None:
            received.append(await asyncio.get_running_loop().sock_recv(left, 10))

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            right.send(b"x")
            await wait_all_tasks_blocked()
            assert received == [b"x"]


async def test_wait_all_tasks_blocked_can_be_cancelled_and_leaves_nothing() -> None:
    async def busy() -> None:
        while True:
            await checkpoint()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(busy)
        nursery.start_soon(wait_all_tasks_blocked)
        nursery.start_soon(wait_all_tasks_blocked, 10)
        await checkpoint()
        nursery.cancel_scope.cancel()
    with nurseryio.move_on_after(0.01) as scope:
        await wait_all_tasks_blocked(10)
    assert scope.cancelled_caught
    await wait_all_tasks_blocked()


async def test_a_native_cancel_ends_wait_all_tasks_blocked() -> None:
    task = asyncio.ensure_future(wait_all_tasks_blocked(10))
    await wait_all_tasks_blocked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("wrong", [-1, nan])
async def test_a_negative_cushion_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="cushion"):
        await wait_all_tasks_blocked(wrong)


async def test_a_task_in_wait_all_tasks_blocked_counts_as_blocked_itself() -> None:
    record: list[object] = []

    async def wait(cushion: float) -> None:
        await wait_all_tasks_blocked(cushion)
        record.append(cushion)

    async with nurseryio.open_nursery() as nursery:
        for cushion in (0.02, 0.01, 0):
            nursery.start_soon(wait, cushion)
    assert record == [0, 0.01, 0.02]


@pytest.mark.stock_only("looks at the selector")
async def test_the_selector_stays_hooked_under_a_mock_clock(mock_clock: object) -> None:
    # The clock of this run keeps the hook in place; on a loop without one it goes.
    assert current_state().selector.__dict__.get("select") is not None


@pytest.mark.stock_only("looks at the selector")
async def test_the_selector_of_a_loop_without_a_mock_clock_is_left_alone() -> None:
    selector = current_state().selector
    assert "select" not in selector.__dict__
    await wait_all_tasks_blocked()
    assert "select" not in selector.__dict__


@pytest.mark.stock_only("looks at the selector")
async def test_a_select_that_other_code_has_replaced_is_kept() -> None:
    selector = current_state().selector
    own, calls = selector.select, []

    def first(timeout: float | None) -> Any:
        calls.append("first")
        return own(timeout)

    def second(timeout: float | None) -> Any:
        calls.append("second")
        return hook(timeout)

    selector.select = first
    await wait_all_tasks_blocked()
    assert selector.select is first
    assert "first" in calls
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait_all_tasks_blocked)
        await checkpoint()
        hook = selector.select
        assert hook is not first
        selector.select = second
    assert "second" in calls
    assert selector.select is second
    await wait_all_tasks_blocked()
    assert selector.select is second
    del selector.select


def test_selector_idle_of_a_loop_without_a_selector_is_an_error() -> None:
    class NoSelector(asyncio.AbstractEventLoop):
        def time(self) -> float:
            return 0.0

        def is_closed(self) -> bool:
            return True

    with pytest.raises(RuntimeError, match="does not tell when it is idle"):
        selector_idle_of(loop_state(NoSelector()))


def test_current_clock_of_a_run_without_a_clock_shows_the_loops_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        clock = nurseryio.lowlevel.current_clock()
        assert clock is nurseryio.lowlevel.current_clock()
        before = loop.time()
        assert before <= clock.current_time() <= loop.time()
        assert 0 < clock.deadline_to_sleep_time(loop.time() + 10) <= 10
        assert clock.deadline_to_sleep_time(inf) == inf

    nurseryio.run(main)


async def test_instruments_see_each_io_wait_with_its_timeout(
    host_kind: str, loop_kind: str
) -> None:
    class IOWaiters(nurseryio.abc.Instrument):
        def __init__(self) -> None:
            self.record: list[Any] = []

        def before_io_wait(self, timeout: float) -> None:
            self.record.append(("before", timeout))

        def after_io_wait(self, timeout: float) -> None:
            self.record.append(("after", timeout))

    waits = IOWaiters()
    nurseryio.lowlevel.add_instrument(waits)
    await nurseryio.sleep(0.01)
    nurseryio.lowlevel.remove_instrument(waits)
    if loop_kind == "uvloop":
        assert waits.record == []
    else:
        assert [what for what, _ in waits.record[:2]] == ["before", "after"]
        assert any(0 < timeout <= 0.02 for _, timeout in waits.record)


async def test_repr_of_current_clock_shows_its_loop() -> None:
    assert repr(current_clock()) == f"<clock of {asyncio.get_running_loop()!r}>"


async def test_wait_all_tasks_blocked_that_fails_to_begin_is_unregistered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("nurseryio._loop.selector_idle.wait_task_rescheduled", fail)
        with pytest.raises(MemoryError):
            await wait_all_tasks_blocked()
    await nurseryio.sleep(0.01)  # idle: no task is woken
    await wait_all_tasks_blocked()


# -- loops that look like asyncio's own ------------------------------------------------


def on_fake(make: Any, host: str, main: Any, **options: Any) -> None:
    """Run an async function on a fake loop, under ``run`` or in a plain asyncio program."""
    if host == "run":
        nurseryio.run(main, loop_factory=make, **options)
    else:
        with contextlib.closing(make()) as loop:
            loop.run_until_complete(main())


each_fake = pytest.mark.parametrize("make", fake_loops.FAKES)


@each_fake
@pytest.mark.parametrize("host", matrix.HOSTS)
def test_wait_all_tasks_blocked_returns_on_a_loop_that_does_not_wait_in_its_selector(
    make: Any, host: str
) -> None:
    record: list[str] = []

    async def busy() -> None:
        for _ in range(10):
            await checkpoint()
        record.append("busy no more")

    async def main() -> None:
        left, right = socket.socketpair()
        left.setblocking(False)
        with left, right:

            async def receive() -> None:
                record.append(repr(await asyncio.get_running_loop().sock_recv(left, 10)))

            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(busy)
                await wait_all_tasks_blocked()
                assert record == ["busy no more"]
                nursery.start_soon(receive)
                await wait_all_tasks_blocked(0.01)
                right.send(b"x")
                await wait_all_tasks_blocked()
                assert record[1:] == ["b'x'"]

    on_fake(make, host, main)
    assert len(record) == 2


@each_fake
def test_a_virtual_clock_jumps_on_a_loop_that_does_not_wait_in_its_selector(make: Any) -> None:
    async def main() -> None:
        await nurseryio.sleep(3600)
        await asyncio.sleep(3600)
        assert nurseryio.current_time() == 7200

    on_fake(make, "run", main, clock=MockClock(autojump_threshold=0))


@each_fake
def test_a_clock_that_waits_in_real_time_works_on_a_loop_that_does_not_wait_in_its_selector(
    make: Any,
) -> None:
    """By its rate, by its threshold, by a cushion, and while a thread works."""

    async def sleeps() -> None:
        await nurseryio.sleep(10)
        await asyncio.sleep(10)
        assert nurseryio.current_time() >= 20

    async def rests() -> None:
        await wait_all_tasks_blocked(0.01)

    async def waits_for_a_thread() -> None:
        released = threading.Event()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(to_thread.run_sync, released.wait)
            await wait_all_tasks_blocked(0.01)
            released.set()
        await nurseryio.sleep(3600)

    on_fake(make, "run", sleeps, clock=MockClock(rate=1000))
    on_fake(make, "run", sleeps, clock=MockClock(autojump_threshold=0.01))
    on_fake(make, "run", rests, clock=MockClock())
    on_fake(make, "run", waits_for_a_thread, clock=MockClock(autojump_threshold=0))


def test_asking_what_call_later_uses_keeps_what_other_code_has_put_into_the_loop() -> None:
    whens: list[float] = []
    with contextlib.closing(asyncio.SelectorEventLoop()) as loop:
        own = loop.call_at

        def call_at(when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
            whens.append(when)
            return own(when, *args, **options)

        loop.call_at = call_at  # type: ignore[method-assign]
        names = vars(loop).keys() | ()
        assert _call_later_uses(loop, "time", "call_at")
        assert not _call_later_uses(loop, "call_soon")
        assert vars(loop)["call_at"] is call_at
        assert vars(loop).keys() == names
        assert len(whens) == 2


@each_fake
@pytest.mark.parametrize("host", matrix.HOSTS)
def test_a_yield_credit_is_not_spent_while_a_fake_loop_has_ready_callbacks(
    make: Any, host: str
) -> None:
    steps: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for number in range(3):
            loop.call_soon(steps.append, f"callback {number}")
            await maybe_yield(current_task())
            steps.append(f"step {number}")

    on_fake(make, host, main)
    assert steps == [f"{what} {number}" for number in range(3) for what in ("callback", "step")]
