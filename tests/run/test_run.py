"""run(): it makes its own loop, from the first task to the last."""

# Covered below 95 %: a run in a forked child is in test_forked.py, and forked children are not
# measured; instruments under the plugin are in test_pytest_plugin.py, crashes in test_injection.py,
# clocks in test_clock.py.

from __future__ import annotations

import asyncio
import contextvars
import importlib
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from harness import matrix, pypy
from harness.resisting import KINDS, Classless, Nameless, make

import nurseryio
from nurseryio import TrioInternalError, open_nursery, run
from nurseryio._asyncio.closing import closing_of
from nurseryio._run.run import Run
from nurseryio.lowlevel import (
    checkpoint,
    current_root_task,
    current_task,
    current_trio_token,
    spawn_system_task,
)
from nurseryio.testing import MockClock

# The name in the package is that of the function.
run_module = importlib.import_module("nurseryio._run.run")

VAR = contextvars.ContextVar("VAR", default="outside")


async def give(value: object) -> object:
    await checkpoint()
    return value


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_run_returns_the_functions_result() -> None:
    assert run(give, 5) == 5


def test_run_raises_the_functions_error_unchanged() -> None:
    async def main() -> None:
        raise KeyError("main")

    with pytest.raises(KeyError, match="main") as caught:
        run(main)
    assert caught.traceback[-1].name == "main"


def test_run_closes_its_loop_and_leaves_no_event_loop_set() -> None:
    loops = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())

    run(main)
    assert loops[0].is_closed()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_a_loop_factory_chooses_the_loop() -> None:
    made = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.SelectorEventLoop())
        return made[0]

    async def main() -> bool:
        return asyncio.get_running_loop() is made[0]

    assert run(main, loop_factory=factory)


@pytest.mark.parametrize("factory", [5, lambda: "no loop"])
def test_a_loop_factory_that_makes_no_loop_is_refused(factory: Any) -> None:
    with pytest.raises(TypeError, match="loop"):
        run(give, 5, loop_factory=factory)


async def test_run_inside_a_running_loop_is_an_error_that_says_to_await() -> None:
    with pytest.raises(RuntimeError, match="just await the function"):
        run(give, 5)


def test_run_refuses_what_is_not_an_async_function() -> None:
    with pytest.raises(TypeError, match="did you write give"):
        run(give(5))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="synchronous"):
        run(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        run(5)  # type: ignore[arg-type]


def test_contextvars_of_the_caller_are_seen_in_run_and_changes_stay_inside() -> None:
    async def main() -> str:
        before = VAR.get()
        VAR.set("inside")
        return before

    token = VAR.set("caller")
    try:
        assert run(main) == "caller"
        assert VAR.get() == "caller"
    finally:
        VAR.reset(token)


def test_the_main_task_has_the_name_of_its_function() -> None:
    async def main() -> tuple[str, Any]:
        return current_task().name, current_task().coro.__qualname__

    name, coro_name = run(main)
    assert name.endswith("<locals>.main")
    assert coro_name.endswith("<locals>.main")


def test_asyncio_tasks_left_running_are_cancelled_at_the_end_of_run() -> None:
    record = []

    async def left() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            record.append("cancelled")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(left())
        await asyncio.sleep(0)
        return task

    assert run(main).cancelled()
    assert record == ["cancelled"]


def test_an_error_of_a_leftover_asyncio_task_is_reported() -> None:
    reports: list[Any] = []

    async def left() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise KeyError("left")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
        main.task = asyncio.create_task(left())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    run(main)
    assert [repr(report) for report in reports] == ["KeyError('left')"]


def test_run_takes_a_clock() -> None:
    async def main() -> float:
        await nurseryio.sleep(3600)
        return nurseryio.current_time()

    assert run(main, clock=MockClock(autojump_threshold=0)) == 3600


def test_runs_in_several_threads_are_independent() -> None:
    results: dict[int, object] = {}
    barrier = threading.Barrier(4, timeout=30)

    async def main(number: int) -> int:
        barrier.wait()
        async with open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(give, number)
        return number

    def in_thread(number: int) -> None:
        results[number] = run(main, number)

    threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: number for number in range(4)}


