"""The fields of exceptions, past what a user's class has made of them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from harness import pypy
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


@pypy.needs_own_exception_fields
@each_kind
def test_context_and_cause_of_an_exception_that_overrides_them_are_read_and_set(kind: Any) -> None:
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
def test_add_note_works_whatever_the_exception_class_overrides(kind: Any) -> None:
    error = make(kind)
    fields.add_note(error, "one")
    fields.add_note(error, "two")
    assert fields.notes_of(error) == ["one", "two"]


def test_notes_read_are_those_that_the_traceback_shows() -> None:
    error = ValueError()
    assert fields.notes_of(error) == []
    fields.add_note(error, "a note")
    assert error.__notes__ == ["a note"]  # type: ignore[attr-defined,unused-ignore]
    error.__notes__ = 5  # type: ignore[attr-defined,unused-ignore]
    assert fields.notes_of(error) == []


@each_kind
def test_context_cause_and_traceback_are_copied_between_exceptions(kind: Any) -> None:
    source, target = caught(make(kind)), make(kind)
    fields.add_note(source, "a note")
    fields.copy_fields(source, target)
    assert fields.traceback_of(target) is fields.traceback_of(source)
    assert fields.context_of(target) is fields.context_of(source)
    assert fields.cause_of(target) is fields.cause_of(source)
    assert fields.notes_of(target) == fields.notes_of(source)


def test_suppress_context_is_copied() -> None:
    source, target = ValueError(), ValueError()
    source.__context__ = KeyError()
    fields.copy_fields(source, target)
    assert not target.__suppress_context__
    source.__cause__ = None
    fields.copy_fields(source, target)
    assert target.__suppress_context__


def test_exceptions_and_message_of_an_exception_group_are_those_of_its_constructor() -> None:
    error = ValueError()
    for group in (make_group(HidesErrors, [error]), BaseExceptionGroup("a message", [error])):
        assert fields.members_of(group) == (error,)
        assert fields.message_of(group) == "a message"


def test_an_error_is_appended_to_the_context_chain_and_never_makes_a_cycle() -> None:
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


def test_an_error_appended_to_the_context_chain_is_shown_in_the_traceback() -> None:
    error = ValueError()
    error.__cause__ = None
    fields.chain(error, KeyError())
    assert not error.__suppress_context__


def test_the_name_of_a_class_is_read_without_its_metaclass() -> None:
    class Meta(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise ZeroDivisionError

    class Named(metaclass=Meta):
        pass

    assert fields.class_name(Named) == "Named"
