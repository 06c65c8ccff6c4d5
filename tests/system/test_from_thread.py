"""From a thread back into the event loop."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import sys
import threading
import types
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NoReturn

import pytest
from harness import matrix, sniffing
from harness.resisting import KINDS, make

import nurseryio
from nurseryio import (
    Cancelled,
    CancelScope,
    Event,
    RunFinishedError,
    from_thread,
    open_nursery,
    to_thread,
)
from nurseryio._asyncio.compat import give_up
from nurseryio._base import Outcome, acapture, capture
from nurseryio._base.thread_cache import start_thread_soon
from nurseryio._system import from_thread as from_thread_module, threads as threads_module
from nurseryio.lowlevel import TrioToken, checkpoint, current_task, current_trio_token

TIMEOUT = 10.0


async def in_foreign_thread(fn: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a thread that is not started by ``to_thread``, and wait for it."""
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    start_thread_soon(
        functools.partial(fn, *args),
        lambda outcome: loop.call_soon_threadsafe(future.set_result, outcome),
    )
    return (await future).unwrap()


# -- from a worker thread -------------------------------------------------------


async def test_from_thread_run_runs_in_the_task_that_waits_for_the_thread() -> None:
    async def where(*args: int) -> tuple[Any, ...]:
        await checkpoint()
        return (*args, current_task(), threading.current_thread())

    got = await to_thread.run_sync(from_thread.run, where, 1, 2)
    assert got == (1, 2, current_task(), threading.current_thread())


async def test_from_thread_run_sync_runs_in_the_task_that_waits_for_the_thread() -> None:
    def where(*args: int) -> tuple[Any, ...]:
        return (*args, current_task(), threading.current_thread())

    got = await to_thread.run_sync(from_thread.run_sync, where, 1, 2)
    assert got == (1, 2, current_task(), threading.current_thread())


async def test_errors_of_from_thread_calls_are_raised_in_the_thread() -> None:
    error = KeyError("x")

    def fail() -> NoReturn:
        raise error

    async def fail_later() -> NoReturn:
        await checkpoint()
        raise error

    def in_thread() -> list[Outcome[Any]]:
        return [
            capture(from_thread.run, fail_later),
            capture(from_thread.run_sync, fail),
        ]

    for outcome in await to_thread.run_sync(in_thread):
        assert outcome.error is error


async def test_a_thread_may_call_from_thread_many_times() -> None:
    def in_thread() -> int:
        total = 0
        for _ in range(20):
            total += from_thread.run_sync(lambda: 1)
            from_thread.run(checkpoint)
        return total

    assert await to_thread.run_sync(in_thread) == 20


async def test_to_thread_and_from_thread_calls_may_nest() -> None:
    def in_thread(depth: int) -> list[int]:
        if not depth:
            return []
        rest = from_thread.run(to_thread.run_sync, in_thread, depth - 1)
        return [threading.get_ident(), *rest]

    idents = await to_thread.run_sync(in_thread, 5)
    assert len(set(idents)) == 5


async def test_asyncio_calls_work_in_from_thread_run() -> None:
    async def use_asyncio() -> str:
        task = asyncio.get_running_loop().create_task(asyncio.sleep(0, "slept"))
        async with open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 0)
        if sys.version_info >= (3, 11):
            async with asyncio.timeout(TIMEOUT):
                await checkpoint()
        return await asyncio.wait_for(task, TIMEOUT)

    assert await to_thread.run_sync(from_thread.run, use_asyncio) == "slept"


async def test_from_thread_refuses_a_sync_or_async_function_of_the_wrong_kind() -> None:
    async def fetch() -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="expected a synchronous function"):
        await to_thread.run_sync(from_thread.run_sync, fetch)
    with pytest.raises(TypeError, match="appears to be synchronous"):
        await to_thread.run_sync(from_thread.run, int)


# -- cancellation ---------------------------------------------------------------


async def test_a_from_thread_call_runs_inside_the_scopes_of_the_waiting_task() -> None:
    errors: list[BaseException] = []

    async def cancel_and_sleep() -> None:
        scope.cancel()
        await nurseryio.sleep_forever()

    def in_thread() -> None:
        try:
            from_thread.run(cancel_and_sleep)
        except Cancelled as exc:
            errors.append(exc)
            raise

    with CancelScope() as scope:
        await to_thread.run_sync(in_thread)
    assert scope.cancelled_caught
    assert len(errors) == 1


