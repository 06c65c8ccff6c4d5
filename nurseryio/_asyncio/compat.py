"""The asyncio boundary: the private or version-dependent parts of asyncio's tasks and futures.

Rule 1: other modules call functions here to learn private facts of a task: the future it waits for,
whether it is running, its cancel count. The same facts of a loop are in ``loop_parts``. If a new
release of Python or uvloop moves such a part, only these two files change.

Rule 2: functions here are thin and do not use scopes or nurseries.

Rule 3: if a Python version lacks something, this module has a substitute, and its cost is stated:

* 3.10 has neither ``Task.cancelling`` nor ``Task.uncancel``. There both do nothing. Only the
  exception's argument shows whether a ``CancelledError`` is native or belongs to a scope.
* Before 3.12 ``asyncio.current_task`` is a slow Python function. The table that it reads is used.
* From 3.13 on, ``uncancel`` also withdraws a cancellation that was not raised yet, if the count
  reaches zero. ``cancel_ledger`` never lets it reach zero in that state.
* ``asyncio.run`` turns Ctrl-C into a cancellation of its main task from 3.11 on.

Rule 4: each private name here is in a table of ``required``, which notices if one is missing.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import operator
import signal
import socket
import sys
import types
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeGuard

from . import required

required.check_import()

AsyncioTask = asyncio.Task[Any]
Loop = asyncio.AbstractEventLoop

HAS_CANCEL_COUNTS = sys.version_info >= (3, 11)

running_loop: Callable[[], Loop] = asyncio.get_running_loop

# The same, and None where no loop is running.
running_loop_or_none: Callable[[], Loop | None] = asyncio._get_running_loop

# For a thread that acts in place of a loop's own thread, which waits meanwhile.
set_running_loop: Callable[[Loop | None], None] = asyncio._set_running_loop

# -- which task runs ------------------------------------------------------------

if sys.version_info >= (3, 12):
    _current_task: Callable[[], AsyncioTask | None] = asyncio.current_task
else:
    _table = asyncio.tasks._current_tasks  # type: ignore[attr-defined]

    def _current_task(
        _get: Any = _table.get, _loop: Callable[[], Loop] = asyncio.get_running_loop
    ) -> AsyncioTask | None:
        task: AsyncioTask | None = _get(_loop())
        return task


# Raises RuntimeError where no loop is running.
current_task = _current_task


def current_task_or_none() -> AsyncioTask | None:
    """The asyncio task that is running in this thread, None outside any."""
    return None if running_loop_or_none() is None else current_task()


# -- the state of a task --------------------------------------------------------

# The future that a suspended task waits for; None for a task that runs, has not started, or
# has only yielded.
waiter: Callable[[AsyncioTask], Any] = operator.attrgetter("_fut_waiter")

# Whether a requested cancellation waits for the task's next step.
must_cancel: Callable[[AsyncioTask], bool] = operator.attrgetter("_must_cancel")


def is_running(task: AsyncioTask) -> bool:
    """Whether the task is on the stack: running, or below an eagerly started one."""
    # For a ChildTask the coroutine of the wrapper, not the one that it shows.
    coro: Any = _plain_get_coro(task) if type(task) is ChildTask else task.get_coro()
    try:
        return bool(coro.cr_running)
    except AttributeError:  # another kind of coroutine
        return bool(getattr(coro, "gi_running", False))


def give_up(task: AsyncioTask) -> None:
    """Keep a task from being reported as pending when it is destroyed."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def is_over(task: AsyncioTask | None) -> bool:
    """Whether the task has ended. A record of an adopted task holds None after the end."""
    return task is None or task.done()


def has_begun(task: Any) -> bool:
    """Whether an asyncio task made by a task factory has taken its first step."""
    return type(task) is not ChildTask and hasattr(task, "get_coro") and has_run(task.get_coro())


def has_run(coro: Any) -> bool:
    """Whether a coroutine has taken its first step."""
    frame = getattr(coro, "cr_frame", None)
    if frame is None or getattr(coro, "cr_running", False):
        return True
    # From 3.11 on, making the coroutine has executed an instruction of the frame already.
    return bool(getattr(coro, "cr_suspended", frame.f_lasti >= 0))


