"""Parts of asyncio that are new in Python 3.11 to 3.15, mixed with nurseries and scopes."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from harness import matrix, programs, source
from harness.core import settle

import nurseryio
from nurseryio import CancelScope, open_nursery, sleep_forever, to_thread
from nurseryio.lowlevel import checkpoint

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

pytestmark = pytest.mark.limit(30)

since_3_11 = pytest.mark.skipif(sys.version_info < (3, 11), reason="new in Python 3.11")
since_3_14 = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
since_3_15 = pytest.mark.skipif(sys.version_info < (3, 15), reason="new in Python 3.15")

VAR = contextvars.ContextVar("VAR", default="unset")


def check_counts() -> None:
    """No cancel request is left in the running task."""
    task: Any = asyncio.current_task()
    assert task.cancelling() == 0


def new_group() -> Any:
    return asyncio.TaskGroup()  # type: ignore[attr-defined]


async def note_end(ended: list[str], name: str = "child") -> None:
    try:
        await sleep_forever()
    finally:
        ended.append(name)


# -- asyncio.TaskGroup.cancel() ------------------------------------------------------


@since_3_15
async def test_task_group_cancel_ends_a_nursery_inside_the_group_and_raises_nothing() -> None:
    ended: list[str] = []
    async with new_group() as group:
        async with open_nursery() as nursery:
            nursery.start_soon(note_end, ended)
            await settle()
            group.cancel()
            group.cancel()
        raise AssertionError("the nursery has swallowed the cancellation of the group")
    assert ended == ["child"]
    check_counts()
    await asyncio.sleep(0)


@since_3_15
async def test_task_group_cancel_by_a_child_of_a_nursery_inside_the_group() -> None:
    ended: list[str] = []

    async def cancel(group: Any) -> None:
        await checkpoint()
        group.cancel()
        ended.append("cancelled")

    async with new_group() as group:
        async with open_nursery() as nursery:
            nursery.start_soon(note_end, ended)
            nursery.start_soon(cancel, group)
    assert ended == ["cancelled", "child"]
    check_counts()


@since_3_15
async def test_task_group_cancel_of_a_group_inside_a_nursery_leaves_the_nursery_alone() -> None:
    ended: list[str] = []

    async def brother() -> None:
        await settle()
        ended.append("brother")

    async with open_nursery() as nursery:
        nursery.start_soon(brother)
        async with new_group() as group:
            group.create_task(note_end(ended))
            await settle()
            group.cancel()
            await asyncio.sleep(3600)
        assert not nursery.cancel_scope.cancel_called
        await settle()
        ended.append("block")
    assert sorted(ended) == ["block", "brother", "child"]
    check_counts()


@since_3_15
async def test_task_group_cancel_cancels_nurseries_in_the_tasks_of_the_group() -> None:
    ended: list[str] = []

    async def task() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(note_end, ended, "inner")

    async with new_group() as group:
        tasks = [group.create_task(task()) for _ in range(3)]
        await settle()
        group.cancel()
    assert ended == ["inner"] * 3
    assert all(task.cancelled() for task in tasks)
    check_counts()


@since_3_15
async def test_task_group_cancel_before_entry_cancels_at_the_first_await() -> None:
    reached = []
    with CancelScope() as scope:
        group = new_group()
        group.cancel()
        async with group:
            reached.append("block")
            async with open_nursery() as nursery:
                nursery.start_soon(checkpoint)
            reached.append("after the nursery")
            await checkpoint()
            reached.append("after a checkpoint")
    assert "after a checkpoint" not in reached
    assert reached[0] == "block"
    assert not scope.cancelled_caught
    check_counts()


@since_3_15
async def test_a_scopes_shield_does_not_keep_task_group_cancel_out_of_a_native_wait() -> None:
    # As with any native cancel: a shield is for the cancellations of scopes.
    async with new_group() as group:
        with CancelScope(shield=True):
            asyncio.get_running_loop().call_soon(group.cancel)
            await sleep_forever()
    check_counts()


@since_3_15
@pytest.mark.parametrize("scope_first", [True, False])
async def test_task_group_cancel_and_a_scopes_cancel_at_the_same_time_both_end(
    scope_first: bool,
) -> None:
    ended: list[str] = []
    with CancelScope() as scope:
        async with new_group() as group:
            with CancelScope() as inner:
                async with open_nursery() as nursery:
                    nursery.start_soon(note_end, ended)
                    await settle()
                    calls = [inner.cancel, group.cancel]
                    for call in calls if scope_first else reversed(calls):
                        call()
            # A native cancel is not caught by the scope.
            raise AssertionError("the cancellation of the group was lost")
    assert ended == ["child"]
    assert not scope.cancel_called
    check_counts()


@since_3_15
async def test_task_group_cancel_inside_a_cancelled_scope_goes_on_to_the_scope() -> None:
    with CancelScope() as scope:
        async with new_group() as group:
            await settle()
            scope.cancel()
            group.cancel()
            await sleep_forever()
        await checkpoint()
        raise AssertionError("the cancellation of the scope was lost")
    assert scope.cancelled_caught
    check_counts()


@since_3_15
async def test_an_error_of_a_nurserys_child_is_raised_by_a_cancelled_task_group() -> None:
    async def fail() -> None:
        try:
            await sleep_forever()
        finally:
            raise ValueError("in the cleanup")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with new_group() as group:
            async with open_nursery() as nursery:
                nursery.start_soon(fail)
                await settle()
                group.cancel()
    assert caught.group_contains(ValueError, match="in the cleanup")
    check_counts()


# -- create_task(eager_start=...) and other keyword arguments ---------------------------


@since_3_14
@pytest.mark.parametrize("eager", [True, False, None])
async def test_an_eager_start_task_opens_nurseries_in_its_first_step(eager: bool | None) -> None:
    log: list[str] = []

    async def child() -> None:
        log.append("child")
        await checkpoint()

    async def body() -> str:
        log.append("begun")
        with nurseryio.move_on_after(3600) as scope:
            async with open_nursery() as nursery:
                nursery.start_soon(child)
                await checkpoint()
                log.append("block")
        assert not scope.cancelled_caught
        return "result"

    loop: Any = asyncio.get_running_loop()
    if _accepts_eager_start(loop):
        task = loop.create_task(body(), eager_start=eager)
    else:
        pytest.skip("this loop does not pass eager_start on")
    if eager:
        assert log == ["begun"]
    log.append("made")
    assert await task == "result"
    expected = ["begun", "made"] if eager or log[0] == "begun" else ["made", "begun"]
    assert log[:2] == expected
    assert sorted(log) == ["begun", "block", "child", "made"]
    check_counts()


def _accepts_eager_start(loop: Any) -> bool:
    async def nothing() -> None: ...

    coro = nothing()
    try:
        task = loop.create_task(coro, eager_start=False)
    except TypeError:
        coro.close()
        return False
    task.cancel()
    return True


@since_3_14
async def test_an_eager_start_task_made_by_a_child_leaves_the_childs_scope_in_place() -> None:
    seen: list[Any] = []

    async def eager() -> None:
        with CancelScope() as scope:
            seen.append(nurseryio.current_effective_deadline())
            scope.cancel()
            await checkpoint()
        seen.append(scope.cancelled_caught)

    async def child() -> None:
        loop: Any = asyncio.get_running_loop()
        with nurseryio.fail_after(3600):
            before = nurseryio.current_effective_deadline()
            task = loop.create_task(eager(), eager_start=True)
            assert nurseryio.current_effective_deadline() == before
            await task
            assert nurseryio.current_effective_deadline() == before

    if not _accepts_eager_start(asyncio.get_running_loop()):
        pytest.skip("this loop does not pass eager_start on")
    async with open_nursery() as nursery:
        nursery.start_soon(child)
    # A task that is not a child is in no scope of its maker.
    assert seen == [float("inf"), True]
    check_counts()


@since_3_14
async def test_an_eager_start_task_that_cancels_its_makers_nursery() -> None:
    async def eager(nursery: Any) -> None:
        nursery.cancel_scope.cancel()
        await asyncio.sleep(0)

    loop: Any = asyncio.get_running_loop()
    if not _accepts_eager_start(loop):
        pytest.skip("this loop does not pass eager_start on")
    ended: list[str] = []
    async with open_nursery() as nursery:
        nursery.start_soon(note_end, ended)
        await settle()
        task = loop.create_task(eager(nursery), eager_start=True)
        await sleep_forever()
    assert nursery.cancel_scope.cancelled_caught
    assert ended == ["child"]
    await task
    check_counts()


@since_3_14
@pytest.mark.app_only
@pytest.mark.stock_only("sets a task factory of its own")
async def test_keyword_arguments_of_create_task_reach_a_task_factory_beside_nurseries() -> None:
    seen: list[dict[str, Any]] = []

    def factory(loop: Any, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
        seen.append(dict(options))
        options.pop("priority", None)
        return asyncio.Task(coro, loop=loop, **options)

    async def child() -> None:
        await asyncio.create_task(checkpoint(), priority=3)  # type: ignore[call-arg]

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(child, name="mine")
    finally:
        loop.set_task_factory(None)
    made_by_nursery, made_by_child = seen
    assert made_by_nursery["name"] == "mine"
    assert "eager_start" not in made_by_nursery
    assert made_by_child["priority"] == 3


@since_3_14
@pytest.mark.app_only
@pytest.mark.stock_only("sets a task factory of its own")
@pytest.mark.parametrize("eager", [True, False])
async def test_a_task_factory_that_sets_eager_start_makes_the_children(eager: bool) -> None:
    def factory(loop: Any, coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
        options["eager_start"] = eager
        return asyncio.Task(coro, loop=loop, **options)

    log: list[str] = []

    async def child() -> None:
        log.append("child")
        await checkpoint()
        log.append("end")

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            log.append("block")
            with CancelScope() as scope:
                async with open_nursery() as inner:
                    inner.start_soon(note_end, log, "cancelled")
                    scope.cancel()
    finally:
        loop.set_task_factory(None)
    assert sorted(log) == sorted(["child", "block", "end", "cancelled"])
    check_counts()


# -- asyncio.Runner ---------------------------------------------------------------------


def new_runner(kind: str = "stock") -> Any:
    factory = functools.partial(matrix.new_loop, kind)
    return asyncio.Runner(loop_factory=factory)  # type: ignore[attr-defined]


@since_3_11
@pytest.mark.parametrize("kind", matrix.KINDS)
def test_several_calls_of_one_asyncio_runner_share_a_loop_and_leave_nothing(kind: str) -> None:
    variable: nurseryio.lowlevel.RunVar[int] = nurseryio.lowlevel.RunVar("runner")
    tokens = []

    async def main(number: int) -> int:
        tokens.append(nurseryio.lowlevel.current_trio_token())
        previous = variable.get(0)
        variable.set(previous + number)
        ended: list[str] = []
        with nurseryio.move_on_after(0.001) as scope:
            async with open_nursery() as nursery:
                nursery.start_soon(note_end, ended)
        assert scope.cancelled_caught and ended == ["child"]
        assert await to_thread.run_sync(len, "abc") == 3
        check_counts()
        return previous

    with new_runner(kind) as runner:
        assert [runner.run(main(number)) for number in (1, 2, 3)] == [0, 1, 3]
        with pytest.raises(ValueError, match="from a child"):
            runner.run(_fail_in_a_nursery())
        assert runner.run(main(4)) == 6
    assert len({id(token) for token in tokens}) == 1
    with pytest.raises(nurseryio.RunFinishedError):
        tokens[0].run_sync_soon(len, "")


async def _fail_in_a_nursery() -> None:
    async def fail() -> None:
        raise ValueError("from a child")

    try:
        async with open_nursery() as nursery:
            nursery.start_soon(fail)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


@since_3_11
def test_asyncio_runner_run_in_a_context_passes_it_to_nurseries_and_threads() -> None:
    seen: list[str] = []

    async def child() -> None:
        seen.append(VAR.get())
        seen.append(await to_thread.run_sync(VAR.get))
        VAR.set("in the child")

    async def main() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
        seen.append(VAR.get())
        VAR.set("later")

    context = contextvars.copy_context()
    context.run(VAR.set, "given")
    with new_runner() as runner:
        runner.run(main(), context=context)
        runner.run(main())
    assert context[VAR] == "later"
    assert seen == ["given"] * 3 + ["unset"] * 3


@since_3_11
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_in_an_asyncio_runner_cancels_the_nursery_and_the_next_run_works() -> None:
    ended: list[str] = []

    async def main() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(note_end, ended)
            await settle()
            os.kill(os.getpid(), signal.SIGINT)
            await sleep_forever()

    async def next_one() -> str:
        await checkpoint()
        check_counts()
        return "works"

    with new_runner() as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.run(main())
        assert ended == ["child"]
        assert runner.run(next_one()) == "works"


# -- flags of the interpreter ---------------------------------------------------------------


def outcome_of(program: str, *options: str, **environment: str) -> list[str]:
    """The words that a program prints; it must end well."""
    ended = subprocess.run(
        [sys.executable, *options, "-c", inspect.cleandoc(program)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(source.ROOT), **environment},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


THREADS_AND_CONTEXTS = """
    import contextvars, threading
    import nurseryio
    from nurseryio import from_thread, to_thread
    from nurseryio.lowlevel import start_thread_soon

    VAR = contextvars.ContextVar("VAR", default="unset")

    async def in_loop():
        return VAR.get()

    def work():
        found = [VAR.get(), from_thread.run_sync(VAR.get), from_thread.run(in_loop)]
        VAR.set("thread")
        return found

    async def main():
        VAR.set("task")
        print(*await to_thread.run_sync(work), VAR.get())
        print(*await to_thread.run_sync(work, abandon_on_cancel=True), VAR.get())
        # The threads of the cache begin and stay in an empty context.
        answers = []
        done = threading.Event()
        for _ in range(2):
            done.clear()
            start_thread_soon(VAR.get, lambda out: (answers.append(out.unwrap()), done.set()))
            await to_thread.run_sync(done.wait)
        print(*answers)
        plain = []
        thread = threading.Thread(target=lambda: plain.append(VAR.get()))
        thread.start()
        thread.join()
        print(*plain)

    nurseryio.run(main)
