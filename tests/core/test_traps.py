"""The places where a task stops: checkpoints, parking, waiting for futures."""

# Covered below 95 %: calls from the wrong thread are in test_wrong_thread.py, failures half-way in
# test_injection.py; the cancel that is put back later is for Python 3.11 and 3.12.

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any, NoReturn

import pytest
from harness.core import (
    HAS_COUNTS,
    agree,
    cancel_me,
    cancelling,
    gone,
    needs_counts,
    own_task,
    settle,
    turns,
    without_gc,
)
from harness.late_errors import LateFuture, OutOfTime

from nurseryio import Cancelled, CancelScope, open_nursery
from nurseryio._base import Error, Value, capture
from nurseryio._core import wait_future
from nurseryio._core.task import current_task
from nurseryio.lowlevel import (
    Abort,
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    reschedule,
    wait_task_rescheduled,
)

pytestmark = pytest.mark.limit(20)


def refuse(_raise_cancel: object) -> Abort:
    return Abort.FAILED


class Parked:
    """A task of asyncio that waits in a trap, and what comes of it."""

    def __init__(self, abort: Any = agree, then: Any = None) -> None:
        self.record: Any = None
        self.struck_next = False
        self.abort, self.then = abort, then
        self.task = asyncio.get_running_loop().create_task(self.run())

    async def run(self) -> Any:
        self.record = current_task()
        value = await wait_task_rescheduled(self.abort)
        if self.then is not None:
            try:
                await self.then()
            except Cancelled:
                self.struck_next = True
        return value


# -- checkpoints ----------------------------------------------------------------


async def test_a_checkpoint_lets_others_run() -> None:
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    await checkpoint()
    assert seen == [1]


async def test_a_checkpoint_raises_in_a_cancelled_scope_every_time() -> None:
    with CancelScope() as scope:
        scope.cancel()
        for _ in range(3):
            with pytest.raises(Cancelled):
                await checkpoint()
    assert not scope.cancelled_caught


async def test_a_checkpoint_raises_a_native_cancel_too() -> None:
    async def main() -> None:
        cancel_me()
        await checkpoint()

    assert isinstance(await own_task(main), Cancelled)


async def test_checkpoint_if_cancelled_does_not_yield_if_there_is_nothing() -> None:
    seen: list[int] = []
    asyncio.get_running_loop().call_soon(seen.append, 1)
    await checkpoint_if_cancelled()
    assert seen == []
    await asyncio.sleep(0)


async def test_checkpoint_if_cancelled_raises_in_a_cancelled_scope() -> None:
    with CancelScope() as scope:
        scope.cancel()
        with pytest.raises(Cancelled):
            await checkpoint_if_cancelled()
        with CancelScope(shield=True):
            await checkpoint_if_cancelled()
        await checkpoint_if_cancelled()
    assert scope.cancelled_caught


async def test_cancel_shielded_checkpoint_yields_and_defers_a_native_cancel() -> None:
    seen: list[int] = []

    async def main() -> None:
        cancel_me()
        asyncio.get_running_loop().call_soon(seen.append, 1)
        await cancel_shielded_checkpoint()
        assert seen == [1]
        await checkpoint_if_cancelled()
        raise AssertionError("not reached")

    result = await own_task(main)
    assert isinstance(result, Cancelled), result


# -- parking --------------------------------------------------------------------


async def test_reschedule_with_a_value_outcome_returns_it_from_wait_task_rescheduled() -> None:
    parked = Parked()
    await settle()
    reschedule(parked.record, Value("x"))
    assert await parked.task == "x"


async def test_reschedule_without_an_outcome_returns_none() -> None:
    parked = Parked()
    await settle()
    reschedule(parked.record)
    assert await parked.task is None


async def test_reschedule_with_an_error_outcome_raises_it() -> None:
    parked = Parked()
    await settle()
    reschedule(parked.record, Error(KeyError("x")))
    with pytest.raises(KeyError):
        await parked.task


