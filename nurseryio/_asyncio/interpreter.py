"""The interpreter that this copy of the library runs in: the main one or a subinterpreter.

Python 3.14 makes subinterpreters by ``concurrent.interpreters``. Each of them imports its own copy
of every module. It allows neither daemon threads nor signal handlers.
"""

from __future__ import annotations

import _thread
import contextlib
import contextvars
import sys
import threading
from collections.abc import Callable
from typing import Any

# Whether threads may be daemons. Without daemons the end of the interpreter waits for its threads.
DAEMONS: bool = getattr(_thread, "daemon_threads_allowed", lambda: True)()

# Whether the main thread may set signal handlers.
SIGNAL_HANDLERS: bool = getattr(_thread, "_is_main_interpreter", lambda: True)()


def before_threads_are_joined(function: Callable[[], object]) -> None:
    """Have ``function()`` called when the interpreter ends, before it waits for its threads.

    ``concurrent.futures`` does the same. The functions of ``atexit`` are called after the wait.
    """
    register = getattr(threading, "_register_atexit", None)
    if register is not None:
        register(function)


class BackgroundThread(threading.Thread):
    """A thread that runs until it is told to end, and that the end of Python does not wait for.

    It does not keep the context alive of the code that starts it (Python 3.14 can inherit it).

    Args:
        target: the function that the thread runs.
        name: the name of the thread.
        args: positional arguments of the function.
        end: makes the function return. A subinterpreter calls it at its end, in another thread.
    """

    def __init__(
        self,
        target: Callable[..., object],
        name: str,
        args: tuple[Any, ...] = (),
        end: Callable[[], object] | None = None,
    ) -> None:
        options: dict[str, Any] = {}
        if sys.version_info >= (3, 14):
            options["context"] = contextvars.Context()
        super().__init__(target=target, name=name, args=args, daemon=DAEMONS, **options)
        self._end = end

    def start(self) -> None:
        """See ``threading.Thread.start``."""
        if not DAEMONS and self._end is not None:
            _ends[self] = self._end
        try:
            super().start()
        except BaseException:
            _ends.pop(self, None)
            raise

    def run(self) -> None:
        """See ``threading.Thread.run``."""
        try:
            super().run()
        finally:
            _ends.pop(self, None)


# In a subinterpreter: what ends each background thread.
_ends: dict[threading.Thread, Callable[[], object]] = {}


def _end_background_threads() -> None:
    for end in _ends.copy().values():
        with contextlib.suppress(Exception):  # it ends just now
            end()


if not DAEMONS:
    before_threads_are_joined(_end_background_threads)
