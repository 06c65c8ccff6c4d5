"""What leaves a scope or nursery: bare errors and groups of them."""

from __future__ import annotations

import asyncio
import sys

import pytest

from nurseryio import Cancelled, CancelReason, TrioDeprecationWarning
from nurseryio._core.groups import (
    GROUP_MESSAGE,
    bare_exit,
    combine,
    failure,
    is_cancelled,
    is_marked,
    leave_block,
    raise_keeping_context,
    take_out,
    warn_loose,
    without_cancelled,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


def test_errors_leave_in_a_group_unless_groups_are_loose() -> None:
    error = ValueError()
    for strict in (True, None):
        group = combine(strict, [error])
        assert isinstance(group, ExceptionGroup)
        assert group.exceptions == (error,)
        assert group.message == GROUP_MESSAGE
    assert combine(False, [error]) is error
    assert isinstance(combine(False, [error, KeyError()]), ExceptionGroup)
    assert type(combine(None, [error, Cancelled()])) is BaseExceptionGroup


def test_cancellations_are_sorted_out_from_every_depth() -> None:
    error = ValueError()
    nested = BaseExceptionGroup("g", [Cancelled(), BaseExceptionGroup("h", [error, Cancelled()])])
    assert without_cancelled([Cancelled()]) == []
    assert without_cancelled([BaseExceptionGroup("g", [Cancelled()])]) == []
    [rest] = without_cancelled([Cancelled(), nested])
    assert isinstance(rest, ExceptionGroup)
    [inner] = rest.exceptions
    assert isinstance(inner, ExceptionGroup)
    assert inner.exceptions == (error,)


@pytest.mark.parametrize("exit_", [SystemExit(3), KeyboardInterrupt()])
def test_a_lone_exit_is_taken_out_of_its_groups(exit_: BaseException) -> None:
    assert bare_exit(exit_) is exit_
    assert bare_exit(BaseExceptionGroup("a", [BaseExceptionGroup("b", [exit_])])) is exit_
    beside = BaseExceptionGroup("a", [exit_, ValueError()])
    assert bare_exit(beside) is beside
    other = ExceptionGroup("a", [ValueError()])
    assert bare_exit(other) is other


def test_a_cancellation_of_ours_carries_its_reason() -> None:
    assert is_marked(Cancelled(CancelReason("explicit")))
    assert not is_marked(Cancelled())
    assert not is_marked(Cancelled("some message"))
    assert not is_marked(ValueError(CancelReason("explicit")))


async def test_marks_survive_asyncios_own_handling() -> None:
    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel(CancelReason("explicit"))  # type: ignore[arg-type]
    with pytest.raises(Cancelled) as caught:
        await task
    assert is_marked(caught.value)


def test_only_loose_groups_collapse_when_something_is_taken_out() -> None:
    error = ValueError()
    loose = combine(False, [error, Cancelled()])
    assert isinstance(loose, BaseExceptionGroup)
    assert take_out(loose, is_cancelled) == (True, error)
    strict = combine(None, [error, Cancelled()])
    assert isinstance(strict, BaseExceptionGroup)
    matched, left = take_out(strict, is_cancelled)
    assert matched
    assert isinstance(left, ExceptionGroup)
    assert left.exceptions == (error,)
    matched, left = take_out(BaseExceptionGroup("g", [Cancelled()]), is_cancelled)
    assert (matched, left) == (True, None)


def test_a_group_that_was_looked_through_is_not_looked_through_again() -> None:
    asked = []

    def matches(error: BaseException) -> bool:
        asked.append(error)
        return is_cancelled(error)

    inner = BaseExceptionGroup("inner", [KeyError(), ValueError()])
    assert take_out(inner, matches) == (False, inner)
    assert len(asked) == 2
    error = Cancelled()
    matched, left = take_out(BaseExceptionGroup("outer", [inner, error]), matches)
    assert matched
    assert isinstance(left, BaseExceptionGroup)
    assert left.exceptions == (inner,)
    assert asked[2:] == [error]
    assert take_out(left, matches) == (False, left)
    assert len(asked) == 3


def test_a_group_in_which_a_cancelled_was_left_is_looked_through_again() -> None:
    group = BaseExceptionGroup("g", [BaseExceptionGroup("h", [Cancelled(), KeyError()])])
    assert take_out(group, lambda _: False) == (False, group)
    matched, left = take_out(group, is_cancelled)
    assert matched
    assert isinstance(left, BaseExceptionGroup)
    assert str(left.exceptions[0]) == "h (1 sub-exception)"


def test_raising_keeps_the_context_that_an_error_came_with() -> None:
    error, context = ValueError(), KeyError()
    error.__context__ = context
    with pytest.raises(ValueError) as caught:
        try:
            raise TypeError
        except TypeError:
            raise_keeping_context(error)
    assert caught.value.__context__ is context


def test_a_block_is_left_with_what_remains() -> None:
    error = ValueError()
    assert leave_block(error, None) is True
    assert leave_block(error, error) is False
    with pytest.raises(KeyError):
        leave_block(error, KeyError())


def test_a_failure_names_the_error_and_the_task() -> None:
    reason = failure(ValueError("x"), "the task", body=False)
    assert reason.source == "nursery"
    assert reason.reason == "child task raised exception ValueError('x')"
    assert reason.source_task == "'the task'"
    assert "Code block inside nursery" in str(failure(ValueError(), "the task", body=True))


def test_asking_for_loose_groups_is_warned_of() -> None:
    with pytest.warns(TrioDeprecationWarning, match="open_nursery.strict_exception_groups=False"):
        warn_loose("open_nursery", stacklevel=2)
