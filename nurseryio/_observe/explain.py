"""``explain()``: why a nursery or a cancel scope does not end.

A block does not end because of the tasks in it. Some of these only wait for others: a task at the
end of its nursery waits for the children. So the explanation names the tasks that wait for
something else, and says of each whether it was asked to end and what came of that.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._core import anyio_hook
from .._core.delivery import can_abort
from .._core.scope_tree import Node, chain, encloses
from .ages import cancelled_for
from .drawing import MOST_CIRCLES, circle_line, folded, kind_of, task_line
from .places import Place, program_place
from .task_tree import sentence_of, tree_of
from .tree_data import TaskInfo

if TYPE_CHECKING:
    from .._core.task import Task
    from .._nursery.nursery import Nursery
    from .._nursery.scope import CancelScope
    from .tree_data import TaskTree

# The most lines in one sentence about swallowed cancellations.
MOST_PLACES = 3

Swallows = tuple[tuple[Place, int], ...]

__all__ = ["Blocker", "Explanation", "explain"]


@dataclass(frozen=True, slots=True)
class Blocker:
    """A task that keeps a block from ending.

    Attributes:
        task: The task.
        asked: Whether a scope around its innermost line is cancelled.
        why: Why it has not ended, as a sentence without its subject; empty if it was not asked to.
        swallowed: How many cancellations it has swallowed: in awaits of asyncio code or, if the
            lines are noted, in any await.
        swallowed_at: Where it has swallowed them, as pairs of a line that awaits and a number, the
            most frequent first. They are noted in debug mode of the loop and while a ``Watchdog``
            watches; else it is empty.
    """

    task: TaskInfo
    asked: bool
    why: str
    swallowed: int
    swallowed_at: tuple[tuple[Place, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a block does not end. ``str()`` of it is a text of a few lines.

    Attributes:
        block: The block, as a text.
        ended: Whether the block has ended, or was never entered.
        cancelled: Why the block is cancelled, as a sentence; None if it is not.
        blockers: The tasks that keep it open.
        circles: Of these, the names of tasks that wait for each other, as sentences.
        likely_circles: The same for tasks of which it is only likely: see ``TaskTree.circles``.
        cancelled_for: For how many seconds, at least, the block has been cancelled by its own
            scope; None if it is not, or if no ``Watchdog`` watches.
    """

    block: str
    ended: bool
    cancelled: str | None
    blockers: tuple[Blocker, ...]
    circles: tuple[str, ...]
    likely_circles: tuple[str, ...] = ()
    cancelled_for: float | None = None

    def __str__(self) -> str:
        if self.ended:
            return f"{self.block} is not open"
        asked = "it is not cancelled" if self.cancelled is None else self.cancelled
        if self.cancelled_for is not None:
            asked += f", at least {self.cancelled_for:.1f} s ago"
        count = len(self.blockers)
        lines = [f"{self.block} waits for {count:,} task{'' if count == 1 else 's'}; {asked}"]
        reasons = {blocker.task.id: blocker.why for blocker in self.blockers}
        tasks = [blocker.task for blocker in self.blockers]
        for shown in folded(tasks, lambda task: (kind_of(task), reasons[task.id])):
            if isinstance(shown, str):
                lines.append(f"- {shown}")
            else:
                lines.append(f"- {task_line(shown)}")
                if reasons[shown.id]:
                    lines.append(f"  It {reasons[shown.id]}.")
        lines += [f"deadlock: {circle}" for circle in self.circles]
        lines += [f"likely deadlock: {circle}" for circle in self.likely_circles]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The same data as dicts, lists, strings, numbers and None, for ``json.dumps()``."""
        return asdict(self)


def explain(block: Nursery | CancelScope) -> Explanation:
    """Say why a nursery or a cancel scope does not end.

    ``print(explain(nursery))`` names the tasks that keep the block open: what each waits for and
    where. If the block is cancelled, it says why each of them has not ended: a shield, a thread
    that cannot be stopped, a cancellation that was swallowed.

    May be called in any thread, and in a signal handler.

    Args:
        block: The nursery, or the cancel scope.

    Returns:
        The explanation, as data. ``str()`` of it is the text.

    Raises:
        TypeError: ``block`` is neither a nursery nor a cancel scope.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    scope: Any = getattr(block, "cancel_scope", block)
    if not isinstance(scope, Node):
        raise TypeError(f"explain() needs a nursery or a cancel scope, not {block!r}")
    task: Any = scope._task
    if task is None:
        return Explanation(repr(block), True, None, (), ())
    tree = tree_of(task._state.loop)
    infos = {info.id: info for info in tree.tasks}
    found = []
    for inner in _holders(scope, task):
        info = infos.get(id(inner))
        if info is not None:
            asked = inner.scope._effective
            places = _swallowed_at(inner)
            swallowed = sum(number for _, number in places) or _swallowed(inner)
            found.append(Blocker(info, asked, _why(inner, info, places), swallowed, places))
    reason = sentence_of(scope) if scope._effective and scope._reason is not None else None
    age = cancelled_for(task._state.loop, scope) if scope._called else None
    circles, likely = (_circles(tree, found, certain) for certain in (True, False))
    return Explanation(_block(scope, task), False, reason, tuple(found), circles, likely, age)