async def test_the_outcome_of_reschedule_may_be_any_object_with_unwrap() -> None:
    class Mine:
        def unwrap(self) -> str:
            return "mine"

    parked = Parked()
    await settle()
    reschedule(parked.record, Mine())
    assert await parked.task == "mine"


async def test_reschedule_twice_is_an_error_and_changes_nothing() -> None:
    parked = Parked()
    await settle()
    reschedule(parked.record, Value(1))
    with pytest.raises(RuntimeError, match="is not waiting in wait_task_rescheduled"):
        reschedule(parked.record, Value(2))
    assert await parked.task == 1


async def test_reschedule_of_a_task_that_does_not_wait_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="is not waiting"):
        reschedule(current_task())


async def test_an_abort_function_must_be_callable() -> None:
    with pytest.raises(TypeError, match="abort_func must be a function of one argument"):
        await wait_task_rescheduled(None)  # type: ignore[arg-type]


async def test_custom_sleep_data_is_reset_on_waking() -> None:
    seen = []

    async def child() -> None:
        current_task().custom_sleep_data = "data"
        await wait_task_rescheduled(agree)
        seen.append(current_task().custom_sleep_data)

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await settle()
        (task,) = nursery.child_tasks
        assert task.custom_sleep_data == "data"
        reschedule(task)
        assert task.custom_sleep_data is None
    assert seen == [None]
    current_task().custom_sleep_data = "data"
    await checkpoint()
    assert current_task().custom_sleep_data is None


async def test_a_cancelled_wait_calls_the_abort_function_once_and_raises() -> None:
    asked = []

    def abort(raise_cancel: Any) -> Abort:
        asked.append(capture(raise_cancel))
        return Abort.SUCCEEDED

    with CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel, "enough")
        await wait_task_rescheduled(abort)
    assert scope.cancelled_caught
    assert len(asked) == 1
    assert isinstance(asked[0].error, Cancelled)
    assert asked[0].error.args[0].reason == "enough"


async def test_a_wait_in_a_cancelled_scope_calls_the_abort_function_at_once() -> None:
    asked = []

    def abort(_raise_cancel: Any) -> Abort:
        asked.append(len(asked))
        return Abort.SUCCEEDED

    with CancelScope() as scope:
        scope.cancel()
        await wait_task_rescheduled(abort)
    assert asked == [0]
    assert scope.cancelled_caught


@pytest.mark.parametrize("early", [True, False])
async def test_a_wait_whose_abort_function_returns_failed_goes_on_and_gets_its_value(
    early: bool,
) -> None:
    results = []

    async def child(scope: CancelScope) -> None:
        with scope:
            results.append(await wait_task_rescheduled(refuse))
            await checkpoint()

    scope = CancelScope()
    if early:
        scope.cancel()
    async with open_nursery() as nursery:
        nursery.start_soon(child, scope)
        await settle()
        scope.cancel()
        await settle()
        (task,) = nursery.child_tasks
        reschedule(task, Value("late"))
    assert results == ["late"]
    assert scope.cancelled_caught


async def test_after_abort_failed_a_wait_may_be_rescheduled_with_raise_cancel() -> None:
    kept: list[Any] = []

    def keep(raise_cancel: Any) -> Abort:
        kept.append(raise_cancel)
        return Abort.FAILED

    async def child(scope: CancelScope) -> None:
        with scope:
            await wait_task_rescheduled(keep)

    scope = CancelScope()
    async with open_nursery() as nursery:
        nursery.start_soon(child, scope)
        await settle()
        scope.cancel()
        (task,) = nursery.child_tasks
        reschedule(task, capture(kept[0]))
    assert scope.cancelled_caught
    assert not nursery.cancel_scope.cancel_called


# -- native cancels of parked tasks ---------------------------------------------


