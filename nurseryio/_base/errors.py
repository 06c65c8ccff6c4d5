"""Exception classes of nurseryio, and ``CancelReason``, which a cancellation carries.

This module has them as plain data, and the long error text about scopes that are not left in order.
Other modules decide when an error is raised.

Rule 1: this module imports nothing from this library.

Rule 2: every exception can be pickled, so that it can be sent to another process.

Rule 3: nothing here keeps a task or a frame alive. A reason names its task by a text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, NoReturn, TypeAlias

__all__ = [
    "BrokenResourceError",
    "BrokenWorkerInterpreter",
    "BrokenWorkerProcess",
    "BusyResourceError",
    "CancelReason",
    "CancelSource",
    "Cancelled",
    "ClosedResourceError",
    "EndOfChannel",
    "NeedHandshakeError",
    "RunFinishedError",
    "TooSlowError",
    "TrioDeprecationWarning",
    "TrioInternalError",
    "WouldBlock",
]

# The same class that asyncio raises. asyncio code and nurseryio code have to recognise each other's
# cancellations, and an ``except`` clause cannot be made to match two classes under one name.
Cancelled = asyncio.CancelledError

CancelSource: TypeAlias = Literal[
    "KeyboardInterrupt",
    "deadline",
    "explicit",
    "nursery",
    "shutdown",
    "unknown",
    "native",
]


class CancelReason:
    """The source of a cancellation, and its reason.

    A cancellation by a scope of this library carries a ``CancelReason`` as its first argument:
    ``error.args[0]``. ``str()`` of the reason, and so of the error, reads as a sentence.

    Args:
        source: The kind of cancellation. ``"native"`` stands for a plain ``task.cancel()``.
        reason: The text given to ``CancelScope.cancel(reason=...)``, if any.
        source_task: ``repr()`` of the task that cancelled, if one did.
        stack: The stack of the call of ``cancel()``, or of the line that has set the deadline, as
            text. It is kept in debug mode of the loop and while a ``Watchdog`` watches; else it is
            None. Equality and hash ignore it.

    Trio: the attributes ``source``, ``reason`` and ``source_task`` of ``trio.Cancelled``.
    """

    __slots__ = ("_reason", "_source_task", "source", "stack")

    source: CancelSource
    # A text, or a tuple from which the text is made when it is first read: a function and its
    # arguments, which are strings and numbers (rule 3).
    _reason: str | tuple[Any, ...] | None
    _source_task: str | tuple[Any, ...] | None
    stack: str | None

    def __init__(
        self,
        source: CancelSource,
        reason: str | None = None,
        source_task: str | None = None,
        stack: str | None = None,
    ) -> None:
        _put_source(self, source)
        _put_reason(self, reason)
        _put_source_task(self, source_task)
        _put_stack(self, stack)

    @property
    def reason(self) -> str | None:
        """The text given to ``CancelScope.cancel(reason=...)``, if any; or why a nursery failed."""
        text = self._reason
        if type(text) is tuple:
            text = text[0](*text[1:])
            _put_reason(self, text)
        return text  # type: ignore[return-value]

    @property
    def source_task(self) -> str | None:
        """``repr()`` of the task that cancelled, if one did."""
        text = self._source_task
        if type(text) is tuple:
            text = text[0](*text[1:])
            _put_source_task(self, text)
        return text  # type: ignore[return-value]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a CancelReason cannot be changed (tried to set {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a CancelReason cannot be changed (tried to delete {name!r})")

    def _key(self) -> tuple[CancelSource, str | None, str | None]:
        return (self.source, self.reason, self.source_task)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CancelReason):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[type[CancelReason], tuple[str | None, ...]]:
        return (CancelReason, (*self._key(), self.stack))

    def __repr__(self) -> str:
        return (
            f"CancelReason(source={self.source!r}, reason={self.reason!r}, "
            f"source_task={self.source_task!r})"
        )

    def __str__(self) -> str:
        if self.stack is None:
            return self._sentence()
        event = "the deadline was set" if self.source == "deadline" else "cancel() was called"
        return f"{self._sentence()}; {event} at:\n{self.stack}"

    def _sentence(self) -> str:
        """The reason in one line, without the stack."""
        source = "a native task.cancel()" if self.source == "native" else self.source
        text = f"cancelled due to {source}"
        if self.reason is not None:
            text += f" with reason {self.reason!r}"
        if self.source_task is not None:
            text += f" from task {self.source_task}"
        return text


# CancelReason refuses to set an attribute.
_put_source: Any = vars(CancelReason)["source"].__set__
_put_reason: Any = vars(CancelReason)["_reason"].__set__
_put_source_task: Any = vars(CancelReason)["_source_task"].__set__
_put_stack: Any = vars(CancelReason)["stack"].__set__


class RequestReason(CancelReason):
    """The reason that a run gives to ``task.cancel()``: no scope will catch that cancellation."""

    __slots__ = ()


class TrioInternalError(Exception):
    """A bug in nurseryio, or a low-level call used against its contract.

    After this error the tasks of the run may be in any state. Please report it.

    Trio: ``trio.TrioInternalError``.
    """


class RunFinishedError(RuntimeError):
    """A thread tried to reach a run or an event loop that has ended already.

    Trio: ``trio.RunFinishedError``.
    """


class WouldBlock(Exception):
    """A ``..._nowait`` method was called when the waiting form would have had to wait.

    Trio: ``trio.WouldBlock``.
    """


class BusyResourceError(Exception):
    """A task used a resource while another task was in the middle of a conflicting use of it.

    Two tasks that send on one stream at once would mix up their data. Instead, the later task gets
    this error.

    Trio: ``trio.BusyResourceError``.
    """


class ClosedResourceError(Exception):
    """A resource was used after your own code closed it, or was closed while in use.

    If the other side closed the connection, the error is :class:`BrokenResourceError` instead.

    Trio: ``trio.ClosedResourceError``.
    """


class BrokenResourceError(Exception):
    """A resource cannot be used any more, for a reason outside the code that uses it.

    For example, the peer of a connection has closed it. ``__cause__`` is the underlying error if
    there is one. For a resource that you closed yourself see :class:`ClosedResourceError`.

    Trio: ``trio.BrokenResourceError``.
    """


class EndOfChannel(Exception):
    """All senders of a channel are closed and every item has been received.

    This is the regular end of a channel, not a failure, like the end of file of a stream.

    Trio: ``trio.EndOfChannel``.
    """


class TooSlowError(Exception):
    """The time given to :func:`fail_after` or :func:`fail_at` ran out.

    ``str()`` of the error says which limit it was, and at which line the block was waiting.

    Trio: ``trio.TooSlowError``.
    """

    # Makes the text: mostly no code asks for it, and it is not cheap. Set by fail_after.
    _text: Callable[[], str] | None = None

    def __str__(self) -> str:
        return super().__str__() if self.args or self._text is None else self._text()

    def __repr__(self) -> str:
        # A log that prints the repr must not lose the text.
        text = "" if self.args else str(self)
        return f"{type(self).__name__}({text!r})" if text else super().__repr__()

    def __reduce__(self) -> Any:
        # The function has the traceback of the block.
        text = str(self)
        return (type(self), self.args or ((text,) if text else ()))


class BrokenWorkerProcess(Exception):
    """A worker process has ended, or could not be started, before it could return a result.

    Raised by :func:`nurseryio.to_process.run_sync`. The function may have done a part of its work.

    Attributes:
        pid: The process id; None if no process was started.
        exitcode: The exit status, or the negative number of the signal that has ended the process.
            None if it is not known.

    Trio: none.
    """

    def __init__(self, text: str, pid: int | None = None, exitcode: int | None = None) -> None:
        super().__init__(text)
        self.pid = pid
        self.exitcode = exitcode

    def __reduce__(self) -> Any:
        return (type(self), (*self.args, self.pid, self.exitcode))


class BrokenWorkerInterpreter(Exception):
    """A subinterpreter could not be made ready, or has failed outside of the function.

    Raised by :func:`nurseryio.to_interpreter.run_sync`. The cause is Python's error, if there is
    one.

    Trio: none.
    """


class NeedHandshakeError(Exception):
    """A TLS stream was asked for information that is known only after its handshake.

    Await ``do_handshake()`` on the stream first.

    Trio: ``trio.NeedHandshakeError``.
    """


class TrioDeprecationWarning(FutureWarning):
    """Warns of a use that Trio has deprecated.

    Trio: ``trio.TrioDeprecationWarning``.
    """


MISNESTING_ADVICE = """
Cancel scopes and nurseries must be left in the task that entered them, innermost first. This
one was not; what is inside it has been cancelled and cut off, the rest goes on. Usual causes:
  - a yield inside a scope or nursery, in an async generator or a fixture that is not an
    @asynccontextmanager: wrap the generator with nurseryio.as_safe_channel, or let the caller
    open the scope;
  - __enter__/__exit__ or __aenter__/__aexit__ called by hand, or an (Async)ExitStack that
    mixes the order: use 'with' and 'async with' blocks;
  - a context manager entered in one task and closed in another: let
    nurseryio.aio.enter_in_task(nursery, manager) run it in a task of its own;
  - asyncSetUp of a unittest.IsolatedAsyncioTestCase, whose methods run in different tasks:
    nurseryio.testing.AsyncTestCase runs them in one.
"""


def misnested(what: str, exc: BaseException | None) -> RuntimeError:
    """The error for scopes that are not left in order."""
    error = RuntimeError(f"Cancel scope stack corrupted: {what}\n{MISNESTING_ADVICE}")
    error.__context__ = exc
    return error


def not_entered(block: object, exc: BaseException | None) -> RuntimeError:
    """The error for the exit of a scope or nursery that was never entered."""
    error = RuntimeError(
        f"attempted to exit {block!r}, which has not been entered: its entry was not called, or "
        "failed"
    )
    error.__context__ = exc
    return error


# Failures of the engine itself, not of code that it calls. The operation is tried again.
ENGINE_ERRORS = (MemoryError, RecursionError)
