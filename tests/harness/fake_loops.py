"""Loops that look like asyncio's own and iterate in another way, as those of GUI toolkits do.

This module has :class:`OwnIteration` and selectors for it. Each function in ``FAKES`` makes a loop
that keeps one of the parts by which nurseryio recognizes a stock loop, and does not use it as a
stock loop would. Loops that are really in use are in ``foreign_loops``.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import heapq
import os
import selectors
import sys
from collections.abc import Callable
from typing import Any


class OwnIteration(asyncio.SelectorEventLoop):
    """Has asyncio's queue of ready callbacks and never uses it: it has a queue of its own.

    Args:
        selector: the selector to show.
        wait: waits for events; its argument is the time in seconds, None without limit.
    """

    def __init__(self, selector: Any, wait: Callable[[float | None], Any]) -> None:
        self._own_queue: collections.deque[asyncio.Handle] = collections.deque()
        self._wait = wait
        super().__init__(selector)

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """Put a callback into the loop's own queue, as a timer without delay."""
        self._check_closed()  # type: ignore[attr-defined]
        return self.call_later(0, callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """A timer; one without delay is ready at once."""
        if delay > 0:
            return super().call_later(delay, callback, *args, context=context)
        handle = asyncio.TimerHandle(self.time(), callback, list(args), self, context)
        self._own_queue.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        """The same, and wake the loop."""
        handle = self.call_soon(callback, *args, context=context)
        self._write_to_self()  # type: ignore[attr-defined]
        return handle

    def _add_callback(self, handle: asyncio.Handle) -> None:
        self._own_queue.append(handle)

    def _run_once(self) -> None:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        queue = self._own_queue
        while timers and timers[0].cancelled():
            heapq.heappop(timers)
        timeout = None
        if queue or self._stopping:  # type: ignore[attr-defined]
            timeout = 0.0
        elif timers:
            timeout = max(0.0, timers[0].when() - self.time())
        self._process_events(self._wait(timeout))  # type: ignore[attr-defined]
        while timers and timers[0].when() <= self.time():
            queue.append(heapq.heappop(timers))
        for _ in range(len(queue)):
            handle = queue.popleft()
            if not handle.cancelled():
                handle._run()


class Registry(selectors.BaseSelector):
    """Knows what is registered. It cannot wait itself, because the toolkit does that."""

    def __init__(self) -> None:
        self.inner = selectors.DefaultSelector()

    def register(self, *args: Any) -> Any:
        """As in any selector."""
        return self.inner.register(*args)

    def unregister(self, fileobj: Any) -> Any:
        """As in any selector."""
        return self.inner.unregister(fileobj)

    def get_map(self) -> Any:
        """As in any selector."""
        return self.inner.get_map()

    def select(self, timeout: float | None = None) -> Any:
        """Nothing calls this."""
        raise NotImplementedError

    def close(self) -> None:
        """As in any selector."""
        self.inner.close()


class Waiting(Registry):
    """Waits by itself, but not in a call of the system that it makes directly."""

    def select(self, timeout: float | None = None) -> Any:
        """As in any selector."""
        return self.inner.select(timeout)


class NotASelector:
    """Stands where other loops have a selector. It has neither ``select`` nor a ``__dict__``."""

    __slots__ = ("_registry",)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __getattr__(self, name: str) -> Any:
        if name == "select":
            raise AttributeError(name)
        return getattr(self._registry, name)


def unused_queue() -> asyncio.AbstractEventLoop:
    """A real selector that the loop waits in; the queue is not asyncio's."""
    selector = selectors.DefaultSelector()
    return OwnIteration(selector, selector.select)


def unused_selector() -> asyncio.AbstractEventLoop:
    """Neither the selector's ``select`` nor the queue is used, as in qasync."""
    registry = Registry()
    return OwnIteration(registry, registry.inner.select)


def no_selector() -> asyncio.AbstractEventLoop:
    """What is called ``_selector`` is not a selector, as in blazio."""
    registry = Registry()
    return OwnIteration(NotASelector(registry), registry.inner.select)


def own_selector() -> asyncio.AbstractEventLoop:
    """asyncio's queue and iteration, over a selector that is not the system's, as in qtinter."""
    return asyncio.SelectorEventLoop(Waiting())


class WithoutFactories(asyncio.SelectorEventLoop):
    """Cannot have a task factory: the methods are those of the abstract class (uringcore)."""

    get_task_factory = asyncio.AbstractEventLoop.get_task_factory
    set_task_factory = asyncio.AbstractEventLoop.set_task_factory

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """A plain task."""
        return asyncio.Task(coro, loop=self, **options)


class WithoutHandles(asyncio.SelectorEventLoop):
    """Wraps each callback, and does not return a handle that can be found in the queue."""

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """Schedule it."""
        super().call_soon(lambda: callback(*args), context=context)


class WithAList(asyncio.SelectorEventLoop):
    """Something else is called ``_ready`` while no iteration looks for it."""

    def __init__(self) -> None:
        super().__init__()
        self._queue, self._ready = self._ready, []  # type: ignore[has-type]

    def _run_once(self) -> None:
        self._queue.extend(self._ready)
        self._ready = self._queue
        try:
            super()._run_once()  # type: ignore[misc]
        finally:
            self._ready = []


class EqualProxy:
    """A proxy around a bound method, which equals the method, as those of wrapt do."""

    def __init__(self, method: Any) -> None:
        self.method = method
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return self.method(*args, **options)

    def __eq__(self, other: object) -> bool:
        return bool(self.method == other)

    def __hash__(self) -> int:
        return hash(self.method)

    @property
    def __code__(self) -> Any:
        return self.method.__code__


class WithoutSelfPipe(asyncio.SelectorEventLoop):
    """Is woken by a pipe of its own, as loops are that need no sockets (async-solipsism)."""

    def _make_self_pipe(self) -> None:
        self._ends = os.pipe()
        for end in self._ends:
            os.set_blocking(end, False)
        self._add_reader(self._ends[0], self._read_from_self)  # type: ignore[attr-defined]

    def _close_self_pipe(self) -> None:
        self._remove_reader(self._ends[0])  # type: ignore[attr-defined]
        for end in self._ends:
            os.close(end)

    def _read_from_self(self) -> None:
        os.read(self._ends[0], 4096)

    def _write_to_self(self) -> None:
        with contextlib.suppress(OSError):  # it is full, or closed
            os.write(self._ends[1], b"\0")


class WithFailingProperties(asyncio.SelectorEventLoop):
    """Its private parts cannot be read by other libraries."""

    def __getattribute__(self, name: str) -> Any:
        if name in ("_ready", "_selector", "_scheduled", "_csock", "_ssock"):
            reader = sys._getframe(1).f_globals["__name__"]
            if reader.partition(".")[0] not in ("asyncio", __name__.partition(".")[0]):
                raise ValueError(name)
        return super().__getattribute__(name)


class Proxy(asyncio.AbstractEventLoop):
    """Passes everything on to another loop, as the wrappers of some tools do."""

    def __init__(self) -> None:
        self.loop = asyncio.SelectorEventLoop()

    def __getattribute__(self, name: str) -> Any:
        if name in ("loop", "__class__", "__dict__"):
            return object.__getattribute__(self, name)
        return getattr(self.loop, name)


FAKES = (unused_queue, unused_selector, no_selector, own_selector)

# Their queue of ready callbacks cannot be had.
ODD = (WithoutHandles, WithAList, WithFailingProperties)
