"""Python in WebAssembly: the loop and the tasks of a web page, and how blocking code can wait.

The loop of a page, Pyodide's ``WebLoop``, belongs to the JavaScript engine. It runs from the start,
in the only thread, and cannot be closed. A blocking call can wait for it only if the engine can
switch stacks (JSPI). Then Python's whole stack is put aside, as ``await`` does with a coroutine.

Rule: nothing of Pyodide is imported on other platforms. Its modules are loaded where it runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import Any

from .compat import AsyncioTask, Loop, NativeTask, running_loop_or_none

# Whether Python runs in WebAssembly: in a page, or in a JavaScript engine without a page.
IS_WASM: bool = sys.platform in ("emscripten", "wasi")

# The longest time (seconds) for a timer of a page's loop. The engine's timers have 31 bits of
# milliseconds. Pyodide 0.29 does not check that, and there a longer timer fires at once.
LONGEST_TIMER = 24 * 3600.0


def wasm_has_threads() -> bool:
    """Whether threads can be started in WebAssembly. They are Web Workers, if Python has them."""
    return bool(getattr(getattr(sys, "_emscripten_info", None), "pthreads", False))


def call_when_done(task: AsyncioTask, callback: Any, context: contextvars.Context) -> None:
    """Add a done-callback that a subclass of the task (Pyodide has one) does not see.

    Pyodide counts the callbacks, and reports the error of a task that has no other callback. And a
    subclass may not be complete yet, because asyncio schedules the first step in ``__init__``.
    """
    if isinstance(task, NativeTask or asyncio.Task):
        (NativeTask or asyncio.Task).add_done_callback(task, callback, context=context)
    else:
        task.add_done_callback(callback, context=context)


def page_loop() -> Loop | None:
    """The running loop if it is that of a page, else None."""
    module: Any = sys.modules.get("pyodide.webloop")
    loop = running_loop_or_none()
    return loop if module is not None and isinstance(loop, module.WebLoop) else None


def can_wait() -> bool:
    """Whether the caller may wait for the page's loop.

    The engine must be able to switch stacks, and Python must have been entered by a call that
    returns a promise, such as ``pyodide.runPythonAsync``.
    """
    ffi: Any = sys.modules["pyodide.ffi"]
    return bool(ffi.can_run_sync())


def wait(awaitable: Any) -> None:
    """Block the caller until a future or task of the page's loop is done. It must not fail."""
    ffi: Any = sys.modules["pyodide.ffi"]
    ffi.run_sync(awaitable)
