"""The pytest plugin, tested by running pytest in a separate directory.

A program under test gets exactly the plugins that it names; other installed plugins are not loaded.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap

import anyio.pytest_plugin
import pytest
from harness import source

OURS = "nurseryio.testing.pytest_plugin"

# The oldest anyio that is allowed has no such setting.
ANYIO_HAS_A_MODE = "anyio_mode" in inspect.getsource(anyio.pytest_plugin)


# Hypothesis asks the collector, which does not see the objects that the harness has frozen.
FALSE_ALARM = "ignore:It looks like `register_random` was passed"


class Project:
    """A directory with tests in it, and pytest to be run there."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self._pytester = pytester
        self.plugins = [OURS]
        self.ini: dict[str, str] = {"nurseryio_mode": "auto"}

    def run(self, source: str, *args: str, apart: bool = False) -> pytest.RunResult:
        """Run pytest on one file of tests, here or in a separate process."""
        settings = "".join(f"{name} = {value}\n" for name, value in self.ini.items())
        self._pytester.makeini(f"[pytest]\n{settings}")
        header = "import asyncio\nimport pytest\nimport nurseryio\n"
        self._pytester.makepyfile(header + textwrap.dedent(source))
        plugins = [arg for name in self.plugins for arg in ("-p", name)]
        run = self._pytester.runpytest_subprocess if apart else self._pytester.runpytest_inprocess
        return run("-W", "error", "-W", FALSE_ALARM, "--strict-markers", "-rA", *plugins, *args)


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return Project(pytester)


def text_of(result: pytest.RunResult) -> str:
    return result.stdout.str() + result.stderr.str()


# -- which tests the plugin runs -----------------------------------------------


