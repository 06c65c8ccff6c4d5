"""conftest.py: each async test runs on the whole matrix, and each dirty test fails.

The tests here write a small test file, run pytest on it with the project's own conftest.py, and
look at what it says.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import limit, matrix

CONFTEST = Path(__file__).with_name("conftest.py")
CONFIG = CONFTEST.parent.parent / "pyproject.toml"

Run = Callable[..., pytest.RunResult]

# The cheapest case that a dirty test can be shown on.
ONCE = """
import asyncio, contextlib, os, socket, threading, warnings
import pytest
once = [pytest.mark.app_only, pytest.mark.stock_only("one case is enough")]
"""


@pytest.fixture
def run_pytest(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest on a test file of this text, with the project's conftest and configuration."""
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyprojecttoml(CONFIG.read_text())

    def run(text: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(test_it=ONCE + text)
        return pytester.runpytest_inprocess("test_it.py", "-p", "no:cacheprovider", *options)

    return run


# -- the matrix -----------------------------------------------------------------


def test_an_async_test_runs_in_each_cell_of_the_matrix(run_pytest: Run) -> None:
    result = run_pytest("async def test_it(): pass", "--collect-only", "-q")
    kinds = ["stock", "debug", "wrapping"]
    if "uvloop" in matrix.KINDS:
        kinds.append("uvloop")
    if sys.version_info >= (3, 12):
        kinds.append("eager")
    expected = {f"test_it.py::test_it[{kind}-{host}]" for kind in kinds for host in ("run", "app")}
    assert set(result.outlines[: len(expected)]) == expected
    result.stdout.fnmatch_lines([f"{len(expected)} tests collected*"])


@pytest.mark.parametrize("chosen", matrix.MATRICES)
def test_a_costly_test_runs_in_ci_on_a_part_of_the_loop_matrix(
    run_pytest: Run, chosen: str
) -> None:
    result = run_pytest(
        """
@pytest.mark.costly("it takes long")
async def test_long(): pass
async def test_short(): pass
""",
        "--collect-only",
        "-q",
        f"--matrix={chosen}",
    )
    found = [line.partition("::")[2].partition("[")[0] for line in result.outlines if "::" in line]
    full, part = len(matrix.FULL), len(matrix.QUICK)
    expected = {"full": (full, full), "ci": (part, full), "quick": (part, part)}
    assert (found.count("test_long"), found.count("test_short")) == expected[chosen]


def test_an_ordinary_test_runs_once(run_pytest: Run) -> None:
    result = run_pytest("def test_it(loop_case): assert loop_case is None")
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda *_: None], ids=["ignored", "replaced"])
def test_ctrl_c_raises_keyboard_interrupt_whatever_the_sigint_handler_was_at_the_start(
    run_pytest: Run, handler: signal.Handlers | Callable[..., None]
) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        result = run_pytest("""
import signal
def test_it():
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
""")
    finally:
        signal.signal(signal.SIGINT, before)
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_parts_of_the_test_suite_hold_each_test_once(run_pytest: Run, count: int) -> None:
    text = "def test_one(): pass\ndef test_two(): pass"
    for name in ("a", "b", "c"):
        Path(f"test_{name}.py").write_text(f"def test_{name}(): pass")
    found: list[str] = []
    for number in range(1, count + 1):
        result = run_pytest(text, "-q", "--collect-only", f"--part={number}/{count}", ".")
        found += [line for line in result.outlines if "::" in line]
    names = ["test_a.py::test_a", "test_b.py::test_b", "test_c.py::test_c"]
    assert sorted(found) == [*names, "test_it.py::test_one", "test_it.py::test_two"]


@pytest.mark.parametrize("text", ["3/2", "0/2", "half"])
def test_an_unknown_part_of_the_test_suite_is_refused(run_pytest: Run, text: str) -> None:
    result = run_pytest("def test_it(): pass", f"--part={text}")
    result.stderr.fnmatch_lines([f"*argument --part: '{text}' is not like 1/3"])
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_each_kind_of_loop_of_the_matrix_is_what_its_name_says(run_pytest: Run) -> None:
    result = run_pytest(
        """
async def test_it(loop_kind):
    loop = asyncio.get_running_loop()
    assert (type(loop).__module__.split(".")[0] == "uvloop") == (loop_kind == "uvloop")
    assert loop.get_debug() == (loop_kind == "debug")
    eager = getattr(asyncio, "eager_task_factory", "none here")
    assert (loop.get_task_factory() is eager) == (loop_kind == "eager")
    task = asyncio.create_task(asyncio.sleep(0.001))
    is_wrapped = task.get_coro().cr_code is not asyncio.sleep.__code__
    assert is_wrapped == (loop_kind == "wrapping")
    await task
"""
    )
    result.assert_outcomes(passed=len(matrix.FULL))


