"""The test case for unittest, seen through the results that it gives."""

from __future__ import annotations

import asyncio
import contextvars
import io
import sys
import unittest
from collections.abc import Callable
from typing import Any

import pytest
from harness import matrix

import nurseryio
from nurseryio.testing import AsyncTestCase, MockClock
from nurseryio.testing.step_runner import LOOP_RUNS

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    (lambda kind=kind: matrix.new_loop(kind))  # type: ignore[misc]
    for kind in ("stock", "uvloop")
    if kind in matrix.KINDS
]

variable = contextvars.ContextVar("variable", default="nothing")
has_contexts = sys.version_info >= (3, 11)


@pytest.fixture(params=LOOPS, ids=["stock", "uvloop"][: len(LOOPS)])
def base(request: pytest.FixtureRequest) -> Any:
    class Base(AsyncTestCase):
        loop_factory = request.param

    return Base


def run(case: type[unittest.TestCase]) -> unittest.TestResult:
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    return unittest.TextTestRunner(stream=io.StringIO()).run(suite)


def assert_passes(case: type[unittest.TestCase]) -> None:
    result = run(case)
    assert result.testsRun and result.wasSuccessful(), result.errors + result.failures


def test_scopes_and_nurseries_of_async_set_up_surround_the_test_until_tear_down(base: Any) -> None:
    record: list[str] = []

    class Case(base):
        async def asyncSetUp(self) -> None:
            self.nursery = await self.enterAsyncContext(nurseryio.open_nursery())
            self.nursery.start_soon(nurseryio.sleep_forever)
            self.scope = nurseryio.CancelScope()
            self.scope.__enter__()
            self.task = asyncio.current_task()

        async def asyncTearDown(self) -> None:
            self.scope.__exit__(None, None, None)
            self.nursery.cancel_scope.cancel()
            assert asyncio.current_task() is self.task
            record.append("down")

        async def clean_up(self) -> None:
            assert asyncio.current_task() is self.task
            record.append("clean")

        async def test_it(self) -> None:
            self.addAsyncCleanup(self.clean_up)
            assert asyncio.current_task() is self.task
            assert nurseryio.lowlevel.current_task().name == "test_it"
            self.nursery.start_soon(nurseryio.sleep, 0)
            await nurseryio.sleep(0)
            record.append("test")

    assert_passes(Case)
    assert record == ["test", "down", "clean"]


async def test_a_test_case_in_a_running_loop_is_refused_before_anything_is_made(base: Any) -> None:
    """Such as unittest.main() in a cell of a notebook."""

    class Case(base):  # type: ignore[misc]
        async def asyncSetUp(self) -> None:
            raise AssertionError("must not be called")

        async def test(self) -> None:
            raise AssertionError("must not be called")

    ((_, error),) = run(Case).errors
    assert error.splitlines()[-1] == f"RuntimeError: {LOOP_RUNS}"
    assert asyncio.get_event_loop() is asyncio.get_running_loop()


def test_set_up_and_tear_down_may_be_async_or_not(base: Any) -> None:
    record: list[str] = []

    class Async(base):
        async def setUp(self) -> None:
            await nurseryio.sleep(0)
            record.append("up")

        async def tearDown(self) -> None:
            await nurseryio.sleep(0)
            record.append("down")

        def test_plain(self) -> None:
            nurseryio.run(nurseryio.sleep, 0)
            record.append("test")

    class Plain(base):
        def setUp(self) -> None:
            assert not asyncio.get_event_loop().is_running()
            self.token = variable.set("set")

        def tearDown(self) -> None:
            variable.reset(self.token)

        async def test_it(self) -> None:
            if has_contexts:
                assert variable.get() == "set"

    assert_passes(Async)
    assert record == ["up", "test", "down"]
    assert_passes(Plain)
    assert variable.get() == "nothing"


def test_clock_factory_makes_a_clock_for_each_test(base: Any) -> None:
    class Case(base):
        clock_factory = lambda: MockClock(autojump_threshold=0)  # noqa: E731

        async def test_one(self) -> None:
            await nurseryio.sleep(3600)
            assert nurseryio.current_time() == self.clock.current_time() == 3600

        async def test_two(self) -> None:
            await asyncio.sleep(60)
            assert nurseryio.current_time() == 60

    assert_passes(Case)


