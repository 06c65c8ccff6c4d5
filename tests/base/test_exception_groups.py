"""The errors that leave a scope or nursery: bare errors and exception groups."""

# Covered below 95 %: the parts for Ctrl-C and the channels are covered by test_ki.py and
# test_safe_channel.py; the stale counts by test_mixing_stale_counts.py.

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from typing import Any

import pytest
from harness import pypy
from harness.resisting import (
    GROUPS,
    KINDS,
    DeriveRaises,
    HidesErrors,
    Text,
    make,
    make_group,
)

from nurseryio import Cancelled, CancelReason, TrioDeprecationWarning
from nurseryio._base import exc_fields as fields
from nurseryio._base.exception_groups import (
    GROUP_MESSAGE,
    bare_cancelled,
    bare_exit,
    brief,
    combine,
    failure,
    is_cancelled,
    is_own_cancelled,
    leave_block,
    only_own_cancels,
    raise_keeping_context,
    same_arguments,
    split_out,
    warn_loose,
    without_cancelled,
)

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup


def same_cancelled(error: BaseException, other: BaseException | None) -> bool:
    """Whether a nursery keeps only one of the two."""
    if not type(error) is type(other) is Cancelled:
        return False
    return same_arguments(error.args, other.args)


def test_errors_are_raised_in_a_group_unless_strict_exception_groups_is_false() -> None:
    error = ValueError()
    for strict in (True, None):
        group = combine(strict, [error])
        assert isinstance(group, ExceptionGroup)
        assert group.exceptions == (error,)
        assert group.message == GROUP_MESSAGE
    assert combine(False, [error]) is error
    assert isinstance(combine(False, [error, KeyError()]), ExceptionGroup)
    assert type(combine(None, [error, Cancelled()])) is BaseExceptionGroup


def test_cancelled_errors_are_split_off_a_nested_exception_group() -> None:
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
def test_a_lone_exit_is_unwrapped_from_its_exception_groups(exit_: BaseException) -> None:
    assert bare_exit(exit_) is exit_
    assert bare_exit(BaseExceptionGroup("a", [BaseExceptionGroup("b", [exit_])])) is exit_
    beside = BaseExceptionGroup("a", [exit_, ValueError()])
    assert bare_exit(beside) is beside
    other = ExceptionGroup("a", [ValueError()])
    assert bare_exit(other) is other


def test_a_cancelled_of_nurseryio_carries_its_cancel_reason() -> None:
    assert is_own_cancelled(Cancelled(CancelReason("explicit")))
    assert not is_own_cancelled(Cancelled())
    assert not is_own_cancelled(Cancelled("some message"))
    assert not is_own_cancelled(ValueError(CancelReason("explicit")))


async def test_the_own_cancelled_mark_survives_asyncio_timeouts_and_task_groups() -> None:
    async def waits() -> None:
        await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(waits())
    await asyncio.sleep(0)
    task.cancel(CancelReason("explicit"))  # type: ignore[arg-type]
    with pytest.raises(Cancelled) as caught:
        await task
    assert is_own_cancelled(caught.value)


def test_cancelled_errors_are_compared_by_message_and_other_args_are_not_compared() -> None:
    class Array:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        __hash__ = None  # type: ignore[assignment]

    array = Array()
    assert same_cancelled(Cancelled(), Cancelled())
    assert same_cancelled(Cancelled(CancelReason("deadline")), Cancelled(CancelReason("deadline")))
    assert same_cancelled(Cancelled("".join("ab")), Cancelled("".join("ab")))
    assert same_cancelled(Cancelled(array), Cancelled(array))
    assert not same_cancelled(Cancelled(array), Cancelled(Array()))
    assert not same_cancelled(Cancelled("a"), Cancelled())
    assert not same_cancelled(Cancelled(), ValueError())
    assert not same_cancelled(Cancelled(), None)