async def test_a_native_cancel_calls_the_abort_function_and_raises_with_its_message() -> None:
    asked = []

    def abort(raise_cancel: Any) -> Abort:
        asked.append(capture(raise_cancel).error)  # type: ignore[union-attr]
        return Abort.SUCCEEDED

    parked = Parked(abort)
    await settle()
    parked.task.cancel("native")
    with pytest.raises(Cancelled) as caught:
        await parked.task
    assert caught.value.args == ("native",) or not HAS_COUNTS
    assert [type(error) for error in asked] == [Cancelled]
    assert asked[0].args == ("native",)


async def test_a_value_rescheduled_before_a_native_cancel_is_kept() -> None:
    parked = Parked(then=checkpoint)
    await settle()
    reschedule(parked.record, Value("kept"))
    parked.task.cancel()
    assert await parked.task == "kept"
    assert parked.struck_next


async def test_a_value_rescheduled_after_a_native_cancel_is_kept_too() -> None:
    def never(_raise_cancel: object) -> NoReturn:
        raise AssertionError("nobody may ask: the value is there")

    parked = Parked(never, then=checkpoint)
    await settle()
    parked.task.cancel()
    reschedule(parked.record, Value("kept"))
    assert await parked.task == "kept"
    assert parked.struck_next


async def test_an_error_rescheduled_with_a_native_cancel_is_kept_and_both_are_raised() -> None:
    parked = Parked()
    await settle()
    parked.task.cancel()
    reschedule(parked.record, Error(KeyError()))
    with pytest.raises(KeyError):
        await parked.task


async def test_reschedule_twice_after_a_native_cancel_is_an_error() -> None:
    parked = Parked(then=checkpoint)
    await settle()
    parked.task.cancel()
    reschedule(parked.record, Value(None))
    with pytest.raises(RuntimeError, match="is not waiting"):
        reschedule(parked.record, Value(2))
    assert await parked.task is None
    assert parked.struck_next


async def test_native_cancels_are_kept_for_later_if_the_abort_function_returns_failed() -> None:
    asked = []

    def abort(_raise_cancel: object) -> Abort:
        asked.append(1)
        return Abort.FAILED

    parked = Parked(abort, then=checkpoint)
    await settle()
    for _ in range(3):
        parked.task.cancel()
        await settle()
    reschedule(parked.record, Value("kept"))
    assert await parked.task == "kept"
    assert parked.struck_next
    assert asked == [1]


async def test_raise_cancel_of_a_native_cancel_may_be_the_outcome_of_reschedule() -> None:
    kept: list[Any] = []

    def keep(raise_cancel: Any) -> Abort:
        kept.append(raise_cancel)
        return Abort.FAILED

    parked = Parked(keep)
    await settle()
    parked.task.cancel("native")
    await settle()
    reschedule(parked.record, capture(kept[0]))
    with pytest.raises(Cancelled):
        await parked.task


async def test_a_rescheduled_value_wins_over_a_scopes_cancel_only_if_it_came_first() -> None:
    results = []

    async def child(scope: CancelScope) -> None:
        with scope:
            results.append(await wait_task_rescheduled(agree))
            await checkpoint()

    for value_first in (True, False):
        scope = CancelScope()
        async with open_nursery() as nursery:
            nursery.start_soon(child, scope)
            await settle()
            (task,) = nursery.child_tasks
            if value_first:
                reschedule(task, Value("kept"))
                scope.cancel()
            else:
                scope.cancel()
                with pytest.raises(RuntimeError, match="is not waiting"):
                    reschedule(task, Value("late"))
        assert scope.cancelled_caught
    assert results == ["kept"]


@needs_counts
@pytest.mark.parametrize("native_first", [True, False])
async def test_a_native_cancel_in_the_same_iteration_as_a_scopes_cancel_is_never_lost(
    native_first: bool,
) -> None:
    scope = CancelScope()
    caught = []

    async def main() -> None:
        try:
            with scope:
                await wait_task_rescheduled(agree)
        except Cancelled:
            caught.append(cancelling())
            raise

    task = asyncio.get_running_loop().create_task(main())
    await settle()
    for cancel in (task.cancel, scope.cancel) if native_first else (scope.cancel, task.cancel):
        cancel()
    with pytest.raises(Cancelled):
        await task
    assert caught == [1]
    assert not scope.cancelled_caught