def test_each_host_of_the_matrix_is_what_its_name_says(run_pytest: Run) -> None:
    result = run_pytest(
        """
import nurseryio
async def test_it(host_kind):
    assert (nurseryio.lowlevel.current_root_task() is not None) == (host_kind == "run")
    made_by_asyncio = asyncio.current_task().get_coro().__qualname__.startswith("run_app")
    assert made_by_asyncio == (host_kind == "app")
"""
    )
    result.assert_outcomes(passed=len(matrix.FULL))


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        (["run_only"], {case for case in matrix.FULL if case.host == "run"}),
        (["app_only"], {case for case in matrix.FULL if case.host == "app"}),
        (["stock_only"], {case for case in matrix.FULL if case.kind == "stock"}),
        (["stock_only", "run_only"], {matrix.Case("stock", "run")}),
    ],
    ids=str,
)
def test_markers_restrict_the_matrix(marks: list[str], expected: set[matrix.Case]) -> None:
    assert set(matrix.choose(marks, quick=False)) == expected


def test_the_quick_matrix_has_both_hosts_and_both_loops() -> None:
    quick = matrix.choose((), quick=True)
    assert {case.host for case in quick} == set(matrix.HOSTS)
    assert {case.kind for case in quick} == {"stock", "uvloop"}.intersection(matrix.KINDS)


def test_the_quick_matrix_is_larger_for_tests_of_the_engine() -> None:
    rest = matrix.choose((), quick=True)
    assert matrix.choose((), quick=True, engine=True) == [*rest, matrix.Case("wrapping", "app")]
    assert matrix.is_about_the_engine("core/test_task")
    assert not matrix.is_about_the_engine("sync/test_channel")


def test_the_quick_matrix_leaves_no_test_out() -> None:
    assert matrix.choose(["app_only", "stock_only"], quick=True) == [matrix.Case("stock", "app")]


def test_markers_that_leave_nothing_to_run_are_an_error() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        matrix.choose(["run_only", "app_only"], quick=False)


@pytest.mark.parametrize("marker", ["asyncio", "anyio"])
def test_tests_of_other_pytest_plugins_are_left_to_them(run_pytest: Run, marker: str) -> None:
    result = run_pytest(
        f"""
@pytest.fixture
def anyio_backend(): return "asyncio"
@pytest.mark.{marker}
async def test_it(loop_case): assert loop_case is None
"""
    )
    result.assert_outcomes(passed=1)


def test_a_test_with_a_virtual_clock_runs_on_that_clock(run_pytest: Run) -> None:
    result = run_pytest(
        """
import nurseryio
async def test_it(autojump_clock, loop_case):
    assert nurseryio.lowlevel.current_clock() is autojump_clock
    await nurseryio.sleep(3600)
    assert str(loop_case) == "stock-run"
"""
    )
    result.assert_outcomes(passed=1)


def test_hypothesis_runs_each_example_on_its_own_loop(run_pytest: Run) -> None:
    result = run_pytest(
        """
from hypothesis import given, settings, strategies
loops = []
class TestIt:
    pytestmark = once
    @settings(max_examples=3)
    @given(strategies.integers())
    async def test_it(self, number):
        loops.append(asyncio.get_running_loop())
def test_after():
    assert len(set(map(id, loops))) == 3
    assert all(loop.is_closed() for loop in loops)
"""
    )
    result.assert_outcomes(passed=2)


# -- the end of a test ----------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (
            "leftover task: <Task pending*",
            "kept.append(asyncio.ensure_future(asyncio.sleep(99)))",
        ),
        (
            "live timer: <TimerHandle*",
            "asyncio.get_running_loop().call_later(99, print)",
        ),
        (
            "a cancellation was still on its way*",
            "asyncio.current_task().cancel()",
        ),
        pytest.param(
            "*still counts 1 cancel requests*",
            "asyncio.current_task().cancel()\n"
            "    with contextlib.suppress(asyncio.CancelledError): await asyncio.sleep(0)",
            marks=pytest.mark.skipif(
                sys.version_info < (3, 11), reason="Python 3.10 keeps no count"
            ),
        ),
    ],
)
@pytest.mark.parametrize("kind", [k for k in ("stock", "uvloop") if k in matrix.KINDS])
def test_an_async_test_that_leaves_something_on_the_loop_fails(
    run_pytest: Run, kind: str, message: str, body: str
) -> None:
    result = run_pytest(f"kept = []\nasync def test_it():\n    {body}", "-k", f"[{kind}-")
    result.assert_outcomes(failed=2, deselected=len(matrix.FULL) - 2)
    result.stdout.fnmatch_lines(["the test does not end clean:", f"  {message}"])


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (
            "leftover thread: <Thread(stray*",
            "threading.Thread(target=stop.wait, name='stray').start()",
        ),
        ("leftover file descriptor: * -> pipe:*", "kept.extend(os.pipe())"),
        (
            "reported to the loop's exception handler: boom*",
            "asyncio.get_running_loop().call_exception_handler({'message': 'boom'})",
        ),
        (
            "reported to the loop's exception handler: *never retrieved*ZeroDivisionError*",
            "asyncio.get_running_loop().create_future().set_exception(ZeroDivisionError())",
        ),
    ],
)
def test_a_test_that_leaves_something_in_the_process_fails(
    run_pytest: Run, monkeypatch: pytest.MonkeyPatch, message: str, body: str
) -> None:
    from harness import clean

    monkeypatch.setattr(clean, "GRACE", 0.05)
    result = run_pytest(
        f"""
kept, stop, pytestmark = [], threading.Event(), once
async def test_it():
    {body}
def test_tidy_up():
    stop.set()
    for descriptor in kept: os.close(descriptor)
"""
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["the test does not end clean:", f"  {message}"])


