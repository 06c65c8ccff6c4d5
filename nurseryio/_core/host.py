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
import contextvars
import operator
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Sized
from math import inf
from typing import Any

__all__ = [
    "BARE_YIELD",
    "HAS_CANCEL_COUNTS",
    "cancelling",
    "create_task",
    "current_task_or_none",
    "has_run",
    "is_running",
    "must_cancel",
    "new_task",
    "own_name",
    "put_back",
    "running_loop",
    "task_context",
    "uncancel",
    "waiter",
]

AsyncioTask = asyncio.Task[Any]
Loop = asyncio.AbstractEventLoop

HAS_CANCEL_COUNTS = sys.version_info >= (3, 11)

running_loop: Callable[[], Loop] = asyncio.get_running_loop

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
    try:
        return current_task()
    except RuntimeError:
        return None


# -- what a task is doing -------------------------------------------------------

# The future that a suspended task waits for; None for a task that runs, has not started, or
# has merely yielded.
waiter: Callable[[AsyncioTask], Any] = operator.attrgetter("_fut_waiter")

# Whether a requested cancellation waits for the task's next step.
must_cancel: Callable[[AsyncioTask], bool] = operator.attrgetter("_must_cancel")


def is_running(task: AsyncioTask) -> bool:
    """Whether the task is on the stack: running, or below an eagerly started one."""
    coro = task.get_coro()
    return bool(getattr(coro, "cr_running", False) or getattr(coro, "gi_running", False))


def is_over(task: AsyncioTask | None) -> bool:
    """Whether the task has ended; a record that has let go of its task holds None."""
    return task is None or task.done()


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


def put_back(task: AsyncioTask, args: tuple[Any, ...]) -> None:
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


# -- tasks ----------------------------------------------------------------------


# What loop.create_task does for a loop without a task factory.
new_task: Callable[..., AsyncioTask] = asyncio.Task


def create_task(
    loop: Loop,
    coro: Coroutine[Any, Any, Any],
    name: str | None,
    context: contextvars.Context | None,
    inner: Coroutine[Any, Any, Any],
) -> AsyncioTask:
    """Make an asyncio task, through the loop's task factory if it has one.

    If that fails, ``coro`` and the coroutine ``inner`` that it would have run are closed.
    """
    try:
        if context is None:
            return loop.create_task(coro, name=name)
        if sys.version_info >= (3, 11):
            return loop.create_task(coro, name=name, context=context)
        return context.run(loop.create_task, coro, name=name)
    except BaseException:
        coro.close()
        inner.close()
        raise


def task_context(task: AsyncioTask) -> contextvars.Context | None:
    """The context that the task runs in, None where this Python does not tell (before 3.12)."""
    get = getattr(task, "get_context", None)
    if get is None:
        return None
    context: contextvars.Context = get()
    return context


# -- timers ---------------------------------------------------------------------

OWN_TIMER = "nurseryio_deadline_timer"


def own_name(handle: asyncio.TimerHandle) -> bool:
    """Whether a loop timer is the one that this library keeps armed for its deadlines."""
    callback = getattr(handle, "_callback", None)
    return getattr(callback, "__name__", None) == OWN_TIMER


# -- exceptions -----------------------------------------------------------------


def add_note(error: BaseException, note: str) -> None:
    """``BaseException.add_note``, which 3.10 lacks."""
    if sys.version_info >= (3, 11):
        error.add_note(note)
    else:
        error.__notes__ = [*getattr(error, "__notes__", ()), note]  # type: ignore[attr-defined]


# -- loops ----------------------------------------------------------------------


def owner_of(callback: Any) -> AsyncioTask | None:
    """The task whose step (or wake-up) a callback given to ``loop.call_soon`` is."""
    owner = getattr(callback, "__self__", None)
    return owner if isinstance(owner, asyncio.Task) else None


def selector_of(loop: Loop) -> Any:
    """The selector of a stock loop; None where there is none to be reached (uvloop, Proactor)."""
    return getattr(loop, "_selector", None)


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
