"""The pytest plugin: async tests, with async fixtures that may yield inside a nursery or scope.

This module has pytest's hooks, and the fixtures for users. The steps of a test are run in
``pytest_task``.

Rule 1: set-up of the async fixtures, the test, and their tear-down are steps of one task, in a
separate run for each test. So a scope that a fixture opens around its ``yield`` is closed in the
task that opened it, and surrounds the test.

Async fixtures with wider scopes are in a run that they share with their tests. Each of them has a
separate task (``pytest_shared``).

Rule 2: the plugin changes only nurseryio's tests. These are the async tests with the marker
``nurseryio``. In auto mode, all async tests get it that do not carry another plugin's marker.

Rule 3: if another plugin has a fixture of the same name, this plugin's fixture is used only in
nurseryio's tests.

Rule 4: other plugins that look for async functions do not find any in nurseryio's tests. The test
functions and fixtures are plain functions before other plugins look.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from .._nursery import Nursery, open_nursery
from .clock import MockClock
from .pytest_shared import SharedRun, keeping_context
from .pytest_task import (
    ORDER,
    Options,
    TestTask,
    begin_fixture,
    do,
    end_fixture,
    for_pytest,
    options_of,
    seconds,
)
from .step_runner import is_step_under_way
from .time_limit import drawn_at_limit, take_drawing

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

MARK = "nurseryio"
MODES = ("strict", "auto")
OTHER_MARKS = ("anyio", "asyncio", "tornado", "trio", "twisted")

# The fixture that all of nurseryio's tests get, and by which the plugin recognises them.
TASK = "_nurseryio_task"
# Fixtures that pytest-trio has as well. If two plugins have the same fixture, pytest uses that of
# the plugin that was loaded later, for all tests.
SHARED = ("nursery", "mock_clock", "autojump_clock")
# The fixture that makes the event loop.
FACTORY = "nurseryio_loop_factory"
SHARED_RUN = pytest.StashKey[SharedRun]()
# The tasks that a test has left running, as lines.
LEFT_OVER = pytest.StashKey[list[str]]()
# The titles of sections in the report of a test.
TASKS_AT_LIMIT = "nurseryio: the tasks when the time was over"
TASKS_LEFT_OVER = "nurseryio: tasks that the test has left running"
ORDER_OF_TASKS = "nurseryio: the order of the tasks"
# The most tests whose tasks are listed at the end of a session.
MOST_LISTED = 20
# The attribute of the plain function in place of a test that has the async function.
WRITTEN = "nurseryio_written"


# -- configuration --------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    about = (
        "strict (the default): only tests with the marker 'nurseryio' are run by nurseryio; "
        "auto: every async test that carries no other plugin's marker"
    )
    parser.addini("nurseryio_mode", about, default="strict")
    parser.addini(
        "nurseryio_timeout",
        "the most seconds that a test may take, unless its marker has the option timeout",
        default="",
    )
    group = parser.getgroup("nurseryio")
    group.addoption("--nurseryio-mode", choices=MODES, default=None, help=about)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SHARED_RUN] = SharedRun()
    config.addinivalue_line(
        "markers",
        f"{MARK}(timeout, virtual_time, shuffle): run this async test under nurseryio.run(), in "
        "one task with its async fixtures; at most so many seconds, with a clock that jumps, in so "
        "many orders of its tasks",
    )
    if _mode(config, MARK) not in MODES:
        raise pytest.UsageError(
            f"nurseryio_mode must be one of {', '.join(MODES)}, not {_mode(config, MARK)!r}"
        )
    try:
        seconds(config.getini("nurseryio_timeout"))
    except ValueError:
        raise pytest.UsageError(
            "nurseryio_timeout must be a number of seconds above 0, not "
            f"{config.getini('nurseryio_timeout')!r}"
        ) from None
    for other in ("asyncio", "anyio"):
        if _mode(config, MARK) == _mode(config, other) == "auto":
            raise pytest.UsageError(
                f"nurseryio_mode and {other}_mode are both 'auto': each would take every async "
                "test. Set one of them to 'strict' and mark its tests"
            )


def _mode(config: pytest.Config, plugin: str) -> object:
    """Return the mode of a plugin, None if it is not installed."""
    try:
        return config.getoption(f"{plugin}_mode") or config.getini(f"{plugin}_mode")
    except (KeyError, ValueError):
        return None


# -- which tests are nurseryio's -------------------------------------------------


def _written(function: Any) -> Any:
    """Return the function that the author wrote, without hypothesis's ``@given``."""
    return getattr(getattr(function, "hypothesis", None), "inner_test", function)


