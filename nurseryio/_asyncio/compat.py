"""The asyncio boundary: the only module that names private or version-dependent parts of asyncio.

Rule 1: whoever needs to know what a task waits for, whether it runs, how often it was asked to
cancel, how a loop counts time or finds its file descriptors, asks here. A new Python or uvloop
release that moves such a part is met by changing this file alone.

Rule 2: functions here are thin and know nothing of scopes and nurseries.

Rule 3: what a version lacks is made up for here, with the loss stated:

* 3.10 has neither ``Task.cancelling`` nor ``Task.uncancel``. There both do nothing, and a
  native cancel is told from a scope's own by the exception's argument alone.
* Before 3.12 ``asyncio.current_task`` is a slow Python function; the table below it is used.
* From 3.13 on, ``uncancel`` reaching zero also withdraws a cancellation that was not raised
  yet. The ledger (see ``delivery``) never lets it reach zero in that state.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import functools
import inspect
import operator
import selectors
import socket
import sys
import threading
import types
from collections.abc import Callable, Coroutine, Sized
from math import inf
from typing import Any, ClassVar

AsyncioTask = asyncio.Task[Any]
Loop = asyncio.AbstractEventLoop

HAS_CANCEL_COUNTS = sys.version_info >= (3, 11)

running_loop: Callable[[], Loop] = asyncio.get_running_loop

# The same, and None where no loop is running.
running_loop_or_none: Callable[[], Loop | None] = asyncio._get_running_loop

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


# -- what a task is doing -------------------------------------------------------

# The future that a suspended task waits for; None for a task that runs, has not started, or
# has merely yielded.
waiter: Callable[[AsyncioTask], Any] = operator.attrgetter("_fut_waiter")

# Whether a requested cancellation waits for the task's next step.
must_cancel: Callable[[AsyncioTask], bool] = operator.attrgetter("_must_cancel")


def is_running(task: AsyncioTask) -> bool:
    """Whether the task is on the stack: running, or below an eagerly started one."""
    # Of a child the wrapper, not what it shows.
    coro: Any = _plain_get_coro(task) if type(task) is ChildTask else task.get_coro()
    try:
        return bool(coro.cr_running)
    except AttributeError:  # a coroutine of another make
        return bool(getattr(coro, "gi_running", False))


def give_up(task: AsyncioTask) -> None:
    """Keep a task from being reported as pending when it is destroyed."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]


def is_over(task: AsyncioTask | None) -> bool:
    """Whether the task has ended; a record that has let go of its task holds None."""
    return task is None or task.done()


def has_begun(task: Any) -> bool:
    """Whether an asyncio task that a task factory has made has made its first step."""
    return type(task) is not ChildTask and hasattr(task, "get_coro") and has_run(task.get_coro())


def has_run(coro: Any) -> bool:
    """Whether a coroutine has made its first step."""
    frame = getattr(coro, "cr_frame", None)
    if frame is None or getattr(coro, "cr_running", False):
        return True
    # From 3.11 on, making the coroutine has executed an instruction of the frame already.
    return bool(getattr(coro, "cr_suspended", frame.f_lasti >= 0))


# -- cancel requests ------------------------------------------------------------

if HAS_CANCEL_COUNTS:
    # How many cancel requests the task has seen that nobody has taken back.
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


# Whether the count may hold requests of asyncio's own that are long over: before 3.13 a TaskGroup
# forgets the one that it makes when a child fails while the end of its block waits.
COUNTS_GO_STALE = HAS_CANCEL_COUNTS and sys.version_info < (3, 13)


def all_raised(task: AsyncioTask) -> bool:
    """Whether every cancel request so far has been raised in the task; False if that is unknown."""
    future = waiter(task)
    # A future of another kind, such as a task, may have been told and take its time.
    waits = type(future) is asyncio.Future and not future.done()
    return not must_cancel(task) and (waits or future is None)


def recancel(task: AsyncioTask, args: tuple[Any, ...]) -> None:
    """Make a cancellation that was held off strike at the task's next await; the count stays."""
    task.cancel(*args[:1])
    uncancel(task)


# While a hook is called for a task, asyncio too is to say that this task is the running one.
enter_task: Callable[[Loop, AsyncioTask], None] = asyncio.tasks._enter_task
leave_task: Callable[[Loop, AsyncioTask], None] = asyncio.tasks._leave_task


# -- stepping -------------------------------------------------------------------