# -- cancel requests ------------------------------------------------------------

if HAS_CANCEL_COUNTS:
    # The cancel count: requests to cancel the task, less the calls of uncancel().
    cancelling: Callable[[AsyncioTask], int] = operator.methodcaller("cancelling")
    uncancel: Callable[[AsyncioTask], object] = operator.methodcaller("uncancel")
else:

    def cancelling(_task: AsyncioTask) -> int:
        """Always 0: this version keeps no count."""
        return 0

    def uncancel(_task: AsyncioTask) -> object:
        """Nothing: this version keeps no count."""
        return None


# Whether uncancel() reaching zero also withdraws a cancellation that was not raised yet.
UNCANCEL_WITHDRAWS = sys.version_info >= (3, 13)

# Whether the count may include stale requests of asyncio itself. If a child of a TaskGroup fails
# while the end of the group's block waits, the group cancels the block's task. Before 3.13 it does
# not call uncancel() for that request.
COUNTS_GO_STALE = HAS_CANCEL_COUNTS and sys.version_info < (3, 13)


def all_raised(task: AsyncioTask) -> bool:
    """Whether every cancel request so far has been raised in the task; False if that is unknown."""
    future = waiter(task)
    # Another kind of future, such as a task, may have got cancel() and not be done yet.
    waits = type(future) is asyncio.Future and not future.done()
    return not must_cancel(task) and (waits or future is None)


def recancel(task: AsyncioTask, args: tuple[Any, ...]) -> None:
    """Have a deferred cancellation raised at the task's next await. The count stays the same."""
    task.cancel(*args[:1])
    uncancel(task)


def is_interrupted_main_task(task: AsyncioTask) -> bool:
    """Whether Ctrl-C has cancelled the task because it is the main task of an ``asyncio.run``."""
    handler: Any = signal.getsignal(signal.SIGINT)
    if not isinstance(handler, functools.partial) or handler.keywords.get("main_task") is not task:
        return False
    runner = getattr(handler.func, "__self__", None)
    return bool(getattr(runner, "_interrupt_count", 0))


# Set and unset asyncio's running task, while a hook is called for a task.
enter_task: Callable[[Loop, AsyncioTask], None] = asyncio.tasks._enter_task
leave_task: Callable[[Loop, AsyncioTask], None] = asyncio.tasks._leave_task


# -- stepping -------------------------------------------------------------------


class _BareYield:
    """Awaiting it yields once, so that every ready task makes a step. A pending cancel is raised.

    It is not a coroutine: the iterator of a tuple costs neither a frame nor a generator.
    """

    __slots__ = ()
    __await__: Any = staticmethod((None,).__iter__)


BARE_YIELD = _BareYield()

# Makes a plain future, as stock loops and uvloop do, without the frame of loop.create_future().
new_future: Callable[..., asyncio.Future[Any]] = asyncio.Future

# The callbacks of a future, each with its context; empty or None if there are none.
callbacks_of: Callable[[asyncio.Future[Any]], list[tuple[Any, contextvars.Context]] | None] = (
    operator.attrgetter("_callbacks")
)

# From 3.14 on a future has a set of the tasks that await it. This function removes a task; it must
# be called when the task's callback is removed from the future.
forget_who_awaits: Callable[[asyncio.Future[Any], AsyncioTask], object] | None = getattr(
    asyncio, "future_discard_from_awaited_by", None
)

# Adds to that set: asyncio's tools then draw a child below the task that opened its nursery.
note_who_awaits: Callable[[asyncio.Future[Any], AsyncioTask], object] | None = getattr(
    asyncio, "future_add_to_awaited_by", None
)


