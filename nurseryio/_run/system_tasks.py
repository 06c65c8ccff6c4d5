"""System tasks: tasks that belong to the loop and not to a nursery of the program.

Rule: under ``run`` system tasks are in the run's system nursery. A loop that ``run`` did not make
has no such nursery. There a system task stands alone. It ends with the loop at the latest, because
asyncio cancels the remaining tasks. The loop's exception handler gets its error.
"""

from __future__ import annotations

import contextvars
from functools import partial
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._base.errors import Cancelled
from .._base.util import coroutine_or_error
from .._core.loop_state import PerLoop
from .._core.scope_tree import ROOT
from .._core.task import Task, current_state, make_task, records
from .._nursery.task_exit import end_alone
from .driving import EXITS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import TypeVarTuple, Unpack

    PosArgsT = TypeVarTuple("PosArgsT")

# The system tasks of a loop that run() did not make.
_alone: PerLoop[set[Any]] = PerLoop(lambda state: set())


def spawn_system_task(
    async_fn: Callable[[Unpack[PosArgsT]], Awaitable[object]],
    *args: Unpack[PosArgsT],
    name: object = None,
    context: contextvars.Context | None = None,
) -> Task:
    """Start a task that belongs to the loop, not to a nursery of the caller.

    The task is cancelled when the main task has ended, if it is still running then. It must not
    raise: under ``run`` an error ends the run with :exc:`TrioInternalError`, on a plain asyncio
    loop the loop's exception handler gets it. ``SystemExit`` ends the program with its exit code.
    Ctrl-C raises nothing in the task.

    Args:
        async_fn: an async function.
        args: its positional arguments.
        name: the task's name in debugging output.
        context: the task's ``contextvars`` context; by default a copy of the context in which
            ``run`` was called, or an empty context on a plain asyncio loop.

    Returns:
        The new task.

    Raises:
        TypeError: ``async_fn`` is not an async function.
        RuntimeError: the run is over, or no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.spawn_system_task``.
    """
    state = current_state()
    if state.run is not None:
        task: Task = state.run.spawn_system_task(async_fn, *args, name=name, context=context)
        return task
    if context is None:
        context = contextvars.Context()
    call: Any = coroutine_or_error
    coro = context.run(call, async_fn, *args)
    record = make_task(state, coro, async_fn if name is None else name, None, ROOT)
    record._own_extra().is_system = True
    alone = _alone(state)
    asyncio_name = name if isinstance(name, str) else getattr(async_fn, "__qualname__", None)
    runner = _run_alone(record, coro)
    try:
        asyncio_task = compat.make_task(state.making, runner, asyncio_name, context)
    except BaseException:
        runner.close()
        coro.close()
        raise
    record.asyncio_task = asyncio_task
    record._own_extra().context = context
    records[asyncio_task] = record
    alone.add(asyncio_task)
    asyncio_task.add_done_callback(alone.discard, context=state.context)
    asyncio_task.add_done_callback(partial(_forget_system_task, record), context=state.context)
    return record


async def _run_alone(task: Task, coro: Any) -> None:
    if task.asyncio_task is None:
        await compat.BARE_YIELD  # started eagerly: let the caller finish first
    task._started = True
    try:
        await coro
    except Cancelled:
        pass
    except EXITS:
        raise  # asyncio lets them pass through the loop
    except BaseException as exc:
        task._state.loop.call_exception_handler(
            {"message": f"system task {_name(task)} failed", "exception": exc}
        )


def _name(task: Task) -> str:
    try:
        return repr(task.name)
    except Exception:
        return "whose name cannot be shown"


def _forget_system_task(task: Task, _asyncio_task: object) -> None:
    if not task._started:
        task.coro.close()
    records.pop(task.asyncio_task, None)
    end_alone(task)
