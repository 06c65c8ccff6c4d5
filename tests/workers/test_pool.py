"""The workers of one loop: reuse, surplus workers, and the end of the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from nurseryio._core.loop_state import loop_state
from nurseryio._workers import pool as module
from nurseryio._workers.pool import Pool, processors


class Worker:
    """A worker without a process."""

    where = "here"

    def __init__(self) -> None:
        self.broken = False
        self.ended = threading.Event()
        self.idle_since = 0.0
        self.is_working = True
        self.alive = True
        self.killed = self.forsaken = False

    def exchange(self, request: bytes, function: str) -> bytes:
        raise AssertionError

    def end(self) -> None:
        self.ended.set()

    def kill(self) -> None:
        self.killed = True
        self.ended.set()

    def begin(self) -> bool:
        self.is_working = self.alive
        return self.alive

    def rest(self) -> bool:
        self.is_working = False
        self.idle_since = time.monotonic()
        return not self.broken

    def forsake(self) -> None:
        self.forsaken = True


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture
def pool(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(module, "IDLE_SECONDS", float("inf"))
    made = Pool(loop_state(loop), Worker)
    made.limiter.total_tokens = 3
    return made


def take(pool: Pool) -> Any:
    return pool.take()


def test_a_pool_gives_the_worker_that_became_idle_last(pool: Pool) -> None:
    first, second = take(pool), take(pool)
    pool.put_back(second)
    pool.put_back(first)
    assert take(pool) is first
    assert take(pool) is second


def test_a_pool_drops_a_worker_that_is_broken(pool: Pool) -> None:
    worker = take(pool)
    worker.broken = True
    pool.put_back(worker)
    assert take(pool) is not worker


def test_a_pool_ends_an_idle_worker_that_has_died(pool: Pool) -> None:
    worker = take(pool)
    pool.put_back(worker)
    worker.alive = False
    assert take(pool) is not worker
    assert worker.ended.wait(10)


def test_a_pool_ends_workers_above_the_tokens_of_its_limiter(pool: Pool) -> None:
    workers = [take(pool) for _ in range(3)]
    pool.limiter.total_tokens = 1
    for worker in workers:
        pool.put_back(worker)
    assert workers[0].ended.wait(10)
    assert workers[1].ended.wait(10)
    assert not workers[2].ended.is_set()


def test_a_pool_ends_workers_that_were_idle_for_long(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = take(pool), take(pool)
    pool.put_back(old)
    monkeypatch.setattr(module, "IDLE_SECONDS", 300.0)
    old.idle_since = time.monotonic() - 301
    pool.put_back(new)
    assert old.ended.wait(10)
    assert not new.ended.is_set()


def test_closing_the_loop_kills_working_workers_and_ends_idle_ones(
    pool: Pool, loop: asyncio.AbstractEventLoop
) -> None:
    working, idle = take(pool), take(pool)
    pool.put_back(idle)
    loop.close()
    assert working.killed
    assert not idle.killed
    assert idle.ended.is_set()
    pool.close()


def test_a_worker_that_comes_back_to_a_closed_pool_is_ended(pool: Pool) -> None:
    worker = take(pool)
    pool.close()
    worker.ended.clear()
    pool.put_back(worker)
    assert worker.ended.wait(10)


def test_a_pool_that_is_collected_ends_its_workers(loop: asyncio.AbstractEventLoop) -> None:
    pool = Pool(loop_state(loop), Worker)
    worker = take(pool)
    pool.put_back(worker)
    del pool
    assert worker.ended.wait(10)


def test_a_pool_in_a_forked_child_leaves_the_workers_of_its_parent_alone(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = take(pool)
    monkeypatch.setattr(module, "generation", lambda: -1)
    pool.close()
    assert not worker.killed
    pool.forsake()
    assert worker.forsaken
    assert not worker.killed


def test_workers_are_ended_in_this_thread_if_no_other_can_be_started(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    worker = take(pool)
    pool.put_back(worker)
    monkeypatch.setattr(module, "start_thread_soon", refuse)
    pool.close()
    assert worker.ended.is_set()


def test_processors_is_the_number_that_this_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert processors() >= 1
    monkeypatch.delattr(module.os, "process_cpu_count", raising=False)
    assert processors() >= 1
    monkeypatch.delattr(module.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(module.os, "cpu_count", lambda: None)
    assert processors() == 1
