"""``task_status``: how a child of ``nursery.start()`` says that it is ready, and so moves house.

Rule 1: until it is ready the child lives in a temporary nursery, inside the scopes of whoever
called ``start()``; :meth:`Starting.started` moves it, and everything that it spawned there, to the
nursery that it was meant for.

Rule 2: a child that is cancelled when it says so stays where it is: its ``Cancelled`` must meet
the scope that it belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

from .._asyncio.compat import forget_who_awaits, note_who_awaits
from .._base.util import ensure_stack
from .._core.delivery import deliver_changes
from .._core.loop_state import check_home
from .._core.scope_tree import chain, encloses, recalculate_chain

if TYPE_CHECKING:
    from .._core.task import Task
    from .nursery import Nursery

StatusT = TypeVar("StatusT")
StatusT_contra = TypeVar("StatusT_contra", contravariant=True)


class TaskStatus(Protocol[StatusT_contra]):
    """What ``nursery.start()`` gives to the child: call :meth:`started` once, when ready.

    Trio: ``trio.TaskStatus``.
    """

    @overload
    def started(self: TaskStatus[None]) -> None: ...

    @overload
    def started(self, value: StatusT_contra) -> None: ...

    def started(self, value: StatusT_contra | None = None) -> None:
        """Say that the task is ready.

        Args:
            value: what ``nursery.start()`` returns to its caller.

        Raises:
            RuntimeError: on the second call, or in another thread or event loop.
        """


class _TaskStatusIgnored:
    """The ``task_status`` of a function that was not called through ``nursery.start()``."""

    def __repr__(self) -> str:
        return "TASK_STATUS_IGNORED"

    def started(self, value: object = None) -> None:
        """Do nothing."""


TASK_STATUS_IGNORED = _TaskStatusIgnored()
NOT_STARTED: Any = object()


class Starting(TaskStatus[StatusT]):
    """The ``task_status`` of one ``start()``: moves the child when it says that it is ready."""

    def __init__(self, temporary: Nursery, target: Nursery) -> None:
        self._temporary = temporary
        self._target = target
        self.value: Any = NOT_STARTED

    def __repr__(self) -> str:
        return f"<Task status object at {id(self):#x}>"

    def started(self, value: Any = None) -> None:
        if self.value is not NOT_STARTED:
            raise RuntimeError("called 'started' twice on the same task status")
        old, new = self._temporary, self._target
        check_home(new._state)
        ensure_stack()
        self.value = value
        # A cancelled child stays where it is: its Cancelled must meet the scope it belongs to.
        if old.cancel_scope._effective:
            return
        assert not new._closed  # start() is counted as pending there
        moved: list[Task] = []
        try:
            self._move_all(moved)
        except BaseException:
            # What was moved stays moved. The rest follows, and all are looked at again.
            self._move_all(moved)
            deliver_changes(moved)
            raise

    def _move_all(self, moved: list[Task]) -> None:
        """Move the children to the nursery that they were meant for; those who have moved stay."""
        old, new = self._temporary, self._target
        flipped: list[Any] = []
        for task in list(old._children):
            moved.append(task)
            new._children[task] = None
            task._parent_nursery = new
            task._own_extra().eventual_parent_nursery = None
            if encloses(old.cancel_scope, task.scope):
                inside = list(chain(task.scope, old.cancel_scope))
                if inside:
                    inside[-1]._parent = new.cancel_scope
                else:
                    task.scope = new.cancel_scope
                # The old nursery was not cancelled, so only a cancelled new one changes anything,
                # and a deadline that has passed unnoticed.
                if inside or new.cancel_scope._effective:
                    flipped += recalculate_chain(task, new.cancel_scope)
            if note_who_awaits is not None and forget_who_awaits is not None:
                forget_who_awaits(task.asyncio_task, old._parent_task.asyncio_task)
                note_who_awaits(task.asyncio_task, new._parent_task.asyncio_task)
            old._children.pop(task, None)
        deliver_changes(flipped)
        old._wake()
