"""Runs every async test on the loop matrix, and fails every test that does not end clean.

An ``async def test_...`` runs once for each kind of event loop and each host (see
``harness/matrix.py``); ``--matrix=quick`` takes a small share of that, ``--matrix=ci`` does so for
costly tests. Narrow it with a marker:

* ``@pytest.mark.run_only``: needs ``nurseryio.run``.
* ``@pytest.mark.app_only``: needs a plain asyncio app.
* ``@pytest.mark.stock_only("why")``: needs asyncio's own loop in its ordinary state.
* ``@pytest.mark.watching_only("why")``: needs a loop that can watch file descriptors.
* ``@pytest.mark.blind_only``: needs a loop that cannot.
* ``@pytest.mark.costly("why")``: takes long, and hardly depends on the loop.
* ``@pytest.mark.limit(seconds)``: may take longer than a minute.

A test that asks for ``mock_clock`` or ``autojump_clock`` runs under ``nurseryio.run`` with that
clock, on the stock loop. Async tests that carry another plugin's marker are left to that plugin.

After each test, nothing may be left (see ``harness/clean.py``): no task, timer, thread, file
descriptor or cancel request, and no error reported to the loop's exception handler. A test that
expects such reports asks for ``loop_errors`` and looks at them itself.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import resource
import signal
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from harness import clean, limit, matrix

from nurseryio._base.abcs import Clock
from nurseryio._nursery import PURE_BECAUSE

# The same examples in every run, and no time limit of hypothesis's own.
hypothesis.settings.register_profile(
    "nurseryio",
    deadline=None,
    derandomize=True,
    database=None,
)
hypothesis.settings.load_profile("nurseryio")

OTHER_PLUGINS = ("asyncio", "anyio", "nurseryio")
FAILED = pytest.StashKey[bool]()
# Descriptors that a test may need.
MANY_FILES = 4096


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--matrix",
        choices=matrix.MATRICES,
        default="full",
        help="how much of the loop matrix each async test runs on; ci: all, but for tests that "
        "are marked as costly (default: full)",
    )
    parser.addoption(
        "--part",
        type=_part,
        metavar="K/N",
        help="the K-th of N parts of the tests, to run them side by side; a file is in one part",
    )
    parser.addoption(
        "--brief",
        action="store_true",
        help="leave out the files that take long and hardly depend on the version of Python",
    )
    parser.addoption(
        "--slack",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="multiply each test's time limit, for slow machines and slow ways to run (default: 1)",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if config.getoption("--brief") and matrix.is_long(collection_path) else None


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 1/3")
    return int(number), int(count)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    part = config.getoption("--part")
    if part is None:
        return
    number, count = part
    # The files with the most tests first, each into the part that has the fewest so far.
    sizes = Counter(item.path for item in items)
    filled = [0] * count
    chosen = set()
    for path, size in sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0])):
        smallest = filled.index(min(filled))
        filled[smallest] += size
        if smallest == number - 1:
            chosen.add(path)
    config.hook.pytest_deselected(items=[item for item in items if item.path not in chosen])
    items[:] = [item for item in items if item.path in chosen]


def pytest_report_header(config: pytest.Config) -> str:
    quick = config.getoption("--matrix") == "quick"
    build = "compiled" if PURE_BECAUSE is None else f"pure Python, because {PURE_BECAUSE}"
    return "loop matrix: " + ", ".join(map(str, matrix.choose((), quick))) + f"\nbuild: {build}"


def pytest_configure() -> None:
    # Without the C module users get the Python code and are not told. A run that is to test the
    # compiled build must not test the other one.
    if os.environ.get("NURSERYIO_EXPECT_COMPILED") and PURE_BECAUSE is not None:
        raise pytest.UsageError(f"the compiled build was expected, but {PURE_BECAUSE}")


def pytest_sessionstart() -> None:
    # A shell makes what it starts in the background ignore Ctrl-C, and so would the programs that
    # the tests start and interrupt. A plugin such as ddtrace's, which is loaded before, puts its
    # own handler in the place of one that ignores.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A login gets 1024 on many systems, which is too few for a thousand connections.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, MANY_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    # The first loop of a kind may open descriptors that stay for the process.
    for kind in matrix.KINDS:
        matrix.new_loop(kind).close()
    # So may libffi, when ctypes makes the first callback.
    with contextlib.suppress(ImportError):
        import ctypes

        ctypes.CFUNCTYPE(None)(print)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    markers = {mark.name for mark in metafunc.definition.iter_markers()}
    if not matrix.is_async_test(metafunc.function) or markers.intersection(OTHER_PLUGINS):
        return
    if {"mock_clock", "autojump_clock"}.intersection(metafunc.fixturenames):
        markers |= {"run_only", "stock_only"}
    quick = matrix.is_quick(metafunc.config.getoption("--matrix"), markers)
    place = matrix.place(metafunc.definition.path)
    engine = matrix.is_about_the_engine(place)
    blind = place in matrix.ALSO_BLIND
    cases = matrix.choose(markers, quick, engine, blind)
    metafunc.parametrize("loop_case", cases, ids=str, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or not report.passed
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    mark = pyfuncitem.get_closest_marker("limit")
    seconds = mark.args[0] if mark else limit.DEFAULT_SECONDS
    seconds *= pyfuncitem.config.getoption("--slack")
    with limit.time_limit(seconds), _on_its_loop(pyfuncitem):
        return (yield)


@contextlib.contextmanager
def _on_its_loop(item: pytest.Function) -> Iterator[None]:
    """While entered, the async test function of this item is an ordinary one that runs a loop."""
    if item.funcargs.get("loop_case") is None:
        yield
        return
    written = item.obj
    inner = matrix.inner_test(written)

    @functools.wraps(inner)
    def run_on_loop(*args: Any, **kwargs: Any) -> None:
        _run_on_loop(item, functools.partial(inner, *args, **kwargs))

    # The wrapped function is a coroutine function, this one is none.
    del run_on_loop.__wrapped__
    if inner is written:
        item.obj = run_on_loop
    else:
        # Each example of hypothesis runs on its own loop.
        written.hypothesis.inner_test = run_on_loop
    try:
        yield
    finally:
        item.obj = written
        if inner is not written:
            written.hypothesis.inner_test = inner


def _run_on_loop(item: pytest.Function, test: matrix.AsyncFn) -> None:
    """Run an async test on the loop that its case asks for, and look at what it leaves there."""
    clock = next((v for v in item.funcargs.values() if isinstance(v, Clock)), None)
    watch = clean.LoopWatch(item.funcargs["_noted_errors"])
    matrix.run_case(item.funcargs["loop_case"], functools.partial(watch.run, test), clock)
    _fail_if(watch.problems)


def _fail_if(problems: list[str]) -> None:
    if problems:
        pytest.fail("the test does not end clean:\n  " + "\n  ".join(problems), pytrace=False)


# -- fixtures -------------------------------------------------------------------


@pytest.fixture
def _noted_errors() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def _ends_clean(
    request: pytest.FixtureRequest,
    loop_case: matrix.Case | None,
    _noted_errors: list[str],
) -> Iterator[None]:
    # Autouse and without fixtures below it that open anything: set up first, torn down last.
    with clean.ProcessWatch(_noted_errors) as watch:
        yield
        problems = watch.problems()
    if "loop_errors" not in request.fixturenames:
        problems += [f"reported to the loop's exception handler: {e}" for e in _noted_errors]
    if not request.node.stash.get(FAILED, False):
        _fail_if(problems)


@pytest.fixture(autouse=True)
def loop_case(request: pytest.FixtureRequest) -> matrix.Case | None:
    """The cell of the matrix that an async test runs on; None for an ordinary test."""
    return getattr(request, "param", None)


@pytest.fixture
def loop_kind(loop_case: matrix.Case) -> str:
    """The kind of loop: "stock", "uvloop", "eager", "debug" or "wrapping"."""
    return loop_case.kind


@pytest.fixture
def host_kind(loop_case: matrix.Case) -> str:
    """The host that made the test's task: "run" (``nurseryio.run``) or "app" (asyncio)."""
    return loop_case.host


@pytest.fixture
def loop_errors(_noted_errors: list[str]) -> list[str]:
    """The reports to the loop's exception handler; with this fixture the test may leave reports."""
    return _noted_errors


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The fixture of pytest; its runs do not load ddtrace's plugin either, see pyproject.toml."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:ddtrace")
    return pytester


@pytest.fixture
def mock_clock() -> Any:
    """A virtual clock that stands still until the test moves it."""
    from nurseryio.testing import MockClock

    return MockClock()


@pytest.fixture
def autojump_clock() -> Any:
    """A virtual clock that jumps to the next deadline whenever all tasks wait."""
    from nurseryio.testing import MockClock

    return MockClock(autojump_threshold=0)
