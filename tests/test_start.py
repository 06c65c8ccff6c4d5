"""``nursery.start()`` seen from its callers: every way in which a child gets ready, or does not."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from harness.core import cancelling, forever, leaves, needs_counts, settle, turns, validate

from nurseryio import (
    TASK_STATUS_IGNORED,
    Cancelled,
    CancelScope,
    Event,
    Nursery,
    TaskStatus,
    TrioInternalError,
    current_effective_deadline,
    current_time,
    move_on_after,
    open_nursery,
    sleep,
    sleep_forever,
)
from nurseryio.lowlevel import checkpoint, current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.limit(20)

Status = TaskStatus[Any]


async def ready_with(value: object, *, task_status: Status = TASK_STATUS_IGNORED) -> None:
    await turns(2)
    task_status.started(value)
    await turns(2)


async def test_nursery_start_waits_for_started_and_returns_its_value() -> None:
    async with open_nursery() as nursery:
        assert await nursery.start(ready_with, "up") == "up"
        (child,) = nursery.child_tasks
        assert child.parent_nursery is nursery
        assert child.eventual_parent_nursery is None
        validate()
    await ready_with("without start")


async def test_started_without_a_value_makes_nursery_start_return_none() -> None:
    async def child(*, task_status: Status) -> None:
        task_status.started()

    async with open_nursery() as nursery:
        assert await nursery.start(child) is None


async def test_a_child_of_nursery_start_is_in_a_temporary_nursery_first() -> None:
    seen: list[Any] = []

    async def child(*, task_status: Status) -> None:
        task = current_task()
        seen.append((task.name, task.parent_nursery, task.eventual_parent_nursery))
        task_status.started()
        seen.append((task.name, task.parent_nursery, task.eventual_parent_nursery))

    async with open_nursery() as nursery:
        await nursery.start(child, name="the child")
    (name, first, later), after = seen
    assert name == "the child"
    assert first is not nursery and later is nursery
    assert after == ("the child", nursery, None)


async def test_task_status_ignored_started_can_be_called() -> None:
    TASK_STATUS_IGNORED.started()
    TASK_STATUS_IGNORED.started("x")
    TASK_STATUS_IGNORED.started("x")
    assert repr(TASK_STATUS_IGNORED) == "TASK_STATUS_IGNORED"


async def test_an_error_before_started_is_raised_alone_by_nursery_start() -> None:
    async def child(*, task_status: Status) -> None:
        await turns(2)
        raise KeyError("x")

    async with open_nursery() as nursery:
        with pytest.raises(KeyError) as caught:
            await nursery.start(child)
        assert caught.value.__context__ is None
        await checkpoint()
    assert not nursery.cancel_scope.cancel_called


async def test_an_exception_group_before_started_is_raised_unchanged_by_nursery_start() -> None:
    error = ExceptionGroup("mine", [KeyError(), OSError()])

    async def child(*, task_status: Status) -> None:
        raise error

    async with open_nursery() as nursery:
        with pytest.raises(ExceptionGroup) as caught:
            await nursery.start(child)
        assert caught.value is error


async def test_an_error_after_started_is_raised_by_the_nursery() -> None:
    async def child(*, task_status: Status) -> None:
        task_status.started("up")
        raise KeyError

    values = []
    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            values.append(await nursery.start(child))
            await sleep_forever()
    assert values == ["up"]
    assert [type(leaf) for leaf in leaves(caught.value)] == [KeyError]


async def test_a_child_that_ends_without_started_is_an_error() -> None:
    async def child(*, task_status: Status) -> None:
        await turns(2)

    async with open_nursery() as nursery:
        with pytest.raises(
            RuntimeError, match=r"child exited without calling task_status\.started"
        ):
            await nursery.start(child)


async def test_started_twice_is_an_error_in_the_child() -> None:
    async def child(*, task_status: Status) -> None:
        task_status.started("first")
        with pytest.raises(RuntimeError, match="called 'started' twice"):
            task_status.started("second")

    async with open_nursery() as nursery:
        assert await nursery.start(child) == "first"


async def test_a_function_without_task_status_is_an_error() -> None:
    async def child() -> None:
        pass

    async with open_nursery() as nursery:
        with pytest.raises(TypeError, match="task_status"):
            await nursery.start(child)
        with pytest.raises(TypeError, match="did you write ready_with"):
            await nursery.start(ready_with(1))  # type: ignore[arg-type]


async def test_another_task_may_call_started() -> None:
    kept: list[Status] = []

    async def child(*, task_status: Status) -> None:
        kept.append(task_status)
        await sleep_forever()

    async with open_nursery() as nursery:

        async def helper() -> None:
            await turns(3)
            kept[0].started("by another")
            validate()

        nursery.start_soon(helper)
        assert await nursery.start(child) == "by another"
        assert len(nursery.child_tasks) == 1
        nursery.cancel_scope.cancel()


async def test_a_callback_may_call_started_before_the_childs_first_step() -> None:
    order: list[str] = []

    class Early:
        """Called as an async function; hands the status to a callback."""

        def __call__(self, *, task_status: Status) -> Any:
            task_status.started("early")
            order.append("ready")
            return self.run()

        async def run(self) -> None:
            order.append("first step")

    async with open_nursery() as nursery:
        assert await nursery.start(Early()) == "early"
    assert order == ["ready", "first step"]


async def test_started_after_the_child_has_ended_is_an_error() -> None:
    kept: list[Status] = []

    async def child(*, task_status: Status) -> None:
        kept.append(task_status)

    async with open_nursery() as nursery:
        with pytest.raises(RuntimeError, match=r"without calling task_status\.started"):
            await nursery.start(child)
        kept[0].started("too late")
    kept[0]
    validate()


async def test_nursery_start_may_be_the_last_call_in_a_nursery_and_children_may_call_it() -> None:
    values = []

    async def child(nursery: Nursery) -> None:
        values.append(await nursery.start(ready_with, 1))

    async with open_nursery() as nursery:
        nursery.start_soon(child, nursery)
    assert values == [1]


async def test_a_pending_nursery_start_keeps_the_nursery_open() -> None:
    values = []

    async def slow(*, task_status: Status) -> None:
        await turns(5)
        task_status.started("slow")

    async def starter(inner: Nursery) -> None:
        values.append(await inner.start(slow))

    async with open_nursery() as outer:
        async with open_nursery() as inner:
            outer.start_soon(starter, inner)
            await turns(2)
    assert values == ["slow"]


async def test_several_calls_of_nursery_start_at_once() -> None:
    values = []

    async def starter(nursery: Nursery, value: int) -> None:
        values.append(await nursery.start(ready_with, value))

    async with open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(starter, nursery, n)
    assert sorted(values) == list(range(10))


# -- cancelled in between -------------------------------------------------------


async def test_the_callers_scope_cancels_the_child_before_started() -> None:
    seen = []

    async def child(*, task_status: Status) -> None:
        try:
            await sleep_forever()
        finally:
            seen.append("child ended")

    async with open_nursery() as nursery:
        with CancelScope() as scope:
            asyncio.get_running_loop().call_later(0.001, scope.cancel)
            await nursery.start(child)
        assert scope.cancelled_caught
        assert seen == ["child ended"]
        assert nursery.child_tasks == frozenset()
    assert not nursery.cancel_scope.cancel_called


async def test_reparenting_the_callers_scope_does_not_cancel_the_child_after_started() -> None:
    ended = []

    async def child(*, task_status: Status) -> None:
        assert current_effective_deadline() < current_time() + 1000
        task_status.started()
        assert current_effective_deadline() > current_time() + 1000
        await turns(5)
        ended.append("by itself")

    async with open_nursery() as nursery:
        with move_on_after(100) as scope:
            await nursery.start(child)
            scope.cancel()
            with pytest.raises(Cancelled):
                await checkpoint()
    assert ended == ["by itself"]


async def test_nursery_start_in_a_cancelled_scope_lets_the_child_begin_and_be_cancelled() -> None:
    seen = []

    async def child(*, task_status: Status) -> None:
        seen.append("started")
        await checkpoint()
        seen.append("not reached")

    async with open_nursery() as nursery:
        with CancelScope() as scope:
            scope.cancel()
            await nursery.start(child)
        assert scope.cancelled_caught
    assert seen == ["started"]


async def test_a_child_that_calls_started_in_a_cancelled_scope_is_cancelled_nevertheless() -> None:
    seen = []

    async def child(*, task_status: Status) -> None:
        task_status.started("up")
        seen.append("ready")
        await checkpoint()
        seen.append("not reached")

    async with open_nursery() as nursery:
        with CancelScope() as scope:
            scope.cancel()
            await nursery.start(child)
        assert scope.cancelled_caught
    assert seen == ["ready"]


async def test_a_shielded_child_calls_started_although_the_caller_is_cancelled() -> None:
    values = []

    async def child(*, task_status: Status) -> None:
        with CancelScope(shield=True):
            await turns(5)
            task_status.started("up")

    async with open_nursery() as nursery:
        with CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            values.append(await nursery.start(child))
    assert values == ["up"]


async def test_reparenting_into_a_cancelled_nursery_cancels_the_child() -> None:
    seen = []

    async def child(nursery: Nursery, *, task_status: Status) -> None:
        nursery.cancel_scope.cancel()
        with CancelScope(shield=True):
            await turns(2)
        task_status.started("up")
        validate()
        seen.append("ready")
        await checkpoint()
        seen.append("not reached")

    async with open_nursery() as outer:
        async with open_nursery() as inner:
            with CancelScope(shield=True):
                assert await inner.start(child, inner) == "up"
        outer.cancel_scope.cancel()
    assert seen == ["ready"]
    assert inner.cancel_scope.cancelled_caught


async def test_reparenting_moves_the_scopes_and_nurseries_of_the_child_along() -> None:
    ended = []

    async def grandchild() -> None:
        try:
            await forever()
        finally:
            ended.append("grandchild")

    async def child(*, task_status: Status) -> None:
        with CancelScope(), move_on_after(1000):
            async with open_nursery() as own:
                own.start_soon(grandchild)
                await turns(1)
                task_status.started()
                validate()

    async with open_nursery() as nursery:
        with CancelScope() as scope:
            await nursery.start(child)
            scope.cancel()
            with CancelScope(shield=True):
                await turns(3)
            assert ended == []
        nursery.cancel_scope.cancel()
        with CancelScope(shield=True):
            await settle()
        assert ended == ["grandchild"]


async def test_reparenting_out_of_a_shield_lets_outer_scopes_cancel_the_child() -> None:
    seen = []

    async def child(*, task_status: Status) -> None:
        task_status.started()
        try:
            await forever()
        except Cancelled:
            seen.append("cancelled")
            raise

    with CancelScope() as around:
        async with open_nursery() as nursery:
            with CancelScope(shield=True):
                around.cancel()
                await nursery.start(child)
                await settle()
                assert seen == ["cancelled"]
    assert around.cancelled_caught


async def test_errors_of_the_child_of_a_cancelled_caller_are_raised_without_cancelled() -> None:
    async def child(*, task_status: Status) -> None:
        try:
            await sleep_forever()
        finally:
            raise KeyError

    async with open_nursery() as nursery:
        with pytest.raises(KeyError):
            with CancelScope() as scope:
                asyncio.get_running_loop().call_soon(scope.cancel)
                await nursery.start(child)


# -- native cancels -------------------------------------------------------------


@needs_counts
async def test_a_native_cancel_of_the_caller_cancels_the_child_and_is_raised_bare() -> None:
    ended = []

    async def child(*, task_status: Status) -> None:
        try:
            await sleep_forever()
        finally:
            ended.append(1)

    async with open_nursery() as nursery:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await nursery.start(child)
        assert ended == [1]
        assert cancelling() == 0
        await checkpoint()
    assert not nursery.cancel_scope.cancel_called


@pytest.mark.parametrize("first_step", [True, False])
async def test_a_native_cancel_of_the_child_before_started_is_an_error(first_step: bool) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def child(*, task_status: Status) -> None:
        await forever()

    async with open_nursery() as nursery:

        async def canceller() -> None:
            if first_step:
                await turns(3)
            (task,) = {t for t in asyncio.all_tasks() if t.get_name() == "victim"}
            tasks.append(task)
            task.cancel()

        nursery.start_soon(canceller)
        with pytest.raises(RuntimeError, match=r"without calling task_status\.started"):
            if first_step:
                await nursery.start(child, name="victim")
            else:
                await start_and_cancel_at_once(nursery, child)
    validate()


async def start_and_cancel_at_once(nursery: Nursery, child: Any) -> None:
    """Cancel the child in the very step in which it is made."""

    def cancelled_at_once(*, task_status: Status) -> Any:
        def strike() -> None:
            for task in asyncio.all_tasks():
                if task.get_name() == "victim" and not task.done():
                    task.cancel()

        asyncio.get_running_loop().call_soon(strike)
        return child(task_status=task_status)

    await nursery.start(cancelled_at_once, name="victim")


async def test_reparenting_a_child_that_never_ran_does_not_hang_its_nursery() -> None:
    ran = []

    class Early:
        """Is ready before its first step."""

        def __call__(self, *, task_status: Status) -> Any:
            asyncio.get_running_loop().call_soon(self.strike, task_status)
            return self.run()

        def strike(self, task_status: Status) -> None:
            (task,) = {t for t in asyncio.all_tasks() if t.get_name() == "victim"}
            if not ran:
                task_status.started("up")
                task.cancel()

        async def run(self) -> None:
            ran.append(1)
            await forever()

    async with open_nursery() as nursery:
        assert await nursery.start(Early(), name="victim") == "up"
    validate()
    assert ran == []


# -- misuse ---------------------------------------------------------------------


async def test_nursery_start_in_a_closed_nursery_is_refused_and_closes_the_coroutine() -> None:
    async with open_nursery() as nursery:
        pass
    with pytest.raises(RuntimeError, match="Nursery is closed to new arrivals"):
        await nursery.start(ready_with, 1)


async def test_a_second_child_in_the_temporary_nursery_is_a_trio_internal_error() -> None:
    async def other() -> None:
        raise OSError

    async def spoiler(*, task_status: Any) -> None:
        task_status._temporary.start_soon(other)
        raise KeyError

    async with open_nursery() as nursery:
        with pytest.raises(TrioInternalError, match="second task") as caught:
            await nursery.start(spoiler)
    assert caught.value.__cause__ is not None
    assert {type(leaf) for leaf in leaves(caught.value.__cause__)} == {KeyError, OSError}


async def test_nursery_start_leaves_the_callers_scopes_and_nurseries_alone(
    autojump_clock: Any,
) -> None:
    event = Event()

    async def child(*, task_status: Status) -> None:
        await sleep(1)
        task_status.started()
        await event.wait()

    async with open_nursery() as nursery:
        with move_on_after(10) as scope:
            await nursery.start(child)
            assert current_effective_deadline() == scope.deadline
            await sleep(1)
            event.set()
        assert not scope.cancel_called


async def test_an_exception_group_of_the_childs_nursery_is_raised_by_nursery_start() -> None:
    async def child(*, task_status: Status) -> None:
        async with open_nursery() as own:
            own.start_soon(sleep_forever)
            raise KeyError

    async with open_nursery() as nursery:
        with pytest.raises(BaseExceptionGroup) as caught:
            await nursery.start(child)
        assert [type(leaf) for leaf in leaves(caught.value)] == [KeyError]


async def test_started_notices_a_deadline_that_has_passed_meanwhile() -> None:
    noticed = []

    async def child(task_status: TaskStatus[None]) -> None:
        with CancelScope() as scope:
            scope.deadline = current_time() - 1
            task_status.started()
        noticed.append((scope.cancel_called, scope.cancelled_caught))

    async with open_nursery() as nursery:
        await nursery.start(child)
    assert noticed == [(True, False)]
