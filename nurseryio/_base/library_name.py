"""The answer of ``sniffio.current_async_library()``, where sniffio cannot find it by itself.

sniffio is not a requirement. It looks at its thread-local name first, then at its context variable,
and last for a running asyncio task. So it is right in a task. It needs help in two places: a worker
thread has a copy of the task's context, and a callback of the loop is outside any task.

Rule 1: without sniffio, or with one older than 1.3, the functions are called all the same.

Rule 2: a name that other code has set in this thread is kept, and each name is taken back. So no
task or thread that a callback starts inherits one.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from typing_extensions import ParamSpec

    P = ParamSpec("P")

RetT = TypeVar("RetT")

OWN_NAME = "asyncio"


def _thread_local() -> Any:
    """The object of sniffio whose ``name`` is this thread's library; None if there is none."""
    return getattr(sys.modules.get("sniffio"), "thread_local", None)


def call_outside_task(fn: Callable[P, RetT], *args: P.args, **kwargs: P.kwargs) -> RetT:
    """Call a function in a callback of the loop, where sniffio answers as in the loop's tasks."""
    local = _thread_local()
    if local is None or local.name is not None:
        return fn(*args, **kwargs)
    local.name = OWN_NAME
    try:
        return fn(*args, **kwargs)
    finally:
        local.name = None


def call_under_name(name: str, fn: Callable[P, RetT], *args: P.args, **kwargs: P.kwargs) -> RetT:
    """Call a function, for example one that runs a loop, with ``name`` as sniffio's answer."""
    local = _thread_local()
    if local is None:
        return fn(*args, **kwargs)
    before = local.name
    local.name = name
    try:
        return fn(*args, **kwargs)
    finally:
        local.name = before


def hide_library_name(context: Context) -> None:
    """Make ``sniffio`` report, in a worker thread, that no async library is running there.

    The context variable of ``sniffio`` may have been set in the task. The thread runs in a copy of
    the task's context, where the variable is set too.
    """
    # Missing while another thread is importing sniffio. No task has set it then.
    variable = getattr(sys.modules.get("sniffio"), "current_async_library_cvar", None)
    if variable is not None and context.get(variable) is not None:
        context.run(variable.set, None)
