"""``task_tree()``: a drawing of the tasks of a loop, with nurseries and where each task waits.

This module also has :func:`draw_tasks`, for reports that other modules of the library make.

Rule 1: drawing changes nothing: a task that does not have a record does not get one.

Rule 2: the tasks that :func:`nurseryio.run` makes for itself are left out.

Rule 3: a task that cannot be drawn does not prevent the other tasks from being drawn.
"""

from __future__ import annotations

import asyncio
import linecache
import os
from itertools import islice
from typing import TYPE_CHECKING, Any

from .._asyncio.compat import running_loop
from .._core.task import await_frames, records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .._asyncio.compat import Loop
    from .._core.task import Task
    from .._nursery.nursery import Nursery

_LIBRARIES = tuple(
    os.path.dirname(os.path.abspath(path)) + os.sep
    for path in (os.path.dirname(os.path.abspath(__file__)), asyncio.__file__)
)

# The most lines of a drawing that goes into a report or an error.
MOST_LINES = 200


def task_tree() -> str:
    """Draw the tasks of the running loop.

    Each task has one line: its name, and the line of the program at which it waits. The nurseries
    that are open in the task are drawn below it, with their children. Tasks that asyncio code has
    started have no parent, and come last.

    Returns:
        Lines of text, without a newline at the end.

    Raises:
        RuntimeError: where no loop is running.
    """
    return "\n".join(_lines(running_loop()))


def draw_tasks(loop: Loop) -> str:
    """Like :func:`task_tree`, for a loop that may not be running, and at most ``MOST_LINES``."""
    lines = list(islice(_lines(loop), MOST_LINES + 1))
    if len(lines) > MOST_LINES:
        lines[-1] = "... and more"
    return "\n".join(lines)


def _lines(loop: Loop) -> Iterator[str]:
    tasks = asyncio.all_tasks(loop)
    known = [record for task in tasks if (record := records.get(task)) is not None]
    ours = [task for task in known if task._parent_nursery is not None or task.child_nurseries]
    run = known[0]._state.run if known else None
    root = None if run is None else run.root_task
    tops = [task for task in ours if task._parent_nursery is None and task is not root]
    if root is not None:
        tops = [child for nursery in root.child_nurseries for child in _children(nursery)] + tops
    strangers = tasks - {task.asyncio_task for task in ours}
    if root is not None:
        strangers.discard(root.asyncio_task)
    for top in tops:
        yield from _draw(top)
    for stranger in sorted(strangers, key=lambda task: task.get_name()):
        yield f"asyncio task {_describe(stranger.get_name(), stranger.get_coro())}"


def _name(task: Task) -> str:
    try:
        return str(task.name)
    except Exception:
        return "a task whose name cannot be shown"


def _children(nursery: Nursery) -> list[Task]:
    return sorted(nursery.child_tasks, key=_name)


def _draw(top: Task) -> Iterator[str]:
    """The lines for a task and everything below it. Not recursive, because trees may be deep."""
    stack: list[tuple[str, str, Any]] = [("", "", top)]
    while stack:
        first, rest, node = stack.pop()
        below: Iterable[Any]
        if hasattr(node, "child_tasks"):
            shield = ", cancelled" if node.cancel_scope.cancel_called else ""
            yield f"{first}nursery{shield}"
            below = _children(node)
        else:
            kind = "system task " if node._extra.is_system else ""
            yield f"{first}{kind}{_describe(_name(node), node.coro)}"
            below = node.child_nurseries
        last = True
        for child in reversed(list(below)):
            corner, line = ("└─ ", "   ") if last else ("├─ ", "│  ")
            stack.append((rest + corner, rest + line, child))
            last = False


def _describe(name: str, coro: Any) -> str:
    """The task's name and where it waits: the innermost line outside nurseryio and asyncio."""
    place = None
    for frame, line in await_frames(coro):
        code = frame.f_code
        if place is None or not code.co_filename.startswith(_LIBRARIES):
            place = (code, line)
    if place is None:
        return name
    code, line = place
    text = linecache.getline(code.co_filename, line).strip()
    shown = f": {text}" if text else ""
    return f"{name} at {os.path.basename(code.co_filename)}:{line} in {code.co_name}(){shown}"
