"""System tasks, under run() and on a loop that other code runs."""

# Covered below 95 %: system tasks from another thread are in test_from_thread.py; a loop that
# starts them eagerly is one of the full matrix.

from __future__ import annotations

import asyncio
import contextvars

import pytest

import nurseryio
from nurseryio.lowlevel import (
    checkpoint,
    currently_ki_protected,
    spawn_system_task,
)

VAR = contextvars.ContextVar("VAR", default="nothing")


async def test_a_system_task_runs_and_does_not_inherit_contextvars() -> None:
    seen = []
    done = nurseryio.Event()

    async def system() -> None:
        seen.append((VAR.get(), currently_ki_protected()))
        done.set()

    VAR.set("the caller's")
    task = spawn_system_task(system, name="by name")
    assert seen == []
    assert task.name == "by name"
    await done.wait()
    done = nurseryio.Event()
    context = contextvars.copy_context()
    spawn_system_task(system, context=context)
    await done.wait()
    assert seen == [("nothing", True), ("the caller's", True)]


def test_system_tasks_are_cancelled_when_the_main_task_has_ended() -> None:
    record = []

    async def system() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            record.append("system task ends")

    async def main() -> None:
        spawn_system_task(system)
        await checkpoint()
        await checkpoint()
        record.append("main task ends")

    nurseryio.run(main)
    assert record == ["main task ends", "system task ends"]


def test_a_failing_system_task_ends_the_run() -> None:
    async def system() -> None:
        raise KeyError("system")

    async def main() -> None:
        spawn_system_task(system)
        await nurseryio.sleep_forever()

    with pytest.raises(nurseryio.TrioInternalError) as caught:
        nurseryio.run(main)
    assert "KeyError('system')" in repr(caught.value.__cause__)


@pytest.mark.app_only
async def test_a_failing_system_task_of_a_plain_loop_is_reported(loop_errors: list[str]) -> None:
    async def system() -> None:
        raise KeyError("system")

    task = spawn_system_task(system)
    await asyncio.wait([task.asyncio_task])
    await checkpoint()
    assert len(loop_errors) == 1


@pytest.mark.app_only
async def test_a_repr_that_fails_does_not_keep_the_error_from_being_reported(
    loop_errors: list[str],
) -> None:
    class Function:
        async def __call__(self) -> None:
            raise KeyError("system")

        def __repr__(self) -> str:
            raise ValueError("repr")

    task = spawn_system_task(Function())
    await asyncio.wait([task.asyncio_task])
    await checkpoint()
    assert len(loop_errors) == 1
    assert "KeyError('system')" in loop_errors[0]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_system_exit_of_a_system_task_ends_a_plain_asyncio_loop(error: BaseException) -> None:
    async def system() -> None:
        raise error

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        spawn_system_task(system)
        await asyncio.sleep(60)

    with pytest.raises(type(error)) as caught:
        asyncio.run(main())
    assert caught.value is error


async def test_a_system_task_cancelled_before_its_first_step_leaves_nothing() -> None:
    async def system() -> None:
        raise AssertionError("must not run")

    task = spawn_system_task(system)
    task.asyncio_task.cancel()
    for _ in range(3):
        await checkpoint()
    assert task.asyncio_task.done()


async def test_spawn_system_task_refuses_what_is_not_an_async_function() -> None:
    with pytest.raises(TypeError, match="synchronous"):
        spawn_system_task(print)  # type: ignore[arg-type]
