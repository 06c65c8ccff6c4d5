"""nurseryio in programs that it does not control: under the tools that people put around asyncio.

Each program in ``wild_programs/`` installs one tool and runs the battery under it, in a separate
process. Without the extra ``wild`` the tests of the missing tools are skipped.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from harness import matrix, programs
from harness.programs import LOOPS

PROGRAMS = Path(__file__).with_name("wild_programs")

each_loop = pytest.mark.parametrize("loop", LOOPS)
each_host = pytest.mark.parametrize("host", matrix.HOSTS)
# Whether the tool is installed before nurseryio is imported, or on a loop that runs already.
each_order = pytest.mark.parametrize("order", ["tool-first", "tool-later"])


def needs(*names: str) -> pytest.MarkDecorator:
    """Marks tests that are skipped unless these modules are installed."""
    missing = [name for name in names if not is_installed(name)]
    reason = f"needs {', '.join(missing)}: python -m pip install '.[wild]'"
    return pytest.mark.skipif(bool(missing), reason=reason)


def is_installed(name: str) -> bool:
    """Whether a module can be found; also if it is inside a package that is missing."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def assert_passes(program: str, loop: str, host: str, *options: str) -> None:
    """Run one of the programs, and show the steps and all errors if one fails."""
    ended = programs.run(PROGRAMS / program, loop, host, *options, warnings="default")
    steps = "\n".join(ended.lines)
    assert ended.returncode == 0, f"exit code {ended.returncode}\n{steps}\n{ended.errors}"
    assert steps.count(": ok") == len(ended.lines) > 0, steps


def test_each_program_has_its_tests() -> None:
    tested = {"no_tool", "sentry", "ddtrace", "newrelic", "opentelemetry", "aiomonitor"}
    tested |= {"nest_asyncio", "aiodebug"}
    tested.add("ipykernel")  # in test_notebooks.py
    assert {path.stem for path in PROGRAMS.glob("with_*.py")} == {f"with_{x}" for x in tested}


@each_loop
@each_host
def test_no_tool(loop: str, host: str) -> None:
    assert_passes("with_no_tool.py", loop, host)


# -- task factories -------------------------------------------------------------


@needs("sentry_sdk")
@each_loop
@each_host
def test_sentry_wraps_each_coroutine_in_a_task_factory(loop: str, host: str) -> None:
    assert_passes("with_sentry.py", loop, host)


@needs("aiomonitor")
@each_loop
@each_host
def test_aiomonitor_makes_tasks_of_another_class_in_a_task_factory(loop: str, host: str) -> None:
    assert_passes("with_aiomonitor.py", loop, host)


# -- create_task is patched -----------------------------------------------------


@needs("ddtrace")
@each_loop
@each_host
@each_order
def test_ddtrace_replaces_the_code_of_create_task(loop: str, host: str, order: str) -> None:
    assert_passes("with_ddtrace.py", loop, host, *(["--first"] if order == "tool-first" else []))


@needs("ddtrace")
@each_loop
def test_ctrl_c_is_not_lost_in_ddtraces_watcher_of_the_context(loop: str) -> None:
    program = PROGRAMS / "ctrl_c_under_ddtrace.py"
    with programs.started(program, loop=loop, warnings="default") as running:
        running.read_until("waits")
        running.interrupt()
        assert running.end() == ["waits", "interrupted"], running.errors


@needs("newrelic")
@each_loop
@each_host
@each_order
def test_new_relic_puts_a_proxy_around_create_task(loop: str, host: str, order: str) -> None:
    assert_passes("with_newrelic.py", loop, host, *(["--first"] if order == "tool-first" else []))


# -- asyncio itself is patched --------------------------------------------------


@needs("opentelemetry.instrumentation.asyncio", "opentelemetry.sdk")
@each_loop
@each_host
def test_opentelemetry_replaces_functions_of_asyncio(loop: str, host: str) -> None:
    options = ["--first"] if host == "app" else []
    assert_passes("with_opentelemetry.py", loop, host, *options)


@needs("nest_asyncio")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="nest_asyncio does not support 3.14")
@each_host
@each_order
def test_nest_asyncio_runs_the_loop_inside_a_task(host: str, order: str) -> None:
    options = ["--first"] if order == "tool-first" else []
    assert_passes("with_nest_asyncio.py", "stock", host, *options)


