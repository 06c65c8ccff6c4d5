"""``run`` on the loop of a web page, which runs already, with a loop of asyncio in its place.

Switching stacks is done by running further iterations of the loop inside a callback.
``tests/test_pyodide.py`` tests the real page.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import nurseryio
from nurseryio import testing
from nurseryio.abc import Instrument
from nurseryio.lowlevel import current_statistics, remove_instrument


class WebLoop(asyncio.SelectorEventLoop):
    """Stands for Pyodide's loop."""


class Page:
    """A page: its loop, and whether code may wait for it."""

    def __init__(self) -> None:
        self.loop: Any = WebLoop()
        self.can_wait = True
        self.reports: list[Any] = []
        self.loop.set_exception_handler(lambda _loop, context: self.reports.append(context))

    def run_sync(self, task: asyncio.Task[Any]) -> None:
        """Wait for a task, inside a callback of the loop."""
        while not task.done():
            self.loop._run_once()
        task.result()

    def call(self, fn: Callable[[], object]) -> Any:
        """Call a function as JavaScript does: by a callback of the loop."""
        ended = self.loop.create_future()

        def callback() -> None:
            try:
                ended.set_result(fn())
            except BaseException as error:
                ended.set_result(error)

        self.loop.call_soon(callback)
        result = self.loop.run_until_complete(ended)
        if isinstance(result, BaseException):
            raise result
        return result


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    page = Page()
    webloop: Any = types.ModuleType("pyodide.webloop")
    ffi: Any = types.ModuleType("pyodide.ffi")
    webloop.WebLoop = WebLoop
    ffi.can_run_sync, ffi.run_sync = (lambda: page.can_wait), page.run_sync
    monkeypatch.setitem(sys.modules, "pyodide.webloop", webloop)
    monkeypatch.setitem(sys.modules, "pyodide.ffi", ffi)
    yield page
    page.loop.close()
    assert page.reports == []


async def answer(value: object) -> object:
    await nurseryio.sleep(0.001)
    return value


async def fail(error: BaseException) -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(fail_alone, error)


async def fail_alone(error: BaseException) -> None:
    await nurseryio.sleep(0)
    raise error


def test_run_in_a_page_returns_the_result_and_leaves_the_loop_open(page: Page) -> None:
    assert page.call(lambda: nurseryio.run(answer, 1)) == 1
    assert page.call(lambda: nurseryio.run(answer, 2)) == 2
    assert not page.loop.is_closed()


def test_run_in_a_page_raises_the_error_of_the_function(page: Page) -> None:
    with pytest.raises(ValueError, match="bad"):
        page.call(lambda: nurseryio.run(fail_alone, ValueError("bad")))


def test_a_system_exit_in_a_page_leaves_run_and_not_the_loop(page: Page) -> None:
    with pytest.raises(SystemExit, match="3"):
        page.call(lambda: nurseryio.run(fail, SystemExit(3)))
    assert page.call(lambda: nurseryio.run(answer, 1)) == 1


def test_run_in_a_page_that_cannot_wait_starts_nothing_and_says_what_to_write(page: Page) -> None:
    page.can_wait = False
    with pytest.raises(RuntimeError, match=r"Write `await main\(\)` in place of"):
        page.call(lambda: nurseryio.run(lambda: pytest.fail("was called")))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clock", testing.MockClock()),
        ("loop_factory", asyncio.new_event_loop),
        ("restrict_keyboard_interrupt_to_checkpoints", True),
        ("strict_exception_groups", False),
    ],
)
def test_options_of_run_that_need_an_own_loop_are_refused_in_a_page(
    page: Page, name: str, value: Any
) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(NotImplementedError, match=f"^run.. cannot take {name} here, because"):
        page.call(lambda: nurseryio.run(answer, 1, **options))


def test_run_inside_run_is_refused_in_a_page(page: Page) -> None:
    async def main() -> None:
        nurseryio.run(answer, 1)

    with pytest.raises(RuntimeError, match=r"^Attempted to call run\(\) from inside"):
        page.call(lambda: nurseryio.run(main))
    assert page.call(lambda: nurseryio.run(answer, 2)) == 2


class Recorder(Instrument):
    def __init__(self) -> None:
        self.calls: list[str] = []

    def before_run(self) -> None:
        self.calls.append("before_run")

    def after_run(self) -> None:
        self.calls.append("after_run")

    def task_exited(self, task: Any) -> None:
        self.calls.append(f"exited {task.name}")


def test_instruments_of_run_are_installed_for_its_time_in_a_page(page: Page) -> None:
    recorder = Recorder()
    page.call(lambda: nurseryio.run(answer, 1, instruments=[recorder]))
    with pytest.raises(ValueError, match="bad"):
        page.call(lambda: nurseryio.run(fail_alone, ValueError("bad"), instruments=[recorder]))
    page.call(lambda: nurseryio.run(answer, 2))
    one = ["before_run", f"exited {__name__}.answer", "after_run"]
    assert recorder.calls == [*one, "before_run", f"exited {__name__}.fail_alone", "after_run"]
    assert "call_soon" not in vars(page.loop)


def test_an_instrument_that_the_program_removes_does_not_break_run_in_a_page(page: Page) -> None:
    recorder = Recorder()

    async def main() -> None:
        remove_instrument(recorder)

    page.call(lambda: nurseryio.run(main, instruments=[recorder]))
    assert recorder.calls == ["before_run"]


def test_run_in_a_page_refuses_a_function_that_is_not_async(page: Page) -> None:
    recorder = Recorder()
    with pytest.raises(TypeError, match="expected an async function"):
        page.call(lambda: nurseryio.run(print, instruments=[recorder]))  # type: ignore[arg-type]
    assert "call_soon" not in vars(page.loop)


def test_run_in_a_page_raises_the_error_of_the_task_factory(page: Page) -> None:
    def refuses(*_args: object, **_options: object) -> Any:
        raise MemoryError("no task")

    page.loop.set_task_factory(refuses)
    with pytest.raises(MemoryError, match="no task"):
        page.call(lambda: nurseryio.run(answer, 1))


def test_other_tasks_of_a_page_go_on_after_run(page: Page) -> None:
    other = page.loop.create_task(asyncio.sleep(0.01, "slept"))

    async def main() -> int:
        return current_statistics().tasks_living

    assert page.call(lambda: nurseryio.run(main)) == 2
    assert page.loop.run_until_complete(other) == "slept"


def test_run_inside_another_loop_is_refused_with_the_same_error() -> None:
    async def main() -> None:
        nurseryio.run(answer, 1)

    with pytest.raises(RuntimeError, match=r"^Attempted to call run\(\) from inside a run\(\)"):
        asyncio.run(main())
