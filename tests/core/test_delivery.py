"""How a cancellation reaches a task: every row of the table, and what it costs."""

# Covered below 95 %: futures and callbacks that raise are in test_injection.py; the counts that go
# stale exist on Python 3.11 and 3.12 alone, see test_mixing_stale_counts.py.

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import sys
from typing import Any

import pytest
from harness.core import (
    Refusing,
    forever,
    leaves,
    little_cpu,
    needs_counts,
    record_of,
    settle,
    turns,
    until,
    validate,
)
from harness.late_errors import OutOfTime

from nurseryio import (
    Cancelled,
    CancelReason,
    CancelScope,
    CapacityLimiter,
    Condition,
    Event,
    Lock,
    Semaphore,
    TrioInternalError,
    current_time,
    fail_after,
    move_on_after,
    open_memory_channel,
    open_nursery,
    sleep,
    sleep_forever,
)
from nurseryio._core import delivery
from nurseryio._core.task import current_task
from nurseryio.lowlevel import (
    Abort,
    ParkingLot,
    cancel_shielded_checkpoint,
    checkpoint,
    reschedule,
    wait_readable,
    wait_task_rescheduled,
)

pytestmark = pytest.mark.limit(20)


async def cancelled_later(scope: CancelScope, turns_first: int = 3) -> None:
    await turns(turns_first)
    scope.cancel()
    validate()


# -- the rows of the table ------------------------------------------------------


async def test_a_task_cancelled_before_its_first_step_starts_before_it_is_cancelled() -> None:
    seen = []

    async def child() -> None:
        seen.append("started")
        try:
            await forever()
        finally:
            seen.append("ended")

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.cancel_scope.cancel()
        assert seen == []
    assert seen == ["started", "ended"]


async def test_the_running_task_is_cancelled_at_its_next_asyncio_await() -> None:
    with CancelScope() as scope:
        scope.cancel()
        validate()
        await forever()
    assert scope.cancelled_caught


async def test_a_task_that_waits_for_an_asyncio_future_is_cancelled() -> None:
    async with open_nursery() as nursery:
        with CancelScope() as scope:
            nursery.start_soon(cancelled_later, scope)
            await forever()
    assert scope.cancelled_caught and not nursery.cancel_scope.cancelled_caught


async def test_a_task_in_asyncio_sleep_zero_is_cancelled() -> None:
    async with open_nursery() as nursery:
        with CancelScope() as scope:
            nursery.start_soon(cancelled_later, scope)
            while True:
                await asyncio.sleep(0)
    assert scope.cancelled_caught


async def test_a_future_result_already_set_is_kept_and_the_next_await_is_cancelled() -> None:
    future = asyncio.get_running_loop().create_future()

    async def both(scope: CancelScope) -> None:
        await turns(2)
        future.set_result("kept")
        scope.cancel()

    results = []
    async with open_nursery() as nursery:
        with CancelScope() as scope:
            nursery.start_soon(both, scope)
            results.append(await future)
            await forever()
    assert results == ["kept"]
    assert scope.cancelled_caught


async def test_a_task_that_awaits_an_asyncio_task_passes_the_cancellation_on() -> None:
    ended = []

    async def inner() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            ended.append("inner")
            raise

    async with open_nursery() as nursery:
        with CancelScope() as scope:
            nursery.start_soon(cancelled_later, scope)
            await asyncio.get_running_loop().create_task(inner())
    assert scope.cancelled_caught
    assert ended == ["inner"]


