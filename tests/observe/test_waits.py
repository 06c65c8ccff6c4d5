"""What a task waits for, as a sentence and as data."""

from __future__ import annotations

import ast
import importlib
import re
import socket
import threading
from functools import partial
from typing import Any

import pytest
from harness import source
from harness.core import forever, settle
from harness.waiting import wait_in, waiting

import nurseryio
from nurseryio._observe.wait_parts import Wait
from nurseryio._observe.waits import OPERATIONS, SOCKET_ROOMS
from nurseryio.instruments import task_tree
from nurseryio.testing import wait_all_tasks_blocked


def numbers_hidden(text: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "N", text)


# -- timeouts --------------------------------------------------------------------------


async def test_the_wait_of_a_sleep_has_the_seconds_left() -> None:
    wait = await wait_in(lambda: nurseryio.sleep(1000))
    assert (wait.kind, numbers_hidden(wait.text)) == ("sleep", "sleeps for another N s")
    assert 900 < wait.details["left"] < 1001


async def test_the_wait_of_a_sleep_until_has_the_seconds_left() -> None:
    wait = await wait_in(lambda: nurseryio.sleep_until(nurseryio.current_time() + 1000))
    assert 900 < wait.details["left"] < 1001


async def test_the_wait_of_sleep_forever_has_no_end() -> None:
    wait = await wait_in(nurseryio.sleep_forever)
    assert wait == Wait("sleep", "sleeps for ever")


# -- primitives ------------------------------------------------------------------------


async def test_the_wait_for_an_event_counts_the_other_tasks() -> None:
    event = nurseryio.Event()
    nurseryio.lowlevel.current_task().name = "host"
    async with waiting(event.wait, event.wait) as tasks:
        assert tasks[0].wait == Wait(
            "event",
            "waits for an Event to be set, as does 1 other task; 'host' has it in a variable",
            {"tasks_waiting": 2, "tasks_with_it": ["host"]},
        )


@pytest.mark.parametrize("kind", [nurseryio.Lock, nurseryio.StrictFIFOLock])
async def test_the_wait_for_a_lock_names_the_owner(kind: Any) -> None:
    lock = kind()

    async def hold() -> None:
        async with lock:
            await forever()

    async with waiting(hold, lock.acquire) as (holder, waiter):
        assert waiter.wait == Wait(
            "lock",
            "waits for a lock that 'a' holds",
            {"owner": "a", "tasks_waiting": 1},
            (holder.id,),
        )


async def test_the_wait_for_a_condition_says_whether_the_task_was_notified() -> None:
    condition = nurseryio.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    async def notify() -> None:
        async with condition:
            condition.notify()
            await forever()

    assert (await wait_in(wait)).text == "waits to be notified on a Condition"
    # notify() has put the task into the queue of the lock.
    async with waiting(wait, notify) as (waiter, _):
        assert waiter.wait is not None
        assert waiter.wait.text == "waits for the lock of the Condition that 'b' holds"


async def test_the_wait_of_a_cancelled_condition_is_for_its_lock() -> None:
    condition = nurseryio.Condition()
    scope = nurseryio.CancelScope()

    async def wait() -> None:
        with scope:
            async with condition:
                await condition.wait()

    async def hold() -> None:
        async with condition:
            scope.cancel()
            with nurseryio.CancelScope(shield=True):
                await released.wait()

    released = nurseryio.Event()
    async with waiting(wait, hold) as (waiter, _):
        assert waiter.wait is not None
        assert waiter.wait.text == "waits for the lock of the Condition that 'b' holds"
        released.set()


async def test_the_wait_for_a_semaphore_says_that_its_value_is_zero() -> None:
    wait = await wait_in(nurseryio.Semaphore(0).acquire)
    assert wait == Wait(
        "semaphore",
        "waits for a Semaphore, whose value is 0",
        {"value": 0, "tasks_waiting": 1, "owners": []},
        certain=False,
    )


