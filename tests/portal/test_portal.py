"""``open_portal`` and ``shared_portal``: plain code calls async functions on a loop in a thread."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

import pytest
from harness import forks, matrix

import nurseryio
from nurseryio import Cancelled, RunFinishedError
from nurseryio.from_thread import Portal, open_portal, shared_portal
from nurseryio.instruments import task_tree
from nurseryio.lowlevel import checkpoint, current_task

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

FACTORIES: dict[str, Any] = {"stock": None}
if "uvloop" in matrix.KINDS:
    import uvloop

    FACTORIES["uvloop"] = uvloop.new_event_loop


@pytest.fixture(params=FACTORIES)
def portal(request: pytest.FixtureRequest) -> Iterator[Portal]:
    with open_portal(loop_factory=FACTORIES[request.param]) as made:
        yield made


class Thread(threading.Thread):
    """A thread that keeps the error of its function."""

    def __init__(self, function: Any, *args: Any) -> None:
        super().__init__()
        self.function, self.arguments = function, args
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.function(*self.arguments)
        except BaseException as exc:
            self.error = exc


# -- calls ----------------------------------------------------------------------


def test_a_portal_runs_an_async_function_on_a_loop_in_a_thread_of_its_own(portal: Portal) -> None:
    async def add(*numbers: int) -> tuple[int, str, type]:
        await nurseryio.sleep(0)
        loop = type(asyncio.get_running_loop())
        return sum(numbers), threading.current_thread().name, loop

    total, thread, loop = portal.run(add, 1, 2)
    assert (total, thread) == (3, "portal")
    assert ("uvloop" in loop.__module__) == ("uvloop" in type(portal.run_sync(get_loop)).__module__)


def get_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_run_sync_of_a_portal_calls_a_function_in_the_loops_thread(portal: Portal) -> None:
    event = portal.run_sync(nurseryio.Event)
    thread = Thread(portal.run, event.wait)
    portal.run_sync(event.set)
    thread.join()
    assert thread.error is None


def test_a_call_through_a_portal_sees_the_context_variables_of_its_caller(portal: Portal) -> None:
    async def change() -> str:
        before = variable.get()
        variable.set("changed")
        return before

    def in_context() -> tuple[str, str]:
        variable.set("caller's")
        return portal.run(change), variable.get()

    assert contextvars.copy_context().run(in_context) == ("caller's", "caller's")


def test_an_error_of_a_portal_call_is_raised_in_the_caller_with_both_tracebacks(
    portal: Portal,
) -> None:
    error = KeyError("x")

    async def innermost() -> NoReturn:
        await checkpoint()
        raise error

    def calling_function() -> None:
        portal.run(innermost)

    with pytest.raises(KeyError) as caught:
        calling_function()
    assert caught.value is error
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names.index("calling_function") < names.index("innermost")


def test_sys_exit_in_a_portal_call_is_raised_in_the_caller_and_the_portal_goes_on(
    portal: Portal,
) -> None:
    async def exits() -> NoReturn:
        sys.exit(7)

    with pytest.raises(SystemExit) as caught:
        portal.run(exits)
    assert caught.value.code == 7
    assert portal.run(nurseryio.sleep, 0) is None


def test_many_threads_may_call_a_portal_at_once(portal: Portal) -> None:
    number = 30
    inside = 0
    everyone = portal.run_sync(nurseryio.Event)

    async def meet() -> None:
        nonlocal inside
        inside += 1
        if inside == number:
            everyone.set()
        await everyone.wait()

    threads = [Thread(portal.run, meet) for _ in range(number)]
    for thread in threads:
        thread.join()
    assert [thread.error for thread in threads] == [None] * number


def test_a_portal_refuses_functions_of_the_wrong_kind(portal: Portal) -> None:
    async def fetch() -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="appears to be synchronous"):
        portal.run(int)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a synchronous function"):
        portal.run_sync(fetch)


def test_a_portal_call_from_the_loops_own_thread_is_an_error_and_not_a_deadlock(
    portal: Portal,
) -> None:
    async def call() -> None:
        with pytest.raises(RuntimeError, match="would wait for itself"):
            portal.run(checkpoint)
        with pytest.raises(RuntimeError, match="would wait for itself"):
            portal.run_sync(int)
        with pytest.raises(RuntimeError, match="would wait for itself"):
            portal.close()

    portal.run(call)
    assert not portal.closed


def test_a_worker_thread_of_the_portals_loop_may_call_the_portal(portal: Portal) -> None:
    assert portal.run(nurseryio.to_thread.run_sync, portal.run_sync, int) == 0


def test_closing_a_portal_in_a_worker_thread_of_its_loop_is_an_error_and_not_a_deadlock(
    portal: Portal,
) -> None:
    def close() -> None:
        with pytest.raises(RuntimeError, match="a task of its event loop waits for this thread"):
            portal.close()

    portal.run(nurseryio.to_thread.run_sync, close)
    assert not portal.closed


def test_a_worker_thread_that_its_task_may_abandon_can_close_the_portal() -> None:
    async def close() -> None:
        await nurseryio.to_thread.run_sync(portal.close, abandon_on_cancel=True)

    portal = open_portal()
    with pytest.raises(RunFinishedError, match="the portal was closed during this call"):
        portal.run(close)
    assert portal._host.over.wait(30)


async def test_a_portal_may_be_called_in_the_thread_of_another_loop() -> None:
    with open_portal() as portal:

        async def where() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        assert portal.run(where) is not asyncio.get_running_loop()


def test_the_task_tree_shows_calls_through_a_portal_below_the_portal() -> None:
    async def fetch_all() -> str:
        return str(task_tree())

    with open_portal(name="clients") as portal:
        lines = portal.run(fetch_all).splitlines()
    assert lines[0].startswith("clients ")
    assert any("fetch_all" in line for line in lines[1:])


def test_a_nursery_of_a_portal_starts_runs_and_cancels_async_functions(portal: Portal) -> None:
    async def serve(*, task_status: nurseryio.TaskStatus[str]) -> None:
        task_status.started("started")
        await nurseryio.sleep_forever()

    async def answer() -> int:
        return 42

    with portal.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        assert nursery.start(serve) == "started"
        assert nursery.run(answer) == 42
        nursery.cancel()
    with pytest.raises(RuntimeError, match="the block of this portal's nursery was left"):
        nursery.run(answer)


# -- the end --------------------------------------------------------------------


def test_leaving_a_portals_block_waits_for_calls_of_other_threads() -> None:
    done = []

    async def work() -> None:
        begun.set()
        for _ in range(20):
            await checkpoint()
        done.append(True)

    begun = threading.Event()
    with open_portal() as portal:
        thread = Thread(portal.run, work)
        begun.wait()
    assert done == [True]
    thread.join()
    assert thread.error is None


def test_an_error_in_a_portals_block_cancels_calls_of_other_threads() -> None:
    ends = []

    async def work() -> None:
        begun.set()
        try:
            await nurseryio.sleep_forever()
        finally:
            ends.append("cleaned up")

    begun = threading.Event()
    with pytest.raises(KeyError), open_portal() as portal:
        thread = Thread(portal.run, work)
        begun.wait()
        raise KeyError
    assert ends == ["cleaned up"]
    thread.join()
    assert isinstance(thread.error, RunFinishedError)
    assert str(thread.error) == "the portal was closed during this call"
    assert isinstance(thread.error.__cause__, Cancelled)


def test_a_portal_may_be_closed_without_a_block_and_more_than_once() -> None:
    portal = open_portal()
    assert not portal.closed
    portal.close()
    portal.close()
    assert portal.closed


def test_a_call_after_the_end_of_a_portal_is_a_clear_error() -> None:
    with open_portal() as portal:
        pass
    for call in (
        lambda: portal.run(checkpoint),
        lambda: portal.run_sync(int),
        lambda: portal.open_nursery().__enter__(),
    ):
        with pytest.raises(RunFinishedError, match=r"^the portal is closed: its event loop has"):
            call()


def test_a_portal_that_is_forgotten_ends_with_a_resource_warning() -> None:
    portal: Portal | None = open_portal(name="forgotten")
    assert portal is not None
    over = portal._host.over
    with pytest.warns(ResourceWarning, match="unclosed <Portal 'forgotten' at .*, open>"):
        del portal
        gc.collect()
    assert over.wait(30)


def test_a_portal_cannot_be_copied_because_a_copys_end_would_be_the_portals(portal: Portal) -> None:
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a portal cannot be copied or pickled"):
            copied(portal)
    gc.collect()
    assert not portal.closed


def test_a_portal_that_was_closed_ends_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        portal: Portal | None = open_portal()
        assert portal is not None
        portal.close()
        del portal
        gc.collect()


def test_the_repr_of_a_portal_shows_its_name_and_state() -> None:
    with open_portal(name="clients") as portal:
        assert repr(portal).startswith("<Portal 'clients' at 0x")
        assert repr(portal).endswith(", open>")
        with portal.open_nursery() as nursery:
            assert repr(nursery).startswith("<PortalNursery of 'clients' at 0x")
    assert repr(portal).endswith(", closed>")


def test_an_exit_in_a_callback_of_a_portals_loop_is_raised_when_the_portal_is_closed() -> None:
    def exit_now() -> NoReturn:
        sys.exit(5)

    portal = open_portal()
    loop = portal.run_sync(get_loop)
    loop.call_soon_threadsafe(exit_now)
    assert portal._host.over.wait(30)
    with pytest.raises(RunFinishedError, match="the portal is closed") as caught:
        portal.run(checkpoint)
    assert isinstance(caught.value.__cause__, SystemExit)
    with pytest.raises(SystemExit) as left:
        portal.close()
    assert left.value.code == 5


# -- the shared portal ------------------------------------------------------------


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Portal]:
    """A shared portal of the test's own, which ends with the test."""
    monkeypatch.setattr(sys.modules[shared_portal.__globals__["__name__"]], "_shared", None)
    portal = shared_portal()
    yield portal
    portal._host.close(cancel=True)


