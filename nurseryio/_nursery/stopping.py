"""Code that can be asked to stop: how it notices.

This module has ``stop_requested()``, ``wait_stop_requested()`` and ``move_on_at_stop()``. The
request itself is ``CancelScope.request_stop``, in ``stop_requests``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._base.util import SECONDS, OnlyWith, as_float
from .._core import anyio_hook
from .._core.task import current_task
from .scope import new_scope
from .stop_requests import is_requested, look_again
from .timeouts import sleep_forever

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from types import TracebackType

    from .._core.loop_state import LoopState
    from .scope import CancelScope


def stop_requested() -> bool:
    """Whether the current task is asked to stop.

    It is, if :meth:`CancelScope.request_stop` was called on a scope around the caller, and no
    shield is between the two, neither of this library nor of anyio. It also is if the task is
    cancelled.

    Raises:
        RuntimeError: outside a task.

    Checkpoint: no.

    Trio: none.
    """
    task = current_task()
    scope = task.scope
    if not scope._effective and not is_requested(scope):
        return False
    return not anyio_hook.is_shielded(task)


async def wait_stop_requested() -> None:
    """Wait until the current task is asked to stop.

    Returns at once, after a checkpoint, if it was asked already.

    Raises:
        Cancelled: if the task is cancelled.
        RuntimeError: outside a task.

    Checkpoint: yes.

    Trio: none.
    """
    with move_on_at_stop():
        await sleep_forever()


def move_on_at_stop(*, delay: float = 0) -> AbstractContextManager[CancelScope]:
    """A scope that is cancelled when the task is asked to stop: ``with move_on_at_stop(): ...``.

    Put it around the wait for more work, and not around the work::

        while True:
            with move_on_at_stop() as waiting:
                job = await jobs.receive()
            if waiting.cancelled_caught:
                break
            await do(job)

    If the stop was requested already, the block is cancelled at its first checkpoint. A ``delay``
    gives the block some time after the request, or after its beginning if that is later. So a
    connection can be read on, for a request that is under way.

    Args:
        delay: seconds from the request to the cancellation, not negative.

    Returns:
        A context manager that gives the :class:`CancelScope`. After the block, ``cancelled_caught``
        is true if it was cut short.

    Raises:
        TypeError: ``delay`` is not a number.
        ValueError: ``delay`` is negative or NaN.
        RuntimeError: on entering outside a task.

    Checkpoint: no.

    Trio: none.
    """
    delay = as_float(delay, "delay", SECONDS)
    if delay < 0:
        raise ValueError("delay must be non-negative")
    return _AtStop(delay)


class _AtStop(OnlyWith):
    """The context manager of :func:`move_on_at_stop`."""

    __slots__ = ("_delay", "_scope", "_state")

    # Set at entry.
    _state: LoopState

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._scope = new_scope()

    def __enter__(self) -> CancelScope:
        self._state = state = current_task()._state
        scope = self._scope.__enter__()
        try:
            state.stop_scopes[scope] = self._delay
            look_again(state)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return scope

    def __exit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        self._state.stop_scopes.pop(self._scope, None)
        return self._scope.__exit__(etype, exc, tb)
