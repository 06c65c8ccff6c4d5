"""run(): a loop of one's own, from the first task to the last."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
from typing import Any

import pytest

import nurseryio
from nurseryio import TrioInternalError, open_nursery, run
from nurseryio.lowlevel import checkpoint, current_task
from nurseryio.testing import MockClock

VAR = contextvars.ContextVar("VAR", default="outside")


async def give(value: object) -> object:
    await checkpoint()
    return value


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


def test_it_returns_what_the_function_returns() -> None:
    assert run(give, 5) == 5


def test_it_raises_what_the_function_raises_as_it_is() -> None:
    async def main() -> None:
        raise KeyError("main")

    with pytest.raises(KeyError, match="main") as caught:
        run(main)
    assert caught.traceback[-1].name == "main"


def test_the_loop_is_closed_and_none_is_left_set() -> None:
    loops = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())

    run(main)
    assert loops[0].is_closed()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()


def test_a_loop_factory_chooses_the_loop() -> None:
    made = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.SelectorEventLoop())
        return made[0]

    async def main() -> bool:
        return asyncio.get_running_loop() is made[0]

    assert run(main, loop_factory=factory)


@pytest.mark.parametrize("factory", [5, lambda: "no loop"])
def test_what_makes_no_loop_is_refused(factory: Any) -> None:
    with pytest.raises(TypeError, match="loop"):
        run(give, 5, loop_factory=factory)


async def test_inside_a_running_loop_it_says_to_await_instead() -> None:
    with pytest.raises(RuntimeError, match="just await the function"):
        run(give, 5)


def test_what_is_no_async_function_is_refused() -> None:
    with pytest.raises(TypeError, match="did you write give"):
        run(give(5))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="synchronous"):
        run(print)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        run(5)  # type: ignore[arg-type]


def test_context_variables_go_in_and_do_not_come_out() -> None:
    async def main() -> str:
        before = VAR.get()
        VAR.set("inside")
        return before

    token = VAR.set("caller")
    try:
        assert run(main) == "caller"
        assert VAR.get() == "caller"
    finally:
        VAR.reset(token)


def test_the_main_task_has_the_name_of_its_function() -> None:
    async def main() -> tuple[str, Any]:
        return current_task().name, current_task().coro.__qualname__

    name, coro_name = run(main)
    assert name.endswith("<locals>.main")
    assert coro_name.endswith("<locals>.main")


def test_what_asyncio_code_left_running_is_cancelled() -> None:
    record = []

    async def left() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            record.append("cancelled")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(left())
        await asyncio.sleep(0)
        return task

    assert run(main).cancelled()
    assert record == ["cancelled"]


def test_an_error_of_a_task_that_was_left_is_reported() -> None:
    reports: list[Any] = []

    async def left() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise KeyError("left")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
        main.task = asyncio.create_task(left())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    run(main)
    assert [repr(report) for report in reports] == ["KeyError('left')"]


def test_a_clock_can_be_given() -> None:
    async def main() -> float:
        await nurseryio.sleep(3600)
        return nurseryio.current_time()

    assert run(main, clock=MockClock(autojump_threshold=0)) == 3600


def test_runs_in_several_threads_do_not_meet() -> None:
    results: dict[int, object] = {}
    barrier = threading.Barrier(4, timeout=30)

    async def main(number: int) -> int:
        barrier.wait()
        async with open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(give, number)
        return number

    def in_thread(number: int) -> None:
        results[number] = run(main, number)

    threads = [threading.Thread(target=in_thread, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: number for number in range(4)}


def test_one_run_after_the_other() -> None:
    assert [run(give, number) for number in range(3)] == [0, 1, 2]


def test_a_lone_exit_of_a_child_leaves_bare() -> None:
    async def child() -> None:
        sys.exit(7)

    async def main() -> None:
        async with open_nursery() as outer, open_nursery():
            outer.start_soon(child)
            await nurseryio.sleep_forever()

    with pytest.raises(SystemExit) as caught:
        run(main)
    assert caught.value.code == 7
    with pytest.raises(BaseException) as group:
        run(main, strict_exception_groups=True)
    assert type(group.value).__name__ == "BaseExceptionGroup"


def test_loose_groups_are_warned_of_and_work() -> None:
    async def main() -> None:
        async with open_nursery():
            raise KeyError("alone")

    with pytest.warns(nurseryio.TrioDeprecationWarning), pytest.raises(KeyError):
        run(main, strict_exception_groups=False)


def test_a_root_task_that_somebody_cancels_is_an_internal_error() -> None:
    async def main() -> None:
        nursery = current_task().parent_nursery
        assert nursery is not None
        nursery.parent_task.asyncio_task.cancel()
        await nurseryio.sleep_forever()

    with pytest.raises((TrioInternalError, nurseryio.Cancelled)):
        run(main)


EXIT = """
import sys, nurseryio
async def child():
    sys.exit(3)
async def main():
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
        try:
            await nurseryio.sleep_forever()
        finally:
            print("cleaned up")
{how}
"""


@pytest.mark.parametrize("how", ["nurseryio.run(main)", "import asyncio; asyncio.run(main())"])
def test_exit_codes_survive_and_nothing_is_printed(how: str) -> None:
    done = run_python(EXIT.format(how=how))
    assert (done.returncode, done.stdout, done.stderr) == (3, "cleaned up\n", "")
