"""Which line has set a deadline."""

from __future__ import annotations

import asyncio
import heapq
import inspect
import traceback
from collections.abc import Iterator

import pytest
from harness.core import settle

import nurseryio
from nurseryio import CancelScope, current_time
from nurseryio._base.watchers import look_for_debug, unwatch, watch
from nurseryio._nursery import origins, scope as scope_module
from nurseryio._nursery.origins import DEADLINE, origin_of, reason_of


class Watches:
    def made(self, thing: object) -> None:
        raise NotImplementedError


@pytest.fixture
def kept() -> Iterator[None]:
    me = Watches()
    watch(me)
    yield
    unwatch(me)


def line(number: int = 0) -> str:
    """The place of the caller's line, as messages name it."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    code = frame.f_back.f_code
    return f"line {frame.f_back.f_lineno + number}, in {code.co_name}"


def stack_of(scope: CancelScope) -> str:
    reason = scope._reason
    assert reason is not None
    assert reason.source == "deadline"
    assert reason.stack is not None
    return reason.stack


@pytest.mark.usefixtures("kept")
async def test_a_deadline_that_expires_names_the_line_that_has_set_it(
    autojump_clock: object,
) -> None:
    with nurseryio.move_on_after(5) as scope:
        where = line(-1)
        try:
            await nurseryio.sleep(10)
        except nurseryio.Cancelled as error:
            text = str(error)
            raise
    assert text.splitlines()[0] == "cancelled due to deadline; the deadline was set at:"
    assert where in text.splitlines()[-2]
    assert text.splitlines()[-1].strip() == "with nurseryio.move_on_after(5) as scope:"
    assert stack_of(scope) in text


@pytest.mark.usefixtures("kept")
async def test_each_kind_of_deadline_names_its_line() -> None:
    soon = current_time() + 1000
    with CancelScope(deadline=soon) as absolute:
        assert "with CancelScope(deadline=soon) as absolute:" in origins.text_of(
            origin_of(absolute._entry) or ()
        )
        absolute.deadline = -1  # moved
        assert absolute.cancel_called
    assert stack_of(absolute).endswith("absolute.deadline = -1  # moved")
    with CancelScope(deadline=-1) as past:
        pass
    assert stack_of(past).endswith("with CancelScope(deadline=-1) as past:")
    with nurseryio.move_on_after(0) as zero:
        pass
    assert stack_of(zero).endswith("with nurseryio.move_on_after(0) as zero:")
    with nurseryio.move_on_after(1000) as relative:
        relative.relative_deadline = 0  # now
        assert relative.cancel_called
    assert stack_of(relative).endswith("relative.relative_deadline = 0  # now")
    async with nurseryio.open_nursery() as nursery:
        nursery.cancel_scope.deadline = -1  # of a nursery
        assert nursery.cancel_scope.cancel_called
    assert stack_of(nursery.cancel_scope).endswith(
        "nursery.cancel_scope.deadline = -1  # of a nursery"
    )


@pytest.mark.usefixtures("kept")
async def test_too_slow_error_is_caused_by_a_cancelled_that_names_the_line(
    autojump_clock: object,
) -> None:
    try:
        with nurseryio.fail_after(5):
            where = line(-1)
            await nurseryio.sleep(10)
    except nurseryio.TooSlowError as error:
        text = "".join(traceback.format_exception(error))
    assert "the deadline was set at:" in text
    assert where in text


async def test_a_deadline_names_no_line_while_that_is_not_wanted() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_debug()
    loop.set_debug(False)
    look_for_debug(list)
    try:
        assert scope_module.heappush is heapq.heappush
        with nurseryio.move_on_after(1000) as scope:
            assert scope._entry is not None
            assert len(scope._entry) == 4
            assert reason_of(scope._entry) is DEADLINE
        with nurseryio.move_on_after(0) as zero:
            pass
        assert zero._reason is DEADLINE
    finally:
        loop.set_debug(before)


def test_a_deadline_names_its_line_in_debug_mode_of_the_loop() -> None:
    async def main() -> None:
        with nurseryio.move_on_after(1000) as scope:
            found.append(origin_of(scope._entry) is not None)

    found: list[bool] = []
    asyncio.run(main(), debug=True)
    # The mode of one loop is nothing to another.
    asyncio.run(main(), debug=False)
    assert found == [True, False]


@pytest.mark.usefixtures("kept")
async def test_a_deadline_is_set_though_its_line_cannot_be_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise RecursionError

    monkeypatch.setattr(origins, "calls_if_wanted", fail)
    with nurseryio.move_on_after(1000) as scope:
        assert scope._entry is not None
        assert reason_of(scope._entry) is DEADLINE
    monkeypatch.undo()
    monkeypatch.setattr(origins, "text_of", fail)
    with nurseryio.move_on_after(1000) as scope:
        assert reason_of(scope._entry) is DEADLINE


@pytest.mark.usefixtures("kept")
async def test_deadlines_with_lines_keep_their_order(autojump_clock: object) -> None:
    ended: list[int] = []

    async def wait(number: int) -> None:
        with nurseryio.move_on_after(10):
            await nurseryio.sleep(20)
        ended.append(number)

    async with nurseryio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(wait, number)
            await settle()
    assert ended == list(range(50))
