"""The ways in which programs hang, each with the text that explains it.

Each test builds a program with a common mistake, and compares what the task tree says. The tree is
made in another thread, as ``python -m nurseryio tree`` makes it: no task is running. The line
numbers are replaced by ``N``, the seconds by ``S``.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from harness import servers
from harness.pypy import needs_reference_counting
from harness.waiting import idle_tree

import nurseryio
from nurseryio.instruments import TaskTree, explain, task_tree
from nurseryio.testing import wait_all_tasks_blocked

# The blocks of suspended coroutines are found by the references of their frames.
needs_references = needs_reference_counting


# Not at the lines that look for them, because these lines are in the tree as well.
RECEIVES = "waits in receive_some() of the connection"
AGAIN = "in again(), waits for a thread"


def lines_of(tree: TaskTree) -> list[str]:
    """The lines about the tasks below the task ``main``, and those about deadlocks."""
    text = re.sub(r"test_hangs\.py:\d+", "test_hangs.py:N", str(tree))
    text = re.sub(r"\d+\.\d\d s", "S s", text)
    lines = [line.lstrip("│├└─ ") for line in text.splitlines()]
    start = next(index for index, line in enumerate(lines) if line.startswith("main at"))
    return [line for line in lines[start + 1 :] if line != "nursery"]


async def picture(*starts: tuple[Any, ...]) -> list[str]:
    """What the tree says while functions hang: each with the name of its task and arguments."""
    nurseryio.lowlevel.current_task().name = "main"
    async with nurseryio.open_nursery() as nursery:
        for name, function, *args in starts:
            nursery.start_soon(function, *args, name=name)
        await wait_all_tasks_blocked()
        tree = await idle_tree()
        nursery.cancel_scope.cancel()
    return lines_of(tree)


# -- locks -------------------------------------------------------------------------------


class Account:
    def __init__(self, lock: Any) -> None:
        self.lock = lock


async def transfer(first: Account, second: Account, both: list[str]) -> None:
    async with first.lock:
        both.append("has one")
        while len(both) < 2:
            await asyncio.sleep(0)
        async with second.lock:
            raise AssertionError("never reached")


def transfers(kind: Any) -> list[tuple[Any, ...]]:
    a, b, both = Account(kind()), Account(kind()), list[str]()
    return [("back", transfer, b, a, both), ("there", transfer, a, b, both)]


async def test_hang_two_locks_in_opposite_order() -> None:
    at = "at test_hangs.py:N in transfer(), waits for a lock that"
    assert await picture(*transfers(nurseryio.Lock)) == [
        f"back {at} 'there' holds: async with second.lock:",
        f"there {at} 'back' holds: async with second.lock:",
        "deadlock: 'back' waits for 'there', 'there' waits for 'back'",
    ]


@needs_references
async def test_hang_two_asyncio_locks_in_opposite_order() -> None:
    at = "at test_hangs.py:N in transfer(), waits for an asyncio.Lock; held by"
    assert await picture(*transfers(asyncio.Lock)) == [
        f"back {at} 'there': async with second.lock:",
        f"there {at} 'back': async with second.lock:",
        "deadlock: 'back' waits for 'there', 'there' waits for 'back'",
    ]


@needs_references
async def test_hang_an_asyncio_lock_that_its_own_task_takes_again() -> None:
    lock = asyncio.Lock()

    async def inner() -> None:
        async with lock:
            raise AssertionError("never reached")

    async def outer() -> None:
        async with lock:
            await inner()

    assert await picture(("twice", outer)) == [
        "twice at test_hangs.py:N in inner(), waits for an asyncio.Lock; held by 'twice': "
        "async with lock:",
        "deadlock: 'twice' waits for itself",
    ]


@needs_references
async def test_hang_asyncio_locks_behind_a_context_manager_and_an_exit_stack() -> None:
    a, b, both = asyncio.Lock(), asyncio.Lock(), list[str]()

    @asynccontextmanager
    async def locked(lock: asyncio.Lock) -> AsyncIterator[None]:
        async with lock:
            yield

    async def by_manager() -> None:
        async with locked(a):
            both.append("has one")
            while len(both) < 2:
                await asyncio.sleep(0)
            await b.acquire()

    async def by_stack() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(b)
            both.append("has one")
            while len(both) < 2:
                await asyncio.sleep(0)
            await stack.enter_async_context(a)

    assert await picture(("manager", by_manager), ("stack", by_stack)) == [
        "manager at test_hangs.py:N in by_manager(), waits for an asyncio.Lock; "
        "held by 'stack': await b.acquire()",
        "stack at test_hangs.py:N in by_stack(), waits for an asyncio.Lock; "
        "held by 'manager': await stack.enter_async_context(a)",
        "deadlock: 'manager' waits for 'stack', 'stack' waits for 'manager'",
    ]


async def test_hang_an_asyncio_lock_that_a_task_has_not_released() -> None:
    lock = asyncio.Lock()

    async def forgets() -> None:
        await lock.acquire()

    async def wants() -> None:
        async with lock:
            raise AssertionError("never reached")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(forgets)
    assert await picture(("waiter", wants)) == [
        "waiter at test_hangs.py:N in wants(), waits for an asyncio.Lock; "
        "no task is in an 'async with' block of it: async with lock:",
    ]


@needs_references
@pytest.mark.parametrize("group", ["TaskGroup", "gather", "anyio"])
async def test_hang_in_tasks_of_a_task_group_of_gather_and_of_anyio(group: str) -> None:
    if group == "TaskGroup" and not hasattr(asyncio, "TaskGroup"):
        pytest.skip("Python 3.10 has no TaskGroup")

    async def program() -> None:
        (_, back, *to_back), (_, there, *to_there) = transfers(asyncio.Lock)
        if group == "TaskGroup":
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(back(*to_back), name="back")
                tasks.create_task(there(*to_there), name="there")
        elif group == "anyio":
            async with anyio.create_task_group() as anyios:
                anyios.start_soon(back, *to_back, name="back")
                anyios.start_soon(there, *to_there, name="there")
        else:
            made = [asyncio.create_task(back(*to_back), name="back")]
            made.append(asyncio.create_task(there(*to_there), name="there"))
            await asyncio.gather(*made)

    lines = await picture(("program", program))
    assert lines[-1] == "deadlock: 'back' waits for 'there', 'there' waits for 'back'"
    assert sum("waits for an asyncio.Lock; held by" in line for line in lines) == 2


# -- channels and queues --------------------------------------------------------------------


async def consume(receiver: Any) -> None:
    async for _item in receiver:
        pass


async def test_hang_a_channel_whose_sending_end_the_parent_does_not_close() -> None:
    async def produce(sender: Any) -> None:
        async with sender:
            await sender.send("item")

    async def parent() -> None:
        sender, receiver = nurseryio.open_memory_channel[str](0)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(consume, receiver, name="consumer")
            nursery.start_soon(produce, sender.clone(), name="producer")

    assert await picture(("parent", parent)) == [
        "parent at test_hangs.py:N in parent(), waits for 1 child of its nursery: 'consumer': "
        "async with nurseryio.open_nursery() as nursery:",
        "consumer at test_hangs.py:N in consume(), waits to receive from a memory channel; "
        "it is empty, 1 sending end open, which 'parent' has: async for _item in receiver:",
        "likely deadlock: 'consumer' waits for 'parent', 'parent' waits for 'consumer'",
    ]


async def test_hang_a_channel_whose_sending_end_was_dropped_without_closing_it() -> None:
    receiver = nurseryio.open_memory_channel[str](0)[1]
    assert (await picture(("consumer", consume, receiver)))[0].endswith(
        "it is empty, 1 sending end open, which no task has in a variable: "
        "async for _item in receiver:"
    )


async def reply(receiver: Any, sender: Any) -> None:
    item = await receiver.receive()
    await sender.send(item)


async def test_hang_both_sides_of_two_channels_receive() -> None:
    async def program() -> None:
        async with nurseryio.open_nursery() as nursery:
            to_left, left = nurseryio.open_memory_channel[str](0)
            to_right, right = nurseryio.open_memory_channel[str](0)
            nursery.start_soon(reply, left, to_right, name="left")
            nursery.start_soon(reply, right, to_left, name="right")
            del left, right, to_left, to_right

    at = "at test_hangs.py:N in reply(), waits to receive from a memory channel; it is empty, "
    assert (await picture(("program", program)))[1:] == [
        f"left {at}1 sending end open, which 'right' has: item = await receiver.receive()",
        f"right {at}1 sending end open, which 'left' has: item = await receiver.receive()",
        "likely deadlock: 'left' waits for 'right', 'right' waits for 'left'",
    ]


async def test_hang_both_sides_of_a_connection_receive() -> None:
    (listener,) = await nurseryio.open_tcp_listeners(0, host="127.0.0.1")
    address = listener.socket.getsockname()

    async def handler() -> None:
        async with await listener.accept() as stream:
            await stream.receive_some()

    async def client() -> None:
        async with await nurseryio.open_tcp_stream(*address) as stream:
            await stream.receive_some()

    nurseryio.lowlevel.current_task().name = "main"
    async with listener, nurseryio.open_nursery() as nursery:
        nursery.start_soon(handler, name="handler")
        nursery.start_soon(client, name="client")
        while str(tree := task_tree()).count(RECEIVES) < 2:
            await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    lines = lines_of(tree)
    at = "at test_hangs.py:N in"
    assert (
        f"client {at} client(), {RECEIVES} to 127.0.0.1:{address[1]}, whose other side 'handler' "
        "has: await stream.receive_some()"
    ) in lines
    assert (
        lines[-1] == "likely deadlock: 'client' waits for 'handler', 'handler' waits for 'client'"
    )


async def test_hang_both_sides_of_two_asyncio_queues_get() -> None:
    async def side(mine: Any, its: Any) -> None:
        item = await mine.get()
        its.put_nowait(item)

    async def program() -> None:
        a, b = asyncio.Queue[int](), asyncio.Queue[int]()
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(side, a, b, name="left")
            nursery.start_soon(side, b, a, name="right")
            del a, b

    at = "at test_hangs.py:N in side(), waits for an item of an asyncio.Queue; it is empty; "
    assert (await picture(("program", program)))[1:] == [
        f"left {at}'right' has it in a variable: item = await mine.get()",
        f"right {at}'left' has it in a variable: item = await mine.get()",
    ]


@pytest.mark.parametrize("kind", [nurseryio.Event, asyncio.Event])
async def test_hang_an_event_that_no_task_can_set(kind: Any) -> None:
    async def wait(event: Any) -> None:
        await event.wait()

    async def program() -> None:
        await wait(kind())

    name = "an Event" if kind is nurseryio.Event else "an asyncio.Event"
    assert await picture(("waiter", program)) == [
        f"waiter at test_hangs.py:N in wait(), waits for {name} to be set; "
        "no other task has it in a variable: await event.wait()",
    ]


# -- limits -----------------------------------------------------------------------------


async def test_hang_two_limiters_in_opposite_order() -> None:
    at = "at test_hangs.py:N in transfer(), waits for a token of a CapacityLimiter; the only one is"
    assert await picture(*transfers(partial(nurseryio.CapacityLimiter, 1))) == [
        f"back {at} held, by 'there': async with second.lock:",
        f"there {at} held, by 'back': async with second.lock:",
        "deadlock: 'back' waits for 'there', 'there' waits for 'back'",
    ]


@needs_references
@pytest.mark.parametrize("kind", [nurseryio.Semaphore, asyncio.Semaphore])
async def test_hang_a_semaphore_that_each_holder_takes_again(kind: Any) -> None:
    semaphore, both = kind(2), list[str]()

    async def twice() -> None:
        await transfer(Account(semaphore), Account(semaphore), both)

    name = "a Semaphore" if kind is nurseryio.Semaphore else "an asyncio.Semaphore"
    at = f"at test_hangs.py:N in transfer(), waits for {name}, whose value is 0; held by 'a', 'b'"
    assert await picture(("a", twice), ("b", twice)) == [
        f"a {at}: async with second.lock:",
        f"b {at}: async with second.lock:",
        "likely deadlock: 'a' waits for itself or 1 other that cannot go on",
    ]


async def test_hang_threads_whose_tasks_need_another_thread() -> None:
    limiter, both = nurseryio.CapacityLimiter(2), threading.Barrier(2)

    async def again() -> None:
        await nurseryio.to_thread.run_sync(len, "", limiter=limiter)

    def work() -> None:
        both.wait()
        nurseryio.from_thread.run(again)

    async def call() -> None:
        with pytest.raises(nurseryio.Cancelled):
            await nurseryio.to_thread.run_sync(work, limiter=limiter)

    nurseryio.lowlevel.current_task().name = "main"
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(call, name="a")
        nursery.start_soon(call, name="b")
        while str(tree := task_tree()).count(AGAIN) < 2:
            await wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    at = "at test_hangs.py:N in again(), waits for a thread; all 2 are held, by 'a', 'b': await"
    assert lines_of(tree) == [
        f'a {at} nurseryio.to_thread.run_sync(len, "", limiter=limiter)',
        f'b {at} nurseryio.to_thread.run_sync(len, "", limiter=limiter)',
        "deadlock: 'a' waits for itself or 1 other that cannot go on",
    ]


# -- tasks -------------------------------------------------------------------------------


CIRCLE = """
import asyncio, os
from nurseryio.instruments import task_tree

