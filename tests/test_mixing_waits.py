"""The ways to wait in asyncio code, inside nurseryio's scopes and around its nurseries."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from harness.core import HAS_COUNTS, cancelling, forever, leaves, little_cpu, needs_counts, settle

import nurseryio
from nurseryio import CancelScope, open_nursery

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@contextlib.asynccontextmanager
async def task_of(coro: Any) -> Any:
    """A task beside the wait, for what does not cancel the tasks that it waits for."""
    task = asyncio.ensure_future(coro)
    try:
        yield task
    finally:
        task.cancel()


# -- inside a scope ---------------------------------------------------------------


async def in_wait_for() -> None:
    await asyncio.wait_for(forever(), 60)


async def in_gather() -> None:
    await asyncio.gather(forever(), nurseryio.sleep_forever())


async def in_shield() -> None:
    async with task_of(forever()) as task:
        await asyncio.shield(task)


async def in_wait() -> None:
    async with task_of(forever()) as task:
        await asyncio.wait([task])


async def in_as_completed() -> None:
    async with task_of(forever()) as task:
        for first in asyncio.as_completed([task]):
            await first


async def in_a_task() -> None:
    await asyncio.ensure_future(nurseryio.sleep_forever())


async def in_queue() -> None:
    await asyncio.Queue[int]().get()


async def in_lock() -> None:
    lock = asyncio.Lock()
    async with lock:
        await lock.acquire()


async def in_condition() -> None:
    condition = asyncio.Condition()
    async with condition:
        await condition.wait()


async def in_timeout() -> None:
    async with asyncio.timeout(60):  # type: ignore[attr-defined,unused-ignore]
        await forever()


async def in_task_group() -> None:
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
        group.create_task(forever())
        group.create_task(nurseryio.sleep_forever())


WAITS = [
    in_wait_for,
    in_gather,
    in_shield,
    in_wait,
    in_as_completed,
    in_a_task,
    in_queue,
    in_lock,
    in_condition,
    pytest.param(in_timeout, marks=needs_counts),
    pytest.param(in_task_group, marks=needs_counts),
]
each_wait = pytest.mark.parametrize("wait", WAITS)


@each_wait
async def test_a_scope_cancels_every_kind_of_asyncio_wait_in_it(wait: Any) -> None:
    with CancelScope() as scope:
        asyncio.get_running_loop().call_later(0.001, scope.cancel)
        await wait()
    assert scope.cancelled_caught
    assert cancelling() == 0


@each_wait
async def test_an_asyncio_wait_begun_in_a_cancelled_scope_is_cancelled(wait: Any) -> None:
    with CancelScope() as scope:
        scope.cancel()
        await wait()
    assert scope.cancelled_caught
    assert cancelling() == 0


@each_wait
async def test_a_failing_child_cancels_an_asyncio_wait_in_the_body(wait: Any) -> None:
    async def fail() -> None:
        await settle()
        raise ValueError("child")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(fail)
            await wait()
    assert [repr(leaf) for leaf in leaves(caught.value)] == ["ValueError('child')"]


@needs_counts
@each_wait
@pytest.mark.parametrize("native_first", [False, True])
async def test_a_native_cancel_in_the_iteration_of_a_scopes_cancel_is_not_lost(
    wait: Any, native_first: bool
) -> None:
    scope = CancelScope()

    async def main() -> None:
        with scope:
            await wait()
        raise AssertionError("the native cancel was lost")

    task = asyncio.ensure_future(main())
    await settle()
    for cancel in (task.cancel, scope.cancel) if native_first else (scope.cancel, task.cancel):
        cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@each_wait
async def test_a_cancelled_wait_behind_an_asyncio_shield_costs_no_cpu(wait: Any) -> None:
    async def stubborn() -> None:
        with CancelScope(shield=True), little_cpu():
            with nurseryio.move_on_after(0.15):
                await wait()

    async with open_nursery() as nursery:
        nursery.start_soon(stubborn)
        nursery.cancel_scope.cancel()


async def test_an_item_that_an_asyncio_queue_handed_over_before_a_cancel_is_not_lost() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    got = []

    async def take() -> None:
        got.append(await queue.get())

    for cancel_first in (False, True):
        async with open_nursery() as nursery:
            nursery.start_soon(take)
            await settle()
            if cancel_first:
                nursery.cancel_scope.cancel()
            queue.put_nowait(1)
            nursery.cancel_scope.cancel()
        assert len(got) + queue.qsize() == 1 + cancel_first
    assert got == [1]
    assert queue.get_nowait() == 1


async def test_asyncio_to_thread_is_not_waited_for_by_a_cancelled_scope() -> None:
    release, done = threading.Event(), threading.Event()

    def work() -> None:
        release.wait(10)
        done.set()

    with CancelScope() as scope:
        asyncio.get_running_loop().call_later(0.01, scope.cancel)
        await asyncio.to_thread(work)
    assert scope.cancelled_caught
    assert not done.is_set()
    release.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert done.is_set()


async def test_asyncio_to_thread_runs_in_a_nursery_of_its_caller() -> None:
    results = []

    async def child(number: int) -> None:
        results.append(await asyncio.to_thread(pow, number, 2))

    async with open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(child, number)
    assert sorted(results) == [0, 1, 4]
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_an_asyncio_subprocess_is_ended_in_the_cleanup_of_a_cancelled_scope() -> None:
    code = "import time; print('up', flush=True); time.sleep(60)"
    with CancelScope() as scope:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            assert await process.stdout.readline() == b"up\n"
            asyncio.get_running_loop().call_soon(scope.cancel)
            await process.wait()
        finally:
            with CancelScope(shield=True):
                process.kill()
                await process.communicate()
    assert scope.cancelled_caught
    assert process.returncode not in (None, 0)
    await settle()


# -- around a nursery -------------------------------------------------------------


class Work:
    """A nursery whose children wait, and who of them has ended."""

    def __init__(self) -> None:
        self.begun = self.ended = 0

    async def child(self) -> None:
        self.begun += 1
        try:
            await nurseryio.sleep_forever()
        finally:
            self.ended += 1

    async def run(self) -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(self.child)
            nursery.start_soon(self.child)
            await forever()

    async def fail(self) -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(self.child)
            await settle()
            raise ValueError("body")


@pytest.fixture
def work() -> Any:
    made = Work()
    yield made
    assert made.begun == made.ended > 0


async def test_asyncio_wait_for_cancels_a_nursery_and_raises_timeout_error(work: Work) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(work.run(), 0.005)
    assert cancelling() == 0


@needs_counts
async def test_an_asyncio_timeout_cancels_a_nursery_and_raises_timeout_error(work: Work) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.005):  # type: ignore[attr-defined,unused-ignore]
            await work.run()
    assert cancelling() == 0


async def test_a_nursery_goes_on_behind_an_asyncio_shield(work: Work) -> None:
    task = asyncio.ensure_future(work.run())
    await settle()
    with CancelScope() as scope:
        asyncio.get_running_loop().call_later(0.001, scope.cancel)
        await asyncio.shield(task)
    assert scope.cancelled_caught
    assert work.begun == 2
    assert work.ended == 0
    task.cancel()
    await asyncio.wait([task])


async def test_asyncio_gather_passes_the_error_of_a_nursery_and_leaves_the_other(
    work: Work,
) -> None:
    other = asyncio.ensure_future(work.run())
    with pytest.raises(BaseExceptionGroup) as caught:
        await asyncio.gather(work.fail(), other)
    assert [str(leaf) for leaf in leaves(caught.value)] == ["body"]
    assert not other.done()
    other.cancel()
    await asyncio.wait([other])


async def test_a_cancelled_asyncio_gather_cancels_the_nurseries_in_it(work: Work) -> None:
    task = asyncio.ensure_future(_gathered(work.run, work.run))
    await settle()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert work.ended == 4


async def _gathered(*functions: Callable[[], Awaitable[None]]) -> None:
    await asyncio.gather(*(function() for function in functions))


async def test_asyncio_as_completed_yields_the_results_of_nurseries() -> None:
    async def add(number: int) -> int:
        total = []

        async def child(part: int) -> None:
            await nurseryio.lowlevel.checkpoint()
            total.append(part)

        async with open_nursery() as nursery:
            for part in range(number):
                nursery.start_soon(child, part)
        return sum(total)

    sums = [await first for first in asyncio.as_completed([add(3), add(4)])]
    assert sorted(sums) == [3, 6]


async def test_an_asyncio_queue_works_between_children_and_asyncio_tasks() -> None:
    queue: asyncio.Queue[int] = asyncio.Queue(maxsize=1)
    seen = []

    async def worker() -> None:
        while True:
            seen.append(await queue.get())
            queue.task_done()

    async def produce() -> None:
        for number in range(10):
            await queue.put(number)

    async with open_nursery() as nursery:
        nursery.start_soon(worker)
        nursery.start_soon(worker)
        await asyncio.ensure_future(produce())
        await queue.join()
        nursery.cancel_scope.cancel()
    assert sorted(seen) == list(range(10))


# -- waits that a cancellation does not end ---------------------------------------


class Blocking:
    """Functions for a worker thread. Each blocks until the test lets it go on."""

    def __init__(self) -> None:
        self.begun = nurseryio.Event()
        self.go = threading.Event()
        self.token = nurseryio.lowlevel.current_trio_token()

    def work(self) -> str:
        self.token.run_sync_soon(self.begun.set)
        assert self.go.wait(10)
        return "result"

    def fail(self) -> str:
        self.work()
        raise KeyError("result")

    def call_back(self) -> str:
        self.work()
        return nurseryio.from_thread.run_sync(str, "result")

    def await_back(self) -> str:
        async def answer() -> str:
            self.begun.set()
            with CancelScope(shield=True):
                await nurseryio.to_thread.run_sync(self.go.wait)
            return "result"

        return nurseryio.from_thread.run(answer)

    def read(self) -> str:
        return self.work()


UNABANDONED: dict[str, Callable[[Blocking], Awaitable[object]]] = {
    "thread": lambda at: nurseryio.to_thread.run_sync(at.work),
    "failing thread": lambda at: nurseryio.to_thread.run_sync(at.fail),
    "from_thread.run_sync": lambda at: nurseryio.to_thread.run_sync(at.call_back),
    "from_thread.run": lambda at: nurseryio.to_thread.run_sync(at.await_back),
    "file": lambda at: nurseryio.wrap_file(File(at)).read(),
}


class File:
    """A file whose ``read`` blocks."""

    def __init__(self, at: Blocking) -> None:
        self.read = at.read

    def close(self) -> None:
        """Needed by ``wrap_file``."""


async def in_a_plain_task(job: Callable[[], Awaitable[object]]) -> None:
    await asyncio.ensure_future(job())


async def in_a_child(job: Callable[[], Awaitable[object]]) -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(job)


async def in_an_asyncio_task_group(job: Callable[[], Any]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(job())


@pytest.mark.parametrize("host", [in_a_plain_task, in_a_child, in_an_asyncio_task_group])
@pytest.mark.parametrize("wait", UNABANDONED)
async def test_a_native_cancel_of_a_wait_that_goes_on_loses_neither_the_result_nor_itself(
    wait: str, host: Any
) -> None:
    if host is in_an_asyncio_task_group and sys.version_info < (3, 11):
        pytest.skip("asyncio.TaskGroup is new in 3.11")
    log: list[object] = []

    async def job(last: bool) -> None:
        at = Blocking()
        task = asyncio.current_task()
        assert task is not None

        async def cancel() -> None:
            await at.begun.wait()
            task.cancel("native")
            await settle()
            assert task in asyncio.all_tasks()
            at.go.set()

        canceller = asyncio.ensure_future(cancel())
        try:
            log.append(await UNABANDONED[wait](at))
        except KeyError as error:
            log.append(error.args[0])
        log.append(cancelling())
        if not last:
            try:
                await forever()
            except asyncio.CancelledError as error:
                log.extend((*error.args, cancelling()))
        assert canceller.done() and canceller.exception() is None

    for last in (True, False):
        await host(lambda last=last: job(last))
    count = int(HAS_COUNTS)
    assert log == ["result", count, "result", count, "native", count]


@pytest.mark.parametrize("wait", ["thread", "file"])
async def test_a_time_limit_of_asyncio_that_expires_in_a_wait_which_goes_on_keeps_the_result(
    wait: str,
) -> None:
    at = Blocking()

    async def release() -> None:
        await at.begun.wait()
        await asyncio.sleep(0.01)
        at.go.set()

    async def job() -> object:
        return await UNABANDONED[wait](at)

    releasing = asyncio.ensure_future(release())
    assert await asyncio.wait_for(job(), 0.001) == "result"
    assert cancelling() == 0
    await releasing
    await asyncio.sleep(0)


@needs_counts
async def test_a_task_group_that_fails_in_a_wait_which_goes_on_withdraws_its_cancellation() -> None:
    at = Blocking()
    log: list[object] = []

    async def fails() -> None:
        await at.begun.wait()
        raise KeyError

    async def release() -> None:
        await at.begun.wait()
        await settle()
        at.go.set()

    releasing = asyncio.ensure_future(release())
    with pytest.raises(BaseExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            log.append(await UNABANDONED["thread"](at))
    log.append(cancelling())
    await releasing
    await asyncio.sleep(0.001)
    assert [type(leaf) for leaf in leaves(caught.value)] == [KeyError]
    assert log == ["result", 0]


@needs_counts
@pytest.mark.parametrize("first", ["timeout", "native"])
async def test_a_native_cancel_beside_an_expired_asyncio_timeout_is_raised_after_the_wait(
    first: str,
) -> None:
    at = Blocking()
    log: list[object] = []

    async def job() -> None:
        async with asyncio.timeout(None) as timeout:
            limits.append(timeout)
            log.append(await UNABANDONED["thread"](at))
        log.append(cancelling())
        await forever()

    limits: list[Any] = []
    task = asyncio.ensure_future(job())
    await at.begun.wait()
    actions = [lambda: limits[0].reschedule(0), task.cancel]
    for action in actions if first == "timeout" else reversed(actions):
        action()
        await settle()
    at.go.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert log == ["result", 1]
