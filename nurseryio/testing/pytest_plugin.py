"""The pytest plugin: async tests, with async fixtures that may yield inside a nursery or scope.

What lives here: pytest's hooks, and the fixtures that users ask for. What does not: how the steps
of a test are run (:mod:`pytest_task`).

Rule 1: set-up of the async fixtures, the test, and their tear-down are steps of one task, in one
run of its own for each test. So whatever a fixture opens around its ``yield`` is closed in the
task that opened it, and surrounds the test.

The async fixtures of wider scopes live in a run that they share with their tests, each in a task
of its own (:mod:`pytest_shared`).

Rule 2: nothing is done to a test that is not ours. Ours are async tests with the marker
``nurseryio``; in auto mode, all async tests that carry no other plugin's marker get it.

Rule 3: a fixture whose name is another plugin's as well is ours in our tests only.

Rule 4: other plugins that look for async functions find none in our tests: test functions and
fixtures of ours are plain functions before they look.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

from .._nursery import Nursery, open_nursery
from .clock import MockClock
from .one_task import is_step_under_way
from .pytest_shared import SharedRun, keeping_context
from .pytest_task import TestTask, begin_fixture, do, end_fixture, for_pytest

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

MARK = "nurseryio"
MODES = ("strict", "auto")
OTHER_MARKS = ("anyio", "asyncio", "tornado", "trio", "twisted")

# The fixture that all our tests get, and by which they are known.
TASK = "_nurseryio_task"
# Fixtures that pytest-trio has as well. Of two plugins' fixtures pytest takes those of the plugin
# that came later, for all tests.
SHARED = ("nursery", "mock_clock", "autojump_clock")
# The fixture that makes the event loop.
FACTORY = "nurseryio_loop_factory"
SHARED_RUN = pytest.StashKey[SharedRun]()
# Where the plain function that stands for a test keeps the async one.
WRITTEN = "nurseryio_written"


# -- configuration --------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    about = (
        "strict (the default): only tests with the marker 'nurseryio' are run by nurseryio; "
        "auto: every async test that carries no other plugin's marker"
    )
    parser.addini("nurseryio_mode", about, default="strict")
    group = parser.getgroup("nurseryio")
    group.addoption("--nurseryio-mode", choices=MODES, default=None, help=about)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SHARED_RUN] = SharedRun()
    config.addinivalue_line(
        "markers",
        f"{MARK}: run this async test under nurseryio.run(), in one task with its async fixtures",
    )
    if _mode(config, MARK) not in MODES:
        raise pytest.UsageError(
            f"nurseryio_mode must be one of {', '.join(MODES)}, not {_mode(config, MARK)!r}"
        )
    for other in ("asyncio", "anyio"):
        if _mode(config, MARK) == _mode(config, other) == "auto":
            raise pytest.UsageError(
                f"nurseryio_mode and {other}_mode are both 'auto': each would take every async "
                "test. Set one of them to 'strict' and mark its tests"
            )


def _mode(config: pytest.Config, plugin: str) -> object:
    """The mode of a plugin, None where it is not there."""
    try:
        return config.getoption(f"{plugin}_mode") or config.getini(f"{plugin}_mode")
    except (KeyError, ValueError):
        return None


# -- which tests are ours -------------------------------------------------------


def _written(function: Any) -> Any:
    """The function that the author wrote, below hypothesis's ``@given``."""
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


# Not first, so that what anyio's plugin has marked in its auto mode can be undone. (pytest finds
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


# Innermost, so that the items are plain before another plugin's wrapper looks at them.
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    made = yield
    for item in made if isinstance(made, list) else [made]:
        if isinstance(item, pytest.Function) and TASK in item.fixturenames:
            # First, so that fixtures of a loop that is no longer wanted are torn down in time.
            item.fixturenames.sort(key=lambda name: name != FACTORY)
            function: Any = item.obj
            if hasattr(function, "hypothesis"):
                if _is_async(function.hypothesis.inner_test):
                    function.hypothesis.inner_test = _plain(function.hypothesis.inner_test)
            elif _is_async(function):
                item.obj = _plain(function)
    return made


def _plain(function: Any) -> Callable[..., None]:
    """A plain function that stands for an async test until it is called."""

    @functools.wraps(function)
    def plain(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError(f"{function!r} was called outside pytest's call of its test")

    setattr(plain, WRITTEN, function)
    return plain


# -- running a test -------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """While pytest calls a test of ours, its function is one that runs the test's task."""
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


# Not in the annotations: pytest-timeout may not be there.
@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """The method "thread" of pytest-timeout ends the process. A test of ours is stopped first.

    (Of the method "signal" :mod:`time_limit` takes care.)
    """
    if settings.method != "thread" or TASK not in getattr(item, "fixturenames", ()):
        return None
    from .thread_limit import set_timer

    set_timer(item, settings)
    return True


# -- running async fixtures -----------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.config.stash[SHARED_RUN].item = item


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """While a fixture is set up that concerns us, its function is one that does as it should."""
    function: Any = fixturedef.func
    shared = request.config.stash[SHARED_RUN]
    is_wide = fixturedef.scope != "function"
    value: object = None
    plain = _stand_in(fixturedef, request, shared)
    replaced: Any = fixturedef
    # What is asked for in the middle of a step fails. The next test may ask for it properly.
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
    """The plain function that stands for a fixture's own in one set-up, None if it is not ours."""
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
    """Whether an async fixture with a wider scope belongs to us.

    It may be another plugin's, on a loop of that one, even if a test of ours asks for it.
    """
    if (
        "anyio_backend" in fixturedef.argnames
        or getattr(fixturedef.func, "_force_asyncio_fixture", False)
        or _mode(request.config, "asyncio") == "auto"
    ):
        return False
    if TASK in request.fixturenames:
        return True
    # A plain test may be the first that asks for what async ones ask for later.
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
        # Finalizers of their own: pytest reports the errors of all.
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
    # When a parameter changes it, this fixture has to end first.
    end: Any = fixturedef.finish
    shared.definitions[FACTORY].addfinalizer(functools.partial(end, request=request))
    return factory  # type: ignore[no-any-return]


def _is_for_others(function: Any, request: pytest.FixtureRequest) -> bool:
    """Whether this is our fixture in another plugin's test, or pytest-trio's in one of ours."""
    if TASK in request.fixturenames:
        return bool(function.__module__ == "pytest_trio.plugin")
    return bool(function.__module__ == __name__)


def _next_of_its_name(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Callable[..., object]:
    """A fixture function that gives what the fixture gives which this one has overridden."""
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
    """A fixture function that fails. (An error raised by the hook itself would confuse pytest.)"""

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
    task = TestTask(request.node, request, nurseryio_loop_factory, shared)
    yield task
    task.close()


@pytest.fixture(scope="session")
def nurseryio_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop of a test; override it to have another one than asyncio's.

    ::

        @pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
        def nurseryio_loop_factory(request):
            return request.param
    """
    return None


@pytest.fixture
async def nursery() -> AsyncIterator[Nursery]:
    """A nursery around the test. What runs in it is cancelled when the test is over."""
    async with open_nursery() as nursery:
        yield nursery
        nursery.cancel_scope.cancel(reason="the test is over")


@pytest.fixture
def mock_clock() -> MockClock:
    """A virtual clock that stands still until the test moves it; the test's run goes by it."""
    return MockClock()


@pytest.fixture
def autojump_clock() -> MockClock:
    """A virtual clock that jumps to the next timer when every task waits; the run goes by it."""
    return MockClock(autojump_threshold=0)
