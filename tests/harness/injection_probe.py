"""The probe that a program of the injection harness gets: it notes events and problems.

Rule 1: an error is *reported* when it leaves the program, reaches the loop's exception handler,
``sys.unraisablehook``, ``threading.excepthook`` or a logger, or when the program itself catches it
and says so (:meth:`Probe.caught`). It is reported once however often it occurs as the cause or
context of others in one report.

Rule 2: a nursery that a program opens through :meth:`Probe.nursery` watches its children: when the
block has been left, none of them may run.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import types
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import nurseryio
from nurseryio import Nursery, open_nursery

from .injection_lines import WHOSE


class Original(Exception):
    """An error that a program raises by itself."""


class Block:
    """A nursery's block that watches its children."""

    def __init__(self, probe: Probe, **options: Any) -> None:
        self._probe = probe
        self._nursery = open_nursery(**options)
        self._running = 0
        self._left = False

    async def __aenter__(self) -> Block:
        await self._nursery.__aenter__()
        return self

    async def __aexit__(
        self, etype: Any, exc: BaseException | None, tb: types.TracebackType | None
    ) -> bool:
        try:
            return await self._nursery.__aexit__(etype, exc, tb)
        finally:
            self._left = True
            if self._running:
                self._probe.fault("child runs", f"{self._running} when the block had been left")

    @property
    def nursery(self) -> Nursery:
        """The nursery."""
        return self._nursery

    @property
    def scope(self) -> nurseryio.CancelScope:
        """The nursery's scope."""
        return self._nursery.cancel_scope

    def spawn(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> None:
        """``start_soon``, watched."""
        self._nursery.start_soon(self._child, async_fn, args, name=async_fn.__name__)

    async def start(self, async_fn: Callable[..., Awaitable[object]], *args: Any) -> Any:
        """``start``, watched."""
        return await self._nursery.start(self._started_child, async_fn, args)

    async def _started_child(self, async_fn: Any, args: Any, *, task_status: Any) -> None:
        await self._child(async_fn, (*args, task_status))

    async def _child(self, async_fn: Any, args: Any) -> None:
        if self._left:
            self._probe.fault("child runs", f"{async_fn.__name__} began after its block")
        self._running += 1
        try:
            await async_fn(*args)
        finally:
            self._running -= 1


class Probe(logging.Handler):
    """Watches one run.

    Args:
        host: "run" or "app".
    """

    def __init__(self, host: str) -> None:
        super().__init__(logging.WARNING)
        self.host = host
        self.loop: asyncio.AbstractEventLoop | None = None
        # The events that the program has seen, in order, with virtual times.
        self.log: list[str] = []
        self.faults: list[tuple[str, str]] = []
        # Kept apart: warnings about forgotten awaits.
        self.remarks: list[str] = []
        self.reports: list[tuple[str, BaseException]] = []
        # The errors that the program has raised.
        self.originals: list[BaseException] = []
        # Native cancel requests that the program leaves on its own task.
        self.requests = 0

    # -- for programs --

    def nursery(self, **options: Any) -> Block:
        """A nursery's block."""
        return Block(self, **options)

    def note(self, *what: object) -> None:
        """Put down that something has happened."""
        assert self.loop is not None
        self.log.append(f"{self.loop.time():.2f} " + " ".join(map(str, what)))

    def raise_error(self, text: str) -> None:
        """Raise an error of the program's own."""
        error = Original(text)
        self.originals.append(error)
        raise error

    def caught(self, error: BaseException) -> None:
        """The program has caught an error, and goes on."""
        self.reports.append(("program", error))
        self.note("caught", shape(error))

    def task(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """A native asyncio task."""
        return asyncio.ensure_future(coro)  # type: ignore[return-value]

    async def catch_all(self, tasks: list[asyncio.Task[Any]]) -> list[Any]:
        """Wait for native tasks, and catch what they raise."""
        await asyncio.wait(tasks)
        found: list[Any] = []
        for task in tasks:
            error: BaseException | None
            if task.cancelled():
                error = asyncio.CancelledError()
            else:
                error = task.exception()
            if error is not None:
                self.caught(error)
            found.append(task.result() if error is None else error)
        return found

    async def fail(self, seconds: float, text: str = "child") -> None:
        """A child that fails after a while."""
        await nurseryio.sleep(seconds)
        self.raise_error(text)

    async def nap(self, seconds: float, text: str = "nap") -> None:
        """A child that sleeps, notes it, and ends."""
        try:
            await nurseryio.sleep(seconds)
        except asyncio.CancelledError:
            self.note(text, "cancelled")
            raise
        self.note(text, "slept")

    async def native_nap(self, seconds: float, text: str = "native nap") -> None:
        """The same by asyncio's sleep."""
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.note(text, "cancelled")
            raise
        self.note(text, "slept")

    # -- for the harness --

    def fault(self, kind: str, detail: str) -> None:
        """Put down that something is wrong."""
        self.faults.append((kind, detail))

    def loop_error(self, _loop: object, context: dict[str, Any]) -> None:
        """The loop's exception handler."""
        error = context.get("exception")
        message = str(context.get("message"))
        if error is not None:
            self.reports.append((f"loop handler: {message.partition(chr(10))[0][:60]}", error))
        else:
            self.fault("loop handler", message)

    def emit(self, record: logging.LogRecord) -> None:
        """A record of the logger."""
        if record.exc_info and record.exc_info[1] is not None:
            self.reports.append((f"logger {record.name}", record.exc_info[1]))

    def install(self) -> None:
        """Take over everything else that reports errors. Only for a separate process."""
        logging.getLogger().addHandler(self)
        self._before = (sys.unraisablehook, threading.excepthook, warnings.showwarning)

        def unraisable(args: Any) -> None:
            self.reports.append(("unraisable", args.exc_value))

        def in_thread(args: Any) -> None:
            self.reports.append(("thread", args.exc_value))

        def warning(message: Any, category: Any, *_args: Any, **_options: Any) -> None:
            self.remarks.append(f"{category.__name__}: {str(message)[:80]}")

        sys.unraisablehook = unraisable
        threading.excepthook = in_thread
        warnings.simplefilter("always")
        warnings.showwarning = warning

    def remove(self) -> None:
        """Undo :meth:`install`."""
        logging.getLogger().removeHandler(self)
        sys.unraisablehook, threading.excepthook, warnings.showwarning = self._before


def marked(whose: str, function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a new context that is marked with its owner."""
    context = contextvars.copy_context()
    context.run(WHOSE.set, whose)
    return context.run(function, *args)


# -- looking through exceptions -------------------------------------------------


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group, in groups in it and so on; a bare error alone."""
    inner = getattr(error, "exceptions", None)
    if not isinstance(inner, tuple):
        return [error]
    return [leaf for member in inner for leaf in leaves(member)]


def times_in(error: BaseException, wanted: BaseException) -> int:
    """How many times a report shows an error: as a leaf each time, else once if as a context."""
    as_leaf = sum(leaf is wanted for leaf in leaves(error))
    return as_leaf or int(_reaches(error, wanted, set()))


def _reaches(error: BaseException | None, wanted: BaseException, seen: set[int]) -> bool:
    if error is None or id(error) in seen:
        return False
    seen.add(id(error))
    if error is wanted or _reaches(error.__cause__, wanted, seen):
        return True
    if not error.__suppress_context__ and _reaches(error.__context__, wanted, seen):
        return True
    inner = getattr(error, "exceptions", ())
    return isinstance(inner, tuple) and any(_reaches(member, wanted, seen) for member in inner)


def shape(error: BaseException) -> str:
    """An exception without its texts: the types, groups with their members."""
    name = type(error).__name__
    inner = getattr(error, "exceptions", None)
    if isinstance(inner, tuple):
        return f"{name}[{', '.join(map(shape, inner))}]"
    if isinstance(error, Original):
        return f"{name}({error})"
    return name