def test_the_shared_portal_is_opened_once_and_cannot_be_closed(shared: Portal) -> None:
    assert shared_portal() is shared
    assert shared.run(nurseryio.sleep, 0) is None
    with pytest.raises(RuntimeError, match="ends with the program"):
        shared.close()
    with pytest.raises(RuntimeError, match="ends with the program"), shared:
        raise AssertionError


def test_threads_that_need_the_shared_portal_at_once_get_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules[shared_portal.__globals__["__name__"]], "_shared", None)
    found: list[Portal] = []
    barrier = threading.Barrier(8)

    def get() -> None:
        barrier.wait()
        found.append(shared_portal())

    for thread in [Thread(get) for _ in range(8)]:
        thread.join()
    assert len(set(map(id, found))) == 1
    found[0]._host.close(cancel=True)


def test_a_signal_handler_that_needs_the_shared_portal_while_it_is_opened_gets_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = sys.modules[shared_portal.__globals__["__name__"]]
    monkeypatch.setattr(module, "_shared", None)
    found: list[Portal] = []
    made = module._open

    def interrupted(*args: Any, **options: Any) -> Portal:
        monkeypatch.setattr(module, "_open", made)
        found.append(shared_portal())
        return made(*args, **options)

    monkeypatch.setattr(module, "_open", interrupted)
    found.append(shared_portal())
    assert found[0] is found[1]
    found[0]._host.close(cancel=True)


