"""The compiled form of a few functions: whether it is used, and its place in front of them.

The C module ``nurseryio._speedups`` has the ordinary case of some of the hottest functions. In any
other case it calls the Python function that it stands before. So nothing depends on it: without a
compiler, on another interpreter or version, or with ``NURSERYIO_PURE=1`` in the environment, this
module changes nothing, and the Python functions do all the work.

Rule 1: the Python functions are the only source of truth. This module does not change them. It puts
the C functions into the classes and modules that use them.

Rule 2: :func:`put_in_place` either puts all of them in place, or changes nothing.

Rule 3: a coroutine function stays the same function in Python. If its body is in C, it gets code
that consists of little more than one await: see :func:`give_code`.

Rule 4: the C module sets all slots of a new scope and of a new record. So it is not used if a class
has other slots than it knows. The free-threaded build never loads it: the C file does not compile
there, and a module that was compiled for another build has another name.
"""

from __future__ import annotations

import importlib
import os
import sys
from asyncio import InvalidStateError
from collections import OrderedDict
from heapq import heappush
from math import inf
from types import FunctionType
from typing import Any

from .._asyncio import compat
from .._base.errors import ENGINE_ERRORS, Cancelled
from .._base.exc_fields import is_a
from .._base.outcome import Value
from .._base.util import checked_coroutine, reject_non_functions
from .._core import (
    anyio_hook,
    delivery,
    scope_tree,
    swallowing,
    task as task_module,
    traps,
    wait_queue,
)
from .._core.cancel_ledger import UNKNOWN, defer_native_cancel
from .._core.deadlines import Deadlines
from .._core.loop_state import LoopState
from .._core.scope_tree import ROOT, Node
from .._core.task import INITIAL_YIELD_CREDIT, MAX_YIELD_CREDIT, Task, records
from .._core.task_extra import NO_EXTRA, Extra
from . import nursery as nursery_module, origins, scope, task_exit, timeouts
from .nursery import Nursery
from .scope import CancelScope

VARIABLE = "NURSERYIO_PURE"
C_MODULE = "nurseryio._speedups"

# The slots that the C module sets in new objects, or may leave unset as the Python functions do.
SET_BY_C: tuple[tuple[type, frozenset[str]], ...] = (
    (
        Node,
        frozenset("_abandoned _called _effective _nursery _parent _reason _shielded _task".split()),
    ),
    (
        CancelScope,
        frozenset(
            "__weakref__ _anyio_pairing _deadline _entered _entry _native_requests_at_entry "
            "_relative _stop cancelled_caught".split()
        ),
    ),
    (
        Nursery,
        frozenset(
            "__dict__ __weakref__ _body_running _children _closed _errors _parent_task "
            "_pending_starts _state _strict _waiter cancel_scope".split()
        ),
    ),
    (
        Task,
        frozenset(
            "__weakref__ _abort _coro _deferred_cancel _extra _last_interrupted _name "
            "_owns_cancel_request _parent_nursery _park _recheck_queued _shielded_step _started "
            "_state _swallowed_cancels _wakeup _yield_credit asyncio_task scope".split()
        ),
    ),
)


# The Python functions in whose place modules use a C function. Tests ask for them.
replaced: dict[Any, Any] = {}


def _originals() -> dict[str, Any]:
    """The Python functions that the functions of the C module stand before."""
    return {
        "original_new_scope": scope.new_scope,
        "original_limited": timeouts._limited,
        "original_scope_enter": CancelScope.__enter__,
        "original_scope_exit": CancelScope.__exit__,
        "original_start_soon": Nursery.start_soon,
        "original_child_ended": Nursery._child_ended,
        "original_end_child": task_exit.end_child,
        "original_deliver": delivery._deliver,
        "original_collect_children": scope_tree._collect_children,
        "original_checkpoint": copy_of(traps.checkpoint),
        "original_current_task": task_module.current_task,
        "original_maybe_yield": wait_queue.maybe_yield,
        "original_nursery_enter": copy_of(Nursery.__aenter__),
        "original_open_nursery": nursery_module.open_nursery,
        "original_park": wait_queue.park,
        "original_reschedule": traps.reschedule,
        "original_wake_first": wait_queue.wake_first,
    }


