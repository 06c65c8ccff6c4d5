"""``__aexit__`` of a nursery: everything from the end of the nursery's block on."""

# Covered below 95 %: leaving that fails half-way is in test_injection.py and test_recursion.py; an
# exit from another task in test_wrong_thread.py; Ctrl-C in test_presses.py; groups of old Pythons
# run there alone.

from __future__ import annotations

import asyncio
import contextlib
import sys
from typing import Any

import pytest
from harness.core import leaves, validate

import nurseryio
from nurseryio import Cancelled, CancelScope, open_nursery
from nurseryio._nursery import nursery_exit
from nurseryio._nursery.nursery_exit import unwrap_exit_at_task_root
from nurseryio.lowlevel import cancel_shielded_checkpoint, checkpoint, current_task

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


async def test_only_at_the_border_to_asyncio_a_system_exit_is_unwrapped() -> None:
    group: Any = BaseExceptionGroup("g", [SystemExit(3)])
    record = []

    async def native() -> None:
        task = current_task()
        leaf = unwrap_exit_at_task_root(task, None, group)
        record.append(type(leaf))
        record.append(unwrap_exit_at_task_root(task, True, group) is group)
        async with open_nursery():
            record.append(unwrap_exit_at_task_root(task, None, group) is group)

    async def child() -> None:
        record.append(unwrap_exit_at_task_root(current_task(), None, group) is group)

    await asyncio.create_task(native())
    async with open_nursery() as nursery:
        nursery.start_soon(child)
    assert record == [SystemExit, True, True, True]


async def test_errors_of_children_are_raised_unchanged_without_a_cancelled_scope() -> None:
    errors = [ValueError("one"), KeyError("two")]

    async def fail(error: Exception) -> None:
        raise error

    caught = None
    with nurseryio.CancelScope() as outer:
        try:
            async with open_nursery() as nursery:
                for error in errors:
                    nursery.start_soon(fail, error)
        except BaseExceptionGroup as group:
            caught = group
    assert caught is not None
    assert set(caught.exceptions) == set(errors)
    assert nursery.cancel_scope.cancel_called
    assert not nursery.cancel_scope.cancelled_caught
    assert not outer.cancelled_caught


async def test_the_cancelled_of_every_child_is_in_the_exception_group_that_is_raised() -> None:
    caught: Any = None
    with nurseryio.CancelScope() as outer:
        try:
            async with open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(nurseryio.sleep_forever)
                await checkpoint()
                outer.cancel("enough")
        except BaseExceptionGroup as group:
            caught = group
            raise
    assert outer.cancelled_caught
    assert [type(error) for error in caught.exceptions] == [Cancelled] * 5
    assert {error.args[0].reason for error in caught.exceptions} == {"enough"}


async def test_a_cancelled_nursery_raises_an_error_among_cancelled_children() -> None:
    caught: Any = None

    async def sleep_then_fail() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            raise ValueError

    try:
        async with open_nursery() as nursery:
            for child in (nurseryio.sleep_forever, sleep_then_fail, nurseryio.sleep_forever):
                nursery.start_soon(child)
            await checkpoint()
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        caught = group
    assert [type(error) for error in caught.exceptions] == [ValueError]
    assert nursery.cancel_scope.cancelled_caught


async def test_errors_are_raised_first_and_the_native_cancel_at_the_next_await() -> None:
    steps: list[object] = []

    async def fail_when_cancelled() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            raise ValueError

    async def host() -> None:
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
        except BaseExceptionGroup as group:
            steps.append([type(error) for error in group.exceptions])
        await checkpoint()
        steps.append("not reached")

    task = asyncio.create_task(host())
    await checkpoint()
    await checkpoint()
    await checkpoint()
    task.cancel()
    await asyncio.wait([task])
    assert steps == [[ValueError]]
    assert task.cancelled()