async def test_the_wait_for_a_limiter_names_the_borrowers() -> None:
    limiter = nurseryio.CapacityLimiter(1)

    async def hold() -> None:
        async with limiter:
            await forever()

    async with waiting(hold, limiter.acquire) as (_, waiter):
        assert waiter.wait is not None
        assert (
            waiter.wait.text
            == "waits for a token of a CapacityLimiter; the only one is held, by 'a'"
        )
        assert waiter.wait.details["borrowers"] == ["a"]
        assert waiter.wait.certain


async def test_the_wait_to_send_shows_the_buffer_and_the_open_receiving_ends() -> None:
    sender, receiver = nurseryio.open_memory_channel[int](1)
    sender.send_nowait(1)
    nurseryio.lowlevel.current_task().name = "me"
    wait = await wait_in(lambda: sender.send(2))
    assert wait.kind == "channel send"
    assert wait.text == (
        "waits to send to a memory channel; the buffer holds 1 of 1, no task receives, "
        "1 receiving end open, which 'me' has"
    )
    assert wait.details["tasks_waiting_send"] == 1
    receiver.close()


ELSEWHERE: list[nurseryio.MemorySendChannel[int]] = []


async def test_the_wait_to_receive_shows_the_open_sending_ends_and_other_receivers() -> None:
    sender, receiver = nurseryio.open_memory_channel[int](float("inf"))

    async def iterate() -> None:
        async for _ in receiver:
            raise AssertionError("nothing was sent")

    nurseryio.lowlevel.current_task().name = "me"
    ELSEWHERE.append(sender.clone())
    with sender:
        async with waiting(iterate, receiver.receive) as tasks:
            for task in tasks:
                assert task.wait is not None
                assert task.wait.kind == "channel receive"
                assert task.wait.text == (
                    "waits to receive from a memory channel; it is empty, 1 task more waits, "
                    "2 sending ends open, 'me' has 1 of them"
                )
                assert task.wait.any_of == ()  # the other end is somewhere else
                assert task.wait.details["max_buffer_size"] is None
    ELSEWHERE.pop().close()


async def test_the_waits_for_an_unbounded_queue_and_in_a_parking_lot() -> None:
    with pytest.warns(nurseryio.TrioDeprecationWarning):
        queue = nurseryio.lowlevel.UnboundedQueue[int]()
    assert (await wait_in(queue.get_batch)).kind == "queue"
    lot = nurseryio.lowlevel.ParkingLot()
    assert (await wait_in(lot.park)).text == "is parked in a ParkingLot with 1 task"


async def test_the_wait_in_wait_task_rescheduled_is_called_custom() -> None:
    def abort(_raise_cancel: object) -> nurseryio.lowlevel.Abort:
        return nurseryio.lowlevel.Abort.SUCCEEDED

    wait = await wait_in(lambda: nurseryio.lowlevel.wait_task_rescheduled(abort))
    assert wait == Wait("custom", "waits to be rescheduled by other code")


# -- nurseries -------------------------------------------------------------------------


async def test_the_wait_at_the_end_of_a_nursery_names_the_children_and_has_their_ids() -> None:
    async def parent() -> None:
        async with nurseryio.open_nursery() as inner:
            for name in ("x", "y"):
                inner.start_soon(forever, name=name)

    async with waiting(parent) as (task,):
        assert task.wait is not None
        assert task.wait.text == "waits for 2 children of its nursery: 'x', 'y'"
        children = [info.id for info in task_tree().tasks if info.parent == task.id]
        assert sorted(task.wait.tasks) == sorted(children)


@pytest.mark.costly("many tasks")
async def test_the_wait_for_many_children_names_only_some() -> None:
    async def parent() -> None:
        async with nurseryio.open_nursery() as inner:
            for number in range(2000):
                inner.start_soon(forever, name=f"{number:04}")

    wait = await wait_in(parent)
    assert wait.text == (
        "waits for 2,000 children of its nursery: '0000', '0001', '0002', '0003', '0004', "
        "1,995 more"
    )