def test_one_run_after_the_other() -> None:
    assert [run(give, number) for number in range(3)] == [0, 1, 2]


def test_a_lone_system_exit_of_a_child_leaves_run_bare() -> None:
    async def child() -> None:
        sys.exit(7)

    async def main() -> None:
        async with open_nursery() as outer, open_nursery():
            outer.start_soon(child)
            await nurseryio.sleep_forever()

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 7
    with pytest.raises(BaseException) as group:
        run(main, strict_exception_groups=True)
    assert type(group.value).__name__ == "BaseExceptionGroup"


def test_run_with_strict_exception_groups_false_works_and_warns() -> None:
    async def main() -> None:
        async with open_nursery():
            raise KeyError("alone")

    with pytest.warns(nurseryio.TrioDeprecationWarning), pytest.raises(KeyError):
        run(main, strict_exception_groups=False)


def test_a_native_cancel_of_the_root_task_is_a_trio_internal_error() -> None:
    async def main() -> None:
        nursery = current_task().parent_nursery
        assert nursery is not None
        nursery.parent_task.asyncio_task.cancel()
        await nurseryio.sleep_forever()

    with pytest.raises((TrioInternalError, nurseryio.Cancelled)):
        run(main)


# -- exits of asyncio code ------------------------------------------------------


async def exiting(code: int = 3) -> None:
    sys.exit(code)


async def exit_in_a_task() -> None:
    exit_in_a_task.task = asyncio.create_task(exiting())  # type: ignore[attr-defined]


async def exit_in_a_callback() -> None:
    asyncio.get_running_loop().call_soon(sys.exit, 3)


async def exit_in_a_timer() -> None:
    asyncio.get_running_loop().call_later(0.01, sys.exit, 3)


async def exit_from_a_thread() -> None:
    loop = asyncio.get_running_loop()
    threading.Thread(target=loop.call_soon_threadsafe, args=(sys.exit, 3)).start()


async def exit_in_a_signal_handler() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, sys.exit, 3)
    signal.raise_signal(signal.SIGUSR1)


async def exit_in_a_task_group() -> None:
    if sys.version_info >= (3, 11):
        async with asyncio.TaskGroup() as group:
            group.create_task(exiting())
    else:
        await exit_in_a_task()


async def exit_in_run_sync_soon() -> None:
    current_trio_token().run_sync_soon(sys.exit, 3)


async def exit_in_a_system_task() -> None:
    spawn_system_task(exiting)


async def exit_by_ctrl_c_twice() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    asyncio.get_running_loop().call_soon(interrupt)


EXITS = [
    exit_in_a_task,
    exit_in_a_callback,
    exit_in_a_timer,
    exit_from_a_thread,
    exit_in_a_signal_handler,
    exit_in_a_task_group,
    exit_in_run_sync_soon,
    exit_in_a_system_task,
    exit_by_ctrl_c_twice,
]


