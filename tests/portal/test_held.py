"""Async context managers and nurseries that a plain ``with`` block keeps open."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import signal
import threading
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest
from harness.core import leaves

import nurseryio
from nurseryio import Cancelled, RunFinishedError, TaskStatus
from nurseryio.from_thread import Portal, PortalNursery, open_portal
from nurseryio.lowlevel import checkpoint, current_task

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def portal() -> Iterator[Portal]:
    with open_portal() as made:
        yield made


@asynccontextmanager
async def noting(events: list[Any]) -> AsyncIterator[str]:
    """Notes the task, and the error of the block. It suppresses a ``KeyError``."""
    async with nurseryio.open_nursery():
        events.append(current_task())
        try:
            yield "value"
        except KeyError:
            events.append("suppressed")
        except BaseException as exc:
            events.append(type(exc))
            raise
        finally:
            events.append(current_task())


def test_an_async_context_manager_is_entered_and_exited_in_one_task(portal: Portal) -> None:
    events: list[Any] = []
    with portal.wrap_async_context_manager(noting(events)) as value:
        assert value == "value"
        assert len(events) == 1
    assert events[0] is events[1]


def test_a_wrapped_context_manager_gets_the_error_of_the_plain_block(portal: Portal) -> None:
    events: list[Any] = []
    error = ValueError("x")
    with (
        pytest.raises(ValueError, match="x") as caught,
        portal.wrap_async_context_manager(asynccontextmanager(unwrapped)(events)),
    ):
        raise error
    assert caught.value is error
    assert events == [ValueError]
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert names == ["test_a_wrapped_context_manager_gets_the_error_of_the_plain_block"]


async def unwrapped(events: list[Any]) -> AsyncIterator[None]:
    try:
        yield
    except ValueError as exc:
        events.append(type(exc))
        raise


def test_a_wrapped_context_manager_may_suppress_the_error_of_the_plain_block(
    portal: Portal,
) -> None:
    events: list[Any] = []
    with portal.wrap_async_context_manager(noting(events)):
        raise KeyError
    assert events[1] == "suppressed"


@pytest.mark.parametrize("error", [StopIteration(), StopAsyncIteration(), SystemExit(3)])
def test_errors_that_coroutines_treat_specially_pass_a_wrapped_context_manager(
    portal: Portal, error: BaseException
) -> None:
    class Manager:
        async def __aenter__(self) -> None:
            pass

        async def __aexit__(self, *exc_info: object) -> None:
            seen.append(exc_info[1])

    seen: list[Any] = []
    with (
        pytest.raises(type(error)) as caught,
        portal.wrap_async_context_manager(Manager()),
    ):
        raise error
    assert caught.value is error
    assert seen == [error]


def test_an_error_of_entering_a_wrapped_context_manager_is_raised_by_the_with(
    portal: Portal,
) -> None:
    @asynccontextmanager
    async def fails() -> AsyncIterator[None]:
        await checkpoint()
        raise KeyError("entering")
        yield

    with pytest.raises(KeyError, match="entering"):
        portal.wrap_async_context_manager(fails()).__enter__()


def test_an_error_of_exiting_a_wrapped_context_manager_replaces_that_of_the_block(
    portal: Portal,
) -> None:
    @asynccontextmanager
    async def fails() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise KeyError("exiting")

    with pytest.raises(KeyError, match="exiting"), portal.wrap_async_context_manager(fails()):
        pass
    with (
        pytest.raises(KeyError, match="exiting") as caught,
        portal.wrap_async_context_manager(fails()),
    ):
        raise ValueError
    assert isinstance(caught.value.__context__, ValueError)


def test_a_wrapped_context_manager_sees_the_context_variables_of_its_thread(
    portal: Portal,
) -> None:
    @asynccontextmanager
    async def seeing() -> AsyncIterator[str]:
        yield variable.get()

    def in_context() -> str:
        variable.set("caller's")
        with portal.wrap_async_context_manager(seeing()) as seen:
            return seen

    assert contextvars.copy_context().run(in_context) == "caller's"


def test_a_wrapped_context_manager_can_be_entered_once(portal: Portal) -> None:
    wrapped = portal.wrap_async_context_manager(noting([]))
    for _ in range(2):
        if _ == 0:
            with wrapped, pytest.raises(RuntimeError, match="entered already"):
                wrapped.__enter__()
        else:
            with pytest.raises(RuntimeError, match="entered already"):
                wrapped.__enter__()


def test_a_portal_refuses_to_wrap_what_is_not_an_async_context_manager(portal: Portal) -> None:
    with pytest.raises(TypeError, match="can enter an async context manager, not 5"):
        portal.wrap_async_context_manager(5)  # type: ignore[arg-type]


def test_a_block_of_a_portal_that_is_dropped_is_cancelled(portal: Portal) -> None:
    ended = portal.run_sync(nurseryio.Event)

    @asynccontextmanager
    async def seeing() -> AsyncIterator[None]:
        try:
            yield
        finally:
            ended.set()

    portal.wrap_async_context_manager(seeing()).__enter__()
    gc.collect()
    portal.run(ended.wait)


def test_a_block_of_a_portal_that_is_closed_meanwhile_raises_at_its_end(portal: Portal) -> None:
    other = open_portal()
    with (
        pytest.raises(RunFinishedError, match="the portal is closed"),
        other.wrap_async_context_manager(noting([])),
    ):
        other.close()
    with pytest.raises(ValueError, match="of the block"), open_portal() as another:
        with another.wrap_async_context_manager(noting([])):
            another.close()
            raise ValueError("of the block")


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to one thread")
def test_ctrl_c_while_a_plain_block_is_left_cancels_the_context_manager(portal: Portal) -> None:
    events = []

    @asynccontextmanager
    async def slow() -> AsyncIterator[None]:
        try:
            yield
        finally:
            try:
                time.sleep(0.02)  # as in test_host.press_ctrl_c
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                await nurseryio.sleep_forever()
            finally:
                events.append("cleaned up")

    with pytest.raises(KeyboardInterrupt), portal.wrap_async_context_manager(slow()):
        pass
    assert events == ["cleaned up"]


# -- nurseries --------------------------------------------------------------------


def test_a_nursery_of_a_portal_waits_for_its_children(portal: Portal) -> None:
    done = []

    async def work(name: str) -> None:
        await checkpoint()
        done.append(name)

    with portal.open_nursery() as nursery:
        nursery.start_soon(work, "first")
        nursery.start_soon(work, "second", name="named")
        assert isinstance(nursery, PortalNursery)
    assert sorted(done) == ["first", "second"]


def test_start_of_a_portals_nursery_returns_the_value_of_started(portal: Portal) -> None:
    async def serve(*, task_status: TaskStatus[int]) -> None:
        task_status.started(8080)
        await nurseryio.sleep_forever()

    with portal.open_nursery() as nursery:
        assert nursery.start(serve) == 8080
        nursery.cancel(reason="done")


def test_errors_of_the_children_of_a_portals_nursery_leave_as_a_group(portal: Portal) -> None:
    async def fail(error: Exception) -> NoReturn:
        await checkpoint()
        raise error

    errors = [KeyError("x"), KeyError("x")]
    with pytest.raises(Exception) as caught, portal.open_nursery() as nursery:
        nursery.start_soon(fail, errors[0])
    assert leaves(caught.value) == errors[:1]


def test_a_failing_child_cancels_the_calls_in_the_nursery_of_a_portal(portal: Portal) -> None:
    reached = []

    async def fail() -> NoReturn:
        await checkpoint()
        raise KeyError("x")

    with pytest.raises(Exception) as caught, portal.open_nursery() as nursery:
        nursery.start_soon(fail)
        try:
            nursery.run(nurseryio.sleep_forever)
        except Cancelled:
            reached.append("cancelled")
            raise
    assert reached == ["cancelled"]
    assert [type(leaf) for leaf in leaves(caught.value)] == [KeyError]


def test_cancelling_a_portals_nursery_ends_its_block_quietly(portal: Portal) -> None:
    reached = False
    with portal.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        nursery.cancel()
        nursery.run(nurseryio.sleep_forever)
        reached = True
    assert not reached


def test_an_error_in_the_block_of_a_portals_nursery_cancels_the_children(portal: Portal) -> None:
    ends = []

    async def work() -> None:
        try:
            await nurseryio.sleep_forever()
        except Cancelled:
            ends.append("cancelled")
            raise

    with pytest.raises(Exception) as caught, portal.open_nursery() as nursery:
        nursery.start_soon(work)
        nursery.run(checkpoint)
        raise KeyError("x")
    assert ends == ["cancelled"]
    assert [type(leaf) for leaf in leaves(caught.value)] == [KeyError]


def test_nurseries_of_a_portal_nest_and_an_outer_one_ends_the_calls_of_the_inner_block(
    portal: Portal,
) -> None:
    reached = []
    with portal.open_nursery() as outer:
        with portal.open_nursery() as inner:
            inner.start_soon(checkpoint)
            outer.cancel()
            outer.run(nurseryio.sleep_forever)
            reached.append("inner")
        reached.append("outer")
    assert reached == []


def test_a_portals_nursery_refuses_calls_after_its_end(portal: Portal) -> None:
    with portal.open_nursery() as nursery:
        pass
    for call in (nursery.start_soon, nursery.start, nursery.run):
        with pytest.raises(RuntimeError, match="the block of this portal's nursery was left"):
            call(checkpoint)


def test_a_portals_nursery_gives_its_children_the_context_of_the_thread(portal: Portal) -> None:
    seen = []

    async def see() -> None:
        seen.append(variable.get())

    def in_context() -> None:
        variable.set("caller's")
        with portal.open_nursery() as nursery:
            nursery.start_soon(see)

    contextvars.copy_context().run(in_context)
    assert seen == ["caller's"]


def test_asyncio_code_works_in_the_block_of_a_portal(portal: Portal) -> None:
    async def use_asyncio() -> int:
        return await asyncio.wait_for(asyncio.sleep(0, 5), 60)

    with portal.open_nursery() as nursery:
        assert nursery.run(use_asyncio) == 5


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_an_exit_in_the_block_of_a_portals_nursery_leaves_without_a_group(
    portal: Portal, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, portal.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        raise error
    assert caught.value is error


def test_an_exit_in_a_child_of_a_portals_nursery_leaves_without_a_group(portal: Portal) -> None:
    async def leave() -> NoReturn:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught, portal.open_nursery() as nursery:
        nursery.start_soon(leave)
    assert caught.value.code == 3


def interrupt_after_the_next_call(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C comes when the answer is there, and was not returned."""
    host = portal._host
    ask = host.ask

    def interrupted(*args: Any) -> NoReturn:
        monkeypatch.undo()
        ask(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(host, "ask", interrupted)


def test_ctrl_c_just_after_an_async_context_manager_was_entered_exits_it(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Any] = []
    interrupt_after_the_next_call(portal, monkeypatch)
    with pytest.raises(KeyboardInterrupt), portal.wrap_async_context_manager(noting(events)):
        raise AssertionError
    assert KeyboardInterrupt in events
    assert events[-1] is events[0]


def test_an_error_of_an_exit_just_after_the_entry_replaces_ctrl_c_as_in_a_block(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        try:
            yield
        finally:
            raise KeyError("of the exit")

    interrupt_after_the_next_call(portal, monkeypatch)
    with pytest.raises(KeyError) as caught, portal.wrap_async_context_manager(failing()):
        raise AssertionError
    assert type(caught.value.__context__) is KeyboardInterrupt


def test_exit_of_a_wrapped_context_manager_that_was_not_entered_does_not_wait(
    portal: Portal,
) -> None:
    wrapped = portal.wrap_async_context_manager(noting([]))
    assert wrapped.__exit__(None, None, None) is False


def test_a_generator_with_a_nursery_of_a_portal_can_be_closed(portal: Portal) -> None:
    cancelled: list[str] = []

    async def child() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            cancelled.append("child")

    def generate() -> Iterator[None]:
        with portal.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.run(checkpoint)
            yield

    generator: Any = generate()
    next(generator)
    generator.close()  # a group around its GeneratorExit would be raised here
    assert cancelled == ["child"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_error_of_a_signal_handler_in_the_finalizer_of_a_block_does_not_lose_the_cancellation(
    portal: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = portal.run_sync(nurseryio.Event)

    @asynccontextmanager
    async def manager() -> AsyncIterator[None]:
        try:
            yield
        finally:
            over.set()

    token = portal._host.token

    def interrupted(*args: Any) -> NoReturn:
        monkeypatch.undo()
        raise KeyboardInterrupt

    wrapped = portal.wrap_async_context_manager(manager())
    wrapped.__enter__()
    monkeypatch.setattr(type(token), "run_sync_soon", interrupted)
    del wrapped
    gc.collect()
    portal.run(over.wait)
