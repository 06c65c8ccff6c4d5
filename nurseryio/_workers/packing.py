"""A call and its result as bytes, for a worker that does not share objects with this program.

The calling side makes a request with :func:`pack_request`. The worker makes a reply of it with
:func:`answer`. The calling side makes the result or the error of the reply with :func:`unpack`.
The transport of the bytes is in other modules.

Rule 1: an object that cannot be sent is an error of the call that it belongs to. The error names
the object. It never breaks a worker.

Rule 2: an error is sent only if the worker itself can read it back. Otherwise its text is sent.

Rule 3: a ``CancelledError`` of the function is sent as text too. It is not a cancellation of the
task that waits for the call. There it would be lost, as if the task had been cancelled.

Rule 4: the pickler is that of ``multiprocessing``. It can also send the objects that other
libraries have registered there, such as proxies of ``multiprocessing`` and tensors.
"""

from __future__ import annotations

import io
import pickle
import traceback
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from .._base import Cancelled
from .._base.exc_fields import add_note, class_name, explained, without_own_frame
from .._base.util import qualname_of, safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable
# The kinds of replies.
_RESULT = "result"
_ERROR = "error"

# Reprs in error messages are cut to this many characters.
_MOST_SHOWN = 200

_ADVICE_SEND = (
    "functions and arguments are sent by pickle: define the function at the top level of a module, "
    "and pass plain data, not locks, open files, connections or lambdas"
)
_ADVICE_LOAD = (
    "the worker imports the module of the function: it cannot import an interactive session, a "
    "notebook, the text of 'python -c' or the __main__.py of a package or zip file, so put the "
    "function into another module"
)
_ADVICE_RESULT = "return plain data, or write the result to a file and return its name"


def function_of(fn: object) -> str:
    """The name of a function for messages."""
    return qualname_of(fn) or _shown(fn)


def _shown(thing: object) -> str:
    text = safe_repr(thing)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "..."


def _dumps(thing: Any) -> bytes:
    # multiprocessing is loaded at the first call.
    from multiprocessing.reduction import ForkingPickler

    # Not ForkingPickler.dumps(): a buffer of its result that is collected too late is reported.
    file = io.BytesIO()
    ForkingPickler(file, pickle.HIGHEST_PROTOCOL).dump(thing)
    return file.getvalue()


# -- on the calling side ----------------------------------------------------------


def pack_request(caller: str, fn: Callable[..., Any], args: tuple[Any, ...]) -> bytes:
    """Make the request to call ``fn(*args)``.

    Args:
        caller: the name of the public function, for the error.
        fn: the function.
        args: its arguments.

    Raises:
        pickle.PicklingError: The function or an argument cannot be pickled. The cause is the error
            of the pickler, or of the object's own method.
    """
    try:
        return _dumps((fn, args))
    except MemoryError:
        raise
    except Exception as error:
        what = _culprit(fn, args)
        raise explained(
            pickle.PicklingError(f"{caller} cannot send {what} to the worker: {_line_of(error)}"),
            _ADVICE_SEND,
        ) from error


def _culprit(fn: object, args: tuple[Any, ...]) -> str:
    """The part of a call that cannot be pickled."""
    if not _can_be_sent(fn):
        return f"the function {function_of(fn)}"
    for number, argument in enumerate(args, 1):
        if not _can_be_sent(argument):
            return f"argument {number}, {_shown(argument)},"
    return "the call"


def _can_be_sent(thing: object) -> bool:
    try:
        _dumps(thing)
    except Exception:
        return False
    return True


def _line_of(error: BaseException) -> str:
    """The class and text of an error, whatever its methods do."""
    try:
        text = str.__str__(str(error))
    except Exception:
        text = "(its text cannot be shown)"
    name = class_name(type(error))
    return f"{name}: {text}" if text else name


def unpack(reply: bytes, function: str, where: str) -> Any:
    """The result in a reply.

    Args:
        reply: the bytes of :func:`answer`.
        function: the name of the function, for the errors.
        where: the worker, for the note with the traceback.

    Raises:
        BaseException: The error that the function raised, with its traceback as a note.
        RuntimeError: The function raised an error that cannot be sent, or a CancelledError. It is
            named.
        pickle.PicklingError: The result cannot be pickled.
        pickle.UnpicklingError: The call or the result cannot be unpickled.
    """
    try:
        kind, content = pickle.loads(reply)
    except MemoryError:
        raise
    except Exception as error:
        raise explained(
            pickle.UnpicklingError(
                f"the result of {function}() cannot be unpickled: {_line_of(error)}"
            ),
            _ADVICE_RESULT,
        ) from error
    if kind == _RESULT:
        return content
    pickled, line, shown = content
    raised = _loaded_error(pickled)
    if raised is None:
        raised = RuntimeError(
            f"{function}() raised an error that cannot be sent from the worker: {line}"
        )
    add_note(raised, f"The traceback in {where}:\n\n{shown}")
    try:
        raise raised
    finally:
        del raised, content  # no reference cycle


def _loaded_error(pickled: bytes | None) -> BaseException | None:
    if pickled is None:
        return None
    try:
        error = pickle.loads(pickled)
    except MemoryError:
        raise
    except Exception:
        return None
    return error if isinstance(error, BaseException) else None


# -- in the worker ----------------------------------------------------------------


def _surely(show: Callable[[Any], str], thing: object) -> str:
    """``show(thing)``, although a method of the thing may raise SystemExit, for example."""
    try:
        return show(thing)
    except BaseException:
        return f"<{class_name(type(thing))} that cannot be shown>"


def answer(request: bytes) -> bytes:
    """Call the function of a request, and make the reply of its result or error. Never raises."""
    try:
        fn, args = pickle.loads(request)
    except BaseException as error:
        failure = pickle.UnpicklingError(
            f"the worker cannot load the function or an argument: {_surely(_line_of, error)}"
        )
        return _pack_error(explained(failure, _ADVICE_LOAD), error)
    function = "?"
    try:
        function = function_of(fn)
        result = fn(*args)
        if isinstance(result, CoroutineType):
            result.close()
            raise _is_async(function)
    except BaseException as error:
        return _pack_error(error, without_own_frame(error))
    finally:
        del fn, args
    try:
        return _dumps((_RESULT, result))
    except BaseException as error:
        unsent = pickle.PicklingError(
            f"the result of {function}(), {_surely(_shown, result)}, cannot be sent from the "
            f"worker: {_surely(_line_of, error)}"
        )
        return _pack_error(explained(unsent, _ADVICE_RESULT), error)


def _is_async(function: str) -> TypeError:
    return explained(
        TypeError(
            f"nurseryio expected a sync function, but {function!r} appears to be asynchronous"
        ),
        "a worker has no event loop: await the function directly, or call nurseryio.run() in it",
    )


def _pack_error(error: BaseException, origin: BaseException) -> bytes:
    """The reply with an error, and with the traceback of ``origin`` as text."""
    pickled: bytes | None = None
    try:
        pickled = None if isinstance(error, Cancelled) else _dumps(error)
        if pickled is not None and type(pickle.loads(pickled)) is not type(error):
            pickled = None
    except BaseException:
        # A class whose __init__ has other arguments than its args, for example.
        pickled = None
    try:
        shown = "".join(traceback.format_exception(type(origin), origin, origin.__traceback__))
    except BaseException:
        shown = "(it cannot be shown)"
    return _dumps((_ERROR, (pickled, _surely(_line_of, error), shown)))
