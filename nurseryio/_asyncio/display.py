"""What asyncio shows of waiting tasks and running loops, for people: the task tree reads it.

Rule: every function here has an answer for objects that do not show what it asks for. Nothing but
a drawing depends on it.
"""

from __future__ import annotations

import asyncio
from typing import Any

Task = asyncio.Task[Any]

_TaskGroup: Any = getattr(asyncio, "TaskGroup", None)


def awaiting(task: Task) -> list[Task]:
    """The tasks that await a task, as far as Python records them: from 3.14 on."""
    return list(getattr(task, "_asyncio_awaited_by", None) or ())


def gathered(future: Any) -> list[Any] | None:
    """The futures that ``asyncio.gather`` waits for; None for another future."""
    children = getattr(future, "_children", None)
    return list(children) if isinstance(children, list) else None


def group_tasks(group: Any) -> list[Task]:
    """The tasks of an ``asyncio.TaskGroup`` that have not ended; empty for another object."""
    if _TaskGroup is not None and isinstance(group, _TaskGroup):
        return list(getattr(group, "_tasks", ()))
    return []


def error_of(task: Task) -> BaseException | None:
    """The error of a task that has ended, also if it was cancelled; None if it has none.

    Unlike ``task.exception()``, this does not count as retrieving the error.
    """
    if task.cancelled():
        return asyncio.CancelledError()
    error = getattr(task, "_exception", None)
    return error if isinstance(error, BaseException) else None


def made_at(task: Task) -> list[Any]:
    """The stack that has made a task, outermost first, as frame summaries of ``traceback``.

    asyncio keeps it in debug mode only; else the list is empty.
    """
    return list(getattr(task, "_source_traceback", None) or ())


def loop_thread(loop: asyncio.AbstractEventLoop) -> int | None:
    """The identifier of the thread in which an asyncio loop runs; None if it does not show it."""
    ident: int | None = getattr(loop, "_thread_id", None)
    return ident
