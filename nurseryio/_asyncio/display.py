"""What asyncio shows of waiting tasks and running loops, for people: the task tree reads it.

Rule: every function here has an answer for objects that do not show what it asks for. Nothing but
a drawing depends on it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import concurrent.futures.thread as _thread_pool
import gc
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import types
    from collections.abc import Callable, Iterable, Iterator

Task = asyncio.Task[Any]

_TaskGroup: Any = getattr(asyncio, "TaskGroup", None)

# The functions in which a thread runs a loop. ``run`` is there for loops that run in C.
_RUN_FOREVER = asyncio.BaseEventLoop.run_forever.__code__
_RUNNER = getattr(getattr(asyncio, "Runner", None), "run", None)
_RUN = asyncio.run


def loops_of_threads(innermost: Iterable[types.FrameType]) -> list[asyncio.AbstractEventLoop]:
    """The loops that threads of this process run, also those that nurseryio has not seen.

    Args:
        innermost: The innermost frame of each thread.

    Found are asyncio's own loops and, from Python 3.11 on, others that ``asyncio.run`` runs.
    """
    codes = {
        _RUN_FOREVER: "self",
        getattr(_RUNNER, "__code__", None): "self",
        _RUN.__code__: "loop",
    }
    found: list[asyncio.AbstractEventLoop] = []
    for each in innermost:
        frame: types.FrameType | None = each
        while frame is not None:
            name = codes.get(frame.f_code)
            loop = None if name is None else frame.f_locals.get(name)
            if loop is not None and frame.f_code is not _RUN_FOREVER and name == "self":
                loop = getattr(loop, "_loop", None)
            if isinstance(loop, asyncio.AbstractEventLoop) and loop not in found:
                found.append(loop)
            frame = frame.f_back
    return found


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


def unfinished(queue: Any) -> int | None:
    """How many items of an ``asyncio.Queue`` were not marked as done; None if it is not shown."""
    count: int | None = getattr(queue, "_unfinished_tasks", None)
    return count


def addresses_of(stream: Any) -> tuple[Any, Any]:
    """The local address of a stream on an asyncio transport, and the peer's; None if not known."""
    is_anyios = type(stream).__module__.startswith("anyio.")
    if not is_anyios and not isinstance(stream, (asyncio.StreamReader, asyncio.StreamWriter)):
        return None, None
    transport = getattr(stream, "_transport", None)
    if transport is None or not hasattr(transport, "get_extra_info"):
        return None, None
    local, peer = map(transport.get_extra_info, ("sockname", "peername"))
    return local or None, peer or None


class ExecutorCall(NamedTuple):
    """A call in a ``concurrent.futures`` executor that a task waits for.

    Attributes:
        began: Whether a thread or process of the executor has begun it.
        function: The function; None if it was not found.
        thread: The identifier of the thread that runs it; None if it was not found.
    """

    began: bool
    function: Any
    thread: int | None


def executor_call(
    future: Any, threads: Callable[[], dict[int, types.FrameType]]
) -> ExecutorCall | None:
    """The call for whose result an asyncio future waits; None for another future.

    Args:
        future: The future.
        threads: Returns the innermost frame of each thread.

    ``run_in_executor`` and ``to_thread`` await a future that knows the executor's in its callback.
    """
    source = _source(future)
    if source is None:
        return None
    for ident, innermost in threads().items():
        for item in _items_of(innermost):
            if getattr(item, "future", None) is source:
                return ExecutorCall(True, _function_of(item), ident)
    loop = future.get_loop()
    queue = getattr(getattr(loop, "_default_executor", None), "_work_queue", None)
    # The queue does not show its items, and has them directly or in a list.
    for part in gc.get_referents(queue):
        for item in part if isinstance(part, list) else (part,):
            if getattr(item, "future", None) is source:
                return ExecutorCall(False, _function_of(item), None)
    return ExecutorCall(source.running() or source.done(), None, None)


def calls_of_default_executor(
    loop: asyncio.AbstractEventLoop, threads: Callable[[], dict[int, types.FrameType]]
) -> list[ExecutorCall]:
    """The calls that run now in the default executor of a loop; ``threads`` as above."""
    idents = {
        thread.ident
        for thread in list(getattr(getattr(loop, "_default_executor", None), "_threads", ()))
    }
    return [
        ExecutorCall(True, _function_of(item), ident)
        for ident, innermost in threads().items()
        if ident in idents
        for item in _items_of(innermost)
    ]


def _items_of(innermost: types.FrameType) -> Iterator[Any]:
    """The work items of executors that a thread is in."""
    frame: types.FrameType | None = innermost
    while frame is not None:
        if frame.f_code.co_name == "run" and frame.f_code.co_filename == _thread_pool.__file__:
            yield frame.f_locals.get("self")
        frame = frame.f_back


def _function_of(item: Any) -> Any:
    if hasattr(item, "fn"):
        return item.fn
    task = getattr(item, "task", None)  # from Python 3.14 on: (function, args, kwargs)
    return task[0] if isinstance(task, tuple) and task else None


def _source(future: Any) -> concurrent.futures.Future[Any] | None:
    for callback, *_ in getattr(future, "_callbacks", None) or ():
        for cell in getattr(callback, "__closure__", None) or ():
            try:
                content = cell.cell_contents
            except ValueError:  # an empty cell
                continue
            if isinstance(content, concurrent.futures.Future):
                return content
    return None


def exit_callbacks(stack: Any) -> list[Any]:
    """What a ``contextlib.ExitStack`` or ``AsyncExitStack`` will call at its end."""
    return [callback for _, callback in list(getattr(stack, "_exit_callbacks", ()))]
