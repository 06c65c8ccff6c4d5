"""Our scopes and anyio's in the same tasks: shields hold both ways, cancels pass, nothing spins."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import anyio
import anyio._backends._asyncio as backend
import anyio.to_thread
import pytest
from harness.core import cancelling, leaves, little_cpu, needs_counts, settle, turns

import nurseryio
from nurseryio._core import anyio_hook
from nurseryio._interop import anyio_bridge

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@pytest.fixture(autouse=True)
def bridge() -> None:
    anyio_hook.look()
    assert anyio_hook.bridge is not None


# Ways to wait: an operation of nurseryio, one of anyio, one of asyncio.
async def wait_ours() -> None:
    await nurseryio.sleep(0.002)


async def wait_anyio() -> None:
    await anyio.sleep(0.002)


async def wait_asyncio() -> None:
    await asyncio.sleep(0.002)


each_wait = pytest.mark.parametrize("wait", [wait_ours, wait_anyio, wait_asyncio])


# -- anyio's shields against nurseryio's cancellation ------------------------------


@each_wait
async def test_an_anyio_shield_keeps_a_nurseryio_cancellation_out(wait: Any) -> None:
    done = []
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        with anyio.CancelScope(shield=True):
            await wait()
            await wait()
            done.append("shielded")
        await wait()
        done.append("not reached")
    assert done == ["shielded"]
    assert scope.cancelled_caught


@each_wait
async def test_an_anyio_shield_keeps_out_a_cancellation_that_comes_later(wait: Any) -> None:
    done = []
    with nurseryio.CancelScope() as scope:
        with anyio.CancelScope(shield=True):
            asyncio.get_running_loop().call_soon(scope.cancel)
            await wait()
            await wait()
            done.append("shielded")
        await nurseryio.sleep_forever()
    assert done == ["shielded"]
    assert scope.cancelled_caught


async def test_a_nurseryio_scope_inside_an_anyio_shield_is_not_cancelled_from_outside() -> None:
    with nurseryio.CancelScope() as outer:
        outer.cancel()
        with anyio.CancelScope(shield=True):
            with nurseryio.CancelScope() as inner:
                assert not inner.shield
                await nurseryio.lowlevel.checkpoint()
                await nurseryio.sleep(0.001)
                inner.cancel()
                await nurseryio.sleep_forever()
            assert inner.cancelled_caught
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(wait_ours)
                nursery.start_soon(wait_anyio)
        await nurseryio.sleep_forever()
    assert outer.cancelled_caught


async def test_shield_of_a_nurseryio_scope_inside_an_anyio_shield_can_be_read_and_set() -> None:
    with nurseryio.CancelScope() as outer:
        outer.cancel()
        with anyio.CancelScope(shield=True):
            with nurseryio.CancelScope() as inner:
                inner.shield = True
                assert inner.shield
                inner.shield = False
                assert not inner.shield
                await nurseryio.sleep(0)
            with nurseryio.CancelScope(shield=True) as shielded:
                assert shielded.shield
                await nurseryio.sleep(0)


async def test_an_anyio_task_group_inside_a_cancelled_nurseryio_scope_is_cancelled() -> None:
    ended = []

    async def child() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(1)

    with nurseryio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(child)
            group.start_soon(child)
            await settle()
            scope.cancel()
    assert scope.cancelled_caught
    assert len(ended) == 2


# -- nurseryio's shields against anyio's cancellation ------------------------------


@each_wait
async def test_a_nurseryio_shield_keeps_an_anyio_cancellation_out(wait: Any) -> None:
    done = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        with nurseryio.CancelScope(shield=True):
            await wait()
            await wait()
            done.append("shielded")
        await wait()
        done.append("not reached")
    assert done == ["shielded"]
    assert scope.cancelled_caught
    assert cancelling() == 0


async def test_a_nurseryio_shield_can_be_set_and_reset_inside_an_anyio_scope() -> None:
    done = []
    with anyio.CancelScope() as scope:
        with nurseryio.CancelScope() as ours:
            ours.shield = True
            scope.cancel()
            await wait_anyio()
            done.append("shielded")
            ours.shield = False
            await wait_anyio()
            done.append("not reached")
    assert done == ["shielded"]
    assert scope.cancelled_caught
    assert not ours.cancelled_caught


async def test_a_nurseryio_shield_of_a_child_inside_an_anyio_scope_affects_nothing_else() -> None:
    async def child() -> None:
        nursery.cancel_scope.shield = True

    with anyio.CancelScope():
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child)
        assert nursery.cancel_scope.shield
        await anyio.sleep(0)


async def test_a_nurseryio_shield_that_is_set_again_keeps_an_anyio_cancellation_out_again() -> None:
    with anyio.CancelScope() as scope:
        with nurseryio.CancelScope(shield=True) as ours:
            ours.shield = False
            ours.shield = True
            scope.cancel()
            await wait_anyio()
        await wait_anyio()
    assert scope.cancelled_caught


async def test_a_nurseryio_shield_that_is_cancelled_itself_ends_alone() -> None:
    with anyio.CancelScope() as scope:
        with nurseryio.CancelScope(shield=True) as ours:
            ours.cancel()
            await anyio.sleep_forever()
        assert ours.cancelled_caught
        await wait_anyio()
    assert not scope.cancelled_caught


async def test_a_nursery_with_a_shield_keeps_an_anyio_cancellation_from_its_body() -> None:
    done = []
    with anyio.CancelScope() as scope:
        async with nurseryio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            nursery.start_soon(wait_asyncio)
            scope.cancel()
            await wait_anyio()
            done.append("shielded")
        await wait_anyio()
    assert done == ["shielded"]
    assert scope.cancelled_caught


async def test_a_nurseryio_shield_inside_an_anyio_shield_keeps_its_cancellation_out() -> None:
    done = []
    async with nurseryio.open_nursery():
        with anyio.CancelScope(shield=True) as scope:
            with nurseryio.CancelScope(shield=True):
                scope.cancel()
                await wait_anyio()
                await wait_asyncio()
                done.append("shielded")
            await wait_anyio()
            done.append("not reached")
    assert done == ["shielded"]
    assert scope.cancelled_caught


async def test_a_deferred_anyio_cancellation_stops_at_anyio_shields() -> None:
    async def take(lock: nurseryio.Lock) -> None:
        async with lock:
            with anyio.CancelScope(shield=True):
                await wait_asyncio()
                done.append("shielded")
            await wait_asyncio()
            done.append("not reached")

    done: list[str] = []
    lock = nurseryio.Lock()
    await lock.acquire()
    async with anyio.create_task_group() as group:
        group.start_soon(take, lock)
        await settle()
        group.cancel_scope.cancel()
        lock.release()
    assert done == ["shielded"]


async def test_errors_beside_an_anyio_cancellation_pass_the_end_of_an_anyio_task_group() -> None:
    async def fail(scope: Any) -> None:
        scope.cancel()
        raise ValueError("in a child")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(fail, group.cancel_scope)
    assert [str(leaf) for leaf in leaves(caught.value)] == ["in a child"]
    await nurseryio.lowlevel.checkpoint()
    assert cancelling() == 0


# -- an anyio scope or task group around a nursery --------------------------------


async def test_an_anyio_cancel_scope_around_a_nursery_cancels_body_and_children() -> None:
    ended = []

    async def child() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            ended.append(1)

    with anyio.CancelScope() as scope:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(child)
            await settle()
            scope.cancel()
            await nurseryio.sleep_forever()
    assert scope.cancelled_caught
    assert len(ended) == 2
    assert cancelling() == 0


async def test_an_anyio_timeout_cancels_a_nursery_that_waits_for_its_children() -> None:
    with anyio.move_on_after(0.005) as scope:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
            nursery.start_soon(anyio.sleep_forever)
    assert scope.cancelled_caught
    assert cancelling() == 0


async def test_anyio_fail_after_around_a_nursery_raises_its_own_timeout() -> None:
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.005):
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep_forever)


@needs_counts
async def test_an_anyio_timeout_ends_a_nursery_that_an_asyncio_timeout_cancelled_as_well() -> None:
    async def refuses() -> None:
        with nurseryio.CancelScope(shield=True):
            await released.wait()

    released = nurseryio.Event()
    with anyio.CancelScope() as theirs:
        async with asyncio.timeout(None) as native:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(refuses)
                loop = asyncio.get_running_loop()
                loop.call_soon(theirs.cancel)
                # When anyio's cancellation has arrived, and before the children have ended.
                loop.call_later(0.005, native.reschedule, 0)
                loop.call_later(0.01, released.set)
    assert theirs.cancelled_caught
    assert native.expired()
    assert cancelling() == 0


async def test_a_failing_child_of_an_anyio_task_group_cancels_the_nursery_inside() -> None:
    async def fails() -> None:
        await settle()
        raise ValueError("in the task group")

    with pytest.raises(BaseExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(fails)
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep_forever)
    assert [str(leaf) for leaf in leaves(caught.value)] == ["in the task group"]
    assert cancelling() == 0


async def test_a_failing_child_of_a_nursery_cancels_the_anyio_task_group_around_it() -> None:
    async def fails() -> None:
        await settle()
        raise ValueError("in the nursery")

    ended = []

    async def sibling() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(1)

    with pytest.raises(BaseExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(sibling)
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(fails)
    assert [str(leaf) for leaf in leaves(caught.value)] == ["in the nursery"]
    assert ended == [1]


async def test_a_nursery_in_a_child_of_an_anyio_task_group_is_cancelled_with_it() -> None:
    ended = []

    async def inner() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            ended.append("inner")

    async def child() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(inner)

    async with anyio.create_task_group() as group:
        group.start_soon(child)
        await settle()
        group.cancel_scope.cancel()
    assert ended == ["inner"]


async def test_cleanup_in_a_child_goes_on_inside_an_anyio_or_nurseryio_shield() -> None:
    done = []

    async def child() -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await wait_ours()
                done.append("anyio")
            with nurseryio.CancelScope(shield=True):
                await wait_anyio()
                done.append("ours")

    with anyio.CancelScope() as scope:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child)
            await settle()
            scope.cancel()
            await nurseryio.sleep_forever()
    assert done == ["anyio", "ours"]


# -- an anyio scope or task group inside a nursery --------------------------------


async def test_a_cancelled_nursery_cancels_the_anyio_task_groups_of_its_children() -> None:
    ended = []

    async def leaf() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(1)

    async def child() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(leaf)
            group.start_soon(leaf)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(child)
        await settle()
        nursery.cancel_scope.cancel()
    assert len(ended) == 4


async def test_an_anyio_cancel_scope_inside_a_child_ends_that_part_alone() -> None:
    done = []

    async def child() -> None:
        with anyio.move_on_after(0.001) as scope:
            await nurseryio.sleep_forever()
        assert scope.cancelled_caught
        await nurseryio.sleep(0)
        done.append(1)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert done == [1]
    assert not nursery.cancel_scope.cancel_called


async def test_anyio_and_nurseryio_scopes_cancelled_in_one_iteration_both_end() -> None:
    for first_ours in (True, False):
        with nurseryio.CancelScope() as ours, anyio.CancelScope() as theirs:
            for scope in (ours, theirs) if first_ours else (theirs, ours):
                scope.cancel()
            await anyio.sleep_forever()
        await nurseryio.lowlevel.checkpoint()
        assert cancelling() == 0
        with anyio.CancelScope() as theirs, nurseryio.CancelScope() as ours:
            for scope in (ours, theirs) if first_ours else (theirs, ours):
                scope.cancel()
            await nurseryio.sleep_forever()
        await nurseryio.lowlevel.checkpoint()
        assert cancelling() == 0


@needs_counts
@pytest.mark.parametrize(
    "around", [nurseryio.CancelScope, anyio.CancelScope], ids=["ours", "anyio"]
)
async def test_anyio_and_nurseryio_scopes_cancelled_while_a_task_is_awaited_both_end(
    around: Any,
) -> None:
    within: Any = anyio if around is nurseryio.CancelScope else nurseryio
    for first in (0, 1):
        with around() as outer, within.CancelScope() as inner:
            waited = asyncio.ensure_future(nurseryio.sleep_forever())
            for scope in (outer, inner)[:: 1 - 2 * first]:
                asyncio.get_running_loop().call_soon(scope.cancel)
            await waited
        await nurseryio.lowlevel.checkpoint()
        assert outer.cancel_called
        assert inner.cancel_called
        assert cancelling() == 0


async def test_anyio_and_nurseryio_scopes_nested_in_turns_are_cancelled_at_each_level() -> None:
    for level in range(6):
        passed = []
        scopes: list[Any] = [
            nurseryio.CancelScope() if number % 2 else anyio.CancelScope() for number in range(6)
        ]

        async def descend(depth: int, scopes: list[Any], level: int, passed: list[int]) -> None:
            if depth == 6:
                scopes[level].cancel()
                await nurseryio.sleep_forever()
            with scopes[depth]:
                await descend(depth + 1, scopes, level, passed)
            await nurseryio.lowlevel.checkpoint()
            passed.append(depth)

        await descend(0, scopes, level, passed)
        assert passed == list(range(level, -1, -1))
        assert cancelling() == 0


# -- threads ----------------------------------------------------------------------


async def test_anyio_to_thread_is_waited_for_in_a_cancelled_nurseryio_scope() -> None:
    release = threading.Event()
    done = []

    def work() -> str:
        release.wait(10)
        done.append(1)
        return "done"

    async def let_go() -> None:
        with little_cpu():
            await asyncio.sleep(0.2)
        release.set()

    async with nurseryio.open_nursery() as nursery:
        with nurseryio.CancelScope(shield=True):
            helper = asyncio.ensure_future(let_go())
        nursery.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert await anyio.to_thread.run_sync(work) == "done"
        await nurseryio.lowlevel.checkpoint()
        done.append(2)
    assert done == [1]
    await helper


async def test_anyio_to_thread_in_a_cancelled_nurseryio_scope_costs_no_cpu() -> None:
    release = threading.Event()
    loop = asyncio.get_running_loop()
    with nurseryio.CancelScope() as scope:

        def cancel() -> None:
            scope.cancel()
            loop.call_later(0.25, release.set)

        def work() -> None:
            loop.call_soon_threadsafe(cancel)
            release.wait(10)

        with little_cpu():
            await anyio.to_thread.run_sync(work)
        assert release.is_set()
        await nurseryio.lowlevel.checkpoint()
    assert scope.cancelled_caught


# -- no polling -------------------------------------------------------------------


async def test_a_nursery_that_waits_in_a_cancelled_anyio_scope_costs_no_cpu() -> None:
    gate = asyncio.Event()

    async def stubborn() -> None:
        with nurseryio.CancelScope(shield=True):
            await gate.wait()

    with anyio.CancelScope() as scope:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(stubborn)
            await settle()
            asyncio.get_running_loop().call_later(0.25, gate.set)
            scope.cancel()
            before = time.process_time()
    assert time.process_time() - before < 0.1
    assert scope.cancelled_caught


async def test_a_cancelled_nurseryio_scope_around_an_anyio_shield_costs_no_cpu() -> None:
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        with anyio.CancelScope(shield=True), little_cpu():
            await asyncio.sleep(0.25)
        await nurseryio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_nurseryio_shield_inside_a_cancelled_anyio_scope_costs_no_cpu() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        with nurseryio.CancelScope(shield=True), little_cpu():
            await nurseryio.sleep(0.25)
        await nurseryio.sleep_forever()
    assert scope.cancelled_caught


# -- the bridge itself ------------------------------------------------------------


async def test_cancelling_count_is_balanced_after_nested_anyio_and_nurseryio_shields() -> None:
    with nurseryio.CancelScope() as ours:
        ours.cancel()
        with anyio.CancelScope(shield=True):
            with anyio.CancelScope() as theirs:
                theirs.cancel()
                with nurseryio.CancelScope(shield=True):
                    assert cancelling() == 0
                    await turns(3)
                await anyio.sleep_forever()
            assert theirs.cancelled_caught
            await turns(3)
            assert cancelling() == 0
        await nurseryio.sleep_forever()
    assert ours.cancelled_caught
    assert cancelling() == 0


def test_an_anyio_release_without_the_needed_attributes_gets_no_bridge() -> None:
    assert anyio_bridge.make(SimpleNamespace()) is None
    assert anyio_bridge.make(SimpleNamespace(_task_states={}, CancelScope=object)) is None
    assert anyio_bridge.make(backend) is not None


# -- a shield that is lowered from outside ----------------------------------------------


@pytest.mark.limit(10)
@pytest.mark.parametrize("outer_kind", [nurseryio.CancelScope, anyio.CancelScope])
@pytest.mark.parametrize("inner_kind", [nurseryio.CancelScope, anyio.CancelScope])
@pytest.mark.parametrize("by", ["task", "callback", "child"])
@pytest.mark.parametrize("wait", ["future", "event of ours", "event of anyio", "child"])
async def test_a_nurseryio_shield_that_another_task_resets_lets_the_anyio_cancellation_in(
    wait: str, by: str, inner_kind: Any, outer_kind: Any
) -> None:
    loop = asyncio.get_running_loop()
    inner = inner_kind(shield=True)
    steps: list[str] = []

    async def wait_in_a_nursery() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.sleep, 100)

    waits: dict[str, Any] = {
        "future": loop.create_future,
        "event of ours": lambda: nurseryio.Event().wait(),
        "event of anyio": lambda: anyio.Event().wait(),
        "child": wait_in_a_nursery,
    }

    def lower() -> None:
        steps.append("lowered")
        inner.shield = False

    async def lower_later() -> None:
        with nurseryio.CancelScope(shield=True), anyio.CancelScope(shield=True):
            for _ in range(12):
                await asyncio.sleep(0)
        assert steps == []
        lower()

    async def victim() -> None:
        try:
            with outer_kind() as outer:
                with inner:
                    loop.call_soon(outer.cancel)
                    if by == "callback":
                        loop.call_later(0.002, lower)
                    await waits[wait]()
        finally:
            steps.append("ended")

    with nurseryio.fail_after(5):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(victim)
            if by == "child":
                nursery.start_soon(lower_later)
            elif by == "task":
                await asyncio.create_task(lower_later())
    assert steps == ["lowered", "ended"]
    assert not nursery.cancel_scope.cancel_called


# -- anyio's shields against stop requests -----------------------------------------


async def test_an_anyio_shield_keeps_a_stop_request_out_until_it_is_lowered() -> None:
    with nurseryio.CancelScope() as scope:
        with anyio.CancelScope(shield=True) as shield:
            scope.request_stop()
            assert not nurseryio.stop_requested()
            with nurseryio.move_on_at_stop() as waiting:
                assert not nurseryio.stop_requested()
                await settle()
                shield.shield = False
                assert nurseryio.stop_requested()
                await nurseryio.sleep_forever()
            assert waiting.cancelled_caught
        assert nurseryio.stop_requested()


async def test_a_stop_request_inside_an_anyio_shield_is_seen_there() -> None:
    with anyio.CancelScope(shield=True), nurseryio.CancelScope() as scope:
        scope.request_stop()
        assert nurseryio.stop_requested()


async def test_a_task_in_an_anyio_shield_is_not_asked_to_stop_by_a_cancellation() -> None:
    with nurseryio.CancelScope() as scope:
        with anyio.CancelScope(shield=True):
            scope.cancel()
            assert not nurseryio.stop_requested()
        assert nurseryio.stop_requested()
