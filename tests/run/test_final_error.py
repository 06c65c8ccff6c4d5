"""Which of many errors leaves a run, and what becomes of the others."""

# Covered below 95 %: exits beside Ctrl-C are in test_presses.py and test_run.py.

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from nurseryio import Cancelled, TrioInternalError
from nurseryio._run.ctrl_c import CtrlC
from nurseryio._run.driving import Driver
from nurseryio._run.final_error import FinalError, attach
from nurseryio._run.leftovers import Leftovers


class Case:
    """A verdict and Ctrl-C on a loop that does not run."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.reports: list[BaseException] = []
        self.loop.set_exception_handler(self.report)
        self.final_error = FinalError(self.loop)
        driver = Driver(self.loop, list, list, list)
        self.ctrl_c = CtrlC(self.loop, driver, Leftovers(self.loop), False)

    def report(self, _loop: object, context: dict[str, Any]) -> None:
        self.reports.append(context["exception"])

    def decide(self, error: BaseException | None) -> BaseException | None:
        return self.final_error.decide(error, self.ctrl_c, None)


@pytest.fixture
def case() -> Iterator[Case]:
    case = Case()
    yield case
    case.loop.close()


def test_without_an_error_there_is_no_final_error(case: Case) -> None:
    assert not case.final_error
    assert case.decide(None) is None


def test_the_final_error_is_the_first_in_the_order_and_the_others_are_its_context(
    case: Case,
) -> None:
    errors = [KeyError(number) for number in range(4)]
    case.final_error.exits.append(exit := KeyboardInterrupt())
    case.final_error.internal = errors[1]
    case.final_error.troubles += errors[2:]
    assert case.final_error
    assert case.decide(errors[0]) is exit
    chain = []
    error: BaseException | None = exit
    while (error := error.__context__) is not None:  # type: ignore[union-attr]
        chain.append(error)
    assert chain == errors
    assert not case.reports


def test_a_final_error_of_the_run_has_the_main_tasks_error_as_its_cause(case: Case) -> None:
    case.final_error.failure = failure = ValueError()
    error = KeyError()
    assert case.decide(error) is failure
    assert failure.__cause__ is error


def test_trio_internal_error_has_the_internal_error_as_its_cause(case: Case) -> None:
    case.final_error.internal = cause = KeyError("system")
    error = case.decide(Cancelled())
    assert isinstance(error, TrioInternalError)
    assert error.__cause__ is cause
    assert error.__context__ is None


def test_errors_hidden_by_a_system_exit_are_reported(case: Case) -> None:
    case.final_error.exits += [first := SystemExit(3), SystemExit(4)]
    error = KeyError()
    assert case.decide(error) is first
    assert case.reports == [error]


def test_the_keyboard_interrupt_of_the_main_task_is_preferred(case: Case) -> None:
    case.ctrl_c.ever = case.ctrl_c.pending = True
    case.final_error.exits.append(KeyboardInterrupt())
    error = KeyboardInterrupt()
    assert case.decide(error) is error


def test_an_error_whose_context_leads_back_to_the_final_error_is_reported(case: Case) -> None:
    case.final_error.exits.append(exit := KeyboardInterrupt())
    error = KeyError()
    error.__context__ = exit
    assert case.decide(error) is exit
    assert case.reports == [error]
    assert exit.__context__ is None


def test_attaching_a_context_ends_where_the_context_chain_is_a_cycle() -> None:
    first, second, third = KeyError(1), KeyError(2), KeyError(3)
    first.__context__, second.__context__ = second, first
    assert attach(second, first)
    assert not attach(first, third)