@pytest.mark.parametrize("wait", ["wait_for", "gather", "wait", "shield", "queue", "lock"])
async def test_every_way_to_wait_in_asyncio_is_cancelled(wait: str) -> None:
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    lock: asyncio.Lock = asyncio.Lock()
    await lock.acquire()
    ways: dict[str, Any] = {
        "wait_for": lambda: asyncio.wait_for(future, 100),
        "gather": lambda: asyncio.gather(sleep_forever(), asyncio.sleep(100)),
        "wait": lambda: asyncio.wait([future]),
        "shield": lambda: asyncio.shield(future),
        "queue": lambda: asyncio.Queue().get(),
        "lock": lambda: lock.acquire(),
    }
    async with open_nursery() as nursery:
        with CancelScope() as scope:
            nursery.start_soon(cancelled_later, scope)
            await ways[wait]()
    assert scope.cancelled_caught
    future.cancel()
    await settle()


# -- level-triggered ------------------------------------------------------------


async def test_level_triggered_a_task_that_swallows_cancelled_is_cancelled_again() -> None:
    struck = 0
    with CancelScope() as scope:
        scope.cancel()
        for _ in range(20):
            try:
                await forever()
            except Cancelled:
                struck += 1
                validate()
    assert struck == 20
    # Nothing left the block, so there was nothing to be caught.
    assert scope.cancel_called and not scope.cancelled_caught


async def test_level_triggered_checkpoints_and_asyncio_awaits_are_cancelled_in_turn() -> None:
    struck = []
    waits = [
        sleep_forever,
        forever,
        checkpoint,
        forever,
        functools.partial(sleep, 0),
        forever,
        functools.partial(wait_task_rescheduled, lambda _: Abort.SUCCEEDED),
        forever,
        functools.partial(asyncio.sleep, 100),
        functools.partial(sleep, 100),
        forever,
        Event().wait,
        forever,
    ]
    with move_on_after(100) as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        for wait in waits:
            try:
                await wait()
            except Cancelled:
                struck.append(wait)
    assert struck == waits


async def test_an_asyncio_gather_after_a_caught_cancellation_of_a_trap_is_cancelled(
    loop_kind: str,
) -> None:
    if loop_kind == "wrapping":
        pytest.skip("the factory's coroutines, cancelled before their first step, await nothing")
    with CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        try:
            await sleep_forever()
        except Cancelled:
            try:
                await Event().wait()
            except Cancelled:
                await asyncio.gather(asyncio.sleep(100), forever())
    assert scope.cancelled_caught


async def test_the_first_wait_after_a_shield_is_cancelled_again() -> None:
    with CancelScope() as scope:
        scope.cancel()
        with CancelScope(shield=True):
            await asyncio.sleep(0.001)
        await forever()
    assert scope.cancelled_caught


async def test_shield_set_to_false_during_a_wait_lets_the_cancellation_in() -> None:
    async def unshield(scope: CancelScope) -> None:
        await turns(3)
        scope.shield = False

    async with open_nursery() as nursery:
        with CancelScope() as outer, CancelScope(shield=True) as inner:
            outer.cancel()
            nursery.start_soon(unshield, inner)
            await forever()
    assert outer.cancelled_caught and not inner.cancelled_caught


async def test_shield_set_to_true_before_the_next_await_keeps_the_cancellation_out() -> None:
    with CancelScope() as outer, CancelScope() as inner:
        outer.cancel()
        inner.shield = True
        await asyncio.sleep(0.001)
        inner.shield = False
        await forever()
    assert outer.cancelled_caught


# -- what refuses costs nothing -------------------------------------------------


async def test_a_future_that_refuses_cancel_is_cancelled_a_few_times_and_costs_no_cpu() -> None:
    future = Refusing()

    async def child() -> None:
        await future

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await settle()
        nursery.cancel_scope.cancel()
        with little_cpu(), CancelScope(shield=True):
            await asyncio.sleep(0.2)
        validate()
        future.set_result(None)
    assert 1 <= future.asked <= 3