async def test_children_cancelled_after_a_swallowed_native_cancel_end_in_the_nursery() -> None:
    async def host() -> object:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
            try:
                await nurseryio.sleep_forever()
            except asyncio.CancelledError:
                nursery.cancel_scope.cancel()  # and the native cancel is not raised again
        return nursery.cancel_scope.cancelled_caught

    task = asyncio.create_task(host())
    await checkpoint()
    await checkpoint()
    task.cancel()
    assert await task is True


# -- a nursery's own scope that is left by hand ------------------------------------


async def sleep_then(record: list[str], error: Exception | None = None) -> None:
    try:
        await nurseryio.sleep_forever()
    finally:
        record.append("ended")
        if error is not None:
            raise error


async def left_by_hand(
    record: list[str], children: int, error: Exception | None, where: str
) -> BaseException | None:
    """Leave the scope of a nursery by hand and then its block; returns what the block raised."""
    manager = open_nursery()
    nursery = await manager.__aenter__()
    for number in range(children):
        nursery.start_soon(sleep_then, record, error if number == 0 else None)
    for _ in range(3):
        await checkpoint()

    async def leave() -> None:
        try:
            nursery.cancel_scope.__exit__(None, None, None)
        except RuntimeError as exc:
            record.append("the scope complains")
            assert "before its block" in str(exc) or "unrelated" in str(exc) or "within" in str(exc)

    if where == "here":
        await leave()
    elif where == "another task":
        await asyncio.create_task(leave())
    else:
        nursery.start_soon(leave)
        for _ in range(3):
            await cancel_shielded_checkpoint()
    try:
        await manager.__aexit__(None, None, None)
    except BaseException as exc:
        return exc
    finally:
        if where == "another task":
            record.append("block left")
    return None


@pytest.mark.parametrize("children", [0, 1, 3])
async def test_misnesting_children_of_a_nursery_whose_cancel_scope_was_left_by_hand_are_cancelled(
    children: int,
) -> None:
    record: list[str] = []
    task = current_task()
    before = task.scope
    with nurseryio.fail_after(5):
        raised = await left_by_hand(record, children, None, "here")
        assert isinstance(raised, RuntimeError)
        assert "exited before its 'async with' block" in str(raised)
        await checkpoint()  # nothing of the misnesting is left
    assert record == ["the scope complains"] + ["ended"] * children
    assert task.scope is before
    assert getattr(asyncio.current_task(), "cancelling", lambda: 0)() == 0
    validate()


async def test_misnesting_an_error_of_a_child_is_raised_beside_the_misnesting_error() -> None:
    record: list[str] = []
    with nurseryio.fail_after(5):
        raised = await left_by_hand(record, 2, ValueError("a child's"), "here")
    assert isinstance(raised, BaseExceptionGroup)
    assert sorted(type(leaf).__name__ for leaf in leaves(raised)) == ["RuntimeError", "ValueError"]
    assert record.count("ended") == 2


async def test_misnesting_an_error_in_the_block_of_a_nursery_whose_scope_was_left_is_kept() -> None:
    record: list[str] = []
    caught: Any = None
    with nurseryio.fail_after(5):
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(sleep_then, record)
                await checkpoint()
                await checkpoint()
                with contextlib.suppress(RuntimeError):
                    nursery.cancel_scope.__exit__(None, None, None)
                raise KeyError("the body's")
        except BaseException as error:
            caught = error
    assert sorted(type(leaf).__name__ for leaf in leaves(caught)) == ["KeyError", "RuntimeError"]
    assert record == ["ended"]


@pytest.mark.parametrize("where", ["another task", "a child"])
async def test_misnesting_a_nurserys_scope_left_in_another_task_does_not_hang_its_block(
    where: str,
) -> None:
    record: list[str] = []
    task = current_task()
    before = task.scope
    ended = 2
    with nurseryio.move_on_after(0.02 if where == "another task" else 5) as limit:
        raised = await left_by_hand(record, ended, None, where)
        if where == "a child":
            assert "RuntimeError" in [type(leaf).__name__ for leaf in leaves(raised)]  # type: ignore[arg-type]
    # In an unrelated task it is an error there alone, and the nursery goes on.
    assert limit.cancel_called == (where == "another task")
    assert record.count("ended") == ended
    assert "the scope complains" in record
    assert task.scope is before
    validate()