async def test_the_wait_in_start_names_the_child_that_has_to_call_started() -> None:
    async def never(task_status: nurseryio.TaskStatus[None]) -> None:
        await forever()

    async def start() -> None:
        async with nurseryio.open_nursery() as inner:
            await inner.start(never, name="slow")

    assert (await wait_in(start)).text == ("waits for task_status.started() to be called by 'slow'")


async def test_the_wait_at_the_end_of_a_nursery_for_a_start_under_way() -> None:
    async def never(task_status: nurseryio.TaskStatus[None]) -> None:
        await forever()

    async with nurseryio.open_nursery() as outer:

        async def parent() -> None:
            async with nurseryio.open_nursery() as inner:
                outer.start_soon(inner.start, never, name="z")
                await settle()

        outer.start_soon(parent, name="p")
        await wait_all_tasks_blocked()
        parents = [task for task in task_tree().tasks if task.name == "p"]
        assert parents[0].wait is not None
        assert parents[0].wait.text == "waits for 1 call of start() in its nursery"
        outer.cancel_scope.cancel()


async def test_the_wait_in_gather_names_the_calls_that_are_left() -> None:
    wait = await wait_in(lambda: nurseryio.gather(forever, forever))
    assert wait.kind == "tasks"
    assert wait.text.startswith("waits for 2 calls of gather(): ")


# -- threads, processes, sockets ---------------------------------------------------------


async def test_the_wait_for_a_thread_has_the_function_and_the_line_that_the_thread_is_at() -> None:
    began, stop = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        stop.wait()  # here

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.to_thread.run_sync, work, name="t")
        await nurseryio.to_thread.run_sync(began.wait)
        (task,) = (task for task in task_tree().tasks if task.name == "t")
        stop.set()
    assert task.wait is not None
    assert task.wait.kind == "thread"
    assert task.wait.details["function"].endswith("work")
    assert task.wait.text.startswith(f"waits for a thread that runs {work.__qualname__}(), now at ")
    assert "test_waits.py" in task.wait.details["place"]


async def test_the_wait_for_a_free_thread_shows_the_tasks_whose_threads_have_the_tokens() -> None:
    limiter = nurseryio.CapacityLimiter(1)
    stop = threading.Event()
    async with nurseryio.open_nursery() as nursery:
        for name in ("first", "second"):
            run = partial(nurseryio.to_thread.run_sync, stop.wait, limiter=limiter)
            nursery.start_soon(run, name=name)
            await wait_all_tasks_blocked()
        (first, second) = (task for task in task_tree().tasks if task.name in ("first", "second"))
        stop.set()
    assert second.wait is not None
    assert second.wait.text == "waits for a thread; the only one is held, by 'first'"
    assert second.wait.any_of == (first.id,)


async def test_the_wait_for_a_free_thread_shows_the_limiter() -> None:
    limiter = nurseryio.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("somebody")
    wait = await wait_in(lambda: nurseryio.to_thread.run_sync(len, "", limiter=limiter))
    assert wait.kind == "limiter"
    assert wait.text.startswith("waits for a thread; the only one is held, by")


async def test_the_wait_for_a_process_has_its_pid() -> None:
    process = await nurseryio.lowlevel.open_process(["sleep", "1000"])
    try:
        async with waiting(process.wait, process.wait) as tasks:
            for task in tasks:
                assert task.wait is not None
                assert task.wait.details == {"pid": process.pid}
                assert task.wait.text == (
                    f"waits for process {process.pid} to end: ['sleep', '1000']"
                )
    finally:
        process.kill()
        await process.wait()


