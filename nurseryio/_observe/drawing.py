"""The drawing of a task tree as lines of text.

Rule 1: a task has one line, which reads as a sentence: its name, where it is, what it waits for.

Rule 2: children of one nursery that do the same at the same line are folded: the first few are
drawn, and one line says how many more there are. That holds for what is below a task as well: it
has to have scopes of the same kinds, with tasks that do the same.

Rule 3: characters that control a terminal, end a line or cannot be encoded are drawn as escapes.
Names of tasks and reasons of cancellations may have any of them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .tree_data import ScopeInfo, TaskInfo, TaskTree

# The most tasks of a kind that are drawn in one nursery, unless the caller says another number.
MOST_OF_A_KIND = 10
# The most circles of tasks, and of tasks in the line of a circle.
MOST_CIRCLES = 5
MOST_IN_CIRCLE = 10

# Not the tabulator, which is in many lines of programs.
_SPECIAL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

STATES = {"running": "is running", "ready": "is ready to run", "new": "has not begun", "": ""}


def lines_of(tree: TaskTree, most: int | None = None) -> Iterator[str]:
    """The lines of the drawing; of tasks of one kind, more than ``most`` are folded."""
    yield from _blocking(tree)
    by_parent: dict[tuple[int | None, int | None], list[TaskInfo]] = {}
    there = {task.id for task in tree.tasks}
    for task in tree.tasks:
        parent = task.parent if task.parent in there else None
        nursery = None if parent is None else task.nursery
        by_parent.setdefault((parent, nursery), []).append(task)
    drawer = _Drawer(tree, by_parent, MOST_OF_A_KIND if most is None else most)
    yield from drawer.draw(by_parent.get((None, None), []))
    yield from circle_lines(tree)


def circle_lines(tree: TaskTree) -> Iterator[str]:
    """The lines about tasks that wait for each other, which end the drawing."""
    for certain, word in ((True, "deadlock"), (False, "likely deadlock")):
        counts = Counter(map(circle_line, tree.circles(certain)))
        for line, count in list(counts.items())[:MOST_CIRCLES]:
            yield f"{word}: {line}" + (f" ({count:,} times)" if count > 1 else "")
        more = sum(list(counts.values())[MOST_CIRCLES:])
        if more:
            yield f"{word}: ... {more:,} more circle{'' if more == 1 else 's'} of tasks"


def _blocking(tree: TaskTree) -> Iterator[str]:
    if not tree.blocking:
        return
    name = next((repr(task.name) for task in tree.tasks if task.id == tree.blocking_task), None)
    yield f"the loop is in a step of {'a callback' if name is None else f'task {name}'}:"
    for place in tree.blocking:
        yield plain(f"   {place}")


class _Drawer:
    """Draws tasks and scopes with all that is below them. Not recursive: trees may be deep."""

    def __init__(
        self,
        tree: TaskTree,
        by_parent: dict[tuple[int | None, int | None], list[TaskInfo]],
        most: int,
    ) -> None:
        self._by_parent = by_parent
        self._most = most
        # By the id of a task: a number that tasks have in common which are drawn alike, with all
        # that is below them.
        self._shapes: dict[int, int] = {}
        numbers: dict[object, int] = {}
        for task in reversed(tree.tasks):  # a parent comes before its children
            scopes = tuple(
                (_kind_of_scope(each), self._below(task, each.id)) for each in task.scopes
            )
            shape = (kind_of(task), scopes, self._below(task, None))
            self._shapes[task.id] = numbers.setdefault(shape, len(numbers))

    def draw(self, tops: list[TaskInfo]) -> Iterator[str]:
        """The lines for some tasks and all that is below them."""
        stack: list[tuple[str, str, Any]]
        stack = [("", "", top) for top in reversed(list(self._folded(tops)))]
        while stack:
            first, rest, node = stack.pop()
            if isinstance(node, str):
                yield first + node
                continue
            below: list[Any]
            if isinstance(node, tuple):
                task, scope = node
                yield first + scope_line(scope)
                children = self._by_parent.get((task.id, scope.id), ()) if scope.nursery else ()
                below = list(self._folded(children))
            else:
                yield first + task_line(node)
                below = [(node, scope) for scope in node.scopes]
                below += self._folded(self._by_parent.get((node.id, None), ()))
            last = True
            for child in reversed(below):
                corner, line = ("└─ ", "   ") if last else ("├─ ", "│  ")
                stack.append((rest + corner, rest + line, child))
                last = False

    def _folded(self, tasks: Iterable[TaskInfo]) -> Iterator[TaskInfo | str]:
        return folded(tasks, self._kind, self._most)

    def _kind(self, task: TaskInfo) -> object:
        return self._shapes[task.id]

    def _below(self, task: TaskInfo, nursery: int | None) -> frozenset[int | None]:
        """The shapes of the tasks in a nursery of a task, or of those that it awaits."""
        children = self._by_parent.get((task.id, nursery), ())
        return frozenset(self._shapes.get(child.id) for child in children)


def folded(
    tasks: Iterable[TaskInfo], kind: Callable[[TaskInfo], object], most: int = MOST_OF_A_KIND
) -> Iterator[TaskInfo | str]:
    """The tasks; in place of those beyond the most of a kind a line with their number.

    Args:
        tasks: The tasks.
        kind: What tasks that are folded together have in common.
        most: The most of a kind.
    """
    tasks = list(tasks)
    kinds = {task.id: kind(task) for task in tasks}
    counts = Counter(kinds.values())
    drawn: Counter[object] = Counter()
    for task in tasks:
        its = kinds[task.id]
        drawn[its] += 1
        # One more is drawn rather than a line that stands for one task.
        if counts[its] <= most + 1 or drawn[its] <= most:
            yield task
        elif drawn[its] == counts[its]:
            place = plain(f" at {task.place}") if task.place else ""
            yield f"... {counts[its] - most:,} more like this{place}"


def kind_of(task: TaskInfo) -> object:
    """What tasks that are drawn as one have in common."""
    wait = None if task.wait is None else task.wait.kind
    return (task.kind, task.state, wait, task.cancelled, task.place)


def _kind_of_scope(scope: ScopeInfo) -> object:
    timed = scope.deadline is not None
    return (scope.nursery, scope.cancelled, scope.shield, scope.keeps_out is None, timed)


def plain(text: str) -> str:
    """The text with escapes in place of the characters of rule 3."""
    return _SPECIAL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def circle_line(circle: list[TaskInfo]) -> str:
    """The sentence about tasks that wait for each other."""
    if len(circle) == 1:
        return f"{circle[0].name!r} waits for itself{_others(circle[0])}"
    waits = [
        f"{task.name!r} waits for {after.name!r}{_others(task)}"
        for task, after in zip(circle, [*circle[1:], circle[0]], strict=True)
    ]
    if len(waits) > MOST_IN_CIRCLE:
        left_out = len(waits) - MOST_IN_CIRCLE
        waits[MOST_IN_CIRCLE - 1 : -1] = [f"... {left_out:,} more ..."]
    return ", ".join(waits)


def _others(task: TaskInfo) -> str:
    """How many tasks could end a wait beside the one that is named."""
    count = 0 if task.wait is None else len(task.wait.any_of) - 1
    return f" or {count:,} other{'' if count == 1 else 's'} that cannot go on" if count > 0 else ""


def task_line(task: TaskInfo) -> str:
    """The sentence about a task: its name, where it is, what it waits for, the text of the line."""
    doing = STATES.get(task.state, "") if task.wait is None else task.wait.text
    if task.wait is not None:
        if task.wait.held is not None:
            doing += f" (for at least {task.wait.held:.1f} s)"
        if task.wait.waited is not None:
            doing += f", for at least {task.wait.waited:.1f} s"
        if task.cancelled:
            doing += " (although it is cancelled)"
    name = task.name if task.kind == "task" else f"{task.kind} {task.name}"
    place = task.place
    if place is None:
        return plain(f"{name} {doing}".rstrip())
    said = f", {doing}" if doing else ""
    source = f": {place.text}" if place.text else ""
    return plain(f"{name} at {place.position}{said}{source}")


def scope_line(scope: ScopeInfo) -> str:
    """The description of a scope."""
    said = ["nursery" if scope.nursery else "scope"]
    if scope.cancelled:
        said.append(scope.reason or "cancelled")
        if scope.cancelled_for is not None:
            said.append(f"at least {scope.cancelled_for:.1f} s ago")
    elif scope.reason is not None:
        said.append(f"{scope.reason}, from outside")
    if scope.stop_requested and not scope.cancelled:
        said.append("asked to stop")
    if scope.deadline is not None and not scope.cancelled:
        if scope.deadline >= 0:
            said.append(f"deadline in {scope.deadline:.2f} s")
        else:
            said.append(f"deadline passed {-scope.deadline:.2f} s ago")
        if scope.deadline_set is not None:
            said[-1] += f" (set at {scope.deadline_set})"
    endless = " without a deadline" if scope.deadline is None and not scope.cancelled else ""
    if scope.keeps_out is not None:
        said.append(f"its shield{endless} keeps a cancellation out ({scope.keeps_out})")
    elif scope.shield:
        said.append(f"shield{endless}")
    return plain(", ".join(said))