class _BareYield:
    """Awaiting it lets every ready task make a step. A pending cancellation is raised there.

    Not a coroutine: the iterator of a tuple costs neither a frame nor a generator.
    """

    __slots__ = ()
    __await__: Any = staticmethod((None,).__iter__)


BARE_YIELD = _BareYield()

# A future of the plain kind, as stock loops and uvloop make them, without the frame in between.
new_future: Callable[..., asyncio.Future[Any]] = asyncio.Future


# The callbacks of a future, each with its context; empty or None while there are none.
callbacks_of: Callable[[asyncio.Future[Any]], list[tuple[Any, contextvars.Context]] | None] = (
    operator.attrgetter("_callbacks")
)

# From 3.14 on a future knows who awaits it, and has to be told when its callback is taken away.
forget_who_awaits: Callable[[asyncio.Future[Any], AsyncioTask], object] | None = getattr(
    asyncio, "future_discard_from_awaited_by", None
)

# The same the other way round: asyncio's tools draw a child below the task that opened its nursery.
note_who_awaits: Callable[[asyncio.Future[Any], AsyncioTask], object] | None = getattr(
    asyncio, "future_add_to_awaited_by", None
)


def throw_into(task: AsyncioTask, future: Any, error: Exception) -> bool:
    """Have a suspended task go on with ``error`` instead of the result of the future.

    Returns:
        False if the future does not show how it would wake the task.
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


# The task class that asyncio comes with. Some tools put the one written in Python in its place;
# that one cannot show another coroutine than it runs, so no ChildTask is made of it.
NativeTask: Any = getattr(sys.modules.get("_asyncio"), "Task", None)
_TaskBase: Any = NativeTask or asyncio.Task

# The module whose attribute ``Task`` such tools replace.
asyncio_tasks: Any = asyncio.tasks

# Task.cancel() for a ChildTask that has made its first step, without the look at that.
plain_cancel: Callable[..., bool] = _TaskBase.cancel
_plain_get_coro: Callable[[AsyncioTask], Any] = _TaskBase.get_coro


class ChildTask(_TaskBase):  # type: ignore[misc]
    """The asyncio task of a nursery's child, where nothing stands between the nursery and asyncio.

    It runs the nursery's wrapper. Tools that ask a task for its coroutine (``repr``, ``get_stack``,
    debug mode, the call graph) are given the coroutine of the user's function.
    """

    __slots__ = ("shown",)

    # The coroutine of the user's function; not there before the task is complete.
    shown: Any

    def get_coro(self) -> Any:
        """The coroutine of the user's function."""
        return getattr(self, "shown", None) or _plain_get_coro(self)

    # What asyncio's own functions for display read.
    _coro = property(get_coro)

    def cancel(self, msg: Any = None) -> bool:
        """Cancel the task; if it has not made its first step, its nursery is told of its end."""
        if not has_run(_plain_get_coro(self)):
            self.add_done_callback(ChildTask.may_have_never_run)
        return plain_cancel(self, msg)

    # The done-callback of one that was cancelled before its first step; set by ``ending``.
    may_have_never_run: ClassVar[Callable[[AsyncioTask], object]]


ChildTask.__name__ = ChildTask.__qualname__ = "Task"


def show(task: AsyncioTask, coro: Any) -> None:
    """Have a child show another coroutine as its own, if it can."""
    if type(task) is ChildTask:
        task.shown = coro


class TaskMaking:
    """How one loop makes tasks, and whether anything stands between it and ``asyncio.Task``.

    Task factories, loops with a ``create_task`` of their own, and tools that replace
    ``create_task`` on a loop or on its class all want to see every task.
    """

    __slots__ = ("code", "create_task", "factory", "loop", "loop_type", "namespace")

    def __init__(self, loop: Loop) -> None:
        self.loop: Loop = loop
        self.loop_type: type[Loop] = type(loop)
        self.namespace: dict[str, Any] = getattr(loop, "__dict__", {})
        # Returns the loop's task factory, None if it has none.
        self.factory: Callable[[], object] = loop.get_task_factory
        if type(loop).get_task_factory is asyncio.BaseEventLoop.get_task_factory:
            self.factory = functools.partial(self.namespace.get, "_task_factory")
        # The loop's method as asyncio or uvloop wrote it, else something that nothing is equal to.
        self.create_task: Any = _genuine_create_task(type(loop)) or _Unequal
        # Some tools leave the function in its place and change its code.
        self.code: object = getattr(self.create_task, "__code__", None)

    def is_plain(self) -> bool:
        """Whether a task made directly is what ``loop.create_task`` would make."""
        return (
            self.factory() is None
            and self.loop_type.create_task is self.create_task
            and (self.code is None or self.create_task.__code__ is self.code)
            and "create_task" not in self.namespace
            and asyncio_tasks.Task is NativeTask
        )

    def accepted(self, options: dict[str, Any]) -> dict[str, Any]:
        """Those of the keyword arguments that everything on the way to a new task takes."""
        if sys.version_info < (3, 11):
            options = {key: value for key, value in options.items() if key != "context"}
        if self.loop_type.create_task is not self.create_task or "create_task" in self.namespace:
            options = _taken_by(self.loop.create_task, options)
        factory = self.factory()
        if factory is not None:
            given = _taken_by(factory, options)
            if sys.version_info < (3, 14) and "name" in options:
                given["name"] = options["name"]  # the loop keeps the name to itself
            options = given
        return options


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


