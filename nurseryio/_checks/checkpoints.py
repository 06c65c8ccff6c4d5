"""Assertions on whether a block of code executes a checkpoint.

What lives here: :func:`assert_checkpoints` and :func:`assert_no_checkpoints`.

A checkpoint is two things at once: the task lets others run (a *schedule point*), and a
cancellation may strike (a *cancel point*).

How the first is seen: when the block begins, a callback is given to the loop. The loop runs its
callbacks in the order in which it got them, and the task's next step is not among them yet, as
the task is running: so the callback has run before the task goes on, if and only if the task has
yielded. That holds for awaits of foreign code as well, and costs nothing outside the block.

How the second is seen: the callback runs while the task is suspended and looks at how. Any
suspension is open to cancellation but that of ``cancel_shielded_checkpoint``; after that one,
the callback goes to the loop again to see the next. A cancel point without a suspension
(``checkpoint_if_cancelled``) takes the flag ``_deferred_cancel`` off the task's record, which costs
it nothing where the flag is not set.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._asyncio.compat import must_cancel
from .._core import current_task
from .._core.cancel_ledger import native_requests

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class _Watch:
    """Watches the current task from :meth:`__init__` to :meth:`stop`."""

    def __init__(self) -> None:
        self._task = current_task()
        # checkpoint_if_cancelled() takes the flag off when it has looked. Off, it may be the news
        # of such a look for an assertion around this one.
        self._was_off = not self._task._deferred_cancel
        self._task._deferred_cancel = True
        self.scheduled = False
        self.cancellable = False
        self._callback = self._look_soon()

    def _look_soon(self) -> asyncio.Handle:
        return self._task.asyncio_task.get_loop().call_soon(self._look)

    def _look(self) -> None:
        self.scheduled = True
        if self._task._shielded_step:
            self._callback = self._look_soon()
        else:
            self.cancellable = True

    def stop(self) -> None:
        self._callback.cancel()
        if not self._task._deferred_cancel:
            self.cancellable = True
        elif (
            self._was_off
            and native_requests(self._task) <= 0
            and not must_cancel(self._task.asyncio_task)
        ):
            self._task._deferred_cancel = False


@contextmanager
def _asserting_a_checkpoint() -> Iterator[None]:
    __tracebackhide__ = True
    watch = _Watch()
    try:
        yield
    finally:
        watch.stop()
    if not watch.scheduled:
        raise AssertionError(
            "assert_checkpoints: the block did not yield to other tasks, so it executed no "
            "checkpoint"
        )
    if not watch.cancellable:
        raise AssertionError(
            "assert_checkpoints: the block yielded to other tasks, but nowhere could a "
            "cancellation strike, so it executed no checkpoint"
        )


@contextmanager
def _asserting_no_checkpoint() -> Iterator[None]:
    __tracebackhide__ = True
    watch = _Watch()
    try:
        yield
    finally:
        watch.stop()
        if watch.scheduled:
            raise AssertionError("assert_no_checkpoints: the block yielded to other tasks")
        if watch.cancellable:
            raise AssertionError("assert_no_checkpoints: the block checked for cancellation")


def assert_checkpoints() -> AbstractContextManager[None]:
    """Check that a block of code executes a checkpoint, or leaves with an exception.

    ::

        with assert_checkpoints():
            await nurseryio.sleep(0)

    The block passes if the task lets other tasks run in it and a cancellation could have struck
    in it. Awaits of asyncio's own futures count like ours.

    Returns:
        A plain context manager for a block in an async function.

    Raises:
        AssertionError: at the end of the block, if it executed no checkpoint.
        RuntimeError: if it is entered outside any task.

    Trio: ``trio.testing.assert_checkpoints``.
    """
    return _asserting_a_checkpoint()


def assert_no_checkpoints() -> AbstractContextManager[None]:
    """Check that a block of code neither lets other tasks run nor checks for cancellation.

    ::

        with assert_no_checkpoints():
            send_channel.send_nowait(None)

    Returns:
        A plain context manager for a block in an async function.

    Raises:
        AssertionError: at the end of the block, however it ends, if it did either.
        RuntimeError: if it is entered outside any task.

    Trio: ``trio.testing.assert_no_checkpoints``.
    """
    return _asserting_no_checkpoint()