class Stubborn:
    """Swallows each interruption of its wait and waits again, until it is released."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.asked = 0

    async def wait(self) -> None:
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.asked += 1


async def test_an_awaited_task_that_never_ends_is_cancelled_a_few_times_and_costs_no_cpu() -> None:
    stubborn = Stubborn()

    inner = asyncio.get_running_loop().create_task(stubborn.wait())

    async def child() -> None:
        await inner

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await settle()
        nursery.cancel_scope.cancel()
        with little_cpu(), CancelScope(shield=True):
            await asyncio.sleep(0.2)
        stubborn.release.set()
    assert 1 <= stubborn.asked <= 3


@needs_counts
async def test_an_asyncio_task_group_whose_child_swallows_cancellations_costs_little_cpu() -> None:
    stubborn = Stubborn()

    async def child() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(stubborn.wait())
            await forever()

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await settle()
        nursery.cancel_scope.cancel()
        with little_cpu(), CancelScope(shield=True):
            await asyncio.sleep(0.2)
        stubborn.release.set()
    assert 1 <= stubborn.asked <= 3


async def test_a_task_that_swallows_every_cancelled_is_not_cancelled_for_ever() -> None:
    stubborn = Stubborn()

    async with open_nursery() as nursery:
        nursery.start_soon(stubborn.wait)
        await settle()
        nursery.cancel_scope.cancel()
        with little_cpu(), CancelScope(shield=True):
            await asyncio.sleep(0.2)
        stubborn.release.set()
    assert delivery.MAX_SWALLOWED_CANCELS <= stubborn.asked <= delivery.MAX_SWALLOWED_CANCELS + 2


async def test_after_max_swallowed_cancels_the_next_wait_is_cancelled_after_a_backoff_pause(
    autojump_clock: Any,
) -> None:
    swallowed = 0

    async def swallow() -> None:
        nonlocal swallowed
        while swallowed < 3 * delivery.MAX_SWALLOWED_CANCELS:
            try:
                await forever()
            except asyncio.CancelledError:
                swallowed += 1
        await forever()

    with CancelScope() as scope:
        scope.cancel()
        await swallow()
    assert scope.cancelled_caught
    assert 3 <= current_time() <= 8


async def test_the_wait_after_one_with_max_swallowed_cancels_is_cancelled_at_once(
    autojump_clock: Any,
) -> None:
    stubborn = Stubborn()
    times = []

    async def wait_and_go_on() -> None:
        await stubborn.wait()
        times.append(current_time())
        try:
            await asyncio.sleep(0.5)
        finally:
            times.append(current_time())

    async with open_nursery() as nursery:
        nursery.start_soon(wait_and_go_on)
        await settle()
        nursery.cancel_scope.cancel()
        with CancelScope(shield=True):
            await asyncio.sleep(0.2)
        stubborn.release.set()
    began, ended = times
    assert began == ended


async def test_backoff_pauses_between_swallowed_cancels_grow_and_cost_no_cpu(
    autojump_clock: Any,
) -> None:
    stubborn = Stubborn()
    async with open_nursery() as nursery:
        nursery.start_soon(stubborn.wait)
        await settle()
        nursery.cancel_scope.cancel()
        with CancelScope(shield=True):
            await asyncio.sleep(1000)
        stubborn.release.set()
    assert 9 * delivery.MAX_SWALLOWED_CANCELS < stubborn.asked < 12 * delivery.MAX_SWALLOWED_CANCELS


async def test_a_shield_in_a_cancelled_scope_costs_no_cpu() -> None:
    with CancelScope() as scope:
        scope.cancel()
        with CancelScope(shield=True), little_cpu():
            await asyncio.sleep(0.1)
            await sleep(0.1)
    assert not scope.cancelled_caught


async def test_a_nursery_that_waits_for_a_shielded_child_costs_no_cpu() -> None:
    async def child() -> None:
        with CancelScope(shield=True), little_cpu():
            await asyncio.sleep(0.2)

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.cancel_scope.cancel()


async def test_an_abort_function_that_returns_failed_is_called_once_and_costs_no_cpu() -> None:
    asked = 0
    waiting = []

    def refuse(_raise_cancel: object) -> Abort:
        nonlocal asked
        asked += 1
        return Abort.FAILED

    async def child() -> None:
        waiting.append(current_task())
        await wait_task_rescheduled(refuse)
        await forever()

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await settle()
        nursery.cancel_scope.cancel()
        with little_cpu(), CancelScope(shield=True):
            await asyncio.sleep(0.1)
        reschedule(waiting[0])
    assert asked == 1
    assert nursery.cancel_scope.cancelled_caught


# -- reasons --------------------------------------------------------------------


async def test_the_cancel_reason_is_in_cancelled_raised_in_traps_and_asyncio_awaits() -> None:
    reasons = []
    with CancelScope() as scope:
        scope.cancel(reason="enough")
        for wait in (forever, checkpoint, sleep_forever):
            try:
                await wait()
            except Cancelled as exc:
                reasons.append(exc.args[0])
    assert [type(reason) for reason in reasons] == [CancelReason] * 3
    assert {(reason.source, reason.reason) for reason in reasons} == {("explicit", "enough")}
    assert "with reason 'enough' from task <Task " in str(reasons[0])


# -- odd abort functions --------------------------------------------------------


@pytest.mark.parametrize("early", [True, False])
async def test_the_error_of_an_abort_function_is_raised_in_its_own_task_alone(
    early: bool,
) -> None:
    caught = []

    def fail(_raise_cancel: object) -> Abort:
        raise KeyError("abort")

    async def child() -> None:
        try:
            await wait_task_rescheduled(fail)
        except KeyError as exc:
            caught.append(exc)

    async with open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(child)
            nursery.start_soon(sleep_forever)
            nursery.start_soon(forever)
        if not early:
            await settle()
        nursery.cancel_scope.cancel()
    assert len(caught) == 3


async def test_an_abort_function_that_does_not_return_abort_is_a_trio_internal_error() -> None:
    caught = []

    async def child() -> None:
        try:
            await wait_task_rescheduled(lambda _: None)  # type: ignore[arg-type,return-value]
        except TrioInternalError as exc:
            caught.append(str(exc))

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await settle()
        nursery.cancel_scope.cancel()
        nursery.start_soon(child)
    assert caught == ["abort function must return Abort enum"] * 2


# -- shields of another library ----------------------------------------------------


class Bridge:
    """Stands for the bridge to another library, and shields the tasks in its set ``shielded``."""

    def __init__(self) -> None:
        self.shielded: set[Any] = set()

    def note_shielded(self, task: Any) -> None:
        """Note a task that a shield keeps a cancellation out of."""
        self.shielded.add(task)

    def protects(self, task: Any) -> bool:
        """Whether a shield of the other library is around the task."""
        return task.asyncio_task in self.shielded


async def test_an_anyio_shield_delays_the_delivery_until_the_shielded_wait_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bridge = Bridge()
    future = asyncio.get_running_loop().create_future()
    seen = []

    async def child() -> None:
        task = asyncio.current_task()
        bridge.shielded.add(task)
        await future
        seen.append("through")
        await asyncio.sleep(0)
        seen.append("yielded")
        bridge.shielded.discard(task)
        await forever()

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await settle()
        with CancelScope(shield=True):
            monkeypatch.setattr(delivery.anyio_hook, "bridge", bridge)
            nursery.cancel_scope.cancel()
            with little_cpu():
                await asyncio.sleep(0.05)
            assert not future.done()
            future.set_result(None)
            await settle()
            monkeypatch.undo()
    assert seen == ["through", "yielded"]
    assert nursery.cancel_scope.cancelled_caught


# -- many -----------------------------------------------------------------------


@pytest.mark.costly("many tasks")
async def test_ten_thousand_sleeping_tasks_are_cancelled_at_once(loop_kind: str) -> None:
    # Debug mode notes a stack for every future.
    number = 1_000 if loop_kind == "debug" else 10_000
    ended = 0

    async def child(wait: Any) -> None:
        nonlocal ended
        try:
            await wait()
        finally:
            ended += 1

    async with open_nursery() as nursery:
        for n in range(number):
            nursery.start_soon(child, (sleep_forever, forever, checkpoint)[n % 3])
        await checkpoint()
        nursery.cancel_scope.cancel()
    assert ended == number


async def test_a_shielded_checkpoint_is_not_interrupted_and_the_next_wait_is() -> None:
    seen = []

    async def child() -> None:
        for _ in range(5):
            await cancel_shielded_checkpoint()
        seen.append("five")
        await forever()

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await turns(2)
        nursery.cancel_scope.cancel()
    assert seen == ["five"]


async def test_the_done_callback_of_a_refusing_future_ignores_a_task_that_has_ended() -> None:
    future = Refusing()

    async def child() -> None:
        for _ in range(3):
            with CancelScope() as scope:
                scope.cancel()
                try:
                    await asyncio.wait_for(asyncio.shield(future), 100)
                except Cancelled:
                    pass

    async with open_nursery() as nursery:
        nursery.start_soon(child)
    assert future.asked == 0
    future.set_result(None)
    await settle()


async def test_a_task_record_is_released_when_its_wait_that_refused_cancel_is_over() -> None:
    future = Refusing()
    tasks = []

    async def child() -> None:
        tasks.append(asyncio.current_task())
        await future

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await until(lambda: tasks)
        record = record_of(tasks[0])
        nursery.cancel_scope.cancel()
        assert record._owns_cancel_request == (asyncio.current_task() is not None)
        future.set_result(None)
    await settle()
    assert not record._owns_cancel_request and not record._recheck_queued


# -- futures that do not behave ------------------------------------------------------


class OldSignature(asyncio.Future[Any]):
    """Its cancel() is from before Python 3.9."""

    def cancel(self) -> bool:  # type: ignore[override]
        """Take no message."""
        return super().cancel()


class CancelRaises(asyncio.Future[Any]):
    """Its cancel() fails."""

    def cancel(self, msg: Any = None) -> bool:
        """Fail."""
        raise OSError("cancel")


class CancelRaisesLate(asyncio.Future[Any]):
    """Its cancel() cancels, and fails then."""

    def cancel(self, msg: Any = None) -> bool:
        """Cancel and fail."""
        super().cancel(msg)
        raise OSError("late")


class NoCallbacks(Refusing):
    """It cannot be cancelled, and takes no callback but those of tasks."""

    def add_done_callback(self, callback: Any, **options: Any) -> None:  # type: ignore[override]
        """Refuse a callback of the library's."""
        if isinstance(callback, delivery._RecheckWhenDone):
            raise OSError("add")
        super().add_done_callback(callback, **options)


