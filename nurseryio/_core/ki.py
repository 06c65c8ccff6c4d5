"""Ctrl-C: where ``KeyboardInterrupt`` may be raised, where a task waits; the ``SIGINT`` handler.

This module decides whether ``KeyboardInterrupt`` may be raised in a frame. The effect of Ctrl-C
where it may not be raised is in ``_run.ctrl_c``.

Rule 1: the stack is read from the innermost frame outwards. The first of these rows decides:

=====================================================  =========================================
the frame                                              ``KeyboardInterrupt``
=====================================================  =========================================
has a mark (``enable_ki_protection`` and its inverse)  as the mark says
is a callback of the loop, or runs the loop            must not be raised
is the wrapper of a task (a boundary)                  may be raised, unless the wrapper itself
                                                       runs, or the task is a system task or one
                                                       that asyncio code started
belongs to the engine (the rooms in ``_ENGINE``), and  must not be raised
is not marked by ``calls_users``
is this library's or asyncio's, and no user code is    must not be raised
further in
=====================================================  =========================================

So user code may be interrupted wherever the engine is not in the middle of an operation. This holds
also if an upper part of the library (a server, a channel of results) has called it. At the end of
the stack, outside all tasks, the error must not be raised. The standard library counts as part of
the code that calls it: the loop, this library and the user may call the same function of it.

The frame of a nursery's wrapper is not looked for, because on the compiled build the wrapper has
none. The outermost frame of the running child's function is known from the child's record. Outside
of it is the wrapper.

Rule 2: marks belong to code objects, not to names or files.

Rule 3: a signal handler, a finalizer, and a callback of a weak reference or of the garbage
collector are called between any two instructions. An error from a signal handler is raised in the
frame that the handler has interrupted, so that frame decides. An error from the others is lost, so
``KeyboardInterrupt`` must not be raised in them.
"""

from __future__ import annotations

import gc
import inspect
import signal
import sys
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from .._asyncio import compat
from .._asyncio.interpreter import SIGNAL_HANDLERS
from .._base import abcs, outcome, util
from .._base.signal_handlers import Replaced
from .._base.signal_wakeup import SignalWakeup
from .task import records

if TYPE_CHECKING:
    from collections.abc import Callable

    from .task import Task

F = TypeVar("F")

# By identity: code objects of two functions may be equal, but each has its own mark.
_marks: dict[int, tuple[weakref.ref[types.CodeType], bool]] = {}

# The wrapper coroutines of tasks: they await user code.
_boundaries: set[types.CodeType] = set()

# The code that calls callbacks of a loop, or runs one: the stack is not read further than this.
_ends: set[types.CodeType] = {compat.CALLBACK_CODE}

# Functions of the engine that call a user's function while no change is half done.
_callers: set[types.CodeType] = set()

_LIBRARY = (__package__ or "").partition(".")[0] + "."
_TESTING = (_LIBRARY + "_checks.", _LIBRARY + "testing.")

# The rooms of the engine.
_ENGINE = {
    _LIBRARY + room
    for room in (
        "_asyncio",
        "_base",
        "_core",
        "_loop",
        "_nursery",
        "_observe",
        "_run",
        "_telemetry",
    )
}

# Modules in these rooms that are not part of the engine: they call user code and keep no state.
_OUTSIDE_ENGINE = {abcs.__name__, outcome.__name__, util.__name__}

# The standard library's packages, and the backport of a builtin.
_STANDARD = sys.stdlib_module_names | {"exceptiongroup"}

# The functions that CPython calls when it collects garbage. PyPy does not have this list.
_gc_callbacks: list[Any] = getattr(gc, "callbacks", [])

# The kinds of code objects whose frame can be awaited.
_AWAITED = (
    inspect.CO_COROUTINE
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_GENERATOR
    | inspect.CO_ASYNC_GENERATOR
)


def _mark(function: Any, protected: bool) -> None:
    if getattr(function, "_async_gen_function", None) == id(function):
        function = function.__wrapped__  # of the async_generator package
    code = function.__code__
    key = id(code)
    _marks[key] = (weakref.ref(code, lambda _ref: _marks.pop(key, None)), protected)