def _block(scope: Any, task: Task) -> str:
    kind = "scope" if scope._nursery is None else "nursery"
    return f"a {kind} in task {task.name!r}"


def _circles(tree: TaskTree, blockers: list[Blocker], certain: bool) -> tuple[str, ...]:
    ids = {blocker.task.id for blocker in blockers}
    found = [each for each in tree.circles(certain) if ids & {task.id for task in each}]
    return tuple(map(circle_line, found[:MOST_CIRCLES]))


def _holders(scope: Node, task: Task) -> list[Task]:
    """The tasks inside a scope that wait for something else than the end of other tasks."""
    found: list[Task] = []
    todo: list[tuple[Task, Node]] = [(task, scope)]
    while todo:
        inside, outer = todo.pop()
        if not encloses(outer, inside.scope):
            continue
        waits_for_children = False
        nodes = [*chain(inside.scope, outer)]
        if outer is scope and inside is task:
            nodes.append(outer)
        for node in nodes:
            nursery: Any = node._nursery
            if nursery is not None and node._task is inside:
                todo += [(child, node) for child in reversed(list(nursery._children))]
                waits_for_children |= not nursery._body_running
        if not waits_for_children:
            found.append(inside)
    return found


def _why(task: Task, info: TaskInfo, places: Swallows) -> str:
    """Why a task has not ended, although it may have been asked to."""
    if not task.scope._effective:
        return _sheltered(task)
    if info.state == "new":
        return "has not begun, and will be cancelled at its first checkpoint"
    if anyio_hook.protects(task):
        return "is protected by an edge_cancellation block or a shield of anyio"
    if places:
        where = [f"{_times(number)} at {place}" for place, number in places[:MOST_PLACES]]
        more = len(places) - MOST_PLACES
        if more > 0:
            where.append(f"at {more} more line{'' if more == 1 else 's'}")
        return f"was cancelled, has swallowed that {', '.join(where)}, and waits again"
    swallowed = _swallowed(task)
    if swallowed:
        now = "" if info.place is None else f", now at {info.place.position}"
        return f"was cancelled, has swallowed that {_times(swallowed)}, and waits again{now}"
    parked = task._park is not None
    if info.state != "waiting" or (parked and can_abort(task)):
        return "is about to run, or is running without a checkpoint"
    if info.wait is not None and info.wait.kind == "thread":
        return "was cancelled, but a thread cannot be stopped from outside"
    if parked:
        return "was cancelled, but its wait cannot be interrupted"
    if compat.waiter(task.asyncio_task) is task._last_interrupted:
        return "was cancelled, but the future that it waits for refuses to be cancelled"
    return "was cancelled, and waits again"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number:,} times"


def _swallowed_at(task: Task) -> Swallows:
    noted = task._extra.swallowed
    if noted is None or not task._owns_cancel_request:
        return ()
    found: Counter[Place] = Counter()
    for lines, number in noted.counts.copy().items():
        place = program_place([Place.of(code, line) for code, line in lines])
        if place is not None:
            found[place] += number
    return tuple(found.most_common())


def _swallowed(task: Task) -> int:
    return task._swallowed_cancels[0] if task._swallowed_cancels else 0


def _sheltered(task: Task) -> str:
    for node in chain(task.scope, None):
        parent = node._parent
        if node._shielded and parent is not None and parent._effective:
            where = "in" if node._task is task else "inside"
            why = sentence_of(parent)
            ends = "" if getattr(node, "_deadline", inf) < inf else " without a deadline"
            return f"is {where} a scope{ends} whose shield keeps a cancellation out ({why})"
    return ""