def test_a_cancelled_that_is_in_an_exception_group_many_times_is_looked_at_once() -> None:
    asked: list[BaseException] = []

    def matches(error: BaseException) -> bool:
        asked.append(error)
        return is_cancelled(error)

    cancelled, other, again = Cancelled(), ValueError(), Cancelled()
    group = BaseExceptionGroup("g", [cancelled, cancelled, other, cancelled, again, again])
    matched, left = split_out(group, matches)
    assert matched
    assert isinstance(left, BaseExceptionGroup)
    assert left.exceptions == (other,)
    assert asked == [cancelled, other, again]


def test_only_groups_of_non_strict_nurseries_collapse_when_errors_are_split_off() -> None:
    error = ValueError()
    loose = combine(False, [error, Cancelled()])
    assert isinstance(loose, BaseExceptionGroup)
    assert split_out(loose, is_cancelled) == (True, error)
    strict = combine(None, [error, Cancelled()])
    assert isinstance(strict, BaseExceptionGroup)
    matched, left = split_out(strict, is_cancelled)
    assert matched
    assert isinstance(left, ExceptionGroup)
    assert left.exceptions == (error,)
    matched, left = split_out(BaseExceptionGroup("g", [Cancelled()]), is_cancelled)
    assert (matched, left) == (True, None)


def test_an_exception_group_already_searched_is_not_searched_again() -> None:
    asked = []

    def matches(error: BaseException) -> bool:
        asked.append(error)
        return is_cancelled(error)

    inner = BaseExceptionGroup("inner", [KeyError(), ValueError()])
    assert split_out(inner, matches) == (False, inner)
    assert len(asked) == 2
    error = Cancelled()
    matched, left = split_out(BaseExceptionGroup("outer", [inner, error]), matches)
    assert matched
    assert isinstance(left, BaseExceptionGroup)
    assert left.exceptions == (inner,)
    assert asked[2:] == [error]
    assert split_out(left, matches) == (False, left)
    assert len(asked) == 3


def test_an_exception_group_in_which_a_cancelled_was_left_is_searched_again() -> None:
    group = BaseExceptionGroup("g", [BaseExceptionGroup("h", [Cancelled(), KeyError()])])
    assert split_out(group, lambda _: False) == (False, group)
    matched, left = split_out(group, is_cancelled)
    assert matched
    assert isinstance(left, BaseExceptionGroup)
    assert str(left.exceptions[0]) == "h (1 sub-exception)"


def test_re_raising_keeps_the_context_of_the_error() -> None:
    error, context = ValueError(), KeyError()
    error.__context__ = context
    with pytest.raises(ValueError) as caught:
        try:
            raise TypeError
        except TypeError:
            raise_keeping_context(error)
    assert caught.value.__context__ is context


def test_leave_block_raises_the_errors_that_remain_after_the_split() -> None:
    error = ValueError()
    assert leave_block(error, None) is True
    assert leave_block(error, error) is False
    with pytest.raises(KeyError):
        leave_block(error, KeyError())


def test_a_cancel_reason_of_a_failure_names_the_error_and_the_task() -> None:
    reason = failure(ValueError("x"), "the task", body=False)
    assert reason.source == "nursery"
    assert reason.reason == "child task raised exception ValueError('x')"
    assert reason.source_task == "the task"
    assert "Code block inside nursery" in str(failure(ValueError(), "the task", body=True))


@pypy.needs_own_exception_fields
@pytest.mark.parametrize("kind", GROUPS, ids=lambda kind: kind.__name__)
def test_no_error_is_lost_when_an_exception_group_cannot_be_split(kind: Any) -> None:
    errors = [KeyError("k"), make_group(kind, [OSError(), Cancelled(CancelReason("deadline"))])]
    group = make_group(kind, [*errors, Cancelled()])
    cause, context = ValueError(), TypeError()
    with pytest.raises(BaseExceptionGroup):
        try:
            raise context
        except TypeError:
            raise group from cause
    assert not only_own_cancels(group)
    assert brief(group) == f"{kind.__name__}('a message', <3 exceptions>)"
    found, left = split_out(group, is_cancelled)
    assert found
    assert [type(leaf) for leaf in leaves_of(left)] == [KeyError, OSError]
    assert fields.message_of(left) == "a message"
    assert fields.traceback_of(left) is fields.traceback_of(group)  # type: ignore[arg-type]
    assert fields.cause_of(left) is cause  # type: ignore[arg-type]
    assert fields.context_of(left) is context  # type: ignore[arg-type]
    assert split_out(left, is_cancelled) == (False, left)  # type: ignore[arg-type]
    assert leaves_of(bare_cancelled(group)) == leaves_of(left)
    assert leaves_of(without_cancelled([group])[0]) == leaves_of(left)
    exit_ = SystemExit(3)
    assert bare_exit(make_group(kind, [exit_])) is exit_