"""


@since_3_14
@pytest.mark.parametrize("inherit", ["0", "1"])
def test_threads_get_the_tasks_context_whatever_thread_inherit_context_says(inherit: str) -> None:
    words = outcome_of(THREADS_AND_CONTEXTS, "-X", f"thread_inherit_context={inherit}")
    ours, plain = words[:-1], words[-1]
    assert ours == ["task"] * 4 + ["task"] * 4 + ["unset"] * 2
    assert plain == {"0": "unset", "1": "task"}[inherit]


WARNINGS = """
    import sys, warnings
    import nurseryio
    from nurseryio import to_thread

    def warn():
        warnings.warn("from a thread")

    async def child(gate, other):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            gate.set()
            await other.wait()
            warnings.warn("one")
            await to_thread.run_sync(warn)
        print(len(caught))

    async def main():
        # One task is in its block while the other enters and leaves its own.
        first, second = nurseryio.Event(), nurseryio.Event()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child, first, second)
            nursery.start_soon(child, second, first)

    nurseryio.run(main)
"""


@since_3_14
def test_catch_warnings_in_tasks_is_per_task_with_context_aware_warnings() -> None:
    words = outcome_of(WARNINGS, "-X", "context_aware_warnings=1", "-X", "thread_inherit_context=1")
    assert words == ["2", "2"]


@since_3_14
def test_catch_warnings_in_tasks_is_for_the_whole_process_without_that_flag() -> None:
    words = outcome_of(WARNINGS, "-W", "always", "-X", "context_aware_warnings=0")
    # The blocks replace one list of the process, so both tasks' warnings mix, as in asyncio.
    assert words != ["2", "2"]


EVERYTHING = """
    import nurseryio
    for module in ("abc", "aio", "from_thread", "instruments", "lowlevel", "socket", "testing",
                   "to_thread"):
        public = __import__(f"nurseryio.{module}", fromlist=["x"])
        for name in public.__all__:
            getattr(public, name)
    for name in nurseryio.__all__:
        getattr(nurseryio, name)
    nurseryio.preload()

    async def main():
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.lowlevel.checkpoint)
        try:
            import anyio
        except ImportError:
            return
        with anyio.CancelScope(shield=True), nurseryio.move_on_after(0.001) as scope:
            await anyio.sleep(3600)
        assert scope.cancelled_caught

    nurseryio.run(main)
    import sys
    print(sys.get_lazy_imports())
