"""``to_process.run_sync``: results, errors, cancellation, limits, crashes, ends of programs."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from harness import core, forks, worker_jobs
from harness.worker_jobs import Job, a_fifo, is_there

import nurseryio
from nurseryio import CancelScope, CapacityLimiter, open_nursery, to_process
from nurseryio._base.exc_fields import notes_of
from nurseryio.instruments import task_tree
from nurseryio.testing import wait_all_tasks_blocked

pytestmark = [
    pytest.mark.costly("starts processes, which hardly depend on the loop"),
    pytest.mark.skipif(os.name != "posix", reason="looks at processes as Unix has them"),
    pytest.mark.limit(60),
]


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    """At the end of each test no child is left but multiprocessing's own."""
    yield
    try:
        found, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return
    assert found == 0  # no zombie


# -- results --------------------------------------------------------------------


async def test_to_process_run_sync_calls_functions_in_one_worker_process_one_after_another() -> (
    None
):
    first = await to_process.run_sync(worker_jobs.pid)
    with pytest.raises(KeyError, match="of the job") as caught:
        await to_process.run_sync(worker_jobs.fail)
    assert f"The traceback in worker process {first}:" in notes_of(caught.value)[0]
    with pytest.raises(pickle.PicklingError):
        await to_process.run_sync(worker_jobs.make_lock)
    assert await to_process.run_sync(worker_jobs.pid) == first != os.getpid()


async def test_to_process_run_sync_refuses_wrong_arguments_at_the_call() -> None:
    with pytest.raises(TypeError, match="needs a function to call, not 5"):
        await to_process.run_sync(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="limiter must be a CapacityLimiter"):
        await to_process.run_sync(int, limiter=5)  # type: ignore[call-overload]
    with pytest.raises(pickle.PicklingError, match="cannot send the function"):
        await to_process.run_sync(lambda: 5)
    limiter = to_process.current_default_process_limiter()
    assert limiter.borrowed_tokens == 0
    assert limiter.total_tokens >= 1


async def test_to_process_run_sync_in_a_cancelled_scope_starts_no_process() -> None:
    with CancelScope() as scope:
        scope.cancel()
        await to_process.run_sync(worker_jobs.die_by_exit, 1)
    assert scope.cancelled_caught


# -- cancellation ---------------------------------------------------------------


async def test_cancelling_to_process_run_sync_kills_the_worker_and_frees_its_token() -> None:
    limiter = CapacityLimiter(1)
    with a_fifo() as fifo:
        job = Job(fifo, limiter)
        async with open_nursery() as nursery:
            nursery.start_soon(job.run)
            pid = await job.pid()
            assert limiter.borrowed_tokens == 1
            nursery.cancel_scope.cancel()
    assert not is_there(pid)
    assert limiter.borrowed_tokens == 0


async def test_a_native_cancel_of_to_process_run_sync_kills_the_worker() -> None:
    with a_fifo() as fifo:
        job = Job(fifo)
        task = asyncio.create_task(job.run())
        pid = await job.pid()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert not is_there(pid)


async def test_a_call_that_waits_for_a_token_of_to_process_is_in_the_tree_with_its_worker() -> None:
    limiter = CapacityLimiter(1)
    with a_fifo() as fifo:
        job = Job(fifo, limiter)
        async with open_nursery() as nursery:
            nursery.start_soon(job.run, name="works")
            pid = await job.pid()
            nursery.start_soon(job.run, name="waits")
            await wait_all_tasks_blocked()
            tree = str(task_tree())
            nursery.cancel_scope.cancel()
    assert f"waits for a worker process that runs work_for_ever(), pid {pid}" in tree
    assert "waits for a worker process; the only one is held, by 'works'" in tree


@pytest.mark.parametrize("natively", [False, True])
def test_to_process_run_sync_cancelled_while_its_worker_starts_leaves_no_worker_and_no_token(
    natively: bool,
) -> None:
    """A cancellation at each of the first iterations of the loop, the wait for a token included."""

    async def scoped(scope: CancelScope, fifo: str, limiter: CapacityLimiter) -> None:
        with scope:
            await to_process.run_sync(worker_jobs.work_for_ever, fifo, limiter=limiter)

    async def main(fifo: str) -> None:
        limiter = CapacityLimiter(1)
        for turns in (0, 2, 4):
            scope = CancelScope()
            call = partial(to_process.run_sync, worker_jobs.pid, limiter=limiter)
            tasks: list[asyncio.Task[Any]] = [
                asyncio.create_task(scoped(scope, fifo, limiter)),
                asyncio.create_task(call()),
            ]
            await core.turns(turns)
            tasks[0].cancel() if natively else scope.cancel()
            await asyncio.wait(tasks)
            assert tasks[0].cancelled() == natively
            assert natively or scope.cancelled_caught
            assert limiter.borrowed_tokens == 0
            assert limiter.statistics().tasks_waiting == 0

    with a_fifo() as fifo:
        nurseryio.run(main, fifo)


