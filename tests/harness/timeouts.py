"""Tests that pytest-timeout stops, by either of its methods, run in a separate process."""

from __future__ import annotations

import importlib.util
import re

import pytest

from . import matrix

KINDS = [kind for kind in ("stock", "uvloop") if kind in matrix.KINDS]

needs_timeout = pytest.mark.skipif(
    importlib.util.find_spec("pytest_timeout") is None,
    reason="needs pytest_timeout: python -m pip install '.[wild]'",
)

TIMEOUT_TESTS = """
import asyncio, time
import pytest
import nurseryio

log = []
limited = pytest.mark.timeout(0.2)
pytestmark = pytest.mark.nurseryio

@pytest.fixture(scope="session")
def nurseryio_loop_factory():
    FACTORY

@pytest.fixture(scope="module")
async def wide():
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        yield nursery
        await nurseryio.sleep(0)
        nursery.cancel_scope.cancel()
    print("wide is down")

@pytest.fixture
async def narrow():
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        try:
            yield nursery
        finally:
            await nurseryio.sleep(0)
            log.append("down")
            nursery.cancel_scope.cancel()

@limited
async def test_sleeps(narrow):
    await nurseryio.sleep(3600)  # here

@limited
async def test_sleeps_in_asyncio(wide, narrow):
    await asyncio.sleep(3600)  # here

@limited
async def test_a_child_blocks(narrow):
    async def child():
        BLOCK  # in the child
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)

@pytest.fixture
async def sleeps_in_set_up(narrow):
    await nurseryio.sleep(3600)  # here

@pytest.fixture
async def sleeps_in_tear_down(narrow):
    yield
    await nurseryio.sleep(3600)  # here

@limited
async def test_set_up(sleeps_in_set_up): pass

@limited
async def test_tear_down(sleeps_in_tear_down): pass

async def test_next(wide, narrow):
    await nurseryio.sleep(0.01)
    assert log == ["down"] * 5
"""


def run_with_timeouts(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    factory: str,
    block: str,
    method: str,
) -> pytest.RunResult:
    """Run ``TIMEOUT_TESTS`` with pytest-timeout and nurseryio's plugin alone."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(TIMEOUT_TESTS.replace("FACTORY", factory).replace("BLOCK", block))
    plugins = ["-p", "nurseryio.testing.pytest_plugin", "-p", "pytest_timeout"]
    return pytester.runpytest_subprocess(
        "-W", "error", "-rA", *plugins, f"--timeout-method={method}", timeout=50
    )


FACTORIES = ["return None"]
if "uvloop" in KINDS:
    FACTORIES.append("import uvloop; return uvloop.new_event_loop")


def assert_only_the_limited_tests_are_stopped(result: pytest.RunResult) -> None:
    result.assert_outcomes(failed=3, errors=2, passed=2)
    text = result.stdout.str()
    assert "wide is down" in text
    # The last line shown of each test or fixture is the line in which it was waiting.
    lines = text.splitlines()
    errors = [n for n, line in enumerate(lines) if re.match("E +Failed: Timeout .>0.2s", line)]
    assert len(errors) == 5
    assert [lines[n - 2].startswith(">") for n in errors] == [True] * 5
    assert sum("# here" in lines[n - 2] for n in errors) == 4
    # The report of each has the tasks as they were then.
    drawings = text.split("nurseryio: the tasks when the time was over")[1:]
    assert len(drawings) == 5
    for name in ("sleeps", "sleeps_in_asyncio", "a_child_blocks", "set_up", "tear_down"):
        assert any(re.search(rf"\btest_{name} ", drawing) for drawing in drawings), name
    waiting = [drawing for drawing in drawings if re.search("sleeps for .*# here", drawing)]
    assert len(waiting) == 4
    (blocked,) = [drawing for drawing in drawings if drawing not in waiting]
    assert re.search(r" in child\(\)[,:] .*# in the child", blocked)
    # Frames of pytest are not a part of the step.
    assert "pytest_pyfunc_call" not in blocked.partition("=== ")[0]