def test_strict_mode_runs_only_marked_tests(project: Project) -> None:
    del project.ini["nurseryio_mode"]
    result = project.run(
        """
        @pytest.mark.nurseryio
        async def test_marked():
            await nurseryio.sleep(0)

        async def test_unmarked():
            pass
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "async def functions are not natively supported" in text_of(result)


def test_a_marker_on_a_module_or_class_counts(project: Project) -> None:
    del project.ini["nurseryio_mode"]
    project.run(
        """
        pytestmark = pytest.mark.nurseryio

        async def test_async():
            await nurseryio.sleep(0)

        def test_plain():
            with pytest.raises(RuntimeError):
                nurseryio.current_time()
        """
    ).assert_outcomes(passed=2)
    project.run(
        """
        @pytest.mark.nurseryio
        class TestIt:
            async def test_async(self):
                await nurseryio.sleep(0)
        """
    ).assert_outcomes(passed=1)


def test_auto_mode_runs_every_async_test(project: Project) -> None:
    result = project.run(
        """
        async def test_one():
            assert nurseryio.lowlevel.current_root_task() is not None
            assert nurseryio.lowlevel.current_task().name == "test_one"

        class TestIt:
            @pytest.mark.parametrize("x", [1, 2])
            async def test_method(self, x):
                assert isinstance(self, TestIt)
                await nurseryio.sleep(0)

        def test_plain():
            pass
        """
    )
    result.assert_outcomes(passed=4)


def test_the_marker_that_auto_mode_adds_can_be_selected_with_m(project: Project) -> None:
    source = """
        async def test_async(): pass
        def test_plain(): pass
        """
    project.run(source, "-m", "nurseryio").assert_outcomes(passed=1, deselected=1)
    project.run(source, "-m", "not nurseryio").assert_outcomes(passed=1, deselected=1)


def test_the_mode_can_be_given_on_the_command_line(project: Project) -> None:
    project.ini = {"nurseryio_mode": "strict"}
    source = "async def test_async(): pass"
    project.run(source, "--nurseryio-mode=auto").assert_outcomes(passed=1)


def test_a_mode_that_does_not_exist_is_a_usage_error(project: Project) -> None:
    project.ini = {"nurseryio_mode": "asyncio"}
    result = project.run("def test(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "must be one of strict, auto, not 'asyncio'" in text_of(result)


def test_without_marker_or_mode_the_plugin_changes_nothing(project: Project) -> None:
    project.ini = {}
    source = """
        @pytest.fixture
        def nursery():
            return "mine"

        def test_plain(nursery):
            assert nursery == "mine"
        """
    project.run(source).assert_outcomes(passed=1)


# -- one task -------------------------------------------------------------------

ONE_TASK = """
    tasks = []

    @pytest.fixture
    async def value():
        tasks.append(asyncio.current_task())
        return 1

    @pytest.fixture
    async def generator(value):
        tasks.append(asyncio.current_task())
        yield value + 1
        tasks.append(asyncio.current_task())

    @pytest.fixture(autouse=True)
    async def everywhere():
        tasks.append(asyncio.current_task())
        yield
        tasks.append(asyncio.current_task())

    async def test_it(generator):
        tasks.append(asyncio.current_task())
        assert generator == 2

    def test_afterwards(request):
        assert len(tasks) == 6
        assert len(set(tasks)) == 1
    """


def test_fixtures_and_test_run_in_one_task(project: Project) -> None:
    # An async fixture for every test cannot be had by one that is not async.
    project.run(
        ONE_TASK.replace("(autouse=True)", "").replace("it(", "it(everywhere, ")
    ).assert_outcomes(passed=2)


def test_each_test_has_its_own_task(project: Project) -> None:
    project.run(
        """
        loops = []

        @pytest.mark.parametrize("x", [1, 2, 3])
        async def test_it(x):
            loops.append(asyncio.get_running_loop())
            assert len(set(loops)) == x
        """
    ).assert_outcomes(passed=3)


def test_a_fixture_may_yield_inside_a_nursery_and_a_scope(project: Project) -> None:
    project.run(
        """
        from nurseryio.testing import memory_stream_pair

        @pytest.fixture
        async def echo():
            ours, theirs = memory_stream_pair()

            async def serve():
                async for data in theirs:
                    await theirs.send_all(data)

            with nurseryio.CancelScope() as scope:
                async with nurseryio.open_nursery() as nursery:
                    nursery.start_soon(serve)
                    yield ours
                    nursery.cancel_scope.cancel()

        async def test_echo(echo):
            await echo.send_all(b"hello")
            assert await echo.receive_some() == b"hello"
        """
    ).assert_outcomes(passed=1)


def test_fixtures_are_torn_down_in_the_reverse_order(project: Project) -> None:
    project.run(
        """
        record = []

        @pytest.fixture
        async def a(nursery):
            record.append("up a")
            yield
            record.append("down a")

        @pytest.fixture
        def b(a):
            record.append("up b")
            yield
            record.append("down b")

        @pytest.fixture
        async def c(b):
            record.append("up c")
            yield
            await nurseryio.sleep(0)
            record.append("down c")

        async def test_it(c):
            record.append("test")

        def test_afterwards():
            assert record == ["up a", "up b", "up c", "test", "down c", "down b", "down a"]
        """
    ).assert_outcomes(passed=2)


def test_contextvars_of_an_async_fixture_are_seen_by_the_test(project: Project) -> None:
    project.run(
        """
        import contextvars
        var = contextvars.ContextVar("var")

        @pytest.fixture
        async def setting():
            token = var.set(1)
            yield
            var.reset(token)

        async def test_it(setting):
            assert var.get() == 1
        """
    ).assert_outcomes(passed=1)


# -- what goes wrong ------------------------------------------------------------


def test_a_crash_in_a_fixtures_nursery_cancels_the_test_and_is_reported(project: Project) -> None:
    result = project.run(
        """
        @pytest.fixture
        async def server(nursery):
            async def crash():
                await nurseryio.sleep(1)
                raise ValueError("boom")
            nursery.start_soon(crash)
            yield

        async def test_it(autojump_clock, server):
            await nurseryio.sleep(1000)
            raise AssertionError("not reached")
        """
    )
    result.assert_outcomes(failed=1, errors=1)
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_it*", "*| ValueError: boom"])
    result.stdout.fnmatch_lines(["*the test was cancelled due to nursery*ValueError('boom')*"])


def test_an_inner_fixture_cancelled_in_its_teardown_is_not_an_error_of_its_own(
    project: Project,
) -> None:
    result = project.run(
        """
        @pytest.fixture
        async def inner(nursery):
            yield
            nursery.cancel_scope.cancel()
            await nurseryio.sleep_forever()

        async def test_it(inner):
            pass
        """
    )
    result.assert_outcomes(passed=1)


def test_an_async_fixture_that_fails_fails_in_its_setup_or_teardown(project: Project) -> None:
    result = project.run(
        """
        @pytest.fixture
        async def broken():
            raise ValueError("at the beginning")

        @pytest.fixture
        async def broken_later():
            yield
            raise ValueError("at the end")

        async def test_begin(broken): raise AssertionError("not reached")
        async def test_end(broken_later): pass
        async def test_still_fine(): pass
        """
    )
    result.assert_outcomes(passed=2, errors=2)
    result.stdout.fnmatch_lines(
        ["*ERROR at setup of test_begin*", "*ValueError: at the beginning"],
    )
    result.stdout.fnmatch_lines(["*ERROR at teardown of test_end*", "*ValueError: at the end"])


def test_a_fixture_yields_exactly_once(project: Project) -> None:
    result = project.run(
        """
        @pytest.fixture
        async def never():
            return
            yield

        @pytest.fixture
        async def twice():
            yield 1
            yield 2

        async def test_never(never): pass
        async def test_twice(twice): pass
        """
    )
    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["*fixture 'never' did not yield a value"])
    result.stdout.fnmatch_lines(["*fixture 'twice' yielded a second time; it must yield once"])


def test_skip_and_fail_count_also_inside_a_nursery(project: Project) -> None:
    result = project.run(
        """
        @pytest.mark.parametrize("outcome", [pytest.skip, pytest.xfail, pytest.fail])
        async def test_it(outcome, nursery):
            async def child():
                outcome("because")
            async with nurseryio.open_nursery() as inner:
                inner.start_soon(child)
        """
    )
    result.assert_outcomes(skipped=1, xfailed=1, failed=1)


def test_a_group_of_errors_stays_a_group(project: Project) -> None:
    result = project.run(
        """
        async def test_it():
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep, -1)
        """
    )
    result.assert_outcomes(failed=1)
    assert "ExceptionGroup" in text_of(result)


def test_a_keyboard_interrupt_ends_the_session_with_all_fixtures_torn_down(
    project: Project,
) -> None:
    result = project.run(
        """
        @pytest.fixture
        async def server(nursery):
            yield
            print("torn down")

        async def test_it(server):
            raise KeyboardInterrupt

        async def test_not_reached():
            pass
        """,
        "-s",
        apart=True,
    )
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "torn down" in text_of(result)
    assert "passed" not in text_of(result)


def test_an_async_generator_is_not_run_as_a_test(project: Project) -> None:
    result = project.run("async def test_it():\n    yield")
    result.assert_outcomes(failed=1)
    assert "async generator" in text_of(result)


def test_the_plugins_fixtures_say_which_marker_a_test_needs_to_use_them(project: Project) -> None:
    result = project.run(
        """
        def test_plain(nursery): pass
        def test_again(nursery): pass
        """
    )
    result.assert_outcomes(errors=2)
    assert "'nursery' of nurseryio is for tests that nurseryio runs" in text_of(result)


def test_getfixturevalue_of_an_async_fixture_inside_a_running_test_says_what_to_do(
    project: Project,
) -> None:
    result = project.run(
        """
        @pytest.fixture
        async def late():
            return 1

        @pytest.fixture(scope="module")
        async def wide():
            return 2

        @pytest.fixture
        async def asks(request):
            request.getfixturevalue("late")

        @pytest.mark.parametrize("name", ["late", "wide"])
        async def test_it(request, name):
            request.getfixturevalue(name)

        async def test_in_a_thread(request):
            await nurseryio.to_thread.run_sync(request.getfixturevalue, "late")

        async def test_in_a_fixture(asks): pass

        async def test_as_the_message_says(late, wide, request):
            assert (late, wide) == (1, 2)
            assert request.getfixturevalue("late") == 1

        @pytest.fixture
        def plain(request):
            return request.getfixturevalue("late")

        async def test_in_a_plain_fixture(plain):
            assert plain == 1
        """,
        apart=True,  # modules first imported in there are forgotten after it
    )
    result.assert_outcomes(failed=3, errors=1, passed=2)
    assert text_of(result).count("Name 'late' among the arguments of the test or fixture") >= 3
    assert "Name 'wide' among the arguments" in text_of(result)


def test_a_failing_system_task_fails_the_test(project: Project) -> None:
    result = project.run(
        """
        async def crash():
            raise ValueError("of a system task")

        async def test_it():
            nurseryio.lowlevel.spawn_system_task(crash)
            await nurseryio.sleep_forever()
        """
    )
    result.assert_outcomes(failed=1, errors=1)
    assert "TrioInternalError" in text_of(result)
    assert "of a system task" in text_of(result)


# -- the plugin's fixtures ------------------------------------------------------


def test_the_nursery_fixture_is_cancelled_when_the_test_is_over(project: Project) -> None:
    project.run(
        """
        async def test_it(nursery):
            nursery.start_soon(nurseryio.sleep_forever)
            nursery.start_soon(asyncio.sleep, 1000)
        """
    ).assert_outcomes(passed=1)


def test_mock_clock_and_autojump_clock_fixtures_are_the_clock_of_the_run(project: Project) -> None:
    project.run(
        """
        @pytest.fixture
        async def early():
            return nurseryio.lowlevel.current_clock()

        async def test_mock(early, mock_clock):
            assert early is mock_clock
            assert nurseryio.current_time() == 0
            mock_clock.jump(10)
            assert nurseryio.current_time() == 10
            assert asyncio.get_running_loop().time() == 10

        async def test_autojump(autojump_clock):
            await asyncio.sleep(3600)
            with nurseryio.fail_after(10):
                await nurseryio.sleep(5)
            assert nurseryio.current_time() == 3605
        """
    ).assert_outcomes(passed=2)


def test_a_custom_clock_fixture_is_used_if_it_comes_before_the_async_fixtures(
    project: Project,
) -> None:
    result = project.run(
        """
        from nurseryio.testing import MockClock

        @pytest.fixture
        def fast_clock():
            return MockClock(rate=1000)

        @pytest.fixture
        async def early():
            pass

        async def test_alone(fast_clock):
            assert nurseryio.lowlevel.current_clock() is fast_clock

        async def test_before(fast_clock, early):
            assert nurseryio.lowlevel.current_clock() is fast_clock

        async def test_too_late(early, fast_clock):
            pass

        async def test_two(mock_clock, fast_clock):
            pass
        """
    )
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(["*came too late*", "*a test can have one clock*"])


def test_instruments_among_the_fixtures_are_installed(project: Project) -> None:
    project.run(
        """
        class Counter(nurseryio.abc.Instrument):
            steps = 0
            def before_task_step(self, task):
                self.steps += 1

        @pytest.fixture
        def counter():
            return Counter()

        @pytest.fixture
        async def early():
            pass

        async def test_alone(counter):
            await nurseryio.sleep(0)
            assert counter.steps

        async def test_late(early, counter):
            await nurseryio.sleep(0)
            assert counter.steps
        """
    ).assert_outcomes(passed=2)


def test_a_deadlock_under_the_autojump_clock_is_reported_with_the_task_tree(
    project: Project,
) -> None:
    result = project.run(
        """
        async def test_stuck(autojump_clock, nursery):
            nursery.start_soon(nurseryio.Event().wait, name="waits for ever")
            await nurseryio.Event().wait()

        async def test_fine(autojump_clock):
            await nurseryio.sleep(1)
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["*DeadlockError: deadlock*", "*test_stuck at *", "*waits for ever*"]
    )