"""

CROSS_SECTION = ("nursery", "cancel_scopes", "foreign_awaits", "tcp", "threads", "channels")


@since_3_15
def test_the_whole_public_api_can_be_used_with_lazy_imports() -> None:
    assert outcome_of(EVERYTHING, "-X", "lazy_imports=all") == ["all"]


@since_3_15
def test_provide_trio_works_with_lazy_imports() -> None:
    program = """
        from nurseryio.aio import provide_trio
        provide_trio()
        import trio
        import trio.lowlevel
        from trio import sleep, lowlevel
        from trio.testing import MockClock
        print(sleep.__name__, lowlevel.checkpoint.__name__, MockClock.__name__)
        try:
            from trio import nothing
            nothing
        except ImportError as error:
            print(type(error.__cause__ or error).__name__)
    """
    words = outcome_of(program, "-X", "lazy_imports=all")
    assert words == ["sleep", "checkpoint", "MockClock", "ImportError"]


def run_cross_section(host: str) -> None:
    program = source.ROOT / "tests" / "loop_programs" / "cross_section.py"
    ended = programs.run(program, "stock", host, *CROSS_SECTION, warnings="default")
    assert ended.returncode == 0, ended.errors
    assert ended.lines == [f"{step}: ok" for step in CROSS_SECTION]


@since_3_15
@pytest.mark.parametrize("host", matrix.HOSTS)
def test_the_cross_section_passes_with_lazy_imports(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_LAZY_IMPORTS", "all")
    run_cross_section(host)


def _has_jit() -> bool:
    available: Callable[[], bool] = getattr(getattr(sys, "_jit", None), "is_available", bool)
    return available()


@pytest.mark.skipif(not _has_jit(), reason="this build of Python has no JIT")
@pytest.mark.parametrize("host", matrix.HOSTS)
def test_the_cross_section_passes_with_the_jit(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_JIT", "1")
    assert outcome_of("import sys; print(sys._jit.is_enabled())") == ["True"]
    run_cross_section(host)


# -- asyncio's tools ------------------------------------------------------------------------

SHOWS_ITSELF = """
    import asyncio, os, subprocess, sys
    import nurseryio

    async def waits_further_in(event):
        await event.wait()

    async def child_of_the_user(event):
        await waits_further_in(event)

    async def main():
        event = nurseryio.Event()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child_of_the_user, event)
            nursery.start_soon(nurseryio.sleep_forever)
            await asyncio.sleep(0)
            command = [sys.executable, "-m", "asyncio", os.environ["COMMAND"], str(os.getpid())]
            print(subprocess.run(command, text=True, stdout=-1, stderr=-2, check=False).stdout)
            nursery.cancel_scope.cancel()

    asyncio.run(main())
"""


@since_3_14
@pytest.mark.parametrize("command", ["ps", "pstree"])
def test_asyncios_commands_show_a_childs_coroutines_to_another_process(command: str) -> None:
    words = outcome_of(SHOWS_ITSELF, COMMAND=command)
    if "permissions." in words:
        pytest.skip("this system does not let a process read another one's memory")
    outwards = ["child_of_the_user", "waits_further_in", "Event.wait"]  # the name of the task first
    expected = outwards[:1] + (outwards if command == "pstree" else outwards[::-1])
    assert [word for word in words if word in outwards] == expected
    assert words.count("sleep_forever") == 2