async def test_a_native_cancel_is_raised_in_a_from_thread_call_and_passes_the_thread() -> None:
    asleep = Event()

    async def sleep() -> None:
        asleep.set()
        await asyncio.get_running_loop().create_future()

    task = asyncio.get_running_loop().create_task(to_thread.run_sync(from_thread.run, sleep))
    await asleep.wait()
    task.cancel("reason of theirs")
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_from_thread_run_sync_works_in_a_cancelled_task_too() -> None:
    def in_thread() -> str:
        from_thread.run_sync(scope.cancel)
        return from_thread.run_sync(lambda: "called")

    with CancelScope() as scope:
        got = await to_thread.run_sync(in_thread)
        await checkpoint()
    assert scope.cancelled_caught
    assert got == "called"


async def test_from_thread_check_cancelled_raises_if_the_task_is_cancelled() -> None:
    seen = []

    def in_thread() -> None:
        from_thread.check_cancelled()
        seen.append("not cancelled")
        from_thread.run_sync(scope.cancel, "enough")
        # The cancellation is delivered to the task when it waits again.
        from_thread.run_sync(int)
        while True:
            from_thread.check_cancelled()

    with CancelScope() as scope:
        try:
            await to_thread.run_sync(in_thread)
        except Cancelled as exc:
            seen.append(str(exc))
            raise
    assert scope.cancelled_caught
    assert seen[0] == "not cancelled"
    assert seen[1].startswith("cancelled due to explicit with reason 'enough'")


async def test_from_thread_check_cancelled_sees_a_native_cancel_too() -> None:
    at_work = Event()
    token = current_trio_token()
    go = threading.Event()

    def in_thread() -> None:
        token.run_sync_soon(at_work.set)
        assert go.wait(TIMEOUT)
        from_thread.check_cancelled()

    task = asyncio.get_running_loop().create_task(to_thread.run_sync(in_thread))
    await at_work.wait()
    task.cancel()
    await checkpoint()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_from_thread_check_cancelled_works_in_an_abandoned_thread() -> None:
    at_work = Event()
    token = current_trio_token()
    go = threading.Event()
    asked: SimpleQueue[Outcome[None]] = SimpleQueue()

    def in_thread() -> None:
        token.run_sync_soon(at_work.set)
        assert go.wait(TIMEOUT)
        asked.put(capture(from_thread.check_cancelled))

    async with open_nursery() as nursery:
        nursery.start_soon(functools.partial(to_thread.run_sync, in_thread, abandon_on_cancel=True))
        await at_work.wait()
        nursery.cancel_scope.cancel()
    go.set()
    with pytest.raises(Cancelled):
        asked.get(timeout=TIMEOUT).unwrap()


async def test_from_thread_in_another_kind_of_thread_needs_a_trio_token() -> None:
    with pytest.raises(RuntimeError, match=r"=\.\.\.\n.*lowlevel\.current_trio_token\(\)"):
        await in_foreign_thread(functools.partial(from_thread.run_sync, int))


async def test_from_thread_check_cancelled_in_another_kind_of_thread_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=r"created by Trio, .*\n.*to_thread\.run_sync"):
        from_thread.check_cancelled()
    with pytest.raises(RuntimeError, match=r"created by Trio, .*\n.*to_thread\.run_sync"):
        await in_foreign_thread(from_thread.check_cancelled)


async def test_from_thread_run_in_an_abandonable_thread_runs_in_its_own_task() -> None:
    async def where() -> Any:
        await checkpoint()
        return current_task()

    task = await to_thread.run_sync(from_thread.run, where, abandon_on_cancel=True)
    assert task is not current_task()


async def test_a_from_thread_call_goes_on_when_its_thread_is_abandoned() -> None:
    begun, go = Event(), Event()
    asked: SimpleQueue[Outcome[str]] = SimpleQueue()
    answered = Event()
    token = current_trio_token()

    async def slowly() -> str:
        begun.set()
        await go.wait()
        return "done"

    def in_thread() -> None:
        asked.put(capture(from_thread.run, slowly))
        token.run_sync_soon(answered.set)

    async with open_nursery() as nursery:
        nursery.start_soon(functools.partial(to_thread.run_sync, in_thread, abandon_on_cancel=True))
        await begun.wait()
        nursery.cancel_scope.cancel()
    go.set()
    await answered.wait()
    assert asked.get_nowait().unwrap() == "done"


