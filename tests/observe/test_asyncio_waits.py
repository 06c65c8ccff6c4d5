"""What a task waits for in asyncio's own operations."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import pytest
from harness.core import forever, needs_counts, settle
from harness.pypy import needs_reference_counting
from harness.waiting import idle_tree, wait_in, wait_of, waiting

import nurseryio
from nurseryio._observe import asyncio_waits
from nurseryio.instruments import TaskTree, task_tree
from nurseryio.testing import wait_all_tasks_blocked


async def tree_with(**functions: Any) -> TaskTree:
    """The tree while tasks with these names wait in these functions, one begun after the other."""
    async with nurseryio.open_nursery() as nursery:
        for name, function in functions.items():
            nursery.start_soon(function, name=name)
            await wait_all_tasks_blocked()
        tree = await idle_tree()
        nursery.cancel_scope.cancel()
    return tree


async def text_of(function: Any) -> str:
    return wait_of(await tree_with(a=function), "a").text


# -- asyncio ----------------------------------------------------------------------------


async def test_the_wait_in_asyncio_sleep_has_the_seconds_left(loop_kind: str) -> None:
    if loop_kind == "uvloop":
        pytest.skip("a timer of uvloop has another form")
    wait = await wait_in(lambda: asyncio.sleep(1000))
    assert 900 < wait.details["left"] < 1001


async def test_an_asyncio_sleep_whose_time_is_over_has_no_negative_seconds(loop_kind: str) -> None:
    if loop_kind == "uvloop":
        pytest.skip("a timer of uvloop has another form")
    loop = asyncio.get_running_loop()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(asyncio.sleep, 0.001)
        await asyncio.sleep(0)
        end = loop.time() + 0.01
        while loop.time() < end:  # the loop stands still
            pass
        tree = str(task_tree())
    assert "sleeps, and should have woken 0.0" in tree


@needs_counts
async def test_the_wait_at_the_end_of_a_task_group_names_its_tasks() -> None:
    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(forever(), name="in the group")

    async with waiting(group) as (task,):
        assert task.wait is not None
        assert task.wait.kind == "tasks"
        assert task.wait.text.endswith("for 1 asyncio task: 'in the group'")
        inner = [info for info in task_tree().tasks if info.name == "in the group"]
        assert [info.parent for info in inner] == [task.id]
        assert task.wait.tasks == (inner[0].id,)


async def test_the_wait_in_asyncio_gather_names_its_tasks() -> None:
    tasks = [asyncio.ensure_future(forever()) for _ in range(2)]
    for number, task in enumerate(tasks):
        task.set_name(f"g{number}")

    async def both() -> None:
        await asyncio.gather(*tasks)

    assert (await wait_in(both)).text == "waits for 2 asyncio tasks: 'g0', 'g1'"
    await asyncio.wait(tasks)


# -- futures ---------------------------------------------------------------------------


async def test_the_wait_for_a_future_has_its_type_and_the_tasks_that_have_it() -> None:
    future = asyncio.get_running_loop().create_future()

    async def wait_for(future: Any) -> None:
        await future

    async def keep(_future: Any) -> None:
        await forever()

    tree = await tree_with(a=lambda: wait_for(future), b=lambda: keep([future]))
    wait = wait_of(tree, "a")
    assert wait.text.startswith(f"waits for a future of type {type(future).__name__}; ")
    assert wait.text.endswith(" have it in a variable")
    assert "b" in wait.details["tasks_with_it"]
    assert wait.any_of == ()


# -- primitives -------------------------------------------------------------------------


async def hold(thing: Any) -> None:
    async with thing:
        await forever()


async def take(thing: Any) -> None:
    await thing.acquire()
    await forever()


@needs_reference_counting
async def test_the_wait_for_an_asyncio_lock_names_the_task_that_is_in_its_block() -> None:
    lock = asyncio.Lock()
    tree = await tree_with(a=lambda: hold(lock), b=lambda: hold(lock), c=lambda: take(lock))
    for name in "bc":
        wait = wait_of(tree, name)
        assert (wait.kind, wait.text) == ("lock", "waits for an asyncio.Lock; held by 'a'")
        assert wait.details["owners"] == ["a"]
        assert wait.any_of == tuple(task.id for task in tree.tasks if task.name == "a")
        assert wait.certain


async def test_the_wait_for_an_asyncio_lock_without_a_block_says_that_there_is_none() -> None:
    lock = asyncio.Lock()
    tree = await tree_with(a=lambda: take(lock), b=lambda: hold(lock))
    assert wait_of(tree, "b").text == (
        "waits for an asyncio.Lock; no task is in an 'async with' block of it"
    )


async def test_the_blocks_of_a_running_task_are_not_known_and_not_denied() -> None:
    lock = asyncio.Lock()
    async with lock:
        assert (await wait_in(lock.acquire)).text == "waits for an asyncio.Lock"


async def test_the_wait_for_an_asyncio_lock_that_is_free_again_says_so() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    async with waiting(lock.acquire):
        lock._locked = False  # type: ignore[attr-defined]  # as release() leaves it for a moment
        (wait,) = (task.wait for task in task_tree().tasks if task.name == "a")
    assert wait is not None
    assert wait.text == "waits for an asyncio.Lock that was just released"


@needs_reference_counting
async def test_the_waits_for_an_asyncio_condition_and_for_its_lock() -> None:
    condition = asyncio.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    tree = await tree_with(a=wait, b=lambda: hold(condition), c=lambda: hold(condition))
    assert wait_of(tree, "a").text.startswith("waits to be notified on an asyncio.Condition; ")
    assert wait_of(tree, "c").text == "waits for an asyncio.Lock; held by 'b'"


@needs_reference_counting
async def test_the_wait_for_an_asyncio_semaphore_names_the_tasks_in_its_block() -> None:
    semaphore = asyncio.Semaphore(2)
    tree = await tree_with(**{name: lambda: hold(semaphore) for name in "abc"})
    wait = wait_of(tree, "c")
    assert wait.kind == "semaphore"
    assert wait.text == "waits for an asyncio.Semaphore, whose value is 0; held by 'a', 'b'"
    assert not wait.certain


async def test_the_wait_for_an_asyncio_event_that_no_other_task_has() -> None:
    assert await text_of(lambda: asyncio.Event().wait()) == (
        "waits for an asyncio.Event to be set; no other task has it in a variable"
    )


async def test_the_wait_for_an_asyncio_event_names_the_task_that_has_it() -> None:
    async def keep(_event: object) -> None:
        await forever()

    async def main() -> None:
        event = asyncio.Event()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(keep, {"event": event}.get("event"), name="keeper")
            nursery.start_soon(event.wait, name="waiter")
            del event
            await forever()

    wait = wait_of(await tree_with(main=main), "waiter")
    assert wait.text == "waits for an asyncio.Event to be set; 'keeper' has it in a variable"
    assert wait.details["tasks_with_it"] == ["keeper"]


async def test_the_waits_in_an_asyncio_queue_say_how_full_it_is() -> None:
    empty, full = asyncio.Queue[int](), asyncio.Queue[int](1)
    full.put_nowait(1)
    tree = await tree_with(a=empty.get, b=lambda: full.put(2), c=full.join)
    assert wait_of(tree, "a").kind == "queue get"
    assert wait_of(tree, "a").text.startswith("waits for an item of an asyncio.Queue; it is empty;")
    assert wait_of(tree, "b").text.startswith("waits to put to an asyncio.Queue; it holds 1 of 1;")
    assert wait_of(tree, "b").details["maxsize"] == 1
    assert wait_of(tree, "c").text.startswith(
        "waits until 1 item of an asyncio.Queue is marked as done"
    )


async def test_the_wait_in_another_operation_of_asyncio_has_its_name() -> None:
    future = asyncio.get_running_loop().create_future()
    text = await text_of(lambda: asyncio.wait([future]))
    assert text.startswith("waits in asyncio's ")
    assert "wait" in text


async def test_a_subclass_of_a_primitive_that_fails_is_named_by_its_operation() -> None:
    class Bad(asyncio.Queue[int]):
        def qsize(self) -> int:
            raise RuntimeError("boom")

    assert (await wait_in(Bad().get)).text in (
        "waits in asyncio's Queue.get()",
        "waits in asyncio's Bad.get()",  # Python 3.10
    )


# -- streams ----------------------------------------------------------------------------


async def test_the_wait_for_data_of_an_asyncio_stream_has_the_peer_and_its_task() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await reader.readline()
        finally:
            writer.close()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(client, name="client")
        while True:
            await wait_all_tasks_blocked(0.01)
            tree = task_tree()
            served = [task for task in tree.tasks if "read(1)" in str(task.place)]
            if served:
                break
        nursery.cancel_scope.cancel()
    server.close()
    await server.wait_closed()
    await settle()
    wait = wait_of(tree, "client")
    assert wait.text == (
        f"waits in asyncio's StreamReader.readline() of the connection to 127.0.0.1:{port}, "
        f"whose other side {served[0].name!r} has"
    )
    assert wait.any_of == (served[0].id,)
    assert not wait.certain
    assert [sorted(task.name for task in each) for each in tree.circles(certain=False)] == [
        sorted(["client", served[0].name])
    ]


# -- executors ---------------------------------------------------------------------------


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


class Work:
    """A function that is in a thread until it may end."""

    def __init__(self) -> None:
        self.began, self.stop = threading.Event(), threading.Event()

    def work(self, _number: int = 0) -> None:
        self.began.set()
        self.stop.wait()  # here


async def test_the_wait_for_run_in_executor_names_the_function_and_where_its_thread_is(
    thread: ThreadPoolExecutor,
) -> None:
    loop = asyncio.get_running_loop()
    first, second = Work(), Work()

    async def call(work: Work) -> None:
        await loop.run_in_executor(thread, functools.partial(work.work, 1))

    async with nurseryio.open_nursery() as nursery:
        for name, work in (("a", first), ("b", second)):
            nursery.start_soon(call, work, name=name)
        await wait_all_tasks_blocked()
        assert first.began.wait(10)
        tree = task_tree()
        first.stop.set()
        second.stop.set()
    wait, queued = wait_of(tree, "a"), wait_of(tree, "b")
    assert wait.kind == queued.kind == "thread"
    assert wait.text.startswith("waits for a thread that runs Work.work(), now at ")
    assert "test_asyncio_waits.py" in wait.details["place"]
    assert wait.details["thread"] is not None
    assert queued.text == (
        "waits for an executor that has not begun a function: all of its threads are busy"
    )


async def test_the_wait_for_asyncio_to_thread_names_the_function() -> None:
    work = Work()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(asyncio.to_thread, work.work, 1, name="a")
        await wait_all_tasks_blocked()
        assert work.began.wait(10)
        tree = task_tree()
        work.stop.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    text = wait_of(tree, "a").text
    assert text.startswith("waits for a thread that runs Work.work(), now at test_asyncio_waits.py")


async def test_the_wait_for_a_full_default_executor_names_the_function_that_has_not_begun(
    loop_kind: str,
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    work = Work()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(asyncio.to_thread, work.work, name="a")
        await wait_all_tasks_blocked()
        nursery.start_soon(asyncio.to_thread, len, "", name="b")
        await wait_all_tasks_blocked()
        tree = task_tree()
        work.stop.set()
    await loop.shutdown_default_executor()
    function = "a function" if loop_kind == "uvloop" else "len()"  # uvloop hides its executor
    assert wait_of(tree, "b").text == (
        f"waits for an executor that has not begun {function}: all of its threads are busy"
    )


def test_python_versions_with_qualified_names_of_code_use_them() -> None:
    assert asyncio_waits._qualified(sys._getframe()).endswith(
        "test_python_versions_with_qualified_names_of_code_use_them"
    )


async def test_the_wait_in_asyncio_sleep_without_an_end_says_so(loop_kind: str) -> None:
    if loop_kind == "uvloop":
        pytest.skip("uvloop makes no timer for it")
    assert await text_of(lambda: asyncio.sleep(inf)) == "sleeps for ever"


def test_the_wait_for_the_default_executor_at_the_end_names_the_calls_that_run() -> None:
    began, stop = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        stop.wait()

    async def main() -> str:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(None, work)
        began.wait()
        end = asyncio.create_task(loop.shutdown_default_executor(), name="end")
        await settle()
        try:
            return wait_of(task_tree(), "end").text
        finally:
            stop.set()
            await end
            await call

    text = asyncio.run(main())
    assert text.startswith("waits for the threads of the default executor to end: ")
    assert "work(), now at " in text
    assert "stop.wait()" in text


async def test_the_wait_for_an_asyncio_process_names_the_process() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=-1)
    try:
        text = await text_of(process.wait)
        assert text == f"waits in asyncio's Process.wait() of process {process.pid}"
    finally:
        process.kill()
        await process.communicate()


@needs_counts
async def test_a_task_that_has_swallowed_a_native_cancellation_is_shown_with_it() -> None:
    async def stubborn() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            await forever()

    task = asyncio.create_task(stubborn(), name="stubborn")
    try:
        await settle()
        before = wait_of(task_tree(), "stubborn")
        task.cancel()
        await settle()
        after = wait_of(task_tree(), "stubborn")
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert after.text == f"{before.text} (although its cancel() was called)"
    assert after.details["cancelling"] == 1
