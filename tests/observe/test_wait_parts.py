"""The parts of a description of a wait."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import nurseryio
from nurseryio._observe.holders import Holders
from nurseryio._observe.wait_parts import (
    View,
    Wait,
    address_text,
    counted,
    in_block,
    in_variables,
    name_of_task,
    number_of,
    other_side,
    socket_in,
    timed_sleep,
)


class Known(Holders):
    """Holders with answers that a test gives."""

    def __init__(self, tasks: list[int], complete: bool = True) -> None:
        super().__init__({}, lambda number: f"t{number}")
        self._tasks = tasks
        self.complete = complete

    def in_block_of(self, _thing: object) -> list[int]:
        return self._tasks

    with_variable = with_stream_at = in_block_of


def view(tasks: list[int], complete: bool = True) -> View:
    return View([], None, 1, Known(tasks, complete))


BLIND = View([], None)


def test_in_variables_leaves_out_the_task_itself_and_denies_only_what_is_known() -> None:
    details: dict[str, Any] = {}
    assert in_variables(view([1, 2]), details, None) == "; 't2' has it in a variable"
    assert details == {"tasks_with_it": ["t2"]}
    assert in_variables(view([2, 3]), {}, None) == "; 't2', 't3' have it in a variable"
    assert in_variables(view([1]), {}, None) == "; no other task has it in a variable"
    assert in_variables(view([1], complete=False), {}, None) == ""
    assert in_variables(BLIND, {}, None) == ""


def test_in_block_names_the_holders_and_a_semaphore_is_never_certain() -> None:
    assert in_block(view([2]), "lock", "waits", None, {}) == Wait(
        "lock", "waits; held by 't2'", {"owners": ["t2"]}, any_of=(2,)
    )
    assert not in_block(view([2]), "semaphore", "waits", None, {}).certain
    denied = in_block(view([]), "lock", "waits", None, {}).text
    assert denied == "waits; no task is in an 'async with' block of it"
    assert in_block(view([], complete=False), "lock", "waits", None, {}).text == "waits"
    assert in_block(BLIND, "lock", "waits", None, {}) == Wait("lock", "waits")


def test_other_side_needs_an_address_and_is_never_certain() -> None:
    wait = other_side(view([2]), "waits", ("::1", 5), {})
    assert wait.text == "waits, whose other side 't2' has"
    assert (wait.any_of, wait.certain) == ((2,), False)
    assert other_side(view([2, 3]), "waits", "x", {}).text.endswith("'t2', 't3' have")
    for blind in (other_side(view([2]), "waits", "", {}), other_side(BLIND, "waits", "x", {})):
        assert (blind.text, blind.any_of) == ("waits", ())


def test_a_view_reads_variables_of_the_operation_and_of_functions_inside() -> None:
    mine = 5
    frame = sys._getframe()
    assert View([(frame, 1)], None)["mine"] == mine
    assert View([(frame, 1)], None)["other"] is None
    assert View([(frame, 1), (frame, 1)], None).inner("mine", frame.f_code.co_name) == mine
    assert View([(frame, 1)], None).inner("mine", frame.f_code.co_name) is None


async def test_names_and_numbers_of_tasks() -> None:
    record = nurseryio.lowlevel.current_task()
    assert number_of(record.asyncio_task) == id(record)
    foreign = asyncio.ensure_future(asyncio.sleep(0))
    assert number_of(foreign) == id(foreign)
    assert name_of_task(foreign) == foreign.get_name()
    assert name_of_task(object()) == "a task whose name cannot be shown"
    await foreign


def test_numbers_addresses_and_seconds_as_text() -> None:
    assert counted(1, "task") == "1 task"
    assert counted(2000, "task") == "2,000 tasks"
    assert address_text(("127.0.0.1", 80)) == "127.0.0.1:80"
    assert address_text(("::1", 80, 0, 0)) == "[::1]:80"
    assert address_text("/run/socket") == "/run/socket"
    assert timed_sleep(1.5, {}).text == "sleeps for another 1.50 s"
    assert timed_sleep(-1.5, {}).text == "sleeps, and should have woken 1.50 s ago"


def test_socket_in_finds_the_socket_below_streams() -> None:
    class Thing:
        def __init__(self, **parts: Any) -> None:
            vars(self).update(parts)

    sock = Thing(getpeername=None)
    assert socket_in(Thing(transport_stream=Thing(socket=sock))) is sock
    assert socket_in(Thing()) is None
    assert socket_in(None) is None
    deep = Thing(_stream=Thing(_stream=Thing(_stream=Thing(_stream=Thing()))))
    assert socket_in(deep) is None


async def test_the_name_of_a_task_class_in_python_is_that_of_the_task() -> None:
    made: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]
    task = made(asyncio.sleep(0), loop=asyncio.get_running_loop(), name="in python")
    assert name_of_task(task) == "in python"
    await task