def test_a_shared_portal_whose_loop_has_failed_is_replaced(shared: Portal) -> None:
    shared._host.stop_soon(cancel=True)
    shared._host.over.wait()
    fresh = shared_portal()
    try:
        assert fresh is not shared
        assert fresh.run(nurseryio.sleep, 0) is None
    finally:
        fresh._host.close(cancel=True)


# -- forks, and the end of the program --------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_refuses_the_portal_of_its_parent_and_has_a_shared_one(
    shared: Portal,
) -> None:
    def child() -> None:
        assert repr(portal).endswith(", of the parent process>")
        for call in (lambda: portal.run(checkpoint), lambda: portal.run_sync(int)):
            with pytest.raises(RuntimeError, match="belongs to the parent process"):
                call()
        portal.close()
        fresh = shared_portal()
        assert fresh is not shared
        assert fresh.run(nurseryio.sleep, 0) is None

    with open_portal() as portal:
        assert forks.in_child(child) == 0
        assert portal.run(nurseryio.sleep, 0) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_leaves_the_blocks_of_a_portal_at_once() -> None:
    class LeavingError(Exception):
        pass

    with open_portal() as portal:

        def child() -> None:
            with pytest.raises(LeavingError), portal, portal.open_nursery():
                raise LeavingError

        stack = portal.open_nursery()
        with stack as nursery:
            nursery.start_soon(nurseryio.sleep_forever)

            def child_inside() -> None:
                with pytest.raises(LeavingError):
                    try:
                        raise LeavingError
                    except LeavingError as error:
                        if not stack.__exit__(LeavingError, error, None):
                            raise

            assert forks.in_child(child_inside) == 0
            nursery.cancel()