async def join(other):
    await asyncio.sleep(0)
    await tasks[other]

async def main():
    for name, other in ("xy", "yx"):
        tasks[name] = asyncio.create_task(join(other), name=name)
    await asyncio.sleep(0.01)
    print(task_tree(), flush=True)
    os._exit(0)  # asyncio cannot cancel tasks that await each other

tasks = {}
asyncio.run(main())
"""


def test_hang_tasks_that_await_each_other_in_a_circle(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(CIRCLE)
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=True
    )
    assert re.sub(r":\d+", ":N", done.stdout).splitlines()[1:] == [
        "asyncio task x at program.py:N in join(), waits for 1 asyncio task: 'y': "
        "await tasks[other]",
        "└─ asyncio task y at program.py:N in join(), waits for 1 asyncio task: 'x': "
        "await tasks[other]",
        "deadlock: 'x' waits for 'y', 'y' waits for 'x'",
    ]


# -- threads, the loop, shields --------------------------------------------------------------


class Work:
    """A function that does not return until it may."""

    def __init__(self) -> None:
        self.began, self.stop = threading.Event(), threading.Event()

    def work(self) -> None:
        self.began.set()
        while not self.stop.is_set():
            time.sleep(0.01)


@pytest.mark.limit(20)
@pytest.mark.parametrize("way", ["nurseryio", "asyncio", "executor"])
async def test_hang_a_thread_that_never_returns(way: str) -> None:
    work = Work()

    async def call() -> None:
        if way == "nurseryio":
            await nurseryio.to_thread.run_sync(work.work)
        elif way == "asyncio":
            await asyncio.to_thread(work.work)
        else:
            await asyncio.get_running_loop().run_in_executor(None, work.work)

    nurseryio.lowlevel.current_task().name = "main"
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(call, name="caller")
        await wait_all_tasks_blocked()
        try:
            assert work.began.wait(10)
            lines = lines_of(task_tree())
            nursery.cancel_scope.cancel("shutting down")
            why = [blocker.why for blocker in explain(nursery).blockers]
        finally:
            work.stop.set()
    if way != "nurseryio":
        await asyncio.get_running_loop().shutdown_default_executor()
    assert re.match(
        r"caller at test_hangs.py:N in call\(\), "
        r"waits for a thread that runs Work.work\(\), now at "
        r"test_hangs.py:N in work\(\): (while not self.stop.is_set\(\):|time.sleep\(.*\)): await ",
        lines[0],
    )
    if way == "nurseryio":
        assert "was cancelled, but a thread cannot be stopped from outside" in why


async def test_hang_a_shield_without_a_deadline() -> None:
    release = nurseryio.Event()

    async def clean_up() -> None:
        with nurseryio.CancelScope(shield=True):
            await release.wait()

    nurseryio.lowlevel.current_task().name = "main"
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(clean_up, name="clean-up")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel("shutting down")
        tree, why = lines_of(task_tree()), str(explain(nursery)).splitlines()
        release.set()
    reason = "cancelled due to explicit with reason 'shutting down' from task <Task 'main' at 0xN>"
    if asyncio.get_running_loop().get_debug():  # the place of the call is kept
        reason += ", at test_hangs.py:N in test_hang_a_shield_without_a_deadline()"
    tree, why = (
        [re.sub("0x[0-9a-f]+", "0xN", re.sub(r"\.py:\d+", ".py:N", line)) for line in lines]
        for lines in (tree, why)
    )
    assert tree[-1].endswith(
        f"scope, its shield without a deadline keeps a cancellation out ({reason})"
    )
    assert why[0] == f"a nursery in task 'main' waits for 2 tasks; {reason}"
    assert why[-1] == (
        f"  It is in a scope without a deadline whose shield keeps a cancellation out ({reason})."
    )


async def test_hang_time_sleep_in_a_task(loop_kind: str) -> None:
    loop = asyncio.get_running_loop()
    trees: list[TaskTree] = []
    seen = threading.Event()

    def look() -> None:
        trees.append(task_tree(loop))
        seen.set()

    async def report() -> None:
        thread = threading.Thread(target=look)
        thread.start()
        while not seen.is_set():
            time.sleep(0.01)
        thread.join()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(report, name="report")
    lines = re.sub(r":\d+", ":N", str(trees[0])).splitlines()
    if loop_kind == "uvloop":  # it does not show its thread
        assert any("report" in line and "is running" in line for line in lines)
        return
    assert lines[0] == "the loop is in a step of task 'report':"
    # A task factory that wraps coroutines has its own line above the function's.
    assert any(line.startswith("   test_hangs.py:N in report(): ") for line in lines)


# -- from outside -----------------------------------------------------------------------------

SERVICE = """
import sys
import nurseryio
import uvicorn
from fastapi import FastAPI
from nurseryio.instruments import dump_on_signal, explain, serve_monitor