def test_the_event_loop_can_be_chosen_and_varied(project: Project) -> None:
    pytest.importorskip("uvloop")
    project.run(
        """
        import uvloop

        @pytest.fixture(params=[None, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
        def nurseryio_loop_factory(request):
            return request.param

        kinds = set()

        async def test_it():
            kinds.add(type(asyncio.get_running_loop()).__module__.partition(".")[0])

        def test_afterwards():
            assert kinds == {"asyncio", "uvloop"}
        """
    ).assert_outcomes(passed=3)


def test_hypothesis_runs_its_examples_in_one_task(project: Project) -> None:
    project.run(
        """
        from hypothesis import HealthCheck, given, settings, strategies

        tasks = set()

        @settings(
            max_examples=5, database=None, suppress_health_check=list(HealthCheck), deadline=None
        )
        @given(x=strategies.integers())
        async def test_it(nursery, x):
            tasks.add(asyncio.current_task())
            await nurseryio.sleep(0)
            assert x == x

        def test_afterwards():
            assert len(tasks) == 1
        """
    ).assert_outcomes(passed=2)


# -- class, module, package and session scope --------------------------------------

ON_LOOP = """
        @pytest.fixture(scope="session")
        def nurseryio_loop_factory():
            {factory}

        record = []
"""


def run_on_each_loop(project: Project, source: str, **outcomes: int) -> list[str]:
    """Run the tests on asyncio's loop and on uvloop; return pytest's output."""
    pytest.importorskip("uvloop")
    texts = []
    for factory in ("return None", "import uvloop; return uvloop.new_event_loop"):
        header = textwrap.dedent(ON_LOOP.format(factory=factory))
        result = project.run(header + textwrap.dedent(source), apart=True)
        result.assert_outcomes(**outcomes)
        texts.append(text_of(result))
    return texts


def test_wide_fixtures_may_yield_in_a_nursery_and_are_torn_down_in_the_reverse_order(
    project: Project,
) -> None:
    run_on_each_loop(
        project,
        """
        def holder(name, scope):
            @pytest.fixture(scope=scope, name=name)
            async def fixture():
                record.append(f"{name} up")
                async with nurseryio.open_nursery() as nursery:
                    nursery.start_soon(nurseryio.sleep_forever)
                    yield nursery
                    await nurseryio.sleep(0)
                    nursery.cancel_scope.cancel()
                record.append(f"{name} down")
            return fixture

        session, module, klass = [
            holder(scope, scope) for scope in ("session", "module", "class")
        ]

        @pytest.mark.usefixtures("class")
        class TestIt:
            @pytest.mark.parametrize("number", [1, 2])
            async def test_it(self, session, module, number):
                for nursery in (session, module):
                    nursery.start_soon(nurseryio.sleep, 0)
                await nurseryio.sleep(0)

        async def test_outside(module):
            assert len(module.child_tasks) >= 1

        def test_afterwards():
            assert record == ["session up", "module up", "class up", "class down"]

        def teardown_module():
            assert record[4:] == ["module down"]
        """,
        passed=4,
    )


def test_wide_fixtures_that_do_not_end_in_the_reverse_order_end_cleanly(project: Project) -> None:
    run_on_each_loop(
        project,
        """
        @pytest.fixture(scope="module")
        async def later():
            with nurseryio.CancelScope():
                async with nurseryio.open_nursery():
                    yield
            record.append("module")

        class TestIt:
            @pytest.fixture(scope="class")
            async def of_class(self):
                async with nurseryio.open_nursery() as nursery:
                    yield nursery
                record.append("class")

            async def test_one(self, of_class):
                of_class.start_soon(nurseryio.sleep, 0)

            async def test_two(self, of_class, later):
                assert isinstance(self, TestIt)

        def test_afterwards():
            assert record == ["class"]

        def teardown_module():
            assert record == ["class", "module"]
        """,
        passed=3,
    )