class DoneRaises(asyncio.Future[Any]):
    """Its done() fails as often as ``failures`` says."""

    failures = 1

    def done(self) -> bool:
        """Fail while there are failures left."""
        if self.failures and sys._getframe(1).f_globals["__name__"] == delivery.__name__:
            self.failures -= 1
            raise OSError("done")
        return super().done()


class Siblings:
    """Tasks that wait beside one another, in the ways that there are."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    async def one(self, name: str, wait: Any) -> None:
        try:
            await wait()
        finally:
            self.ended.append(name)

    def around(self, nursery: Any, *odd: tuple[str, Any]) -> None:
        for name, wait in (("before", sleep_forever), *odd, ("after", forever)):
            nursery.start_soon(self.one, name, wait)
        nursery.start_soon(self.one, "last", checkpoint_for_ever)


async def checkpoint_for_ever() -> None:
    while True:
        await checkpoint()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that tasks were looked at again."""
    counted: list[int] = []
    original = delivery._run_rechecks

    def look_again(state: Any) -> None:
        counted.append(len(state.recheck_queue))
        original(state)

    monkeypatch.setattr(delivery, "_run_rechecks", look_again)
    return counted


async def wait_for(future: Any) -> None:
    await future


@pytest.mark.parametrize("by", ["cancel", "deadline", "error of a child", "end of the body"])
@pytest.mark.parametrize("kind", [OldSignature, CancelRaises, CancelRaisesLate])
async def test_a_future_whose_cancel_raises_gives_the_error_to_its_own_task(
    kind: Any, by: str, looks: list[int], loop_errors: list[str]
) -> None:
    siblings = Siblings()
    futures = [kind(loop=asyncio.get_running_loop()) for _ in range(2)]
    caught: Any = None

    async def bystander() -> None:
        await sleep(0.01)

    async def fail() -> None:
        raise KeyError("a child's")

    async with open_nursery() as outer:
        outer.start_soon(bystander)
        try:
            with CancelScope() as scope:
                async with open_nursery() as nursery:
                    siblings.around(
                        nursery,
                        *(
                            (f"odd {n}", functools.partial(wait_for, f))
                            for n, f in enumerate(futures)
                        ),
                    )
                    await turns(4)
                    if by == "cancel":
                        scope.cancel()
                        validate()
                    elif by == "deadline":
                        scope.deadline = current_time() + 0.001
                    elif by == "error of a child":
                        nursery.start_soon(fail)
                    else:
                        raise KeyError("the body's")
        except BaseException as error:
            caught = error
    assert sorted(siblings.ended) == ["after", "before", "last", "odd 0", "odd 1"]
    errors = [] if caught is None else leaves(caught)
    expected = TypeError if kind is OldSignature else OSError
    if kind is CancelRaisesLate:  # whose task is cancelled, so the error goes to the loop
        assert len(loop_errors) == 2 and "late" in loop_errors[0]
    else:
        assert [type(e) for e in errors].count(expected) == 2
        assert loop_errors == []
    own = [e for e in errors if not isinstance(e, Cancelled)]
    assert {type(e) for e in own} <= {expected, KeyError}
    assert [type(e) for e in own].count(KeyError) == (by in ("error of a child", "end of the body"))
    assert len(looks) < 40
    validate()
    if kind is not CancelRaisesLate:
        for future in futures:
            future.set_result(None)


