"""Finds the cells of README's comparison for one library: ``comparison_program.py LIBRARY``.

The library is asyncio, anyio, trio or nurseryio. Each probe runs the same small program in that
library's words and returns what happened, as the text of the cell. The output is JSON.

Each library has a process of its own, because one that was imported can change the others.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from typing import Any

LIBRARY = sys.argv[1]
lib: Any = importlib.import_module(LIBRARY)


def run(main: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(main()) if LIBRARY == "asyncio" else lib.run(main)  # type: ignore[arg-type]


def group() -> Any:
    """The block that tasks belong to."""
    if LIBRARY == "asyncio":
        return asyncio.TaskGroup()
    return lib.create_task_group() if LIBRARY == "anyio" else lib.open_nursery()


def spawn(tasks: Any, function: Callable[[], Any]) -> None:
    if LIBRARY == "asyncio":
        tasks.create_task(function())
    else:
        tasks.start_soon(function)


def cancelled_class() -> type[BaseException]:
    if LIBRARY in ("asyncio", "anyio"):
        return asyncio.CancelledError
    return lib.Cancelled


def errors_in_a_group() -> str:
    seen = []

    async def sibling() -> None:
        try:
            await lib.sleep(60)
        finally:
            seen.append("cancelled")
            raise KeyError("in the cleanup")

    async def fails() -> None:
        raise ValueError("first")

    async def main() -> str:
        try:
            async with group() as tasks:
                spawn(tasks, sibling)
                await lib.sleep(0)
                spawn(tasks, fails)
        except ExceptionGroup as error:
            kinds = {type(each) for each in error.exceptions}
            return "yes" if kinds == {ValueError, KeyError} and seen else "no"
        return "no"

    return run(main)


def asyncio_inside() -> str:
    async def main() -> str:
        try:
            await asyncio.sleep(0.001)
        except RuntimeError:
            return "no"
        return "yes"

    return run(main)


def on_uvloop() -> str:
    import uvloop

    async def main() -> str:
        return "yes" if "uvloop" in type(asyncio.get_running_loop()).__module__ else "no"

    if LIBRARY == "trio":
        return (
            "no"
            if not {"loop_factory", "backend"} & {*inspect.signature(lib.run).parameters}
            else "?"
        )
    if LIBRARY == "anyio":
        return lib.run(main, backend_options={"use_uvloop": True})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


def timeout_holds() -> str:
    interrupted = 0

    async def stubborn() -> None:
        nonlocal interrupted
        for _ in range(3):
            try:
                await lib.sleep(0.1)
            except cancelled_class():
                interrupted += 1

    async def main() -> str:
        if LIBRARY == "asyncio":
            async with asyncio.timeout(0.01):
                await stubborn()
        else:
            with lib.move_on_after(0.01):
                await stubborn()
        return "yes" if interrupted == 3 else "no"

    return run(main)


def start() -> str:
    async def server(*, task_status: Any) -> None:
        task_status.started(8080)

    async def main() -> str:
        async with group() as tasks:
            if not hasattr(tasks, "start"):
                return "no"
            return "yes" if await tasks.start(server) == 8080 else "no"

    return run(main)


@contextmanager
def deaf_server() -> Any:
    """A port where connections are taken and nothing is read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def bounded_writes() -> str:
    size = 64 << 20

    async def main() -> str:
        with deaf_server() as port:
            if LIBRARY == "asyncio":
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(bytes(size))
                kept = writer.transport.get_write_buffer_size()
                writer.transport.abort()
                return "with `drain()`" if kept > size // 2 else "yes"
            if LIBRARY == "anyio":
                stream = await lib.connect_tcp("127.0.0.1", port)
                send: Any = stream.send
            else:
                stream = await lib.open_tcp_stream("127.0.0.1", port)
                send = stream.send_all
            with lib.move_on_after(0.3) as scope:
                await send(bytes(size))
            await lib.aclose_forcefully(stream)
            return "yes" if scope.cancelled_caught else "no"

    return run(main)


def virtual_time() -> str:
    if LIBRARY in ("asyncio", "anyio"):
        from importlib.util import find_spec

        names = [name for name in dir(lib) if "clock" in name.lower()]
        return "no" if not names and find_spec(f"{LIBRARY}.testing") is None else "?"
    from importlib import import_module

    clock = import_module(f"{LIBRARY}.testing").MockClock(autojump_threshold=0)

    async def main() -> None:
        await lib.sleep(36000)

    async def asyncio_too() -> None:
        await asyncio.wait_for(asyncio.sleep(36000), 72000)

    began = time.monotonic()
    lib.run(main, clock=clock)
    if LIBRARY == "trio":
        return "its own timers" if time.monotonic() - began < 60 else "no"
    lib.run(asyncio_too, clock=clock)
    return "all timers" if time.monotonic() - began < 60 else "no"


def shows_waits() -> str:
    if LIBRARY == "asyncio":
        has = hasattr(asyncio, "print_call_graph")
        return "stacks, from 3.14" if has == (sys.version_info >= (3, 14)) else "?"

    async def anyio_main() -> str:
        return "a list of tasks" if lib.get_running_tasks() else "no"

    async def trio_main() -> str:
        root = lib.lowlevel.current_root_task()
        return "a tree of tasks" if root.child_nurseries else "no"

    async def nurseryio_main() -> str:
        from nurseryio.instruments import task_tree
        from nurseryio.testing import wait_all_tasks_blocked

        lock = lib.Lock()

        async def wants() -> None:
            await lock.acquire()

        async with lib.open_nursery() as nursery:
            await lock.acquire()
            nursery.start_soon(wants)
            await wait_all_tasks_blocked()
            text = str(task_tree())
            lock.release()
        return "what each task waits for" if "waits for a lock that" in text else "no"

    mains = {"anyio": anyio_main, "trio": trio_main, "nurseryio": nurseryio_main}
    return run(mains[LIBRARY])


PROBES = {
    "An error in a task cancels the others, and no error is lost": errors_in_a_group,
    "Libraries for asyncio work inside": asyncio_inside,
    "Runs on uvloop": on_uvloop,
    "A timeout ends code that swallows its cancellation": timeout_holds,
    "Waits until a task is ready: `start()`": start,
    "A peer that does not read cannot fill the memory": bounded_writes,
    "Tests in virtual time": virtual_time,
    "Shows a running program": shows_waits,
}

if __name__ == "__main__":
    cells = {}
    for title, probe in PROBES.items():
        try:
            cells[title] = probe()
        except ImportError as error:
            cells[title] = f"not checked: {error}"
    json.dump(cells, sys.stdout)
