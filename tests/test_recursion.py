"""The recursion limit: an operation that fails for want of stack changes nothing, or is finished.

An operation is tried with each number of frames left, from none to more than it can need. If it
raises ``RecursionError``, it is made again from the top. In the end everything must be as if it had
been made once: each waiter is awake, no item is lost or doubled, the lock has one owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from harness import matrix
from harness.core import validate
from harness.operations import SCENARIOS, Scenario

import nurseryio
from nurseryio import (
    CancelScope,
    Event,
    Lock,
    Semaphore,
    fail_after,
    move_on_after,
    open_memory_channel,
    open_nursery,
    sleep,
    sleep_forever,
)
from nurseryio._base.util import ensure_stack
from nurseryio._core.loop_state import loop_state
from nurseryio._core.task import records
from nurseryio.lowlevel import (
    checkpoint,
    current_task,
    spawn_system_task,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

pytestmark = [
    pytest.mark.limit(10),
    # A coroutine that was made just before the limit was reached, as with asyncio's create_task().
    pytest.mark.filterwarnings("ignore:.*never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

# More frames than any operation takes.
MOST = 45


# -- frames -------------------------------------------------------------------------


@contextlib.contextmanager
def limit_near(frames: int) -> Iterator[None]:
    """Set the recursion limit to so many frames from here (about; see ``room``)."""
    before = sys.getrecursionlimit()
    depth = 0
    frame: Any = sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(2 * depth + frames)  # up to 3.11, calls from C count as well
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def room() -> int:
    """How many frames of ``deep`` are left."""
    made = 0

    def go() -> None:
        nonlocal made
        made += 1
        go()

    with contextlib.suppress(RecursionError):
        go()
    return made


def deep(frames: int, operation: Callable[[], Any]) -> Any:
    return operation() if frames <= 0 else deep(frames - 1, operation)


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group of many levels, without recursion."""
    found, todo = [], [error]
    while todo:
        inner = getattr(one := todo.pop(), "exceptions", None)
        if inner is None:
            found.append(one)
        else:
            todo.extend(inner)
    return found


