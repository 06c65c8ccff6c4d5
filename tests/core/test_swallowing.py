"""Where tasks swallow cancellations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from harness.core import settle

import nurseryio
from nurseryio._base.watchers import look_for_debug, unwatch, watch
from nurseryio._core import swallowing
from nurseryio._core.task import current_task


class Watches:
    def made(self, thing: object) -> None:
        raise NotImplementedError


@pytest.fixture
def noted() -> Iterator[None]:
    me = Watches()
    watch(me)
    yield
    unwatch(me)


def counts(task: nurseryio.lowlevel.Task) -> dict[str, int]:
    """How often the task has swallowed a cancellation, by the function of its innermost line."""
    found = task._extra.swallowed
    assert found is not None
    return {lines[-1][0].co_name: number for lines, number in found.counts.items()}


async def swallows(times: int) -> None:
    for _ in range(times):
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            pass


async def sleeps() -> None:
    try:
        await nurseryio.sleep_forever()
    except nurseryio.Cancelled:
        pass


async def cancel_while(*functions: object) -> nurseryio.lowlevel.Task:
    """Cancel a task that calls the functions in turn; return it when it waits after them."""
    release = asyncio.get_running_loop().create_future()
    tasks: list[nurseryio.lowlevel.Task] = []

    async def child() -> None:
        tasks.append(current_task())
        for function in functions:
            await function  # type: ignore[misc]
        while not release.done():
            try:
                await asyncio.shield(release)
            except asyncio.CancelledError:
                # Nothing is interrupted any more, so that the counts stay.
                nursery.cancel_scope.shield = True
                with nurseryio.CancelScope(shield=True):
                    await asyncio.shield(release)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
        await settle()
        nursery.cancel_scope.cancel()
        with nurseryio.CancelScope(shield=True):
            await settle()
        release.set_result(None)
    return tasks[0]


@pytest.mark.usefixtures("noted")
async def test_cancellations_swallowed_in_asyncio_code_are_counted_by_line() -> None:
    assert counts(await cancel_while(swallows(3)))["swallows"] == 3


@pytest.mark.usefixtures("noted")
async def test_a_cancellation_swallowed_in_an_await_of_the_library_is_counted() -> None:
    found = counts(await cancel_while(sleeps(), swallows(1)))
    assert (found["sleeps"], found["swallows"]) == (1, 1)


@pytest.mark.usefixtures("noted")
async def test_a_cancellation_that_ended_its_scope_is_not_swallowed() -> None:
    for _ in range(3):
        with nurseryio.CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            await asyncio.get_running_loop().create_future()
        assert scope.cancelled_caught
        assert counts(current_task()) == {}


async def test_lines_are_not_noted_while_that_is_not_wanted() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_debug()
    loop.set_debug(False)
    look_for_debug(list)
    try:
        task = await cancel_while(swallows(3))
        assert task._extra.swallowed is None
    finally:
        loop.set_debug(before)


@pytest.mark.usefixtures("noted")
async def test_the_lines_of_a_task_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swallowing, "MOST_LINES", 1)
    assert counts(await cancel_while(swallows(3), sleeps(), swallows(1))) == {"swallows": 4}


@pytest.mark.usefixtures("noted")
async def test_a_task_is_interrupted_though_its_line_cannot_be_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_coro: object) -> None:
        raise RecursionError

    monkeypatch.setattr(swallowing, "await_frames", fail)
    with nurseryio.CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        await asyncio.get_running_loop().create_future()
    assert scope.cancelled_caught
