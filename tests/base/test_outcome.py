"""The outcome of a call (value or error) as an object."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest
from harness import pypy

from nurseryio._base.outcome import Error, Value, acapture, capture


def divide(x: int, *, by: int) -> float:
    return x / by


async def divide_later(x: int, *, by: int) -> float:
    return x / by


async def test_capture_of_a_call_that_returns_gives_a_value() -> None:
    for outcome in (capture(divide, 6, by=2), await acapture(divide_later, 6, by=2)):
        assert outcome == Value(3.0)
        assert outcome.unwrap() == 3.0


async def test_capture_of_a_call_that_raises_gives_an_error_with_a_short_traceback() -> None:
    for outcome in (capture(divide, 6, by=0), await acapture(divide_later, 6, by=0)):
        assert isinstance(outcome, Error)
        assert isinstance(outcome.error, ZeroDivisionError)
        traceback = outcome.error.__traceback__
        assert traceback is not None
        assert traceback.tb_frame.f_code.co_name.startswith("divide")
        with pytest.raises(ZeroDivisionError):
            outcome.unwrap()


def test_capture_also_catches_system_exit_and_keyboard_interrupt() -> None:
    def leave() -> None:
        raise SystemExit(3)

    outcome = capture(leave)
    assert isinstance(outcome, Error)
    assert isinstance(outcome.error, SystemExit)


def test_an_outcome_error_holds_exceptions_only() -> None:
    with pytest.raises(TypeError, match="holds an exception object"):
        Error("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="holds an exception object"):
        Error(ValueError)  # type: ignore[arg-type]


def test_outcomes_are_equal_and_have_a_repr_by_their_content() -> None:
    error = ValueError("x")
    assert Value(1) == Value(1) != Value(2)
    assert Error(error) == Error(error) != Error(ValueError("x"))
    assert Value(error) != Error(error)
    assert hash(Value(1)) == hash(Value(1))
    assert hash(Error(error)) == hash(Error(error))
    assert repr(Value(1)) == "Value(1)"
    assert repr(Error(error)) == "Error(ValueError('x'))"


def test_an_outcome_can_be_sent_into_a_generator() -> None:
    def ask() -> Generator[str, int, None]:
        try:
            got = yield "what?"
        except ValueError as exc:
            yield f"raised {exc}"
        else:
            yield f"got {got}"

    for outcome, answer in ((Value(5), "got 5"), (Error(ValueError("x")), "raised x")):
        generator = ask()
        next(generator)
        assert outcome.send(generator) == answer


async def test_an_outcome_can_be_sent_into_an_async_generator() -> None:
    async def ask() -> AsyncGenerator[str, int]:
        try:
            got = yield "what?"
        except ValueError as exc:
            yield f"raised {exc}"
        else:
            yield f"got {got}"

    outcomes: list[tuple[Any, str]] = [(Value(5), "got 5"), (Error(ValueError("x")), "raised x")]
    for outcome, answer in outcomes:
        generator = ask()
        await generator.__anext__()
        assert await outcome.asend(generator) == answer
        await generator.aclose()


@pypy.needs_reference_counting
def test_unwrap_of_an_outcome_error_leaves_no_reference_cycle() -> None:
    class Noticed(Exception):
        pass

    def raise_it() -> None:
        raise Noticed

    def use() -> weakref.ref[BaseException]:
        try:
            capture(raise_it).unwrap()
        except Noticed as exc:
            return weakref.ref(exc)
        raise AssertionError("not reached")

    gc.collect()
    gc.disable()
    try:
        assert use()() is None
    finally:
        gc.enable()