def test_a_parameter_of_a_wide_fixture_changes_while_others_stay(project: Project) -> None:
    project.run(
        """
        record = []

        @pytest.fixture(scope="module", params=[1, 2])
        async def first(request):
            async with nurseryio.open_nursery():
                yield request.param
            record.append(f"first {request.param}")

        @pytest.fixture(scope="module")
        async def second():
            async with asyncio.TaskGroup() if hasattr(asyncio, "TaskGroup") else (
                nurseryio.open_nursery()
            ):
                yield
            record.append("second")

        async def test_it(first, second):
            await nurseryio.sleep(0)

        def test_afterwards():
            assert record == ["first 1"]
        """
    ).assert_outcomes(passed=3)


def test_tests_run_on_the_loop_of_the_wide_fixtures_that_they_use_others_on_their_own(
    project: Project,
) -> None:
    project.run(
        """
        @pytest.fixture(scope="session")
        async def loop():
            return asyncio.get_running_loop()

        @pytest.fixture(scope="module")
        def below(loop):
            return loop

        @pytest.fixture(scope="module")
        def dynamic(request):
            return request.getfixturevalue("loop")

        async def test_direct(loop):
            assert loop is asyncio.get_running_loop()

        async def test_through_another(below, nursery):
            assert below is asyncio.get_running_loop()

        async def test_dynamic(dynamic):
            assert dynamic is asyncio.get_running_loop()

        async def test_dynamic_again(dynamic):
            assert dynamic is asyncio.get_running_loop()

        async def test_without(autojump_clock):
            await nurseryio.sleep(3600)

        async def test_again(loop):
            assert loop is asyncio.get_running_loop()
        """
    ).assert_outcomes(passed=6)


def test_contextvars_of_wide_fixtures_are_seen_by_their_tests_alone(
    project: Project,
) -> None:
    project.run(
        """
        import contextvars
        var = contextvars.ContextVar("var", default="nothing")

        @pytest.fixture(scope="module")
        async def setting():
            token = var.set("wide")
            yield
            assert var.get() == "wide"
            var.reset(token)

        @pytest.fixture(scope="module")
        async def below(setting):
            assert var.get() == "wide"

        @pytest.mark.parametrize("number", [1, 2])
        async def test_it(below, setting, number):
            assert var.get() == "wide"
            var.set("changed by a test")

        async def test_other():
            assert var.get() == "nothing"
        """
    ).assert_outcomes(passed=3)


def test_a_crash_in_a_wide_fixture_cancels_the_tests_that_use_it(project: Project) -> None:
    texts = run_on_each_loop(
        project,
        """
        @pytest.fixture(scope="module")
        async def server():
            async with nurseryio.open_nursery() as nursery:
                event = nurseryio.Event()
                async def crash():
                    await event.wait()
                    raise ValueError("boom")
                nursery.start_soon(crash)
                yield event

        @pytest.fixture(scope="module")
        async def other():
            yield
            await nurseryio.sleep(0)
            record.append("other down")

        @pytest.fixture(scope="module")
        async def above(server):
            yield
            await nurseryio.sleep(0)
            raise AssertionError("not reached")

        async def test_fine(server, other): await nurseryio.sleep(0)
        async def test_crash(server):
            server.set()
            await nurseryio.sleep_forever()
        async def test_next(server): await nurseryio.sleep(0)
        async def test_above(above): await nurseryio.sleep(0)
        async def test_others(other): await nurseryio.sleep(0)
        async def test_none(): await nurseryio.sleep(0)
        """,
        passed=3,
        failed=3,
        errors=1,
    )
    for text in texts:
        assert text.count("ERROR at teardown of test_none") == 1
        assert text.count("| ValueError: boom") == 1
        shown = [line for line in text.splitlines() if line.startswith("E ")]
        assert sum("Failed: the test was cancelled due to nursery" in line for line in shown) == 3


def test_a_test_that_never_awaits_fails_too_if_its_wide_fixture_was_lost(
    project: Project,
) -> None:
    texts = run_on_each_loop(
        project,
        """
        @pytest.fixture(scope="module")
        async def server():
            async with nurseryio.open_nursery() as nursery:
                yield nursery
                nursery.cancel_scope.cancel()

        async def test_loses(server): server.cancel_scope.cancel(reason="gone")
        async def test_next(server): assert server is not None
        """,
        failed=2,
    )
    for text in texts:
        assert "the fixture 'server' was cancelled due to explicit" in text
        assert "which the test has not noticed" in text


