"""The stress helper itself: it cancels at every await, finds broken code, and can be repeated."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

import pytest

import nurseryio
from nurseryio import Event, Lock
from nurseryio._asyncio.compat import HAS_CANCEL_COUNTS
from nurseryio._checks.schedules import (
    KINDS,
    PlannedCancel,
    Schedule,
    StuckError,
    cancel_at_every_await,
    random_schedules,
)
from nurseryio.lowlevel import checkpoint

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


async def three_steps() -> None:
    for _ in range(3):
        await checkpoint()


async def test_a_schedule_counts_steps_and_includes_the_last_checkpoint() -> None:
    schedule = Schedule(0, ())
    await schedule.run(three_steps, checkpoint)
    assert schedule.steps == [4, 2]
    assert schedule.landed == []


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_planned_cancel_cancels(kind: str) -> None:
    ends = []

    async def actor() -> None:
        try:
            await nurseryio.sleep_forever()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise

    for delay in range(3):
        cancel = PlannedCancel(0, 1, kind, delay)  # type: ignore[arg-type]
        schedule = Schedule(0, [cancel])
        await schedule.run(actor)
        assert schedule.landed == [cancel]
    assert ends == ["cancelled"] * 3


async def test_in_a_random_order_no_cancel_of_a_correct_scenario_counts_as_lost() -> None:
    """The delivery of a cancellation is a callback. The task must not run before it."""
    landed = 0
    for choice in range(12):
        for step in range(1, 5):
            schedule = Schedule(0, [PlannedCancel(1, step, "scope", 0)], f"{choice}:1")
            await schedule.run(three_steps, three_steps, three_steps)
            landed += len(schedule.landed)
    assert landed == 48


async def test_a_planned_cancel_that_comes_too_late_is_not_delivered() -> None:
    schedule = Schedule(0, [PlannedCancel(0, 2, "native", 10)])
    await schedule.run(checkpoint)
    assert schedule.landed == []


async def test_cancel_at_every_await_cancels_every_step_in_every_way() -> None:
    seen: set[tuple[int, str]] = set()

    async def scenario(schedule: Schedule) -> None:
        await schedule.run(three_steps)
        seen.update((cancel.step, cancel.kind) for cancel in schedule.landed)

    assert await cancel_at_every_await(scenario, delays=1) == 4 * len(KINDS)
    assert seen == {(step, kind) for step in range(1, 5) for kind in KINDS}


async def test_random_schedules_with_the_same_seed_are_the_same() -> None:
    records: list[list[object]] = []

    async def scenario(schedule: Schedule) -> None:
        record: list[object] = []

        async def actor() -> None:
            for _ in range(3):
                await schedule.pause()
                record.append(schedule.random.random())

        await schedule.run(actor, actor)
        records.append([*record, schedule.steps, schedule.landed])

    for _ in range(2):
        await random_schedules(scenario, runs=20, seed=7)
    assert records[:20] == records[20:]
    assert len({repr(record) for record in records}) > 10


async def test_actors_that_wait_for_ever_raise_stuck_error_and_are_cancelled() -> None:
    event = Event()
    schedule = Schedule(0, ())
    with pytest.raises(StuckError, match=r"Event\.wait.* at step 1") as caught:
        await schedule.run(event.wait, three_steps)
    assert "three_steps" not in str(caught.value)
    assert event.statistics().tasks_waiting == 0


class LeakyLock:
    """A lock that forgets its waiters' cancellations: the kind of bug that the helper must find."""

    def __init__(self) -> None:
        self.held = False
        self.waiters: list[Event] = []

    async def acquire(self) -> None:
        if self.held:
            event = Event()
            self.waiters.append(event)
            await event.wait()
        else:
            self.held = True
            await checkpoint()

    def release(self) -> None:
        if self.waiters:
            self.waiters.pop(0).set()
        else:
            self.held = False


async def use_leaky_lock(schedule: Schedule) -> None:
    lock = LeakyLock()

    async def actor() -> None:
        await lock.acquire()
        try:
            await checkpoint()
        finally:
            lock.release()

    await schedule.run(actor, actor, actor)
    assert not lock.held


async def test_cancel_at_every_await_finds_a_lock_lost_to_a_cancellation() -> None:
    await use_leaky_lock(Schedule(0, ()))
    with pytest.raises(AssertionError, match=r"Schedule\(0, \[PlannedCancel\(") as caught:
        await cancel_at_every_await(use_leaky_lock)
    assert isinstance(caught.value.__cause__, AssertionError)
    with pytest.raises(AssertionError, match="went wrong"):
        await random_schedules(use_leaky_lock, runs=200)


async def swallow_scope(schedule: Schedule) -> None:
    async def actor() -> None:
        with nurseryio.CancelScope(shield=True):
            await checkpoint()

    await schedule.run(actor)


async def swallow_any() -> None:
    try:
        await checkpoint()
    except asyncio.CancelledError:
        pass


async def take_back() -> None:
    try:
        await checkpoint()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        assert task is not None
        task.uncancel()  # type: ignore[attr-defined,unused-ignore]
        raise


@pytest.mark.skipif(not HAS_CANCEL_COUNTS, reason="this Python keeps no count")
@pytest.mark.parametrize(
    ("actor", "complaint"),
    [(swallow_any, "has lost a native cancel"), (take_back, "cancel requests instead of")],
    ids=["swallowed", "taken back"],
)
async def test_a_schedule_finds_a_swallowed_native_cancel(
    actor: Callable[[], object], complaint: str
) -> None:
    schedule = Schedule(0, [PlannedCancel(0, 1, "native", 1)])
    with pytest.raises(ExceptionGroup) as caught:
        await schedule.run(actor)  # type: ignore[arg-type]
    (error,) = caught.value.exceptions
    assert complaint in str(error)