def _given() -> dict[str, Any]:
    """The other objects that the C module uses, by the names that it gives them."""
    return {
        "CancelScope": CancelScope,
        "ChildTask": compat.ChildTask,
        "Deadlines": Deadlines,
        "Extra": Extra,
        "LoopState": LoopState,
        "Node": Node,
        "Nursery": Nursery,
        "Task": Task,
        "TaskMaking": compat.TaskMaking,
        "Value": Value,
        "AGREED": delivery.AGREED,
        "BACKEND": anyio_hook.BACKEND,
        "COUNTS_GO_STALE": compat.COUNTS_GO_STALE,
        "Cancelled": Cancelled,
        "DEADLINE": origins.DEADLINE,
        "DEADLINE_INF": inf,
        "Future": compat.new_future,
        "INITIAL_YIELD_CREDIT": INITIAL_YIELD_CREDIT,
        "MAX_YIELD_CREDIT": MAX_YIELD_CREDIT,
        "NO_EXTRA": NO_EXTRA,
        "NO_STARTS": nursery_module.NO_STARTS,
        "NO_SWALLOWED_CANCELS": delivery.NO_SWALLOWED_CANCELS,
        "NativeTask": compat.NativeTask,
        "OrderedDict": OrderedDict,
        "ROOT": ROOT,
        "SLOW_EXIT_PREDICTION": nursery_module.SLOW_EXIT_PREDICTION,
        "UNKNOWN": UNKNOWN,
        "anyio_hook_namespace": vars(anyio_hook),
        "asyncio_tasks_namespace": vars(compat.asyncio_tasks),
        "call_later": task_module.call_later,
        "cancel_failed": delivery._cancel_failed,
        "cancelling": compat.NativeTask.cancelling,
        "checked_coroutine": checked_coroutine,
        "current_task": compat.current_task,
        "defer_native_cancel": defer_native_cancel,
        "end_broken_off": task_exit.end_broken_off,
        "expire": scope._expire,
        "force_out": CancelScope._force_out,
        "forget_who_awaits": compat.forget_who_awaits,
        "heappush": heappush,
        "interrupt": delivery.interrupt,
        "look_after_pause": delivery._look_after_pause,
        "make_child_task": _make_child_task,
        "modules": sys.modules,
        "note_wakeup": traps._note_wakeup,
        "note_who_awaits": compat.note_who_awaits,
        "plain_cancel": compat.plain_cancel,
        "put_back": _put_back,
        "recheck": delivery.recheck,
        "records": records,
        "reject_non_functions": reject_non_functions,
        "running_loop": compat.running_loop_or_none,
        "scope_namespace": vars(scope),
        "swallowing_namespace": vars(swallowing),
        "unmake": task_exit.unmake,
        "wait_interrupted": _wait_interrupted,
        "wake_later": _wake_later,
    }


def copy_of(function: Any) -> Any:
    """A function that goes on doing what ``function`` does now, whatever code that one gets."""
    made = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__qualname__ = function.__qualname__
    return made


def _wait_interrupted(task: Task, queue: Any, park: Any, error: BaseException) -> Any:
    """The except clauses of ``park`` for an error other than that of a scope's cancellation.

    Returns:
        The outcome that was handed over all the same; None if the error is to be raised.
    """
    outcome = None
    if is_a(error, Cancelled) and task._park is not None and task._abort is not delivery.AGREED:
        outcome = traps.handed_over(task, park)
    if outcome is None:
        wait_queue._leave_queue(task, queue)
    else:
        defer_native_cancel(task, error)
    return outcome


def _wake_later(task: Task, park: Any, abort: Any, outcome: Any, error: BaseException) -> None:
    """The except clause of ``reschedule``, except that here is enough stack for calls."""
    try:
        if not park.done() or type(error) is InvalidStateError:
            task._abort = abort
            if park.done():
                traps._hand_over(task, park, outcome)
                return
            raise error
        state = task._state
        state.finish_later(traps._wake_again, task, task._wakeup, park)
        if type(error) not in ENGINE_ERRORS and not state.loop.is_closed():
            raise error
    finally:
        del error  # no reference cycle: the error holds this frame


def _put_back(queue: Any, task: Task, entry: Any) -> None:
    """The except clause of ``wake_first``."""
    if traps.is_waiting(task):
        queue[task] = entry
        queue.move_to_end(task, last=False)


async def _enter_block(self: Any) -> Any:
    """The code of ``Nursery.__aenter__``."""
    await enter_block(self)  # type: ignore[name-defined]  # noqa: F821
    return self


async def _checkpoint() -> None:
    """The code of ``checkpoint``: its frame is that of the Python function for all readers."""
    await checked_yield  # type: ignore[name-defined]  # noqa: F821


