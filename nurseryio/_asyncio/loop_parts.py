"""The private parts of one loop: ready callbacks, selector, timers, executor, self-pipe.

Rule: a loop class may inherit a part from asyncio and not use it. So a part is believed only if it
was seen in use (:func:`ready_queue`), and everything else follows from that.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import contextvars
import functools
import selectors
import socket
import threading
from collections.abc import Callable, Sized
from math import inf
from typing import Any

from .compat import Loop, running_loop_or_none


def part(loop: object, name: str) -> Any:
    """An attribute of a loop; None if the loop does not have it, or if reading it fails."""
    try:
        return getattr(loop, name, None)
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return None  # a property that asks an object which the loop does not have yet or any more


def replacement(owner: Any, name: str) -> Any:
    """What stands on an object in place of a method of its class; None if nothing does.

    It does not ask for the ``__dict__``, for the reason given in :class:`.compat.TaskMaking`.
    """
    found = getattr(owner, name)
    method: Any = getattr(type(owner), name, None)
    bound = method.__get__(owner, type(owner)) if hasattr(method, "__get__") else method
    # A proxy around the method, as wrapt makes it, equals the method.
    return None if type(found) is type(bound) and found == bound else found


def behind(loop: Loop) -> Loop:
    """The loop that runs if ``loop`` is a proxy for another one; otherwise ``loop``.

    asyncio's tasks and futures know only the loop behind the proxy.
    """
    try:
        found = loop.create_future().get_loop()
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return loop
    return found if isinstance(found, asyncio.AbstractEventLoop) else loop


# In place of a queue, and never empty: the loop hides it; the loop is still to be asked for it.
UNKNOWN = "unknown"
NOT_ASKED = "not asked yet"


def ready_queue(loop: Loop) -> Sized:
    """The ready callbacks of a loop that have not run yet: empty if there are none.

    A loop class may inherit the queue from asyncio and never use it. So the loop gets a callback
    that does nothing, and the queue is believed if it contains that callback. A loop that runs in
    another thread is not asked: only its own thread may call ``call_soon``.

    Returns:
        The queue; ``UNKNOWN`` if the loop does not show it, as uvloop; or ``NOT_ASKED``.
    """
    queue = part(loop, "_ready")
    if not isinstance(queue, collections.deque) or loop.is_closed():
        return UNKNOWN
    if loop.is_running() and running_loop_or_none() is not loop:
        return NOT_ASKED
    handle = loop.call_soon(_ignore, context=contextvars.Context())
    # Copied in one step, because other threads may append to the queue.
    shown = any(ready is handle for ready in queue.copy())
    if isinstance(handle, asyncio.Handle):
        handle.cancel()
    if not shown:
        return UNKNOWN  # remove() would call the repr of the handle, which may raise any error
    with contextlib.suppress(ValueError, IndexError):
        queue.remove(handle)
    return queue


def _ignore() -> None:
    """Nothing to do."""


# The selectors whose select() waits in a call of the operating system. No system has them all.
_SYSTEM_SELECTORS: tuple[type, ...] = tuple(
    getattr(selectors, f"{system}Selector")
    for system in ("Epoll", "Kqueue", "Devpoll", "Poll", "Select")
    if hasattr(selectors, f"{system}Selector")
)


def selector_of(loop: Loop, ready: Sized) -> Any:
    """The selector that a stock loop waits in; None for a loop that waits elsewhere (uvloop, Qt).

    A loop waits in its selector if the selector waits in the operating system, and if the loop
    takes its callbacks from the queue that asyncio's own iteration reads.

    Args:
        loop: the loop.
        ready: its :func:`ready_queue`.
    """
    selector = part(loop, "_selector")
    waits = isinstance(selector, _SYSTEM_SELECTORS) and isinstance(ready, collections.deque)
    return selector if waits else None


def next_timer(loop: Loop) -> float:
    """The time of a stock loop's earliest timer, on the loop's clock; ``inf`` if it has none."""
    scheduled: list[asyncio.TimerHandle] = part(loop, "_scheduled") or []
    if scheduled and not scheduled[0].cancelled():
        return scheduled[0].when()  # it is a heap
    return min((handle.when() for handle in scheduled if not handle.cancelled()), default=inf)


def outside_wakers(loop: Loop, selector: Any) -> int:
    """How many file descriptors a stock loop watches, its self-pipe not counted.

    One for a loop without a selector, which may watch some and does not show them.

    Args:
        loop: the loop.
        selector: its :func:`selector_of`.
    """
    if selector is None:
        return 1
    own = part(loop, "_ssock")
    own_fd = None if own is None else own.fileno()
    return sum(key.fd != own_fd for key in list(selector.get_map().values()))


def idle_executor_threads(loop: Loop) -> set[threading.Thread]:
    """The threads of the loop's default executor if all of them are idle, else an empty set."""
    executor = part(loop, "_default_executor")
    threads: set[threading.Thread] = set(getattr(executor, "_threads", ()))
    idle: int = getattr(getattr(executor, "_idle_semaphore", None), "_value", -1)
    return threads if idle >= len(threads) else set()


def executor_threads(loop: Loop) -> list[str]:
    """The names of the threads of a loop's default executor, if the loop shows them."""
    executor = part(loop, "_default_executor")
    return sorted(thread.name for thread in list(getattr(executor, "_threads", ())))


# -- near the recursion limit ----------------------------------------------------


def emergency_call(
    loop: Loop, ready: Sized, callback: Callable[[], object], context: contextvars.Context
) -> Callable[[], object]:
    """A function that schedules ``callback`` for the loop's next iteration without Python code.

    ``call_soon`` of a stock loop is Python code, which fails near the recursion limit. The function
    may be called only in the thread of a loop that runs or will run.

    Args:
        loop: the loop.
        ready: its :func:`ready_queue`.
        callback: the function to schedule.
        context: the context to call it in.
    """
    if isinstance(ready, collections.deque):
        return functools.partial(ready.append, asyncio.Handle(callback, (), loop, context))
    return functools.partial(loop.call_soon, callback, context=context)


# -- signals --------------------------------------------------------------------


def waking_descriptor(loop: Loop) -> int | None:
    """The descriptor to write a byte to, to wake an asyncio loop; None for other loops."""
    wakes = part(loop, "_csock")
    return wakes.fileno() if isinstance(wakes, socket.socket) else None


def has_signal_handlers(loop: Loop) -> bool:
    """Whether an asyncio loop has signal handlers, so that a signal must wake it."""
    return bool(part(loop, "_signal_handlers"))
