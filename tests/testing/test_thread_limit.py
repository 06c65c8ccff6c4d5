"""pytest-timeout with the method "thread": it stops a nurseryio test, not the process."""

# Covered below 95 %: these tests need pytest-timeout, which is in the extra wild.

from __future__ import annotations

import re

import pytest
from harness import timeouts


@timeouts.needs_timeout
@pytest.mark.parametrize("block", ["await asyncio.sleep(3600)", "time.sleep(3600)"])
@pytest.mark.parametrize("factory", timeouts.FACTORIES, ids=timeouts.KINDS)
def test_pytest_timeout_by_thread_stops_one_test_and_its_fixtures_are_torn_down(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, factory: str, block: str
) -> None:
    result = timeouts.run_with_timeouts(pytester, monkeypatch, factory, block, "thread")
    timeouts.assert_only_the_limited_tests_are_stopped(result)


@timeouts.needs_timeout
@pytest.mark.parametrize("body", ["time.sleep(3600)", "await stubborn()"])
def test_pytest_timeout_by_thread_ends_the_process_if_the_test_cannot_be_stopped(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        f"""
        import asyncio, time
        import pytest
        from nurseryio.testing import thread_limit

        thread_limit.BLOCKED = thread_limit.GRACE = 0.2
        thread_limit._is_free = lambda: False

        async def stubborn():
            while True:
                try:
                    await asyncio.sleep(3600)
                except BaseException:
                    pass

        @pytest.mark.nurseryio
        @pytest.mark.timeout(0.2, method="thread")
        async def test_it():
            {body}
        """
    )
    result = pytester.runpytest_subprocess(
        "-p", "nurseryio.testing.pytest_plugin", "-p", "pytest_timeout", timeout=50
    )
    assert result.ret == 1
    text = result.stdout.str() + result.stderr.str()
    assert "Stack of MainThread" in text
    tasks = text.partition("Captured stderr")[2].partition("Stack of")[0]
    assert re.search(r"^test_it .* in (test_it|stubborn)\(\)[,:] ", tasks, re.MULTILINE)


@timeouts.needs_timeout
@pytest.mark.parametrize("factory", timeouts.FACTORIES, ids=timeouts.KINDS)
def test_pytest_timeout_by_thread_without_a_free_signal_interrupts_through_the_loop(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    pytester.makeconftest(
        """
        from nurseryio.testing import thread_limit
        thread_limit._is_free = lambda: False
        """
    )
    block = "await asyncio.sleep(3600)"
    result = timeouts.run_with_timeouts(pytester, monkeypatch, factory, block, "thread")
    timeouts.assert_only_the_limited_tests_are_stopped(result)


@timeouts.needs_timeout
def test_pytest_timeout_by_thread_leaves_no_thread_after_a_test_in_time(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile(
        """
        import signal, threading
        import pytest

        @pytest.mark.nurseryio
        @pytest.mark.timeout(3600, method="thread")
        async def test_it():
            assert threading.active_count() == 2

        def test_afterwards():
            assert threading.active_count() == 1
            assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
        """
    )
    plugins = ["-p", "nurseryio.testing.pytest_plugin", "-p", "pytest_timeout"]
    pytester.runpytest_subprocess(*plugins, timeout=50).assert_outcomes(passed=2)
