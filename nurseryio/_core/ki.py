"""Ctrl-C: which code must not be interrupted by it, and the signal handler that ``run`` installs.

Rule 1: a ``KeyboardInterrupt`` is raised on the spot only where user code of one of our own
tasks runs, because there a wrapper catches it and the nursery acts on it. Anywhere else (our
own code, asyncio's, a task that asyncio started, code marked as protected) it is delivered to
the main task at its next opportunity.

Rule 2: protection belongs to code objects, and the innermost mark on the stack decides.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from . import host
from .task import records
from .wakeup import SignalWakeup

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F")

# By identity: equal code objects of two functions are not one.
_marks: dict[int, tuple[weakref.ref[types.CodeType], bool]] = {}

# Our functions that do nothing but run a user's function: below them begins user code.
_borders: set[types.CodeType] = set()

_OWN_CODE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_OPEN_CODE = _OWN_CODE + "testing" + os.sep


def _mark(function: Any, protected: bool) -> None:
    if getattr(function, "_async_gen_function", None) == id(function):
        function = function.__wrapped__  # of the async_generator package
    code = function.__code__
    key = id(code)
    _marks[key] = (weakref.ref(code, lambda _ref: _marks.pop(key, None)), protected)


def border(f: F) -> F:
    """Decorator for the wrapper coroutines of tasks: what runs under them is user code."""
    _borders.add(f.__code__)  # type: ignore[attr-defined]
    return f


def enable_ki_protection(f: F, /) -> F:
    """Decorator: Ctrl-C must not raise ``KeyboardInterrupt`` inside this function.

    Args:
        f: a function of any kind; what it calls is protected too, down to the next mark.

    Returns:
        The same function.

    Trio: ``trio.lowlevel.enable_ki_protection``.
    """
    _mark(f, True)
    return f


def disable_ki_protection(f: F, /) -> F:
    """Decorator: Ctrl-C may raise ``KeyboardInterrupt`` inside this function.

    Args:
        f: a function of any kind; what it calls is open too, down to the next mark.

    Returns:
        The same function.

    Trio: ``trio.lowlevel.disable_ki_protection``.
    """
    _mark(f, False)
    return f


def currently_ki_protected() -> bool:
    """Whether Ctrl-C right now would spare the calling code.

    Returns:
        True if a ``KeyboardInterrupt`` would not be raised here.

    Checkpoint: no.

    Trio: ``trio.lowlevel.currently_ki_protected``.
    """
    return is_protected(sys._getframe(1))


def is_protected(frame: types.FrameType | None) -> bool:
    """Whether code that runs in ``frame`` must not get a ``KeyboardInterrupt`` (rules 1 and 2)."""
    asyncio_task = host.current_task_or_none()
    task = None if asyncio_task is None else records.get(asyncio_task)
    while frame is not None:
        code = frame.f_code
        mark = _marks.get(id(code))
        if mark is not None and mark[0]() is code:
            return mark[1]
        if code.co_name == "__del__":
            return True
        if code in _borders:
            return task is None or task._extra.is_system
        name = code.co_filename
        if name.startswith(_OWN_CODE) and not name.startswith(_OPEN_CODE):
            return True
        frame = frame.f_back
    return True


class KIHandler:
    """The handler of ``SIGINT`` for one call of ``run``.

    It replaces Python's default handler only; somebody else's stays in charge.
    """

    def __init__(self, deliver: Callable[[], object], only_at_checkpoints: bool) -> None:
        self._deliver = deliver
        self._only_at_checkpoints = only_at_checkpoints
        self._installed = False
        self._wakeup = SignalWakeup()

    def install(self, loop: host.Loop) -> None:
        """Take over ``SIGINT`` for a loop, if this is the main thread and nobody else has."""
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) == signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self)
            self._installed = True
            loop.call_soon(self._wakeup.install, loop)  # on the running loop

    def __call__(self, _signum: int, frame: types.FrameType | None) -> None:
        if self._only_at_checkpoints or is_protected(frame):
            self._deliver()
        else:
            raise KeyboardInterrupt

    def remove(self) -> None:
        """Give ``SIGINT`` back, unless somebody has taken it meanwhile."""
        if self._installed and signal.getsignal(signal.SIGINT) is self:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._installed = False
        self._wakeup.remove()
