"""The state of an event loop: its deadline timer, and how failures are finished."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from math import inf

from harness.core import turns

import nurseryio
from nurseryio._core.task import (
    current_state,
    loop_state,
)
from nurseryio.lowlevel import current_task

VAR = contextvars.ContextVar("VAR", default="unset")


async def test_a_loop_has_one_state() -> None:
    state = current_state()
    assert loop_state(asyncio.get_running_loop()) is state
    assert current_task()._state is state


async def test_many_deadlines_take_one_timer() -> None:
    state = current_state()
    before = state.timer
    with nurseryio.move_on_after(50):
        armed = state.timer
        assert armed is not None
        assert armed is not before
        with nurseryio.move_on_after(60), nurseryio.move_on_after(70):
            assert state.timer is armed
        with nurseryio.move_on_after(40):
            assert state.timer is not armed
    for _ in range(3):
        with nurseryio.move_on_after(100):
            pass
    assert len(state.deadlines) == 0


async def test_a_dropped_deadline_does_not_keep_the_timer_early() -> None:
    state = current_state()
    with nurseryio.move_on_after(50):
        with nurseryio.move_on_after(40):
            pass
        assert state.armed_at < state.deadlines.next()
        state.arm_exactly()
        assert state.armed_at == state.deadlines.next()


async def test_after_a_deadline_that_cancels_the_timer_is_armed_once_and_for_what_is_left() -> None:
    state = current_state()
    seen = []
    with nurseryio.move_on_after(60):
        with nurseryio.move_on_after(0.001):
            try:
                await nurseryio.sleep(50)
            finally:
                seen.append(state.armed_at)
        await turns(1)
        assert seen == [inf]
        assert state.armed_at == state.deadlines.next() < inf


def test_the_state_of_a_closed_loop_goes_when_another_is_made() -> None:
    kept = []

    async def main() -> None:
        kept.append(weakref.ref(current_state()))

    nurseryio.run(main)
    nurseryio.run(main)
    gc.collect()
    assert kept[0]() is None
