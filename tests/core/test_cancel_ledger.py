"""The cancel ledger: whose requests Task.cancelling() counts, and deferred native cancels."""

# Covered below 95 %: branches for counts that go stale run before Python 3.13 alone, see
# test_mixing_stale_counts.py; anyio's cancellations are in test_anyio_hook.py.

from __future__ import annotations

import asyncio
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
from harness import matrix
from harness.core import (
    HAS_COUNTS,
    agree,
    cancel_me,
    cancelling,
    forever,
    leaves,
    needs_counts,
    own_task,
)

from nurseryio import (
    Cancelled,
    CancelScope,
    open_nursery,
    sleep_forever,
)
from nurseryio._base import Value
from nurseryio._core.cancel_ledger import native_requests
from nurseryio._core.task import current_task
from nurseryio.lowlevel import (
    Abort,
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    reschedule,
    wait_task_rescheduled,
)

pytestmark = pytest.mark.limit(20)


# -- the ledger -----------------------------------------------------------------


@needs_counts
async def test_cancelling_count_is_one_however_often_the_cancellation_is_delivered() -> None:
    seen = []
    with CancelScope() as scope:
        scope.cancel()
        for wait in (forever, checkpoint, sleep_forever, forever):
            try:
                await wait()
            except Cancelled:
                seen.append(cancelling())
    assert seen == [1, 1, 1, 1]
    assert cancelling() == 0


@needs_counts
async def test_cancelling_count_is_one_for_two_cancelled_scopes() -> None:
    with CancelScope() as outer:
        with CancelScope() as inner:
            inner.cancel()
            outer.cancel()
            with pytest.raises(Cancelled):
                await checkpoint()
            assert cancelling() == 1
        assert cancelling() == 1
        with pytest.raises(Cancelled):
            await forever()
    assert cancelling() == 0


@needs_counts
async def test_cancelling_count_is_zero_inside_a_shield_and_one_again_after_it() -> None:
    with CancelScope() as scope:
        scope.cancel()
        with pytest.raises(Cancelled):
            await forever()
        assert cancelling() == 1
        with CancelScope(shield=True) as shield:
            assert cancelling() == 0
            async with asyncio.timeout(100):
                await asyncio.sleep(0)
            shield.shield = False
            with pytest.raises(Cancelled):
                await forever()
            assert cancelling() == 1
            shield.shield = True
            assert cancelling() == 0
        with pytest.raises(Cancelled):
            await forever()
        assert cancelling() == 1
    assert cancelling() == 0


@needs_counts
async def test_asyncio_timeouts_and_task_groups_work_in_shielded_cleanup() -> None:
    seen = []

    async def fail() -> None:
        raise KeyError

    with CancelScope() as scope:
        scope.cancel()
        try:
            await forever()
        finally:
            with CancelScope(shield=True):
                try:
                    async with asyncio.timeout(0.001):
                        await forever()
                except TimeoutError:
                    seen.append("timeout")
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(fail())
                        if sys.version_info < (3, 13):
                            # Before 3.13 a group that fails while it waits leaves a count behind.
                            await forever()
                except BaseException as exc:
                    seen += [type(leaf) for leaf in leaves(exc)]
                assert cancelling() == 0
    assert seen == ["timeout", KeyError]
    assert scope.cancelled_caught


@needs_counts
async def test_a_body_that_calls_uncancel_too_often_is_still_cancelled() -> None:
    task = asyncio.current_task()
    assert task is not None
    struck = 0
    with CancelScope() as scope:
        scope.cancel()
        for wait in (checkpoint, forever, checkpoint, sleep_forever, forever):
            try:
                await wait()
            except Cancelled:
                struck += 1
                task.uncancel()
        with CancelScope(shield=True) as inner:
            await checkpoint()
            inner.cancel()
            await checkpoint()
        assert inner.cancelled_caught
        await checkpoint()
    assert struck == 5
    assert scope.cancelled_caught
    assert cancelling() == 0


@needs_counts
async def test_native_requests_are_the_cancelling_count_without_nurseryios_own_request() -> None:
    async def child() -> None:
        with CancelScope() as scope:
            scope.cancel()
            with pytest.raises(Cancelled):
                await checkpoint()
            record = current_task()
            assert native_requests(record) == 0
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            assert native_requests(record) == 1
            await forever()

    task = asyncio.get_running_loop().create_task(child())
    with pytest.raises(asyncio.CancelledError):
        await task


@needs_counts
@pytest.mark.parametrize("first", ["scope", "native"])
async def test_a_native_cancel_beside_a_scopes_cancel_survives_a_shield_during_unwinding(
    first: str,
) -> None:
    passed_on = []

    async def child() -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            with CancelScope() as scope:
                try:
                    for strike in ("scope", "native") if first == "scope" else ("native", "scope"):
                        if strike == "scope":
                            scope.cancel()
                        else:
                            task.cancel()
                    await sleep_forever()
                finally:
                    with CancelScope(shield=True):
                        await cancel_shielded_checkpoint()
        except asyncio.CancelledError:
            passed_on.append(cancelling())
            raise

    async with open_nursery() as nursery:
        nursery.start_soon(child)
    assert passed_on == [1]


# -- native cancels that are deferred --------------------------------------------


