"""The private parts of the standard library that this room uses, and the error if one is missing.

A new Python may rename a private attribute without notice. Most parts are read with a default,
because other loops lack them. Without a check, nurseryio would treat asyncio's own loop as one of
these: a signal would not wake it, or a task factory would be ignored.

Rule 1: every private name in another module of this room is in one of the three tables here. A
test compares them.

Rule 2: :func:`check_import` runs before anything else of nurseryio, and :func:`check_loop` at the
first use of a loop. So nothing has happened yet when they raise.

Rule 3: a part is in ``FALLBACKS``, and not required, if its loss costs only comfort or speed.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import selectors
import socket
import sys
from typing import Any

# The Pythons that pyproject.toml declares.
SUPPORTED = "3.10 to 3.15"

# Of modules and classes: the name for people, the object, its private parts.
AT_IMPORT: list[tuple[str, Any, tuple[str, ...]]] = [
    ("asyncio", asyncio, ("_get_running_loop", "_set_running_loop")),
    ("asyncio.tasks", asyncio.tasks, ("_enter_task", "_leave_task")),
    ("asyncio.Future", asyncio.Future, ("_callbacks",)),
    (
        "asyncio.Task",
        getattr(sys.modules.get("_asyncio"), "Task", None) or asyncio.Task,
        ("_fut_waiter", "_log_destroy_pending", "_must_cancel"),
    ),
    ("asyncio.Handle", asyncio.Handle, ("_run",)),
    ("socket.socket", socket.socket, ("_accept",)),
]
if sys.version_info < (3, 12):
    AT_IMPORT.append(("asyncio.tasks", asyncio.tasks, ("_current_tasks",)))

# Of the objects of a class. A subclass may replace the methods that set them, and then lack some.
# asyncio has not changed then, and the loop is treated as one that does not show these parts.
OF_OBJECTS: list[tuple[str, type, tuple[str, ...]]] = [
    (
        "asyncio.BaseEventLoop",
        asyncio.BaseEventLoop,
        ("_default_executor", "_ready", "_scheduled", "_task_factory", "_timer_handle_cancelled"),
    ),
    (
        "asyncio.SelectorEventLoop",
        asyncio.selector_events.BaseSelectorEventLoop,
        ("_csock", "_selector", "_ssock"),
    ),
]
if sys.platform != "win32":
    OF_OBJECTS.append(
        ("asyncio.SelectorEventLoop", asyncio.SelectorEventLoop, ("_signal_handlers",))
    )
if hasattr(selectors, "EpollSelector"):
    OF_OBJECTS.append(("selectors.EpollSelector", selectors.EpollSelector, ("_selector",)))

# Names that need not exist: what is different without them.
FALLBACKS: dict[str, str] = {
    "_asyncio": "tasks are those written in Python, and each is made by loop.create_task()",
    "_asyncio_awaited_by": "the task tree does not show which task awaits an asyncio task",
    "_children": "the task tree does not show which tasks asyncio.gather() waits for",
    "_coro": "asyncio's functions for display show the coroutine of the nursery around a child's",
    "_exception": "the spans of asyncio tasks do not show their errors",
    "_exit_callbacks": "the task tree does not show who holds a lock in an exit stack",
    "_idle_semaphore": "the threads of the default executor count as busy: no deadlock is reported",
    "_interrupt_count": "Ctrl-C is lost if asyncio.run's main task ends before its next await",
    "_loop": "a loop that runs in C, in another thread, is not seen until it uses nurseryio",
    "_source_traceback": "in debug mode too, a task that a test left is shown without its origin",
    "_tasks": "before 3.14, the task tree does not show which tasks are in an asyncio.TaskGroup",
    "_thread_id": "in another thread, the task tree does not show the step that the loop is in",
    "_threads": "as without _idle_semaphore; the report of a long shutdown does not name threads",
    "_transport": "the task tree does not show the peers of asyncio's streams",
    "_unfinished_tasks": "the task tree does not show how many items Queue.join() waits for",
    "_value": "as without _idle_semaphore",
    "_work_queue": "the task tree does not name calls that wait for a thread of an executor",
}


def check_import() -> None:
    """Look for the parts of modules and classes.

    Raises:
        ImportError: one is missing. The message names it.
    """
    for shown, owner, names in AT_IMPORT:
        for name in names:
            if not _has(owner, name):
                raise ImportError(_lost(shown, name))


def check_loop(loop: object) -> None:
    """Look for the parts of a loop, if its class is asyncio's or made from it.

    Raises:
        RuntimeError: one is missing, and asyncio's class does not set it. The message names it.
    """
    for part in (loop, _read(loop, "_selector", None)):
        for shown, cls, names in OF_OBJECTS:
            if isinstance(part, cls):
                for name in names:
                    if _read(part, name, _MISSING) is _MISSING and not _has(cls, name):
                        raise RuntimeError(_lost(shown, name))


_MISSING = object()


def _read(part: object, name: str, default: object) -> object:
    """An attribute, ``default`` if there is none; None if it is there and reading it fails."""
    try:
        return getattr(part, name, default)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return None  # a property of another library's class


def _has(owner: Any, name: str) -> bool:
    """Whether a module or class has a part, or the objects of the class have it."""
    return hasattr(owner, name) or _is_set_by(owner, name)


def _is_set_by(cls: Any, name: str) -> bool:
    """Whether a class is written in Python, and its functions use this attribute of its objects."""
    functions = [value for base in getattr(cls, "__mro__", ()) for value in vars(base).values()]
    codes = [getattr(function, "__code__", None) for function in functions]
    # Functions of PyPy that are not written in Python have code of another kind.
    return any(name in getattr(code, "co_names", ()) for code in codes)


def _lost(shown: str, name: str) -> str:
    module = shown.partition(".")[0]
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f"{module} has changed: {shown} has no {name} in Python {version}; this release of "
        f"nurseryio supports Python {SUPPORTED}. Look for a newer release of nurseryio"
    )
