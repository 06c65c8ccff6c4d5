"""Native cancels (asyncio's Task.cancel) of a nursery's children and of the task around it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import pytest
from harness.core import (
    a_nursery_before,
    both_ends,
    cancelling,
    do_nothing,
    fail_after_turns,
    forever,
    leaves,
    needs_counts,
    settle,
    turns,
    types_of,
    validate,
)

from nurseryio import (
    Cancelled,
    CancelScope,
    Nursery,
    open_nursery,
    sleep_forever,
)
from nurseryio._asyncio.compat import COUNTS_GO_STALE
from nurseryio.lowlevel import checkpoint, current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

pytestmark = pytest.mark.limit(20)


# -- native cancels of children -------------------------------------------------


async def test_a_native_cancel_of_a_child_ends_it_alone_and_is_not_an_error() -> None:
    for wait in (forever, sleep_forever):
        async with open_nursery() as nursery:
            nursery.start_soon(wait)
            await turns(2)
            (child,) = nursery.child_tasks
            child.asyncio_task.cancel()
            await turns(3)
            assert nursery.child_tasks == frozenset()
        assert not nursery.cancel_scope.cancel_called


@both_ends
async def test_a_native_cancel_of_a_child_before_its_first_step_does_not_hang_the_nursery(
    previous: str,
) -> None:
    await a_nursery_before(previous)
    started = []

    async def child() -> None:
        started.append(1)

    for in_body in (True, False):
        async with open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(child)
            for task in nursery.child_tasks:
                task.asyncio_task.cancel()
            if in_body:
                await turns(5)
        validate()
        assert not nursery.cancel_scope.cancel_called
    assert started == []
    await settle()


@both_ends
async def test_a_native_cancel_of_a_child_spawned_while_the_nursery_waits_may_precede_its_step(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def spawner(nursery: Nursery) -> None:
        await turns(3)
        nursery.start_soon(forever)
        for task in nursery.child_tasks - {current_task()}:
            task.asyncio_task.cancel()

    async with open_nursery() as nursery:
        nursery.start_soon(spawner, nursery)
    validate()


@both_ends
async def test_a_native_cancel_of_a_child_in_a_cancelled_nursery_changes_nothing(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def stubborn() -> None:
        with contextlib.suppress(Cancelled):
            await forever()
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        await forever()

    async with open_nursery() as nursery:
        nursery.start_soon(stubborn)
        await turns(2)
        nursery.cancel_scope.cancel()
    assert cancelling() == 0


# -- native cancels of the host -------------------------------------------------


class Host:
    """An asyncio task around a nursery, and what it saw."""

    def __init__(self, body: Any) -> None:
        self.nursery: Any = None
        self.error: BaseException | None = None
        self.count = -1
        self.next_error: BaseException | None = None
        self.body = body
        self.task = asyncio.get_running_loop().create_task(self.run())

    async def run(self) -> None:
        try:
            async with open_nursery() as self.nursery:
                await self.body(self.nursery)
        except BaseException as exc:
            self.error = exc
        self.count = cancelling()
        try:
            await checkpoint()
            await asyncio.sleep(0)
        except Cancelled as exc:
            self.next_error = exc


@pytest.mark.parametrize("wait", [None, forever, sleep_forever])
@both_ends
async def test_a_native_cancel_of_the_parent_task_cancels_the_children_and_is_raised_bare(
    wait: Any,
    previous: str,
) -> None:
    await a_nursery_before(previous)
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    async def body(nursery: Nursery) -> None:
        nursery.start_soon(child)
        nursery.start_soon(child)
        if wait is not None:
            await wait()

    host = Host(body)
    await settle()
    host.task.cancel("for the host")
    await settle()
    assert ended == [1, 1]
    assert type(host.error) is Cancelled
    assert host.error.args == ("for the host",)
    assert host.count == (1 if sys.version_info >= (3, 11) else 0)
    assert host.next_error is None
    assert not host.nursery.cancel_scope.cancelled_caught


@both_ends
async def test_errors_of_children_are_raised_first_and_the_native_cancel_at_the_next_await(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def child() -> None:
        try:
            await forever()
        finally:
            raise KeyError

    async def body(nursery: Nursery) -> None:
        nursery.start_soon(child)
        nursery.start_soon(forever)

    host = Host(body)
    await settle()
    host.task.cancel()
    await settle()
    assert isinstance(host.error, ExceptionGroup)
    assert types_of(host.error) == [KeyError]
    assert host.count == (1 if sys.version_info >= (3, 11) else 0)
    assert type(host.next_error) is Cancelled


@both_ends
async def test_repeated_native_cancels_do_not_end_the_wait_for_children(previous: str) -> None:
    await a_nursery_before(previous)
    release = asyncio.Event()

    async def child() -> None:
        with CancelScope(shield=True):
            await release.wait()

    async def body(nursery: Nursery) -> None:
        nursery.start_soon(child)

    host = Host(body)
    await settle()
    for n in range(5):
        host.task.cancel(f"request {n}")
        await settle()
        assert not host.task.done()
    release.set()
    await settle()
    assert type(host.error) is Cancelled
    assert host.error.args == ("request 4",)
    assert host.count == (5 if sys.version_info >= (3, 11) else 0)


@both_ends
async def test_a_native_cancel_at_the_very_end_of_an_empty_nursery_is_not_lost(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def body(_nursery: Nursery) -> None:
        asyncio.current_task().cancel("late")  # type: ignore[union-attr]

    host = Host(body)
    await settle()
    assert type(host.error) is Cancelled
    assert host.next_error is None


@both_ends
async def test_a_native_cancel_that_comes_when_the_last_child_ends_is_not_lost(
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def body(nursery: Nursery) -> None:
        async def child() -> None:
            await turns(2)
            host.task.cancel("late")

        nursery.start_soon(child)

    host = Host(body)
    await settle()
    assert type(host.error) is Cancelled or type(host.next_error) is Cancelled


@needs_counts
@pytest.mark.parametrize("native_first", [True, False])
@both_ends
async def test_a_native_cancel_and_a_scopes_cancel_in_one_iteration_both_count(
    native_first: bool,
    previous: str,
) -> None:
    await a_nursery_before(previous)

    async def body(nursery: Nursery) -> None:
        nursery.start_soon(forever)
        await forever()

    host = Host(body)
    await settle()
    both = [host.task.cancel, host.nursery.cancel_scope.cancel]
    for cancel in both if native_first else reversed(both):
        cancel()
    await settle()
    assert type(host.error) is Cancelled
    assert host.count == 1
    assert host.next_error is None


@needs_counts
async def test_an_asyncio_timeout_around_a_nursery() -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    for body in (do_nothing, sleep_forever, forever):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002):
                async with open_nursery() as nursery:
                    nursery.start_soon(child)
                    await body()
        assert cancelling() == 0
    assert ended == [1, 1, 1]
    await checkpoint()


@needs_counts
@pytest.mark.skipif(COUNTS_GO_STALE, reason="a swallowed request looks like one of a TaskGroup's")
@pytest.mark.parametrize("around", [open_nursery, None])
async def test_an_asyncio_timeout_swallowed_by_the_block_is_kept_by_a_cancelled_nursery(
    around: Any,
) -> None:
    async def block(scope: CancelScope) -> None:
        with contextlib.suppress(Cancelled):
            await sleep_forever()
        async with open_nursery() as inner:
            inner.start_soon(checkpoint)
            scope.cancel()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.002):
            if around is None:
                with CancelScope() as scope:
                    await block(scope)
            else:
                async with around() as nursery:
                    await block(nursery.cancel_scope)
    assert cancelling() == 0
    await checkpoint()


@needs_counts
async def test_errors_beside_a_swallowed_asyncio_timeout_are_raised_without_it() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(0.002):
            async with open_nursery() as nursery:
                nursery.start_soon(sleep_forever)
                with contextlib.suppress(Cancelled):
                    await sleep_forever()
                raise ValueError("body")
    assert [repr(leaf) for leaf in leaves(caught.value)] == ["ValueError('body')"]
    assert cancelling() == 0


async def test_asyncio_wait_for_around_a_nursery() -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    async def main() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(child)

    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(main(), 0.002)
    assert ended == [1]
    assert cancelling() == 0
    await checkpoint()


@needs_counts
async def test_an_asyncio_task_group_around_a_nursery() -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_after_turns(KeyError()))
            async with open_nursery() as nursery:
                nursery.start_soon(child)
    assert types_of(caught.value) == [KeyError]
    assert ended == [1]
    assert cancelling() == 0


@needs_counts
async def test_an_asyncio_task_group_inside_a_nursery() -> None:
    async def child() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail_after_turns(KeyError()))
            await sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(forever)
    assert types_of(caught.value) == [KeyError]
    async with open_nursery() as nursery:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(forever())
            await turns(2)
            nursery.cancel_scope.cancel()
            await asyncio.sleep(0)
    assert task.cancelled() and nursery.cancel_scope.cancelled_caught
    assert cancelling() == 0


@needs_counts
async def test_an_asyncio_timeout_inside_a_cancelled_nursery_and_after_it() -> None:
    async with open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        async with asyncio.timeout(100):
            await forever()
    assert nursery.cancel_scope.cancelled_caught
    assert cancelling() == 0
