"""What asyncio shows of waiting tasks and running loops, for drawings."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from harness.core import HAS_COUNTS, forever, needs_counts, settle

from nurseryio._asyncio import display
from nurseryio._asyncio.display import (
    awaiting,
    gathered,
    group_tasks,
    loop_thread,
    loops_of_threads,
)


async def test_gathered_returns_the_futures_of_asyncio_gather_and_none_for_another_future() -> None:
    tasks = [asyncio.ensure_future(forever()) for _ in range(2)]
    both = asyncio.gather(*tasks)
    assert gathered(both) == tasks
    assert gathered(tasks[0]) is None
    assert gathered(object()) is None
    both.cancel()
    await asyncio.wait(tasks)
    with pytest.raises(asyncio.CancelledError):
        await both


@needs_counts
async def test_group_tasks_returns_the_unfinished_tasks_of_a_task_group() -> None:
    if not HAS_COUNTS:
        return
    async with asyncio.TaskGroup() as group:
        task = group.create_task(asyncio.sleep(0))
        assert group_tasks(group) == [task]
    assert group_tasks(group) == []
    assert group_tasks(object()) == []


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Python records awaiting tasks from 3.14 on")
async def test_awaiting_returns_the_task_that_awaits_another() -> None:
    inner = asyncio.ensure_future(forever())

    async def wait() -> None:
        await inner

    outer = asyncio.ensure_future(wait())
    await settle()
    assert awaiting(inner) == [outer]
    inner.cancel()
    await asyncio.wait([outer])
    assert outer.cancelled()


async def test_awaiting_is_empty_for_a_task_that_no_task_awaits() -> None:
    task = asyncio.ensure_future(asyncio.sleep(0))
    assert awaiting(task) == []
    await task


async def test_loop_thread_is_the_thread_of_a_running_asyncio_loop(loop_kind: str) -> None:
    thread = loop_thread(asyncio.get_running_loop())
    assert thread == (None if loop_kind == "uvloop" else threading.get_ident())


def test_error_of_a_task_is_read_without_retrieving_it() -> None:
    reports: list[dict[str, Any]] = []

    async def fails() -> None:
        raise ValueError("lost")

    async def sleeps() -> None:
        await asyncio.sleep(3600)

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        failing, sleeping = asyncio.create_task(fails()), asyncio.create_task(sleeps())
        await asyncio.sleep(0)
        sleeping.cancel()
        await asyncio.wait([failing, sleeping])
        assert repr(display.error_of(failing)) == "ValueError('lost')"
        assert isinstance(display.error_of(sleeping), asyncio.CancelledError)
        done = asyncio.create_task(asyncio.sleep(0))
        await done
        assert display.error_of(done) is None
        del failing
        gc.collect()

    asyncio.run(main())
    assert [report["message"] for report in reports] == ["Task exception was never retrieved"]


def test_made_at_is_the_stack_that_made_a_task_in_debug_mode() -> None:
    async def main() -> list[list[str]]:
        found = []
        for debug in (True, False):
            asyncio.get_running_loop().set_debug(debug)
            task = asyncio.create_task(asyncio.sleep(0))
            found.append([entry.name for entry in display.made_at(task)])
            await task
        return found

    stack, none = asyncio.run(main())
    assert "main" in stack
    assert none == []


def test_unfinished_is_the_number_of_items_that_join_waits_for() -> None:
    queue = asyncio.Queue[int]()
    queue.put_nowait(1)
    assert display.unfinished(queue) == 1
    assert display.unfinished(object()) is None


def test_exit_callbacks_are_those_of_an_exit_stack() -> None:
    with contextlib.ExitStack() as stack:
        assert display.exit_callbacks(stack) == []
        stack.enter_context(contextlib.nullcontext())
        (callback,) = display.exit_callbacks(stack)
        assert callback.__name__ == "__exit__"


async def test_addresses_of_an_asyncio_stream_are_those_of_its_connection() -> None:
    def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    reader, writer = await asyncio.open_connection(*address)
    local, peer = display.addresses_of(writer)
    assert (local[0], peer) == ("127.0.0.1", address)
    assert await reader.read() == b""
    assert display.addresses_of(asyncio.StreamReader()) == (None, None)
    assert display.addresses_of(object()) == (None, None)
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_executor_call_is_the_call_that_a_future_waits_for() -> None:
    loop = asyncio.get_running_loop()
    began, stop = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        stop.wait()

    with ThreadPoolExecutor(1) as executor:
        running = loop.run_in_executor(executor, work)
        queued = loop.run_in_executor(executor, work)
        began.wait()
        call = display.executor_call(running, sys._current_frames)
        assert call is not None
        assert (call.began, call.function) == (True, work)
        assert call.thread in sys._current_frames()
        assert display.executor_call(queued, sys._current_frames) == (False, None, None)
        assert display.executor_call(running, dict) == (True, None, None)
        stop.set()
        await asyncio.gather(running, queued)
    assert display.executor_call(loop.create_future(), sys._current_frames) is None
    assert display.executor_call(object(), sys._current_frames) is None


async def test_loops_of_threads_has_the_loop_that_asyncio_run_runs(loop_case: Any) -> None:
    loop = asyncio.get_running_loop()
    found = loops_of_threads([sys._getframe()])
    hidden = loop_case.kind == "uvloop" and (loop_case.host == "run" or sys.version_info < (3, 11))
    assert found == ([] if hidden else [loop])
    assert loops_of_threads([]) == []


async def test_seconds_left_of_a_timeout_of_asyncio_or_anyio() -> None:
    now = asyncio.get_running_loop().time()
    assert not display.is_timeout(object())
    scope = anyio.CancelScope(deadline=now + 3)
    assert display.is_timeout(scope)
    assert display.seconds_left(scope, now) == pytest.approx(3)
    scope.cancel()
    assert display.seconds_left(scope, now) is None
    assert display.seconds_left(anyio.CancelScope(), now) is None
    timeout: Any = getattr(asyncio, "timeout", None)  # from Python 3.11 on
    if timeout is not None:
        async with timeout(None) as block:
            assert display.is_timeout(block)
            assert display.seconds_left(block, now) is None
            block.reschedule(now + 100)
            assert display.seconds_left(block, now) == pytest.approx(100)
        with pytest.raises(TimeoutError):
            async with timeout(0) as block:
                await forever()
        assert display.seconds_left(block, now) is None
