"""Blocking calls of the system in worker threads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import nurseryio
from nurseryio._resolver import offload
from nurseryio._resolver.offload import call_in_thread
from nurseryio.testing import assert_checkpoints


async def test_offload_returns_the_functions_result() -> None:
    with assert_checkpoints():
        assert await call_in_thread(divmod, 7, 2) == (3, 1)


async def test_offload_raises_the_functions_error() -> None:
    with assert_checkpoints(), pytest.raises(ZeroDivisionError):
        await call_in_thread(divmod, 7, 0)


async def test_offload_runs_the_function_in_another_thread() -> None:
    assert await call_in_thread(threading.get_ident) != threading.get_ident()


async def test_a_cancelled_offload_returns_at_once_and_its_thread_finishes_by_itself() -> None:
    release = threading.Event()
    ended = threading.Event()

    def block() -> None:
        release.wait(30)
        ended.set()

    with nurseryio.move_on_after(0.01) as scope:
        await call_in_thread(block)
    assert scope.cancelled_caught
    assert not ended.is_set()
    release.set()
    assert await call_in_thread(ended.wait, 30)
    # Its token came back through the loop.
    while offload._limiter.get().borrowed_tokens:
        await asyncio.sleep(0.001)


async def test_offload_starts_nothing_in_a_cancelled_scope() -> None:
    called = []
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await call_in_thread(called.append, 1)
    assert scope.cancelled_caught
    assert not called


async def test_thread_limit_of_the_resolver_limits_offload() -> None:
    release = threading.Event()
    running = 0
    most = 0
    lock = threading.Lock()

    def block() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        release.wait(30)
        with lock:
            running -= 1

    async with nurseryio.open_nursery() as nursery:
        for _ in range(offload.MOST_AT_ONCE + 10):
            nursery.start_soon(call_in_thread, block)
        limiter = offload._limiter
        while not limiter.get(None) or limiter.get().statistics().tasks_waiting < 10:
            await asyncio.sleep(0.001)
        assert limiter.get().borrowed_tokens == offload.MOST_AT_ONCE
        release.set()
    assert most <= offload.MOST_AT_ONCE
    assert limiter.get().borrowed_tokens == 0


async def test_a_thread_that_cannot_be_started_is_an_error_and_costs_no_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_args: object) -> None:
        raise RuntimeError("can't start new thread")

    await call_in_thread(int)
    monkeypatch.setattr(offload, "start_thread_soon", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        await call_in_thread(int)
    assert offload._limiter.get().borrowed_tokens == 0


def test_an_offload_result_that_comes_after_the_end_of_the_loop_is_dropped() -> None:
    release = threading.Event()
    threads: list[threading.Thread] = []

    def block() -> None:
        threads.append(threading.current_thread())
        release.wait(30)

    async def main() -> None:
        with nurseryio.move_on_after(0.01):
            await call_in_thread(block)

    nurseryio.run(main)
    release.set()
    # The thread goes on to other work.
    assert threads


def test_a_stuck_offload_does_not_stop_a_run_from_ending() -> None:
    release = threading.Event()

    async def main() -> None:
        with nurseryio.move_on_after(0.01):
            await call_in_thread(release.wait, 30)

    nurseryio.run(main)
    assert not release.is_set()
    release.set()


async def test_an_error_in_releasing_the_limiter_token_does_not_leave_the_caller_waiting(
    loop_errors: list[str],
) -> None:
    await call_in_thread(int)
    limiter = offload._limiter.get()

    class Failing:
        acquire_on_behalf_of = limiter.acquire_on_behalf_of

        def release_on_behalf_of(self, borrower: object) -> None:
            limiter.release_on_behalf_of(borrower)
            raise ZeroDivisionError

    token = offload._limiter.set(Failing())  # type: ignore[arg-type]
    assert await call_in_thread(int) == 0
    offload._limiter.reset(token)
    assert "ZeroDivisionError" in loop_errors[0]


async def test_an_offload_result_that_could_not_be_sent_is_replaced_by_the_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    loop: Any = asyncio.get_running_loop()
    refused = []
    original = loop.call_soon_threadsafe

    def refuse_once(*args: Any, **options: Any) -> Any:
        if not refused:
            refused.append(args)
            raise MemoryError
        return original(*args, **options)

    monkeypatch.setattr(loop, "call_soon_threadsafe", refuse_once, raising=False)
    with pytest.raises(MemoryError):
        await call_in_thread(int)
    monkeypatch.undo()
    assert offload._limiter.get().borrowed_tokens == 0
    await nurseryio.lowlevel.checkpoint()
    assert len(refused) == 1
