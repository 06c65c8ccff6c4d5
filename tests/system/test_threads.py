"""Calling blocking functions in worker threads: results, cancellation, limits."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from harness import matrix

import nurseryio
from nurseryio import CancelScope, CapacityLimiter, Event, open_nursery, to_thread
from nurseryio._base import thread_cache
from nurseryio._system import threads
from nurseryio._system.threads import active_thread_count, wait_all_threads_completed
from nurseryio.lowlevel import checkpoint, current_task

TIMEOUT = 10.0


class Gate:
    """A function for a thread: says in the loop that it is at work, then waits to be let go."""

    def __init__(self) -> None:
        self.at_work = Event()
        self.go = threading.Event()
        self.ended = threading.Event()
        self._loop = asyncio.get_running_loop()

    def __call__(self, result: Any = None) -> Any:
        self._loop.call_soon_threadsafe(self.at_work.set)
        assert self.go.wait(TIMEOUT)
        self.ended.set()
        return result


async def settled(limiter: CapacityLimiter) -> None:
    """Wait until abandoned threads have given their tokens back."""
    while limiter.borrowed_tokens:
        await asyncio.sleep(0.001)


# -- results --------------------------------------------------------------------


async def test_to_thread_run_sync_calls_a_function_in_another_thread() -> None:
    def where(*args: int) -> tuple[tuple[int, ...], threading.Thread]:
        return args, threading.current_thread()

    args, thread = await to_thread.run_sync(where, 1, 2)
    assert args == (1, 2)
    assert thread is not threading.current_thread()


async def test_to_thread_run_sync_raises_the_functions_error_unchanged() -> None:
    error = KeyError("x")

    def fail() -> NoReturn:
        raise error

    with pytest.raises(KeyError) as caught:
        await to_thread.run_sync(fail)
    assert caught.value is error


async def test_the_loop_runs_while_a_thread_works() -> None:
    gate = Gate()
    async with open_nursery() as nursery:
        nursery.start_soon(to_thread.run_sync, gate)
        await gate.at_work.wait()
        for _ in range(5):
            await checkpoint()
        assert not gate.ended.is_set()
        gate.go.set()


async def test_to_thread_run_sync_refuses_wrong_arguments() -> None:
    async def fetch() -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="expected a sync function"):
        await to_thread.run_sync(fetch)
    with pytest.raises(TypeError, match="needs a function to call, not 5"):
        await to_thread.run_sync(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="thread_name must be a string"):
        await to_thread.run_sync(int, thread_name=5)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="limiter must be a CapacityLimiter"):
        await to_thread.run_sync(int, limiter=5)  # type: ignore[call-overload]
    assert to_thread.current_default_thread_limiter().borrowed_tokens == 0


async def test_an_abandon_on_cancel_whose_bool_fails_is_refused_before_anything_happens() -> None:
    class Vague:
        def __bool__(self) -> NoReturn:
            raise NotImplementedError

    with pytest.raises(NotImplementedError):
        await to_thread.run_sync(int, abandon_on_cancel=Vague())  # type: ignore[call-overload]
    assert active_thread_count() == 0


async def test_a_thread_is_named_after_its_function_and_task() -> None:
    def dig() -> str:
        return threading.current_thread().name

    assert await to_thread.run_sync(dig) == f"dig from {current_task().name}"
    assert await to_thread.run_sync(functools.partial(dig)) == f"None from {current_task().name}"
    assert await to_thread.run_sync(dig, thread_name="spade") == "spade"


async def test_to_thread_run_sync_lets_other_tasks_run() -> None:
    order = []

    async def other() -> None:
        order.append("other")

    async with open_nursery() as nursery:
        nursery.start_soon(other)
        await to_thread.run_sync(int)
        order.append("caller")
    assert order == ["other", "caller"]


# -- context variables ----------------------------------------------------------

variable: contextvars.ContextVar[Any] = contextvars.ContextVar("variable")


async def test_a_thread_sees_a_copy_of_the_tasks_contextvars() -> None:
    def change() -> Any:
        before = variable.get()
        variable.set("thread's")
        return before

    variable.set("task's")
    assert await to_thread.run_sync(change) == "task's"
    assert variable.get() == "task's"


async def test_no_reference_to_a_thread_call_is_kept_when_it_is_over() -> None:
    class Thing:
        pass

    def use(_thing: Thing) -> None:
        pass

    gc.disable()
    try:
        value, argument = Thing(), Thing()
        value_gone, argument_gone = weakref.ref(value), weakref.ref(argument)
        variable.set(value)
        await to_thread.run_sync(use, argument)
        variable.set(None)
        del value, argument
        assert value_gone() is None
        assert argument_gone() is None
    finally:
        gc.enable()


# -- cancellation ---------------------------------------------------------------


async def test_a_cancelled_task_starts_no_thread() -> None:
    called = []
    with CancelScope() as scope:
        scope.cancel()
        await to_thread.run_sync(called.append, 1)
    assert scope.cancelled_caught
    assert not called


async def test_a_cancellation_waits_for_the_thread_and_is_raised_after_it() -> None:
    gate = Gate()
    got = []

    async def call() -> None:
        got.append(await to_thread.run_sync(gate, "result"))
        await checkpoint()
        got.append("not reached")

    async with open_nursery() as nursery:
        nursery.start_soon(call)
        await gate.at_work.wait()
        nursery.cancel_scope.cancel()
        with CancelScope(shield=True):
            for _ in range(5):
                await checkpoint()
            assert not got
        gate.go.set()
    assert nursery.cancel_scope.cancelled_caught
    assert got == ["result"]


async def test_a_native_cancel_waits_for_the_thread_and_is_raised_after_it() -> None:
    gate = Gate()
    got = []

    async def call() -> None:
        got.append(await to_thread.run_sync(gate, "result"))
        await asyncio.sleep(0)
        got.append("not reached")

    task = asyncio.get_running_loop().create_task(call())
    await gate.at_work.wait()
    for _ in range(3):
        task.cancel()
        await checkpoint()
    assert not task.done()
    gate.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert got == ["result"]


async def test_abandon_on_cancel_the_thread_goes_on_and_its_result_is_dropped() -> None:
    gate = Gate()
    limiter = CapacityLimiter(1)

    async def call() -> None:
        with pytest.raises(nurseryio.Cancelled):
            await to_thread.run_sync(gate, "result", abandon_on_cancel=True, limiter=limiter)

    async with open_nursery() as nursery:
        nursery.start_soon(call)
        await gate.at_work.wait()
        nursery.cancel_scope.cancel()
    assert not gate.ended.is_set()
    # The token is the thread's, not the task's.
    assert limiter.borrowed_tokens == 1
    assert active_thread_count() == 0
    gate.go.set()
    await settled(limiter)
    assert gate.ended.is_set()


async def test_abandon_on_cancel_a_native_cancel_abandons_the_thread_too() -> None:
    gate = Gate()
    limiter = CapacityLimiter(1)
    task = asyncio.get_running_loop().create_task(
        to_thread.run_sync(gate, abandon_on_cancel=True, limiter=limiter)
    )
    await gate.at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.go.set()
    await settled(limiter)


async def test_abandon_on_cancel_the_error_of_an_abandoned_thread_is_dropped() -> None:
    gate = Gate()
    limiter = CapacityLimiter(1)

    def fail() -> NoReturn:
        gate()
        raise ValueError

    async with open_nursery() as nursery:
        nursery.start_soon(
            functools.partial(to_thread.run_sync, fail, abandon_on_cancel=True, limiter=limiter)
        )
        await gate.at_work.wait()
        nursery.cancel_scope.cancel()
    gate.go.set()
    await settled(limiter)


class CancellingLimiter:
    """A limiter that, as the thread's result arrives, does something else as well."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Never waits."""

    def release_on_behalf_of(self, borrower: object) -> None:
        """Called in the loop, just before the waiting task is woken with the result."""
        self.act()


