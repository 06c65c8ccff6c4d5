"""One test under pytest: its run, which is made when it is needed, and the steps in it.

This module has :class:`TestTask`, and translates errors of a step for pytest. pytest's hooks are in
``pytest_plugin``, the task itself is in ``step_runner``.

Rule 1: a test that was cut short has not passed. A cancellation that leaves it, from a scope that
a fixture holds open, is a failure; so it is in the set-up of a fixture. In a tear-down it is not,
because the fixture with the cancelled scope is torn down later, and raises the reason then.

Rule 2: the options of the marker (:class:`Options`) are for the test function alone. Its fixtures
are set up and torn down without a time limit, and in asyncio's order of tasks. The virtual clock is
the clock of the run, so fixtures use it too.

Rule 3: pytest's own exceptions (skip, fail, xfail, exit) and those that end the process are raised
bare if they are alone in a group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import sys
from math import inf, isnan
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakSet

import pytest

from .._asyncio import display
from .._base import Cancelled, CancelReason, Clock, Instrument
from .._base.exception_groups import leaves
from .._base.util import coroutine_or_error, is_library_file
from .._checks.schedules import VARIABLE
from .._checks.task_order import AS_ASYNCIO, TaskOrder
from .._core.task import records
from .._loop.step_hooks import add_instrument, remove_instrument
from .._nursery import CancelScope
from .._observe.places import Place
from .._observe.task_tree import tree_of
from .clock import MockClock
from .step_runner import StepRunner
from .time_limit import draw_at_limit, ends_in_users_code

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

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


# The parameter of a test with the option "shuffle": the number of the run.
ORDER = "_nurseryio_order"
# A longer record is not shown. The number of the run repeats the order as well.
LONGEST_RECORD = 400


class Options(NamedTuple):
    """The options of the marker, as in ``@pytest.mark.nurseryio(timeout=5)``.

    Attributes:
        timeout: the most seconds that the test may take, on the clock of its loop; ``inf`` for no
            limit.
        virtual_time: whether the run has a clock that jumps to the next timer.
        shuffle: in how many orders of its tasks the test is run; 0 for asyncio's order alone.
    """

    timeout: float = inf
    virtual_time: bool = False
    shuffle: int = 0


def options_of(marks: Iterable[pytest.Mark], default_timeout: float) -> Options:
    """Join the options of markers; the first marker that has an option decides.

    Raises:
        ValueError: an option does not exist, or has a wrong value.
    """
    found: dict[str, Any] = {}
    for mark in marks:
        if mark.args:
            raise ValueError("the marker 'nurseryio' takes keyword arguments only")
        for name, value in mark.kwargs.items():
            if name not in Options._fields:
                raise ValueError(
                    f"the marker 'nurseryio' has no option {name!r}, only "
                    + ", ".join(Options._fields)
                )
            found.setdefault(name, value)
    options = Options(**{"timeout": default_timeout, **found})
    timeout: Any = options.timeout
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise ValueError(f"timeout must be a number of seconds above 0, not {timeout!r}")
    if not isinstance(options.virtual_time, bool):
        raise ValueError(f"virtual_time must be True or False, not {options.virtual_time!r}")
    shuffle: Any = options.shuffle
    if isinstance(shuffle, bool) or not isinstance(shuffle, int) or shuffle < 0:
        raise ValueError(f"shuffle must be a number of runs, not {shuffle!r}")
    return options


def seconds(text: str) -> float:
    """The number of seconds in the settings; ``inf`` if there is none.

    Raises:
        ValueError: the text is not a number above 0.
    """
    value = float(text) if text else inf
    if isnan(value) or value <= 0:
        raise ValueError(text)
    return value


class TestTask:
    """The task of one test, made when the first async fixture or the test itself needs it.

    Args:
        item: the test.
        request: the request of a fixture of the test.
        loop_factory: makes the event loop; None for asyncio's own.
        shared: the run of the async fixtures with wider scopes.
        options: the options of the test's markers.

    Attributes:
        order: the order in which the tasks of the test have run, if it was shuffled.
    """

    __test__ = False

    def __init__(
        self,
        item: pytest.Function,
        request: pytest.FixtureRequest,
        loop_factory: Any,
        shared: SharedRun,
        options: Options,
    ) -> None:
        self._shared = shared
        self._options = options
        # The clock of the option virtual_time, once it is needed.
        self._virtual_clock: MockClock | None = None
        self.order: TaskOrder | None = None
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
        self.order = self._new_order()
        if self.order is None and self._options.timeout == inf:
            self.do("test", async_fn)
        else:
            self.do("test", self._under_options, async_fn)
        for fixture in self._shared.used(self._request.fixturenames):
            if fixture.lost is not None:
                pytest.fail(
                    f"the fixture {fixture.name!r} was {fixture.lost._sentence()}, which the test "
                    "has not noticed because it did not await: a scope or nursery around the "
                    "fixture's 'yield' was cancelled. An error behind that shows up at its "
                    "tear-down",
                    pytrace=False,
                )

    async def _under_options(self, async_fn: Callable[[], Awaitable[Any]]) -> None:
        __tracebackhide__ = True
        with self.order or contextlib.nullcontext():
            if self._options.timeout == inf:
                await coroutine_or_error(async_fn)
            else:
                await in_time(async_fn, self._options.timeout, self._clock is not None)

    def _new_order(self) -> TaskOrder | None:
        callspec = getattr(self._item, "callspec", None)
        number = None if callspec is None else callspec.params.get(ORDER)
        if number is None:
            return None
        record = os.environ.get(VARIABLE, "")
        if record and "/" not in record:
            return TaskOrder(record)
        # The first run is in asyncio's own order.
        return TaskOrder(number or AS_ASYNCIO)

    def how_to_repeat(self) -> str | None:
        """The order of the test's tasks, and the command that repeats it; None without one."""
        if self.order is None:
            return None
        record, command = self.order.record, f"python -m pytest {shlex.quote(self._item.nodeid)}"
        if record == AS_ASYNCIO:
            return f"as in asyncio\nto repeat it: {command}"
        differing = record.count(":")
        text = f"{differing} of {self.order.choices} choices between ready tasks were not asyncio's"
        if len(record) <= LONGEST_RECORD:
            command = f"{VARIABLE}={record} {command}"
        return f"{text}\nto repeat it: {command}"

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
            which, advice = f"{clock!r}", "Give the clock's fixture the same scope"
            if clock is self._virtual_clock:
                which, advice = "of virtual_time", "Use a clock from a fixture of the same scope"
            pytest.fail(
                f"the clock {which} came too late: the test runs on the event loop of the "
                f"fixture {used[-1]!r}, which goes by {self._clock or 'real time'}. {advice}, "
                "and name it among the arguments of that fixture",
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
        found = next(iter(clocks.values()), None)
        if found is None and self._options.virtual_time:
            wide = self._shared.clock
            if isinstance(wide, MockClock) and wide.autojump_threshold != inf:
                return wide
            if self._virtual_clock is None:
                self._virtual_clock = MockClock(autojump_threshold=0)
            return self._virtual_clock
        return found

    def _find_instruments(self) -> list[Instrument]:
        return [value for value in self._item.funcargs.values() if isinstance(value, Instrument)]


async def in_time(async_fn: Callable[[], Awaitable[Any]], seconds: float, is_virtual: bool) -> None:
    """Run a test, and cancel it after some seconds of its loop's time.

    A test that has blocked the loop until the time was over fails when it ends.

    Raises:
        pytest.fail.Exception: the test has taken longer. The traceback ends where it waited.
        BaseException: any error of the test.
    """
    __tracebackhide__ = True
    loop = asyncio.get_running_loop()
    scope = CancelScope()
    is_over = False

    def expire() -> None:
        nonlocal is_over
        is_over = True
        draw_at_limit(loop)
        scope.cancel(reason="the time of the test is over")

    limit = loop.time() + seconds
    timer = loop.call_at(limit, expire)
    place = None
    try:
        with scope:
            try:
                await coroutine_or_error(async_fn)
            except (Cancelled, BaseExceptionGroup) as error:
                place = error.__traceback__
                raise
    finally:
        timer.cancel()
    if is_over or loop.time() > limit:
        virtual = " of virtual time" if is_virtual else ""
        # Without a place, as in a shield, pytest shows the message alone. It would say that all is
        # hidden if this frame were.
        __tracebackhide__ = pytrace = place is not None
        text = f"the test has taken more than {seconds:g} s{virtual}"
        failed = pytest.fail.Exception(text, pytrace)
        failed.__traceback__ = place
        ends_in_users_code(failed)
        try:
            raise failed
        finally:
            del failed, place


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
