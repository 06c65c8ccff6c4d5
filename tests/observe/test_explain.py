"""Why a nursery or a cancel scope does not end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from math import inf

import pytest
from harness.core import forever, settle

import nurseryio
from nurseryio import aio
from nurseryio._base.watchers import look_for_debug
from nurseryio.instruments import Explanation, Watchdog, explain
from nurseryio.testing import wait_all_tasks_blocked


def names(explanation: Explanation) -> list[str]:
    return sorted(blocker.task.name for blocker in explanation.blockers)


async def test_explain_names_the_tasks_that_keep_a_nursery_open() -> None:
    async def parent() -> None:
        async with nurseryio.open_nursery() as inner:
            inner.start_soon(forever, name="grandchild")

    async with nurseryio.open_nursery() as outer:

        async def opens() -> None:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(parent, name="parent")
                nursery.start_soon(forever, name="child")
                found.append(nursery)

        found: list[nurseryio.Nursery] = []
        outer.start_soon(opens, name="opens")
        await wait_all_tasks_blocked()
        explanation = explain(found[0])
        # The parent, and the task that has opened the nursery, only wait for others.
        assert names(explanation) == ["child", "grandchild"]
        assert str(explanation).splitlines()[0] == (
            "a nursery in task 'opens' waits for 2 tasks; it is not cancelled"
        )
        assert not any(blocker.asked or blocker.why for blocker in explanation.blockers)
        assert explanation.cancelled is None
        outer.cancel_scope.cancel()


async def test_explain_names_the_task_whose_block_is_still_running() -> None:
    nurseryio.lowlevel.current_task().name = "body"
    async with nurseryio.open_nursery() as nursery:
        assert names(explain(nursery)) == ["body"]
        assert "body is running" in str(explain(nursery))
    with nurseryio.CancelScope() as scope:
        assert names(explain(scope)) == ["body"]


async def test_explain_says_that_a_block_is_not_open() -> None:
    scope = nurseryio.CancelScope()
    assert explain(scope).ended
    with scope:
        assert not explain(scope).ended
    assert str(explain(scope)) == f"{scope!r} is not open"


async def test_explain_finds_tasks_that_wait_for_each_others_locks() -> None:
    first, second = nurseryio.Lock(), nurseryio.Lock()

    async def take(one: nurseryio.Lock, other: nurseryio.Lock) -> None:
        async with one:
            await settle()
            async with other:
                raise AssertionError("both wait")

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(take, first, second, name="a")
        nursery.start_soon(take, second, first, name="b")
        await wait_all_tasks_blocked()
        explanation = explain(nursery)
        assert len(explanation.circles) == 1
        assert "'a' waits for 'b'" in explanation.circles[0]
        assert str(explanation).splitlines()[-1] == f"deadlock: {explanation.circles[0]}"
        nursery.cancel_scope.cancel()


async def why(
    function: Callable[[], Awaitable[object]], release: Callable[[], object]
) -> tuple[str, Explanation]:
    """Cancel a nursery with one child that does not end, explain it, and let the child end."""
    found: list[Explanation] = []

    async def look() -> None:
        with nurseryio.CancelScope(shield=True):
            await settle()
            try:
                found.append(explain(nursery))
            finally:
                release()

    async with nurseryio.open_nursery() as outer:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(function, name="stuck")
            await settle()
            outer.start_soon(look)
            nursery.cancel_scope.cancel("enough")
    (explanation,) = found
    assert explanation.cancelled is not None
    assert "with reason 'enough'" in explanation.cancelled
    (blocker,) = (each for each in explanation.blockers if each.task.name == "stuck")
    if blocker.why:
        assert f"  It {blocker.why}." in str(explanation).splitlines()
    json.dumps(explanation.as_dict())
    return blocker.why, explanation


async def test_explain_says_that_a_shield_keeps_the_cancellation_out() -> None:
    event = nurseryio.Event()

    async def shielded() -> None:
        with nurseryio.CancelScope(shield=True):
            await event.wait()

    reason, explanation = await why(shielded, event.set)
    assert reason.startswith(
        "is in a scope without a deadline whose shield keeps a cancellation out (cancelled due to"
    )
    assert not explanation.blockers[0].asked


async def test_explain_says_that_a_shield_of_an_outer_task_keeps_the_cancellation_out() -> None:
    event = nurseryio.Event()

    async def parent() -> None:
        with nurseryio.CancelScope(shield=True):
            async with nurseryio.open_nursery() as inner:
                inner.start_soon(event.wait, name="stuck")

    async with nurseryio.open_nursery() as outer:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(parent, name="parent")
            await settle()
            nursery.cancel_scope.cancel()
            explanation = explain(nursery)
            (blocker,) = (each for each in explanation.blockers if each.task.name == "stuck")
            assert blocker.why.startswith(
                "is inside a scope without a deadline whose shield keeps a cancellation out"
            )
            event.set()
        assert names(explain(outer)) != []


async def test_explain_says_that_a_thread_cannot_be_stopped() -> None:
    event = threading.Event()

    async def in_thread() -> None:
        await nurseryio.to_thread.run_sync(event.wait)

    reason, explanation = await why(in_thread, event.set)
    assert reason == "was cancelled, but a thread cannot be stopped from outside"
    assert explanation.blockers[0].asked


async def test_explain_says_that_a_wait_cannot_be_interrupted() -> None:
    task: list[nurseryio.lowlevel.Task] = []

    async def waits() -> None:
        task.append(nurseryio.lowlevel.current_task())
        await nurseryio.lowlevel.wait_task_rescheduled(lambda _: nurseryio.lowlevel.Abort.FAILED)

    reason, _ = await why(waits, lambda: nurseryio.lowlevel.reschedule(task[0]))
    assert reason == "was cancelled, but its wait cannot be interrupted"


class Swallows:
    """Functions for :func:`why` that swallow each cancellation until they are released."""

    def __init__(self) -> None:
        self.stop = False
        self.future: asyncio.Future[None]

    def release(self) -> None:
        self.stop = True
        if not self.future.done():
            self.future.set_result(None)

    async def at_one_line(self) -> None:
        while not self.stop:
            await self._swallow()

    async def _swallow(self) -> None:
        self.future = asyncio.get_running_loop().create_future()
        try:
            await self.future  # in a loop
        except asyncio.CancelledError:
            pass

    async def at_two_lines(self) -> None:
        try:
            await nurseryio.sleep_forever()  # first
        except nurseryio.Cancelled:
            pass
        await self.at_one_line()


async def test_explain_counts_the_cancellations_that_a_task_has_swallowed() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_debug()
    loop.set_debug(False)
    look_for_debug(list)
    try:
        swallows = Swallows()
        reason, explanation = await why(swallows.at_one_line, swallows.release)
    finally:
        loop.set_debug(before)
    assert reason.startswith("was cancelled, has swallowed that ")
    assert " times, and waits again, now at test_explain.py:" in reason
    assert reason.endswith(" in _swallow()")
    assert explanation.blockers[0].swallowed > 1
    assert explanation.blockers[0].swallowed_at == ()


async def test_explain_says_where_a_task_has_swallowed_cancellations_while_that_is_noted() -> None:
    with Watchdog(slow_step=inf, stuck_cancel=inf):
        swallows = Swallows()
        reason, explanation = await why(swallows.at_two_lines, swallows.release)
    (blocker,) = explanation.blockers
    (often, number), (once, one) = blocker.swallowed_at
    assert (often.text, once.text) == (
        "await self.future  # in a loop",
        "await nurseryio.sleep_forever()  # first",
    )
    assert number > one == 1
    assert blocker.swallowed == number + 1
    assert reason == (
        f"was cancelled, has swallowed that {number} times at {often}, once at {once}, "
        "and waits again"
    )


async def test_explain_says_where_a_block_was_cancelled_while_that_is_kept() -> None:
    with Watchdog(slow_step=inf, stuck_cancel=inf):
        async with nurseryio.open_nursery() as nursery:
            nursery.cancel_scope.cancel("enough")
            explicit = explain(nursery)
        with nurseryio.move_on_after(0) as scope:
            deadline = explain(scope)
    assert explicit.cancelled is not None
    assert " with reason 'enough' from task " in explicit.cancelled
    assert ", at test_explain.py:" in explicit.cancelled
    assert deadline.cancelled is not None
    assert deadline.cancelled.startswith("cancelled due to deadline, set at test_explain.py:")


async def test_explain_says_that_a_future_refuses_to_be_cancelled() -> None:
    class Refuses(asyncio.Future[None]):
        def cancel(self, msg: object = None) -> bool:
            return False

    future = Refuses(loop=asyncio.get_running_loop())

    async def waits() -> None:
        await future

    reason, _ = await why(waits, lambda: future.set_result(None))
    assert reason == "was cancelled, but the future that it waits for refuses to be cancelled"


async def test_explain_says_that_an_edge_cancellation_block_protects_a_task() -> None:
    event = nurseryio.Event()

    async def closes() -> None:
        with aio.edge_cancellation(grace=1000):
            try:
                await asyncio.sleep(1000)
            except asyncio.CancelledError:
                await event.wait()
                raise

    reason, _ = await why(closes, event.set)
    assert reason == "is protected by an edge_cancellation block or a shield of anyio"


async def test_explain_says_that_a_task_has_not_begun() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        nursery.start_soon(forever, name="late")
        explanation = explain(nursery)
        (late,) = (blocker for blocker in explanation.blockers if blocker.task.name == "late")
        assert late.why == "has not begun, and will be cancelled at its first checkpoint"
        (body,) = (blocker for blocker in explanation.blockers if blocker.task.name != "late")
        assert body.why == "is about to run, or is running without a checkpoint"


async def test_explain_folds_tasks_that_do_the_same() -> None:
    async with nurseryio.open_nursery() as nursery:
        for _ in range(1000):
            nursery.start_soon(nurseryio.sleep_forever)
        await wait_all_tasks_blocked()
        lines = str(explain(nursery)).splitlines()
        assert lines[0].endswith(" waits for 1,001 tasks; it is not cancelled")
        assert "- ... 990 more like this" in lines
        nursery.cancel_scope.cancel()


async def test_explain_may_be_called_in_another_thread() -> None:
    with ThreadPoolExecutor(1) as executor:
        async with nurseryio.open_nursery() as nursery:
            explanation = executor.submit(explain, nursery).result()
    assert len(explanation.blockers) == 1


def test_explain_of_something_else_is_an_error() -> None:
    with pytest.raises(TypeError, match="needs a nursery or a cancel scope, not 3"):
        explain(3)  # type: ignore[arg-type]
