"""The interpreter that this copy of the library runs in: the main one or a subinterpreter.

Python 3.14 makes subinterpreters by ``concurrent.interpreters``. Each of them imports its own copy
of every module. It allows neither daemon threads nor signal handlers.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable

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