@needs_counts
async def test_a_deferred_native_cancel_is_counted_once() -> None:
    async def main() -> None:
        cancel_me()
        for _ in range(3):
            await cancel_shielded_checkpoint()
            assert cancelling() == 1
        try:
            await checkpoint()
        except Cancelled as exc:
            assert cancelling() == 1
            assert exc.args == ("native",)
            raise

    assert isinstance(await own_task(main), Cancelled)


async def test_a_deferred_native_cancel_is_raised_in_an_asyncio_await_as_well() -> None:
    async def main() -> None:
        cancel_me()
        await cancel_shielded_checkpoint()
        await asyncio.get_running_loop().create_future()

    assert isinstance(await own_task(main), Cancelled)


async def test_a_deferred_native_cancel_leaves_a_task_that_ends_its_result() -> None:
    async def main() -> int:
        cancel_me()
        await cancel_shielded_checkpoint()
        return cancelling()

    assert await own_task(main) == HAS_COUNTS


async def test_a_deferred_native_cancel_leaves_a_task_that_fails_its_error() -> None:
    async def main() -> None:
        cancel_me()
        await cancel_shielded_checkpoint()
        raise KeyError

    assert isinstance(await own_task(main), KeyError)


@pytest.mark.parametrize("then", [checkpoint, checkpoint_if_cancelled, forever])
async def test_a_deferred_native_cancel_of_a_child_that_ends_does_not_cancel_its_sibling(
    then: Any,
) -> None:
    ended = []

    async def child(then: Any) -> None:
        cancel_me()
        await cancel_shielded_checkpoint()
        if then is not None:
            await then()
        ended.append(then)

    async with open_nursery() as nursery:
        nursery.start_soon(child, None)
        nursery.start_soon(child, then)
    assert ended == [None]


@needs_counts
async def test_of_two_deferred_native_cancels_one_that_is_not_withdrawn_is_raised() -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        for call in (task.cancel, task.cancel, partial(reschedule, current_task())):
            loop.call_soon(call)
        await wait_task_rescheduled(lambda _raise_cancel: Abort.FAILED)
        assert cancelling() == 2
        task.uncancel()
        await forever()

    assert isinstance(await own_task(main), Cancelled)


@needs_counts
async def test_a_native_request_raised_long_ago_is_not_raised_again_with_a_withdrawn_one() -> None:
    async def main() -> str:
        task = asyncio.current_task()
        assert task is not None
        cancel_me()
        with pytest.raises(Cancelled):
            await checkpoint()  # swallowed, but still counted
        loop = asyncio.get_running_loop()
        loop.call_soon(task.cancel)
        loop.call_soon(reschedule, current_task())
        await wait_task_rescheduled(lambda _raise_cancel: Abort.FAILED)
        task.uncancel()
        assert cancelling() == 1
        await asyncio.sleep(0.001)
        await checkpoint()
        return "calm"

    assert await own_task(main) == "calm"


@needs_counts
async def test_a_scope_entered_after_a_deferral_passes_the_native_cancel_on() -> None:
    async def main() -> None:
        cancel_me()
        await cancel_shielded_checkpoint()
        with CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        raise AssertionError("the scope has caught a native cancel")

    assert isinstance(await own_task(main), Cancelled)


# An asyncio.run whose main task gets Ctrl-C while it must not lose a result.
CTRL_C = """
import asyncio, signal, sys
import nurseryio

async def main():
    other = asyncio.ensure_future(nurseryio.sleep_forever())
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGINT)
    await nurseryio.lowlevel.cancel_shielded_checkpoint()
    if sys.argv[1] == "swallows":
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass
    if sys.argv[1] == "fails":
        raise KeyError
    return other

factory = None
if sys.argv[2] == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    try:
        result = runner.run(main())
    except BaseException as error:
        result = error
    print(type(result).__name__)
    runner.run(asyncio.sleep(0))
"""


@needs_counts
@pytest.mark.parametrize("loop", [kind for kind in ("stock", "uvloop") if kind in matrix.KINDS])
@pytest.mark.parametrize(
    ("main", "outcome"),
    [("returns", "KeyboardInterrupt"), ("fails", "KeyError"), ("swallows", "Task")],
)
def test_ctrl_c_of_asyncio_run_is_raised_if_the_main_task_ends_with_it_deferred(
    main: str, outcome: str, loop: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CTRL_C, main, loop],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.stdout, done.stderr) == (outcome + "\n", "")


@needs_counts
async def test_a_cancel_request_taken_back_with_uncancel_is_not_raised_later() -> None:
    async def main() -> str:
        task = asyncio.current_task()
        assert task is not None
        cancel_me()
        await cancel_shielded_checkpoint()
        task.uncancel()
        await checkpoint_if_cancelled()
        await checkpoint()
        await asyncio.sleep(0.001)
        return "calm"

    assert await own_task(main) == "calm"


@needs_counts
async def test_an_asyncio_timeout_that_comes_with_the_result_is_not_raised_later() -> None:
    async def wake(parked: Any) -> None:
        await asyncio.sleep(0)
        reschedule(parked, Value("kept"))

    async def main() -> str:
        record = current_task()
        async with asyncio.timeout(None) as timeout:
            asyncio.get_running_loop().call_soon(reschedule, record, Value("kept"))
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
            value = await wait_task_rescheduled(agree)
            asyncio.current_task().uncancel()  # type: ignore[union-attr]
            assert not timeout.expired()
        await asyncio.sleep(0.001)
        await checkpoint()
        return str(value)

    assert await own_task(main) == "kept"
