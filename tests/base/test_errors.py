"""Exceptions, and the reason that a cancellation carries."""

# Covered below 95 %: the error for a block that was not entered is in test_nursery.py.

from __future__ import annotations

import asyncio
import copy
import pickle

import pytest

from nurseryio._base import errors
from nurseryio._base.errors import CancelReason

ERRORS = [
    value
    for name, value in vars(errors).items()
    if name in errors.__all__ and isinstance(value, type) and issubclass(value, BaseException)
]


def test_cancelled_is_asyncio_cancelled_error() -> None:
    assert errors.Cancelled is asyncio.CancelledError


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_can_be_pickled_with_its_text(error: type[BaseException]) -> None:
    again = pickle.loads(pickle.dumps(error("the text")))
    assert type(again) is error
    assert str(again) == "the text"


@pytest.mark.parametrize(
    "error",
    [error for error in ERRORS if error is not errors.Cancelled],
    ids=lambda error: error.__name__,
)
def test_errors_are_subclasses_of_exception(error: type[BaseException]) -> None:
    assert issubclass(error, Exception)


def test_run_finished_error_is_a_runtime_error() -> None:
    assert issubclass(errors.RunFinishedError, RuntimeError)


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (CancelReason("deadline"), "cancelled due to deadline"),
        (CancelReason("explicit", "shutdown"), "cancelled due to explicit with reason 'shutdown'"),
        (
            CancelReason("nursery", "it's late", "<Task 'x'>"),
            """cancelled due to nursery with reason "it's late" from task <Task 'x'>""",
        ),
        (
            CancelReason("explicit", source_task="<Task 'x'>"),
            "cancelled due to explicit from task <Task 'x'>",
        ),
        (CancelReason("native"), "cancelled due to a native task.cancel()"),
    ],
)
def test_str_of_a_cancel_reason_is_a_sentence_and_so_is_str_of_cancelled(
    reason: CancelReason, text: str
) -> None:
    assert str(reason) == text
    assert str(asyncio.CancelledError(reason)) == text


def test_repr_of_a_cancel_reason_shows_all_its_fields() -> None:
    assert (
        repr(CancelReason("explicit", "why", "who"))
        == "CancelReason(source='explicit', reason='why', source_task='who')"
    )


def test_a_cancel_reason_is_pickled_with_its_cancelled() -> None:
    reason = CancelReason("explicit", "shutdown", "<Task 'x'>")
    again = pickle.loads(pickle.dumps(asyncio.CancelledError(reason)))
    assert again.args == (reason,)
    assert copy.deepcopy(reason) == reason


def test_cancel_reasons_are_equal_if_all_their_fields_are() -> None:
    assert CancelReason("deadline") == CancelReason("deadline", None, None)
    assert hash(CancelReason("deadline")) == hash(CancelReason("deadline", None, None))
    assert CancelReason("deadline") != CancelReason("deadline", "x")
    assert CancelReason("deadline") != ("deadline", None, None)


def test_a_cancel_reason_is_immutable() -> None:
    reason = CancelReason("deadline")
    with pytest.raises(AttributeError, match="cannot be changed"):
        reason.source = "explicit"
    with pytest.raises(AttributeError, match="cannot be changed"):
        del reason.reason
    assert not hasattr(reason, "__dict__")
    assert reason == CancelReason("deadline")


def test_the_misnesting_error_names_the_function_that_enters_a_manager_in_its_own_task() -> None:
    text = " ".join(str(errors.misnested("what happened", None)).split())
    assert text.startswith("Cancel scope stack corrupted: what happened ")
    assert "nurseryio.aio.enter_in_task(nursery, manager) run it in a task of its own" in text


def test_stack_of_a_cancel_reason_is_shown_and_pickled_and_not_compared() -> None:
    reason = CancelReason("explicit", "why", "<Task 'x'>", '  File "x.py", line 1, in f')
    assert str(reason) == (
        "cancelled due to explicit with reason 'why' from task <Task 'x'>; "
        "cancel() was called at:\n"
        '  File "x.py", line 1, in f'
    )
    assert repr(reason) == repr(CancelReason("explicit", "why", "<Task 'x'>"))
    assert reason == CancelReason("explicit", "why", "<Task 'x'>")
    assert hash(reason) == hash(CancelReason("explicit", "why", "<Task 'x'>"))
    assert pickle.loads(pickle.dumps(reason)).stack == reason.stack