def _make_child_task(
    nursery: Nursery, task: Task, coro: Any, loop: compat.Loop, runner: Any, name: str | None
) -> Any:
    """The asyncio task of a child whose record C has made, as ``start_soon`` makes it.

    In Python, so that Ctrl-C finds a frame of the engine here.

    Args:
        nursery: the nursery.
        task: the record.
        coro: the coroutine of the child's function.
        loop: the event loop.
        runner: the wrapper in C; None if the child needs that in Python.
        name: the qualified name of a coroutine that a wrapper in C is for.
    """
    made = None
    try:
        if runner is None:
            runner = nursery._run_child(task, coro)
            name = getattr(coro, "__qualname__", None)
        made = compat.ChildTask(runner, loop=loop, name=name)
        made.shown = coro
        return made
    except BaseException:
        task_exit.unmake(task, made, runner, coro)
        raise


def why_pure(environment: Any) -> str | None:
    """Why the Python functions are to do all the work; None if the C module may be tried."""
    if environment.get(VARIABLE, "") not in ("", "0"):
        return f"{VARIABLE} is set"
    if sys.implementation.name != "cpython":
        return f"the interpreter is {sys.implementation.name}"
    if sys.version_info < (3, 12):
        return "Python is older than 3.12"
    for cls, known in SET_BY_C:
        if frozenset(vars(cls)["__slots__"]) != known:
            return f"{cls.__name__} has slots that the C module does not know"
    return None


def put_in_place() -> str | None:
    """Put the C functions in front of the Python functions, if they can be used.

    Returns:
        Why they are not used; None if they are.
    """
    reason = why_pure(os.environ)
    if reason is not None:
        return reason
    try:
        c_module: Any = importlib.import_module(C_MODULE)
    except ImportError as error:
        return f"the C module cannot be loaded: {error}"
    signature = "start_soon($self, async_fn, *args, name=None)\n--\n\n"
    try:
        c_module.bind({**_given(), **_originals()}, signature + (Nursery.start_soon.__doc__ or ""))
    except (AttributeError, LookupError, TypeError) as error:
        # Perhaps because a tool has replaced asyncio's tasks by those written in Python.
        return f"the C module does not fit: {error}"
    for module in (scope, nursery_module, timeouts):
        vars(module)["new_scope"] = c_module.new_scope
    vars(timeouts)["_limited"] = c_module.limited
    for module in (task_exit, nursery_module):
        vars(module)["end_child"] = c_module.end_child
    vars(scope_tree)["_collect_children"] = c_module.collect_children
    if not compat.COUNTS_GO_STALE:
        # Otherwise each request has to be compared with the stale ones.
        vars(delivery)["_deliver"] = c_module.deliver
    for original, replacement in (
        (task_module.current_task, c_module.current_task),
        (nursery_module.open_nursery, c_module.open_nursery),
        (traps.reschedule, c_module.reschedule),
        (wait_queue.maybe_yield, c_module.maybe_yield),
        (wait_queue.park, c_module.park),
        (wait_queue.wake_first, c_module.wake_first),
    ):
        _replace(original, replacement)
    give_code(traps.checkpoint, _checkpoint, {"checked_yield": c_module.checked_yield})
    give_code(Nursery.__aenter__, _enter_block, {"enter_block": c_module.enter_block})
    nursery_module.wait_and_leave = c_module.wait_and_leave
    return None


def _replace(original: Any, replacement: Any) -> None:
    """Put a function into all modules that have been imported and use the original."""
    replaced[replacement] = original
    package = __name__.partition(".")[0] + "."
    for name, module in list(sys.modules.items()):
        if name.startswith(package):
            for key, value in list(vars(module).items()):
                if value is original:
                    vars(module)[key] = replacement


def give_code(function: Any, source: Any, names: dict[str, Any]) -> None:
    """Give a coroutine function the code of another one, which uses ``names`` as global names.

    The function stays the same object, with its own module, so that a stack and a description of a
    waiting task show it.
    """
    function.__globals__.update(names)
    code = function.__code__
    function.__code__ = source.__code__.replace(co_name=code.co_name, co_qualname=code.co_qualname)


def bound_module(binder: str, given: dict[str, Any]) -> Any:
    """The C module, after its function ``binder`` has looked up what it uses for one more module.

    Only for the compiled build.

    Returns:
        None if something is not as the C module expects. Nothing has changed then.
    """
    c_module: Any = importlib.import_module(C_MODULE)
    try:
        getattr(c_module, binder)(given)
    except (AttributeError, LookupError, TypeError):
        return None
    return c_module


# None if the C functions are used, otherwise why they are not.
PURE_BECAUSE: str | None = put_in_place()
__compiled__: bool = PURE_BECAUSE is None