@pytest.mark.parametrize("kind", matrix.KINDS)
@pytest.mark.parametrize("leave", EXITS)
def test_a_system_exit_of_asyncio_code_leaves_run_bare_after_the_cleanup(
    leave: Callable[[], Awaitable[None]], kind: str
) -> None:
    record: list[str] = []

    async def clean_up(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            with nurseryio.CancelScope(shield=True):
                await nurseryio.sleep(0.001)
            record.append(name)

    async def main() -> None:
        task = asyncio.create_task(clean_up("asyncio"))
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(clean_up, "child")
                spawn_system_task(clean_up, "system")
                await nurseryio.sleep(0.001)
                await leave()
                await nurseryio.sleep(60)
        finally:
            record.append("main")
        await task

    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:
        run(main, loop_factory=lambda: quiet(matrix.new_loop(kind)))
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 3
    assert sorted(record) == ["asyncio", "child", "main", "system"]


def quiet(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """asyncio reports a task whose SystemExit has left the loop: its error was not retrieved."""
    loop.set_exception_handler(lambda _loop, _context: None)
    return loop


def test_a_system_exit_has_the_error_of_the_main_task_that_it_ends_as_its_context() -> None:
    reports: list[Any] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
        loop.call_soon(sys.exit, 3)
        try:
            await nurseryio.sleep(60)
        finally:
            raise KeyError("cleanup")

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert repr(caught.value.__context__) == "KeyError('cleanup')"
    # Python prints nothing for a SystemExit, so it is logged too.
    assert reports == [caught.value.__context__]


@pytest.mark.parametrize("kind", ["stock", "eager"] if "eager" in matrix.KINDS else ["stock"])
def test_the_first_of_many_system_exits_counts_and_all_tasks_end(kind: str) -> None:
    record = []

    async def exits_again(code: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            record.append(code)
            sys.exit(code)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = [asyncio.create_task(exits_again(code)) for code in range(100, 250)]
        await nurseryio.sleep(0.001)
        for code in range(3, 9):
            loop.call_soon(sys.exit, code)
        try:
            await nurseryio.sleep(60)
        finally:
            del tasks
            sys.exit(99)

    with pytest.raises(SystemExit) as caught:
        run(main, loop_factory=lambda: quiet(matrix.new_loop(kind)))
    assert caught.value.code == 3
    assert sorted(record) == list(range(100, 250))


def test_a_callback_that_raises_system_exit_for_ever_does_not_keep_the_program_running() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)
            sys.exit(3)

        loop.call_soon(again)
        await nurseryio.sleep(60)

    with pytest.raises(SystemExit):
        run(main)


def test_loop_stop_by_other_code_ends_the_run_with_asyncios_error() -> None:
    record = []

    async def main() -> None:
        asyncio.get_running_loop().stop()
        try:
            await nurseryio.sleep(60)
        finally:
            record.append("cleaned up")

    with pytest.raises(RuntimeError, match="stopped before Future completed"):
        run(main)
    assert record == ["cleaned up"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_system_exit_before_the_main_task_stops_it_from_starting(error: BaseException) -> None:
    async def main() -> None:
        raise AssertionError("must not run")

    def leave() -> None:
        raise error

    def factory() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        loop.call_soon(leave)
        return loop

    with pytest.raises(type(error)) as caught:
        run(main, loop_factory=factory)
    assert caught.value is error


def test_a_system_exit_in_an_async_generator_is_raised_after_the_others_are_closed() -> None:
    record = []
    held = []

    async def generator(code: int) -> AsyncIterator[None]:
        try:
            yield
        finally:
            record.append(code)
            sys.exit(code)

    async def main() -> None:
        for code in (3, 4):
            held.append(generator(code))
            await held[-1].__anext__()

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code in (3, 4)
    assert sorted(record) == [3, 4]


# -- loops that make no tasks ---------------------------------------------------


def loop_with(factory: Any, kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    def make() -> asyncio.AbstractEventLoop:
        loop = matrix.new_loop(kind)
        loop.set_task_factory(factory)
        return loop

    return make


PLAIN_KINDS = [kind for kind in matrix.KINDS if kind != "eager"]


@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_a_task_factory_that_raises_has_its_error_raised(kind: str) -> None:
    def factory(_loop: object, coro: Any, **_options: object) -> Any:
        coro.close()
        raise ZeroDivisionError("factory")

    with pytest.raises(ZeroDivisionError, match="factory"):
        run(give, 5, loop_factory=loop_with(factory, kind))


@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_a_task_factory_that_raises_at_the_end_has_its_error_raised(kind: str) -> None:
    failing = False

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        if failing:
            raise ZeroDivisionError("factory")
        return asyncio.Task(coro, loop=loop, **options)

    async def main() -> None:
        nonlocal failing
        failing = True

    with pytest.raises(ZeroDivisionError, match="factory"):
        run(main, loop_factory=loop_with(factory, kind))


@pytest.mark.parametrize("kind", PLAIN_KINDS)
@pytest.mark.parametrize("what", ["nothing", "a future", "a done task"])
def test_a_task_factory_that_returns_something_else_is_an_error(what: str, kind: str) -> None:
    async def nothing() -> None:
        pass

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **_options: object) -> Any:
        coro.close()
        if what == "nothing":
            return None
        if what == "a future":
            return loop.create_future()
        return asyncio.Task(nothing(), loop=loop)

    with warnings.catch_warnings(), pytest.raises((TypeError, AttributeError, RuntimeError)):
        warnings.simplefilter("ignore", DeprecationWarning)  # of a task that cannot be named
        run(give, 5, loop_factory=loop_with(factory, kind))


@pytest.mark.parametrize("kind", PLAIN_KINDS)
def test_a_task_factory_may_wrap_the_root_task_s_coroutine(kind: str) -> None:
    async def wrapping(coro: Any) -> Any:
        return await coro

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        first = not made
        made.append(coro)
        return asyncio.Task(wrapping(coro) if first else coro, loop=loop, **options)

    made: list[Any] = []
    assert run(give, 5, loop_factory=loop_with(factory, kind)) == 5


@pytest.mark.parametrize("method", ["shutdown_asyncgens", "shutdown_default_executor"])
def test_a_loop_that_cannot_be_shut_down_has_its_error_raised(method: str) -> None:
    async def fail() -> None:
        raise KeyError(method)

    def factory() -> asyncio.AbstractEventLoop:
        loop = asyncio.new_event_loop()
        setattr(loop, method, fail)
        return loop

    with pytest.raises(KeyError, match=method):
        run(give, 5, loop_factory=factory)


# -- exit codes -----------------------------------------------------------------

EXIT = """
import sys, nurseryio
async def child():
    sys.exit(3)
async def main():
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
        try:
            await nurseryio.sleep_forever()
        finally:
            print("cleaned up")
{how}
"""


@pytest.mark.parametrize("how", ["nurseryio.run(main)", "import asyncio; asyncio.run(main())"])
def test_exit_codes_survive_and_nothing_is_printed(how: str) -> None:
    done = run_python(EXIT.format(how=how))
    assert (done.returncode, done.stdout, done.stderr) == (3, "cleaned up\n", "")


# -- a run that itself fails ------------------------------------------------------


class Fails:
    """A function that fails at its first call, and a real one from then on."""

    def __init__(self, real: Callable[..., Any], error: BaseException) -> None:
        self.real = real
        self.error: BaseException | None = error

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        return self.real(*args, **kwargs)


@pytest.fixture
def loops() -> Iterator[list[asyncio.AbstractEventLoop]]:
    """The loops that :func:`tracked` has made: all are closed at the end, and signals are free."""
    made: list[asyncio.AbstractEventLoop] = []
    yield made
    assert made
    assert all(loop.is_closed() for loop in made)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1
    assert sys.get_asyncgen_hooks() == (None, None)


def tracked(made: list[asyncio.AbstractEventLoop], kind: str = "stock") -> Callable[[], Any]:
    def make() -> asyncio.AbstractEventLoop:
        made.append(matrix.new_loop(kind))
        return made[-1]

    return make


PLACES = [
    (run_module, "loop_state"),
    (run_module, "FinalError"),
    (run_module, "Driver"),
    (run_module, "KIHandler"),
    (run_module, "use_clock"),
    (Run, "take_signals"),
    (Run, "make_current"),
    (Run, "start"),
    (Run, "drive"),
    (Run, "finish"),
    (Run, "close"),
    (Run, "give_signals_back"),
    (run_module, "sweep_closed_loops"),
    (Run, "_loop_stopped"),
]


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), KeyboardInterrupt()])
@pytest.mark.parametrize(("owner", "name"), PLACES, ids=[name for _, name in PLACES])
def test_a_run_that_fails_raises_its_error_and_leaves_no_loop_open(
    loops: list[asyncio.AbstractEventLoop],
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    error: BaseException,
) -> None:
    fails = Fails(getattr(owner, name), error)
    if owner is Run:
        monkeypatch.setattr(Run, name, lambda *args, **kwargs: fails(*args, **kwargs))
    else:
        monkeypatch.setattr(owner, name, fails)
    with pytest.raises(type(error)) as caught:
        run(give, 5, loop_factory=tracked(loops), clock=MockClock(autojump_threshold=0))
    assert caught.value is error


