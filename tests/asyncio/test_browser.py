"""The event loop of a web page, in place of which these tests have a loop and modules of their own.

``tests/test_pyodide.py`` tests the real one.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import types
from typing import Any

import pytest

from nurseryio._asyncio import browser


def run_on_selector_loop(main: Any) -> Any:
    """``asyncio.run`` on asyncio's own loop (3.10 cannot choose one)."""
    loop = asyncio.SelectorEventLoop()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


def test_another_loop_is_not_that_of_a_page() -> None:
    async def main() -> object:
        return browser.page_loop()

    assert browser.page_loop() is None
    assert asyncio.run(main()) is None


def test_the_loop_of_a_page_is_pyodides_web_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("pyodide.webloop")
    module.WebLoop = asyncio.SelectorEventLoop
    monkeypatch.setitem(sys.modules, "pyodide.webloop", module)

    async def main() -> bool:
        return browser.page_loop() is asyncio.get_running_loop()

    assert browser.page_loop() is None  # it does not run
    assert run_on_selector_loop(main)


def test_waiting_for_the_page_is_left_to_pyodide(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = types.ModuleType("pyodide.ffi")
    waited: list[object] = []
    module.can_run_sync, module.run_sync = (lambda: True), waited.append
    monkeypatch.setitem(sys.modules, "pyodide.ffi", module)
    assert browser.can_wait()
    browser.wait("task")
    assert waited == ["task"]


@pytest.mark.parametrize(("pthreads", "expected"), [(True, True), (False, False), (None, False)])
def test_threads_in_webassembly_are_those_of_the_build(
    monkeypatch: pytest.MonkeyPatch, pthreads: bool | None, expected: bool
) -> None:
    if pthreads is not None:
        info = types.SimpleNamespace(pthreads=pthreads)
        monkeypatch.setattr(sys, "_emscripten_info", info, raising=False)
    assert browser.wasm_has_threads() is expected


@pytest.mark.parametrize("base", [asyncio.Task, asyncio.tasks._PyTask])  # type: ignore[attr-defined]
def test_a_callback_for_the_end_is_not_seen_by_subclasses_of_asyncios_task(base: Any) -> None:
    """Pyodide's class counts the callbacks. A task that is written in Python has its own method."""
    counted: list[object] = []
    ended: list[object] = []

    class Counting(base):  # type: ignore[misc]
        def add_done_callback(self, fn: Any, /, *, context: Any = None) -> None:
            counted.append(fn)
            super().add_done_callback(fn, context=context)

    async def main() -> None:
        task = Counting(asyncio.sleep(0), loop=asyncio.get_running_loop())
        browser.call_when_done(task, ended.append, contextvars.Context())
        assert len(counted) == (base is not asyncio.Task)
        await task
        await asyncio.sleep(0)
        assert ended == [task]

    run_on_selector_loop(main)
