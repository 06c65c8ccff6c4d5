"""The record of one call in a worker thread, seen without any public function around it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from harness.resisting import KINDS, Nameless, make

from nurseryio import Cancelled, CapacityLimiter, RunFinishedError
from nurseryio._base import Error, Value
from nurseryio._base.exc_fields import context_of
from nurseryio._core import Abort, current_task, reschedule, wait_task_rescheduled
from nurseryio._system import thread_call as hop_module
from nurseryio._system.thread_call import Hop, current_hop, function_name


class NoLimit:
    """A limiter that counts what is given back."""

    def __init__(self) -> None:
        self.released: list[object] = []

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Never waits."""

    def release_on_behalf_of(self, borrower: object) -> None:
        """Note who gives back."""
        self.released.append(borrower)


def new_hop(
    fn: Callable[..., Any] = int,
    *args: Any,
    abandon: bool = False,
    limiter: Any = None,
    loop: Any = None,
) -> Hop:
    return Hop(
        (fn, args, contextvars.copy_context()),
        current_task(),
        loop or asyncio.get_running_loop(),
        limiter or NoLimit(),
        abandon,
    )


async def test_a_thread_call_calls_its_function_and_is_the_current_one_meanwhile() -> None:
    hop = new_hop(lambda x: (x, current_hop()), 3)
    assert hop.work() == (3, hop)
    assert current_hop() is None


async def test_a_thread_call_is_not_current_any_more_after_an_error() -> None:
    def fail() -> NoReturn:
        raise KeyError

    with pytest.raises(KeyError):
        new_hop(fail).work()
    assert current_hop() is None


async def test_a_thread_call_of_an_async_function_is_refused_without_a_warning() -> None:
    async def fetch() -> None:
        raise AssertionError

    with pytest.raises(TypeError, match=r"expected a sync function, but .*fetch.* asynchronous"):
        new_hop(fetch).work()


async def test_each_thread_call_has_its_own_name() -> None:
    first, second = new_hop(), new_hop()
    assert first.name.startswith("nurseryio.to_thread.run_sync-")
    assert first.name != second.name
    assert repr(first) == f"<{first.name}>"


async def test_a_thread_call_can_be_the_borrower_of_a_limiter() -> None:
    limiter = CapacityLimiter(1)
    hop = new_hop(limiter=limiter)
    limiter.acquire_on_behalf_of_nowait(hop)
    assert limiter.statistics().borrowers == [hop]


async def test_abort_of_a_thread_call_returns_failed_unless_abandon_on_cancel() -> None:
    def raise_cancel() -> NoReturn:
        raise Cancelled

    kept, left = new_hop(), new_hop(abandon=True)
    assert kept.abort(raise_cancel) is Abort.FAILED
    assert left.abort(raise_cancel) is Abort.SUCCEEDED
    assert kept.raise_cancel is left.raise_cancel is raise_cancel


class ClosedLoop:
    """A loop that has ended."""

    def is_closed(self) -> bool:
        return True

    def call_soon_threadsafe(self, *_args: object) -> NoReturn:
        raise RuntimeError("Event loop is closed")


class BrokenLoop(ClosedLoop):
    """A loop that raises for some other reason."""

    def is_closed(self) -> bool:
        return False


async def test_the_result_of_a_thread_call_for_a_closed_loop_is_dropped() -> None:
    hop = new_hop(loop=ClosedLoop())
    hop.deliver(Value(1))
    with pytest.raises(RunFinishedError):
        hop.ask(None)  # type: ignore[arg-type]
    assert not hop.finished


async def test_other_errors_of_call_soon_threadsafe_are_raised() -> None:
    hop = new_hop(loop=BrokenLoop())
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        hop.deliver(Value(1))
    with pytest.raises(RuntimeError, match="Event loop is closed") as caught:
        hop.ask(None)  # type: ignore[arg-type]
    assert type(caught.value) is RuntimeError


async def test_an_abandoned_thread_call_releases_its_limiter_token_and_wakes_no_task() -> None:
    limiter = NoLimit()
    hop = new_hop(abandon=True, limiter=limiter)
    hop.abort(lambda: None)  # type: ignore[arg-type,return-value]
    hop._finish(Error(ValueError()))
    assert limiter.released == [hop]
    assert not hop.finished