async def test_abandon_on_cancel_a_result_that_has_arrived_wins_over_a_cancellation() -> None:
    loop = asyncio.get_running_loop()
    with CancelScope() as scope:
        limiter = CancellingLimiter(lambda: loop.call_soon(scope.cancel))
        result = await to_thread.run_sync(lambda: 5, abandon_on_cancel=True, limiter=limiter)
        assert scope.cancel_called
        await checkpoint()
    assert result == 5
    assert scope.cancelled_caught


async def test_abandon_on_cancel_a_cancellation_just_before_the_result_abandons_it() -> None:
    with CancelScope() as scope:
        limiter = CancellingLimiter(scope.cancel)
        await to_thread.run_sync(int, abandon_on_cancel=True, limiter=limiter)
        raise AssertionError("not reached")
    assert scope.cancelled_caught


@pytest.mark.limit(120)
async def test_thread_limit_200_threads_with_a_limit_of_10_all_cancelled_while_running() -> None:
    limiter = CapacityLimiter(10)
    lock = threading.Lock()
    at_work = most = calls = 0
    full = Event()
    loop = asyncio.get_running_loop()
    go = threading.Event()

    def work() -> None:
        nonlocal at_work, most, calls
        with lock:
            calls += 1
            at_work += 1
            most = max(most, at_work)
            if at_work == 10:
                loop.call_soon_threadsafe(full.set)
        assert go.wait(TIMEOUT)
        with lock:
            at_work -= 1

    ended = cancelled = 0

    async def call() -> None:
        nonlocal ended, cancelled
        with CancelScope() as scope:
            scopes.append(scope)
            await to_thread.run_sync(work, limiter=limiter)
            await checkpoint()
        ended += 1
        cancelled += scope.cancelled_caught

    scopes: list[CancelScope] = []
    async with open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(call)
        await full.wait()
        assert limiter.statistics().tasks_waiting == 190
        for scope in scopes:
            scope.cancel()
        await checkpoint()
        # The threads that waited for a token are gone, and running threads are waited for.
        for _ in range(10):
            await checkpoint()
        assert (ended, limiter.borrowed_tokens) == (190, 10)
        go.set()
    assert (ended, cancelled) == (200, 200)
    assert (calls, most, at_work) == (10, 10, 0)
    assert limiter.borrowed_tokens == 0


