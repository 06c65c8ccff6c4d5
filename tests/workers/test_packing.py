"""Calls and results as bytes: results, errors, and objects that cannot be sent."""

from __future__ import annotations

import operator
import pickle
import threading
from typing import Any, NoReturn

import pytest
from harness import worker_jobs

from nurseryio._base.exc_fields import notes_of
from nurseryio._workers.packing import answer, function_of, pack_request, unpack


def call(fn: Any, *args: Any) -> Any:
    """Make a call as a worker does, in this process."""
    return unpack(answer(pack_request("f", fn, args)), function_of(fn), "worker 1")


def test_a_packed_call_returns_a_copy_of_the_result() -> None:
    thing = {"a": [1, 2]}
    result = call(worker_jobs.same, thing)
    assert result == thing
    assert result is not thing


def test_the_error_of_a_packed_call_has_the_traceback_in_the_worker_as_a_note() -> None:
    with pytest.raises(KeyError) as caught:
        call(worker_jobs.fail)
    assert caught.value.args == ("of the job",)
    (note,) = notes_of(caught.value)
    assert note.startswith("The traceback in worker 1:\n\nTraceback")
    assert "in fail\n" in note
    assert "answer" not in note


@pytest.mark.parametrize(
    ("fn", "args", "text"),
    [
        (lambda: None, (), "the function test_packing.<lambda>|the function <lambda>"),
        (worker_jobs.same, (1, threading.Lock()), "argument 2"),
        (worker_jobs.same, ([threading.Lock()],), "argument 1, \\[<unlocked"),
    ],
)
def test_a_pickling_error_names_the_part_of_the_call_that_cannot_be_pickled(
    fn: Any, args: Any, text: str
) -> None:
    if text.startswith("argument 2"):
        fn = operator.add
    with pytest.raises(pickle.PicklingError, match=f"f cannot send ({text})") as caught:
        pack_request("f", fn, args)
    assert caught.value.__cause__ is not None
    assert "at the top level of a module" in notes_of(caught.value)[0]


def test_a_pickling_error_comes_also_from_an_object_that_fails_in_another_way() -> None:
    class Refuses:
        def __reduce__(self) -> NoReturn:
            raise ZeroDivisionError

        def __repr__(self) -> NoReturn:
            raise ZeroDivisionError

    with pytest.raises(pickle.PicklingError, match=r"argument 1, .*repr\(\) failed") as caught:
        pack_request("f", worker_jobs.same, (Refuses(),))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_result_that_cannot_be_pickled_is_a_pickling_error_that_names_it() -> None:
    text = r"the result of make_lock\(\), <unlocked .*, cannot be sent from the worker: TypeError"
    with pytest.raises(pickle.PicklingError, match=text):
        call(worker_jobs.make_lock)


def test_a_result_that_cannot_be_unpickled_is_an_unpickling_error_with_the_cause() -> None:
    text = r"the result of make_unloadable\(\) cannot be unpickled: KeyError"
    with pytest.raises(pickle.UnpicklingError, match=text) as caught:
        call(worker_jobs.make_unloadable)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_argument_that_the_worker_cannot_load_is_an_unpickling_error() -> None:
    text = "the worker cannot load the function or an argument: KeyError"
    with pytest.raises(pickle.UnpicklingError, match=text) as caught:
        call(worker_jobs.same, worker_jobs.Unloadable())
    assert "in fail\n" in notes_of(caught.value)[-1]


def test_a_cancelled_error_of_the_function_does_not_look_like_a_cancellation_of_the_call() -> None:
    text = r"fail_with_cancelled\(\) raised an error that cannot .*: CancelledError: of the job"
    with pytest.raises(RuntimeError, match=text):
        call(worker_jobs.fail_with_cancelled)


@pytest.mark.parametrize("fn", [worker_jobs.fail_without_text, worker_jobs.make_shy])
def test_a_result_or_error_whose_own_methods_exit_does_not_break_the_worker(fn: Any) -> None:
    with pytest.raises((worker_jobs.Shy, pickle.PicklingError)) as caught:
        call(fn)
    (*_, note) = notes_of(caught.value)
    assert note.startswith("The traceback in worker 1:")
    if isinstance(caught.value, pickle.PicklingError):
        text = "<ShyResult that cannot be shown>, cannot be sent from the worker: SystemExit: 5"
        assert text in str(caught.value)


def test_an_error_that_cannot_be_unpickled_is_a_runtime_error_with_its_text() -> None:
    text = r"fail_with_two\(\) raised an error that cannot be sent .*: TwoArguments: one and two"
    with pytest.raises(RuntimeError, match=text) as caught:
        call(worker_jobs.fail_with_two)
    assert "in fail_with_two\n" in notes_of(caught.value)[0]


def test_an_error_that_only_the_worker_can_load_is_a_runtime_error_with_its_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reply = answer(pack_request("f", worker_jobs.fail_with_key, ()))
    monkeypatch.delattr(worker_jobs, "OwnError")
    with pytest.raises(RuntimeError, match="cannot be sent from the worker: OwnError: text"):
        unpack(reply, "fail_with_key", "worker 1")


def test_a_packed_call_of_an_async_function_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="'is_async' appears to be asynchronous"):
        call(worker_jobs.is_async)


def test_an_exit_in_a_packed_call_is_raised_by_the_caller() -> None:
    with pytest.raises(SystemExit) as caught:
        call(worker_jobs.leave, 3)
    assert caught.value.code == 3


def test_a_long_repr_is_cut_in_a_pickling_error() -> None:
    with pytest.raises(pickle.PicklingError) as caught:
        pack_request("f", worker_jobs.same, (["x" * 1000, threading.Lock()],))
    assert len(str(caught.value)) < 400