@needs("nest_asyncio2")
@each_host
@each_order
def test_nest_asyncio2_runs_the_loop_inside_a_task(host: str, order: str) -> None:
    options = ["--first"] if order == "tool-first" else []
    assert_passes("with_nest_asyncio.py", "stock", host, "--two", *options)


@needs("aiodebug")
@each_loop
@each_host
def test_aiodebug_replaces_the_running_of_callbacks(loop: str, host: str) -> None:
    assert_passes("with_aiodebug.py", loop, host)


# -- pytest-timeout -------------------------------------------------------------


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A directory where pytest gets exactly the plugins that are named."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("COLUMNS", "200")  # the summary's lines are not cut off
    return pytester


def run_with_limits(project: pytest.Pytester, plugin: str, text: str) -> pytest.RunResult:
    """Run a file of tests with pytest-timeout and one more plugin."""
    header = "import asyncio, time\nimport pytest\nimport nurseryio\nfrom nurseryio import *\n"
    project.makepyfile(header + "limited = pytest.mark.timeout(0.3)\n" + text)
    options = ["-p", plugin, "-p", "pytest_timeout", "--timeout-method=signal"]
    return project.runpytest_subprocess("-W", "error", "-rA", *options, timeout=50)


TOO_LONG = "Timeout (>0.3s) from pytest-timeout"

# The marker of each plugin that runs async tests, and its module.
PLUGINS = {
    "nurseryio": "nurseryio.testing.pytest_plugin",
    "asyncio": "pytest_asyncio.plugin",
    "anyio": "anyio.pytest_plugin",
}

NURSERY_TESTS = """
@limited
@MARK
async def test_children_sleep():
    async with open_nursery() as nursery:
        nursery.start_soon(sleep_forever)
        nursery.start_soon(asyncio.sleep, 3600)

@limited
@MARK
async def test_a_child_blocks():
    async def blocks():
        time.sleep(3600)
    async with open_nursery() as nursery:
        nursery.start_soon(sleep_forever)
        nursery.start_soon(blocks)

@MARK
async def test_next():
    async with open_nursery() as nursery:
        nursery.start_soon(sleep, 0.01)
        nursery.start_soon(asyncio.sleep, 0.01)
"""

RUN_TESTS = """
@limited
def test_children_sleep():
    async def main():
        async with open_nursery() as nursery:
            nursery.start_soon(sleep_forever)
            nursery.start_soon(asyncio.sleep, 3600)
    RUN

@limited
def test_a_child_blocks():
    async def blocks():
        time.sleep(3600)
    async def main():
        async with open_nursery() as nursery:
            nursery.start_soon(sleep_forever)
            nursery.start_soon(blocks)
    RUN

def test_next():
    async def main():
        async with open_nursery() as nursery:
            nursery.start_soon(sleep, 0.01)
            nursery.start_soon(asyncio.sleep, 0.01)
    RUN
"""


def assert_the_next_is_fine(result: pytest.RunResult) -> None:
    """Both stopped tests fail because of the time limit, in time, and the last one passes."""
    outcomes = result.parseoutcomes()
    assert outcomes["failed"] == 2 and outcomes["passed"] == 1, outcomes
    expected = [
        f"FAILED *::{name} - *{TOO_LONG}*"
        for name in ("test_children_sleep", "test_a_child_blocks")
    ]
    result.stdout.fnmatch_lines_random([*expected, "PASSED *::test_next"])
    assert result.duration < 20


@needs("pytest_timeout")
@pytest.mark.parametrize("ours", [True, False], ids=["run", "asyncio.run"])
def test_pytest_timeout_stops_a_run(project: pytest.Pytester, ours: bool) -> None:
    text = RUN_TESTS.replace("RUN", "nurseryio.run(main)" if ours else "asyncio.run(main())")
    assert_the_next_is_fine(run_with_limits(project, PLUGINS["nurseryio"], text))


@needs("pytest_timeout")
@pytest.mark.parametrize("plugin", PLUGINS)
def test_pytest_timeout_stops_a_nursery_test(project: pytest.Pytester, plugin: str) -> None:
    text = NURSERY_TESTS.replace("MARK", f"pytest.mark.{plugin}")
    if plugin == "anyio":
        text += "\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    if plugin == "asyncio":
        project.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    assert_the_next_is_fine(run_with_limits(project, PLUGINS[plugin], text))