async def test_an_error_of_the_limiter_is_not_lost_when_the_thread_call_is_abandoned() -> None:
    class Broken(NoLimit):
        def release_on_behalf_of(self, borrower: object) -> NoReturn:
            raise ValueError("jammed")

    hop = new_hop(abandon=True, limiter=Broken())
    hop.abort(lambda: None)  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="jammed"):
        hop._finish(Value(1))


# -- each side gets its answer ------------------------------------------------------


class Flaky:
    """A loop that refuses some calls from other threads."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.calls: list[tuple[Any, ...]] = []

    def call_soon_threadsafe(self, *call: Any) -> None:
        if len(self.calls) < self.refusals:
            self.calls.append(())
            raise MemoryError
        self.calls.append(call)

    def is_closed(self) -> bool:
        return False


async def test_a_thread_result_that_could_not_be_sent_is_replaced_by_the_error() -> None:
    loop = Flaky(1)
    hop = new_hop(loop=loop)
    hop.deliver(Value(5))
    (_, (finish, outcome)) = loop.calls
    assert finish == hop._finish
    assert isinstance(outcome.error, MemoryError)


class FailingLimit(NoLimit):
    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    def release_on_behalf_of(self, borrower: object) -> NoReturn:
        raise self.error


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_the_error_of_a_limiter_has_the_functions_error_as_its_context(kind: Any) -> None:
    error, of_limiter = make(kind), make(kind)
    hop = new_hop(limiter=FailingLimit(of_limiter))
    asyncio.get_running_loop().call_soon(hop._finish, Error(error))
    with pytest.raises(kind) as caught:
        await wait_task_rescheduled(hop.abort)
    assert caught.value is of_limiter
    assert context_of(of_limiter) is error


async def test_a_limiter_may_raise_the_functions_own_error() -> None:
    error = ValueError()
    hop = new_hop(limiter=FailingLimit(error))
    asyncio.get_running_loop().call_soon(hop._finish, Error(error))
    with pytest.raises(ValueError) as caught:
        await wait_task_rescheduled(hop.abort)
    assert caught.value is error
    assert error.__context__ is None


async def test_a_task_whose_reschedule_failed_is_woken_with_the_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refused = []

    def refuse_once(task: Any, outcome: Any) -> None:
        if not refused:
            refused.append(outcome)
            raise MemoryError
        reschedule(task, outcome)

    monkeypatch.setattr(hop_module, "reschedule", refuse_once)
    hop = new_hop()
    asyncio.get_running_loop().call_soon(hop._finish, Value(1))
    with pytest.raises(MemoryError):
        await wait_task_rescheduled(hop.abort)
    assert hop.finished


async def test_a_from_thread_request_to_a_task_that_cannot_serve_it_is_refused() -> None:
    refused: list[BaseException] = []

    class Asked:
        async def serve(self) -> None:
            raise AssertionError

        def refuse(self, error: BaseException | None = None) -> None:
            assert error is not None
            refused.append(error)

    hop = new_hop()
    hop._hand_over(Asked())  # the task does not wait
    hop.forsake()
    hop._hand_over(Asked())
    assert [type(error) for error in refused] == [RuntimeError, RunFinishedError]
    hop._finish(Value(1))  # and no task waits to be woken


def test_function_name_never_raises_whatever_the_function() -> None:
    assert function_name(function_name) == "'function_name'"
    assert function_name(Nameless()) == "<Nameless, whose repr() failed>"


async def test_releasing_a_limiter_token_is_tried_once_more_if_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limiter = CapacityLimiter(1)
    hop = new_hop(limiter=limiter)
    limiter.acquire_on_behalf_of_nowait(hop)
    real, refused = CapacityLimiter.release_on_behalf_of, []

    def refuse_once(self: CapacityLimiter, borrower: Any) -> None:
        if not refused:
            refused.append(borrower)
            raise MemoryError
        real(self, borrower)

    monkeypatch.setattr(CapacityLimiter, "release_on_behalf_of", refuse_once)
    asyncio.get_running_loop().call_soon(hop._finish, Value(1))
    with pytest.raises(MemoryError):
        await wait_task_rescheduled(hop.abort)
    assert limiter.borrowed_tokens == 0