def test_a_deadline_around_the_yield_of_a_wide_fixture_is_one_for_its_tests(
    project: Project,
) -> None:
    result = project.run(
        """
        from nurseryio.testing import MockClock

        @pytest.fixture(scope="module")
        def clock():
            return MockClock(autojump_threshold=0)

        @pytest.fixture(scope="module")
        async def limited(clock):
            with nurseryio.move_on_after(10):
                yield

        async def test_in_time(limited, clock):
            await nurseryio.sleep(9)
            assert nurseryio.lowlevel.current_clock() is clock
        async def test_too_late(limited): await nurseryio.sleep(9)
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*the test was cancelled due to deadline*"])


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup is new in 3.11")
def test_an_asyncio_task_group_around_the_yield_of_a_wide_fixture(project: Project) -> None:
    texts = run_on_each_loop(
        project,
        """
        @pytest.fixture(scope="module")
        async def group():
            async with asyncio.TaskGroup() as group:
                yield group

        async def fail():
            raise KeyError("lost")

        async def test_fine(group): group.create_task(asyncio.sleep(0))
        async def test_crash(group):
            group.create_task(fail())
            await asyncio.sleep(1000)
        """,
        passed=1,
        failed=1,
        errors=1,
    )
    for text in texts:
        assert text.count("| KeyError: 'lost'") == 1


def test_errors_of_wide_fixtures_are_reported_where_they_happen_each_of_them(
    project: Project,
) -> None:
    result = project.run(
        """
        @pytest.fixture(scope="module")
        async def broken():
            raise OSError("at the beginning")

        @pytest.fixture(scope="module")
        async def cancelled():
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

        @pytest.fixture(scope="module")
        async def broken_later():
            yield
            raise OSError("at the end")

        @pytest.fixture(scope="module")
        async def cancelled_later():
            yield
            asyncio.current_task().cancel()
            await asyncio.sleep(0)

        @pytest.fixture(scope="module")
        async def twice():
            yield
            yield

        async def test_broken(broken): pass
        async def test_again(broken): pass
        async def test_cancelled(cancelled): pass
        async def test_fine(broken_later, cancelled_later, twice): pass
        """
    )
    result.assert_outcomes(passed=1, errors=4)
    text = text_of(result)
    assert text.count("ERROR at setup") == 3
    assert text.count("ERROR at teardown") == 1
    for message in (
        "OSError: at the end",
        "the fixture 'cancelled' has raised CancelledError",
        "the fixture 'cancelled_later' has raised CancelledError",
        "fixture 'twice' yielded a second time",
    ):
        assert message in text


def test_a_system_exit_on_the_loop_stops_one_test_and_leaves_wide_fixtures_alone(
    project: Project,
) -> None:
    run_on_each_loop(
        project,
        """
        @pytest.fixture(scope="module")
        async def server():
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep_forever)
                yield nursery
                nursery.cancel_scope.cancel()

        def leave():
            raise SystemExit(4)

        async def test_exit(server):
            asyncio.get_running_loop().call_soon(leave)
            await nurseryio.sleep_forever()

        async def test_next(server):
            assert not server.cancel_scope.cancel_called
            await nurseryio.sleep(0)
        """,
        passed=1,
        failed=1,
    )


def test_wide_fixtures_that_use_a_function_scoped_fixture_are_refused_with_advice(
    project: Project,
) -> None:
    result = project.run(
        """
        @pytest.fixture(scope="module")
        async def wide():
            yield

        @pytest.fixture
        async def early():
            pass

        @pytest.fixture
        def late(early, request):
            return request.getfixturevalue("wide")

        async def test_late(late): pass
        async def test_clock(wide, mock_clock): pass
        """
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*the fixture 'wide' came too late*"])
    result.stdout.fnmatch_lines(["*MockClock* came too late: the test runs on the event loop of*"])
    result = project.run(
        """
        @pytest.fixture
        def nurseryio_loop_factory():
            return None

        @pytest.fixture(scope="module")
        async def wide():
            yield

        async def test_it(wide): pass
        """
    )
    result.assert_outcomes(errors=1)
    assert 'give that fixture the scope "session"' in text_of(result)


def test_in_auto_mode_a_sync_test_may_be_the_first_that_uses_a_wide_fixture(
    project: Project,
) -> None:
    source = """
        @pytest.fixture(scope="session", autouse=True)
        async def everywhere():
            async with nurseryio.open_nursery() as nursery:
                yield nursery

        def test_plain(everywhere):
            assert isinstance(everywhere, nurseryio.Nursery)

        @pytest.mark.nurseryio
        async def test_async(everywhere):
            everywhere.start_soon(nurseryio.sleep, 0)
        """
    project.run(source).assert_outcomes(passed=2)


def test_instruments_see_their_test_alone_on_a_shared_loop(project: Project) -> None:
    project.run(
        """
        class Counter(nurseryio.abc.Instrument):
            def __init__(self):
                self.steps = 0
            def before_task_step(self, task):
                self.steps += 1

        counters = []

        @pytest.fixture
        def counter():
            counters.append(Counter())
            return counters[-1]

        @pytest.fixture(scope="module")
        async def wide():
            pass

        @pytest.mark.parametrize("number", [0, 1])
        async def test_it(wide, counter, number):
            await nurseryio.sleep(0)
            assert counter.steps
            assert len(counters) == number + 1
            if number:
                before = counters[0].steps
                await nurseryio.sleep(0)
                assert counters[0].steps == before
        """
    ).assert_outcomes(passed=2)


# -- beside other plugins -------------------------------------------------------


@pytest.mark.parametrize("order", ["ours first", "ours last"])
def test_pytest_trio_and_nurseryio_have_fixtures_of_the_same_names_each_for_its_own_tests(
    project: Project, pytester: pytest.Pytester, order: str
) -> None:
    folder = pytester.mkdir("pytest_trio")
    fixtures = """
        import pytest

        @pytest.fixture
        def base():
            return "pytest-trio's"
        """
    for name in ("nursery", "mock_clock", "autojump_clock"):
        fixtures += f"""
        @pytest.fixture
        def {name}(base):
            yield f"{{base}} {name}"
        """
    (folder / "plugin.py").write_text(textwrap.dedent(fixtures), encoding="utf-8")
    (folder / "__init__.py").touch()
    project.plugins.insert(1 if order == "ours first" else 0, "pytest_trio.plugin")
    result = project.run(
        """
        from nurseryio.testing import MockClock

        @pytest.mark.parametrize("name", ["nursery", "mock_clock", "autojump_clock"])
        def test_of_theirs(request, name):
            assert request.getfixturevalue(name) == f"pytest-trio's {name}"

        def test_of_theirs_by_argument(nursery, mock_clock, autojump_clock):
            assert (nursery, mock_clock) == ("pytest-trio's nursery", "pytest-trio's mock_clock")

        async def test_of_ours(nursery):
            assert isinstance(nursery, nurseryio.Nursery)

        async def test_of_ours_with_a_clock(autojump_clock, nursery):
            assert isinstance(autojump_clock, MockClock)
            assert isinstance(nursery, nurseryio.Nursery)
            await nurseryio.sleep(3600)
        """,
        apart=True,
    )
    result.assert_outcomes(passed=6)


THREE = """
    import sniffio
    pytest_plugins = []

    @pytest.fixture(scope="module")
    async def wide():
        async with nurseryio.open_nursery() as nursery:
            yield nursery

    @pytest.fixture
    async def held(nursery):
        yield nursery

    @pytest.fixture
    def anyio_backend():
        return "asyncio"

    @pytest.mark.nurseryio
    async def test_of_nurseryio_with_a_wide_fixture(WIDE):
        await nurseryio.sleep(0)

    @pytest.mark.nurseryio
    async def test_of_nurseryio(held):
        assert not held.cancel_scope.cancel_called
        assert nurseryio.lowlevel.current_root_task() is not None

    @pytest.mark.asyncio
    async def test_of_pytest_asyncio(asyncio_value):
        assert asyncio_value == 1
        assert nurseryio.lowlevel.current_root_task() is None
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 0)

    @pytest.mark.anyio
    async def test_of_anyio(anyio_value):
        assert anyio_value == 2
        assert nurseryio.lowlevel.current_root_task() is None
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 0)

    def test_plain():
        pass
    """.replace("    import sniffio\n    pytest_plugins = []\n", "")

ASYNCIO_FIXTURE = """
    import pytest_asyncio

    @pytest_asyncio.fixture
    async def asyncio_value():
        yield 1
    """

ANYIO_FIXTURE = """
    @pytest.fixture
    async def anyio_value(anyio_backend):
        yield 2
    """


@pytest.mark.parametrize(
    ("nurseryio_mode", "asyncio_mode", "anyio_mode"),
    [
        ("strict", "strict", "strict"),
        ("auto", "strict", "strict"),
        ("strict", "auto", "strict"),
        ("strict", "strict", "auto"),
    ],
)
@pytest.mark.parametrize("order", ["first", "last"])
def test_pytest_asyncio_anyio_and_nurseryio_work_in_one_project(
    project: Project, nurseryio_mode: str, asyncio_mode: str, anyio_mode: str, order: str
) -> None:
    others = ["pytest_asyncio.plugin", "anyio.pytest_plugin"]
    project.plugins = [OURS, *others] if order == "first" else [*others, OURS]
    project.ini = {
        "nurseryio_mode": nurseryio_mode,
        "asyncio_mode": asyncio_mode,
        "asyncio_default_fixture_loop_scope": "function",
    }
    if ANYIO_HAS_A_MODE:
        project.ini["anyio_mode"] = anyio_mode
    source = "\n".join(map(textwrap.dedent, (ASYNCIO_FIXTURE, ANYIO_FIXTURE, THREE)))
    # In its auto mode pytest-asyncio runs all of them on its own loops, in several tasks.
    source = source.replace("WIDE", "" if asyncio_mode == "auto" else "wide")
    project.run(source).assert_outcomes(passed=5)


def test_auto_mode_leaves_what_other_plugins_have_marked(project: Project) -> None:
    project.plugins.append("anyio.pytest_plugin")
    project.run(
        """
        async def test_of_anyio_by_its_fixture(anyio_backend):
            assert nurseryio.lowlevel.current_root_task() is None

        @pytest.fixture
        def anyio_backend():
            return "asyncio"
        """.replace("async def test_of", "@pytest.mark.anyio\n        async def test_of")
    ).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("plugin", "name"),
    [
        ("pytest_asyncio.plugin", "asyncio"),
        pytest.param(
            "anyio.pytest_plugin",
            "anyio",
            marks=pytest.mark.skipif(not ANYIO_HAS_A_MODE, reason="this anyio has no modes"),
        ),
    ],
)
def test_two_plugins_in_auto_mode_are_a_usage_error(
    project: Project, plugin: str, name: str
) -> None:
    project.plugins.append(plugin)
    project.ini[f"{name}_mode"] = "auto"
    project.ini["asyncio_default_fixture_loop_scope"] = "function"
    if name == "anyio":
        del project.ini["asyncio_default_fixture_loop_scope"]
    result = project.run("async def test(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"nurseryio_mode and {name}_mode are both 'auto'" in text_of(result)


def test_a_pytest_asyncio_fixture_joins_the_nurseryio_task_and_may_hold_a_nursery(
    project: Project,
) -> None:
    project.plugins.append("pytest_asyncio.plugin")
    project.ini["asyncio_default_fixture_loop_scope"] = "function"
    project.run(
        """
        import pytest_asyncio

        @pytest_asyncio.fixture
        async def holding():
            async with nurseryio.open_nursery() as nursery:
                yield asyncio.current_task()

        @pytest_asyncio.fixture(scope="module", loop_scope="module")
        async def elsewhere():
            yield asyncio.current_task()

        async def test_it(holding, elsewhere):
            assert holding is asyncio.current_task()
            assert elsewhere is not asyncio.current_task()
        """
    ).assert_outcomes(passed=1)


# -- documentation --------------------------------------------------------------

PAGE = source.ROOT / "docs/testing.md"
EXAMPLES = [
    block
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    if "@pytest.mark.nurseryio" in block
]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_in_the_documentation_pass(project: Project, example: str) -> None:
    del project.ini["nurseryio_mode"]
    # Apart, since what it imports for the first time is forgotten behind a run in this process.
    outcomes = project.run(example, apart=True).parseoutcomes()
    assert set(outcomes) == {"passed"}


def test_the_loops_in_the_documentation_can_be_chosen(project: Project) -> None:
    pytest.importorskip("uvloop")
    (varied,) = re.findall(
        r"^```python\n(import pytest\nimport uvloop\n.*?)^```$", PAGE.read_text(), re.M | re.DOTALL
    )
    test = "async def test_it(): await nurseryio.sleep(0)\n"
    project.run(varied + test).assert_outcomes(passed=2)


# -- speed ----------------------------------------------------------------------


@pytest.mark.limit(120)
def test_a_thousand_autojump_tests_that_sleep_for_minutes_end_in_seconds(project: Project) -> None:
    result = project.run(
        """
        @pytest.mark.parametrize("number", range(1000))
        async def test_it(number, autojump_clock, nursery):
            nursery.start_soon(nurseryio.sleep, 3600)
            with nurseryio.move_on_after(120):
                await nurseryio.sleep_forever()
            await asyncio.sleep(60 * (number % 10))
            assert nurseryio.current_time() == 120 + 60 * (number % 10)
        """,
        "-q",
        "-rN",
    )
    result.assert_outcomes(passed=1000)
    # The tests sleep for more than three days; the figure leaves a slow machine its room.
    assert result.duration < 60


# -- reports --------------------------------------------------------------------

LEAVES_TASKS = """
    async def job():
        await asyncio.sleep(3600)

    async def test_that_leaves(nursery):
        nursery.start_soon(nurseryio.sleep_forever, name="of the fixture")
        asyncio.create_task(job(), name="the job")
        await nurseryio.sleep(0)

    async def test_that_cancels_late():
        asyncio.create_task(job(), name="cancelled").cancel()
