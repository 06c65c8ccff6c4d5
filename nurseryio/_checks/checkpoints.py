"""Assertions on whether a block of code executes a checkpoint.

This module has :func:`assert_checkpoints` and :func:`assert_no_checkpoints`.

A checkpoint is two things at once: the task yields to the loop (a *schedule point*), and a
cancellation may be raised (a *cancel point*).

Schedule points: when the block begins, a callback is scheduled on the loop. The loop calls
callbacks in the order in which they were scheduled. The task is running, so its next step is not
scheduled yet. Therefore the callback has run before the task continues if and only if the task has
yielded. This holds for awaits of asyncio code as well, and costs nothing outside the block.

Cancel points: the callback runs while the task is suspended, and looks at how it is suspended.
Every suspension can be cancelled, except that of ``cancel_shielded_checkpoint``. After that one,
the callback is scheduled again to see the next. ``checkpoint_if_cancelled`` is a cancel point that
does not suspend. It clears the flag ``_deferred_cancel`` on the task's record, so this module sets
the flag and looks whether it was cleared. While the flag is not set, that costs nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._base.exc_fields import explained
from .._core import current_task
from .._core.cancel_ledger import has_unraised_cancel, native_requests

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class _Watch:
    """Watches the current task from :meth:`__init__` to :meth:`stop`."""

    def __init__(self) -> None:
        self._task = current_task()
        # checkpoint_if_cancelled() clears the flag when it has looked. If the flag is clear now,
        # an assertion around this one may see from it that such a look has happened.
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
            and not has_unraised_cancel(self._task)
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
        raise AssertionError("assert_checkpoints block did not yield!")
    if not watch.cancellable:
        raise explained(
            AssertionError("assert_checkpoints block did not yield!"),
            "it yielded to other tasks, but no await in it could have raised a cancellation, so it "
            "executed no checkpoint",
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
            raise AssertionError("assert_no_checkpoints block yielded!")
        if watch.cancellable:
            raise explained(
                AssertionError("assert_no_checkpoints block yielded!"),
                "it did not yield to other tasks, but it checked for cancellation",
            )


def assert_checkpoints() -> AbstractContextManager[None]:
    """Check that a block of code executes a checkpoint, or leaves with an exception.

    ::

        with assert_checkpoints():
            await nurseryio.sleep(0)

    The block passes if the task yields to other tasks in it, and a cancellation could have been
    raised in it. Awaiting an asyncio future counts as well.

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