def test_failures_skips_errors_and_expected_failures_are_reported_as_such(base: Any) -> None:
    class Case(base):
        async def in_a_nursery(self, function: Callable[[], object]) -> None:
            async def child() -> None:
                function()

            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(child)

        async def test_failure(self) -> None:
            await self.in_a_nursery(self.fail)

        async def test_skip(self) -> None:
            await self.in_a_nursery(lambda: self.skipTest("because"))

        async def test_error(self) -> None:
            await self.in_a_nursery(lambda: 1 / 0)

        @unittest.expectedFailure
        async def test_expected(self) -> None:
            await self.in_a_nursery(self.fail)

        async def test_sub_tests(self) -> None:
            for number in range(3):
                with self.subTest(number=number):
                    await nurseryio.sleep(0)
                    self.assertNotEqual(number, 1)

    result = run(Case)
    assert len(result.failures) == 2
    assert [len(result.skipped), len(result.errors), len(result.expectedFailures)] == [1, 1, 1]


def test_a_crash_in_a_nursery_of_set_up_cancels_the_test_and_is_reported(base: Any) -> None:
    class Case(base):
        async def asyncSetUp(self) -> None:
            self.nursery = await self.enterAsyncContext(nurseryio.open_nursery())

        async def test_it(self) -> None:
            async def crash() -> None:
                raise ValueError("boom")

            self.nursery.start_soon(crash)
            await nurseryio.sleep_forever()

    result = run(Case)
    texts = [text for _, text in result.errors]
    assert len(texts) == 2
    assert "cancelled due to nursery" in texts[0]
    assert "ValueError: boom" in texts[1]


def test_errors_of_the_run_are_errors_of_the_test(base: Any) -> None:
    class NoLoop(AsyncTestCase):
        loop_factory = staticmethod(lambda: 3)

        async def test_it(self) -> None: ...

    class NoClock(base):
        clock_factory = staticmethod(lambda: 1 / 0)

        async def test_it(self) -> None: ...

    class SystemTask(base):
        async def test_it(self) -> None:
            async def crash() -> None:
                raise ValueError("boom")

            nurseryio.lowlevel.spawn_system_task(crash)

    for case, error in ((NoLoop, "TypeError"), (NoClock, "ZeroDivision"), (SystemTask, "boom")):
        result = run(case)
        assert len(result.errors) == 1
        assert error in result.errors[0][1]
    with pytest.raises(nurseryio.TrioInternalError):
        SystemTask("test_it").debug()


def test_a_keyboard_interrupt_ends_the_run_of_tests_and_closes_the_loop(base: Any) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    class Case(base):
        async def test_it(self) -> None:
            loops.append(asyncio.get_running_loop())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Case)
    assert loops[0].is_closed()


def test_async_test_case_is_a_subclass_of_isolated_asyncio_test_case() -> None:
    assert issubclass(AsyncTestCase, unittest.IsolatedAsyncioTestCase)


def test_enter_async_context_refuses_what_is_not_a_context_manager(base: Any) -> None:
    class Case(base):
        async def test_it(self) -> None:
            with self.assertRaisesRegex(TypeError, r"builtins\.int is not an async context"):
                await self.enterAsyncContext(3)

    assert_passes(Case)


def test_pytest_runs_an_async_test_case_in_each_mode_of_the_plugin(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import nurseryio
        from nurseryio.testing import AsyncTestCase

        class TestIt(AsyncTestCase):
            async def asyncSetUp(self):
                self.nursery = await self.enterAsyncContext(nurseryio.open_nursery())

            async def test_it(self):
                self.nursery.start_soon(nurseryio.sleep, 0)
        """
    )
    for mode in ("auto", "strict"):
        # The plugin of looptime needs that of pytest-asyncio.
        others = ("asyncio", "anyio", "looptime_plugin")
        options = [f"-pno:{name}" for name in others] + [f"--nurseryio-mode={mode}"]
        pytester.runpytest_inprocess(*options).assert_outcomes(passed=1)
