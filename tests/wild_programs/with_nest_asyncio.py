"""nest_asyncio, or nest_asyncio2 with ``--two``: run_until_complete() inside a running task.

It replaces methods of the loop's class, ``asyncio.run``, and ``asyncio.Task`` and ``Future`` by the
versions written in Python. Inside a nested run the outer task is not the current task, although it
is on the stack, and all other tasks make steps. Nothing of this can be uninstalled.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

if "--two" in sys.argv:
    import nest_asyncio2 as nest_asyncio
else:
    import nest_asyncio

FIRST = "--first" in sys.argv
if FIRST:
    nest_asyncio.apply(asyncio.new_event_loop())

from battery import Tool, asyncio_task, in_time, leaves, raises_once, run_battery

import nurseryio
from nurseryio import open_nursery
from nurseryio.lowlevel import checkpoint, current_task


class NestAsyncio(Tool):
    """Applied to the running loop; it stays."""

    @asynccontextmanager
    async def installed(self) -> AsyncIterator[None]:
        nest_asyncio.apply(asyncio.get_running_loop())
        yield

    def check_uninstalled(self) -> None:
        pass


def nested(async_fn: Callable[[], Awaitable[Any]]) -> Any:
    """Run an async function to its end, from within a task."""

    async def main() -> Any:
        return await async_fn()

    return asyncio.get_running_loop().run_until_complete(main())


async def a_nested_run_opens_a_nursery(tool: Tool) -> None:
    """In a child, in the task that opened the nursery, and two levels down."""
    log = []

    async def child(tag: str) -> None:
        await checkpoint()
        await nurseryio.sleep(0.01)
        log.append(tag)

    async def opens() -> str:
        async with open_nursery() as inner:
            inner.start_soon(child, "inner")
            inner.start_soon(child, "inner", name="a name")
        return "done"

    async def deeper() -> Any:
        return nested(opens)

    async def nests() -> None:
        task = current_task()
        assert nested(opens) == "done"
        assert nested(deeper) == "done"
        assert current_task() is task and task.asyncio_task is asyncio_task()
        await checkpoint()
        log.append("nests")

    async with tool.installed():
        await nests()
        async with open_nursery() as nursery:
            nursery.start_soon(child, "sibling")
            nursery.start_soon(nests)
    assert sorted(log) == ["inner"] * 8 + ["nests"] * 2 + ["sibling"], log


async def siblings_run_meanwhile(tool: Tool) -> None:
    """A nested run waits for what a sibling does, and a lock and a channel work across it."""
    send, receive = nurseryio.open_memory_channel[int](0)
    event = nurseryio.Event()
    log = []

    async def waits() -> int:
        await event.wait()
        return await receive.receive()

    async def nests() -> None:
        log.append(nested(waits))

    async def sibling() -> None:
        await checkpoint()
        event.set()
        await send.send(7)

    async with tool.installed():
        async with open_nursery() as nursery:
            nursery.start_soon(nests)
            nursery.start_soon(sibling)
    assert log == [7], log


async def an_error_of_a_nested_run_comes_out_once(tool: Tool) -> None:
    """The error of a child of the nested nursery comes out of both nurseries, once."""
    error = KeyError("from below")

    async def failing() -> None:
        await checkpoint()
        raise error

    async def opens() -> None:
        async with open_nursery() as inner:
            inner.start_soon(failing)
            inner.start_soon(nurseryio.sleep_forever)

    async def nests() -> None:
        nested(opens)

    async with tool.installed():
        with raises_once(error), in_time(2):
            async with open_nursery() as nursery:
                nursery.start_soon(nests)
                nursery.start_soon(nurseryio.sleep_forever)


async def cancel_waits_for_a_nested_run(tool: Tool) -> None:
    """A deadline cannot interrupt a nested run; it ends, without a spin, and then the task does."""
    log = []

    async def sleeps() -> None:
        await asyncio.sleep(0.6)

    async def nests() -> None:
        nested(sleeps)
        log.append("nested run ended")
        await nurseryio.sleep_forever()

    async with tool.installed():
        with in_time(2), nurseryio.move_on_after(0.2) as scope:
            async with open_nursery() as nursery:
                nursery.start_soon(nests)
                nursery.start_soon(nurseryio.sleep_forever)
        assert scope.cancelled_caught
    assert log == ["nested run ended"], log


async def a_deadline_inside_a_nested_run(tool: Tool) -> None:
    """A deadline set inside the nested run ends what runs there, and nothing outside."""
    log = []

    async def limited() -> bool:
        with nurseryio.move_on_after(0.1) as scope:
            async with open_nursery() as inner:
                inner.start_soon(nurseryio.sleep_forever)
                inner.start_soon(asyncio.sleep, 3600)
        return scope.cancelled_caught

    async def nests() -> None:
        with in_time(2):
            assert nested(limited)
        await checkpoint()
        log.append("nests")

    async def sibling() -> None:
        await nurseryio.sleep(0.2)
        log.append("sibling")

    async with tool.installed():
        async with open_nursery() as nursery:
            nursery.start_soon(nests)
            nursery.start_soon(sibling)
    assert log == ["nests", "sibling"], log


async def run_is_refused(tool: Tool) -> None:
    """nurseryio.run() inside a running loop is refused under nest_asyncio as well."""
    async with tool.installed():
        try:
            nurseryio.run(nurseryio.sleep, 0)
        except RuntimeError as error:
            assert str(error) == "Attempted to call run() from inside a run()", error
        else:
            raise AssertionError("nothing was raised")


async def asyncio_run_nests(tool: Tool) -> None:
    """asyncio.run() inside a child runs on the same loop, errors and children included."""
    log = []

    async def child() -> None:
        await checkpoint()
        log.append("child")
        raise KeyError("of the child")

    async def opens() -> None:
        async with open_nursery() as inner:
            inner.start_soon(child)

    async def nests() -> None:
        try:
            asyncio.run(opens())
        except BaseException as error:
            log.extend(map(repr, leaves(error)))
        await checkpoint()

    async with tool.installed():
        asyncio.set_event_loop(asyncio.get_running_loop())
        async with open_nursery() as nursery:
            nursery.start_soon(nests)
    assert log == ["child", "KeyError('of the child')"], log


if __name__ == "__main__":
    tool = NestAsyncio()
    tool.own_steps = (
        a_nested_run_opens_a_nursery,
        siblings_run_meanwhile,
        an_error_of_a_nested_run_comes_out_once,
        cancel_waits_for_a_nested_run,
        a_deadline_inside_a_nested_run,
        run_is_refused,
        asyncio_run_nests,
    )
    run_battery(tool)
