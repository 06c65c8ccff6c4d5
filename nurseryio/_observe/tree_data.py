"""The task tree as data: frozen classes of plain values, which JSON can carry.

The tree is flat: a list of tasks that name their parents by number. A tree may be deeper than the
recursion limit, so its data do not nest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .drawing import lines_of, task_line
from .places import Place, program_place
from .waits import Wait

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ScopeInfo", "TaskInfo", "TaskTree"]


@dataclass(frozen=True, slots=True)
class ScopeInfo:
    """A cancel scope that is open in a task, or the scope of a nursery.

    Attributes:
        id: A number that no other open scope has.
        nursery: Whether it is the scope of a nursery.
        body_running: Of a nursery: whether its block has not reached its end yet.
        children: Of a nursery: the ids of its child tasks.
        cancelled: Whether the scope itself was cancelled.
        reason: Why the code in it is cancelled, as a sentence; None if it is not.
        shield: Whether the scope keeps cancellations out.
        keeps_out: Why the code around it is cancelled, if the scope keeps that out; else None.
        deadline: Seconds until its deadline, negative if that has passed; None if it has none.
        deadline_set: The line that has set the deadline, as a text. It is kept in debug mode of the
            loop and while a ``Watchdog`` watches; else it is None.
        cancelled_for: For how many seconds, at least, the scope itself has been cancelled; None if
            it is not, or nobody has looked.
    """

    id: int
    nursery: bool
    body_running: bool
    children: tuple[int, ...]
    cancelled: bool
    reason: str | None
    shield: bool
    keeps_out: str | None
    deadline: float | None
    deadline_set: str | None = None
    cancelled_for: float | None = None


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task.

    Attributes:
        id: A number that no other task has.
        name: Its name.
        kind: ``"task"``, ``"system task"``, or ``"asyncio task"`` for a task that asyncio code has
            started.
        state: ``"waiting"``, ``"ready"``, ``"running"``, or ``"new"`` before its first step.
        wait: What it waits for, while it waits.
        cancelled: Whether a scope around its innermost line is cancelled.
        places: The lines at which it is, outermost first, without those of nurseryio and asyncio.
        scopes: The scopes and nurseries that it has open, outer before inner.
        parent: The id of the task whose nursery it is in, or that awaits it; None if there is none.
        nursery: The id of the scope of the nursery that it is in; None if there is none.
    """

    id: int
    name: str
    kind: str
    state: str
    wait: Wait | None
    cancelled: bool
    places: tuple[Place, ...]
    scopes: tuple[ScopeInfo, ...]
    parent: int | None
    nursery: int | None

    def __str__(self) -> str:
        return task_line(self)

    @property
    def place(self) -> Place | None:
        """The innermost line of the program at which the task is; None if it cannot be known."""
        return program_place(self.places)


@dataclass(frozen=True, slots=True)
class TaskTree:
    """The tasks of one event loop at one moment. ``str()`` of it draws the tree.

    Attributes:
        loop: The event loop, as a text.
        tasks: The tasks, each after its parent.
        blocking: The stack of the step that the loop is in, outermost first, if another thread has
            made the tree; else empty. A loop that blocks is in that step.
        blocking_task: The id of the task that makes the step; None if it is a callback.
    """

    loop: str
    tasks: tuple[TaskInfo, ...]
    blocking: tuple[Place, ...] = ()
    blocking_task: int | None = None

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self, most: int | None = None) -> Iterator[str]:
        """The lines of the drawing.

        Args:
            most: The most tasks of a kind to draw in one nursery: tasks of the same function at the
                same line, without open nurseries. A line says how many more there are. None
                stands for 10.
        """
        return lines_of(self, most)

    def circles(self) -> list[list[TaskInfo]]:
        """The tasks that wait for each other in a circle, so that none of them can go on.

        Found are circles of locks, nurseries and asyncio tasks. A circle of events or channels is
        not: any task may set an event, so it cannot be known that none will.
        """
        tasks = {task.id: task for task in self.tasks}
        found = []
        done: set[int] = set()
        for start in tasks:
            # The path to the task that is looked at, each with the tasks that it still leads to.
            path: dict[int, Iterator[int]] = {}
            following: int | None = start
            while path or following is not None:
                if following is None:
                    number = next(reversed(path))
                    following = next(path[number], None)
                    if following is None:
                        del path[number]
                        done.add(number)
                elif following in path:
                    numbers = list(path)
                    circle = [tasks[each] for each in numbers[numbers.index(following) :]]
                    # It may begin with any of its tasks: the first by name, for people.
                    first = circle.index(min(circle, key=lambda task: task.name))
                    found.append(circle[first:] + circle[:first])
                    following = None
                else:
                    if following in tasks and following not in done:
                        wait = tasks[following].wait
                        path[following] = iter(() if wait is None else wait.tasks)
                    following = None
        return found

    def as_dict(self) -> dict[str, Any]:
        """The same data as dicts, lists, strings, numbers and None, for ``json.dumps()``."""
        return asdict(self)