# -- workers that die -----------------------------------------------------------


def the_death_of(fn: Any, *args: Any) -> to_process.BrokenWorkerProcess:
    """The error of a call whose worker dies. Another worker makes the next call."""

    async def main() -> to_process.BrokenWorkerProcess:
        with pytest.raises(to_process.BrokenWorkerProcess) as caught:
            await to_process.run_sync(fn, *args)
        assert await to_process.run_sync(worker_jobs.pid) != caught.value.pid
        return caught.value

    return nurseryio.run(main)


def test_a_worker_process_that_exits_is_a_broken_worker_process_error_with_its_status() -> None:
    error = the_death_of(worker_jobs.die_by_exit, 3)
    assert str(error).endswith("exited with status 3 while it called die_by_exit()")
    assert error.exitcode == 3
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.pid, copy.exitcode) == (str(error), error.pid, 3)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
def test_a_worker_process_that_a_signal_ends_is_an_error_with_the_name_of_it(name: str) -> None:
    error = the_death_of(worker_jobs.die_by_signal, getattr(signal, name))
    assert f"was killed by {name} while it called die_by_signal()" in str(error)
    assert error.exitcode == -getattr(signal, name)
    assert ("memory" in str(notes_of(error))) == (name == "SIGKILL")


def test_the_death_of_a_worker_process_is_noticed_although_a_child_of_it_lives_on() -> None:
    with a_fifo() as fifo:
        error = the_death_of(worker_jobs.fork_and_die, fifo)
        assert error.exitcode == 7
        with open(fifo, "w"):
            pass  # the child was waiting for this


def test_an_idle_worker_process_that_was_killed_is_replaced_without_an_error() -> None:
    async def main() -> None:
        pid = await to_process.run_sync(worker_jobs.pid)
        os.kill(pid, signal.SIGKILL)
        # Until it has ended; it is not reaped here.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert await to_process.run_sync(worker_jobs.pid) != pid

    nurseryio.run(main)


# -- ends of programs -----------------------------------------------------------


def test_the_end_of_a_run_ends_idle_worker_processes_and_reaps_them() -> None:
    pid = nurseryio.run(to_process.run_sync, worker_jobs.pid)
    assert not is_there(pid)


def test_closing_a_loop_in_the_middle_of_a_call_kills_the_worker_process() -> None:
    loop = asyncio.new_event_loop()
    with a_fifo() as fifo:
        job = Job(fifo)
        task = loop.create_task(job.run())
        pid = loop.run_until_complete(job.pid())
        loop.close()
        assert not is_there(pid)
    task.get_coro().close()  # type: ignore[union-attr]


def test_the_end_of_a_program_that_closes_no_loop_kills_the_workers_that_a_call_uses() -> None:
    code = """
import asyncio, builtins, os, signal
from harness import worker_jobs

if __name__ == "__main__":
    builtins.loop = asyncio.new_event_loop()  # is not freed
    with worker_jobs.a_fifo() as fifo:
        job = worker_jobs.Job(fifo)
        builtins.task = builtins.loop.create_task(job.run())
        pid = builtins.loop.run_until_complete(job.pid())
        os.kill(pid, signal.SIGSTOP)  # it does not notice the end of the program
        print("stopped")
"""
    status, output, _ = worker_jobs.run_program(code)
    assert (status, output) == (0, "stopped\n")


def test_a_worker_process_with_a_thread_that_stays_ends_with_a_killed_program() -> None:
    code = """
import os, signal
import nurseryio
from harness import worker_jobs
from nurseryio import to_process

async def main():
    print(await to_process.run_sync(worker_jobs.start_thread_that_stays), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    nurseryio.run(main)
"""
    # Its output ends when the worker has ended, which has the same standard output.
    status, output, _ = worker_jobs.run_program(code)
    assert status == -signal.SIGKILL
    assert int(output)


def test_a_forked_child_uses_workers_of_its_own_and_leaves_those_of_its_parent() -> None:
    async def main() -> None:
        pid = await to_process.run_sync(worker_jobs.pid)

        def child() -> None:
            assert nurseryio.run(to_process.run_sync, worker_jobs.pid) != pid

        assert forks.in_child(child) == 0
        assert await to_process.run_sync(worker_jobs.pid) == pid

    nurseryio.run(main)


def test_many_calls_of_to_process_use_as_many_workers_as_the_limiter_allows() -> None:
    async def main() -> set[int]:
        to_process.current_default_process_limiter().total_tokens = 2
        call = partial(to_process.run_sync, worker_jobs.pid)
        return set(await nurseryio.gather(*[call] * 20))

    assert 1 <= len(nurseryio.run(main)) <= 2