@pytest.mark.limit(120)
async def test_thread_limit_200_threads_with_a_limit_of_10_all_abandoned() -> None:
    limiter = CapacityLimiter(10)
    lock = threading.Lock()
    at_work = most = calls = 0
    full = Event()
    loop = asyncio.get_running_loop()
    go = threading.Event()

    def work() -> None:
        nonlocal at_work, most, calls
        with lock:
            calls += 1
            at_work += 1
            most = max(most, at_work)
            if calls == 10:
                loop.call_soon_threadsafe(full.set)
        assert go.wait(TIMEOUT)
        with lock:
            at_work -= 1

    async with open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(
                functools.partial(to_thread.run_sync, work, limiter=limiter, abandon_on_cancel=True)
            )
        await full.wait()
        nursery.cancel_scope.cancel()
    assert nursery.cancel_scope.cancelled_caught
    assert limiter.borrowed_tokens == 10
    # A new call has to wait for threads that no task waits for.
    async with open_nursery() as nursery:
        nursery.start_soon(functools.partial(to_thread.run_sync, int, limiter=limiter))
        for _ in range(5):
            await checkpoint()
        assert limiter.statistics().tasks_waiting == 1
        go.set()
    await settled(limiter)
    assert (calls, most, at_work) == (10, 10, 0)


async def test_a_cancelled_wait_for_a_thread_costs_no_cpu() -> None:
    gate = Gate()
    async with open_nursery() as nursery:
        nursery.start_soon(to_thread.run_sync, gate)
        await gate.at_work.wait()
        nursery.cancel_scope.cancel()
        with CancelScope(shield=True):
            await checkpoint()
            cpu = time.process_time()
            await nurseryio.sleep(0.3)
            cpu = time.process_time() - cpu
            gate.go.set()
    assert cpu < 0.1, "seconds of CPU in 0.3 seconds of waiting"


# -- limits ---------------------------------------------------------------------


async def test_each_loop_has_a_default_thread_limit_of_40() -> None:
    limiter = to_thread.current_default_thread_limiter()
    assert limiter.total_tokens == 40
    assert limiter is to_thread.current_default_thread_limiter()

    def other_loop() -> CapacityLimiter:
        async def ask() -> CapacityLimiter:
            return to_thread.current_default_thread_limiter()

        return nurseryio.run(ask)

    assert await to_thread.run_sync(other_loop) is not limiter


async def test_the_default_thread_limiter_limits_the_threads() -> None:
    limiter = to_thread.current_default_thread_limiter()
    limiter.total_tokens = 1
    gate = Gate()
    async with open_nursery() as nursery:
        nursery.start_soon(to_thread.run_sync, gate)
        await gate.at_work.wait()
        nursery.start_soon(to_thread.run_sync, int)
        await checkpoint()
        await checkpoint()
        assert limiter.statistics().tasks_waiting == 1
        gate.go.set()


