"""A test case for ``unittest`` whose async methods run under ``nurseryio.run``.

This module has :class:`AsyncTestCase`. The task in which the methods of one test are steps is in
``step_runner``.

Rule 1: tools around ``unittest.IsolatedAsyncioTestCase`` see such a class: this is a subclass with
all its methods. Only the way in which a function is run differs.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import unittest
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .._base.exception_groups import leaves
from .._base.util import call_each
from .step_runner import StepRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from .._base import Clock

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

T = TypeVar("T")


class AsyncTestCase(unittest.IsolatedAsyncioTestCase):
    """A ``unittest.IsolatedAsyncioTestCase`` in which nurseries and cancel scopes may stay open.

    ::

        class TestServer(AsyncTestCase):
            clock_factory = lambda: MockClock(autojump_threshold=0)

            async def asyncSetUp(self):
                self.nursery = await self.enterAsyncContext(nurseryio.open_nursery())
                self.nursery.start_soon(serve)

            async def test_an_hour_passes(self):
                await nurseryio.sleep(3600)

    All async methods of one test (set-up, test, tear-down, clean-ups) run in one task, in a
    :func:`nurseryio.run` of that test. So a scope that one of them opens may be closed by another
    one, and surrounds the test until then. Methods that are not async run between two steps of
    the loop. ``setUp`` and ``tearDown`` may be async as well.

    A nursery that :meth:`enterAsyncContext` has entered is left when the test is over, and that
    waits for its tasks: let ``asyncTearDown`` cancel it.

    Attributes:
        clock_factory: makes the clock that the run of each test uses, for example
            ``lambda: MockClock(autojump_threshold=0)``. Default: real time.
        loop_factory: makes the event loop of each test, ``uvloop.new_event_loop`` for example.
        clock: during a test, the clock that ``clock_factory`` has made.

    Trio: none.
    """

    clock_factory: Callable[[], Clock] | None = None
    loop_factory: Any = None
    clock: Any = None

    _steps: StepRunner | None = None
    _context: contextvars.Context

    # -- what unittest calls -------------------------------------------------------

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test, see ``unittest.TestCase.run``."""
        try:
            # Not the method of IsolatedAsyncioTestCase, which makes a loop for the test.
            result = unittest.TestCase.run(self, result)
        finally:
            try:
                self._end()
            except Exception:
                if result is None:
                    raise
                result.addError(self, sys.exc_info())
        return result

    def debug(self) -> None:
        """Run the test without collecting its result, see ``unittest.TestCase.debug``."""
        try:
            unittest.TestCase.debug(self)
        finally:
            self._end()

    def _callSetUp(self) -> None:
        self._begin()
        self._call(self.setUp)
        self._call(self.asyncSetUp)

    def _callTestMethod(self, method: Callable[[], Any]) -> None:
        if self._call(method) is not None:
            warnings.warn(
                f"It is deprecated to return a value that is not None from a test case ({method})",
                DeprecationWarning,
                stacklevel=4,
            )

    def _callTearDown(self) -> None:
        self._call(self.asyncTearDown)
        self._call(self.tearDown)

    def _callCleanup(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._call(function, *args, **kwargs)

    # -- steps ---------------------------------------------------------------------

    def _begin(self) -> None:
        kind: Any = type(self)
        self._context = contextvars.copy_context()
        self.clock = None if kind.clock_factory is None else kind.clock_factory()
        name = self.id().rpartition(".")[2]
        self._steps = StepRunner(self.clock, (), kind.loop_factory, name, self._context)
        asyncio.set_event_loop(self._steps.loop)

    def _end(self) -> None:
        steps, self._steps = self._steps, None
        if steps is not None:
            call_each(steps.close, partial(asyncio.set_event_loop, None))

    def _call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if self._steps is None:
            raise RuntimeError("the test is not running, so nothing async can run")
        made = self._context.run(function, *args, **kwargs)
        if not inspect.isawaitable(made):
            return made
        try:
            return self._steps.do(_wait_for, made)
        except BaseExceptionGroup as group:
            found = leaves(group)
            outcomes = (unittest.SkipTest, self.failureException, SystemExit, KeyboardInterrupt)
            if len(found) == 1 and isinstance(found[0], outcomes):
                raise found[0] from group
            raise

    async def enterAsyncContext(self, cm: AbstractAsyncContextManager[T]) -> T:
        """Enter a context manager, which is left after ``asyncTearDown``.

        Args:
            cm: the async context manager.

        Returns:
            The result of its ``__aenter__``.

        Raises:
            TypeError: if ``cm`` is not an async context manager.
            BaseException: any error of its ``__aenter__``.

        Checkpoint: if its ``__aenter__`` is one.

        Trio: none.
        """
        kind: Any = type(cm)
        try:
            enter, leave = kind.__aenter__, kind.__aexit__
        except AttributeError:
            raise TypeError(
                f"{kind.__module__}.{kind.__qualname__} is not an async context manager"
            ) from None
        value: T = await enter(cm)
        self.addAsyncCleanup(leave, cm, None, None, None)
        return value


async def _wait_for(awaitable: Any) -> Any:
    return await awaitable
