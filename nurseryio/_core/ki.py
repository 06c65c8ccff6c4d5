"""Which code Ctrl-C must not interrupt, where a program was interrupted, and the signal handler.

What lives here: the decision whether ``KeyboardInterrupt`` may be raised in a frame, and the
handler of ``SIGINT``. What does not: what happens instead of raising it, see ``presses``.

Rule 1: the stack is read from the innermost frame outwards, and the first of these decides:

=====================================================  =====================================
the frame                                              ``KeyboardInterrupt``
=====================================================  =====================================
has a mark (``enable_ki_protection`` and its inverse)  as the mark says
belongs to the engine (this package)                   must not be raised
is a callback of the loop, or runs the loop            must not be raised
is the wrapper of a task (a border)                    may be raised, unless the task is a
                                                       system task or one of asyncio's
is this library's or asyncio's, and the innermost      must not be raised
that is not of the standard library
=====================================================  =====================================

So user code may be interrupted wherever the engine is not in the middle of something, also where
an upper part of the library (a server, a channel of results) has called it. At the end of the
stack, outside all tasks, it must not be raised. The standard library is part of the code that
calls it: the same function may be called by the loop, by this library, or by the user.

Rule 2: marks belong to code objects, not to names or files.

Rule 3: a signal handler, a finalizer and a callback of a weak reference or of the garbage
collector are called between any two instructions. What a signal handler raises is raised in the
frame that it has interrupted, so that frame decides. What the others raise is lost, so a
``KeyboardInterrupt`` must not be raised there.
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
from .._base import abcs, outcome, util
from .._base.signal_handlers import Replaced
from .._base.signal_wakeup import SignalWakeup
from .task import records

if TYPE_CHECKING:
    from collections.abc import Callable

    from .task import Task

F = TypeVar("F")

# By identity: equal code objects of two functions are not one.
_marks: dict[int, tuple[weakref.ref[types.CodeType], bool]] = {}

# The wrapper coroutines of tasks: what they await is user code.
_borders: set[types.CodeType] = set()

# What calls the callbacks of a loop: the stack is not read further than this.
_ends: set[types.CodeType] = {compat.CALLBACK_CODE}

# Functions of the engine that call a user's function while nothing is half done.
_callers: set[types.CodeType] = set()

_LIBRARY = (__package__ or "").partition(".")[0] + "."
_TESTING = (_LIBRARY + "_checks.", _LIBRARY + "testing.")

# The rooms of the engine.
_ENGINE = {
    _LIBRARY + room
    for room in ("_asyncio", "_base", "_core", "_loop", "_nursery", "_observe", "_run")
}

# Modules in them that are not part of the engine: they call user code, and keep no state.
_OUTSIDE_ENGINE = {abcs.__name__, outcome.__name__, util.__name__}

# The standard library's packages. The backport of a builtin counts as one of them.
_STANDARD = sys.stdlib_module_names | {"exceptiongroup"}

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
    """Decorator for the wrapper coroutines of tasks: what they await is user code."""
    _borders.add(f.__code__)  # type: ignore[attr-defined]
    return f


def runs_loop(f: F) -> F:
    """Decorator for functions of the engine that run an event loop."""
    _ends.add(f.__code__)  # type: ignore[attr-defined]
    return f


def calls_users(f: F) -> F:
    """Decorator for functions of the engine that call a user's function with nothing half done."""
    _callers.add(f.__code__)  # type: ignore[attr-defined]
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
    """Whether code that runs in ``frame`` must not get a ``KeyboardInterrupt`` (rule 1)."""
    place = _raised_in(frame)
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
        if code in _borders:
            # The wrapper itself has work to do before and after what it awaits.
            return inner is None or not inner.co_flags & _AWAITED or not _may_be_raised()
        if code not in _callers and _is_engine(frame):
            return True
        if not in_users_code:
            if is_machinery(frame):
                return True
            in_users_code = not _is_standard(frame)
        inner = code
        frame = frame.f_back
    return True


def may_be_torn(frame: types.FrameType | None) -> bool:
    """Whether an exception raised in ``frame`` would break the books of a loop, or be lost.

    It would not if user code is running: whatever calls user code is ready for its errors.
    """
    frame = _raised_in(frame)
    while frame is not None and _is_standard(frame) and not is_machinery(frame):
        frame = frame.f_back
    return frame is None or is_machinery(frame)


def _raised_in(frame: types.FrameType | None) -> types.FrameType | None:
    """The frame in which an exception is raised that ``frame`` lets out, None if it is lost."""
    place = frame
    while frame is not None:
        code = frame.f_code
        if code in _ends or code in _borders:
            break
        if code.co_name == "__del__" or any(
            getattr(callback, "__code__", None) is code for callback in gc.callbacks
        ):
            return None
        for argument in _arguments(frame):
            if isinstance(argument, weakref.ref) and argument() is None:
                return None  # a callback of this reference
            if argument is frame.f_back and isinstance(argument, types.FrameType):
                place = argument  # this is a signal handler, or called by one
        frame = frame.f_back
    return place


# Functions that the interpreter calls have no more parameters than this, defaults included.
_MOST_PARAMETERS = 4


def _arguments(frame: types.FrameType) -> tuple[Any, ...]:
    """The arguments of a function that may have been called by the interpreter."""
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


def _may_be_raised() -> bool:
    """Whether the running task is one that catches a ``KeyboardInterrupt`` and acts on it."""
    asyncio_task = compat.current_task_or_none()
    task = None if asyncio_task is None else records.get(asyncio_task)
    return task is not None and task._parent_nursery is not None and not task._extra.is_system


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
    """Where a task waits, as a traceback.

    If it waits for the end of a nursery with a single child, the traceback goes on in the child.
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

    It replaces Python's default handler only; somebody else's stays in charge.

    Args:
        pressed: called in the signal handler with the interrupted frame.
    """

    def __init__(self, pressed: Callable[[types.FrameType | None], object]) -> None:
        self._pressed = pressed
        self._replaced: Replaced | None = None
        self._wakeup = SignalWakeup()

    def install(self) -> None:
        """Take over ``SIGINT``, if this is the main thread and nobody else has."""
        if (
            threading.current_thread() is threading.main_thread()
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
        """Give ``SIGINT`` back, unless somebody has taken it meanwhile."""
        if self._replaced is not None:
            self._replaced.give_back(unless_taken=True)
            self._replaced = None