def user_code_boundary(f: F) -> F:
    """Decorator for the wrapper coroutines of tasks: they await user code."""
    _boundaries.add(f.__code__)  # type: ignore[attr-defined]
    return f


def runs_loop(f: F) -> F:
    """Decorator for functions of the engine that run an event loop."""
    _ends.add(f.__code__)  # type: ignore[attr-defined]
    return f


def calls_users(f: F) -> F:
    """Decorator for engine functions that call a user's function while no change is half done."""
    _callers.add(f.__code__)  # type: ignore[attr-defined]
    return f


def enable_ki_protection(f: F, /) -> F:
    """Decorator: Ctrl-C must not raise ``KeyboardInterrupt`` inside this function.

    Args:
        f: a function of any kind. Functions called by it are protected too, down to the next mark.

    Returns:
        The same function.

    Trio: ``trio.lowlevel.enable_ki_protection``.
    """
    _mark(f, True)
    return f


def disable_ki_protection(f: F, /) -> F:
    """Decorator: Ctrl-C may raise ``KeyboardInterrupt`` inside this function.

    Args:
        f: a function of any kind. Functions called by it are open too, down to the next mark.

    Returns:
        The same function.

    Trio: ``trio.lowlevel.disable_ki_protection``.
    """
    _mark(f, False)
    return f


def currently_ki_protected() -> bool:
    """Whether the calling code is protected from ``KeyboardInterrupt`` by Ctrl-C.

    Returns:
        True if Ctrl-C would not raise ``KeyboardInterrupt`` in the calling code now.

    Checkpoint: no.

    Trio: ``trio.lowlevel.currently_ki_protected``.
    """
    return is_protected(sys._getframe(1))


def is_protected(frame: types.FrameType | None) -> bool:
    """Whether ``KeyboardInterrupt`` must not be raised in code that runs in ``frame`` (rule 1)."""
    outermost = _outermost_frame()
    place = _raised_in(frame, outermost)
    if place is None:
        return True
    inner: types.CodeType | None = None
    in_users_code = False
    while frame is not None:
        code = frame.f_code
        if frame is place:
            inner, in_users_code = None, False
        mark = _marks.get(id(code))
        if mark is not None and mark[0]() is code:
            return mark[1]
        if code in _ends:
            return True
        if code in _boundaries:
            # The wrapper itself has work to do before and after it awaits the user's function.
            return inner is None or not inner.co_flags & _AWAITED or not _may_be_raised()
        if code not in _callers and _is_engine(frame):
            return True
        if not in_users_code:
            if is_machinery(frame):
                return True
            in_users_code = not _is_standard(frame)
        if frame is outermost:
            return not _may_be_raised()
        inner = code
        frame = frame.f_back
    return True


def may_be_torn(frame: types.FrameType | None) -> bool:
    """Whether an exception raised in ``frame`` would corrupt the state of a loop, or be lost.

    It would not if user code is running, because all callers of user code expect its errors.
    """
    frame = _raised_in(frame, _outermost_frame())
    while frame is not None and _is_standard(frame) and not is_machinery(frame):
        frame = frame.f_back
    return frame is None or is_machinery(frame)


def _raised_in(
    frame: types.FrameType | None, outermost: types.FrameType | None
) -> types.FrameType | None:
    """The frame in which an exception that leaves ``frame`` is raised; None if it is lost.

    Args:
        frame: the innermost frame.
        outermost: that of the running child's function, if any.
    """
    place = frame
    while frame is not None:
        code = frame.f_code
        if frame is outermost or code in _ends or code in _boundaries:
            break
        if code.co_name == "__del__" or any(
            getattr(callback, "__code__", None) is code for callback in _gc_callbacks
        ):
            return None
        for argument in _arguments(frame):
            if isinstance(argument, weakref.ref) and argument() is None:
                return None  # the frame is a callback of this reference
            if argument is frame.f_back and isinstance(argument, types.FrameType):
                place = argument  # the frame is a signal handler, or called by one
        frame = frame.f_back
    return place