def _genuine_create_task(loop_type: type[Loop]) -> object:
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
                # A compiled class cannot be patched, a Python class above it would be found first.
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
    """Make an asyncio task by ``loop.create_task``, with all that stands there.

    Whatever takes no ``name`` or no ``context`` is not given one.

    Raises:
        TypeError: A task factory has returned something that is not a task.
        Exception: Whatever ``create_task`` raises.
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
        # From 3.13 on, create_task() calls set_name() of what the factory has returned.
        if error.name != "set_name" or making.factory() is None:
            raise
        task, refused = error.obj, error
    # A future that is not a task may stand for one, but not if the coroutine has been closed.
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
    """The context that the task runs in, None where this Python does not tell (before 3.12)."""
    get = getattr(task, "get_context", None)
    if get is None:
        return None
    context: contextvars.Context = get()
    return context


# -- loops ----------------------------------------------------------------------


def owner_of(callback: Any) -> AsyncioTask | None:
    """The task whose step (or wake-up) a callback given to ``loop.call_soon`` is."""
    owner = getattr(callback, "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None


def selector_of(loop: Loop) -> Any:
    """The selector of a stock loop; None where there is none to be reached (uvloop, Proactor)."""
    return getattr(loop, "_selector", None)


# Absent where the system has no epoll.
_EpollSelector: Any = getattr(selectors, "EpollSelector", ())


def next_timer(loop: Loop) -> float:
    """When the earliest timer of a stock loop is due, on the loop's clock; ``inf`` if none."""
    scheduled: list[asyncio.TimerHandle] = getattr(loop, "_scheduled", [])
    if scheduled and not scheduled[0].cancelled():
        return scheduled[0].when()  # it is a heap
    return min((handle.when() for handle in scheduled if not handle.cancelled()), default=inf)


def has_ready(loop: Loop) -> bool:
    """Whether a stock loop has callbacks waiting for their turn."""
    return bool(getattr(loop, "_ready", ()))


def ready_queue(loop: Loop) -> Sized:
    """The callbacks of a loop that wait for their turn: empty while there are none.

    Where a loop does not show them (uvloop), something that is never empty.
    """
    queue: Sized = getattr(loop, "_ready", "unknown")
    return queue


def outside_wakers(loop: Loop) -> int:
    """How many file descriptors a stock loop watches, its own self-pipe not counted.

    A loop without a selector does not tell: one, to be on the safe side.
    """
    selector = selector_of(loop)
    if selector is None:
        return 1
    own = getattr(loop, "_ssock", None)
    own_fd = None if own is None else own.fileno()
    return sum(key.fd != own_fd for key in list(selector.get_map().values()))


def idle_executor_threads(loop: Loop) -> set[threading.Thread]:
    """The threads of the loop's default executor, if none of them has anything to do."""
    executor = getattr(loop, "_default_executor", None)
    threads: set[threading.Thread] = set(getattr(executor, "_threads", ()))
    idle = getattr(executor, "_idle_semaphore", None)
    return threads if idle is not None and idle._value >= len(threads) else set()


def waiters(loop: Loop) -> list[Any]:
    """The futures that the tasks of a loop wait for."""
    return [future for task in asyncio.all_tasks(loop) if (future := waiter(task)) is not None]


def count_tasks(loop: Loop) -> tuple[int, int]:
    """How many tasks of a loop live, and how many of them only wait for their turn."""
    tasks = asyncio.all_tasks(loop)
    runnable = 0
    for task in tasks:
        future = waiter(task)
        if future is None or future.done():
            runnable += not is_running(task)
    return len(tasks), runnable