async def test_the_wait_for_a_connection_and_for_data_has_the_addresses() -> None:
    (listener,) = await nurseryio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]

    async def serve() -> None:
        await nurseryio.serve_listeners(lambda stream: stream.receive_some(), [listener])

    async def client() -> None:
        async with await nurseryio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.receive_some()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(serve, name="s")
        nursery.start_soon(client, name="c")
        for _ in range(3):
            await wait_all_tasks_blocked(0.01)
        found = {task.name: task for task in task_tree().tasks}
        nursery.cancel_scope.cancel()
    server, connected = found["s"].wait, found["c"].wait
    assert server is not None
    assert connected is not None
    assert server.text == f"serves 127.0.0.1:{port}"
    assert connected.text.startswith(
        f"waits in receive_some() of the connection to 127.0.0.1:{port}, whose other side '"
    )
    accepts = [
        task.wait.text for task in found.values() if task.wait and task.wait.kind == "accept"
    ]
    assert accepts == [f"waits for a connection to 127.0.0.1:{port}"]


async def test_the_wait_for_a_descriptor_has_its_number() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wait = await wait_in(lambda: nurseryio.lowlevel.wait_readable(ours.fileno()))
        assert wait == Wait(
            "descriptor",
            f"waits for descriptor {ours.fileno()} to become readable",
            {"fd": ours.fileno()},
        )


# -- failures ---------------------------------------------------------------------------


async def test_a_wait_that_cannot_be_shown_names_the_operation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_view: object) -> Wait:
        raise RuntimeError("boom")

    monkeypatch.setitem(OPERATIONS["_sync.event"], "wait", fail)
    assert await wait_in(nurseryio.Event().wait) == Wait("unknown", "waits in Event.wait()")


async def test_a_name_that_cannot_be_shown_does_not_keep_the_wait_from_being_shown() -> None:
    class Bad(str):
        def __str__(self) -> str:
            raise RuntimeError("boom")

    lock = nurseryio.Lock()

    async def hold() -> None:
        nurseryio.lowlevel.current_task()._name = Bad("bad")
        async with lock:
            await forever()

    async with waiting(hold, lock.acquire) as tasks:
        texts = [task.wait.text for task in tasks if task.wait is not None]
        assert "waits for a lock that 'a task whose name cannot be shown' holds" in texts


# -- the table --------------------------------------------------------------------------

# Functions that wait, and that only functions of the table or of SOCKET_ROOMS call.
INNER = {
    "_core.traps.wait_future",
    "_core.traps._turn",
    "_core.wait_queue.park",
    "_loop.wait_io._wait",
    "_nursery.nursery_exit.join_children",
    "_nursery.timeouts._sleep",
    "_resolver.offload.call_in_thread",
    "_sync.condition._acquire_again",
    "_workers.call.wait_for_call",
}
TRAPS = ("park", "wait_task_rescheduled", "wait_future", "_sleep")


def functions_that_wait() -> set[str]:
    """The functions of the library that call a trap, by module and name."""
    found = set()
    for name, module in source.modules().items():
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.AsyncFunctionDef):
                continue
            for part in ast.walk(node):
                if isinstance(part, ast.Await) and isinstance(part.value, ast.Call):
                    function = part.value.func
                    called = getattr(function, "id", None) or getattr(function, "attr", None)
                    if called in TRAPS:
                        found.add(f"{name}.{node.name}")
    return found


def test_each_operation_in_the_table_exists() -> None:
    for module, functions in OPERATIONS.items():
        tree = source.modules()[module].tree
        names = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
        }
        assert {*functions} <= names, module
        importlib.import_module(f"nurseryio.{module}")


def test_each_function_that_waits_is_in_the_table_or_called_by_one_that_is() -> None:
    rooms = tuple(room.removeprefix("nurseryio.") for room in SOCKET_ROOMS)
    table = {f"{module}.{name}" for module, names in OPERATIONS.items() for name in names}
    missing = {
        name
        for name in functions_that_wait() - table - INNER
        if not name.startswith((*rooms, "testing.", "_checks.", "_interop."))
    }
    assert missing == set()
