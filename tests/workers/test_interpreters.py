"""``to_interpreter.run_sync``: results, errors, cancellation, the end of the loop (Python 3.14)."""

# Covered below 95 %: Python 3.13 and older have no subinterpreters that are public.

from __future__ import annotations

import importlib
import pickle
import sys
import threading
from typing import Any

import pytest
from harness import worker_jobs
from harness.worker_jobs import run_program

import nurseryio
from nurseryio import CancelScope, CapacityLimiter, open_nursery, to_interpreter
from nurseryio._base.exc_fields import notes_of
from nurseryio._workers.interpreters import WorkerInterpreter, to_interpreter_run_sync
from nurseryio.instruments import task_tree
from nurseryio.testing import wait_all_tasks_blocked

HAS_INTERPRETERS = sys.version_info >= (3, 14)
with_interpreters = pytest.mark.skipif(
    not HAS_INTERPRETERS, reason="concurrent.interpreters is new in Python 3.14"
)
pytestmark = pytest.mark.limit(60)


@pytest.mark.skipif(HAS_INTERPRETERS, reason="this Python has subinterpreters")
async def test_to_interpreter_run_sync_of_an_old_python_names_what_to_use_instead() -> None:
    with pytest.raises(NotImplementedError, match=r"needs Python 3.14: use to_process.run_sync\("):
        await to_interpreter.run_sync(int)


async def test_current_default_interpreter_limiter_has_a_token_for_each_processor() -> None:
    limiter = to_interpreter.current_default_interpreter_limiter()
    assert limiter.total_tokens >= 1
    assert to_interpreter.current_default_interpreter_limiter() is limiter


def test_a_subinterpreter_that_was_never_made_ends_and_is_not_used_again() -> None:
    worker = WorkerInterpreter()
    assert worker.is_working
    assert worker.where == "subinterpreter None"
    worker.end()
    assert worker.ended.is_set()
    assert not worker.rest()
    assert worker.begin()
    worker.kill()
    worker.forsake()


@pytest.mark.skipif(HAS_INTERPRETERS, reason="this Python can make one")
def test_a_subinterpreter_that_cannot_be_made_is_a_broken_worker_interpreter_error() -> None:
    worker = WorkerInterpreter()
    with pytest.raises(to_interpreter.BrokenWorkerInterpreter, match=r"for f\(\) has failed"):
        worker.exchange(b"", "f")
    assert worker.broken


@with_interpreters
def test_to_interpreter_run_sync_calls_functions_in_one_subinterpreter_of_this_process() -> None:
    interpreters: Any = importlib.import_module("concurrent.interpreters")
    before = len(interpreters.list_all())

    async def main() -> None:
        pid = await to_interpreter.run_sync(worker_jobs.pid)
        assert pid == worker_jobs.pid()
        name = await to_interpreter.run_sync(worker_jobs.interpreter)
        assert name != worker_jobs.interpreter()
        assert await to_interpreter.run_sync(worker_jobs.interpreter) == name
        with pytest.raises(KeyError, match="of the job") as caught:
            await to_interpreter.run_sync(worker_jobs.fail)
        assert f"The traceback in subinterpreter {name}:" in notes_of(caught.value)[0]
        assert len(interpreters.list_all()) == before + 1

    nurseryio.run(main)
    assert len(interpreters.list_all()) == before


@with_interpreters
def test_to_interpreter_run_sync_refuses_wrong_arguments_at_the_call() -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match="needs a function to call, not 5"):
            await to_interpreter_run_sync(5)  # type: ignore[arg-type]
        with pytest.raises(pickle.PicklingError, match="cannot send the function"):
            await to_interpreter.run_sync(lambda: 5)
        with pytest.raises(pickle.PicklingError, match=r"the result of make_lock\(\)"):
            await to_interpreter.run_sync(worker_jobs.make_lock)

    nurseryio.run(main)


@with_interpreters
def test_a_cancelled_call_of_to_interpreter_waits_for_its_result_and_is_in_the_tree() -> None:
    limiter = CapacityLimiter(1)
    results = []

    async def call(fifo: str) -> None:
        results.append(await to_interpreter.run_sync(worker_jobs.wait_for, fifo, limiter=limiter))

    async def main(fifo: str) -> None:
        with CancelScope() as scope:
            async with open_nursery() as nursery:
                nursery.start_soon(call, fifo)
                await wait_all_tasks_blocked()
                assert "waits for a worker interpreter that runs wait_for()" in str(task_tree())
                scope.cancel()
                thread = threading.Thread(target=worker_jobs.let_go, args=(fifo,))
                thread.start()
        thread.join()
        assert scope.cancelled_caught or results

    with worker_jobs.a_fifo() as fifo:
        nurseryio.run(main, fifo)
    assert results == ["go"]
    assert limiter.borrowed_tokens == 0


@with_interpreters
def test_a_subinterpreter_has_the_functions_of_the_main_module() -> None:
    code = """
import nurseryio
from nurseryio import to_interpreter

def job():
    return __name__

if __name__ == "__main__":
    print(nurseryio.run(to_interpreter.run_sync, job))
"""
    assert run_program(code) == (0, "__mp_main__\n", "")


@with_interpreters
def test_a_main_module_that_starts_the_program_at_its_import_breaks_the_subinterpreter() -> None:
    code = """
import nurseryio
from nurseryio import to_interpreter

nurseryio.run(to_interpreter.run_sync, int)
"""
    status, _, errors = run_program(code)
    assert status == 1
    assert "BrokenWorkerInterpreter: the subinterpreter for int() has failed" in errors
