"""What few tasks have, kept apart from their records.

Rule: a record has slots for what every task needs. The rest is here, and a task that has nothing of
it shares the one empty instance, :data:`NO_EXTRA`: eleven slots more would make each spawn a tenth
dearer, and each of ten thousand tasks heavier. Who has something to note asks the record for an
instance of its own; ``NO_EXTRA`` is never written to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import contextvars

    from .._nursery.nursery import Nursery
    from .task import Task


class EdgeProtocol(Protocol):
    """What delivery calls of ``_interop.edge_cancellation.EdgeCancellation``."""

    def protects(self, task: Task) -> bool: ...
    def cancel_requested(self, task: Task) -> None: ...


class Extra:
    """The rare part of a :class:`~nurseryio.lowlevel.Task`."""

    __slots__ = (
        "breakers",
        "context",
        "custom_sleep_data",
        "eventual_parent_nursery",
        "has_ended",
        "is_system",
        "edge",
        "outcome",
        "seen_done",
        "stale_requests",
        "propagating_requests",
    )

    def __init__(self) -> None:
        # The outcome handed over although a native cancel had already ended the task's future.
        self.outcome: Any = None
        # The future that is done and that delivery has last found the task waiting for; how often.
        self.seen_done: tuple[Any, int] = (None, 0)
        # What the task is in that wants cancellation at an edge instead of a level.
        self.edge: EdgeProtocol | None = None
        # Kept only where counts go stale (host): how many native requests were over when ours came,
        # and how many there were when a scope let one of them pass, which is on its way since.
        self.stale_requests = self.propagating_requests = 0
        # Parking lots to break when the task ends.
        self.breakers: list[Any] | None = None
        # Where a task spawned by start() goes once it is ready.
        self.eventual_parent_nursery: Nursery | None = None
        self.is_system = False
        # The end was noticed although the nursery's wrapper did not get there.
        self.has_ended = False
        # The context that the task was given at the spawn.
        self.context: contextvars.Context | None = None
        self.custom_sleep_data: Any = None


NO_EXTRA = Extra()
