"""The tasks that instruments report, and the errors that end them."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

import nurseryio
from nurseryio._telemetry.reported import error_line, error_of, is_cancellation, is_of_run
from nurseryio.abc import Instrument
from nurseryio.lowlevel import Task, add_instrument, remove_instrument

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


class Ends(Instrument):
    """Notes how tasks end."""

    def __init__(self) -> None:
        self.errors: dict[str, Any] = {}
        self.of_run: set[str] = set()

    def task_exited(self, task: Task) -> None:
        if is_of_run(task):
            self.of_run.add(task.name)
            return
        error = error_of(task)
        self.errors[task.name] = None if error is None else error_line(error)
        assert error is None or is_cancellation(error) == task.name.startswith("cancelled")


async def fails() -> None:
    await nurseryio.sleep(0)  # not in the step that an eager task factory makes unseen
    raise ValueError("bad")


async def test_error_of_a_child_and_of_an_asyncio_task() -> None:
    ends = Ends()
    add_instrument(ends)
    with pytest.raises(ExceptionGroup):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever, name="cancelled child")
            nursery.start_soon(nurseryio.sleep, 0, name="ends well")
            for _ in range(3):
                await nurseryio.sleep(0)
            nursery.start_soon(fails, name="fails")
    task = asyncio.create_task(fails(), name="of asyncio")
    await asyncio.wait([task])
    assert isinstance(task.exception(), ValueError)  # retrieved here, not before
    other = asyncio.create_task(asyncio.sleep(10), name="cancelled task")
    await asyncio.sleep(0)
    other.cancel()
    await asyncio.wait([other])
    remove_instrument(ends)
    assert ends.errors["fails"] == ends.errors["of asyncio"] == "ValueError: bad"
    assert ends.errors["ends well"] is None
    assert ends.errors["cancelled child"].startswith("Cancelled")


def test_error_of_the_main_task_and_the_tasks_of_run() -> None:
    ends = Ends()
    with pytest.raises(ValueError):
        nurseryio.run(fails, instruments=[ends])
    assert ends.errors == {f"{__name__}.fails": "ValueError: bad"}
    assert "<init>" in ends.of_run


def test_error_line_of_errors_without_a_text_or_whose_text_fails() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert error_line(KeyError()) == "KeyError"
    assert error_line(Hostile()) == "Hostile"
