"""How long each task of a loop was in a step."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from harness.core import forever

import nurseryio
from nurseryio._loop import step_hooks
from nurseryio._telemetry import step_times
from nurseryio._telemetry.step_times import StepTimes, measure
from nurseryio.lowlevel import current_task
from nurseryio.testing import wait_all_tasks_blocked


class Clock:
    """A clock that the tests advance, in place of ``time.monotonic``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(step_times.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    class Time:
        monotonic = staticmethod(time.monotonic)
        sleep = staticmethod(time.sleep)

    monkeypatch.setattr(step_times, "time", Time)
    return Clock(monkeypatch)


async def test_a_task_with_many_short_steps_has_their_sum(clock: Clock) -> None:
    async def works() -> None:
        for _ in range(5):
            clock.now += 1.0
            await nurseryio.lowlevel.checkpoint()
        await nurseryio.sleep_forever()

    times = StepTimes(asyncio.get_running_loop())
    await asyncio.sleep(0)  # installed
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(works, name="works")
        nursery.start_soon(forever, name="waits")
        await wait_all_tasks_blocked()
        ids = {task.name: id(task) for task in nursery.child_tasks}
        clock.now += 5.0
        shares = times.close()
        nursery.cancel_scope.cancel()
    assert shares.running[ids["works"]] == pytest.approx(0.5)
    assert shares.running[ids["waits"]] == 0.0
    assert shares.seen_for == 10.0
    assert shares.ended == 0.0


async def test_the_steps_of_tasks_that_have_ended_are_one_sum(clock: Clock) -> None:
    async def work() -> None:
        await asyncio.sleep(0)  # an eager task factory makes the first step in the caller's
        clock.now += 1.0

    times = StepTimes(asyncio.get_running_loop())
    await asyncio.sleep(0)
    async with nurseryio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(work)
    await asyncio.create_task(work())
    clock.now += 4.0
    shares = times.close()
    assert shares.ended == pytest.approx(0.5)
    assert set(shares.running) <= {id(current_task())}


async def test_a_step_that_goes_on_counts_up_to_the_end_of_the_measurement(clock: Clock) -> None:
    times = StepTimes(asyncio.get_running_loop())
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # this step is seen from its beginning
    clock.now += 2.0
    assert times.close().running[id(current_task())] == pytest.approx(1.0)


async def test_a_step_that_blocks_the_loop_is_seen_by_looks_alone() -> None:
    task = current_task()  # with its record, and so with its number
    loop, found = asyncio.get_running_loop(), []
    thread = threading.Thread(target=lambda: found.extend(measure([loop], 0.02)))
    thread.start()
    thread.join()  # the loop is blocked here
    (shares,) = found
    assert shares.running[id(task)] == pytest.approx(1.0)
    assert shares.seen_for == 0.0
    await asyncio.sleep(0)  # too late: nothing is installed
    assert current_task()._state.instruments is None


async def test_the_instrument_is_removed_at_the_end() -> None:
    times = StepTimes(asyncio.get_running_loop())
    await asyncio.sleep(0)
    state = current_task()._state
    assert times in list(state.instruments or ())
    times.close()
    await asyncio.sleep(0)
    assert state.instruments is None
    assert state.step_hooks is None


async def test_a_loop_that_refuses_instruments_is_not_disturbed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(instrument: object) -> None:
        raise RuntimeError("not on this loop")

    monkeypatch.setattr(step_times, "add_instrument", refuse)
    task = current_task()
    errors: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: errors.append(context))
    times = StepTimes(loop)
    await asyncio.sleep(0)
    times.look()
    assert list(times.close().running) == [id(task)]
    await asyncio.sleep(0)
    assert errors == []


def test_a_loop_that_was_closed_has_no_shares() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    times = StepTimes(loop)
    times.look()
    assert times.close().running == {}


async def test_an_instrument_that_was_removed_meanwhile_is_no_error() -> None:
    errors: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: errors.append(context))
    times = StepTimes(loop)
    await asyncio.sleep(0)
    step_hooks.remove_instrument(times)
    times.close()
    await asyncio.sleep(0)
    assert current_task()._state.instruments is None
    assert errors == []