def _is_async(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _is_ours(collector: pytest.Collector, function: Any) -> bool:
    written = _written(function)
    if not _is_async(written):
        return False
    marks = {mark.name for mark in getattr(function, "pytestmark", ())}
    marks |= {mark.name for mark in collector.iter_markers()}
    if MARK in marks:
        return True
    return (
        _mode(collector.config, MARK) == "auto"
        and marks.isdisjoint(OTHER_MARKS)
        and "anyio_backend" not in inspect.signature(written).parameters
    )


# Not first, so that it can undo the marks that anyio's plugin sets in its auto mode. (pytest finds
# hooks by the beginning of their names.)
@pytest.hookimpl(specname="pytest_pycollect_makeitem")
def pytest_pycollect_makeitem_mark_ours(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> None:
    function: Any = getattr(obj, "__func__", obj)
    if not collector.istestfunction(obj, name) or not _is_ours(collector, function):
        return
    own = getattr(function, "pytestmark", [])
    if not any(mark.name == "usefixtures" and TASK in mark.args for mark in own):
        function.pytestmark = [
            mark
            for mark in own
            if not (mark.name == "usefixtures" and mark.args == ("anyio_backend",))
        ]
        pytest.mark.usefixtures(TASK)(function)
        pytest.mark.nurseryio(function)


# Innermost, so that the items are plain functions before another plugin's wrapper sees them.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    made = yield
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Function) and TASK in item.fixturenames:
            # First, so that fixtures of a loop that is no longer used are torn down in time.
            item.fixturenames.sort(key=lambda name: name != FACTORY)
            function: Any = item.obj
            if hasattr(function, "hypothesis"):
                if _is_async(function.hypothesis.inner_test):
                    function.hypothesis.inner_test = _plain(function.hypothesis.inner_test)
            elif _is_async(function):
                item.obj = _plain(function)
    return made


def _plain(function: Any) -> Callable[..., None]:
    """Return a plain function that replaces an async test until pytest calls the test."""

    @functools.wraps(function)
    def plain(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError(f"{function!r} was called outside pytest's call of its test")

    setattr(plain, WRITTEN, function)
    return plain


def _options(item: pytest.Item) -> Options:
    default = seconds(item.config.getini("nurseryio_timeout"))
    return options_of(item.iter_markers(MARK), default)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test with the option "shuffle" several tests, one for each order of its tasks."""
    if TASK not in metafunc.fixturenames:
        return
    try:
        runs = _options(metafunc.definition).shuffle
    except ValueError as error:
        text = f"{metafunc.definition.nodeid}: {error}"
        raise pytest.fail.Exception(text, pytrace=False) from None
    if runs:
        metafunc.fixturenames.append(ORDER)
        ids = [f"order{number}" for number in range(runs)]
        metafunc.parametrize(ORDER, range(runs), ids=ids, indirect=True)


# -- running a test -------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """While pytest calls a test of nurseryio, replace its function by one that runs its task."""
    __tracebackhide__ = True
    task: Any = pyfuncitem.funcargs.get(TASK)
    if task is None:
        return (yield)
    owner: Any = pyfuncitem
    name = "obj"
    if hasattr(pyfuncitem.obj, "hypothesis"):
        owner, name = pyfuncitem.obj.hypothesis, "inner_test"
    plain = getattr(owner, name)
    written = getattr(plain, WRITTEN, None)
    if written is None:
        return (yield)

    @functools.wraps(written)
    def run_test(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        task.call(functools.partial(written, *args, **kwargs))

    setattr(owner, name, run_test)
    try:
        return (yield)
    finally:
        setattr(owner, name, plain)


# No types of pytest-timeout in the annotations, because it may not be installed.
@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """Stop a test of nurseryio where pytest-timeout's method "thread" would end the process.

    (The method "signal" is handled in ``time_limit``.)
    """
    if settings.method != "thread" or TASK not in getattr(item, "fixturenames", ()):
        return None
    from .thread_limit import set_timer

    set_timer(item, settings)
    return True


_NO_EFFECT = (
    "the options of the marker 'nurseryio' have no effect here: they are for async test functions, "
    "and not for plain ones and methods of unittest.TestCase"
)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Have the tasks of another plugin's test drawn when its time is over.

    A test whose own marker has options that do nothing gives a warning. It is given here, so that a
    filter that makes it an error fails this test alone.
    """
    __tracebackhide__ = True
    if TASK in getattr(item, "fixturenames", ()):
        return (yield)
    if any(mark.name == MARK and mark.kwargs for mark in item.own_markers):
        item.warn(pytest.PytestWarning(_NO_EFFECT))
    with drawn_at_limit():
        return (yield)


# -- reports --------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the tasks at the end of a time limit, and those that the test has left running."""
    report = yield
    drawing = take_drawing()
    if drawing is not None:
        report.sections.append((TASKS_AT_LIMIT, drawing))
    task: Any = getattr(item, "funcargs", {}).get(TASK)
    order = task.how_to_repeat() if call.when == "call" and report.failed and task else None
    if order is not None:
        report.sections.append((ORDER_OF_TASKS, order))
    if call.when == "teardown":
        lines = item.stash.get(LEFT_OVER, [])
        if lines:
            report.sections.append((TASKS_LEFT_OVER, "\n".join(lines)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tasks that tests have left running: pytest shows no sections of passed tests."""
    found = [
        (report.nodeid, text)
        for reports in terminalreporter.stats.values()
        for report in reports
        if isinstance(report, pytest.TestReport) and report.passed
        for title, text in report.sections
        if title == TASKS_LEFT_OVER
    ]
    if found:
        terminalreporter.section("tasks that tests have left running (nurseryio)")
        for nodeid, text in found[:MOST_LISTED]:
            terminalreporter.write_line(nodeid)
            for line in text.splitlines():
                terminalreporter.write_line(f"   {line}")
        if len(found) > MOST_LISTED:
            terminalreporter.write_line(f"... and {len(found) - MOST_LISTED} more tests")
        if not any("made at" in text for _, text in found):
            terminalreporter.write_line("(PYTHONASYNCIODEBUG=1 shows where they were made)")


# -- running async fixtures -----------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[SHARED_RUN].item = item


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """While pytest sets up a fixture that needs it, replace its function (:func:`_stand_in`)."""
    function: Any = fixturedef.func
    shared = request.config.stash[SHARED_RUN]
    is_wide = fixturedef.scope != "function"
    value: object = None
    plain = _stand_in(fixturedef, request, shared)
    replaced: Any = fixturedef
    # A fixture that is requested during a step fails. The next test may request it properly.
    is_late = plain is not None and _is_async(function) and is_step_under_way()
    if is_late:
        plain = _failing(_TOO_LATE.format(name=fixturedef.argname))
    if plain is not None:
        replaced.func = plain
    if is_wide:
        shared.begin_set_up(fixturedef)
    before = set(request.fixturenames)
    try:
        value = yield
        return value
    finally:
        if is_wide:
            shared.end_set_up(fixturedef, value, set(request.fixturenames) - before)
        if plain is not None:
            replaced.func = function
        if is_late:
            replaced.finish(request)


@pytest.hookimpl
def pytest_fixture_post_finalizer(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> None:
    if fixturedef.scope != "function":
        request.config.stash[SHARED_RUN].forget(fixturedef.argname)


_TOO_LATE = (
    "the async fixture {name!r} was asked for by request.getfixturevalue() while an async test or "
    "fixture was running: its set-up needs the event loop, which runs that one. Name {name!r} "
    "among the arguments of the test or fixture, or call request.getfixturevalue({name!r}) in a "
    "plain fixture"
)


def _stand_in(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest, shared: SharedRun
) -> Callable[..., object] | None:
    """Return the plain function that replaces a fixture's own in one set-up.

    Returns:
        None if the fixture's own function is right, for example that of another plugin.
    """
    function: Any = fixturedef.func
    if fixturedef.argname in SHARED and _is_for_others(function, request):
        return _next_of_its_name(fixturedef, request)
    if not _is_async(function):
        return None
    if fixturedef.scope == "function":
        if TASK in request.fixturenames:
            return _plain_fixture(function, fixturedef.argname, request)
        return None
    if _is_wide_one_of_ours(fixturedef, request, shared):
        return _wide_fixture(fixturedef, request, shared)
    return None


def _is_wide_one_of_ours(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest, shared: SharedRun
) -> bool:
    """Return whether nurseryio runs an async fixture with a wider scope.

    The fixture may be another plugin's, on a loop of that plugin, even if a test of nurseryio asks
    for it.
    """
    if (
        "anyio_backend" in fixturedef.argnames
        or getattr(fixturedef.func, "_force_asyncio_fixture", False)
        or _mode(request.config, "asyncio") == "auto"
    ):
        return False
    if TASK in request.fixturenames:
        return True
    # A plain test may be the first to ask for a fixture that async tests ask for later.
    item = shared.item
    return (
        _mode(request.config, MARK) == "auto"
        and isinstance(item, pytest.Function)
        and not _is_async(_written(item.function))
        and "anyio_backend" not in request.fixturenames
        and {mark.name for mark in item.iter_markers()}.isdisjoint(OTHER_MARKS)
    )


def _wide_fixture(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest, shared: SharedRun
) -> Callable[..., object]:
    function: Any = fixturedef.func
    what = f"fixture {fixturedef.argname!r}"

    def set_up(**kwargs: Any) -> object:
        __tracebackhide__ = True
        factory = _wide_loop_factory(fixturedef, request, shared)
        fixture = for_pytest(what, shared.begin, fixturedef, request.fixturenames, factory)
        # Separate finalizers, because pytest reports the errors of each.
        request.addfinalizer(functools.partial(for_pytest, what, shared.end, fixture))
        begin: Any = functools.partial(function, **kwargs)
        if inspect.isasyncgenfunction(function):
            generator = begin()
            begin = functools.partial(begin_fixture, what, generator)
        begin = keeping_context(fixture, begin)
        value = for_pytest(what, do, fixture.steps, what, begin)
        if inspect.isasyncgenfunction(function):
            end = functools.partial(do, fixture.steps, what, end_fixture, what, generator)
            request.addfinalizer(functools.partial(for_pytest, what, end))
        return value

    return set_up


def _wide_loop_factory(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest, shared: SharedRun
) -> Callable[[], asyncio.AbstractEventLoop] | None:
    __tracebackhide__ = True
    try:
        factory: Any = request.getfixturevalue(FACTORY)
    except pytest.fail.Exception as error:
        if "ScopeMismatch" not in str(error):
            raise
        pytest.fail(
            f"the async fixture {fixturedef.argname!r} has the scope {fixturedef.scope!r}, so it "
            f"lives on one event loop. {FACTORY} may make another one for each test: give "
            'that fixture the scope "session"',
            pytrace=False,
        )
    # If a parameter changes the factory, this fixture has to end first.
    end: Any = fixturedef.finish
    shared.definitions[FACTORY].addfinalizer(functools.partial(end, request=request))
    return factory  # type: ignore[no-any-return]


def _is_for_others(function: Any, request: pytest.FixtureRequest) -> bool:
    """Return whether the fixture is nurseryio's and the test is not, or the reverse.

    In the reverse case the fixture is pytest-trio's.
    """
    if TASK in request.fixturenames:
        return bool(function.__module__ == "pytest_trio.plugin")
    return bool(function.__module__ == __name__)


def _next_of_its_name(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Callable[..., object]:
    """Return a fixture function that gives the value of the fixture that this one overrides."""
    name, function = fixturedef.argname, fixturedef.func

    def set_up(**kwargs: Any) -> object:
        __tracebackhide__ = True
        try:
            return request.getfixturevalue(name)
        except pytest.FixtureLookupError as error:
            if error.argname != name:
                raise
        if not _is_async(function):
            return function(**kwargs)
        pytest.fail(
            f"the fixture {name!r} of nurseryio is for tests that nurseryio runs: "
            "async ones with the marker 'nurseryio', or with nurseryio_mode = auto",
            pytrace=False,
        )

    return set_up


def _failing(message: str) -> Callable[..., object]:
    """Return a fixture function that fails. (An error of the hook itself would confuse pytest.)"""

    def fail(**_kwargs: object) -> object:
        pytest.fail(message, pytrace=False)

    return fail


def _plain_fixture(
    function: Any, name: str, request: pytest.FixtureRequest
) -> Callable[..., object]:
    instance = request.instance
    if inspect.ismethod(function) and isinstance(instance, type(function.__self__)):
        function = function.__func__.__get__(instance)

    def set_up(**kwargs: Any) -> object:
        __tracebackhide__ = True
        task = request.getfixturevalue(TASK)
        what = f"fixture {name!r}"
        if inspect.iscoroutinefunction(function):
            return for_pytest(what, task.do, what, functools.partial(function, **kwargs))
        generator = function(**kwargs)
        value = task.begin(what, generator)
        request.addfinalizer(functools.partial(task.end, what, generator))
        return value

    return set_up


# -- fixtures -------------------------------------------------------------------


@pytest.fixture
def _nurseryio_task(
    request: pytest.FixtureRequest, nurseryio_loop_factory: Any
) -> Iterator[TestTask]:
    """The one task in which a test and its async fixtures run."""
    shared = request.config.stash[SHARED_RUN]
    options = _options(request.node)
    task = TestTask(request.node, request, nurseryio_loop_factory, shared, options)
    yield task
    try:
        request.node.stash[LEFT_OVER] = task.left_over()
    finally:
        task.close()


@pytest.fixture
def _nurseryio_order(request: pytest.FixtureRequest) -> int:
    """The number of the run of a test with the option "shuffle"."""
    number: int = request.param
    return number


@pytest.fixture(scope="session")
def nurseryio_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The function that makes the event loop of a test; override it to use another loop than
    asyncio's.

    ::

        @pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
        def nurseryio_loop_factory(request):
            return request.param
    """
    return None


@pytest.fixture
async def nursery() -> AsyncIterator[Nursery]:
    """A nursery around the test. Its tasks are cancelled when the test is over."""
    async with open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.fixture
def mock_clock() -> MockClock:
    """A virtual clock that stands still until the test moves it; the test's run uses it."""
    return MockClock()


@pytest.fixture
def autojump_clock() -> MockClock:
    """A virtual clock that jumps to the next timer when every task waits; the run uses it."""
    return MockClock(autojump_threshold=0)