def renew_epoll(loop: Loop, keep: bool) -> None:
    """Give a stock loop a new epoll object, which watches nothing or (``keep``) what is open.

    Raises:
        OSError: No descriptor is left for it. Nothing has changed.
    """
    selector = selector_of(loop)
    if not isinstance(selector, _EpollSelector):
        return
    before = selector._selector
    with type(before)() as low:
        selector._selector = type(before).fromfd(_duplicate_above(low.fileno(), before.fileno()))
    before.close()
    for key in list(selector.get_map().values()):
        selector.unregister(key.fileobj)
        if keep:
            with contextlib.suppress(OSError):
                selector.register(key.fileobj, key.events, key.data)


def _duplicate_above(fd: int, below: int) -> int:
    """Duplicate a descriptor, under a number greater than ``below``.

    For one that is made because others have closed a number that is not theirs: they may do so
    again, and the lowest free number may be that one.
    """
    import fcntl  # not on Windows

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, below + 1)


def watches_in_vain(loop: Loop, fd: int) -> bool:
    """Whether a stock loop watches a file that others have closed under this number."""
    selector = selector_of(loop)
    if isinstance(selector, _EpollSelector) and fd in selector.get_map():
        events = selector.get_key(fd).events
        try:  # without changing anything; EPOLLIN is 1, EPOLLOUT is 4
            selector._selector.modify(fd, events & 1 | (events & 2) * 2)
        except OSError:
            return True
    return False


# -- timers of our own making ---------------------------------------------------


def new_timer(
    loop: Loop, when: float, callback: Any, args: tuple[Any, ...], context: Any
) -> asyncio.TimerHandle:
    """A handle as ``call_at`` returns it, for a loop whose timers are kept elsewhere."""
    return asyncio.TimerHandle(when, callback, args, loop, context)


def run_handle(handle: asyncio.Handle) -> None:
    """Call a handle's callback as the loop would, its errors going to the exception handler."""
    if not handle.cancelled():
        handle._run()


def ignore_cancelled_timers(loop: Loop) -> None:
    """Handles tell their loop when they are cancelled; this one keeps no books of them."""
    loop._timer_handle_cancelled = _ignore  # type: ignore[attr-defined]


def _ignore(_handle: asyncio.TimerHandle) -> None:
    """Nothing to do."""


# -- when hardly anything works any more -----------------------------------------


def emergency_call(
    loop: Loop, callback: Callable[[], object], context: contextvars.Context
) -> Callable[[], object]:
    """A function that has ``callback`` called in the loop's next iteration, and runs no Python.

    ``call_soon`` of a stock loop is Python: near the recursion limit it fails. For the thread of
    a loop that runs, or will run.
    """
    queue = getattr(loop, "_ready", None)
    if isinstance(queue, collections.deque):
        return functools.partial(queue.append, asyncio.Handle(callback, (), loop, context))
    return functools.partial(loop.call_soon, callback, context=context)


# -- signals --------------------------------------------------------------------


def waking_descriptor(loop: Loop) -> int | None:
    """What asyncio's loops are woken by when a byte is written to it; None for other loops."""
    wakes = getattr(loop, "_csock", None)
    return wakes.fileno() if isinstance(wakes, socket.socket) else None


def has_signal_handlers(loop: Loop) -> bool:
    """Whether a loop of asyncio's has signal handlers of its own, and thus needs to be woken."""
    return bool(getattr(loop, "_signal_handlers", None))


# -- sockets --------------------------------------------------------------------


def accept_plainly(sock: socket.socket, kind: tuple[int, int, int]) -> socket.socket:
    """``sock.accept()`` without the address, for listeners that accept very often.

    The standard library's method looks the kind (family, type, protocol) up in its enumerations
    each time, which takes longer than the system does.
    """
    fd, _address = sock._accept()  # type: ignore[attr-defined]
    return socket.socket(*kind, fileno=fd)


# -- callbacks ------------------------------------------------------------------

# The code in which a stock loop calls a callback. Other loops do so without a frame of Python's.
CALLBACK_CODE: types.CodeType = asyncio.Handle._run.__code__


def executor_threads(loop: Loop) -> list[str]:
    """The names of the threads of a loop's default executor, where the loop shows them."""
    executor = getattr(loop, "_default_executor", None)
    return sorted(thread.name for thread in list(getattr(executor, "_threads", ())))
