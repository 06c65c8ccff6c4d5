"""The edge edge: one cancellation, then time to clean up, then cancellation is in force again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf, nan

import pytest
from harness.core import cancelling, settle

import nurseryio
from nurseryio.aio import edge_cancellation


class Pool:
    """The cleanup of a connection pool for asyncio when a query is cancelled."""

    def __init__(self) -> None:
        self.leaked = 1
        self.steps = 0

    async def query(self) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            for _ in range(3):  # cancel on the server, drain the answer, return the connection
                await asyncio.sleep(0.001)
                self.steps += 1
            self.leaked = 0
            raise


async def test_level_triggered_cleanup_is_cut_short_without_edge_cancellation() -> None:
    pool = Pool()
    with nurseryio.move_on_after(0.005) as scope:
        await pool.query()
    assert scope.cancelled_caught
    assert pool.leaked == 1


async def test_edge_cancellation_lets_cleanup_of_several_awaits_finish() -> None:
    pool = Pool()
    with nurseryio.move_on_after(0.005) as scope:
        with edge_cancellation(grace=5) as edge:
            await pool.query()
    assert scope.cancelled_caught
    assert edge.cancelled_once
    assert (pool.leaked, pool.steps) == (0, 3)
    assert cancelling() == 0


async def test_edge_cancellation_without_a_cancellation_changes_nothing() -> None:
    with nurseryio.CancelScope() as scope:
        with edge_cancellation(grace=1) as edge:
            await asyncio.sleep(0)
            await nurseryio.lowlevel.checkpoint()
        assert not edge.cancelled_once
        scope.cancel()
        await nurseryio.sleep_forever()
    assert scope.cancelled_caught


async def test_after_the_grace_period_cancellation_is_level_triggered_again(
    autojump_clock: nurseryio.testing.MockClock,
) -> None:
    cancel_requested = []
    with nurseryio.CancelScope() as scope, edge_cancellation(grace=3):
        scope.cancel()
        for _ in range(3):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancel_requested.append(nurseryio.current_time())
    assert cancel_requested == [0, 3, 3]


async def test_nurseryio_operations_work_in_the_grace_period_too(
    autojump_clock: nurseryio.testing.MockClock,
) -> None:
    done = []
    with nurseryio.CancelScope() as scope, edge_cancellation(grace=3):
        scope.cancel()
        with pytest.raises(nurseryio.Cancelled):
            await nurseryio.lowlevel.checkpoint()
        await nurseryio.lowlevel.checkpoint()
        await nurseryio.sleep(1)
        await nurseryio.Lock().acquire()
        done.append(nurseryio.current_time())
        await nurseryio.sleep(10)
    assert done == [1]
    assert nurseryio.current_time() == 3
    assert scope.cancelled_caught


async def test_an_endless_grace_period_lasts_as_long_as_the_block() -> None:
    done = []
    with nurseryio.CancelScope() as scope:
        with edge_cancellation(grace=inf):
            scope.cancel()
            with pytest.raises(nurseryio.Cancelled):
                await asyncio.sleep(1)
            await asyncio.sleep(0.001)
            done.append("cleaned up")
        await asyncio.sleep(1)
        done.append("not reached")
    assert done == ["cleaned up"]


async def test_without_grace_cancellation_is_level_triggered_as_everywhere() -> None:
    number = 0
    with nurseryio.CancelScope() as scope, edge_cancellation(grace=0):
        scope.cancel()
        for _ in range(5):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                number += 1
    assert number == 5


async def test_leaving_edge_cancellation_ends_the_grace_period_at_once() -> None:
    with nurseryio.CancelScope() as scope:
        with edge_cancellation(grace=60):
            scope.cancel()
            with pytest.raises(nurseryio.Cancelled):
                await asyncio.sleep(1)
        with pytest.raises(nurseryio.Cancelled):
            await asyncio.sleep(1)
        with pytest.raises(nurseryio.Cancelled):
            await nurseryio.lowlevel.checkpoint()
    assert cancelling() == 0


async def test_a_scope_inside_edge_cancellation_is_level_triggered_as_always() -> None:
    number = 0
    with edge_cancellation(grace=60) as edge:
        with nurseryio.CancelScope() as inside:
            inside.cancel()
            for _ in range(3):
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    number += 1
    assert number == 3
    assert not edge.cancelled_once


async def sleep_on_asyncio() -> None:
    await asyncio.sleep(60)


@pytest.mark.parametrize("wait", [sleep_on_asyncio, nurseryio.sleep_forever])
async def test_a_timeout_inside_edge_cancellation_works_during_the_grace_period(
    wait: Callable[[], Awaitable[None]],
) -> None:
    with nurseryio.CancelScope() as outer, edge_cancellation(grace=60) as edge:
        outer.cancel()
        with nurseryio.move_on_after(60) as passed:
            await asyncio.sleep(1)
    assert edge.cancelled_once
    assert not passed.cancelled_caught
    with nurseryio.CancelScope() as outer, edge_cancellation(grace=60):
        outer.cancel()
        with pytest.raises(nurseryio.Cancelled):
            await asyncio.sleep(1)
        with nurseryio.move_on_after(0.001) as inside:
            await wait()
        assert inside.cancelled_caught
        with pytest.raises(nurseryio.TooSlowError):
            with nurseryio.fail_after(0.001):
                await wait()
        await asyncio.sleep(0)  # cleanup goes on
    await nurseryio.lowlevel.checkpoint()
    assert cancelling() == 0


async def test_a_scope_from_before_the_cancellation_works_during_the_grace_period() -> None:
    with nurseryio.CancelScope() as outer, edge_cancellation(grace=60):
        with nurseryio.CancelScope() as inside:
            outer.cancel()
            with pytest.raises(nurseryio.Cancelled):
                await asyncio.sleep(1)
            asyncio.get_running_loop().call_soon(inside.cancel)
            await asyncio.sleep(60)
        assert inside.cancelled_caught
        await asyncio.sleep(0)
    assert cancelling() == 0


async def test_an_asyncio_timeout_inside_works_during_the_grace_period() -> None:
    with nurseryio.CancelScope() as outer, edge_cancellation(grace=60):
        outer.cancel()
        with pytest.raises(nurseryio.Cancelled):
            await asyncio.sleep(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 0.001)
    assert cancelling() == 0


async def test_edge_cancellation_blocks_nest() -> None:
    with nurseryio.CancelScope() as outer:
        with edge_cancellation(grace=60) as first:
            with edge_cancellation(grace=60) as second:
                outer.cancel()
                with pytest.raises(nurseryio.Cancelled):
                    await asyncio.sleep(1)
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        assert first.cancelled_once
        assert second.cancelled_once
        with pytest.raises(nurseryio.Cancelled):
            await asyncio.sleep(1)


async def test_a_native_cancel_is_not_deferred_by_edge_cancellation() -> None:
    cancel_requested = []

    async def child() -> None:
        with edge_cancellation(grace=60):
            for _ in range(2):
                try:
                    await asyncio.sleep(10)
                except asyncio.CancelledError:
                    cancel_requested.append(1)

    task = asyncio.ensure_future(child())
    await settle()
    task.cancel()
    await settle()
    task.cancel()
    await task
    assert cancel_requested == [1, 1]


async def test_each_child_has_its_own_edge_cancellation() -> None:
    pools = [Pool(), Pool()]

    async def child(pool: Pool) -> None:
        with edge_cancellation(grace=5):
            await pool.query()

    async with nurseryio.open_nursery() as nursery:
        for pool in pools:
            nursery.start_soon(child, pool)
        await settle()
        nursery.cancel_scope.cancel()
    assert [pool.leaked for pool in pools] == [0, 0]


@pytest.mark.parametrize("grace", [-1, nan])
def test_edge_cancellation_refuses_a_wrong_grace_period(grace: float) -> None:
    with pytest.raises(ValueError, match="grace must be a number of seconds"):
        edge_cancellation(grace)


async def test_edge_cancellation_cannot_be_entered_twice() -> None:
    edge = edge_cancellation(1)
    with edge:
        with pytest.raises(RuntimeError, match="single 'with' block"):
            edge.__enter__()


async def test_edge_cancellation_must_be_left_in_the_task_that_entered_it() -> None:
    edge = edge_cancellation(1)

    async def elsewhere() -> None:
        with pytest.raises(RuntimeError, match="left in the task that entered it"):
            edge.__exit__(None, None, None)

    with edge:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(elsewhere)


async def test_repr_of_edge_cancellation_shows_whether_it_was_cancelled() -> None:
    edge = edge_cancellation(grace=5)
    assert "not entered, grace 5 s" in repr(edge)
    with nurseryio.CancelScope() as scope, edge:
        assert "not cancelled, grace 5 s" in repr(edge)
        scope.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)
        assert "in its grace period" in repr(edge)
    assert "cancelled once" in repr(edge)
