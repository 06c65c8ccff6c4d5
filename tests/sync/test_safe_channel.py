"""Async generators behind a channel."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from harness import pypy
from harness.matrix import Case
from harness.resisting import KINDS, DeriveRaises, make
from harness.stress import stress

import nurseryio
from nurseryio import as_safe_channel
from nurseryio._base.exc_fields import context_of, set_context
from nurseryio._base.exception_groups import leaves
from nurseryio._checks.schedules import Schedule
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


@as_safe_channel
async def count(to: int, record: list[object] | None = None) -> AsyncGenerator[int, None]:
    """Count."""
    try:
        for number in range(to):
            if record is not None:
                record.append(number)
            yield number
    finally:
        if record is not None:
            record.append("closed")


async def test_as_safe_channel_receives_the_generator_to_its_end() -> None:
    async with count(3) as channel:
        assert isinstance(channel, nurseryio.abc.ReceiveChannel)
        assert "channel of an async generator" in repr(channel)
        with assert_checkpoints():
            assert await channel.receive() == 0
        assert [number async for number in channel] == [1, 2]
        with pytest.raises(nurseryio.EndOfChannel):
            await channel.receive()


def test_the_decorated_function_keeps_its_name_and_text() -> None:
    assert count.__name__ == "count"
    assert count.__doc__ == "Count."


async def test_back_pressure_the_generator_never_works_ahead() -> None:
    record: list[object] = []
    async with count(3, record) as channel:
        await wait_all_tasks_blocked()
        assert record == []
        await channel.receive()
        await wait_all_tasks_blocked()
        assert record == [0]


async def test_leaving_the_block_closes_the_generator_before_the_next_line() -> None:
    for leave in ("break", "error", "unused"):
        record: list[object] = []
        try:
            async with count(3, record) as channel:
                if leave != "unused":
                    async for _ in channel:
                        break
                if leave == "error":
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert leave == "error"
        assert record == ([] if leave == "unused" else [0, "closed"])


async def test_the_generator_may_hold_scopes_and_nurseries_open_across_its_yields() -> None:
    @as_safe_channel
    async def ticks() -> AsyncGenerator[int, None]:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
            with nurseryio.CancelScope():
                yield 1
                yield 2

    async with ticks() as channel:
        async for number in channel:
            if number == 2:
                break


async def test_a_generator_that_cancels_its_own_scope_does_not_cancel_the_receiver() -> None:
    @as_safe_channel
    async def ticks() -> AsyncGenerator[int, None]:
        yield 1
        with nurseryio.CancelScope() as scope:
            scope.cancel()
            yield 2

    async with ticks() as channel:
        got = [number async for number in channel]
        await nurseryio.lowlevel.checkpoint()
    # The item goes down with the scope that it was yielded in.
    assert got == [1]


async def test_several_tasks_may_receive() -> None:
    got = []
    async with count(6) as channel, nurseryio.open_nursery() as nursery:

        async def receive() -> None:
            async for number in channel:
                got.append(number)

        nursery.start_soon(receive)
        nursery.start_soon(receive)
    assert sorted(got) == list(range(6))


async def test_a_cancelled_receive_loses_no_item() -> None:
    gate = nurseryio.Event()

    @as_safe_channel
    async def slow() -> AsyncGenerator[int, None]:
        await gate.wait()
        yield 1
        yield 2

    async with slow() as channel:
        with nurseryio.move_on_after(0) as scope:
            await channel.receive()
        assert scope.cancelled_caught
        gate.set()
        assert [number async for number in channel] == [1, 2]


@pytest.mark.parametrize("when", ["before", "between", "meanwhile"])
async def test_a_closed_safe_channel_gives_nothing_more(when: str) -> None:
    record: list[object] = []
    async with count(3, record) as channel:
        if when == "between":
            await channel.receive()
        async with nurseryio.open_nursery() as nursery:
            if when == "meanwhile":

                async def use_up() -> None:
                    with pytest.raises(nurseryio.ClosedResourceError):
                        async for _ in channel:
                            pass

                nursery.start_soon(use_up)
                await nurseryio.lowlevel.checkpoint()
            await channel.aclose()
        with pytest.raises(nurseryio.ClosedResourceError):
            await channel.receive()
    assert "closed" not in record or record[-1] == "closed"


# -- errors ---------------------------------------------------------------------


async def test_the_generators_error_is_raised_unchanged() -> None:
    @as_safe_channel
    async def failing() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("mine")

    got = []
    with pytest.raises(ValueError, match="mine") as caught:
        async with failing() as channel:
            async for number in channel:
                got.append(number)
    assert got == [1]
    assert caught.value.__context__ is None


async def test_the_blocks_error_is_raised_unchanged_with_its_cause_and_context() -> None:
    cause, context = ValueError("cause"), ValueError("context")
    with pytest.raises(KeyError) as caught:
        async with count(3) as channel:
            await channel.receive()
            try:
                raise context
            except ValueError:
                raise KeyError from cause
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is context


async def test_an_exception_group_of_the_block_is_not_unwrapped() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with count(3):
            raise ExceptionGroup("mine", [ValueError()])
    assert caught.value.message == "mine"


async def test_an_error_on_both_sides_is_an_exception_group_that_says_why() -> None:
    @as_safe_channel
    async def failing() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise ValueError("in the generator")

    with pytest.raises(ExceptionGroup) as caught:
        async with failing() as channel:
            await channel.receive()
            raise KeyError("in the block")
    assert {type(error) for error in caught.value.exceptions} == {ValueError, KeyError}
    if sys.version_info >= (3, 11):
        assert "cleanup of generator object" in caught.value.__notes__[0]


@pytest.mark.parametrize("exit_type", [KeyboardInterrupt, SystemExit])
async def test_a_system_exit_or_keyboard_interrupt_outranks_other_errors(
    exit_type: type[BaseException],
) -> None:
    @as_safe_channel
    async def failing() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise exit_type(3)

    with pytest.raises(exit_type) as caught:
        async with failing() as channel:
            await channel.receive()
            raise KeyError
    assert caught.value.args == (3,)
    assert isinstance(caught.value.__cause__, BaseExceptionGroup)


async def test_generator_exit_inside_a_nursery_is_not_an_error() -> None:
    seen = []

    @as_safe_channel
    async def ticks() -> AsyncGenerator[int, None]:
        try:
            async with nurseryio.open_nursery():
                yield 1
        except BaseExceptionGroup as group:
            seen.append(group.exceptions)
            raise

    async with ticks() as channel:
        await channel.receive()
    ((seen_exit,),) = seen
    assert isinstance(seen_exit, GeneratorExit)


async def test_an_error_beside_generator_exit_is_raised_alone() -> None:
    async def fail_when_cancelled(error: type[BaseException]) -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            raise error

    @as_safe_channel
    async def ticks(*errors: type[BaseException]) -> AsyncGenerator[int, None]:
        async with nurseryio.open_nursery() as nursery:
            for error in errors:
                nursery.start_soon(fail_when_cancelled, error)
            yield 1

    with pytest.raises(ExceptionGroup) as caught:
        async with ticks(ValueError) as channel:
            await channel.receive()
    assert [type(error) for error in caught.value.exceptions] == [ValueError]

    # A second exit is none that closing asked for.
    with pytest.raises(ExceptionGroup) as caught:
        async with ticks(ValueError, GeneratorExit) as channel:
            await channel.receive()
    assert {type(error) for error in caught.value.exceptions} == {ValueError, AssertionError}


# -- cancellation ---------------------------------------------------------------


async def test_a_cancel_around_the_block_reaches_both_the_generator_and_the_block() -> None:
    record = []

    @as_safe_channel
    async def ticks() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            try:
                await nurseryio.lowlevel.checkpoint()
            except nurseryio.Cancelled:
                record.append("generator")
                raise

    with nurseryio.CancelScope() as scope:
        async with ticks() as channel:
            await channel.receive()
            scope.cancel()
            try:
                await nurseryio.lowlevel.checkpoint()
            except nurseryio.Cancelled:
                record.append("block")
                raise
    assert scope.cancelled_caught
    assert record == ["block", "generator"]


async def test_a_native_cancel_passes_as_safe_channel_bare() -> None:
    record: list[object] = []

    async def use() -> None:
        async with count(3, record) as channel:
            await channel.receive()
            await nurseryio.sleep_forever()

    task = asyncio.create_task(use())
    await wait_all_tasks_blocked()
    task.cancel("mine")
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert not isinstance(caught.value, BaseExceptionGroup)
    if sys.version_info >= (3, 11):
        assert caught.value.args == ("mine",)
    assert record == [0, "closed"]


async def test_a_block_entered_in_a_cancelled_scope_starts_no_generator() -> None:
    record: list[object] = []
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        async with count(3, record) as channel:
            await channel.receive()
    assert scope.cancelled_caught
    gc.collect()
    assert record == []


async def test_under_any_schedule_the_generator_is_closed_and_items_come_in_order(
    loop_case: Case,
) -> None:
    async def scenario(schedule: Schedule) -> None:
        record: list[object] = []

        @as_safe_channel
        async def ticks() -> AsyncGenerator[int, None]:
            record.append("opened")
            try:
                for number in range(4):
                    await schedule.pause()
                    yield number
            finally:
                record.append("closed")

        got: list[int] = []

        async def use() -> None:
            async with ticks() as channel:
                async for number in channel:
                    got.append(number)
                    await schedule.pause()

        async def others() -> None:
            for _ in range(6):
                await schedule.pause()

        await schedule.run(use, others)
        assert got == list(range(len(got)))
        assert record in ([], ["opened", "closed"])

    await stress(scenario, loop_case)


async def iterate(source: AsyncIterator[int]) -> list[int]:
    return [item async for item in source]


async def test_a_safe_channel_is_an_async_iterator() -> None:
    async with count(3) as channel:
        assert await iterate(channel) == [0, 1, 2]


# -- errors that resist -----------------------------------------------------------


@as_safe_channel
async def failing_with(error: BaseException) -> AsyncGenerator[int, None]:
    yield 1
    raise error


@pypy.needs_own_exception_fields
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_an_error_that_overrides_its_fields_is_raised_unchanged(kind: Any) -> None:
    error, context = make(kind), KeyError()
    set_context(error, context)
    with pytest.raises(kind) as caught:
        async with failing_with(error) as channel:
            await iterate(channel)
    assert caught.value is error
    assert context_of(error) is context
    with pytest.raises(kind) as caught:
        async with count(3):
            raise error
    assert caught.value is error


class Exit(SystemExit):
    def __init__(self, *, reason: str) -> None:
        super().__init__(3)
        self.reason = reason


@pytest.mark.parametrize("with_cause", [False, True])
async def test_a_subclass_of_system_exit_is_raised_unchanged(with_cause: bool) -> None:
    exit_ = Exit(reason="enough")
    cause = exit_.__cause__ = OSError() if with_cause else None
    with pytest.raises(Exit) as caught:
        async with failing_with(exit_) as channel:
            await iterate(channel)
    assert caught.value is exit_

    @as_safe_channel
    async def failing_too() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise exit_

    with pytest.raises(Exit) as caught:
        async with failing_too() as channel:
            await channel.receive()
            raise KeyError
    assert caught.value is exit_
    assert exit_.__cause__ is cause
    # The other error is not lost.
    shown: list[BaseException | None] = [exit_]
    while shown[-1] is not None:
        shown.append(shown[-1].__cause__ or shown[-1].__context__)
    assert any("KeyError" in repr(error) for error in shown)


async def test_a_changed_code_of_a_system_exit_is_kept() -> None:
    exit_ = SystemExit(3)
    exit_.code = 4
    with pytest.raises(SystemExit) as caught:
        async with failing_with(exit_) as channel:
            await iterate(channel)
    assert caught.value.code == 4


async def test_an_exception_group_with_generator_exit_that_cannot_be_split_loses_nothing() -> None:
    @as_safe_channel
    async def ticks() -> AsyncGenerator[int, None]:
        try:
            yield 1
        except GeneratorExit as exit_:
            raise DeriveRaises("g", [exit_, ValueError()]) from None

    with pytest.raises(BaseExceptionGroup) as caught:
        async with ticks() as channel:
            await channel.receive()
    assert [type(error) for error in caught.value.exceptions] == [ValueError]


@pytest.mark.parametrize("place", ["close", "cancel", "leave"])
async def test_a_failing_aexit_of_as_safe_channel_leaves_no_task_and_no_scope(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    record: list[object] = []
    error = MemoryError()
    failed = []

    def fail_once(real: Any) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            if not failed:
                failed.append(error)
                raise error
            return real(*args, **kwargs)

        return function

    scope = nurseryio.lowlevel.current_task().scope
    manager: Any = count(3, record)
    with pytest.raises(BaseException) as caught:
        async with manager as channel:
            assert await channel.receive() == 0
            if place == "close":
                monkeypatch.setattr(type(channel), "close", fail_once(type(channel).close))
            elif place == "cancel":
                cancel = nurseryio.CancelScope.cancel
                monkeypatch.setattr(nurseryio.CancelScope, "cancel", fail_once(cancel))
            else:
                monkeypatch.setattr(manager, "_leave", fail_once(manager._leave))
    assert leaves(caught.value) == [error]
    assert record == [0, "closed"]
    assert nurseryio.lowlevel.current_task().scope is scope
