"""What the tasks of a loop hold: blocks and variables, as their suspended frames show."""

# Covered below 95 %: Python 3.14 keeps the exits of blocks in another form than older versions.

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections import deque
from functools import partial
from typing import Any

import pytest
from harness.core import forever
from harness.pypy import needs_reference_counting
from harness.waiting import waiting

import nurseryio
from nurseryio._core.task import await_chain
from nurseryio._observe.holders import LARGEST_CONTAINER, MOST_NAMES, Holders, listed

pytestmark = needs_reference_counting


async def holders_while(*functions: Any) -> Holders:
    """What the tasks with the names 1, 2, ... hold that wait in these functions."""
    async with waiting(*functions):
        tasks = sorted(nurseryio.lowlevel.current_task().child_nurseries[-1].child_tasks, key=str)
        found = Holders(
            {ord(task.name): list(await_chain(task.coro)) for task in tasks if len(task.name) == 1},
            chr,
        )
        found.in_block_of(None)
    return found


def names(numbers: list[int]) -> str:
    return "".join(map(chr, numbers))


async def test_a_block_is_held_from_its_entry_on() -> None:
    lock = asyncio.Lock()

    async def hold() -> None:
        async with lock:
            await forever()

    found = await holders_while(hold, hold)
    assert names(found.in_block_of(lock)) == "a"
    assert found.complete


@pytest.mark.parametrize("kind", [threading.Lock, threading.Condition])
async def test_a_block_of_a_synchronous_manager_is_found_too(kind: Any) -> None:
    thing = kind()

    async def hold() -> None:
        with thing:
            await forever()

    assert names((await holders_while(hold)).in_block_of(thing)) == "a"


async def test_a_block_of_an_exit_stack_and_in_a_generator_of_a_manager() -> None:
    first, second = asyncio.Lock(), asyncio.Lock()

    @contextlib.asynccontextmanager
    async def managed() -> Any:
        async with second:
            yield

    @contextlib.contextmanager
    def outer() -> Any:
        yield

    async def hold() -> None:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(first)
            stack.callback(print)
            with outer():
                async with managed():
                    await forever()

    found = await holders_while(hold)
    assert names(found.in_block_of(first)) == "a"
    assert names(found.in_block_of(second)) == "a"


async def test_a_condition_is_not_held_while_its_task_waits_on_it() -> None:
    lock = asyncio.Lock()
    condition = asyncio.Condition(lock)

    async def wait() -> None:
        async with condition, contextlib.AsyncExitStack():
            await condition.wait()

    async def hold() -> None:
        async with condition:
            await forever()

    assert names((await holders_while(wait, hold)).in_block_of(lock)) == "b"


async def test_variables_are_found_in_containers_attributes_closures_and_methods() -> None:
    event, other = asyncio.Event(), asyncio.Event()

    class Thing:
        def __init__(self) -> None:
            self.deep = {"events": [(event,)]}

    async def keep(_thing: object) -> None:
        await forever()

    async def closure() -> None:
        await forever()
        event.set()

    for thing in (event, [event], {1: event}, deque([event]), partial(print, event), event.set):
        assert names((await holders_while(partial(keep, thing))).with_variable(event)) == "a"
    assert names((await holders_while(partial(keep, Thing()))).with_variable(event)) == "a"
    assert names((await holders_while(closure)).with_variable(event)) == "a"
    assert not (await holders_while(partial(keep, other))).with_variable(event)
    too_many = [event] * (LARGEST_CONTAINER + 1)
    assert not (await holders_while(partial(keep, too_many))).with_variable(event)


async def test_a_task_that_waits_in_a_method_of_an_object_does_not_have_it() -> None:
    event = nurseryio.Event()

    async def wait(event: nurseryio.Event) -> None:
        await event.wait()

    assert not (await holders_while(partial(wait, event))).with_variable(event)


async def test_the_ends_of_a_channel_are_counted_until_they_are_closed() -> None:
    sender, receiver = nurseryio.open_memory_channel[int](0)

    async def keep(*_ends: object) -> None:
        await forever()

    keeps = partial(keep, sender, sender.clone()), partial(keep, sender, receiver)
    found = await holders_while(*keeps)
    count, tasks = found.ends_of(sender._state, "send")
    assert (count, names(tasks)) == (2, "ab")
    assert found.ends_of(sender._state, "receive")[0] == 1
    sender.close()
    found = await holders_while(*keeps)
    assert found.ends_of(sender._state, "send")[0] == 1


async def test_no_code_of_the_program_is_called() -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(name)

        def __eq__(self, _other: object) -> Any:
            raise AssertionError

        __hash__ = None  # type: ignore[assignment]

    async def keep(_thing: object) -> None:
        await forever()

    found = await holders_while(partial(keep, Hostile()), partial(keep, [Hostile()]))
    assert found.complete


async def test_a_running_task_shows_its_variables_and_not_its_blocks() -> None:
    event, lock = asyncio.Event(), asyncio.Lock()
    frames = [nurseryio.lowlevel.current_task().coro.cr_frame]

    async with lock:
        found = Holders({1: []}, str, (1, [*frames, sys._getframe()]))
        assert found.with_variable(event) == [1]
        assert found.in_block_of(lock) == []
        assert not found.complete


def test_a_task_that_cannot_be_looked_at_does_not_hide_others() -> None:
    found = Holders({1: [(None, None)]}, str)  # type: ignore[dict-item, list-item]
    assert found.with_variable(None) == []
    assert not found.complete


def test_listed_names_are_counted_and_limited() -> None:
    class Unnamed:
        def __repr__(self) -> str:
            raise RuntimeError("boom")

    assert listed(["b", "a", "b"]) == (["b", "a", "b"], "'a', 'b' (2 times)")
    many, shown = listed(str(number) for number in range(MOST_NAMES + 3))
    assert len(many) == MOST_NAMES + 3
    assert shown.endswith("'4', 3 more")
    assert "whose repr() failed" in listed([Unnamed()])[1]