"""


def test_tasks_that_a_passed_test_has_left_over_are_listed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONASYNCIODEBUG", raising=False)
    result = project.run(LEAVES_TASKS, apart=True)
    result.assert_outcomes(passed=2)
    lines = text_of(result).partition("tasks that tests have left running (nurseryio)")[2]
    listed = lines.partition("short test summary")[0]
    assert "::test_that_leaves" in listed
    assert "asyncio task the job" in listed
    assert "await asyncio.sleep(3600)" in listed
    assert "of the fixture" not in listed
    assert "cancelled" not in listed
    assert "PYTHONASYNCIODEBUG=1" in listed


def test_tasks_left_over_are_listed_with_the_line_that_made_them_in_debug_mode(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    result = project.run(LEAVES_TASKS, apart=True)
    assert re.search(
        r"; made at \S+\.py:\d+ in test_that_leaves\(\): asyncio.create_task\(job", text_of(result)
    )


def test_tasks_that_a_failed_test_has_left_over_are_in_its_report(project: Project) -> None:
    result = project.run(
        """
        async def test_it():
            asyncio.create_task(asyncio.sleep(3600), name="sleeps")
            await nurseryio.sleep(0)

        @pytest.fixture
        async def fails():
            yield
            raise ValueError

        async def test_with_a_fixture(fails):
            asyncio.create_task(asyncio.sleep(3600), name="sleeps too")
            await nurseryio.sleep(0)
        """
    )
    result.assert_outcomes(passed=2, errors=1)
    text = text_of(result)
    assert text.count("nurseryio: tasks that the test has left running") == 1
    assert "asyncio task sleeps too" in text


def test_tasks_of_a_wider_fixture_are_not_left_over_by_its_tests(project: Project) -> None:
    result = project.run(
        """
        @pytest.fixture(scope="module")
        async def wide():
            task = asyncio.create_task(asyncio.sleep(3600), name="of the fixture")
            yield
            task.cancel()

        async def test_one(wide):
            pass

        async def test_two(wide):
            asyncio.create_task(asyncio.sleep(3600), name="of the test")
        """
    )
    result.assert_outcomes(passed=2)
    listed = text_of(result).partition("tasks that tests have left running (nurseryio)")[2]
    assert "::test_one" not in listed.partition("short test summary")[0]
    assert "of the test" in listed
    assert "of the fixture" not in listed


def test_tasks_left_over_in_a_cancelled_fixture_do_not_disturb_its_tear_down(
    project: Project,
) -> None:
    result = project.run(
        """
        @pytest.fixture(scope="module")
        async def wide():
            with nurseryio.CancelScope() as scope:
                yield scope
            assert scope.cancelled_caught is False

        async def test_it(wide):
            asyncio.create_task(asyncio.sleep(3600), name="of the test")
            wide.cancel()
        """
    )
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "the fixture 'wide' was cancelled due to explicit" in text
    assert "asyncio task of the test" in text


def test_without_tasks_left_over_nothing_is_listed(project: Project) -> None:
    result = project.run(
        """
        async def test_it():
            await asyncio.create_task(asyncio.sleep(0))
        """
    )
    assert "left running" not in text_of(result)


# -- options of the marker: timeout, virtual_time, shuffle --------------------------


def test_the_option_timeout_fails_a_test_where_it_waits_and_shows_its_tasks(
    project: Project,
) -> None:
    result = project.run(
        """
        ended = []

        @pytest.mark.nurseryio(timeout=0.05)
        async def test_slow(nursery):
            nursery.start_soon(nurseryio.sleep_forever, name="helper")
            try:
                await nurseryio.sleep_forever()  # here
            finally:
                ended.append("test")

        async def test_next():
            assert ended == ["test"]
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    text = text_of(result)
    assert "Failed: the test has taken more than 0.05 s\n" in text
    assert re.search(r">\s+await nurseryio\.sleep_forever\(\)  # here", text)
    assert "nurseryio: the tasks when the time was over" in text
    assert re.search(r"test_slow at .*, sleeps for ever: .*# here", text)
    assert "helper sleeps for ever" in text


