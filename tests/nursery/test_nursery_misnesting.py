"""Misnesting of nurseries, and limits around them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from harness.core import (
    cancelling,
    do_nothing,
    fail_after_turns,
    forever,
    leaves,
    settle,
    turns,
    types_of,
    validate,
)

from nurseryio import (
    CancelScope,
    move_on_after,
    open_nursery,
    sleep,
)
from nurseryio.lowlevel import checkpoint, current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

pytestmark = pytest.mark.limit(20)


# -- misnesting -----------------------------------------------------------------


async def test_misnesting_a_task_that_ends_inside_its_nursery_is_an_error_with_its_name() -> None:
    async def careless() -> None:
        nursery = open_nursery()
        await nursery.__aenter__()
        nursery.start_soon(forever)
        nursery.start_soon(fail_after_turns, KeyError())

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(careless, name="the careless")
    messages = [str(leaf) for leaf in leaves(caught.value) if isinstance(leaf, RuntimeError)]
    assert len(messages) == 1
    assert "Nursery stack corrupted" in messages[0] and "the careless" in messages[0]
    assert "as_safe_channel" in messages[0]
    await settle()
    validate()


async def test_misnesting_an_asyncio_task_that_ends_inside_its_open_nursery_is_reported(
    loop_errors: list[str],
) -> None:
    ended = []

    async def child() -> None:
        try:
            await forever()
        finally:
            ended.append(1)

    async def careless() -> None:
        nursery = open_nursery()
        await nursery.__aenter__()
        nursery.start_soon(child)
        await turns(2)

    await asyncio.get_running_loop().create_task(careless())
    await settle()
    assert ended == [1]
    assert len(loop_errors) == 1
    assert "Nursery stack corrupted" in loop_errors[0]
    validate()


async def test_misnesting_a_nursery_left_in_an_unrelated_task_names_both_and_stays_open() -> None:
    errors = []
    async with open_nursery() as outer:
        async with open_nursery() as nursery:

            async def leave() -> None:
                try:
                    await nursery.__aexit__(None, None, None)
                except RuntimeError as exc:
                    errors.append(str(exc))
                await checkpoint()

            outer.start_soon(leave, name="the leaver")
            await settle()
            nursery.start_soon(do_nothing)
            validate()
    assert len(errors) == 1
    assert "the leaver" in errors[0] and repr(current_task()) in errors[0]


async def test_misnesting_nurseries_left_in_the_wrong_order_affect_nothing_else() -> None:
    ended = []

    async def child(name: str) -> None:
        try:
            await forever()
        finally:
            ended.append(name)

    async def careless() -> None:
        outer, inner = open_nursery(), open_nursery()
        await outer.__aenter__()
        await inner.__aenter__()
        outer.start_soon(child, "outer")
        inner.start_soon(child, "inner")
        await turns(2)
        try:
            outer.cancel_scope.cancel()
            with CancelScope(shield=True):
                await outer.__aexit__(None, None, None)
        finally:
            await inner.__aexit__(*sys.exc_info())

    with contextlib.suppress(BaseExceptionGroup, RuntimeError):
        async with open_nursery() as nursery:
            nursery.start_soon(careless)
    assert sorted(ended) == ["inner", "outer"]
    await settle()
    validate()
    assert cancelling() == 0
    await checkpoint()


async def test_misnesting_a_generator_with_a_nursery_closed_in_another_task_is_an_error() -> None:
    async def numbers() -> AsyncIterator[int]:
        async with open_nursery() as nursery:
            nursery.start_soon(forever)
            yield 1

    seen: list[str] = []
    generator: Any = numbers()

    async def start() -> None:
        await generator.__anext__()
        await turns(5)

    async def finish() -> None:
        await turns(3)
        try:
            await generator.aclose()
        except RuntimeError as exc:
            seen.append(str(exc))
        await checkpoint()
        seen.append("goes on")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_nursery() as nursery:
            nursery.start_soon(start, name="the starter")
            nursery.start_soon(finish, name="the finisher")
    messages = seen[:1] + [str(leaf) for leaf in leaves(caught.value)]
    assert any("the starter" in text and "the finisher" in text for text in messages), messages
    assert types_of(caught.value) == [RuntimeError]
    await settle()
    validate()
    await checkpoint()


async def test_timeouts_around_a_nursery_apply_to_its_children(autojump_clock: Any) -> None:
    with move_on_after(5) as scope:
        async with open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(sleep, 10)
    assert scope.cancelled_caught
    assert not nursery.cancel_scope.cancelled_caught