async def test_a_task_that_swallows_the_error_of_its_futures_cancel_is_cancelled_again(
    looks: list[int],
) -> None:
    steps: list[str] = []

    async def child() -> None:
        try:
            await CancelRaises()
        except OSError:
            steps.append("swallowed")
        await forever()

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await turns(2)
        nursery.cancel_scope.cancel()
    assert steps == ["swallowed"]
    assert nursery.cancel_scope.cancelled_caught
    assert len(looks) < 20


async def test_a_future_whose_add_done_callback_and_cancel_raise_is_given_up(
    looks: list[int],
) -> None:
    future = NoCallbacks()
    siblings = Siblings()
    async with open_nursery() as nursery:
        siblings.around(nursery, ("odd", functools.partial(wait_for, future)))
        await turns(4)
        nursery.cancel_scope.cancel()
        with CancelScope(shield=True):
            await settle()
            # Nothing would report when it is done, so the task does not wait for it any longer.
            assert sorted(siblings.ended) == ["after", "before", "last", "odd"]
    assert nursery.cancel_scope.cancelled_caught
    assert len(looks) < 40


@pytest.mark.parametrize("failures", [1, 2])
async def test_a_future_whose_done_raises_affects_its_own_task_alone(
    failures: int, looks: list[int]
) -> None:
    future = DoneRaises()
    future.failures = failures
    siblings = Siblings()
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="done")):
        async with open_nursery() as nursery:
            siblings.around(nursery, ("odd", functools.partial(wait_for, future)))
            await turns(4)
            nursery.cancel_scope.cancel()
            validate()
            with CancelScope(shield=True):
                await settle()
                assert sorted(siblings.ended) == ["after", "before", "last", "odd"]
    assert len(looks) < 40


