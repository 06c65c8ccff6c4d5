"""The run that async fixtures share. How pytest sees it: test_pytest_plugin.py."""

from __future__ import annotations

import asyncio
import contextvars
from types import SimpleNamespace
from typing import Any

import pytest

import nurseryio
from nurseryio.testing import MockClock
from nurseryio.testing.pytest_shared import SharedRun, keeping_context

variable = contextvars.ContextVar("variable", default="nothing")


def definition(name: str, *argnames: str) -> Any:
    return SimpleNamespace(argname=name, argnames=argnames)


def set_up(shared: SharedRun, name: str, *argnames: str) -> Any:
    made = definition(name, *argnames)
    shared.begin_set_up(made)
    fixture = shared.begin(made, [], None)
    shared.end_set_up(made, None, ())
    return fixture


async def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_a_shared_run_lasts_as_long_as_its_wide_fixtures() -> None:
    shared = SharedRun()
    one, two = set_up(shared, "one"), set_up(shared, "two")
    made = one.steps.do(loop)
    assert two.steps.do(loop) is made
    shared.end(one)
    assert not made.is_closed()
    shared.end(two)
    assert made.is_closed()
    three = set_up(shared, "three")
    assert three.steps.do(loop) is not made
    shared.end(three)


def test_wide_fixtures_are_used_directly_and_through_other_fixtures() -> None:
    shared = SharedRun()
    one, two = set_up(shared, "one"), set_up(shared, "two")
    plain = definition("plain", "one")
    shared.begin_set_up(plain)
    shared.end_set_up(plain, None, {"dynamic"})
    dynamic = set_up(shared, "dynamic")
    assert shared.used(["two", "other"]) == [two]
    assert shared.used(["plain"]) == [one, dynamic]
    shared.forget("plain")
    assert shared.used(["plain"]) == []
    for fixture in (one, two, dynamic):
        shared.end(fixture)


def test_contextvars_come_from_the_wide_fixtures_that_a_test_uses() -> None:
    shared = SharedRun()
    one, two = set_up(shared, "one"), set_up(shared, "two")

    async def change() -> None:
        variable.set("changed")

    async def get() -> str:
        return variable.get()

    one.steps.do(keeping_context(one, change))
    two.steps.do(keeping_context(two, get))
    for used, value in (([one], "changed"), ([two], "nothing"), ([one, two], "changed")):
        branch = shared.branch("test", used)
        assert branch.do(get) == value
        shared.close_branch(branch)
    shared.end(two)
    shared.end(one)
    assert variable.get() == "nothing"


def test_a_cancelled_wide_fixture_cancels_its_present_and_later_users() -> None:
    shared = SharedRun()
    fixture, other = set_up(shared, "fixture"), set_up(shared, "other")
    scope = nurseryio.CancelScope()

    async def enter() -> None:
        scope.__enter__()

    async def leave() -> None:
        scope.__exit__(None, None, None)

    async def cancel() -> None:
        scope.cancel(reason="enough")
        await nurseryio.sleep_forever()

    fixture.steps.do(enter)
    early, unconcerned = shared.branch("early", [fixture]), shared.branch("no", [other])
    with pytest.raises(nurseryio.Cancelled, match="enough"):
        early.do(cancel)
    late = shared.branch("late", [fixture])
    for branch in (early, late):
        with pytest.raises(nurseryio.Cancelled, match="enough"):
            branch.do(nurseryio.sleep, 0)
    unconcerned.do(nurseryio.sleep, 0)
    for branch in (early, late, unconcerned):
        shared.close_branch(branch)
    fixture.steps.do(leave)
    shared.end(other)
    shared.end(fixture)


def test_clocks_and_instruments_of_wide_fixtures_are_those_of_the_shared_run() -> None:
    class Counter(nurseryio.abc.Instrument):
        runs = 0

        def before_run(self) -> None:
            self.runs += 1

    shared, clock, counter = SharedRun(), MockClock(), Counter()
    for name, value in (("clock", clock), ("counter", counter)):
        made = definition(name)
        shared.begin_set_up(made)
        shared.end_set_up(made, value, ())
    made = definition("fixture", "clock")
    fixture = shared.begin(made, ["fixture", "clock", "counter"], None)

    async def current_clock() -> object:
        return nurseryio.lowlevel.current_clock()

    assert fixture.steps.do(current_clock) is clock is shared.clock
    assert counter.runs == 1
    shared.end(fixture)
    assert shared.clock is None