def throw_into(task: AsyncioTask, future: Any, error: Exception) -> bool:
    """Raise ``error`` in a suspended task instead of the result of the future.

    Returns:
        False if the future does not show the callback by which it would wake the task.
    """
    for wakeup, context in getattr(future, "_callbacks", None) or ():
        if getattr(wakeup, "__self__", None) is task:
            loop = task.get_loop()
            failed = new_future(loop=loop)
            failed.set_exception(error)
            future.remove_done_callback(wakeup)
            loop.call_soon(wakeup, failed, context=context)
            return True
    return False


# -- tasks ----------------------------------------------------------------------

# asyncio's task class written in C. Some tools replace it with the one written in Python. That one
# cannot show a coroutine other than the one it runs, so ChildTask is not used then.
NativeTask: Any = getattr(sys.modules.get("_asyncio"), "Task", None)
_TaskBase: Any = NativeTask or asyncio.Task

# Such tools replace the attribute ``Task`` of this module.
asyncio_tasks: Any = asyncio.tasks

# Task.cancel() for a ChildTask that has taken its first step, without the check of that.
plain_cancel: Callable[..., bool] = _TaskBase.cancel
_plain_get_coro: Callable[[AsyncioTask], Any] = _TaskBase.get_coro


class ChildTask(_TaskBase):  # type: ignore[misc]
    """The asyncio task of a nursery's child, if neither a task factory nor a tool is to see it.

    It runs the nursery's wrapper. It shows the coroutine of the user's function to tools that read
    the coroutine of a task (``repr``, ``get_stack``, debug mode, the call graph).
    """

    __slots__ = ("shown",)

    # The coroutine of the user's function; not set before the task is complete.
    shown: Any

    def get_coro(self) -> Any:
        """The coroutine of the user's function."""
        return getattr(self, "shown", None) or _plain_get_coro(self)

    # asyncio's functions for display read this attribute.
    _coro = property(get_coro)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task. Its nursery notices the end also if it has not taken its first step."""
        if not has_run(_plain_get_coro(self)):
            self.add_done_callback(ChildTask.may_have_never_run)
        return plain_cancel(self, msg)

    # The done-callback of a task that was cancelled before its first step; set by ``task_exit``.
    may_have_never_run: ClassVar[Callable[[AsyncioTask], object]]


ChildTask.__name__ = ChildTask.__qualname__ = "Task"


def show(task: AsyncioTask, coro: Any) -> None:
    """Have a child show another coroutine than the one it runs, if it can."""
    if type(task) is ChildTask:
        task.shown = coro


class TaskMaking:
    """How one loop makes tasks, and whether other code is to see each task that is made.

    Such code is a task factory, a loop class with another ``create_task``, or a tool that replaces
    ``create_task`` on a loop or on its class.
    """

    # None of these is the loop's __dict__. Once that has been asked for, the interpreter reads the
    # loop's attributes slowly, from 3.14 on, for as long as the loop lives. This is an eighth of an
    # iteration.
    __slots__ = ("bound", "code", "create_task", "factory", "loop")

    def __init__(self, loop: Loop) -> None:
        self.loop: Loop = loop
        # Returns the loop's task factory, None if it has none.
        self.factory: Callable[[], object] = loop.get_task_factory
        if type(loop).get_task_factory is asyncio.BaseEventLoop.get_task_factory:
            self.factory = functools.partial(getattr, loop, "_task_factory", None)
        else:
            try:
                self.factory()
            except NotImplementedError:  # as that of AbstractEventLoop
                self.factory = _no_factory
        # The method of the loop's class if asyncio or uvloop wrote it, else None. That method bound
        # to the loop, as the loop has it if nothing has replaced it, else a class that equals none.
        self.create_task: Any = _genuine_create_task(type(loop))
        self.bound: Any = _Unequal
        if self.create_task is not None:
            self.bound = self.create_task.__get__(loop, type(loop))
        # Some tools do not replace the function, but its code.
        self.code: object = getattr(self.create_task, "__code__", None)

    def is_plain(self) -> bool:
        """Whether a task made directly is what ``loop.create_task`` would make."""
        return (
            self.factory() is None
            # A proxy around the method, as wrapt makes it, equals the method.
            and type(found := self.loop.create_task) is type(self.bound)
            and found == self.bound
            and (self.code is None or self.create_task.__code__ is self.code)
            and asyncio_tasks.Task is NativeTask
        )

    def accepted(self, options: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments that ``create_task`` and the task factory of the loop accept."""
        if sys.version_info < (3, 11):
            options = {key: value for key, value in options.items() if key != "context"}
        found = self.loop.create_task
        if type(found) is not type(self.bound) or found != self.bound:
            options = _taken_by(found, options)
        factory = self.factory()
        if factory is not None:
            given = _taken_by(factory, options)
            if sys.version_info < (3, 14) and "name" in options:
                given["name"] = options["name"]  # the loop does not pass the name to the factory
            options = given
        return options