def test_the_option_timeout_is_in_virtual_time_if_the_test_has_a_virtual_clock(
    project: Project,
) -> None:
    result = project.run(
        """
        pytestmark = pytest.mark.nurseryio(timeout=3600)

        async def test_in_time(autojump_clock):
            await asyncio.sleep(3599)

        async def test_too_slow(autojump_clock):
            await asyncio.sleep(3601)

        @pytest.mark.nurseryio(timeout=4000)
        async def test_the_nearest_marker_counts(autojump_clock):
            await nurseryio.sleep(3601)

        @pytest.mark.nurseryio(timeout=float("inf"))
        async def test_without_a_limit(autojump_clock):
            await nurseryio.sleep(1e6)
        """
    )
    result.assert_outcomes(passed=3, failed=1)
    assert "the test has taken more than 3600 s of virtual time" in text_of(result)


def test_the_setting_nurseryio_timeout_is_for_all_tests_without_the_option(
    project: Project,
) -> None:
    project.ini["nurseryio_timeout"] = "60"
    result = project.run(
        """
        async def test_too_slow(autojump_clock):
            await nurseryio.sleep(61)

        @pytest.mark.nurseryio(timeout=100)
        async def test_in_time(autojump_clock):
            await nurseryio.sleep(61)
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "more than 60 s of virtual time" in text_of(result)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon"])
def test_a_setting_nurseryio_timeout_that_is_not_a_time_is_refused(
    project: Project, value: str
) -> None:
    project.ini["nurseryio_timeout"] = value
    result = project.run("async def test_it(): pass")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "nurseryio_timeout must be a number of seconds above 0" in text_of(result)


def test_a_test_that_swallows_the_cancellation_of_its_timeout_fails_nevertheless(
    project: Project,
) -> None:
    result = project.run(
        """
        @pytest.mark.nurseryio(timeout=1, virtual_time=True)
        async def test_it():
            try:
                await nurseryio.sleep_forever()
            except asyncio.CancelledError:
                pass
        """
    )
    result.assert_outcomes(failed=1)
    assert "the test has taken more than 1 s of virtual time" in text_of(result)

    assert "entries are hidden" not in text_of(result)  # no empty traceback


def test_a_test_that_has_blocked_the_loop_beyond_its_timeout_fails_when_it_ends(
    project: Project,
) -> None:
    result = project.run(
        """
        @pytest.mark.nurseryio(timeout=5)
        async def test_without_an_await(mock_clock):
            mock_clock.jump(6)

        @pytest.mark.nurseryio(timeout=5)
        async def test_in_time(mock_clock):
            mock_clock.jump(4)
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "the test has taken more than 5 s of virtual time" in text_of(result)


def test_options_of_the_marker_that_do_nothing_give_a_warning(project: Project) -> None:
    result = project.run(
        """
        from nurseryio.testing import AsyncTestCase

        pytestmark = pytest.mark.nurseryio(timeout=60)  # for the async tests among these

        @pytest.mark.nurseryio(timeout=5)
        def test_plain():
            pass

        class TestCase(AsyncTestCase):
            @pytest.mark.nurseryio(shuffle=5)
            async def test_of_unittest(self):
                pass

        @pytest.mark.nurseryio
        def test_without_options():
            pass

        @pytest.mark.nurseryio(timeout=5)
        async def test_async():
            pass
        """
    )
    result.assert_outcomes(passed=2, failed=2)
    text = text_of(result)
    assert (
        text.count("E   pytest.PytestWarning: the options of the marker 'nurseryio' have no") == 2
    )
    assert "FAILED" in text and "::test_plain" in text and "::test_of_unittest" in text


def test_an_error_in_the_cleanup_after_a_timeout_is_shown(project: Project) -> None:
    result = project.run(
        """
        @pytest.mark.nurseryio(timeout=1, virtual_time=True)
        async def test_it():
            try:
                await nurseryio.sleep_forever()
            finally:
                raise KeyError("cleanup")
        """
    )
    result.assert_outcomes(failed=1)
    assert "KeyError: 'cleanup'" in text_of(result)


def test_the_option_virtual_time_gives_a_test_a_clock_that_jumps(project: Project) -> None:
    result = project.run(
        """
        pytestmark = pytest.mark.nurseryio(virtual_time=True)

        @pytest.fixture
        async def an_hour():
            await nurseryio.sleep(3600)
            yield
            await nurseryio.sleep(3600)

        async def test_a_day(an_hour):
            await nurseryio.sleep(24 * 3600)
            assert nurseryio.current_time() == 25 * 3600

        async def test_a_clock_that_the_test_asks_for_is_used_instead(mock_clock):
            assert nurseryio.current_time() == 0
            mock_clock.jump(5)
            assert nurseryio.current_time() == 5

        @pytest.mark.nurseryio(virtual_time=False)
        async def test_real_time():
            assert nurseryio.current_time() > 0
        """
    )
    result.assert_outcomes(passed=3)


def test_the_option_virtual_time_and_a_fixture_on_a_shared_loop_in_real_time_is_refused(
    project: Project,
) -> None:
    result = project.run(
        """
        @pytest.fixture(scope="module")
        async def wide():
            yield

        @pytest.mark.nurseryio(virtual_time=True)
        async def test_it(wide):
            pass
        """
    )
    result.assert_outcomes(failed=1)
    text = text_of(result)
    assert "the clock of virtual_time came too late" in text and "real time" in text
    assert "Use a clock from a fixture of the same scope" in text


def test_the_option_virtual_time_uses_the_jumping_clock_of_a_shared_loop(
    project: Project,
) -> None:
    result = project.run(
        """
        from nurseryio.testing import MockClock

        @pytest.fixture(scope="module")
        def clock():
            return MockClock(autojump_threshold=0)

        @pytest.fixture(scope="module")
        async def wide(clock):
            yield

        @pytest.mark.nurseryio(virtual_time=True)
        async def test_it(wide):
            await nurseryio.sleep(3600)
        """
    )
    result.assert_outcomes(passed=1)


# Passes in asyncio's order of tasks, and in some others.
OUT_OF_ORDER = """
    @pytest.mark.nurseryio(shuffle=40)
    async def test_order():
        began = []

        async def child(name):
            await asyncio.sleep(0)
            began.append(name)

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child, "first")
            nursery.start_soon(child, "second")
        assert began == ["first", "second"]
"""


def test_the_option_shuffle_runs_a_test_in_many_orders_and_a_failure_says_how_to_repeat_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = project.run(OUT_OF_ORDER)
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes["failed"] == 40
    assert outcomes["passed"] > 5 and outcomes["failed"] > 5
    text = text_of(result)
    assert "PASSED test_the_option_shuffle_runs" in text and "::test_order[order0]" in text
    line = next(line for line in text.splitlines() if "to repeat it:" in line)
    found = re.fullmatch(
        r"to repeat it: (\w+)=(\S+) python -m pytest '(\S+::test_order\[order\d+\])'", line
    )
    assert found is not None
    assert re.search(r"\d of \d+ choices between ready tasks were not asyncio's", text)

    variable, record, test = found.groups()
    again = project.run(OUT_OF_ORDER, test)
    again.assert_outcomes(failed=1)
    monkeypatch.setenv(variable, record)
    again = project.run(OUT_OF_ORDER, test)
    again.assert_outcomes(failed=1)
    assert line in text_of(again)
    # The record decides, not the number of the run.
    project.run(OUT_OF_ORDER, "-k", "order0").assert_outcomes(failed=1, deselected=39)
    monkeypatch.setenv(variable, "-")
    project.run(OUT_OF_ORDER).assert_outcomes(passed=40)


def test_the_options_of_the_marker_work_on_each_loop(project: Project) -> None:
    run_on_each_loop(
        project,
        """
        @pytest.mark.nurseryio(timeout=60, virtual_time=True, shuffle=2)
        async def test_in_time(request):
            async with nurseryio.open_nursery() as nursery:
                for seconds in (20, 40, 59):
                    nursery.start_soon(asyncio.sleep, seconds)
            assert nurseryio.current_time() == pytest.approx(59)

        @pytest.mark.nurseryio(timeout=60, virtual_time=True)
        async def test_too_slow():
            await asyncio.sleep(61)
        """,
        passed=2,
        failed=1,
    )


def test_a_shuffled_test_that_fails_in_asyncios_order_says_so(project: Project) -> None:
    result = project.run(
        """
        @pytest.mark.nurseryio(shuffle=1)
        @pytest.mark.parametrize("number", [1, 2])
        async def test_it(number):
            await nurseryio.sleep(0)
            assert number == 1
        """
    )
    result.assert_outcomes(passed=1, failed=1)
    assert "as in asyncio\nto repeat it: python -m pytest" in text_of(result)


def test_the_options_timeout_and_shuffle_are_for_every_example_of_hypothesis(
    project: Project,
) -> None:
    pytest.importorskip("hypothesis")
    result = project.run(
        """
        from hypothesis import given, settings, strategies

        @pytest.mark.nurseryio(timeout=60, shuffle=2, virtual_time=True)
        @settings(max_examples=5, database=None, deadline=None)
        @given(number=strategies.integers(0, 3))
        async def test_it(number):
            await nurseryio.sleep(50)
        """
    )
    result.assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("timeout=0", "timeout must be a number of seconds above 0, not 0"),
        ("timeout=True", "timeout must be a number of seconds above 0, not True"),
        ("timeout='5'", "timeout must be a number of seconds above 0, not '5'"),
        ("virtual_time=1", "virtual_time must be True or False, not 1"),
        ("shuffle=-1", "shuffle must be a number of runs, not -1"),
        ("shuffle=True", "shuffle must be a number of runs, not True"),
        ("time=5", "the marker 'nurseryio' has no option 'time', only timeout, virtual_time, "),
        ("5", "the marker 'nurseryio' takes keyword arguments only"),
    ],
)
def test_a_wrong_option_of_the_marker_is_an_error_at_collection(
    project: Project, options: str, message: str
) -> None:
    result = project.run(
        f"""
        @pytest.mark.nurseryio({options})
        async def test_it():
            pass
        """
    )
    result.assert_outcomes(errors=1)
    assert message in text_of(result)
