"""A call of a portal: it is a child of a nursery, and each thread gets an answer."""

from __future__ import annotations

import asyncio
from queue import SimpleQueue
from typing import Any

import pytest
from harness.core import settle

import nurseryio
from nurseryio import Cancelled, RunFinishedError
from nurseryio._base import Error, Value
from nurseryio._portal.call import CLOSED, PortalCall
from nurseryio.lowlevel import current_task


def made(nursery: nurseryio.Nursery, fn: Any, *args: Any) -> tuple[PortalCall[Any], Any]:
    """A call, and a function that returns its answer."""
    answers: SimpleQueue[Any] = SimpleQueue()
    call = PortalCall[Any](nursery, fn, args, answers)
    return call, answers.get_nowait


async def test_a_portal_call_is_a_child_of_its_nursery_with_the_functions_name() -> None:
    async def parent_and_name() -> tuple[Any, str]:
        return current_task().parent_nursery, current_task().name

    async with nurseryio.open_nursery() as nursery:
        call, answer = made(nursery, parent_and_name)
        call.serve_in_callback()
    parent, name = answer().unwrap()
    assert parent is nursery
    assert name.endswith("parent_and_name")


async def test_an_error_of_a_portal_call_does_not_reach_the_nursery() -> None:
    error = KeyError("x")

    async def fail() -> None:
        raise error

    async with nurseryio.open_nursery() as nursery:
        call, answer = made(nursery, fail)
        call.serve_in_callback()
    assert answer() == Error(error)


async def test_a_portal_call_in_a_closed_nursery_is_refused() -> None:
    async with nurseryio.open_nursery() as nursery:
        pass
    call, answer = made(nursery, nurseryio.sleep, 0)
    call.serve_in_callback()
    with pytest.raises(RunFinishedError) as caught:
        answer().unwrap()
    assert str(caught.value) == CLOSED


async def test_a_cancelled_portal_call_is_answered_once_it_has_cleaned_up() -> None:
    events = []

    async def work() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            with nurseryio.CancelScope(shield=True):
                await settle()
            events.append("cleaned up")

    async with nurseryio.open_nursery() as nursery:
        call, answer = made(nursery, work)
        call.serve_in_callback()
        await settle()
        call.cancel()
    assert events == ["cleaned up"]
    with pytest.raises(Cancelled, match="the thread that waits for the call was interrupted"):
        answer().unwrap()


async def test_a_portal_call_that_is_cancelled_before_it_begins_never_begins() -> None:
    async def never() -> None:
        raise AssertionError

    async with nurseryio.open_nursery() as nursery:
        call, answer = made(nursery, never)
        call.cancel()
        with pytest.raises(RunFinishedError):
            answer().unwrap()
        call.serve_in_callback()
        assert not nursery.child_tasks


async def test_a_portal_call_whose_task_is_cancelled_before_its_first_step_is_answered() -> None:
    async def work() -> str:
        await nurseryio.sleep(0)
        return "done"

    async with nurseryio.open_nursery() as nursery:
        call, answer = made(nursery, work)
        before = asyncio.all_tasks()
        call.serve_in_callback()
        (task,) = asyncio.all_tasks() - before
        task.cancel()
    await settle()
    outcome = answer()
    # With some task factories the first step comes before the cancellation.
    assert outcome == Value("done") or isinstance(outcome.error, (RunFinishedError, Cancelled))


async def test_a_portal_call_that_is_cancelled_after_its_end_answers_again() -> None:
    # Ctrl-C may come after the thread has taken the answer, and before it has kept it.
    async def work() -> str:
        return "done"

    async with nurseryio.open_nursery() as nursery:
        call, answer = made(nursery, work)
        call.serve_in_callback()
        await settle()
        assert answer() == Value("done")
        call.cancel()
        assert answer() == Value(None)