# -- context variables ----------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize("with_token", [True, False])
async def test_a_from_thread_call_sees_a_copy_of_the_threads_contextvars(
    is_async: bool, with_token: bool
) -> None:
    token = current_trio_token() if with_token else None

    def change() -> str:
        before = variable.get()
        variable.set("call's")
        assert variable.get() == "call's"
        return before

    async def change_later() -> str:
        before = change()
        await checkpoint()
        assert variable.get() == "call's"
        return before

    def in_thread() -> str:
        variable.set("thread's")
        if is_async:
            seen = from_thread.run(change_later, trio_token=token)
        else:
            seen = from_thread.run_sync(change, trio_token=token)
        assert variable.get() == "thread's"
        return seen

    variable.set("task's")
    assert await to_thread.run_sync(in_thread) == "thread's"
    assert variable.get() == "task's"


async def test_tasks_spawned_in_a_from_thread_call_inherit_its_contextvars() -> None:
    seen = []

    async def child() -> None:
        seen.append(variable.get())

    async def call() -> None:
        variable.set("call's")
        async with open_nursery() as nursery:
            nursery.start_soon(child)

    variable.set("task's")
    await to_thread.run_sync(from_thread.run, call)
    assert seen == ["call's"]


# -- with a token ---------------------------------------------------------------


async def test_another_librarys_thread_needs_a_trio_token() -> None:
    for call in (from_thread.run, from_thread.run_sync):
        with pytest.raises(RuntimeError, match=r"pass kwarg trio_token=\.\.\."):
            await in_foreign_thread(call, int)


async def test_trio_token_must_be_a_trio_token() -> None:
    for call in (from_thread.run, from_thread.run_sync):
        with pytest.raises(RuntimeError, match="not of type TrioToken"):
            await in_foreign_thread(functools.partial(call, int, trio_token="loop"))


async def test_another_librarys_thread_can_call_the_loop_with_a_trio_token() -> None:
    token = current_trio_token()

    async def where(argument: int) -> tuple[int, Any, threading.Thread]:
        await checkpoint()
        return argument, current_task(), threading.current_thread()

    argument, task, thread = await in_foreign_thread(
        functools.partial(from_thread.run, where, 5, trio_token=token)
    )
    assert argument == 5
    assert task is not current_task()
    assert thread is threading.current_thread()
    assert threading.current_thread() is await in_foreign_thread(
        functools.partial(from_thread.run_sync, threading.current_thread, trio_token=token)
    )


async def test_sniffio_answers_in_from_thread_calls_as_in_a_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sniffio = sniffing.install(monkeypatch)
    ask = sniffio.current_async_library
    token = current_trio_token()

    async def ask_in_task() -> object:
        return ask()

    def work() -> list[object]:
        return [
            ask(),
            from_thread.run_sync(ask, trio_token=token),
            from_thread.run(ask_in_task, trio_token=token),
        ]

    assert ask() == "asyncio"
    assert await in_foreign_thread(work) == [None, "asyncio", "asyncio"]
    assert await to_thread.run_sync(work) == [None, "asyncio", "asyncio"]
    assert await to_thread.run_sync(from_thread.run_sync, ask) == "asyncio"


async def test_a_trio_token_takes_precedence_over_the_waiting_task() -> None:
    async def where() -> Any:
        return current_task()

    token = current_trio_token()
    call = functools.partial(from_thread.run, where, trio_token=token)
    assert await to_thread.run_sync(call) is not current_task()


async def test_errors_of_from_thread_with_a_trio_token_are_raised_in_the_thread_alone() -> None:
    token = current_trio_token()

    def fail() -> NoReturn:
        raise KeyError

    async def fail_later() -> NoReturn:
        await checkpoint()
        raise KeyError

    for call in (
        functools.partial(from_thread.run, fail_later, trio_token=token),
        functools.partial(from_thread.run_sync, fail, trio_token=token),
    ):
        with pytest.raises(KeyError):
            await in_foreign_thread(call)