async def test_cancel_at_every_await_a_shield_only_defers_a_cancellation() -> None:
    assert await cancel_at_every_await(swallow_scope) > 5


async def test_an_error_of_an_actor_is_the_cause_of_the_schedules_error() -> None:
    async def scenario(schedule: Schedule) -> None:
        async def actor() -> None:
            async with Lock():
                raise ZeroDivisionError

        await schedule.run(actor, nurseryio.sleep_forever)

    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        await random_schedules(scenario, runs=10)


# -- records, and smaller schedules ------------------------------------------------


def test_the_record_of_a_schedule_repeats_its_seed_cancels_and_order() -> None:
    cancels = [PlannedCancel(0, 3, "scope", 1), PlannedCancel(2, 1, "native+scope", 0)]
    schedule = Schedule(17, cancels, "3:2,5:1")
    record = "17/0.3.scope.1,2.1.native+scope.0/-"
    assert schedule.record == record  # no choice was made yet
    assert Schedule.from_record(record).record == record
    assert Schedule.from_record("17//").record == "17//"
    assert repr(Schedule.from_record(record)) == f"Schedule(17, {cancels}, '-')"


@pytest.mark.parametrize(
    "text", ["", "17", "17/", "a//", "1/0.3.scope/", "1/0.3.other.1/", "1//3", "1/0.x.scope.1/"]
)
def test_a_text_that_is_not_the_record_of_a_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the record of a Schedule, such as"):
        Schedule.from_record(text)


async def test_the_record_of_a_random_schedule_repeats_every_step_and_random_number() -> None:
    seen: list[object] = []

    async def scenario(schedule: Schedule) -> None:
        async def actor(name: str) -> None:
            for _ in range(3):
                seen.append((name, schedule.random.random()))
                await schedule.pause()

        await schedule.run(lambda: actor("a"), lambda: actor("b"), lambda: actor("c"))

    for seed in range(30):
        first = Schedule(seed, order=seed)
        await scenario(first)
        wanted, seen = seen, []
        again = Schedule.from_record(first.record)
        await scenario(again)
        assert seen == wanted
        assert again.record == first.record and again.steps == first.steps
        seen = []


async def needs_an_order(schedule: Schedule) -> None:
    """Fails if the second actor comes first, which asyncio never does. Cancels do not matter."""
    began: list[str] = []

    async def first() -> None:
        await asyncio.sleep(0)
        began.append("first")
        await schedule.pause()

    async def second() -> None:
        await asyncio.sleep(0)
        began.append("second")
        await schedule.pause()

    await schedule.run(first, second, three_steps)
    assert began[:1] != ["second"] or len(began) < 2, "out of order"


async def test_shuffle_finds_a_mistake_that_asyncios_order_hides() -> None:
    await cancel_at_every_await(needs_an_order_alone)
    with pytest.raises(AssertionError, match=r"Schedule\(\d+, \[\], '[\d:,]+'\) went wrong"):
        await random_schedules(needs_an_order, runs=200, shuffle=True)


async def needs_an_order_alone(schedule: Schedule) -> None:
    await schedule.run(three_steps)


async def test_a_failed_random_schedule_is_made_smaller_and_says_how_to_repeat_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(AssertionError) as caught:
        await random_schedules(needs_an_order, runs=200, shuffle=True)
    _, last = str(caught.value).splitlines()
    name, _, value = last.removeprefix("to repeat it: ").partition("=")
    assert name == "NURSERYIO_SCHEDULE"
    record = value.strip("'")
    assert 1 <= record.count(":") <= 4  # few tasks out of their order are enough
    assert record.split("/")[1] == ""  # and no cancellation

    ran: list[Schedule] = []

    async def counted(schedule: Schedule) -> None:
        ran.append(schedule)
        await needs_an_order(schedule)

    monkeypatch.setenv(name, record)
    for function in (random_schedules, cancel_at_every_await):
        del ran[:]
        with pytest.raises(AssertionError, match="went wrong: AssertionError"):
            if function is random_schedules:
                await random_schedules(counted, runs=1000, seed=5)
            else:
                await cancel_at_every_await(counted)
        assert ran[0].record == record
    monkeypatch.setenv(name, "1//")
    assert await random_schedules(counted, runs=1000) == 0
    monkeypatch.setenv(name, "3:2")  # an order of tasks, for the tests of pytest
    assert await random_schedules(three_steps_alone, runs=3) >= 0


async def three_steps_alone(schedule: Schedule) -> None:
    await schedule.run(three_steps)


@pytest.mark.parametrize("in_group", [False, True])
async def test_a_smaller_schedule_with_another_error_is_not_taken(in_group: bool) -> None:
    def kind_of(error: BaseException | None) -> type:
        return type(error.exceptions[0] if isinstance(error, ExceptionGroup) else error)

    async def scenario(schedule: Schedule) -> None:
        await schedule.run(three_steps, three_steps)
        error = ZeroDivisionError() if schedule.landed else KeyError()
        raise ExceptionGroup("", [error]) if in_group else error

    seen = set()
    for seed in range(6):
        with pytest.raises(Exception) as first:
            await scenario(Schedule(seed))
        with pytest.raises(AssertionError) as caught:
            await random_schedules(scenario, runs=1, seed=seed)
        seen.add(kind_of(first.value))
        assert kind_of(caught.value.__cause__) is kind_of(first.value)
        cancels = int(kind_of(first.value) is ZeroDivisionError)
        assert str(caught.value).count("PlannedCancel") == cancels
    assert seen == {KeyError, ZeroDivisionError}