# The most parameters, defaults included, of functions that the interpreter itself calls.
_MOST_PARAMETERS = 4


def _arguments(frame: types.FrameType) -> tuple[Any, ...]:
    """The arguments of a function, if the interpreter itself may have called it."""
    code = frame.f_code
    number = code.co_argcount
    if code.co_flags & _AWAITED or number > _MOST_PARAMETERS:
        return ()
    more = bool(code.co_flags & inspect.CO_VARARGS)
    if not number and not more:
        return ()
    variables = frame.f_locals
    found = tuple(variables.get(name) for name in code.co_varnames[:number])
    if more:
        found += tuple(variables.get(code.co_varnames[number + code.co_kwonlyargcount]) or ())
    return found


def _running_child() -> Task | None:
    """The running task, if it is a nursery's child."""
    asyncio_task = compat.current_task_or_none()
    task = None if asyncio_task is None else records.get(asyncio_task)
    return None if task is None or task._parent_nursery is None else task


def _may_be_raised() -> bool:
    """Whether the running task is a nursery's child, and not a system task."""
    task = _running_child()
    return task is not None and not task._extra.is_system


def _outermost_frame() -> types.FrameType | None:
    """The outermost frame of the running child's function.

    On the compiled build the wrapper around it is in C, and has no frame.
    """
    task = _running_child()
    return None if task is None else getattr(task._coro, "cr_frame", None)


def _module(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _is_engine(frame: types.FrameType) -> bool:
    module = _module(frame)
    return module.rpartition(".")[0] in _ENGINE and module not in _OUTSIDE_ENGINE


def _is_standard(frame: types.FrameType) -> bool:
    return _module(frame).partition(".")[0] in _STANDARD


def is_machinery(frame: types.FrameType) -> bool:
    """Whether code of this library or of asyncio runs in the frame, or a loop waits for events."""
    module = _module(frame)
    if module.startswith(_LIBRARY):
        return not module.startswith(_TESTING)
    return module.partition(".")[0] in ("asyncio", "selectors")


def place_of(task: Task) -> types.TracebackType | None:
    """The place where a task waits, as a traceback.

    If the task waits for the end of a nursery with a single child, the traceback continues in the
    child.
    """
    steps: list[tuple[types.FrameType, int]] = []
    seen = set()
    while task not in seen:
        seen.add(task)
        steps += task.iter_await_frames()
        nurseries = task.child_nurseries
        if nurseries and not nurseries[-1]._body_running and len(nurseries[-1]._children) == 1:
            (task,) = nurseries[-1]._children
    place = None
    for frame, line in reversed(steps):
        place = types.TracebackType(place, frame, frame.f_lasti, line)
    return place


class KIHandler:
    """The handler of ``SIGINT`` for one call of ``run``.

    It replaces Python's default handler only. A handler of other code is kept.

    Args:
        pressed: called in the signal handler with the interrupted frame.
    """

    def __init__(self, pressed: Callable[[types.FrameType | None], object]) -> None:
        self._pressed = pressed
        self._replaced: Replaced | None = None
        self._wakeup = SignalWakeup()

    def install(self) -> None:
        """Set the handler, if this is the main thread and Python's default handler is set.

        A subinterpreter may not set one. There Ctrl-C is a matter of the main interpreter.
        """
        if (
            SIGNAL_HANDLERS
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) == signal.default_int_handler
        ):
            self._replaced = Replaced(signal.SIGINT, self)

    def loop_begins(self, loop: compat.Loop) -> None:
        """The loop has begun to run: have signals wake it."""
        if self._replaced is not None:
            self._wakeup.install(loop)

    def loop_ends(self) -> None:
        """The loop has stopped."""
        self._wakeup.remove()

    def __call__(self, _signum: int, frame: types.FrameType | None) -> None:
        self._pressed(frame)

    def remove(self) -> None:
        """Restore the handler from before, unless other code has set one meanwhile."""
        if self._replaced is not None:
            self._replaced.give_back(unless_taken=True)
            self._replaced = None