async def test_from_thread_with_a_trio_token_refuses_wrong_functions_as_well() -> None:
    token = current_trio_token()

    async def fetch() -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="expected a synchronous function"):
        await in_foreign_thread(functools.partial(from_thread.run_sync, fetch, trio_token=token))
    with pytest.raises(TypeError, match="appears to be synchronous"):
        await in_foreign_thread(functools.partial(from_thread.run, int, trio_token=token))


async def test_from_thread_in_the_loops_own_thread_is_an_error() -> None:
    cases = (
        (current_trio_token(), "this is a blocking function"),
        (None, "this thread wasn't created by Trio"),
    )
    for token, text in cases:
        with pytest.raises(RuntimeError, match=rf"{text}.*\n.*call .* directly"):
            from_thread.run_sync(int, trio_token=token)
        with pytest.raises(RuntimeError, match=rf"{text}.*\n.*await it"):
            from_thread.run(checkpoint, trio_token=token)


async def test_from_thread_in_a_thread_with_another_running_loop_is_an_error() -> None:
    token = current_trio_token()

    called = nurseryio.Event()

    async def ask() -> None:
        with pytest.raises(RuntimeError, match=r"blocking.*\n.*token\.run_sync_soon\(function\)"):
            from_thread.run_sync(int, trio_token=token)
        with pytest.raises(RuntimeError, match="this is a blocking function"):
            from_thread.run_sync(int)
        token.run_sync_soon(called.set)  # as the error says

    await to_thread.run_sync(nurseryio.run, ask)
    await called.wait()


# -- when the loop ends ---------------------------------------------------------


def get_token(kind: str) -> tuple[TrioToken, asyncio.AbstractEventLoop]:
    """A loop that has run and stands still, and its token."""

    async def ask() -> TrioToken:
        return current_trio_token()

    loop = matrix.new_loop(kind)
    return loop.run_until_complete(ask()), loop


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_from_thread_after_the_run_raises_run_finished_error(kind: str) -> None:
    async def ask() -> TrioToken:
        return current_trio_token()

    token = nurseryio.run(ask, loop_factory=functools.partial(matrix.new_loop, kind))
    for call in (from_thread.run, from_thread.run_sync):
        with pytest.raises(RunFinishedError):
            call(checkpoint, trio_token=token)


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_from_thread_on_a_closed_loop_raises_run_finished_error(kind: str) -> None:
    token, loop = get_token(kind)
    loop.close()
    for call in (from_thread.run, from_thread.run_sync):
        with pytest.raises(RunFinishedError):
            call(checkpoint, trio_token=token)


class QueueSeen(SimpleQueue[Any]):
    """Says when a thread is about to wait for its answer."""

    about_to_wait: threading.Event

    def get(self, *args: Any, **kwargs: Any) -> Any:
        self.about_to_wait.set()
        return super().get(*args, **kwargs)


@pytest.mark.parametrize("call", [from_thread.run, from_thread.run_sync])
@pytest.mark.parametrize("kind", matrix.KINDS)
def test_from_thread_on_a_loop_that_closes_before_the_call_raises_run_finished_error(
    kind: str, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QueueSeen, "about_to_wait", threading.Event(), raising=False)
    monkeypatch.setattr("nurseryio._system.from_thread.SimpleQueue", QueueSeen)
    token, loop = get_token(kind)
    outcomes: SimpleQueue[Outcome[Any]] = SimpleQueue()
    start_thread_soon(functools.partial(call, checkpoint, trio_token=token), outcomes.put)
    assert QueueSeen.about_to_wait.wait(TIMEOUT)
    del token
    loop.close()
    with pytest.raises(RunFinishedError, match="before it could make this call"):
        outcomes.get(timeout=TIMEOUT).unwrap()


