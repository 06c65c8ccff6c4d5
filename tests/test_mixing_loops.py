"""Loops in every state that asyncio programs have them in: threads, factories, ends, notebooks."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from harness import matrix
from harness.core import cancelling, leaves, needs_counts, settle

import nurseryio
from nurseryio import open_nursery
from nurseryio.lowlevel import checkpoint

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

each_kind = pytest.mark.parametrize("kind", list(matrix.KINDS))


# -- several loops at once ----------------------------------------------------------


async def race(number: int) -> list[int]:
    """Children that a timeout ends, and some work after it; the number of each that ended."""
    ended: list[int] = []

    async def child() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(number)

    with nurseryio.move_on_after(0.001 * number):
        async with open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(child)
    for _ in range(50):
        await checkpoint()
    return ended


@each_kind
def test_loops_in_several_threads_are_independent(kind: str) -> None:
    results: dict[int, list[int]] = {}

    def run(number: int) -> None:
        async def main() -> None:
            results[number] = await race(number)

        matrix.run_app(lambda: matrix.new_loop(kind), main)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [number] * 5 for number in range(1, 9)}


async def test_a_nursery_of_another_loop_refuses_start_soon_and_stays_unchanged() -> None:
    errors: list[BaseException] = []

    def elsewhere() -> None:
        async def main() -> None:
            nursery.start_soon(checkpoint)

        try:
            asyncio.run(main())
        except RuntimeError as exc:
            errors.append(exc)

    async with open_nursery() as nursery:
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert not nursery.child_tasks
    assert "another thread or event loop" in str(errors[0])


@needs_counts
@each_kind
def test_an_asyncio_runner_is_used_again_and_again(kind: str) -> None:
    with asyncio.Runner(loop_factory=lambda: matrix.new_loop(kind)) as runner:  # type: ignore[attr-defined,unused-ignore]
        for number in range(1, 4):
            assert runner.run(race(number)) == [number] * 5


def test_one_run_after_another_keeps_no_state_of_the_first() -> None:
    for number in range(1, 4):
        assert asyncio.run(race(number)) == [number] * 5
        assert len(nurseryio.run(race, number)) == 5


# -- task factories -----------------------------------------------------------------


class OwnTask(asyncio.Task):  # type: ignore[type-arg]
    """A task of a user's own class."""


def test_children_are_made_by_the_task_factory_of_the_loop() -> None:
    made: list[asyncio.Task[Any]] = []

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
        made.append(OwnTask(coro, loop=loop, **options))
        return made[-1]

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        with nurseryio.move_on_after(0.001) as scope:
            async with open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep_forever)
                nursery.start_soon(asyncio.sleep, 60)
        assert scope.cancelled_caught
        assert cancelling() == 0

    asyncio.run(main())
    assert len(made) >= 2
    assert all(task.done() for task in made)


async def test_a_task_factory_set_while_a_nursery_is_open_makes_its_next_children() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    kinds = []

    async def child() -> None:
        kinds.append(type(asyncio.current_task()))

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        loop.set_task_factory(lambda loop, coro, **options: OwnTask(coro, loop=loop, **options))
        nursery.start_soon(child)
        loop.set_task_factory(before)
    assert issubclass(kinds[0], asyncio.Task)
    assert kinds[0] is not OwnTask
    assert kinds[1] is OwnTask


# -- the end of a loop ----------------------------------------------------------------


@each_kind
def test_the_end_of_asyncio_run_cancels_nurseries_open_in_other_tasks(kind: str) -> None:
    events = []

    async def child(name: str) -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            with nurseryio.CancelScope(shield=True):
                await asyncio.sleep(0.001)
                events.append(name)

    async def background() -> None:
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(child, "child")
                async with open_nursery() as inner:
                    inner.start_soon(child, "grandchild")
        finally:
            events.append("background")

    tasks = []

    async def main() -> None:
        tasks.append(asyncio.ensure_future(background()))
        await settle()

    matrix.run_app(lambda: matrix.new_loop(kind), main)
    assert sorted(events[:2]) == ["child", "grandchild"]
    assert events[2:] == ["background"]
    assert tasks[0].cancelled()


def test_an_error_in_the_cleanup_at_the_end_of_a_loop_is_reported_once(loop_errors: Any) -> None:
    async def child() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            raise ValueError("in cleanup")

    async def background() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(child)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(context))
        tasks.append(asyncio.ensure_future(background()))
        await settle()

    reports: list[dict[str, Any]] = []
    tasks: list[asyncio.Task[None]] = []
    asyncio.run(main())
    assert [context["task"] for context in reports] == tasks
    assert [str(leaf) for leaf in leaves(reports[0]["exception"])] == ["in cleanup"]


# -- notebooks: a loop that keeps running, each cell in its own task ----------------------


class Notebook:
    """Runs cells one after another, each a task, on one loop that goes on in between."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def cell(self, coro: Any) -> Any:
        """Run a cell to its end, as top-level await does."""
        return self.loop.run_until_complete(coro)


@pytest.fixture(params=list(matrix.KINDS))
def notebook(request: Any) -> Iterator[Notebook]:
    loop = matrix.new_loop(request.param)
    yield Notebook(loop)
    assert not asyncio.all_tasks(loop)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def test_each_notebook_cell_may_use_nurseries_and_scopes(notebook: Notebook) -> None:
    assert notebook.cell(race(1)) == [1] * 5

    async def fails() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
            raise ValueError("in a cell")

    with pytest.raises(BaseExceptionGroup):
        notebook.cell(fails())
    assert notebook.cell(race(2)) == [2] * 5


def test_a_nursery_in_its_own_task_serves_all_notebook_cells(notebook: Notebook) -> None:
    seen = []
    names: dict[str, Any] = {}

    async def keep(ready: Any) -> None:
        async with open_nursery() as nursery:
            ready.set_result(nursery)
            await nurseryio.sleep_forever()

    async def first() -> None:
        ready = asyncio.get_running_loop().create_future()
        names["keeper"] = asyncio.ensure_future(keep(ready))
        names["nursery"] = await ready

    async def work(number: int) -> None:
        await checkpoint()
        seen.append(number)
        await nurseryio.sleep_forever()

    async def second() -> None:
        names["nursery"].start_soon(work, 1)
        names["nursery"].start_soon(work, 2)
        await settle()

    async def third() -> None:
        names["nursery"].cancel_scope.cancel()
        await names["keeper"]

    notebook.cell(first())
    notebook.cell(second())
    assert seen == [1, 2]
    assert len(names["nursery"].child_tasks) == 2
    notebook.cell(third())


def test_misnesting_a_nursery_entered_by_hand_in_a_notebook_cell_is_an_error(
    notebook: Notebook, loop_errors: Any
) -> None:
    reports: list[dict[str, Any]] = []
    notebook.loop.set_exception_handler(lambda _loop, context: reports.append(context))
    nursery: Any = None
    ended = []

    async def child() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            ended.append(1)

    async def first() -> None:
        nonlocal nursery
        nursery = open_nursery()
        await nursery.__aenter__()
        nursery.start_soon(child)
        await settle()

    async def second() -> None:
        await settle()
        nursery.start_soon(child)

    notebook.cell(first())
    with pytest.raises(RuntimeError, match="closed to new arrivals"):
        notebook.cell(second())
    assert ended == [1]
    assert "closed before the task exited" in str(reports[0]["exception"])
    assert len(reports) == 1
    assert notebook.cell(race(1)) == [1] * 5


async def test_run_in_a_loop_that_runs_already_says_to_await() -> None:
    with pytest.raises(RuntimeError, match="await"):
        nurseryio.run(checkpoint)
