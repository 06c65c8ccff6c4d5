"""Rarely used fields of a :class:`Task`, kept apart from the record.

Rule: a record has slots for the data that every task needs. The rest is here. A task without any of
it shares the one empty instance :data:`NO_EXTRA`, which is never written to. To write a field, call
``Task._own_extra()``, which gives the task an instance for itself. Twelve more slots in the record
would make each spawn a tenth slower, and each of ten thousand tasks bigger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import contextvars

    from .._nursery.nursery import Nursery
    from .swallowing import Swallowed
    from .task import Task


class EdgeProtocol(Protocol):
    """The methods of ``_interop.edge_cancellation.EdgeCancellation`` that delivery calls."""

    def protects(self, task: Task) -> bool: ...
    def cancel_requested(self, task: Task) -> None: ...


class Extra:
    """The rare part of a :class:`~nurseryio.lowlevel.Task`."""

    __slots__ = (
        "breakers",
        "context",
        "custom_sleep_data",
        "deferred_after",
        "eventual_parent_nursery",
        "has_ended",
        "is_system",
        "edge",
        "outcome",
        "seen_done",
        "stale_requests",
        "swallowed",
        "propagating_requests",
    )

    def __init__(self) -> None:
        # The outcome given to a task after a native cancel had already cancelled its future.
        self.outcome: Any = None
        # The done future that delivery last found the task waiting for; how many times in a row.
        self.seen_done: tuple[Any, int] = (None, 0)
        # Where the task has swallowed cancellations, while that is noted (``swallowing``).
        self.swallowed: Swallowed | None = None
        # The innermost edge cancellation block that the task is in.
        self.edge: EdgeProtocol | None = None
        # Used only where counts go stale (compat). The first is the number of native requests that
        # were raised before the scope's request was. The second is their number when a scope last
        # let the error of one pass. See rule 4 of cancel_ledger.
        self.stale_requests = self.propagating_requests = 0
        # Parking lots to break when the task ends.
        self.breakers: list[Any] | None = None
        # The nursery that a task spawned by start() moves to once it is ready.
        self.eventual_parent_nursery: Nursery | None = None
        self.is_system = False
        # The task's end was settled without its wrapper, which does nothing when it is closed.
        self.has_ended = False
        # The context that the task was given, at the spawn or later; None if it was not given one.
        self.context: contextvars.Context | None = None
        self.custom_sleep_data: Any = None
        # While a deferred native cancel waits for the next iteration of the loop: how many native
        # requests were raised in the task before it. Otherwise None.
        self.deferred_after: int | None = None


NO_EXTRA = Extra()
