"""Event: it happens once, and any number of tasks can wait for it.

Rule: a task is in ``_waiting`` exactly while it sleeps in :meth:`Event.wait`. Once the event has
happened, ``_waiting`` is empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from .._base.unsupported import Elsewhere
from .._base.util import Final, Frozen
from .._core import checkpoint, current_task, reschedule
from .._core.wait_queue import check_one_loop, park, wake_rest

if TYPE_CHECKING:
    from .._core import Task

__all__ = ["Event", "EventStatistics"]


class EventStatistics(Frozen):
    """The state of an :class:`Event` at one moment.

    Attributes:
        tasks_waiting: How many tasks sleep in :meth:`Event.wait`.

    Trio: ``trio.EventStatistics``.
    """

    __slots__ = ("tasks_waiting",)

    tasks_waiting: int


class Event(metaclass=Final):
    """Something that happens once, and that any number of tasks can wait for.

    An event cannot be reset: it does not have a ``clear()`` method. If something happens again and
    again, use a new event each time, a memory channel or a :class:`Condition`.

    Trio: ``trio.Event``.
    """

    __slots__ = ("__weakref__", "_happened", "_waiting")

    def __init__(self) -> None:
        self._happened = False
        # A dict and not a set, so that tasks are woken in the order in which they came.
        self._waiting: dict[Task, None] = {}

    def __repr__(self) -> str:
        state = "set" if self._happened else f"not set, {len(self._waiting)} tasks waiting"
        return f"<Event at {id(self):#x}, {state}>"

    def __bool__(self) -> NoReturn:
        raise NotImplementedError(
            "nurseryio events cannot be treated as bools; consider using `event.is_set()` instead."
        )

    if not TYPE_CHECKING:
        clear = Elsewhere("an event is set once; make a new one, or use a Condition")

    def is_set(self) -> bool:
        """Say whether the event has happened.

        Trio: ``trio.Event.is_set``.
        """
        return self._happened

    def set(self) -> None:
        """Let the event happen, and wake all tasks that wait for it. A second call does nothing.

        Raises:
            RuntimeError: A task waits, and the caller is in another thread or event loop than that
                task. The event has not happened then. From a thread use
                ``from_thread.run_sync``.

        Trio: ``trio.Event.set``.
        """
        if not self._happened:
            waiting = self._waiting
            if len(waiting) > 1:
                check_one_loop(waiting)
            try:
                for task in waiting:
                    reschedule(task)
            except BaseException as error:
                wake_rest(waiting, error)
            waiting.clear()
            self._happened = True

    async def wait(self) -> None:
        """Wait until the event has happened.

        Raises:
            Cancelled: The task was cancelled.

        Checkpoint: yes, even if the event happened before.

        Trio: ``trio.Event.wait``.
        """
        if self._happened:
            await checkpoint()
            return
        await park(current_task(), self._waiting)

    def statistics(self) -> EventStatistics:
        """Return the present state, for debugging.

        Trio: ``trio.Event.statistics``.
        """
        return EventStatistics(tasks_waiting=len(self._waiting))
