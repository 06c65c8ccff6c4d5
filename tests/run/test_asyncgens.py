"""Async generators that were left unfinished, under run()."""

# Covered below 95 %: the end of a run with generators that fail is in test_run.py; the groups of
# Python 3.10 run there alone.

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

import nurseryio
from nurseryio._base.util import LocalWeakSet
from nurseryio._core.task import current_state
from nurseryio._run.asyncgens import AsyncGenerators
from nurseryio.lowlevel import checkpoint


def generator(record: list[str], wait: bool = False) -> AsyncGenerator[int, None]:
    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
            yield 2
        finally:
            record.append("finally")
            if wait:
                try:
                    await nurseryio.sleep(60)
                except nurseryio.Cancelled:
                    record.append("may not wait")
                    raise

    return numbers()


def test_an_async_generator_that_is_still_referenced_is_closed_at_the_end_of_the_run() -> None:
    record: list[str] = []
    held = []

    async def main() -> None:
        held.append(generator(record, wait=True))
        assert await held[0].__anext__() == 1
        record.append("main ends")

    nurseryio.run(main)
    assert record == ["main ends", "finally", "may not wait"]


def test_an_async_generator_that_is_garbage_collected_is_closed_soon_with_a_warning() -> None:
    record: list[str] = []

    async def main() -> None:
        numbers = generator(record)
        await numbers.__anext__()
        with pytest.warns(ResourceWarning, match="was garbage collected before it had been"):
            del numbers
            gc.collect()
        for _ in range(5):
            await checkpoint()
        record.append("main ends")

    nurseryio.run(main)
    assert record == ["finally", "main ends"]


def test_an_async_generator_that_ended_is_left_alone() -> None:
    record: list[str] = []

    async def main() -> None:
        numbers = generator(record)
        assert [number async for number in numbers] == [1, 2]
        record.append("main ends")

    nurseryio.run(main)
    assert record == ["finally", "main ends"]


def test_an_error_while_an_async_generator_is_closed_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = []

    async def fails() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise KeyError("on the way out")

    async def main() -> None:
        held.append(fails())
        await held[0].__anext__()

    with caplog.at_level(logging.ERROR, "nurseryio.async_generator_errors"):
        nurseryio.run(main)
    [record] = caplog.records
    assert "Exception ignored during finalization of async generator" in record.getMessage()
    assert record.exc_info is not None
    assert repr(record.exc_info[1]) == "KeyError('on the way out')"


def test_an_async_generator_begun_while_others_are_closed_is_closed_as_well() -> None:
    record: list[str] = []
    held: list[AsyncGenerator[int, None]] = []

    async def begins_another() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            held.append(generator(record))
            await held[-1].__anext__()

    async def main() -> None:
        held.append(begins_another())
        await held[0].__anext__()

    nurseryio.run(main)
    assert record == ["finally"]


class CollectedMeanwhile(LocalWeakSet):
    """While it is cleared, another thread collects a generator."""

    __slots__ = ("collect",)

    collect: Callable[[], None]

    def clear(self) -> None:
        super().clear()
        self.collect()


async def test_an_async_generator_that_another_thread_collects_meanwhile_is_closed() -> None:
    record: list[str] = []
    generators = AsyncGenerators(lambda *_: None, lambda *_: None)
    alive = CollectedMeanwhile()
    late = [generator(record), generator(record)]
    for one in late:
        await one.__anext__()
    alive.add(late[0])

    def collect() -> None:
        generators._collected(late[1])
        alive.collect = lambda: None

    alive.collect = collect
    generators._alive = alive
    await generators.finish()
    assert record == ["finally", "finally"]


def test_an_async_generator_whose_closing_was_queued_as_the_run_ended_is_closed() -> None:
    record: list[str] = []

    async def queues_another(late: AsyncGenerator[int, None]) -> AsyncGenerator[int, None]:
        run: Any = current_state().run
        try:
            yield 1
        finally:
            # As another thread does that has collected it just before.
            run.token.run_sync_soon(run.asyncgens._close_soon, late, "late")

    async def main() -> AsyncGenerator[int, None]:
        late = generator(record, wait=True)
        await late.__anext__()
        current_state().run.asyncgens._alive.discard(late)  # type: ignore[union-attr]
        first = queues_another(late)
        await first.__anext__()
        return first

    nurseryio.run(main)
    assert record == ["finally", "may not wait"]
