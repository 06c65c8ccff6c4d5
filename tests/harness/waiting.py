"""Tasks that wait, and what the task tree says of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nurseryio
from nurseryio.instruments import TaskInfo, TaskTree, Wait, task_tree
from nurseryio.testing import wait_all_tasks_blocked


@asynccontextmanager
async def waiting(*functions: Callable[[], Awaitable[object]]) -> AsyncIterator[list[TaskInfo]]:
    """The body runs while a task waits in each function, named by letters; it gets their data."""
    async with nurseryio.open_nursery() as nursery:
        for letter, function in zip("abcdef", functions, strict=False):
            nursery.start_soon(function, name=letter)
            await wait_all_tasks_blocked()
        here = nurseryio.lowlevel.current_task()
        yield [task for task in task_tree().tasks if task.parent == id(here)]
        nursery.cancel_scope.cancel()


async def wait_in(function: Callable[[], Awaitable[object]]) -> Wait:
    """What a task that calls this function waits for."""
    async with waiting(function) as tasks:
        (task,) = tasks
    assert task.state == "waiting"
    assert task.wait is not None
    json.dumps(task.wait.details)
    return task.wait


async def idle_tree() -> TaskTree:
    """The tree at a moment at which no task is running, as another thread sees it."""
    loop = asyncio.get_running_loop()

    def look() -> TaskTree:
        while True:  # the caller's step may not have ended yet
            tree = task_tree(loop)
            if all(task.state == "waiting" for task in tree.tasks):
                return tree

    await wait_all_tasks_blocked()
    return await nurseryio.to_thread.run_sync(look)


def wait_of(tree: TaskTree, name: str) -> Wait:
    """What the only task of this name waits for."""
    (wait,) = (task.wait for task in tree.tasks if task.name == name)
    assert wait is not None
    json.dumps(wait.details)
    return wait
