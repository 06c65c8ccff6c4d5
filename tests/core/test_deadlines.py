"""The heap of deadlines: order, dropping, and how little it keeps."""

from __future__ import annotations

import collections
from math import inf
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from nurseryio._core.deadlines import SWEEP_AT, Deadlines, Entry


def pop_due(deadlines: Deadlines, now: float) -> tuple[Any, Any] | None:
    """Hand out the earliest entry that is due, as the loop's timer does."""
    entry = deadlines.next_due(now)
    if entry is None:
        return None
    found = entry[2], entry[3]
    deadlines.next_due(-inf, entry)
    return found


def taken(deadlines: Deadlines, now: float) -> list[object]:
    found = []
    while (due := pop_due(deadlines, now)) is not None:
        found.append(due[1])
    deadlines._validate()
    return found


def test_an_empty_deadline_heap_has_no_next_deadline() -> None:
    deadlines = Deadlines()
    assert deadlines.next() == inf
    assert pop_due(deadlines, inf) is None
    assert len(deadlines) == 0


def test_due_deadlines_are_popped_in_order_of_time() -> None:
    deadlines = Deadlines()
    for when in (3.0, 1.0, 2.0):
        deadlines.add(when, print, when)
    assert deadlines.next() == 1
    assert taken(deadlines, 2.0) == [1.0, 2.0]
    assert taken(deadlines, 2.9) == []
    assert taken(deadlines, 3.0) == [3.0]


def test_equal_deadlines_are_popped_in_order_of_arrival_and_functions_are_never_compared() -> None:
    deadlines = Deadlines()
    arguments = [object() for _ in range(100)]
    for argument in arguments:
        deadlines.add(1.0, print, argument)
    assert taken(deadlines, 1.0) == arguments


def test_a_deadline_is_popped_with_its_function_and_argument() -> None:
    deadlines = Deadlines()
    deadlines.add(1.0, print, "x")
    assert pop_due(deadlines, 5) == (print, "x")


def test_a_dropped_deadline_is_not_popped() -> None:
    deadlines = Deadlines()
    entries = [deadlines.add(float(n), print, n) for n in range(5)]
    for n in (0, 2, 4):
        deadlines.drop(entries[n])
    assert len(deadlines) == 2
    assert deadlines.next() == 1
    assert taken(deadlines, 10) == [1, 3]


def test_dropping_a_deadline_twice_or_after_its_time_is_harmless() -> None:
    deadlines = Deadlines()
    first, second = deadlines.add(1.0, print, 1), deadlines.add(2.0, print, 2)
    assert taken(deadlines, 1.0) == [1]
    deadlines.drop(first)
    deadlines.drop(second)
    deadlines.drop(second)
    deadlines._validate()
    assert len(deadlines) == 0
    assert deadlines.next() == inf


def test_a_dropped_deadline_keeps_nothing_alive() -> None:
    deadlines = Deadlines()
    entry = deadlines.add(1.0, print, "argument")
    deadlines.drop(entry)
    assert "argument" not in entry and print not in entry


@pytest.mark.parametrize("at_once", [1, 2, 10])
def test_a_million_timeouts_that_never_fire_leave_nothing_behind(at_once: int) -> None:
    deadlines = Deadlines()
    most = 0
    alive: collections.deque[Entry] = collections.deque()
    for n in range(100_000):
        alive.append(deadlines.add(1000.0 + n, print, n))
        if len(alive) == at_once:
            deadlines.drop(alive.popleft())
        most = max(most, len(deadlines._heap))
    assert most <= SWEEP_AT + 2 * at_once
    deadlines._validate()
    assert len(deadlines) == at_once - 1


def test_nested_timeouts_leave_no_deadline_in_the_heap() -> None:
    deadlines = Deadlines()
    entries = [deadlines.add(1000.0 + n, print, n) for n in range(10)]
    while entries:
        deadlines.drop(entries.pop())
        assert len(deadlines._heap) == len(entries)
    deadlines._validate()


def test_pruning_the_heap_keeps_live_deadlines() -> None:
    deadlines = Deadlines()
    live = [deadlines.add(float(n), print, n) for n in range(SWEEP_AT)]
    for n in range(5 * SWEEP_AT):
        deadlines.drop(deadlines.add(float(n) / 3, print, -1))
    assert len(deadlines) == len(live)
    assert taken(deadlines, inf) == list(range(SWEEP_AT))


steps = st.lists(
    st.tuples(st.sampled_from(["add", "add", "drop", "pop", "next"]), st.integers(0, 20)),
    max_size=200,
)


@hypothesis.given(steps)
def test_the_deadline_heap_behaves_like_a_sorted_list(steps: list[tuple[str, int]]) -> None:
    deadlines = Deadlines()
    model: list[tuple[float, int]] = []
    entries = {}
    for number, (what, n) in enumerate(steps):
        if what == "add":
            entries[number] = deadlines.add(float(n), print, number)
            model.append((float(n), number))
        elif what == "drop" and entries:
            key = list(entries)[n % len(entries)]
            deadlines.drop(entries[key])
            model = [pair for pair in model if pair[1] != key]
        elif what == "pop":
            due = sorted(pair for pair in model if pair[0] <= n)
            assert taken(deadlines, float(n)) == [key for _, key in due]
            model = [pair for pair in model if pair not in due]
        assert deadlines.next() == min((when for when, _ in model), default=inf)
        assert len(deadlines) == len(model)
        deadlines._validate()
