"""``task_status``: ``started()`` moves a child of ``nursery.start()`` to the target nursery.

Rule 1: before ``started()`` the child runs in a temporary nursery, inside the scopes of the caller
of ``start()``. :meth:`Starting.started` moves the child, and all tasks spawned in the temporary
nursery, to the nursery whose ``start()`` was called.

Rule 2: a child that is cancelled when it calls ``started()`` is not moved. Its ``Cancelled`` has to
pass through the temporary nursery to reach the scope that caused it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, overload

from .._asyncio.compat import forget_who_awaits, note_who_awaits
from .._base.util import ensure_stack
from .._core.delivery import deliver_changes
from .._core.loop_state import check_home
from .._core.scope_tree import chain, encloses, recalculate_chain
from .stop_requests import look_again

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from typing_extensions import TypeVar

    from .._core.task import Task
    from .nursery import Nursery

    # As in Trio, `TaskStatus` alone is `TaskStatus[None]` for type checkers.
    StatusT = TypeVar("StatusT", default=None)
    StatusT_contra = TypeVar("StatusT_contra", contravariant=True, default=None)
else:
    from typing import TypeVar

    StatusT = TypeVar("StatusT")
    StatusT_contra = TypeVar("StatusT_contra", contravariant=True)


class TaskStatus(Protocol[StatusT_contra]):
    """The object that ``nursery.start()`` gives to the child: call :meth:`started` when ready.

    Trio: ``trio.TaskStatus``.
    """

    @overload
    def started(self: TaskStatus[None]) -> None: ...

    @overload
    def started(self, value: StatusT_contra) -> None: ...

    def started(self, value: StatusT_contra | None = None) -> None:
        """Report that the task is ready. To be called once.

        Args:
            value: the value that ``nursery.start()`` returns to its caller.

        Raises:
            RuntimeError: on the second call, or in another thread or event loop.
        """


# What nursery.start() takes, for type checkers: async functions by the number of arguments before
# task_status, which carries the result of start(). TypeVarTuple would need only one class, but mypy
# cannot follow it through a keyword argument.
if TYPE_CHECKING:
    A = TypeVar("A")
    B = TypeVar("B")
    C = TypeVar("C")
    T = TypeVar("T")
    A_contra = TypeVar("A_contra", contravariant=True)
    B_contra = TypeVar("B_contra", contravariant=True)
    C_contra = TypeVar("C_contra", contravariant=True)
    T_co = TypeVar("T_co", covariant=True)
    AsyncFn: TypeAlias = Callable[..., Awaitable[object]]

    # fmt: off
    class TakesAll(Protocol):
        """An async function of any arguments, such as a ``partial[Any]``. It says nothing of T.

        It comes first: in its place pyright would give T the value ``T_co@Starts1``.
        """

        def __call__(self, *args: object, **kwargs: object) -> Awaitable[object]: ...

    class Starts(Protocol[T_co]):
        """An async function without other arguments."""

        def __call__(self, *, task_status: TaskStatus[T_co]) -> Awaitable[object]: ...

    class Starts1(Protocol[A_contra, T_co]):
        """An async function with one argument."""

        def __call__(
            self, a: A_contra, /, *, task_status: TaskStatus[T_co]) -> Awaitable[object]: ...

    class Starts2(Protocol[A_contra, B_contra, T_co]):
        """An async function with two arguments."""

        def __call__(
            self, a: A_contra, b: B_contra, /, *, task_status: TaskStatus[T_co]
        ) -> Awaitable[object]: ...

    class Starts3(Protocol[A_contra, B_contra, C_contra, T_co]):
        """An async function with three arguments."""

        def __call__(
            self, a: A_contra, b: B_contra, c: C_contra, /, *, task_status: TaskStatus[T_co]
        ) -> Awaitable[object]: ...
    # fmt: on


class _TaskStatusIgnored:
    """The ``task_status`` of a function that was not called through ``nursery.start()``."""

    def __repr__(self) -> str:
        return "TASK_STATUS_IGNORED"

    def started(self, value: object = None) -> None:
        """Do nothing."""


TASK_STATUS_IGNORED = _TaskStatusIgnored()
NOT_STARTED: Any = object()


class Starting(TaskStatus[StatusT]):
    """The ``task_status`` of one ``start()``: moves the child when it calls ``started()``."""

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
        # A cancelled child is not moved: its Cancelled has to reach the scope that caused it.
        if old.cancel_scope._effective:
            return
        assert not new._closed  # start() is counted as pending there
        moved: list[Task] = []
        try:
            self._move_all(moved)
        except BaseException:
            # Moved children stay moved. Move the rest, and deliver to all of them again.
            self._move_all(moved)
            deliver_changes(moved)
            raise

    def _move_all(self, moved: list[Task]) -> None:
        """Move the remaining children to the target nursery, and note them in ``moved``."""
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
                # The old nursery was not cancelled. So the child's state changes only if the new
                # nursery is cancelled, or if a deadline has passed unnoticed.
                if inside or new.cancel_scope._effective:
                    flipped += recalculate_chain(task, new.cancel_scope)
            if note_who_awaits is not None and forget_who_awaits is not None:
                forget_who_awaits(task.asyncio_task, old._parent_task.asyncio_task)
                note_who_awaits(task.asyncio_task, new._parent_task.asyncio_task)
            old._children.pop(task, None)
        deliver_changes(flipped)
        old._wake()
        look_again(new._state)
