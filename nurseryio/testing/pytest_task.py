"""One test under pytest: its run, made when it is needed, and the steps in it.

What lives here: :class:`TestTask`, and what errors of a step mean to pytest. What does not:
pytest's hooks (:mod:`pytest_plugin`), and the task itself (:mod:`one_task`).

Rule 1: a test that was cut short has not passed. A cancellation that leaves it, from a scope that
a fixture holds open, is a failure; so it is in the set-up of a fixture. In a tear-down it is
none: the scope that is to blame is torn down later, and tells why.

Rule 2: pytest's own exceptions (skip, fail, xfail, exit) and those that end the process are taken
out of a group in which they are alone.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from .._core import Cancelled, CancelReason, Clock, Instrument, add_instrument
from .one_task import OneTask

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

# The fixtures whose clocks a run has to know before it begins.
CLOCKS = ("mock_clock", "autojump_clock")

OUTCOMES = (
    pytest.skip.Exception,
    pytest.fail.Exception,
    pytest.xfail.Exception,
    pytest.exit.Exception,
    SystemExit,
    KeyboardInterrupt,
)


class TestTask:
    """The task of one test, made when the first async fixture or the test itself needs it.

    Args:
        item: the test.
        request: of a fixture of the test.
        loop_factory: what makes the event loop, None for asyncio's own.
    """

    __test__ = False

    def __init__(
        self, item: pytest.Function, request: pytest.FixtureRequest, loop_factory: Any
    ) -> None:
        self._item = item
        self._request = request
        self._loop_factory = loop_factory
        self._task: OneTask | None = None
        self._clock: Clock | None = None
        self._instruments: list[Instrument] = []

    def do(self, what: str, async_fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run one step.

        Args:
            what: what it is, for messages.
            async_fn: what to run.
            args: its positional arguments.

        Returns:
            What it returns.

        Raises:
            BaseException: what it raises, or what that means to pytest.
        """
        __tracebackhide__ = True
        if self._task is None:
            self._open()
        assert self._task is not None
        try:
            return self._task.do(async_fn, *args)
        except Cancelled as exc:
            if not is_ours(exc):
                raise
            raise pytest.fail.Exception(
                f"the {what} was {exc.args[0]}: by a scope or nursery that a fixture has around "
                "it. An error behind that shows up when that fixture is torn down"
            ).with_traceback(exc.__traceback__) from None
        except BaseExceptionGroup as group:
            leaf: BaseException = group
            while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
                leaf = leaf.exceptions[0]
            if isinstance(leaf, OUTCOMES):
                raise leaf from group
            raise

    def call(self, async_fn: Callable[[], Awaitable[Any]]) -> None:
        """Run the test itself; all its fixtures are there."""
        __tracebackhide__ = True
        clock = self._find_clock()
        if self._task is not None and clock is not self._clock:
            pytest.fail(
                f"the clock {clock!r} came too late: the event loop was made for an async fixture "
                "before it. Ask for the clock's fixture before the async ones",
                pytrace=False,
            )
        for instrument in self._find_instruments():
            if self._task is not None and instrument not in self._instruments:
                self._instruments.append(instrument)
                self._task.do(_add_instrument, instrument)
        self.do("test", async_fn)

    def begin(self, what: str, generator: AsyncGenerator[Any, None]) -> Any:
        """Run an async generator fixture up to its ``yield``, and return what it yields."""
        __tracebackhide__ = True
        return self.do(what, _begin, what, generator)

    def end(self, what: str, generator: AsyncGenerator[Any, None]) -> None:
        """Run an async generator fixture from its ``yield`` to its end."""
        __tracebackhide__ = True
        self.do(what, _end, what, generator)

    def close(self) -> None:
        """End the run."""
        if self._task is not None:
            self._task.close()

    def _open(self) -> None:
        for name in CLOCKS:
            if name in self._request.fixturenames:
                self._item.funcargs.setdefault(name, self._request.getfixturevalue(name))
        self._clock = self._find_clock()
        self._instruments = self._find_instruments()
        self._task = OneTask(self._clock, self._instruments, self._loop_factory, self._item.name)

    def _find_clock(self) -> Clock | None:
        clocks = {
            id(value): value for value in self._item.funcargs.values() if isinstance(value, Clock)
        }
        if len(clocks) > 1:
            pytest.fail("a test can have one clock; ask for one of the fixtures", pytrace=False)
        return next(iter(clocks.values()), None)

    def _find_instruments(self) -> list[Instrument]:
        return [value for value in self._item.funcargs.values() if isinstance(value, Instrument)]


def is_ours(error: BaseException) -> bool:
    """Whether a cancellation comes from a scope of ours."""
    return bool(error.args) and isinstance(error.args[0], CancelReason)


async def _add_instrument(instrument: Instrument) -> None:
    add_instrument(instrument)


async def _begin(what: str, generator: AsyncGenerator[Any, None]) -> Any:
    __tracebackhide__ = True
    try:
        return await generator.__anext__()
    except StopAsyncIteration:
        raise RuntimeError(f"the {what} did not yield a value") from None


async def _end(what: str, generator: AsyncGenerator[Any, None]) -> None:
    __tracebackhide__ = True
    try:
        await generator.__anext__()
    except StopAsyncIteration:
        return
    except Cancelled as exc:
        if is_ours(exc):
            return
        raise
    await generator.aclose()
    raise RuntimeError(f"the {what} yielded a second time; it must yield once")