@pytest.fixture
def no_finalizer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are not finalized, as in a free-threaded build while their thread is blocked."""
    monkeypatch.setattr(from_thread_module._Request, "__del__", lambda _request: None)


@pytest.mark.usefixtures("no_finalizer")
@pytest.mark.parametrize("call", [from_thread.run, from_thread.run_sync])
@pytest.mark.parametrize("kind", matrix.KINDS)
def test_closing_the_loop_answers_a_from_thread_call_without_a_finalizer(
    kind: str, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    test_from_thread_on_a_loop_that_closes_before_the_call_raises_run_finished_error(
        kind, call, monkeypatch
    )


@pytest.mark.usefixtures("no_finalizer")
def test_a_loop_that_is_closed_just_before_it_gets_the_from_thread_call_answers_it() -> None:
    token, loop = get_token("stock")
    schedule = loop.call_soon_threadsafe

    def schedule_too_late(*args: Any, **options: Any) -> Any:
        # As if the loop had emptied its queue between the check and the append.
        loop.close()
        return asyncio.Handle(lambda: None, (), loop)

    loop.call_soon_threadsafe = schedule_too_late  # type: ignore[method-assign,assignment]
    for closed_before in (False, True):
        with pytest.raises(RunFinishedError):
            from_thread.run_sync(int, trio_token=token)
        assert loop.is_closed()
        if not closed_before:
            loop.call_soon_threadsafe = schedule  # type: ignore[method-assign]


@pytest.mark.usefixtures("no_finalizer")
@pytest.mark.parametrize("kind", matrix.KINDS)
def test_closing_the_loop_answers_a_from_thread_call_that_its_task_is_serving(kind: str) -> None:
    loop = matrix.new_loop(kind)
    outcomes: SimpleQueue[Outcome[Any]] = SimpleQueue()
    begun = asyncio.Event()

    async def begin_and_wait() -> None:
        begun.set()
        await nurseryio.sleep_forever()

    def work() -> None:
        outcomes.put(capture(from_thread.run, begin_and_wait))

    async def serve() -> asyncio.Task[Any]:
        task = asyncio.ensure_future(to_thread.run_sync(work))
        await begun.wait()
        return task

    kept = loop.run_until_complete(serve())
    loop.close()
    with pytest.raises(RunFinishedError, match="before it could make this call"):
        outcomes.get(timeout=TIMEOUT).unwrap()
    give_up(kept)


@pytest.mark.usefixtures("no_finalizer")
def test_a_from_thread_call_to_a_loop_that_keeps_its_methods_is_answered_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(from_thread_module, "_LOOK_AGAIN", 0.01)
    monkeypatch.setattr(from_thread_module, "closing_of", lambda _loop: None)
    test_from_thread_on_a_loop_that_closes_before_the_call_raises_run_finished_error(
        "stock", from_thread.run_sync, monkeypatch
    )


@pytest.mark.usefixtures("no_finalizer")
async def test_a_task_that_fails_before_it_serves_a_from_thread_call_refuses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcomes: SimpleQueue[Outcome[Any]] = SimpleQueue()
    plain = threads_module.wait_task_rescheduled

    async def wait_and_fail(abort: Any) -> Any:
        await plain(abort)
        raise ValueError("just as the request arrives")

    monkeypatch.setattr(threads_module, "wait_task_rescheduled", wait_and_fail)
    with pytest.raises(ValueError, match="just as"):
        await to_thread.run_sync(lambda: outcomes.put(capture(from_thread.run_sync, int)))
    with pytest.raises(RunFinishedError):
        outcomes.get(timeout=TIMEOUT).unwrap()


@pytest.mark.run_only
async def test_a_from_thread_call_that_runs_when_the_run_ends_is_cancelled(loop_kind: str) -> None:
    outcomes: SimpleQueue[Outcome[Any]] = SimpleQueue()

    async def other_run() -> None:
        begun = Event()

        async def begin_and_sleep() -> None:
            begun.set()
            await nurseryio.sleep_forever()

        token = current_trio_token()
        start_thread_soon(
            functools.partial(from_thread.run, begin_and_sleep, trio_token=token), outcomes.put
        )
        await begun.wait()

    factory = functools.partial(matrix.new_loop, loop_kind)
    await to_thread.run_sync(functools.partial(nurseryio.run, other_run, loop_factory=factory))
    with pytest.raises(Cancelled):
        outcomes.get(timeout=TIMEOUT).unwrap()


@pytest.mark.run_only
async def test_a_run_that_is_ending_starts_no_more_tasks_for_threads(loop_kind: str) -> None:
    seen: list[Outcome[Any]] = []

    async def other_run() -> None:
        await anext_of(generator(current_trio_token()))

    async def generator(token: TrioToken) -> Any:
        try:
            yield
        finally:
            # Finalized by the run at its end, when the system nursery is closed.
            with CancelScope(shield=True):
                call = functools.partial(from_thread.run, checkpoint, trio_token=token)
                seen.append(await acapture(to_thread.run_sync, call))
                seen.append(await acapture(to_thread.run_sync, from_thread.run, checkpoint))

    kept = []

    async def anext_of(agen: Any) -> None:
        kept.append(agen)
        await agen.__anext__()

    factory = functools.partial(matrix.new_loop, loop_kind)
    await to_thread.run_sync(functools.partial(nurseryio.run, other_run, loop_factory=factory))
    with pytest.raises(RunFinishedError):
        seen[0].unwrap()
    # The task that waits for the thread is there, so that one works.
    assert seen[1].unwrap() is None


# -- each call is answered ----------------------------------------------------------

EXITS = [GeneratorExit, KeyboardInterrupt, SystemExit, StopIteration, *KINDS]


@pytest.mark.parametrize("kind", EXITS, ids=lambda kind: kind.__name__)
async def test_every_kind_of_error_of_a_from_thread_call_is_raised_in_the_thread_once(
    kind: Any,
) -> None:
    def fail_sync() -> NoReturn:
        raise make(kind)

    async def fail() -> NoReturn:
        await checkpoint()
        raise make(kind)

    expected = RuntimeError if kind is StopIteration else kind
    token = current_trio_token()

    def work(**options: Any) -> None:
        with pytest.raises(expected):
            from_thread.run(fail, **options)
        with pytest.raises(kind):
            from_thread.run_sync(fail_sync, **options)
        assert from_thread.run(acapture, checkpoint, **options).unwrap() is None

    await to_thread.run_sync(work)
    await to_thread.run_sync(work, abandon_on_cancel=True)
    await in_foreign_thread(functools.partial(work, trio_token=token))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_an_error_that_overrides_its_fields_passes_the_thread_unchanged(kind: Any) -> None:
    error = make(kind)

    async def fail() -> NoReturn:
        raise error

    for abandon in (False, True):
        with pytest.raises(kind) as caught:
            await to_thread.run_sync(from_thread.run, fail, abandon_on_cancel=abandon)
        assert caught.value is error


class Factory:
    """A task factory that does something else than to make a task of what it is given."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __call__(self, loop: Any, coro: Any, **options: Any) -> Any:
        if "_serve_in_own_task" in coro.__qualname__ or "_run_alone" in coro.__qualname__:
            if self.what == "raises":
                raise ValueError("the factory failed")
            task = asyncio.Task(coro, loop=loop, **options)
            task.cancel()
            return task
        return asyncio.Task(coro, loop=loop, **options)


