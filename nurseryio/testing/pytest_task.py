"""One test under pytest: its run, which is made when it is needed, and the steps in it.

This module has :class:`TestTask`, and translates errors of a step for pytest. pytest's hooks are in
``pytest_plugin``, the task itself is in ``step_runner``.

Rule 1: a test that was cut short has not passed. A cancellation that leaves it, from a scope that
a fixture holds open, is a failure; so it is in the set-up of a fixture. In a tear-down it is not,
because the fixture with the cancelled scope is torn down later, and raises the reason then.

Rule 2: pytest's own exceptions (skip, fail, xfail, exit) and those that end the process are raised
bare if they are alone in a group.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

import pytest

from .._asyncio import display
from .._base import Cancelled, CancelReason, Clock, Instrument
from .._base.exception_groups import leaves
from .._base.util import is_library_file
from .._core.task import records
from .._loop import add_instrument, remove_instrument
from .._observe.places import Place
from .._observe.task_tree import tree_of
from .step_runner import StepRunner

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from .pytest_shared import SharedRun
    from .step_runner import StepTask

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

T = TypeVar("T")

# The iterations of the loop in which tasks may end after the test before they are left over.
TURNS = 3

# The fixtures of clocks, which a run must know before it begins.
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
        request: the request of a fixture of the test.
        loop_factory: makes the event loop; None for asyncio's own.
        shared: the run of the async fixtures with wider scopes.
    """

    __test__ = False

    def __init__(
        self,
        item: pytest.Function,
        request: pytest.FixtureRequest,
        loop_factory: Any,
        shared: SharedRun,
    ) -> None:
        self._shared = shared
        self._item = item
        self._request = request
        self._loop_factory = loop_factory
        # A separate run, or a task in the shared run.
        self._task: StepTask | None = None
        self._clock: Clock | None = None
        self._instruments: list[Instrument] = []
        # The tasks that a shared run had before.
        self._before: WeakSet[asyncio.Task[Any]] = WeakSet()

    def do(self, what: str, async_fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Run one step.

        Args:
            what: a name for the step, for messages.
            async_fn: the function to run.
            args: its positional arguments.

        Returns:
            The result of the function.

        Raises:
            BaseException: the error of the function, or the corresponding one of pytest.
        """
        __tracebackhide__ = True
        if self._task is None:
            self._open()
        assert self._task is not None
        return do(self._task, what, async_fn, *args)

    def call(self, async_fn: Callable[[], Awaitable[Any]]) -> None:
        """Run the test itself; all its fixtures are set up."""
        __tracebackhide__ = True
        if self._task is None:
            self._open()
        self._refuse_late_fixtures()
        for instrument in self._find_instruments():
            if instrument not in self._instruments:
                self._add(instrument)
        self.do("test", async_fn)
        for fixture in self._shared.used(self._request.fixturenames):
            if fixture.lost is not None:
                pytest.fail(
                    f"the fixture {fixture.name!r} was {fixture.lost._sentence()}, which the test "
                    "has not noticed because it did not await: a scope or nursery around the "
                    "fixture's 'yield' was cancelled. An error behind that shows up at its "
                    "tear-down",
                    pytrace=False,
                )

    def _refuse_late_fixtures(self) -> None:
        used = [fixture.name for fixture in self._shared.used(self._request.fixturenames)]
        clock = self._find_clock()
        if used and isinstance(self._task, StepRunner):
            pytest.fail(
                f"the fixture {used[-1]!r} came too late: it lives on an event loop that its tests "
                "share, but the test had got a loop of its own, for an async fixture before it. "
                "Name it among the arguments of the test",
                pytrace=False,
            )
        if clock is not self._clock and not isinstance(self._task, StepRunner):
            pytest.fail(
                f"the clock {clock!r} came too late: the test runs on the event loop of the "
                f"fixture {used[-1]!r}, which goes by {self._clock or 'real time'}. Give the "
                "clock's fixture the same scope, and name it among the arguments of that fixture",
                pytrace=False,
            )
        if clock is not self._clock:
            pytest.fail(
                f"the clock {clock!r} came too late: the event loop was made for an async fixture "
                "before it. Ask for the clock's fixture before the async ones",
                pytrace=False,
            )

    def begin(self, what: str, generator: AsyncGenerator[Any, None]) -> Any:
        """Run an async generator fixture up to its ``yield``, and return what it yields."""
        __tracebackhide__ = True
        return for_pytest(what, self.do, what, begin_fixture, what, generator)

    def end(self, what: str, generator: AsyncGenerator[Any, None]) -> None:
        """Run an async generator fixture from its ``yield`` to its end."""
        __tracebackhide__ = True
        for_pytest(what, self.do, what, end_fixture, what, generator)

    def left_over(self) -> list[str]:
        """The tasks of asyncio code that the test and its fixtures have left running, as lines."""
        task = self._task
        if task is None or not left_over_in(task.loop, self._before):
            return []
        # Some are just ending. An error: a step was interrupted before its end, or a scope that is
        # still open is cancelled.
        with contextlib.suppress(Exception, Cancelled):
            task.do(_settle)
        return left_over_in(task.loop, self._before)

    def close(self) -> None:
        """End the run, or the task in the shared run."""
        task, self._task = self._task, None
        if isinstance(task, StepRunner):
            for_pytest("end of the test's event loop", task.close)
        elif task is not None:
            for instrument in self._instruments:
                task.do(_remove_instrument, instrument)
            for_pytest("end of the test's task", self._shared.close_branch, task)

    def _open(self) -> None:
        used = self._shared.used(self._request.fixturenames)
        if used:
            self._task = self._shared.branch(self._item.name, used)
            self._before.update(asyncio.all_tasks(self._task.loop))
            self._clock = self._shared.clock
            for instrument in self._find_instruments():
                if instrument not in self._shared.instruments:
                    self._add(instrument)
            return
        for name in CLOCKS:
            if name in self._request.fixturenames:
                self._item.funcargs.setdefault(name, self._request.getfixturevalue(name))
        self._clock = self._find_clock()
        self._instruments = self._find_instruments()
        self._task = StepRunner(self._clock, self._instruments, self._loop_factory, self._item.name)

    def _add(self, instrument: Instrument) -> None:
        assert self._task is not None
        self._task.do(_add_instrument, instrument)
        self._instruments.append(instrument)

    def _find_clock(self) -> Clock | None:
        clocks = {
            id(value): value for value in self._item.funcargs.values() if isinstance(value, Clock)
        }
        if len(clocks) > 1:
            pytest.fail("a test can have one clock; ask for one of the fixtures", pytrace=False)
        return next(iter(clocks.values()), None)

    def _find_instruments(self) -> list[Instrument]:
        return [value for value in self._item.funcargs.values() if isinstance(value, Instrument)]


async def _settle() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


def left_over_in(loop: asyncio.AbstractEventLoop, before: WeakSet[asyncio.Task[Any]]) -> list[str]:
    """The tasks of asyncio code that are in a loop and were not before, as lines of text.

    The tasks of nurseries are not left over: a fixture or a system task has them.
    """
    if loop.is_closed():
        return []
    numbers = {}
    for task in asyncio.all_tasks(loop) - set(before):
        record = records.get(task)
        if record is None or record.parent_nursery is None:
            numbers[id(record or task)] = task
    return [
        f"{info}{_origin(numbers[info.id])}" for info in tree_of(loop).tasks if info.id in numbers
    ]


def _origin(task: asyncio.Task[Any]) -> str:
    """The line of the program that has made a task, if asyncio knows it."""
    for entry in reversed(display.made_at(task)):
        if not is_library_file(entry.filename):
            place = Place(entry.filename, entry.lineno, entry.name, entry.line or "")
            return f"; made at {place}"
    return ""


def is_ours(error: BaseException) -> bool:
    """Return whether a cancellation comes from a scope of nurseryio."""
    return bool(error.args) and isinstance(error.args[0], CancelReason)


def do(task: StepTask, what: str, async_fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Run one step in a task; for arguments, result and errors see :meth:`TestTask.do`."""
    __tracebackhide__ = True
    try:
        return task.do(async_fn, *args)
    except Cancelled as exc:
        if not is_ours(exc):
            raise
        raise pytest.fail.Exception(
            f"the {what} was {exc.args[0]._sentence()}: by a scope or nursery that a "
            "fixture has around it. An error behind that shows up when that fixture is torn down"
        ).with_traceback(exc.__traceback__) from None
    except BaseExceptionGroup as group:
        leaf: BaseException = group
        while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
            leaf = leaf.exceptions[0]
        if isinstance(leaf, OUTCOMES):
            raise leaf from group
        raise


def for_pytest(what: str, function: Callable[..., T], *args: Any) -> T:
    """Call a function that sets up or tears down.

    Raises:
        BaseException: the error of the function. Errors that pytest does not expect of a fixture,
            such as asyncio's ``CancelledError``, would prevent it from tearing down the others.
            Such an error becomes the cause of a ``RuntimeError``.
    """
    __tracebackhide__ = True
    try:
        return function(*args)
    except (Exception, *OUTCOMES):
        raise
    except BaseException as exc:
        raise RuntimeError(f"the {what} has raised {exc!r}") from exc


async def _add_instrument(instrument: Instrument) -> None:
    add_instrument(instrument)


async def _remove_instrument(instrument: Instrument) -> None:
    remove_instrument(instrument)


async def begin_fixture(what: str, generator: AsyncGenerator[Any, None]) -> Any:
    """Run an async generator fixture up to its ``yield``, and return what it yields."""
    __tracebackhide__ = True
    try:
        return await generator.__anext__()
    except StopAsyncIteration:
        raise RuntimeError(f"the {what} did not yield a value") from None


async def end_fixture(what: str, generator: AsyncGenerator[Any, None]) -> None:
    """Run an async generator fixture from its ``yield`` to its end."""
    __tracebackhide__ = True
    try:
        await generator.__anext__()
    except StopAsyncIteration:
        return
    except (Cancelled, BaseExceptionGroup) as exc:
        if all(isinstance(leaf, Cancelled) and is_ours(leaf) for leaf in leaves(exc)):
            return
        raise
    await generator.aclose()
    raise RuntimeError(f"the {what} yielded a second time; it must yield once")
