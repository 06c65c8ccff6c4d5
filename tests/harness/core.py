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

from nurseryio._core.delivery import _validate
from nurseryio._core.task import current_state, records

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
    """Objects that the body drops must be freed without the collector."""
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
