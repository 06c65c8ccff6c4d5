"""Stop requests: a scope is asked to finish its work before it is cancelled.

This module has the methods of ``CancelScope`` for the code that asks. ``stopping`` has the
functions for the code inside.

Rule 1: a request is a flag of one scope. It holds for the code that a cancellation of that scope
would reach. So it passes down through nurseries to their children, and a shield keeps it out.

Rule 2: the flag is looked up from the innermost scope outwards. Nothing is pushed down the tree.
Entering a scope does nothing for it, and the slot of the flag is empty until there is a request.

Rule 3: a loop knows the scopes that end at a request (``LoopState.stop_scopes``). After a request,
and after a change that may let one in, all of them look again. A change is a shield that is
removed, or a child of ``start()`` that gets its nursery.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from .._base.errors import CancelReason
from .._base.unsupported import Elsewhere, NeverHere
from .._base.util import SECONDS, as_float

if TYPE_CHECKING:
    from .._core.loop_state import LoopState
    from .._core.scope_tree import Node

__all__ = ["STOP", "Stoppable", "is_requested", "look_again"]

# The reason for cancelling a scope that ends at a stop request.
STOP = CancelReason("explicit", "a stop was requested")
NO_GRACE = "a stop was requested, without a grace period"


def is_requested(node: Node | None) -> bool:
    """Whether a stop request reaches the code directly inside a node."""
    while node is not None:
        if getattr(node, "_stop", False):
            return True
        node = None if node._shielded else node._parent
    return False


def look_again(state: LoopState) -> None:
    """End the scopes of a loop that end at a stop request, if one reaches them now.

    If that fails for one of them, it is done again in the next iteration of the loop.
    """
    if not state.stop_was_requested:
        return
    try:
        for scope, delay in state.stop_scopes.copy().items():
            if is_requested(scope):
                if delay > 0:
                    _end_within(scope, state, delay)
                else:
                    scope._cancel(STOP)
                state.stop_scopes.pop(scope, None)
    except BaseException:
        state.finish_later(look_again, state)
        raise


def _end_within(scope: Any, state: LoopState, seconds: float) -> None:
    """Give a scope a deadline that many seconds from now, unless it has an earlier one."""
    deadline = state.loop.time() + seconds
    if deadline < scope._deadline:
        scope._set_deadline(deadline)


class Stoppable:
    """The part of ``CancelScope`` that asks the code inside to stop."""

    __slots__ = ()

    if TYPE_CHECKING:
        _called: bool
        _entered: bool
        _task: Any

        def cancel(self, reason: str | None = None) -> None: ...
        def _check_caller(self) -> None: ...
    else:
        # Hints for CancelScope, in this class so that its own one stays short.
        cancelled = Elsewhere("use scope.cancel_called")
        expired = Elsewhere("use scope.cancelled_caught")
        reschedule = Elsewhere("set scope.deadline")
        when = Elsewhere("use scope.deadline")
        sheild = NeverHere("use scope.shield")
        timeout = NeverHere("use scope.relative_deadline before entry, scope.deadline afterwards")

    def request_stop(self, grace_period: float = inf) -> None:
        """Ask the code in this scope to finish the work that it has begun, and to begin no more.

        Nothing is interrupted now, except the blocks of :func:`move_on_at_stop`. Code inside finds
        out by :func:`stop_requested` and :func:`wait_stop_requested`. If the scope is not left when
        the grace period is over, it is cancelled.

        The grace period sets the ``deadline`` of the scope, if that is later or was not set. A
        second request can shorten it. For a scope that has been left, this does nothing.

        Args:
            grace_period: seconds until the scope is cancelled, not negative; ``inf`` for never. 0
                cancels at once.

        Raises:
            TypeError: ``grace_period`` is not a number.
            ValueError: ``grace_period`` is negative or NaN.
            RuntimeError: the scope has not been entered yet, or this is another thread or event
                loop.

        Checkpoint: no. May be called from any code running on the same loop.

        Trio: none.
        """
        grace_period = as_float(grace_period, "grace_period", SECONDS)
        if grace_period < 0:
            raise ValueError("grace_period must be non-negative")
        if not self._entered:
            raise RuntimeError("enter the scope first: 'with CancelScope() as scope:'")
        task = self._task
        if task is None:
            return
        self._check_caller()
        if grace_period == 0:
            self.cancel(NO_GRACE)
        elif not self._called:
            _end_within(self, task._state, grace_period)
        scope: Any = self  # the slot is in CancelScope
        scope._stop = task._state.stop_was_requested = True
        look_again(task._state)

    @property
    def stop_requested(self) -> bool:
        """Whether :meth:`request_stop` was called on this scope. Trio: none."""
        return getattr(self, "_stop", False)
