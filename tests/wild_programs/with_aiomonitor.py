"""aiomonitor: a thread with a console, and a task factory with its own task class.

The factory takes ``name`` and ``context`` and nothing else. It wraps each coroutine in another one,
and keeps the coroutine that it was given as ``_orig_coro``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomonitor
from aiomonitor.task import TracedTask
from battery import Tool, run_battery
from harness import matrix

import nurseryio
from nurseryio import open_nursery


class Aiomonitor(Tool):
    """Started on the running loop, with its task factory."""

    @asynccontextmanager
    async def installed(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        self.monitor = aiomonitor.start_monitor(
            loop, port=0, webui_port=0, console_enabled=False, hook_task_factory=True
        )
        try:
            yield
        finally:
            self.monitor.close()

    def coroutine_name(self, task: asyncio.Task[Any]) -> str:
        assert isinstance(task, TracedTask)
        (listed,) = self.listing(task)
        return str(listed.coro.removesuffix("()"))

    def listing(self, task: asyncio.Task[Any]) -> list[Any]:
        """The rows of the monitor's command ``ps`` for a task."""
        rows = self.monitor.format_running_task_list("", False)
        return [row for row in rows if row.task_id == str(id(task))]


async def the_stack_of_a_child_is_shown(tool: Any) -> None:
    """The command ``where`` shows the child's function, and below it that of the spawner."""

    async def child() -> None:
        await nurseryio.sleep_forever()

    async def spawner() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            await nurseryio.sleep(0.01)
            (task,) = nursery.child_tasks
            items = tool.monitor.format_running_task_stack(str(id(task.asyncio_task)))
            nursery.cancel_scope.cancel()
        text = "".join(item.content for item in items)
        assert "in child\n" in text and "in spawner\n" in text, text

    async with tool.installed(), open_nursery() as outer:
        outer.start_soon(spawner)


async def the_monitor_cancels_a_child(tool: Any) -> None:
    """The command ``cancel`` ends that child, and nothing else."""
    log = []

    async def child(tag: str) -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            log.append(tag)

    async with tool.installed():
        async with open_nursery() as nursery:
            nursery.start_soon(child, "victim")
            (task,) = nursery.child_tasks
            nursery.start_soon(child, "sibling")
            await nurseryio.sleep(0.01)
            shown = await tool.monitor.cancel_monitored_task(str(id(task.asyncio_task)))
            assert shown == f"{child.__qualname__}()", shown
            assert log == ["victim"], log
            assert len(nursery.child_tasks) == 1
            assert not nursery.cancel_scope.cancel_called
            nursery.cancel_scope.cancel()
    assert log == ["victim", "sibling"], log


async def ended_children_are_listed(tool: Any) -> None:
    """The command ``ps-terminated`` names the child's function."""

    async def child() -> None:
        await nurseryio.sleep(0)

    async with tool.installed():
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(child, name="a name")
        rows: list[Any] = []
        while len(rows) < 2:  # the monitor's own thread puts them down
            await nurseryio.sleep(0.01)
            rows = tool.monitor.format_terminated_task_list("child", False)
        assert [row.coro for row in rows] == [f"{child.__qualname__}()"] * 2, rows
        assert {row.name for row in rows} == {child.__qualname__, "a name"}, rows


async def a_factory_that_raises_is_an_error(tool: Any) -> None:
    """Where the loop calls the factory with an argument that it refuses, start_soon() raises.

    uvloop 0.23 passes ``eager_start`` from Python 3.13 on, and the factory raises TypeError.
    """
    ran = []

    async def child(task_status: Any = None) -> None:
        ran.append(1)

    loop = asyncio.get_running_loop()
    async with tool.installed():
        factory = loop.get_task_factory()

        def refuses(loop: Any, coro: Any, **kwargs: Any) -> Any:
            return factory(loop, coro, **{"eager_start": None, **kwargs})  # type: ignore[misc]

        loop.set_task_factory(refuses)
        async with open_nursery() as nursery:
            for name in (None, "a name"):
                try:
                    nursery.start_soon(child, name=name)
                except TypeError as error:
                    assert "eager_start" in str(error), error
                else:
                    raise AssertionError("start_soon() raised nothing")
                try:
                    await nursery.start(child, name=name)
                except TypeError as error:
                    assert "eager_start" in str(error), error
                else:
                    raise AssertionError("start() raised nothing")
            assert nursery.child_tasks == frozenset()
    assert ran == []
    async with open_nursery() as nursery:
        nursery.start_soon(child)
    assert ran == [1]


def works_on(kind: str) -> bool:
    """Whether the loop of this kind calls the factory with what it takes."""
    works = []

    async def main() -> None:
        async with Aiomonitor().installed():
            coro = nurseryio.sleep(0)
            try:
                await asyncio.get_running_loop().create_task(coro, name="probe")
                works.append(kind)
            except TypeError:
                coro.close()

    matrix.run_case(matrix.Case(kind, "app"), main)
    return bool(works)


if __name__ == "__main__":
    tool = Aiomonitor()
    tool.own_steps = (
        the_stack_of_a_child_is_shown,
        the_monitor_cancels_a_child,
        ended_children_are_listed,
        a_factory_that_raises_is_an_error,
    )
    if not works_on(sys.argv[1]):
        # The loop and the tool do not go together, with asyncio.create_task() neither.
        sys.argv[3:] = ["a_factory_that_raises_is_an_error"]
    run_battery(tool)