def test_a_sync_test_that_leaves_something_on_a_loop_fails_too(
    run_pytest: Run, loop_errors: list[str]
) -> None:
    result = run_pytest(
        """
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
def test_it():
    asyncio.run(main())
"""
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*exception handler: Exception in callback*"])
    # asyncio's logger is that of the whole process.
    assert len(loop_errors) == 1


def test_a_test_with_the_loop_errors_fixture_may_leave_them(run_pytest: Run) -> None:
    result = run_pytest(
        """
pytestmark = once
async def test_it(loop_errors):
    asyncio.get_running_loop().call_exception_handler({'message': 'boom'})
    assert loop_errors == ["boom: None"]
"""
    )
    result.assert_outcomes(passed=1)


@pytest.mark.parametrize(
    "body",
    [
        "asyncio.sleep(0)",
        "warnings.warn('look out')",
        "socket.socket().bind(('127.0.0.1', 0))",
        "open('/dev/null')",
    ],
)
def test_a_warning_fails_the_test_that_caused_it(run_pytest: Run, body: str) -> None:
    result = run_pytest(f"pytestmark = once\nasync def test_it():\n    {body}")
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) >= 1
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_a_failed_test_is_not_blamed_for_what_it_leaves_as_well(run_pytest: Run) -> None:
    result = run_pytest(
        """
kept, pytestmark = [], once
async def test_it():
    kept.extend(os.pipe())
    raise ValueError("first things first")
def test_tidy_up():
    for descriptor in kept: os.close(descriptor)
"""
    )
    result.assert_outcomes(failed=1, passed=1)


def test_a_clean_test_passes_though_it_used_everything(run_pytest: Run) -> None:
    result = run_pytest(
        """
async def test_it():
    loop = asyncio.get_running_loop()
    loop.call_later(99, print).cancel()
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    await loop.run_in_executor(None, threading.get_ident)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
"""
    )
    result.assert_outcomes(passed=len(matrix.FULL))


# -- the time limit -------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in ("stock", "uvloop") if k in matrix.KINDS])
def test_a_test_that_hangs_is_ended_and_shows_its_tasks(run_pytest: Run, kind: str) -> None:
    result = run_pytest(
        """
@pytest.mark.limit(0.1)
async def test_it():
    await hangs_here()
async def hangs_here():
    await asyncio.Event().wait()
def test_next(): pass
""",
        "-k",
        f"[{kind}- or test_next",
    )
    result.assert_outcomes(failed=2, passed=1, deselected=len(matrix.FULL) - 2)
    result.stdout.fnmatch_lines(["the test took longer than 0.1 s", "*in hangs_here"])


@pytest.mark.parametrize("kind", [k for k in ("stock", "uvloop") if k in matrix.KINDS])
def test_a_time_limit_that_ends_in_a_destructor_ends_the_test(
    run_pytest: Run, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # Not by a second interrupt.
    monkeypatch.setattr(limit, "AGAIN_SECONDS", 3600)
    result = run_pytest(
        """
class IgnoresErrors:
    def __del__(self):
        while True: pass
@pytest.mark.limit(0.1)
async def test_it():
    IgnoresErrors()
    await asyncio.Event().wait()
""",
        "-k",
        f"[{kind}-",
    )
    result.assert_outcomes(failed=2, deselected=len(matrix.FULL) - 2)
    result.stdout.fnmatch_lines(["the test took longer than 0.1 s"])


def test_slack_multiplies_the_time_limit(run_pytest: Run) -> None:
    text = """
@pytest.mark.limit(0.05)
@pytest.mark.app_only
@pytest.mark.stock_only("one case is enough")
async def test_it(): await asyncio.sleep(0.2)
"""
    run_pytest(text).assert_outcomes(failed=1)
    run_pytest(text, "--slack=1000").assert_outcomes(passed=1)


def test_the_files_that_a_brief_run_leaves_out_exist() -> None:
    folder = CONFTEST.parent
    assert [name for name in matrix.LONG if not (folder / f"{name}.py").is_file()] == []


def test_a_brief_run_leaves_out_the_files_that_take_long() -> None:
    folder = CONFTEST.parent
    assert matrix.is_long(folder / "test_docs.py")
    assert not matrix.is_long(folder / "core" / "test_task.py")
    assert not matrix.is_long(folder.parent / "test_docs.py")