@pytest.mark.parametrize("name", ["finish", "close", "give_signals_back", "_loop_stopped"])
def test_the_error_of_the_main_task_is_not_lost_when_the_shutdown_of_the_run_fails(
    loops: list[asyncio.AbstractEventLoop], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    fails = Fails(getattr(Run, name), MemoryError("the end"))
    monkeypatch.setattr(Run, name, lambda self: fails(self))
    own = KeyError("main")

    async def main() -> None:
        raise own

    with pytest.raises(MemoryError, match="the end") as caught:
        run(main, loop_factory=tracked(loops))
    assert caught.value.__context__ is own


def test_a_loop_that_cannot_be_closed_at_first_is_closed_and_its_error_raised(
    loops: list[asyncio.AbstractEventLoop],
) -> None:
    def make() -> asyncio.AbstractEventLoop:
        loop: Any = tracked(loops)()
        loop.close = Fails(loop.close, OSError("close"))
        return loop  # type: ignore[no-any-return]

    with pytest.raises(OSError, match="close"):
        run(give, 5, loop_factory=make)


def test_a_thread_that_begins_to_wait_for_a_loop_while_the_run_closes_it_is_answered() -> None:
    answered = []

    class Loop(asyncio.SelectorEventLoop):
        def close(self) -> None:
            if not self.is_closed():
                closing = closing_of(self)
                assert closing is not None
                closing.add("thread", lambda: answered.append(True))
            super().close()

    assert run(give, 5, loop_factory=Loop) == 5
    assert answered == [True]


def test_a_clock_that_cannot_be_started_leaves_no_loop_open(
    loops: list[asyncio.AbstractEventLoop],
) -> None:
    class Broken(nurseryio.abc.Clock):
        def start_clock(self) -> None:
            raise OSError("no clock")

        def current_time(self) -> float:
            return 0.0

        def deadline_to_sleep_time(self, deadline: float) -> float:
            return deadline

    with pytest.raises(OSError, match="no clock"):
        run(give, 5, loop_factory=tracked(loops), clock=Broken())


def test_the_error_for_a_wrong_loop_factory_names_its_result_even_if_repr_fails() -> None:
    with pytest.raises(TypeError, match="must return an event loop, not <Nameless"):
        run(give, 5, loop_factory=Nameless)  # type: ignore[arg-type]


@pypy.needs_own_exception_fields
@pytest.mark.parametrize("kind", [*KINDS, Classless])
def test_an_error_of_the_main_task_that_overrides_its_fields_is_raised_unchanged(kind: Any) -> None:
    error = make(kind)

    async def main() -> None:
        raise error

    try:
        run(main)
    except BaseException as caught:
        assert caught is error  # pytest.raises() asks more of an exception than "except"
    else:
        pytest.fail("nothing was raised")


async def test_current_root_task_is_the_root_task_of_the_run(host_kind: str) -> None:
    root = current_root_task()
    if host_kind == "app":
        assert root is None
    else:
        assert root is not None
        assert root.name == "<init>"
        assert root.parent_nursery is None
        nursery = current_task().parent_nursery
        assert nursery is not None
        assert nursery.parent_task is root
