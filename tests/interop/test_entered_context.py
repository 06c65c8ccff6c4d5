"""enter_in_task: context managers that run in their own task, closed from any task."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from harness.core import leaves, settle

import nurseryio
from nurseryio.aio import EnteredContext, enter_in_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@asynccontextmanager
async def client(
    events: list[str], background: Any = nurseryio.sleep_forever
) -> AsyncIterator[str]:
    """As many clients are made: a nursery around the yield."""
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(background)
        events.append("opened")
        try:
            yield "the client"
        finally:
            events.append("closed")
            nursery.cancel_scope.cancel()


async def test_enter_in_task_a_manager_can_be_closed_from_another_task() -> None:
    events: list[str] = []

    async def close(entered: EnteredContext[str]) -> None:
        await entered.aclose()
        events.append("aclose returned")

    async with nurseryio.open_nursery() as nursery:
        entered = await enter_in_task(nursery, client(events))
        assert entered.value == "the client"
        assert not entered.closed
        assert ", open, <" in repr(entered)
        nursery.start_soon(close, entered)
    assert entered.closed
    assert ", closed, <" in repr(entered)
    assert events == ["opened", "closed", "aclose returned"]


async def test_enter_in_task_an_anyio_task_group_can_be_closed_from_an_asyncio_task() -> None:
    async with nurseryio.open_nursery() as nursery:
        entered = await enter_in_task(nursery, anyio.create_task_group())
        entered.value.start_soon(anyio.sleep, 0.001)
        await asyncio.ensure_future(entered.aclose())
    assert entered.closed


async def test_enter_in_task_returns_an_async_resource() -> None:
    events: list[str] = []
    async with nurseryio.open_nursery() as nursery:
        async with await enter_in_task(nursery, client(events)) as entered:
            assert entered.value == "the client"
        assert events == ["opened", "closed"]


async def test_aclose_of_an_entered_context_again_does_nothing() -> None:
    async with nurseryio.open_nursery() as nursery:
        entered = await enter_in_task(nursery, client([]))
        await entered.aclose()
        await entered.aclose()


async def test_an_error_in_aenter_is_raised_by_enter_in_task() -> None:
    @asynccontextmanager
    async def fails() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        raise ValueError("cannot open")
        yield

    async with nurseryio.open_nursery() as nursery:
        with pytest.raises(ValueError, match="cannot open"):
            await enter_in_task(nursery, fails())


async def test_an_error_in_aexit_is_raised_by_aclose_of_the_entered_context() -> None:
    @asynccontextmanager
    async def fails() -> AsyncIterator[None]:
        yield
        raise ValueError("cannot close")

    async with nurseryio.open_nursery() as nursery:
        entered = await enter_in_task(nursery, fails())
        with pytest.raises(ValueError, match="cannot close"):
            await entered.aclose()
        await entered.aclose()


async def test_a_failure_in_the_background_of_an_entered_context_is_raised_by_the_nursery() -> None:
    async def breaks() -> None:
        await settle()
        raise ValueError("connection lost")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with nurseryio.open_nursery() as nursery:
            entered = await enter_in_task(nursery, client([], breaks))
            await nurseryio.sleep_forever()
    errors = [leaf for leaf in leaves(caught.value) if isinstance(leaf, ValueError)]
    assert [str(error) for error in errors] == ["connection lost"]
    assert entered.closed


async def test_cancelling_the_nursery_exits_the_entered_context() -> None:
    events: list[str] = []
    async with nurseryio.open_nursery() as nursery:
        entered = await enter_in_task(nursery, client(events))
        nursery.cancel_scope.cancel()
    assert events == ["opened", "closed"]
    assert entered.closed


async def test_aclose_in_a_cancelled_task_cancels_the_aexit_and_waits_for_it() -> None:
    events: list[str] = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            yield
        finally:
            try:
                await asyncio.sleep(10)
            finally:
                events.append("closed")

    async with nurseryio.open_nursery() as nursery:
        entered = await enter_in_task(nursery, slow())
        with nurseryio.CancelScope() as scope:
            scope.cancel()
            await entered.aclose()
        assert scope.cancelled_caught
        assert entered.closed
        assert events == ["closed"]
        assert not nursery.cancel_scope.cancel_called


async def test_enter_in_task_refuses_what_is_not_an_async_context_manager() -> None:
    wrong: Any = enter_in_task
    async with nurseryio.open_nursery() as nursery:
        with pytest.raises(TypeError, match="takes an async context manager, not 7"):
            await wrong(nursery, 7)
        with pytest.raises(TypeError, match="call the function"):
            await wrong(nursery, client)


class FailsAtExit:
    """Takes its time to exit, and fails."""

    def __init__(self) -> None:
        self.go_on = nurseryio.Event()

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *_details: object) -> None:
        with nurseryio.CancelScope(shield=True):
            await self.go_on.wait()
        raise ValueError("cannot close")


async def test_an_error_in_aexit_is_raised_by_the_nursery_when_the_closing_task_has_ended() -> None:
    manager = FailsAtExit()
    with pytest.raises(BaseExceptionGroup) as caught:
        async with nurseryio.open_nursery() as nursery:
            entered = await enter_in_task(nursery, manager)
            task = asyncio.ensure_future(entered.aclose())
            for _ in range(2):  # the second one ends the wait in the shield
                await settle()
                task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            manager.go_on.set()
    assert [str(leaf) for leaf in leaves(caught.value)] == ["cannot close"]


async def test_an_error_in_aexit_is_reported_once_whatever_is_cancelled_meanwhile() -> None:
    manager = FailsAtExit()
    async with nurseryio.open_nursery() as nursery:
        entered = await enter_in_task(nursery, manager)
        task = asyncio.ensure_future(entered.aclose())
        await settle()
        task.cancel()
        await settle()
        manager.go_on.set()
        await nurseryio.lowlevel.checkpoint()
        task.cancel()
        with pytest.raises(ValueError, match="cannot close"):
            await task
        await entered.aclose()