def leaves_of(error: Any) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for member in fields.members_of(error) for leaf in leaves_of(member)]


def test_a_note_says_why_derive_of_an_exception_group_failed() -> None:
    group = make_group(DeriveRaises, [KeyError(), Cancelled()])
    fields.add_note(group, "of its own")
    _found, left = split_out(group, is_cancelled)
    assert type(left) is ExceptionGroup
    assert fields.notes_of(left) == [
        "of its own",
        "DeriveRaises.derive() raised ZeroDivisionError('derive')",
    ]
    assert fields.notes_of(group) == ["of its own"]


def test_an_exit_raised_by_derive_of_an_exception_group_is_kept_like_other_errors() -> None:
    class Interrupted(BaseExceptionGroup[BaseException]):
        def derive(self, excs: Any) -> Any:
            raise KeyboardInterrupt

    _found, left = split_out(Interrupted("g", [KeyError(), Cancelled()]), is_cancelled)
    assert [type(leaf) for leaf in leaves_of(left)] == [KeyError, KeyboardInterrupt]


@pypy.needs_own_exception_fields
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_that_overrides_its_fields_is_raised_with_its_own_context(kind: Any) -> None:
    error, context = make(kind), KeyError()
    fields.set_context(error, context)
    with pytest.raises(kind) as caught:
        try:
            raise TypeError
        except TypeError:
            raise_keeping_context(error)
    assert caught.value is error
    assert fields.context_of(error) is context


def test_a_failure_is_noted_although_repr_of_the_error_fails() -> None:
    for kind in KINDS:
        assert kind.__name__ in str(failure(make(kind), "the task", body=False))
    group = HidesErrors(Text("m"), [ValueError()])
    reason = failure(group, "the task", body=True)
    assert reason.reason is not None
    assert "HidesErrors(<Text, whose repr() failed>, <1 exceptions>)" in reason.reason


class OwnRepr(Exception):
    def __repr__(self) -> str:
        return "shown"


class RaisingRepr:
    def __get__(self, *_args: object) -> Any:
        raise ZeroDivisionError


BadDescriptor: Any = type("BadDescriptor", (Exception,), {"__repr__": RaisingRepr()})


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (KeyError(), "KeyError()"),
        (OSError(2, "missing"), "FileNotFoundError(2, 'missing')"),
        (ValueError(None, 1.5, b"x"), "ValueError(None, 1.5, b'x')"),
        (ValueError([1]), "ValueError([1])"),
        (OwnRepr("x"), "shown"),
        (ValueError(10**5000), "<ValueError, whose repr() failed>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_text_of_a_failure_is_the_repr_of_its_error_at_that_time(
    error: Any, shown: str
) -> None:
    reason = failure(error, "the task", body=False)
    if error.args and type(error.args[0]) is list:
        error.args[0].append(2)
    error.args = ("changed later",)
    assert reason.reason == f"child task raised exception {shown}"
    assert reason.reason is reason.reason
    assert "BadDescriptor" in str(failure(BadDescriptor("x"), "the task", body=False))


def test_the_reason_of_a_failure_keeps_neither_the_error_nor_its_class() -> None:
    class Local(Exception):
        pass

    error = Local("x")
    references = [weakref.ref(error), weakref.ref(Local)]
    reason = failure(error, "the task", body=False)
    del error, Local
    gc.collect()
    assert [reference() for reference in references] == [None, None]
    assert reason.reason == "child task raised exception Local('x')"


def test_strict_exception_groups_false_is_deprecated_with_a_warning() -> None:
    with pytest.warns(TrioDeprecationWarning, match="open_nursery.strict_exception_groups=False"):
        warn_loose("open_nursery", stacklevel=2)