async def test_misnesting_a_timeout_ends_a_nursery_inside_one_whose_scope_was_left() -> None:
    record: list[str] = []
    with nurseryio.fail_after(5), pytest.RaisesGroup(RuntimeError, allow_unwrapped=True):
        async with open_nursery() as outer:
            async with open_nursery() as inner:
                inner.start_soon(sleep_then, record)
                outer.start_soon(sleep_then, record)
                await checkpoint()
                await checkpoint()
                with contextlib.suppress(RuntimeError):
                    outer.cancel_scope.__exit__(None, None, None)
    assert record == ["ended", "ended"]


async def test_a_nursery_cannot_be_entered_twice() -> None:
    nursery = open_nursery()
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        _ = nursery.parent_task
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        nursery.start_soon(checkpoint)
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        await nursery.start(checkpoint)
    async with nursery:
        assert nursery.parent_task is current_task()
        with pytest.raises(RuntimeError, match="a single 'with' block"):
            await nursery.__aenter__()
        nursery.start_soon(checkpoint)  # it still works
    assert nursery.parent_task is current_task()
    with pytest.raises(RuntimeError, match="a single 'with' block"):
        await nursery.__aenter__()
    with pytest.raises(RuntimeError, match="closed"):
        nursery.start_soon(checkpoint)


# -- when leaving fails --------------------------------------------------------------


def fail_while_judging(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Have ``error`` raised, as by a signal, where the host's cancellation is looked at."""

    def fail(*_args: object) -> bool:
        monkeypatch.undo()
        raise error

    monkeypatch.setattr(nursery_exit, "is_foreign", fail)


async def host_in_trouble(strict: bool | None) -> None:
    task = asyncio.current_task()
    assert task is not None
    async with open_nursery(strict_exception_groups=strict) as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        asyncio.get_running_loop().call_soon(task.cancel)
        await asyncio.sleep(60)


@pytest.mark.parametrize("exit_type", [KeyboardInterrupt, SystemExit])
def test_a_lone_system_exit_leaves_bare_for_asyncio_although_aexit_has_failed(
    exit_type: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_while_judging(monkeypatch, exit_type())
    with pytest.raises(exit_type):
        asyncio.run(host_in_trouble(None))


def test_strict_exception_groups_keeps_a_lone_system_exit_in_a_group_although_aexit_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fail_while_judging(monkeypatch, SystemExit())
    with pytest.raises(BaseExceptionGroup) as caught:
        asyncio.run(host_in_trouble(True))
    assert [type(error) for error in leaves(caught.value)] == [SystemExit]


def test_inside_another_nursery_a_lone_system_exit_stays_in_a_group_although_aexit_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caught: list[BaseException] = []

    async def main() -> None:
        async with open_nursery():
            try:
                await host_in_trouble(None)
            except BaseException as error:
                caught.append(error)
                raise

    fail_while_judging(monkeypatch, SystemExit(3))
    with pytest.raises(SystemExit, match="3"):
        asyncio.run(main())
    assert isinstance(caught[0], BaseExceptionGroup)


async def test_a_native_cancel_is_raised_again_although_aexit_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record: list[object] = []

    async def host() -> None:
        with pytest.RaisesGroup(MemoryError):
            await host_in_trouble(None)
        record.append("error seen")
        await asyncio.sleep(60)

    fail_while_judging(monkeypatch, MemoryError())
    task = asyncio.create_task(host())
    await asyncio.wait([task])
    assert record == ["error seen"]
    assert task.cancelled()


@pytest.mark.parametrize("children", [0, 1])
async def test_leaving_a_shielded_nursery_in_a_cancelled_scope_interrupts_the_next_asyncio_await(
    children: int,
) -> None:
    with CancelScope() as outer:
        async with open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            for _ in range(children):
                nursery.start_soon(checkpoint)
            outer.cancel()
        await asyncio.get_running_loop().create_future()
    assert outer.cancelled_caught
