"""The decorator for async test functions."""

from __future__ import annotations

import inspect

import pytest

import nurseryio
from nurseryio.testing import MockClock, nurseryio_test, trio_test


def test_nurseryio_test_makes_an_async_function_a_plain_one() -> None:
    @nurseryio_test
    async def test_it(x: int, *, y: int) -> int:
        """Adds."""
        await nurseryio.sleep(0)
        assert nurseryio.lowlevel.current_root_task() is not None
        return x + y

    assert not inspect.iscoroutinefunction(test_it)
    assert test_it.__name__ == "test_it"
    assert test_it.__doc__ == "Adds."
    assert test_it(1, y=2) == 3


def test_nurseryio_test_uses_a_clock_and_instruments_among_the_keyword_arguments() -> None:
    class Counter(nurseryio.abc.Instrument):
        runs = 0

        def before_run(self) -> None:
            self.runs += 1

    @nurseryio_test
    async def test_it(*, clock: MockClock, counter: Counter, other: object) -> None:
        assert nurseryio.lowlevel.current_clock() is clock
        await nurseryio.sleep(100)
        assert nurseryio.current_time() == 100

    counter = Counter()
    test_it(clock=MockClock(autojump_threshold=0), counter=counter, other=None)
    assert counter.runs == 1


def test_nurseryio_test_refuses_two_clocks() -> None:
    @nurseryio_test
    async def test_it(*, one: MockClock, two: MockClock) -> None:
        raise AssertionError("not reached")

    with pytest.raises(ValueError, match=r"^too many clocks spoil the broth!$"):
        test_it(one=MockClock(), two=MockClock())


def test_trio_test_is_an_alias() -> None:
    assert trio_test is nurseryio_test
