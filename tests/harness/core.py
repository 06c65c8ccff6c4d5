"""Short cuts for the tests of the engine."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nurseryio import CancelScope, open_nursery
from nurseryio._core.delivery import _validate
from nurseryio._core.task import current_state, records
from nurseryio._nursery.nursery import SLOW_EXIT_PREDICTION
from nurseryio.lowlevel import Abort

from . import pypy

needs_counts = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 has neither cancel counts nor TaskGroup"
)
HAS_COUNTS = sys.version_info >= (3, 11)


def validate() -> None:
    """Check the invariants of the running loop."""
    _validate(current_state())


def cancelling() -> int:
    """How many cancel requests the running task counts; 0 where Python does not count."""
    return getattr(asyncio.current_task(), "cancelling", lambda: 0)()


async def turns(number: int = 1) -> None:
    """Let the loop run that many iterations, and check the invariants after each."""
    for _ in range(number):
        await asyncio.sleep(0)
        validate()


async def settle() -> None:
    """Let the loop turn until everything that goes on without waiting has been done."""
    await turns(10)


@contextmanager
def cut_short() -> Iterator[CancelScope]:
    """A scope that is cancelled after a few iterations of the loop: the block waits by then.

    A time limit could run out before the block has begun to wait.
    """
    loop = asyncio.get_running_loop()

    def turn(left: int) -> None:
        if left:
            loop.call_soon(turn, left - 1)
        else:
            scope.cancel()

    with CancelScope() as scope:
        turn(10)
        yield scope


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until a condition holds that needs no more than turns."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("did not come true")


@contextmanager
def little_cpu(most: float = 0.1) -> Iterator[None]:
    """The body, which waits for some real time, may use this much CPU time (seconds)."""
    before = time.process_time()
    yield
    assert time.process_time() - before < most


@contextmanager
def task_factory(factory: Any) -> Iterator[None]:
    """The body runs with this task factory on its loop; afterwards the one before is back."""
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        yield
    finally:
        loop.set_task_factory(before)


@contextmanager
def without_gc() -> Iterator[None]:
    """Objects that the body drops must be freed without the collector.

    The test is skipped on a Python that does not count references (PyPy).
    """
    pypy.skip_unless_counting()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def gone(reference: weakref.ref[Any]) -> bool:
    """Whether an object is no more, without help of the garbage collector."""
    return reference() is None


class Refusing(asyncio.Future[Any]):
    """A future that counts how often it is cancelled, and refuses."""

    asked = 0

    def cancel(self, msg: Any = None) -> bool:
        """Refuse."""
        self.asked += 1
        return False


def record_of(asyncio_task: asyncio.Task[Any] | None) -> Any:
    """The library's record of an asyncio task."""
    assert asyncio_task is not None
    return records[asyncio_task]


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, in groups in it and so on; a bare error alone."""
    inner = getattr(error, "exceptions", None)
    if inner is None:
        return [error]
    return [leaf for member in inner for leaf in leaves(member)]


def types_of(error: BaseException) -> list[type[BaseException]]:
    """The types of :func:`leaves`."""
    return [type(leaf) for leaf in leaves(error)]


# -- what tasks do ----------------------------------------------------------------


async def forever() -> None:
    """Wait in asyncio's own way for a future that is never done."""
    await asyncio.get_running_loop().create_future()


async def do_nothing() -> None:
    """End at once."""


async def fail(error: BaseException) -> None:
    """Raise an error at once."""
    raise error


async def fail_after_turns(error: BaseException, number: int = 3) -> None:
    """Raise an error after some iterations of the loop."""
    await turns(number)
    raise error


async def own_task(function: Any) -> Any:
    """Run a function in a new asyncio task, and return its result or error."""
    task = asyncio.get_running_loop().create_task(function())
    return (await asyncio.gather(task, return_exceptions=True))[0]


def cancel_me() -> None:
    """Cancel the running task natively."""
    asyncio.current_task().cancel("native")  # type: ignore[union-attr]


def agree(_raise_cancel: object) -> Abort:
    """An abort function that lets the task be woken."""
    return Abort.SUCCEEDED


# How a nursery waits for its end depends on whether the one before it lasted (rule 2 of nursery).
both_ends = pytest.mark.parametrize("previous", ["short", "long"])


async def a_nursery_before(previous: str) -> None:
    """Make the nursery before the tested one a short or a long one."""
    # One more: during the first, that of run() itself turns out to last.
    lengths = [0] * (SLOW_EXIT_PREDICTION + 1) if previous == "short" else [3]
    for length in lengths:
        async with open_nursery() as nursery:
            nursery.start_soon(turns, length)
