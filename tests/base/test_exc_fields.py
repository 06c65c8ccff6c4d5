"""The fields of exceptions, past what a user's class has made of them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from harness.resisting import KINDS, HidesErrors, make, make_group

from nurseryio._base import exc_fields as fields

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def caught(error: BaseException) -> BaseException:
    try:
        try:
            raise KeyError
        except KeyError:
            raise error from OSError()
    except BaseException as exc:
        return exc


@each_kind
def test_fields_of_an_exception_that_resists_are_read_and_written(kind: Any) -> None:
    error = caught(make(kind))
    assert type(fields.context_of(error)) is KeyError
    assert type(fields.cause_of(error)) is OSError
    traceback = fields.traceback_of(error)
    assert traceback is not None
    assert fields.without_own_frame(error) is error
    assert fields.traceback_of(error) is traceback.tb_next
    fields.set_traceback(error, traceback)
    fields.set_context(error, None)
    fields.set_cause(error, None)
    assert fields.traceback_of(error) is traceback
    assert fields.context_of(error) is fields.cause_of(error) is None
    assert type(fields.args_of(error)) is tuple
    assert type(fields.dict_of(error)) is dict


@each_kind
def test_notes_are_added_whatever_the_class_says(kind: Any) -> None:
    error = make(kind)
    fields.add_note(error, "one")
    fields.add_note(error, "two")
    assert fields.notes_of(error) == ["one", "two"]


def test_notes_are_those_that_python_shows() -> None:
    error = ValueError()
    assert fields.notes_of(error) == []
    fields.add_note(error, "a note")
    assert error.__notes__ == ["a note"]  # type: ignore[attr-defined,unused-ignore]
    error.__notes__ = 5  # type: ignore[attr-defined,unused-ignore]
    assert fields.notes_of(error) == []


@each_kind
def test_fields_are_copied_from_one_exception_to_another(kind: Any) -> None:
    source, target = caught(make(kind)), make(kind)
    fields.add_note(source, "a note")
    fields.copy_fields(source, target)
    assert fields.traceback_of(target) is fields.traceback_of(source)
    assert fields.context_of(target) is fields.context_of(source)
    assert fields.cause_of(target) is fields.cause_of(source)
    assert fields.notes_of(target) == fields.notes_of(source)


def test_whether_a_context_is_shown_is_copied() -> None:
    source, target = ValueError(), ValueError()
    source.__context__ = KeyError()
    fields.copy_fields(source, target)
    assert not target.__suppress_context__
    source.__cause__ = None
    fields.copy_fields(source, target)
    assert target.__suppress_context__


def test_members_and_message_of_a_group_are_those_that_it_was_made_of() -> None:
    error = ValueError()
    for group in (make_group(HidesErrors, [error]), BaseExceptionGroup("a message", [error])):
        assert fields.members_of(group) == (error,)
        assert fields.message_of(group) == "a message"


def test_an_error_is_added_at_the_end_of_a_chain_and_never_in_a_circle() -> None:
    error, context = make(KINDS[0]), ValueError()
    fields.chain(error, context)
    assert fields.context_of(error) is context
    fields.chain(context, BaseExceptionGroup("g", [error]))
    fields.chain(context, context)
    assert context.__context__ is None
    with_cause = caught(ValueError())
    fields.chain(error, with_cause)
    assert context.__context__ is with_cause
    last = KeyError()
    fields.chain(error, last)
    cause = with_cause.__cause__
    assert cause is not None
    assert cause.__context__ is last
    last.__context__ = error
    fields.chain(error, KeyError())
    assert last.__context__ is error


def test_what_is_added_to_a_chain_is_shown() -> None:
    error = ValueError()
    error.__cause__ = None
    fields.chain(error, KeyError())
    assert not error.__suppress_context__


def test_the_name_of_a_class_is_not_asked_of_its_metaclass() -> None:
    class Meta(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise ZeroDivisionError

    class Named(metaclass=Meta):
        pass

    assert fields.class_name(Named) == "Named"
