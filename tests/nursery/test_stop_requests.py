"""Asking a scope to stop: the request, its grace period, and which code it reaches."""

from __future__ import annotations

from math import inf, nan

import pytest

import nurseryio
from nurseryio import (
    CancelScope,
    Event,
    current_effective_deadline,
    current_time,
    move_on_at_stop,
    open_nursery,
    sleep,
    sleep_forever,
    stop_requested,
    wait_stop_requested,
)
from nurseryio.testing import MockClock, wait_all_tasks_blocked


async def test_a_stop_request_interrupts_nothing_but_can_be_seen() -> None:
    with CancelScope() as scope:
        assert not stop_requested()
        assert not scope.stop_requested
        scope.request_stop()
        assert stop_requested()
        assert scope.stop_requested
        await nurseryio.lowlevel.checkpoint()
    assert not scope.cancel_called
    assert not stop_requested()


async def test_a_scope_is_cancelled_at_the_end_of_the_grace_period(
    autojump_clock: MockClock,
) -> None:
    start = current_time()
    with CancelScope() as scope:
        scope.request_stop(grace_period=5)
        assert current_effective_deadline() == start + 5
        await sleep_forever()
    assert scope.cancelled_caught
    assert current_time() == start + 5


@pytest.mark.parametrize(("before", "grace", "after"), [(3, 5, 3), (5, 3, 3), (5, inf, 5)])
async def test_a_grace_period_only_shortens_the_deadline(
    before: float, grace: float, after: float
) -> None:
    with CancelScope() as scope:
        now = current_time()
        scope.deadline = now + before
        scope.request_stop(grace)
        assert scope.deadline == pytest.approx(now + after, abs=0.5)


async def test_a_second_stop_request_can_shorten_the_grace_period_but_not_extend_it() -> None:
    with CancelScope() as scope:
        scope.request_stop(60)
        first = scope.deadline
        scope.request_stop(90)
        assert scope.deadline == first
        scope.request_stop(30)
        assert scope.deadline < first


async def test_a_stop_without_grace_period_is_a_cancellation() -> None:
    with CancelScope() as scope:
        scope.request_stop(0)
        assert scope.cancel_called
        await nurseryio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert scope.stop_requested


async def test_a_stop_request_of_a_cancelled_scope_changes_nothing_else() -> None:
    with CancelScope() as scope:
        scope.cancel()
        scope.request_stop(5)
        assert scope.deadline == inf
        assert scope.stop_requested


async def test_a_stop_request_of_a_scope_that_was_left_does_nothing() -> None:
    with CancelScope() as scope:
        pass
    scope.request_stop(5)
    assert not scope.stop_requested
    assert scope.deadline == inf


@pytest.mark.parametrize(
    ("grace", "kind"), [(-1, ValueError), (nan, ValueError), ("5", TypeError), (None, TypeError)]
)
async def test_a_wrong_grace_period_is_refused_and_nothing_has_changed(
    grace: float, kind: type[Exception]
) -> None:
    with CancelScope() as scope:
        with pytest.raises(kind, match="grace"):
            scope.request_stop(grace)
        assert not stop_requested()
        assert scope.deadline == inf


async def test_a_stop_request_needs_a_scope_that_was_entered() -> None:
    with pytest.raises(RuntimeError, match="enter the scope first"):
        CancelScope().request_stop()


async def test_a_stop_request_from_another_thread_is_refused() -> None:
    with CancelScope() as scope:
        with pytest.raises(RuntimeError, match="thread"):
            await nurseryio.to_thread.run_sync(scope.request_stop)
        assert not stop_requested()


async def test_a_stop_request_reaches_the_children_of_nurseries_inside() -> None:
    seen: list[str] = []

    async def child(name: str) -> None:
        await wait_stop_requested()
        seen.append(name)

    with CancelScope() as scope:
        async with open_nursery() as nursery:
            nursery.start_soon(child, "child")

            async def parent() -> None:
                async with open_nursery() as inner:
                    inner.start_soon(child, "grandchild")

            nursery.start_soon(parent)
            await wait_all_tasks_blocked()
            scope.request_stop()
    assert sorted(seen) == ["child", "grandchild"]


async def test_a_stop_request_of_an_inner_scope_does_not_reach_the_outer_one() -> None:
    with CancelScope() as outer:
        with CancelScope() as inner:
            inner.request_stop()
            assert stop_requested()
        assert not stop_requested()
        assert not outer.stop_requested


async def test_a_shield_keeps_a_stop_request_out_until_it_is_removed() -> None:
    with CancelScope() as scope, CancelScope(shield=True) as shield:
        scope.request_stop()
        assert not stop_requested()
        async with open_nursery() as nursery:
            nursery.start_soon(wait_stop_requested)
            await wait_all_tasks_blocked()
            assert len(nursery.child_tasks) == 1
            shield.shield = False
        assert stop_requested()


async def test_a_stop_request_of_a_shield_itself_reaches_the_code_in_it() -> None:
    with CancelScope(shield=True) as scope:
        scope.request_stop()
        assert stop_requested()
        await wait_stop_requested()


async def test_a_child_of_start_gets_the_stop_request_of_its_nursery_when_it_moves_there() -> None:
    go = Event()

    async def child(task_status: nurseryio.TaskStatus[None]) -> None:
        async with open_nursery() as inside:
            inside.start_soon(wait_stop_requested)
            await go.wait()
            await wait_all_tasks_blocked()
            assert len(inside.child_tasks) == 1
            task_status.started()

    async with open_nursery() as callers, open_nursery() as nursery:
        nursery.cancel_scope.request_stop()
        callers.start_soon(nursery.start, child)
        await wait_all_tasks_blocked()
        go.set()


async def test_a_failing_scope_is_cancelled_in_the_next_iteration_and_the_others_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from nurseryio._nursery import stop_requests

    calls: list[object] = []
    real = stop_requests.is_requested

    def fails_once(node: object) -> bool:
        calls.append(node)
        if len(calls) == 1:
            raise MemoryError
        return real(node)  # type: ignore[arg-type]

    with CancelScope() as scope, move_on_at_stop() as waiting:
        monkeypatch.setattr(stop_requests, "is_requested", fails_once)
        with pytest.raises(MemoryError):
            scope.request_stop()
        await sleep_forever()
    assert waiting.cancelled_caught
    assert scope.stop_requested


async def test_work_that_was_begun_is_finished_in_the_grace_period(
    autojump_clock: MockClock,
) -> None:
    done: list[int] = []

    async def worker() -> None:
        while True:
            with move_on_at_stop() as waiting:
                await sleep(1)
            if waiting.cancelled_caught:
                break
            await sleep(10)
            done.append(1)

    async with open_nursery() as nursery:
        nursery.start_soon(worker)
        await sleep(5)
        nursery.cancel_scope.request_stop(grace_period=20)
    assert done == [1]
    assert not nursery.cancel_scope.cancelled_caught


async def test_a_scope_that_ends_after_a_delay_keeps_an_earlier_deadline(
    autojump_clock: MockClock,
) -> None:
    with (
        CancelScope() as outer,
        move_on_at_stop(delay=9) as long,
        move_on_at_stop(delay=9) as short,
    ):
        short.deadline = current_time() + 3
        began = current_time()
        outer.request_stop()
        assert short.deadline == began + 3
        assert long.deadline == began + 9
