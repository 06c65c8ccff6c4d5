"""One call in a worker: the order of its end, and cancellations that meet the result."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from harness import worker_jobs
from harness.core import settle

from nurseryio import CancelScope, CapacityLimiter, open_nursery
from nurseryio._base import BrokenResourceError
from nurseryio._workers import call as module
from nurseryio._workers.call import WorkerCall, wait_for_call
from nurseryio._workers.packing import answer, pack_request
from nurseryio._workers.pool import Pool
from nurseryio.lowlevel import checkpoint, current_task


class Worker:
    """A worker in this process. It answers when the test lets it."""

    where = "a test"

    def __init__(self) -> None:
        self.broken = False
        self.ended = threading.Event()
        self.idle_since = 0.0
        self.is_working = True
        self.go = threading.Event()
        self.kills = 0
        self.lives_through_kills = False

    def exchange(self, request: bytes, function: str) -> bytes:
        assert self.go.wait(10)
        if self.kills and not self.lives_through_kills:
            self.broken = True
            raise BrokenResourceError(function)
        return answer(request)

    def end(self) -> None:
        self.ended.set()

    def kill(self) -> None:
        self.kills += 1
        self.ended.set()
        self.go.set()

    def begin(self) -> bool:
        self.is_working = True
        return True

    def rest(self) -> bool:
        self.is_working = False
        self.idle_since = time.monotonic()
        return not self.broken

    def forsake(self) -> None:
        raise AssertionError


class Setting:
    """A call of ``harness.worker_jobs.same`` with a worker of the test."""

    def __init__(self, *, kills: bool = True) -> None:
        task = current_task()
        self.worker = Worker()
        self.limiter = CapacityLimiter(1)
        self.pool = Pool(task._state, lambda: self.worker)
        self.packed = pack_request("f", worker_jobs.same, (5,))
        self.kills = kills

    async def make(self) -> Any:
        task = current_task()
        call = WorkerCall(
            "to_process",
            self.packed,
            "same",
            self.pool,
            self.kills,
            task,
            task._state.loop,
            self.limiter,
        )
        await self.limiter.acquire_on_behalf_of(call)
        assert call.name.startswith("nurseryio.to_process.run_sync-")
        return await wait_for_call(call, task)


async def test_a_worker_call_has_given_back_worker_and_token_when_it_returns() -> None:
    setting = Setting()
    setting.worker.go.set()
    assert await setting.make() == 5
    assert setting.limiter.borrowed_tokens == 0
    assert not setting.worker.is_working
    assert setting.pool.take() is setting.worker
    setting.pool.put_back(setting.worker)


async def test_a_cancelled_worker_call_kills_its_worker_once_and_raises_cancelled() -> None:
    setting = Setting()
    with CancelScope() as scope:
        async with open_nursery() as nursery:
            nursery.start_soon(setting.make)
            await settle()
            scope.cancel()
    assert scope.cancelled_caught
    assert setting.worker.kills == 1
    assert setting.limiter.borrowed_tokens == 0


async def test_a_worker_call_whose_result_comes_before_the_kill_returns_it() -> None:
    setting = Setting()
    setting.worker.lives_through_kills = True
    with CancelScope() as scope:
        async with open_nursery() as nursery:
            current_task()._state.loop.call_soon(scope.cancel)
            result = await setting.make()
            with pytest.raises(BaseException, match="cancelled"):
                await checkpoint()
            nursery.cancel_scope.cancel()
    assert result == 5
    assert setting.worker.kills == 1


async def test_a_worker_call_whose_error_comes_before_the_kill_raises_the_error() -> None:
    setting = Setting()
    setting.packed = pack_request("f", worker_jobs.fail, ())
    setting.worker.lives_through_kills = True
    with CancelScope() as scope:
        current_task()._state.loop.call_soon(scope.cancel)
        with pytest.raises(KeyError, match="of the job"):
            await setting.make()
    assert setting.worker.kills == 1


async def test_a_cancelled_worker_call_that_cannot_kill_returns_its_result() -> None:
    setting = Setting(kills=False)
    with CancelScope() as scope:
        loop = current_task()._state.loop
        loop.call_soon(scope.cancel)
        loop.call_soon(loop.call_soon, setting.worker.go.set)
        assert await setting.make() == 5
        await checkpoint()
    assert scope.cancelled_caught
    assert setting.worker.kills == 0


async def test_a_worker_call_whose_thread_cannot_start_gives_back_its_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "start_thread_soon", refuse)
    setting = Setting()
    with pytest.raises(RuntimeError, match="can't start"):
        await setting.make()
    assert setting.limiter.borrowed_tokens == 0
    assert not setting.worker.is_working


async def test_a_worker_call_whose_pool_fails_raises_that_error() -> None:
    class BadWorker(Worker):
        def rest(self) -> bool:
            raise ZeroDivisionError

    setting = Setting()
    setting.worker = BadWorker()
    setting.worker.go.set()
    with pytest.raises(ZeroDivisionError):
        await setting.make()
    assert setting.limiter.borrowed_tokens == 0
