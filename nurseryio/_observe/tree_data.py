"""The task tree as data: frozen classes of plain values, which JSON can carry.

The tree is flat: a list of tasks that name their parents by number. A tree may be deeper than the
recursion limit, so its data do not nest.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .drawing import lines_of, task_line
from .places import Place, program_place
from .wait_parts import Wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
        stop_requested: Whether the scope was asked to stop.
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
    stop_requested: bool = False


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
        timeout: Seconds until the earliest timeout of asyncio or anyio in whose block the task is.
            It is looked for if other tasks end the wait, or the task has nurseries. None if there
            is none.
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
    timeout: float | None = None

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

    def circles(self, certain: bool = True) -> list[list[TaskInfo]]:
        """The tasks that wait for each other in a circle, so that none of them can go on.

        Found are circles of locks, limiters, semaphores, nurseries and asyncio tasks. A circle of
        events is not: any code may set an event, so it cannot be known that none will. Nor is one
        that a deadline will end: that of a scope around one of its tasks, or a timeout of asyncio.

        Args:
            certain: True for circles that cannot end. False for circles of which it is only likely:
                in them, a task waits for the other side of a channel, whose ends are all in
                variables of tasks of the circle. A callback or a thread may still use one.
        """
        stuck = _stuck(self.tasks, True)
        if not certain:
            surely, stuck = stuck, _stuck(self.tasks, False)
            stuck = {number: after for number, after in stuck.items() if number not in surely}
        tasks = {task.id: task for task in self.tasks}
        found = []
        done: set[int] = set()
        for start in stuck:
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
                    if following in stuck and following not in done:
                        path[following] = iter(stuck[following])
                    following = None
        return found

    def as_dict(self) -> dict[str, Any]:
        """The same data as dicts, lists, strings, numbers and None, for ``json.dumps()``."""
        return asdict(self)


def _stuck(tasks: Iterable[TaskInfo], certain: bool) -> dict[int, tuple[int, ...]]:
    """The tasks that wait for each other for ever, each with those of them that it waits for.

    Args:
        tasks: All tasks.
        certain: Whether a wait that other code may end counts as one that will end.
    """
    waits = {}
    timed = _timed(tasks)
    for task in tasks:
        wait = task.wait
        if wait is None or task.id in timed or not (wait.tasks or wait.any_of):
            continue
        if wait.certain or not certain:
            waits[task.id] = wait
    # For each task those that wait for it, and for each wait how many of its tasks can act.
    waiting: dict[int, list[int]] = {}
    for number, wait in waits.items():
        for awaited in (*wait.tasks, *wait.any_of):
            waiting.setdefault(awaited, []).append(number)
    # A task outside of ``waits`` can act. A wait ends if all tasks that it needs can act.
    missing = {number: len(wait.tasks) or 1 for number, wait in waits.items()}
    todo = [number for number in waiting if number not in waits]
    while todo:
        for number in waiting.get(todo.pop(), ()):
            missing[number] -= 1
            if missing[number] == 0:
                todo.append(number)
    names = {task.id: task.name for task in tasks}
    stuck: dict[int, tuple[int, ...]] = {}
    for number in sorted(waits, key=names.__getitem__):
        if missing[number] > 0:
            wait = waits[number]
            needed = tuple(each for each in wait.tasks if missing.get(each, 0) > 0)
            stuck[number] = needed or (min(wait.any_of, key=names.__getitem__),)
    return stuck


def _timed(tasks: Iterable[TaskInfo]) -> set[int]:
    """The tasks whose wait a deadline will end, although no other task ends it.

    Args:
        tasks: All tasks, each after its parent.
    """
    # The ids of tasks and scopes inside of which the code has a deadline.
    inside: set[int] = set()
    found = set()
    for task in tasks:
        # A task that another one awaits is cancelled with that one.
        timed = (task.parent if task.nursery is None else task.nursery) in inside
        timed = timed or task.timeout is not None
        for scope in task.scopes:
            timed = (timed and not scope.shield) or (
                scope.deadline is not None and not scope.cancelled
            )
            # Where a timeout of asyncio stands between the scopes is not known.
            if timed or task.timeout is not None:
                inside.add(scope.id)
        if timed:
            found.add(task.id)
            inside.add(task.id)
    return found