@pytest.mark.app_only
@pytest.mark.stock_only("an eager factory would be replaced")
@pytest.mark.parametrize(("what", "error"), [("raises", ValueError), ("cancels", RunFinishedError)])
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_from_thread_call_whose_task_never_runs_gets_an_error(
    what: str, error: Any
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(Factory(what))
    try:
        token = current_trio_token()

        def work() -> None:
            with pytest.raises(error):
                from_thread.run(checkpoint, trio_token=token)

        await in_foreign_thread(work)
    finally:
        loop.set_task_factory(None)


async def test_a_from_thread_call_whose_task_is_destroyed_gets_an_error() -> None:
    answers: SimpleQueue[Any] = SimpleQueue()
    ended = []

    async def wait() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            ended.append(True)

    request = from_thread_module.AsyncRequest(wait, (), answers)

    async def waiting_task() -> None:
        try:
            await request.serve()
        finally:
            ended.append(False)

    serving: Any = waiting_task()
    serving.send(None)
    serving.close()
    assert ended == [True, False]
    with pytest.raises(RunFinishedError, match="ended before it could make this call"):
        answers.get_nowait().unwrap()


def test_a_from_thread_call_whose_loop_is_destroyed_gets_an_error() -> None:
    answers: SimpleQueue[Any] = SimpleQueue()

    @types.coroutine
    def suspend() -> Any:
        yield

    async def wait() -> None:
        await suspend()

    request = from_thread_module.AsyncRequest(wait, (), answers)
    serving: Any = request._serve_in_own_task()
    serving.send(None)
    serving.close()
    with pytest.raises(RunFinishedError):
        answers.get_nowait().unwrap()