def test_current_default_thread_limiter_belongs_to_a_loop() -> None:
    with pytest.raises(RuntimeError):
        to_thread.current_default_thread_limiter()


class NotedLimiter:
    """A limiter of another library."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, object]] = []

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Note it."""
        self.notes.append(("acquire", borrower))

    def release_on_behalf_of(self, borrower: object) -> None:
        """Note it."""
        self.notes.append(("release", borrower))


async def test_any_object_with_the_two_limiter_methods_may_be_the_limiter() -> None:
    limiter = NotedLimiter()
    await to_thread.run_sync(int, limiter=limiter)
    (first, borrower), (second, again) = limiter.notes
    assert (first, second) == ("acquire", "release")
    assert borrower is again


async def test_an_error_of_the_limiter_replaces_the_result() -> None:
    class Broken(NotedLimiter):
        def release_on_behalf_of(self, borrower: object) -> NoReturn:
            raise ValueError("jammed")

    with pytest.raises(ValueError, match="jammed") as caught:
        await to_thread.run_sync(int, limiter=Broken())
    assert caught.value.__context__ is None


async def test_an_error_of_the_limiter_is_chained_to_that_of_the_function() -> None:
    class Broken(NotedLimiter):
        def release_on_behalf_of(self, borrower: object) -> NoReturn:
            raise ValueError("jammed")

    def fail() -> NoReturn:
        raise KeyError

    with pytest.raises(ValueError, match="jammed") as caught:
        await to_thread.run_sync(fail, limiter=Broken())
    assert isinstance(caught.value.__context__, KeyError)


async def test_a_thread_that_cannot_be_started_releases_its_limiter_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "start_thread_soon", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await to_thread.run_sync(int)
    assert to_thread.current_default_thread_limiter().borrowed_tokens == 0
    assert active_thread_count() == 0


# -- counting -------------------------------------------------------------------


async def test_wait_all_threads_completed_waits_until_no_task_waits_for_a_thread() -> None:
    gates = [Gate(), Gate()]
    done = []

    async def watch() -> None:
        await wait_all_threads_completed()
        done.append(active_thread_count())

    async with open_nursery() as nursery:
        for gate in gates:
            nursery.start_soon(to_thread.run_sync, gate)
            await gate.at_work.wait()
        assert active_thread_count() == 2
        nursery.start_soon(watch)
        nursery.start_soon(watch)
        await checkpoint()
        gates[0].go.set()
        while active_thread_count() == 2:
            await checkpoint()
        assert not done
        gates[1].go.set()
    assert done == [0, 0]


async def test_wait_all_threads_completed_without_threads_returns_at_once() -> None:
    await wait_all_threads_completed()
    assert active_thread_count() == 0


async def test_wait_all_threads_completed_is_a_checkpoint() -> None:
    with CancelScope() as scope:
        scope.cancel()
        await wait_all_threads_completed()
    assert scope.cancelled_caught


# -- the end of things ----------------------------------------------------------


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_an_abandoned_thread_may_outlive_its_loop(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_cache, "IDLE_SECONDS", 0.01)
    at_work, go = threading.Event(), threading.Event()
    thread: list[threading.Thread] = []

    def work() -> None:
        thread.append(threading.current_thread())
        at_work.set()
        assert go.wait(TIMEOUT)

    async def main() -> None:
        with nurseryio.move_on_after(0.01):
            await to_thread.run_sync(work, abandon_on_cancel=True)
        assert at_work.wait(TIMEOUT)

    nurseryio.run(main, loop_factory=functools.partial(matrix.new_loop, kind))
    go.set()
    # An error in delivery would be printed on its standard error; that it ends is enough.
    thread[0].join(TIMEOUT)
    assert not thread[0].is_alive()


@pytest.mark.parametrize("host", ["nurseryio.run(main)", "asyncio.run(main())"])
def test_an_abandoned_thread_does_not_stop_process_exit(host: str) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "import asyncio, threading, nurseryio\n"
            "async def main():\n"
            "    with nurseryio.move_on_after(0.05):\n"
            "        await nurseryio.to_thread.run_sync(\n"
            "            threading.Event().wait, abandon_on_cancel=True)\n"
            "    print('end of program')\n"
            f"{host}\n",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end of program\n", "")