def _no_factory() -> None:
    """The task factory of a loop that cannot have one."""


def has_task_factory(loop: Loop) -> bool:
    """Whether a task factory is set on the loop."""
    try:
        return loop.get_task_factory() is not None
    except NotImplementedError:
        return False


def _taken_by(function: Any, options: dict[str, Any]) -> dict[str, Any]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return dict(options)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return dict(options)
    names = {parameter.name for parameter in parameters}
    return {key: value for key, value in options.items() if key in names}


class _Unequal:
    """Stands for the ``create_task`` of a loop that neither asyncio nor uvloop wrote."""


def _genuine_create_task(loop_type: type[Loop]) -> Any:
    """The ``create_task`` of a class of loops if asyncio or uvloop wrote it, else None."""
    for cls in loop_type.__mro__:
        if "create_task" in vars(cls):
            found: Any = vars(cls)["create_task"]
            if type(found) is types.FunctionType:
                genuine = (
                    found.__globals__ is vars(asyncio.base_events)
                    and "_task_factory" in found.__code__.co_names
                )
            else:
                # A compiled class cannot be patched, and a Python subclass would be found first.
                genuine = cls.__module__ == "uvloop.loop"
            return found if genuine else None
    return None


def make_child(
    loop: Loop, runner: Coroutine[Any, Any, Any], coro: Any, name: str | None, context: Any
) -> ChildTask:
    """Make the asyncio task of a child directly: it runs ``runner`` and shows ``coro``."""
    if context is None:
        task = ChildTask(runner, loop=loop, name=name)
    elif sys.version_info >= (3, 11):
        task = ChildTask(runner, loop=loop, name=name, context=context)
    else:
        task = context.run(functools.partial(ChildTask, runner, loop=loop, name=name))
    task.shown = coro
    return task


def make_task(
    making: TaskMaking, coro: Coroutine[Any, Any, Any], name: str | None, context: Any
) -> AsyncioTask:
    """Make an asyncio task by ``loop.create_task``, so that factories and tools see it.

    ``name`` and ``context`` are left out if one of these does not accept them.

    Raises:
        TypeError: The task factory, or a replaced ``create_task``, has returned something that is
            not a task.
        RuntimeError: It has returned a task of another event loop.
        Exception: The error that ``create_task`` raises.
    """
    create: Any = making.loop.create_task
    options = {"name": name, "context": context}
    if context is None:
        del options["context"]
    given = making.accepted(options)
    call = functools.partial(create, coro, **given)
    refused = None
    try:
        task = context.run(call) if "context" in options and "context" not in given else call()
    except AttributeError as error:
        # From 3.13 on, create_task() calls set_name() on the object that the factory has returned.
        if error.name != "set_name" or making.factory() is None:
            raise
        task, refused = error.obj, error
    # A future may be returned in place of a task, but not if the coroutine has been closed.
    closed = getattr(coro, "cr_frame", None) is None and not isinstance(task, asyncio.Task)
    if refused or not asyncio.isfuture(task) or (closed and not task.done()):
        raise TypeError(
            f"the task factory or the create_task() of {type(making.loop).__name__} must return "
            "an asyncio task that runs the coroutine it was given, but it has returned an object "
            f"of type {type(task).__name__}"
        ) from refused
    made: Any = task
    if task.get_loop() is not making.loop:
        raise RuntimeError(
            f"the task factory or the create_task() of {type(making.loop).__name__} must return "
            "a task of this event loop, but it has returned one of another loop"
        )
    if "name" not in given and hasattr(made, "set_name"):
        made.set_name(name)
    return made  # type: ignore[no-any-return]