async def test_the_timers_of_the_loop_go_on_after_a_task_that_cannot_be_cancelled() -> None:
    woken: list[float] = []

    async def sleeper(seconds: float) -> None:
        await sleep(seconds)
        woken.append(seconds)

    async with open_nursery() as outer:
        for seconds in (0.001, 0.02, 0.03):
            outer.start_soon(sleeper, seconds)
        for _ in range(3):
            with pytest.RaisesGroup(OSError), move_on_after(0.003):
                async with open_nursery() as nursery:
                    nursery.start_soon(wait_for, CancelRaises())
        validate()
    assert woken == [0.001, 0.02, 0.03]


@pytest.mark.app_only
@pytest.mark.parametrize("at_once", [True, False])
async def test_a_deadline_whose_function_raises_does_not_stop_later_deadlines(
    at_once: bool, loop_errors: list[str]
) -> None:
    called: list[object] = []
    state = current_task()._state
    now = current_time()

    def fail(argument: object) -> None:
        called.append(argument)
        raise OSError(f"deadline {argument}")

    for number in range(3):
        state.add_deadline(now + 0.001 * (1 if at_once else number), fail, number)
        state.add_deadline(now + 0.001 * (1 if at_once else number), called.append, "fine")
    with move_on_after(0.01) as scope:
        await sleep_forever()
    assert scope.cancelled_caught
    assert called.count("fine") == 3
    # Each is tried once more, in the next iteration of the loop.
    assert [called.count(number) for number in range(3)] == [2, 2, 2]
    for number in range(3):
        assert 1 <= sum(f"deadline {number}" in error for error in loop_errors) <= 2
    validate()