# -- waiting for futures --------------------------------------------------------


async def test_wait_future_returns_the_result_or_raises_the_error() -> None:
    loop = asyncio.get_running_loop()
    good, bad = loop.create_future(), loop.create_future()
    loop.call_soon(good.set_result, 1)
    loop.call_soon(bad.set_exception, KeyError())
    assert await wait_future(good) == 1
    with pytest.raises(KeyError):
        await wait_future(bad)


async def test_wait_future_returns_a_done_result_even_in_a_cancelled_scope() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(1)
    with CancelScope() as scope:
        scope.cancel()
        assert await wait_future(future) == 1
    assert not scope.cancelled_caught


async def test_a_cancelled_wait_future_cancels_the_future() -> None:
    future = asyncio.get_running_loop().create_future()
    with CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        await wait_future(future)
    assert scope.cancelled_caught and future.cancelled()
    other = asyncio.get_running_loop().create_future()
    with CancelScope() as scope:
        scope.cancel()
        await wait_future(other)
    assert scope.cancelled_caught and other.cancelled()


async def test_wait_future_keeps_a_result_that_comes_with_a_native_cancel() -> None:
    future = asyncio.get_running_loop().create_future()
    struck = []

    async def main() -> Any:
        result = await wait_future(future)
        try:
            await checkpoint()
        except Cancelled:
            struck.append(1)
        return result

    task = asyncio.get_running_loop().create_task(main())
    await settle()
    future.set_result("kept")
    task.cancel()
    assert await task == "kept"
    assert struck == [1]


async def test_wait_future_raises_if_other_code_cancels_the_future() -> None:
    future = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.cancel)
    with pytest.raises(Cancelled):
        await wait_future(future)


# -- nothing is kept alive ------------------------------------------------------


async def test_a_cancelled_wait_leaves_no_reference_cycle() -> None:
    class Witness:
        pass

    async def main(wait: Any) -> None:
        witness = Witness()
        watched.append(weakref.ref(witness))
        with CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            await wait()
        watched.append(weakref.ref(scope))

    watched: list[Any] = []
    waits: list[Any] = [
        lambda: wait_task_rescheduled(agree),
        lambda: wait_future(asyncio.get_running_loop().create_future()),
        checkpoint,
        checkpoint_if_cancelled,
    ]
    await main(checkpoint)
    with without_gc():
        for wait in waits:
            await main(wait)
            await turns(2)
            assert all(map(gone, watched)), wait
    gc.collect()


async def test_a_natively_cancelled_wait_leaves_no_reference_cycle() -> None:
    class Witness:
        pass

    watched: list[Any] = []

    async def main(abort: Any) -> None:
        witness = Witness()
        watched.append(weakref.ref(witness))
        await wait_task_rescheduled(abort)

    with without_gc():
        for _ in range(2):
            task = asyncio.get_running_loop().create_task(main(agree))
            await turns(3)
            task.cancel()
            await turns(3)
            assert task.cancelled()
            del task
            await turns(1)
            assert all(map(gone, watched))


# -- a signal handler that raises as the engine's own call returns ---------------


async def test_a_task_wakes_once_if_reschedule_raises_after_scheduling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    woken = []

    async def sleeper() -> None:
        tasks.append(current_task())
        monkeypatch.setattr("nurseryio._core.traps.new_future", LateFuture)
        woken.append(await wait_task_rescheduled(agree))
        monkeypatch.undo()
        await turns(3)

    tasks: list[Any] = []
    async with open_nursery() as nursery:
        nursery.start_soon(sleeper)
        await settle()
        with pytest.raises(OutOfTime):
            reschedule(tasks[0], Value(5))
    assert woken == [5]