def task_context(task: AsyncioTask) -> contextvars.Context | None:
    """The context that the task runs in; None before Python 3.12, which does not show it."""
    get = getattr(task, "get_context", None)
    if get is None:
        return None
    context: contextvars.Context = get()
    return context


# -- loops ----------------------------------------------------------------------


def is_task(thing: object) -> TypeGuard[AsyncioTask]:
    """Whether this is a task of asyncio, or of a class in Python that stands in for asyncio's."""
    return isinstance(thing, asyncio.Task) or (
        asyncio.isfuture(thing) and hasattr(type(thing), "get_coro")
    )


def shows_waiter(task: AsyncioTask) -> bool:
    """Whether the class of a task has the future that the task waits for, as asyncio's has it."""
    return isinstance(task, asyncio.Task) or hasattr(task, "_fut_waiter")


def owner_of(callback: Any) -> AsyncioTask | None:
    """The task whose step or wake-up a callback of ``loop.call_soon`` is; None for others.

    Public methods of the task, such as ``task.cancel``, are callbacks as any.
    """
    owner = getattr(callback, "__self__", None)
    if not is_task(owner):
        return None
    # asyncio's steps have no name, or one that is not an attribute of the class.
    name = getattr(callback, "__name__", None) or "_"
    is_public = not name.startswith("_") and hasattr(type(owner), name)
    return None if is_public else owner


def waiters(loop: Loop) -> list[Any]:
    """The futures that the tasks of a loop wait for."""
    return [future for task in asyncio.all_tasks(loop) if (future := waiter(task)) is not None]


def count_tasks(loop: Loop) -> tuple[int, int]:
    """How many tasks of a loop have not ended, and how many of them are ready to run."""
    tasks = asyncio.all_tasks(loop)
    runnable = 0
    for task in tasks:
        future = waiter(task)
        if future is None or future.done():
            runnable += not is_running(task)
    return len(tasks), runnable


# -- timers that the loop does not keep -----------------------------------------


def new_timer(
    loop: Loop, when: float, callback: Any, args: tuple[Any, ...], context: Any
) -> asyncio.TimerHandle:
    """A handle like that of ``call_at``, for a loop whose timers this library keeps."""
    return asyncio.TimerHandle(when, callback, args, loop, context)


def run_handle(handle: asyncio.Handle) -> None:
    """Call a handle's callback as the loop would: the exception handler gets its errors."""
    if not handle.cancelled():
        handle._run()


def ignore_cancelled_timers(loop: Loop) -> None:
    """Make the loop ignore that a timer was cancelled: it does not count the timers it lacks."""
    loop._timer_handle_cancelled = _ignore  # type: ignore[attr-defined]


def _ignore(_handle: object) -> None:
    """Nothing to do."""


# -- sockets --------------------------------------------------------------------


# The family and the type of a socket of the standard library, as plain numbers. The properties of
# the same names look them up in enumerations, which takes longer than most system calls.
family_of: Callable[[socket.socket], int] = vars(socket.SocketType)["family"].__get__
type_of: Callable[[socket.socket], int] = vars(socket.SocketType)["type"].__get__


def accept_plainly(sock: socket.socket, kind: tuple[int, int, int]) -> socket.socket:
    """``sock.accept()`` without the address, for listeners that accept very often.

    The standard library's method looks up the kind (family, type, protocol) in its enumerations
    each time. That takes longer than the system call.
    """
    fd, _address = sock._accept()  # type: ignore[attr-defined]
    return socket.socket(*kind, fileno=fd)


# -- callbacks ------------------------------------------------------------------

# The code in which a stock loop calls a callback. Other loops do so without a Python frame.
CALLBACK_CODE: types.CodeType = asyncio.Handle._run.__code__