async def test_many_deadlines_that_expire_at_once_all_cancel_beside_a_failing_one() -> None:
    reasons: list[Any] = []

    async def child(number: int) -> None:
        try:
            with CancelScope(deadline=deadline):
                await (CancelRaises() if number == 5 else forever())
        except Cancelled as error:
            reasons.append(error.args[0].source)  # the nursery catches it: child 5 has failed
            raise
        reasons.append("deadline")

    deadline = current_time() + 0.005
    with pytest.RaisesGroup(OSError):
        async with open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(child, number)
    assert reasons == ["deadline"] * 9
    validate()


# -- a shield that goes up, or down, in the step of a cancel ------------------------------


async def in_a_lock() -> None:
    lock = Lock()
    async with open_nursery() as nursery:

        async def hold() -> None:
            async with lock:
                with CancelScope(shield=True) as shield:
                    shields.append(shield)
                    await sleep_forever()

        shields: list[CancelScope] = []
        nursery.start_soon(hold)
        with CancelScope(shield=True):
            await turns(3)
        try:
            await lock.acquire()
        finally:
            shields[0].cancel()


async def in_a_condition() -> None:
    condition = Condition()
    async with condition:
        await condition.wait()


async def in_a_trap_that_refuses() -> None:
    task = current_task()

    def abort(raise_cancel: Any) -> Abort:
        task._state.loop.call_soon(reschedule, task, Raising(raise_cancel))
        return Abort.FAILED

    await wait_task_rescheduled(abort)


class Raising:
    """An outcome that raises what an abort function was given."""

    def __init__(self, raise_cancel: Any) -> None:
        self.unwrap = raise_cancel


async def in_a_socket() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        await wait_readable(left)


async def in_a_nursery() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(sleep_forever)


async def in_a_start() -> None:
    async def child(*, task_status: Any) -> None:
        await sleep_forever()

    async with open_nursery() as nursery:
        with contextlib.suppress(RuntimeError):  # if the child alone was cancelled, as in Trio
            await nursery.start(child)


async def in_a_task_group() -> None:
    async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
        group.create_task(forever())


async def in_a_full_channel() -> None:
    await open_memory_channel[int](0)[0].send(1)