ENDING = """
import atexit, threading, nurseryio
from nurseryio import from_thread

async def service(name, begun):
    begun.set()
    try:
        await nurseryio.sleep_forever()
    finally:
        with nurseryio.CancelScope(shield=True):
            await nurseryio.sleep(0.01)
        print(name, "cleaned up")

def call(portal, name):
    begun = threading.Event()
    threading.Thread(target=run, args=(portal, name, begun), daemon=True).start()
    begun.wait()

def run(portal, name, begun):
    try:
        portal.run(service, name, begun)
    except nurseryio.RunFinishedError:
        pass

def work():
    main.join()
    print("used by a thread:", from_thread.shared_portal().run(answer))

async def answer():
    return 42

main = threading.main_thread()
own = from_thread.open_portal()
atexit.register(lambda: print("used at exit:", own.run(answer)))
call(own, "own portal")
call(from_thread.shared_portal(), "shared portal")
threading.Thread(target=work).start()
"""


def test_portals_end_with_the_program_after_its_threads_and_exit_functions() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ENDING],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, second, *rest = done.stdout.splitlines()
    assert [first, second] == ["used by a thread: 42", "used at exit: 42"]
    assert sorted(rest) == ["own portal cleaned up", "shared portal cleaned up"]


# -- iterating --------------------------------------------------------------------


def test_a_portal_iterates_an_async_generator_in_one_task(portal: Portal) -> None:
    tasks = set()

    async def count() -> AsyncIterator[int]:
        with nurseryio.CancelScope():
            for number in range(5):
                tasks.add(current_task())
                yield number

    assert list(portal.iterate(count())) == [0, 1, 2, 3, 4]
    assert len(tasks) == 1


def test_leaving_the_iteration_of_a_portal_closes_the_async_generator(portal: Portal) -> None:
    events = []

    async def count() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            events.append("closed")

    iterator = portal.iterate(count())
    assert next(iterator) == 1
    iterator.close()  # type: ignore[attr-defined]
    assert events == ["closed"]


def test_the_cleanup_of_an_async_generator_that_a_portal_iterates_may_await(portal: Portal) -> None:
    events = []

    async def count() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await checkpoint()
            events.append("cleaned up")

    for _ in portal.iterate(count()):
        break
    gc.collect()
    assert events == ["cleaned up"]


def test_closing_a_portal_cancels_the_cleanup_of_an_async_generator() -> None:
    events = []
    cleaning = threading.Event()

    async def count() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            cleaning.set()
            try:
                await nurseryio.sleep_forever()
            except Cancelled:
                events.append("cancelled")
                raise

    with open_portal() as portal:
        iterator: Any = portal.iterate(count())
        next(iterator)
        thread = Thread(iterator.close)
        cleaning.wait()
        portal.close()
        thread.join()
    assert events == ["cancelled"]


def test_an_error_of_an_async_generator_leaves_the_iteration_of_a_portal_bare(
    portal: Portal,
) -> None:
    async def fails() -> AsyncIterator[int]:
        yield 1
        raise KeyError("x")

    got = []
    with pytest.raises(KeyError):
        for number in portal.iterate(fails()):
            got.append(number)
    assert got == [1]


def test_an_async_generator_works_only_while_the_plain_loop_waits_for_an_item(
    portal: Portal,
) -> None:
    made = []

    async def count() -> AsyncIterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    iterator = portal.iterate(count())
    assert (next(iterator), made) == (0, [0])
    portal.run(checkpoint)
    assert (next(iterator), made) == (1, [0, 1])
    iterator.close()  # type: ignore[attr-defined]


def test_a_portal_iterates_an_object_that_is_not_a_generator(portal: Portal) -> None:
    class Count:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Count:
            return self

        async def __anext__(self) -> int:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(portal.iterate(Count())) == [2, 1, 0]


def test_a_portal_refuses_to_iterate_what_is_not_an_async_iterable(portal: Portal) -> None:
    with pytest.raises(TypeError, match=r"can iterate an async iterable, not \[1\]"):
        portal.iterate([1])  # type: ignore[arg-type]


def test_an_iterator_of_a_portal_that_is_dropped_in_the_loops_thread_is_cancelled(
    portal: Portal,
) -> None:
    closed = portal.run_sync(nurseryio.Event)

    async def count() -> AsyncIterator[int]:
        try:
            yield 1
            await nurseryio.sleep_forever()
        finally:
            closed.set()

    kept = [portal.iterate(count())]
    assert next(kept[0]) == 1

    async def drop() -> None:
        kept.clear()
        gc.collect()

    portal.run(drop)
    portal.run(closed.wait)
