"""A clock that jumps finds nothing to jump to."""

# Covered below 95 %: a report at the end of a test is in test_pytest_plugin.py.

from __future__ import annotations

import asyncio
import socket
import threading
import time
from typing import Any

import pytest

import nurseryio
from nurseryio.testing import DeadlockError, MockClock


def run(function: Any) -> Any:
    return nurseryio.run(function, clock=MockClock(autojump_threshold=0))


def test_a_deadlock_is_reported_with_all_tasks_and_where_they_wait() -> None:
    async def main() -> None:
        first, second = nurseryio.Lock(), nurseryio.Lock()

        async def take(one: nurseryio.Lock, other: nurseryio.Lock) -> None:
            async with one:
                await nurseryio.sleep(1)
                async with other:
                    raise AssertionError("not reached")

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(take, first, second, name="left")
            nursery.start_soon(take, second, first, name="right")

    with pytest.raises(DeadlockError) as caught:
        run(main)
    text = str(caught.value)
    assert "every task waits" in text
    lines = text.splitlines()
    assert "main at test_deadlock.py" in lines[1]
    assert [line.strip("│├└─ ").partition(" at ")[0] for line in lines[2:-1]] == [
        "nursery",
        "left",
        "right",
    ]
    assert all("async with other:" in line for line in lines[3:-1])
    assert lines[-1] == "deadlock: 'left' waits for 'right', 'right' waits for 'left'"


def test_deadlock_error_leaves_run_bare_whatever_main_raises_on_cancellation() -> None:
    async def main() -> None:
        try:
            await nurseryio.sleep_forever()
        except nurseryio.Cancelled:
            raise ValueError("in cleanup") from None

    with pytest.raises(DeadlockError) as caught:
        run(main)
    assert isinstance(caught.value.__cause__, ValueError)


def test_after_a_deadlock_cleanup_runs_and_may_even_sleep_in_a_shield() -> None:
    record = []

    async def main() -> None:
        try:
            await nurseryio.Event().wait()
        finally:
            with nurseryio.CancelScope(shield=True):
                await nurseryio.sleep(10)
                record.append(nurseryio.current_time())

    with pytest.raises(DeadlockError):
        run(main)
    assert record == [10]


def test_a_deadlock_in_a_shield_is_reported_as_well() -> None:
    async def main() -> None:
        with nurseryio.CancelScope(shield=True):
            await nurseryio.sleep_forever()

    with pytest.raises(DeadlockError):
        run(main)


def test_a_deadlock_of_a_task_that_swallows_cancellations_still_ends_the_run(
    loop_errors: list[str],
) -> None:
    stubborn = True

    async def main() -> None:
        while stubborn:
            try:
                with nurseryio.CancelScope(shield=True):
                    await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                continue

    try:
        with pytest.raises(DeadlockError):
            run(main)
    finally:
        stubborn = False


def test_a_deadlock_among_asyncio_tasks_is_reported() -> None:
    async def main() -> None:
        async def wait() -> None:
            await asyncio.Event().wait()

        await asyncio.gather(wait(), wait())

    with pytest.raises(DeadlockError, match="asyncio task Task-"):
        run(main)


def test_a_deadlock_does_not_affect_the_next_run_with_the_same_clock() -> None:
    clock = MockClock(autojump_threshold=0)
    with pytest.raises(DeadlockError):
        nurseryio.run(nurseryio.sleep_forever, clock=clock)
    nurseryio.run(nurseryio.sleep, 5, clock=clock)
    assert clock.current_time() == 5


# -- what is none ---------------------------------------------------------------


def test_a_wait_for_a_socket_is_not_a_deadlock() -> None:
    left, right = socket.socketpair()
    left.setblocking(False)

    async def main() -> bytes:
        return await asyncio.get_running_loop().sock_recv(left, 10)

    with left, right:
        # Long after the loop has become idle, as far as a test can say.
        timer = threading.Timer(0.05, right.send, [b"x"])
        timer.start()
        assert run(main) == b"x"
        timer.join()


def test_a_wait_for_a_worker_thread_is_not_a_deadlock() -> None:
    async def ours() -> int:
        return await nurseryio.to_thread.run_sync(lambda: time.sleep(0.02) or 1)

    async def asyncios() -> int:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: time.sleep(0.02) or 2)

    assert run(ours) == 1
    assert run(asyncios) == 2


def test_a_wait_for_an_unknown_thread_is_not_a_deadlock() -> None:
    async def main() -> None:
        event = asyncio.Event()
        loop = asyncio.get_running_loop()

        def work() -> None:
            time.sleep(0.02)
            loop.call_soon_threadsafe(event.set)

        thread = threading.Thread(target=work)
        thread.start()
        await event.wait()
        thread.join()

    run(main)


def test_idle_cached_threads_do_not_hide_a_deadlock() -> None:
    async def main() -> None:
        await nurseryio.to_thread.run_sync(int)
        await asyncio.get_running_loop().run_in_executor(None, int)
        await nurseryio.sleep_forever()

    with pytest.raises(DeadlockError):
        run(main)


def test_waiting_for_io_or_threads_under_an_autojump_clock_costs_no_cpu() -> None:
    async def main() -> None:
        await nurseryio.to_thread.run_sync(time.sleep, 0.4)

    before = time.process_time()
    run(main)
    assert time.process_time() - before < 0.2


async def test_a_mock_clock_without_autojump_reports_no_deadlock(mock_clock: MockClock) -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        await nurseryio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()


def test_a_deadlock_is_reported_although_repr_of_a_task_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> str:
        raise RecursionError

    monkeypatch.setattr("nurseryio.testing.deadlock.task_tree", fail)
    with pytest.raises(DeadlockError, match="cannot be shown: RecursionError"):
        run(nurseryio.sleep_forever)