app = FastAPI()
nurseries = []

async def ask(port):
    async with await nurseryio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"anything new?")
        return await stream.receive_some()

async def ask_by_httpx(port):
    async with httpx.AsyncClient(timeout=None) as client:
        return (await client.get(f"http://127.0.0.1:{port}/")).text

@app.get("/news")
async def news(port: int):
    async with nurseryio.open_nursery() as nursery:
        nurseries.append(nursery)
        nursery.start_soon(ask, port, name="news agency")
        nursery.start_soon(ask_by_httpx, port, name="weather")

@app.get("/why")
async def why():
    return str(explain(nurseries[0]))

import httpx
dump_on_signal()
with serve_monitor(sys.argv[1]):
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), loop=sys.argv[3], log_level="warning")
"""


@pytest.fixture
def dead_peer() -> Iterator[int]:
    """A server that accepts and never answers: its port."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connections.append(listening.accept()[0])

        thread = threading.Thread(target=accept)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    for connection in connections:
        connection.close()


@servers.needs_packages("fastapi", "uvicorn", "httpx")
@pytest.mark.limit(90)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_hang_a_fastapi_handler_whose_nursery_waits_for_a_dead_peer(
    loop: str, dead_peer: int, tmp_path: Path
) -> None:
    import httpx

    file, monitor = tmp_path / "service.py", tmp_path / "monitor"
    file.write_text(SERVICE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (tmp_path / "errors").open("w+") as errors:
        service = subprocess.Popen([sys.executable, file, monitor, str(port), loop], stderr=errors)
        try:
            url = f"http://127.0.0.1:{port}"
            ask = partial(httpx.get, f"{url}/news", params={"port": dead_peer}, timeout=None)

            def visit() -> None:
                with contextlib.suppress(httpx.HTTPError):
                    ask()

            end = time.monotonic() + 60
            while time.monotonic() < end:
                with contextlib.suppress(httpx.TransportError):
                    httpx.get(f"{url}/nothing")
                    break
                time.sleep(0.05)
            visitor = threading.Thread(target=visit)
            visitor.start()

            def tree() -> str:
                return subprocess.run(
                    [sys.executable, "-m", "nurseryio", "tree", "--socket", monitor],
                    capture_output=True,
                    text=True,
                    check=True,
                ).stdout

            peer = f"of the connection to 127.0.0.1:{dead_peer}"
            while tree().count(peer) < 2 and time.monotonic() < end:
                time.sleep(0.05)
            shown, why = tree(), httpx.get(f"{url}/why").json()
            service.send_signal(signal.SIGUSR1)
            while "weather" not in (tmp_path / "errors").read_text() and time.monotonic() < end:
                time.sleep(0.05)
            dumped = (tmp_path / "errors").read_text()
        finally:
            service.kill()
            service.wait()
        visitor.join()
    for text in (shown, why, dumped):
        text = re.sub(r"service\.py:\d+", "service.py:N", text)
        assert (
            f"news agency at service.py:N in ask(), waits in receive_some() {peer}: "
            "return await stream.receive_some()"
        ) in text
        assert (
            f"weather at service.py:N in ask_by_httpx(), waits in receive() {peer}: "
            'return (await client.get(f"http://127.0.0.1:{port}/")).text'
        ) in text
    assert len(shown.splitlines()) < 24  # one screen
    assert "in news(), waits for 2 children of its nursery: 'news agency', 'weather'" in shown


HUNG_TESTS = """
import asyncio
import pytest
import nurseryio

async def transfer(first, second):
    async with first:
        await nurseryio.sleep(0)
        async with second:
            pass

async def hang():
    a, b = asyncio.Lock(), asyncio.Lock()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(transfer, a, b, name="there")
        nursery.start_soon(transfer, b, a, name="back")

@pytest.mark.timeout(0.5)
@pytest.mark.MARKER
async def test_hangs():
    await hang()
"""


@needs_references
@pytest.mark.limit(60)
@pytest.mark.parametrize("plugin", ["nurseryio", "asyncio", "anyio"])
def test_hang_a_test_ends_at_its_limit_with_the_tree_in_its_report(
    plugin: str, pytester: pytest.Pytester
) -> None:
    pytest.importorskip("pytest_timeout")
    if plugin == "asyncio":
        pytest.importorskip("pytest_asyncio")
    pytester.makepyfile(HUNG_TESTS.replace("MARKER", plugin))
    options = ["-p", "no:randomly", "-p", "no:cacheprovider", "-o", "asyncio_mode=strict"]
    if plugin == "anyio":
        pytester.makeconftest(
            "import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
        )
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*nurseryio: the tasks*",
            "*back at *, waits for an asyncio.Lock; held by 'there': async with second:",
            "*there at *, waits for an asyncio.Lock; held by 'back': async with second:",
            "deadlock: 'back' waits for 'there', 'there' waits for 'back'",
        ]
    )
