"""The compiled form of a few functions: whether it is used, and its place in front of them.

The C module ``nurseryio._speedups`` has the ordinary case of some of the hottest functions. In any
other case it calls the Python function that it stands before. So nothing depends on it: without a
compiler, on another interpreter or version, or with ``NURSERYIO_PURE=1`` in the environment, this
module changes nothing, and the Python functions do all the work.

Rule 1: the Python functions are the only source of truth. This module does not change them. It puts
the C functions into the classes and modules that use them.

Rule 2: :func:`put_in_place` either puts all of them in place, or changes nothing.

Rule 3: the C module sets all slots of a new scope and of a new record. So it is not used if a class
has other slots than it knows. The free-threaded build never loads it: the C file does not compile
there, and a module that was compiled for another build has another name.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections import OrderedDict
from heapq import heappush
from math import inf
from typing import Any

from .._asyncio import compat
from .._base.errors import Cancelled
from .._base.util import checked_coroutine, reject_non_functions
from .._core import anyio_hook, delivery, scope_tree, swallowing
from .._core.cancel_ledger import UNKNOWN
from .._core.deadlines import Deadlines
from .._core.loop_state import LoopState
from .._core.scope_tree import ROOT, Node
from .._core.task import INITIAL_YIELD_CREDIT, Task, records
from .._core.task_extra import NO_EXTRA
from . import nursery, scope, task_exit, timeouts
from .nursery import Nursery
from .scope import CancelScope

VARIABLE = "NURSERYIO_PURE"
C_MODULE = "nurseryio._speedups"

# The slots that the C module sets in new objects.
SET_BY_C: tuple[tuple[type, frozenset[str]], ...] = (
    (
        Node,
        frozenset("_abandoned _called _effective _nursery _parent _reason _shielded _task".split()),
    ),
    (
        CancelScope,
        frozenset(
            "__weakref__ _anyio_pairing _deadline _entered _entry _native_requests_at_entry "
            "_relative cancelled_caught".split()
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


def _given() -> dict[str, Any]:
    """The objects that the C module uses, by the names that it gives them."""
    return {
        "CancelScope": CancelScope,
        "ChildTask": compat.ChildTask,
        "Deadlines": Deadlines,
        "LoopState": LoopState,
        "Node": Node,
        "Nursery": Nursery,
        "Task": Task,
        "TaskMaking": compat.TaskMaking,
        "AGREED": delivery.AGREED,
        "BACKEND": anyio_hook.BACKEND,
        "Cancelled": Cancelled,
        "DEADLINE_INF": inf,
        "Future": compat.new_future,
        "INITIAL_YIELD_CREDIT": INITIAL_YIELD_CREDIT,
        "NO_EXTRA": NO_EXTRA,
        "NO_SWALLOWED_CANCELS": delivery.NO_SWALLOWED_CANCELS,
        "NativeTask": compat.NativeTask,
        "OrderedDict": OrderedDict,
        "ROOT": ROOT,
        "UNKNOWN": UNKNOWN,
        "anyio_hook_namespace": vars(anyio_hook),
        "asyncio_tasks": compat.asyncio_tasks,
        "cancel_failed": delivery._cancel_failed,
        "cancelling": compat.NativeTask.cancelling,
        "checked_coroutine": checked_coroutine,
        "current_task": compat.current_task,
        "expire": scope._expire,
        "force_out": CancelScope._force_out,
        "heappush": heappush,
        "look_after_pause": delivery._look_after_pause,
        "make_child_task": _make_child_task,
        "modules": sys.modules,
        "plain_cancel": compat.plain_cancel,
        "records": records,
        "reject_non_functions": reject_non_functions,
        "running_loop": compat.running_loop_or_none,
        "scope_namespace": vars(scope),
        "swallowing_namespace": vars(swallowing),
        "unmake": task_exit.unmake,
        "original_new_scope": scope.new_scope,
        "original_limited": timeouts._limited,
        "original_scope_enter": CancelScope.__enter__,
        "original_scope_exit": CancelScope.__exit__,
        "original_start_soon": Nursery.start_soon,
        "original_child_ended": Nursery._child_ended,
        "original_end_child": task_exit.end_child,
        "original_deliver": delivery._deliver,
        "original_collect_children": scope_tree._collect_children,
    }


def _make_child_task(nursery: Nursery, task: Task, coro: Any, loop: compat.Loop) -> Any:
    """The asyncio task of a child whose record C has made, as ``start_soon`` makes it.

    In Python, so that Ctrl-C finds a frame of the engine here.
    """
    made = runner = None
    try:
        runner = nursery._run_child(task, coro)
        made = compat.ChildTask(runner, loop=loop, name=getattr(coro, "__qualname__", None))
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
        c_module.bind(_given(), signature + (Nursery.start_soon.__doc__ or ""))
    except (AttributeError, LookupError, TypeError) as error:
        # Perhaps because a tool has replaced asyncio's tasks by those written in Python.
        return f"the C module does not fit: {error}"
    for module in (scope, nursery, timeouts):
        vars(module)["new_scope"] = c_module.new_scope
    vars(timeouts)["_limited"] = c_module.limited
    for module in (task_exit, nursery):
        vars(module)["end_child"] = c_module.end_child
    vars(scope_tree)["_collect_children"] = c_module.collect_children
    if not compat.COUNTS_GO_STALE:
        # Otherwise each request has to be compared with the stale ones.
        vars(delivery)["_deliver"] = c_module.deliver
    return None


# None if the C functions are used, otherwise why they are not.
PURE_BECAUSE: str | None = put_in_place()
__compiled__: bool = PURE_BECAUSE is None