class Attempt:
    """Makes an operation with few frames left."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.failed = False

    def __call__(self, operation: Callable[[], Any]) -> bool:
        """Make the operation; returns whether it has not raised RecursionError."""
        with limit_near(150):
            try:
                deep(room() - self.left, operation)
            except RecursionError:
                self.failed = True
                return False
        return True


def test_the_measure_of_frames_to_the_recursion_limit_is_right() -> None:
    def takes(frames: int) -> None:
        if frames > 1:
            takes(frames - 1)

    for needed in (1, 5, 20):
        passed = [Attempt(left)(functools.partial(takes, needed)) for left in range(30)]
        first = passed.index(True)
        assert passed == [False] * first + [True] * (30 - first)
        assert abs(first - needed) <= 3


def no_more_than_asyncio_says(errors: list[str]) -> None:
    """The loop's exception handler has only reports of tasks that asyncio could not make
    completely.

    It could not even schedule them, or (with uvloop before Python 3.12) it raised and kept a task,
    whose coroutine had been closed by then.
    """
    half_made = ["Task was destroyed but it is pending"]
    if sys.version_info < (3, 12):
        half_made.append("cannot reuse already awaited coroutine")
    assert [error for error in errors if not any(text in error for text in half_made)] == []


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda function: function.__name__)
async def test_an_operation_near_the_recursion_limit_is_done_once_or_not_at_all(
    scenario: Scenario, loop_errors: list[str]
) -> None:
    failed: list[int] = []
    for left in range(MOST):
        attempt = Attempt(left)
        try:
            with fail_after(5):
                await scenario(attempt)
        except BaseException as error:
            raise AssertionError(f"with {left} frames left") from error
        if attempt.failed:
            failed.append(left)
        await checkpoint()
        validate()
    assert failed, "no number of frames was too small"
    assert MOST - 1 not in failed
    no_more_than_asyncio_says(loop_errors)
    with move_on_after(0.001) as scope:  # timers work
        await sleep_forever()
    assert scope.cancelled_caught


# -- nested until the limit -------------------------------------------------------------------


class Nested:
    """Async functions that call themselves until the recursion limit is reached."""

    def __init__(self, nursery: nurseryio.Nursery) -> None:
        self.nursery = nursery

    async def scope(self) -> None:
        with CancelScope():
            await self.scope()

    async def move_on(self) -> None:
        with move_on_after(60):
            await self.move_on()

    async def fail(self) -> None:
        with fail_after(60):
            await self.fail()

    async def shield(self) -> None:
        with CancelScope(shield=True):
            await self.shield()

    async def cancelled_scope(self) -> None:
        with CancelScope() as scope:
            scope.cancel()
            await self.cancelled_scope()

    async def opened_nursery(self) -> None:
        async with open_nursery():
            await self.opened_nursery()

    async def nursery_with_a_child(self) -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(sleep, 0)
            await self.nursery_with_a_child()

    async def nursery_with_a_sleeper(self) -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(sleep_forever)
            await self.nursery_with_a_sleeper()

    async def nursery_in_a_cancelled_scope(self) -> None:
        with CancelScope() as scope:
            async with open_nursery() as nursery:
                nursery.start_soon(sleep_forever)
                scope.cancel()
                await self.nursery_in_a_cancelled_scope()

    async def spawn(self) -> None:
        self.nursery.start_soon(checkpoint)
        await self.spawn()

    async def start(self) -> None:
        async def child(*, task_status: Any) -> None:
            task_status.started()

        await self.nursery.start(child)
        await self.start()

    async def yields(self) -> None:
        await checkpoint()
        await self.yields()

    async def sleeps(self) -> None:
        await sleep(0.00001)
        await self.sleeps()

    async def lock(self) -> None:
        async with Lock():
            await self.lock()

    async def semaphore(self) -> None:
        async with Semaphore(1):
            await self.semaphore()

    async def limiter(self) -> None:
        async with nurseryio.CapacityLimiter(1):
            await self.limiter()

    async def channel(self) -> None:
        send, receive = open_memory_channel[int](1)
        await send.send(1)
        assert await receive.receive() == 1
        await self.channel()

    async def event(self) -> None:
        event = Event()
        event.set()
        await event.wait()
        await self.event()


NESTED = [name for name in vars(Nested) if not name.startswith("_")]


async def padded(frames: int, function: Callable[[], Awaitable[None]]) -> None:
    if frames:
        await padded(frames - 1, function)
    else:
        await function()


async def nest(name: str, frames: int) -> list[str]:
    """Nest until the limit, and look at what is left of everything."""
    problems: list[str] = []
    task = current_task()
    with CancelScope() as outer:
        async with open_nursery() as nursery:
            try:
                await padded(frames, getattr(Nested(nursery), name))
            except BaseException as error:
                kinds = {type(leaf) for leaf in leaves(error)}
                if not kinds <= {RecursionError, nurseryio.Cancelled}:
                    problems.append(f"raised {kinds}")
            else:
                problems.append("nothing was raised")
            if task.scope is not nursery.cancel_scope:
                problems.append(f"the task is in {task.scope!r}")
            with move_on_after(0.001) as scope:
                await sleep_forever()
            if not scope.cancelled_caught:
                problems.append("a timeout has not worked")
            for _ in range(5):
                await checkpoint()
            if nursery.child_tasks:
                problems.append(f"left: {nursery.child_tasks}")
            validate()
    if outer.cancel_called or nursery.cancel_scope.cancel_called:
        problems.append("a scope outside was cancelled")
    left = [record.name for record in records.values() if "sleep" in record.name]
    if left:
        problems.append(f"records left: {left}")
    return problems


@pytest.mark.parametrize("kind", [kind for kind in ("stock", "uvloop") if kind in matrix.KINDS])
@pytest.mark.parametrize("name", NESTED)
def test_blocks_nested_until_the_recursion_limit_are_all_exited(
    name: str, kind: str, loop_errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pytest's own hook, which would be called near the limit as well, cannot work there.
    monkeypatch.setattr(sys, "unraisablehook", lambda _unraisable: None)
    found: dict[int, list[str]] = {}
    pads = range(0, 14, 4 if name == "sleeps" else 1)  # which takes real time
    for frames in pads:

        async def main(frames: int = frames) -> None:
            found[frames] = await nest(name, frames)

        # Under nurseryio.run and in an asyncio program by turns.
        case = matrix.Case(kind, "run" if frames % 2 else "app")
        with limit_near(150):
            matrix.run_case(case, main)
    assert {frames: problems for frames, problems in found.items() if problems} == {}
    assert len(found) == len(pads)
    no_more_than_asyncio_says(loop_errors)


def test_nested_nurseries_are_exited_near_the_recursion_limit_on_a_loop_in_python() -> None:
    class Loop(asyncio.SelectorEventLoop):
        def is_closed(self) -> bool:
            ensure_stack(3)
            return super().is_closed()

    async def nested() -> None:
        async with open_nursery():
            await nested()

    async def main() -> None:
        task = current_task()
        scope = task.scope
        with pytest.raises(BaseException) as caught:
            await nested()
        assert {type(leaf) for leaf in leaves(caught.value)} == {RecursionError}
        assert task.scope is scope

    with limit_near(150):
        nurseryio.run(main, loop_factory=Loop)


def test_an_exception_group_with_a_childs_recursion_error_is_raised() -> None:
    async def recurse() -> None:
        await recurse()

    async def main() -> None:
        with pytest.raises(BaseExceptionGroup) as caught:
            async with open_nursery() as nursery:
                nursery.start_soon(recurse)
                nursery.start_soon(sleep_forever)
        assert [type(leaf) for leaf in leaves(caught.value)] == [RecursionError]
        spawn_system_task(checkpoint)

    with limit_near(150):
        nurseryio.run(main)


async def test_fairness_finish_later_that_keeps_failing_lets_the_loop_run(
    loop_errors: list[str],
) -> None:
    state = loop_state(asyncio.get_running_loop())
    calls: list[int] = []

    def fails() -> None:
        calls.append(1)
        if len(calls) < 100:
            state.finish_later(fails)

    state.finish_later(fails)
    for _ in range(3):
        await asyncio.sleep(0)
    assert 1 <= len(calls) <= 4
    while len(calls) < 100:
        await asyncio.sleep(0)
    assert loop_errors == []