WAITS: dict[str, Any] = {
    "sleep_forever": sleep_forever,
    "sleep": lambda: sleep(100),
    "event": lambda: Event().wait(),
    "semaphore": lambda: Semaphore(0).acquire(),
    "limiter": lambda: CapacityLimiter(0).acquire(),
    "lock": in_a_lock,
    "condition": in_a_condition,
    "receive": lambda: open_memory_channel[int](0)[1].receive(),
    "send": in_a_full_channel,
    "lot": lambda: ParkingLot().park(),
    "trap": lambda: wait_task_rescheduled(lambda _raise_cancel: Abort.SUCCEEDED),
    "trap that refuses": in_a_trap_that_refuses,
    "socket": in_a_socket,
    "nursery": in_a_nursery,
    "start": in_a_start,
    "future": forever,
    "asyncio sleep": lambda: asyncio.sleep(100),
    "checkpoints": checkpoint_for_ever,
}
if sys.version_info >= (3, 11):
    WAITS["task group"] = in_a_task_group


@pytest.mark.parametrize("end", ["lowered", "own cancel", "native cancel"])
@pytest.mark.parametrize("order", ["cancel first", "shield first", "to and fro"])
@pytest.mark.parametrize("wait", WAITS)
async def test_a_shield_set_in_the_iteration_of_a_cancel_leaves_no_task_asleep(
    wait: str, order: str, end: str
) -> None:
    inner = CancelScope()
    ended: list[str] = []
    tasks: list[Any] = []

    async def waiter() -> None:
        tasks.append(asyncio.current_task())
        try:
            with inner:
                await WAITS[wait]()
        finally:
            ended.append("waiter")

    with fail_after(5), CancelScope() as outer:
        async with open_nursery() as nursery:
            nursery.start_soon(waiter)
            await turns(8)
            if order == "cancel first":
                outer.cancel()
                inner.shield = True
            elif order == "shield first":
                inner.shield = True
                outer.cancel()
            else:
                inner.shield = True
                outer.cancel()
                inner.shield = False
                inner.shield = True
            validate()
            with CancelScope(shield=True):
                await turns(8)
                if order == "shield first":
                    assert ended == []
                if end == "lowered":
                    inner.shield = False
                elif end == "own cancel":
                    inner.cancel()
                else:
                    tasks[0].cancel()
                validate()
                await turns(12)
                assert ended == ["waiter"]


@pytest.mark.parametrize("end", ["lowered", "own cancel"])
@pytest.mark.parametrize("wait", WAITS)
async def test_a_wait_begun_in_a_cancelled_scope_is_not_left_asleep_by_a_shield(
    wait: str, end: str
) -> None:
    inner = CancelScope()
    ended: list[str] = []

    async def waiter() -> None:
        try:
            with inner:
                outer.cancel()
                asyncio.get_running_loop().call_soon(setattr, inner, "shield", True)
                await WAITS[wait]()
        finally:
            ended.append("waiter")

    with fail_after(5), CancelScope() as outer:
        async with open_nursery() as nursery:
            nursery.start_soon(waiter)
            with CancelScope(shield=True):
                await turns(8)
                if end == "lowered":
                    inner.shield = False
                else:
                    inner.cancel()
                await turns(12)
                assert ended == ["waiter"]


@pytest.mark.parametrize("error", [asyncio.CancelledError("mine"), OutOfTime(), KeyError()])
async def test_a_task_whose_future_cannot_be_cancelled_is_cancelled_at_its_next_await(
    error: BaseException, loop_errors: list[str]
) -> None:
    class Hostile(asyncio.Future[int]):
        def cancel(self, msg: Any = None) -> bool:
            if not self.done():
                raise error
            return super().cancel(msg)

    hostile = Hostile()
    asyncio.get_running_loop().call_later(0.02, lambda: hostile.done() or hostile.set_result(1))
    with CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        with contextlib.suppress(Exception):
            await hostile
        await asyncio.Event().wait()
    assert scope.cancelled_caught
    await asyncio.wait([hostile])
