"""Async code in plain tests and scripts, without the help of a test framework.

This module has :func:`nurseryio_test`, which is also called ``trio_test``, as in Trio, and
:class:`Runner`, which keeps resources open between calls. The pytest plugin is in
``pytest_plugin``. The task in which the calls of a runner are steps is in ``step_runner``.
"""

from __future__ import annotations

import warnings
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, TypeVar

from .._asyncio.compat import running_loop_or_none
from .._base import Clock, Instrument
from .._nursery import open_nursery
from .._run.run import run

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from typing_extensions import ParamSpec, Self, TypeVarTuple, Unpack

    from .._nursery import Nursery
    from .step_runner import StepRunner

    P = ParamSpec("P")
    PosArgsT = TypeVarTuple("PosArgsT")

T = TypeVar("T")


def nurseryio_test(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Turn an async test function into a plain one that runs it in :func:`nurseryio.run`.

    ::

        @nurseryio_test
        async def test_sleeping():
            await nurseryio.sleep(0.01)

    If a keyword argument is a clock or an instrument, the run uses it. (pytest passes fixtures as
    keyword arguments.)

    Args:
        fn: the async function.

    Returns:
        A plain function with the same arguments and result.

    Raises:
        ValueError: when the function is called with more than one clock.

    Trio: ``trio.testing.trio_test``.
    """
    return run_by(run, fn)


def run_by(run: Callable[..., T], fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Do the same as :func:`nurseryio_test`, with another function in place of ``run``."""

    @wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        clocks = [value for value in kwargs.values() if isinstance(value, Clock)]
        if len(clocks) > 1:
            raise ValueError("too many clocks spoil the broth!")
        return run(
            partial(fn, *args, **kwargs),
            clock=clocks[0] if clocks else None,
            instruments=[value for value in kwargs.values() if isinstance(value, Instrument)],
        )

    return wrapper


trio_test = nurseryio_test


# -- a runner --------------------------------------------------------------------


class Runner:
    """Calls async functions from plain code, one by one, all in one task.

    ::

        with Runner() as runner:
            client = runner.enter(open_client("localhost"))
            print(runner.run(client.get, "/orders"))

    It is for tests of ``unittest``, doctests and scripts, in which no async function surrounds the
    work. A nursery or cancel scope must be left in the task that has entered it, so separate calls
    of :func:`nurseryio.run` or ``asyncio.Runner.run`` cannot keep one open. Here it stays open from
    :meth:`enter` to the end, and surrounds all calls in between. If it is cancelled, so are they.

    The event loop runs only during the calls. Background tasks stand still in between. A runner
    that is used and never closed gives a ``ResourceWarning``.

    Args:
        clock: see :func:`nurseryio.run`.
        instruments: see there.
        loop_factory: see there.

    Trio: none.
    """

    def __init__(
        self,
        clock: Clock | None = None,
        instruments: Sequence[Instrument] = (),
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        self._make = partial(_new_steps, clock, instruments, loop_factory)
        self._steps: StepRunner | None = None
        self._closed = False
        # What enter() has entered, to be left in the reverse order.
        self._entered = AsyncExitStack()
        # The nursery of start_soon() and start(), once it is needed.
        self._nursery: Nursery | None = None

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        # The function is an argument, because modules may be gone at the end of the interpreter.
        if self._steps is not None and not self._closed:
            warn(f"unclosed {self!r}: call close(), or use 'with'", ResourceWarning, source=self)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "new" if self._steps is None else "open"
        return f"<nurseryio.testing.Runner at {id(self):#x}, {state}>"

    def run(
        self, async_fn: Callable[[Unpack[PosArgsT]], Awaitable[T]], *args: Unpack[PosArgsT]
    ) -> T:
        """Run one async function to its end.

        Args:
            async_fn: the function.
            args: its positional arguments.

        Returns:
            The result of the function.

        Raises:
            RuntimeError: the runner is closed, or this is inside a call of the same runner, or an
                event loop is running in this thread.
            DeadlockError: under a clock that jumps, if the function waits for ever.
            Cancelled: a scope or nursery that :meth:`enter` has entered was cancelled. Its error is
                raised by :meth:`close`.
            BaseException: any error of the function.

        Trio: none.
        """
        __tracebackhide__ = True
        if self._closed:
            raise RuntimeError("the Runner is closed")
        self._must_be_between_calls()
        if self._steps is None:
            self._steps = self._make()
        return self._steps.do(async_fn, *args)

    def enter(self, manager: AbstractAsyncContextManager[T]) -> T:
        """Enter an async context manager, and leave it when the runner is closed.

        Args:
            manager: the async context manager.

        Returns:
            The value of ``async with manager as value``.

        Raises:
            RuntimeError: as for :meth:`run`.
            TypeError: it is not an async context manager.
            BaseException: the error of entering it.

        Trio: none.
        """
        __tracebackhide__ = True
        kind = type(manager)
        if not (hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__")):
            raise TypeError(
                f"{kind.__module__}.{kind.__qualname__} is not an async context manager"
            )
        return self.run(self._entered.enter_async_context, manager)

    def start_soon(
        self,
        async_fn: Callable[[Unpack[PosArgsT]], Awaitable[object]],
        *args: Unpack[PosArgsT],
        name: object = None,
    ) -> None:
        """Start a background task, as ``nursery.start_soon()`` does.

        The task runs during the calls. It is cancelled when the runner is closed, before the
        managers are left that :meth:`enter` had entered earlier. If it fails, the calls after that
        are cancelled, and closing the runner raises the error.

        Args:
            async_fn: an async function.
            args: its positional arguments.
            name: the name of the task, by default that of the function.

        Raises:
            RuntimeError: as for :meth:`run`.
            TypeError: ``async_fn`` is not an async function.

        Trio: none.
        """
        __tracebackhide__ = True
        self.run(_start_soon, self._background(), partial(async_fn, *args), name or async_fn)

    def start(
        self, async_fn: Callable[..., Awaitable[object]], *args: object, name: object = None
    ) -> Any:
        """Start a background task and wait until it is ready, as ``nursery.start()`` does.

        Args:
            async_fn: an async function with a keyword argument ``task_status``.
            args: its positional arguments.
            name: the name of the task, by default that of the function.

        Returns:
            The value given to ``task_status.started()``.

        Raises:
            RuntimeError: as for :meth:`run`, or the task ended without ``started()``.
            BaseException: any error of the task before ``started()``.

        Trio: none.
        """
        __tracebackhide__ = True
        return self.run(partial(self._background().start, async_fn, *args, name=name))

    def close(self) -> None:
        """Cancel the background tasks, leave all managers in the reverse order, close the loop.

        Closing again does nothing.

        Raises:
            RuntimeError: this is inside a call of the runner.
            BaseException: the error of leaving a manager.

        Trio: none.
        """
        __tracebackhide__ = True
        self.__exit__(None, None, None)

    def __enter__(self) -> Self:
        if self._closed:
            raise RuntimeError("the Runner is closed")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        __tracebackhide__ = True
        steps = self._steps
        if steps is None or self._closed:
            self._closed = True
            return False
        self._must_be_between_calls()
        self._closed = True
        try:
            # The managers get the error of the block, as if it were inside them.
            return bool(steps.do(self._entered.__aexit__, exc_type, exc, tb))
        finally:
            steps.close()

    def _must_be_between_calls(self) -> None:
        if self._steps is not None and self._steps.is_under_way():
            raise RuntimeError("this Runner is in a call: await the function instead")
        if running_loop_or_none() is not None:
            raise RuntimeError(
                "a Runner is for code without an event loop, and one is running in this thread: "
                "await the function instead"
            )

    def _background(self) -> Nursery:
        if self._nursery is None:
            self._nursery = self.enter(_background_nursery())
        return self._nursery


def _new_steps(clock: Any, instruments: Any, loop_factory: Any) -> StepRunner:
    # Loaded here, because most programs that load this module only use the decorator.
    from .step_runner import StepRunner

    return StepRunner(clock, instruments, loop_factory, "runner")


async def _start_soon(nursery: Nursery, async_fn: Callable[[], Any], name: object) -> None:
    nursery.start_soon(async_fn, name=name)


@asynccontextmanager
async def _background_nursery() -> AsyncIterator[Nursery]:
    async with open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel(reason="the Runner is closed")
