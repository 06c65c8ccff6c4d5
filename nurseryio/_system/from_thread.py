"""From a thread back into the event loop: ``from_thread.run``, ``run_sync``, ``check_cancelled``.

anyio's functions are not used, for two reasons. There a call from a worker thread runs in a new
task. Here it runs in the task that waits for the thread, so it sees that task's scopes and
cancellations. And here a thread that other code has started may call too, with a token.

A request reaches the loop in one of two ways. If a task waits for the thread and cannot abandon
it, the request is served by that task (``Hop.ask``). Requests of all other threads, with a token or
abandonable, are served by a system task or a callback of the loop.

Rule 1: the calling thread blocks until it is answered, and it *is* answered: when the call ends,
when the call cannot begin, or when the task that should make the call ends. A loop that is closed
makes no more calls. Closing it answers the threads that still wait (``_asyncio.closing``).
:class:`_Request` also answers when it is finalized. That is for a request that an error has thrown
out of the code between its queue and its task. No other case relies on it, because the thread that
waits may be the one that would have to finalize the request.

Rule 2: the function is called in a copy of the thread's context. It changes nothing in the task's
context.
"""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._asyncio.closing import closing_of
from .._asyncio.compat import running_loop
from .._base import Error, RunFinishedError, Value, coroutine_or_error
from .._base.exc_fields import explained
from .._base.library_name import call_outside_task
from .._base.unsupported import needs
from .._core import disable_ki_protection
from .._core.loop_state import WHENCE
from .._core.task import current_state, drivers
from .._run.system_tasks import spawn_system_task
from .._run.token import TrioToken
from .thread_call import call_in_loop, current_hop, function_name

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator

    from typing_extensions import TypeVarTuple, Unpack

    from .._asyncio.closing import Closing
    from .._base import Outcome
    from .thread_call import Hop

    ArgsT = TypeVarTuple("ArgsT")

__all__ = ["from_thread_check_cancelled", "from_thread_run", "from_thread_run_sync"]

RetT = TypeVar("RetT")

_TOO_EARLY = "the event loop ended before it could make this call"

# Seconds between two looks at a loop that does not let its ``close`` be replaced.
_LOOK_AGAIN = 1.0

_NOT_OURS = "this thread wasn't created by Trio"
_CALL_DIRECTLY = (
    "an event loop runs in this thread: in a task of that loop call the function directly, or "
    "await it; to call a function in another loop use token.run_sync_soon(function)"
)


# -- requests -------------------------------------------------------------------


class _Request(ABC, Generic[RetT]):
    """A call that a thread asks for in the loop's thread, and the queue for the answer."""

    __slots__ = ("_answers", "_args", "_context", "_fn")

    def __init__(
        self, fn: Callable[..., Any], args: tuple[Any, ...], answers: SimpleQueue[Outcome[RetT]]
    ) -> None:
        # None once the thread has been answered.
        self._answers: SimpleQueue[Outcome[RetT]] | None = answers
        self._fn = fn
        self._args = args
        self._context = copy_context()

    def __del__(self) -> None:
        if hasattr(self, "_answers"):  # else __init__ has failed, and its error was raised
            self.refuse()

    @abstractmethod
    async def serve(self) -> None:
        """Make the call, in the task that waits for the thread."""

    @abstractmethod
    def serve_in_callback(self) -> None:
        """Make the call in a callback of the loop, or start a task that makes it."""

    def refuse(self, error: BaseException | None = None) -> None:
        """Answer the thread with an error, unless it has been answered already."""
        if self._answers is not None:
            if error is None:
                error = RunFinishedError(_TOO_EARLY)
            self._answer(Error(error))

    def _answer(self, outcome: Outcome[RetT]) -> None:
        if self._answers is not None:
            self._answers.put(outcome)
            self._answers = None


class _SyncRequest(_Request[RetT]):
    """A call of a sync function."""

    __slots__ = ()

    async def serve(self) -> None:
        """Make the call, in the task that waits for the thread."""
        self._serve()

    def serve_in_callback(self) -> None:
        """Make the call, in a callback of the loop."""
        call_outside_task(self._serve)

    def _serve(self) -> None:
        try:
            result = self._call()
        except BaseException as error:
            self._answer(Error(error))
        else:
            self._answer(Value(result))

    @disable_ki_protection
    def _call(self) -> RetT:
        result = self._context.run(self._fn, *self._args)
        if isinstance(result, types.CoroutineType):
            result.close()
            raise explained(
                TypeError(
                    f"nurseryio expected a synchronous function, but {function_name(self._fn)} "
                    "appears to be asynchronous"
                ),
                "use from_thread.run in place of from_thread.run_sync",
            )
        return result  # type: ignore[no-any-return]


class AsyncRequest(_Request[RetT]):
    """A call of an async function."""

    __slots__ = ()

    async def serve(self) -> None:
        """Make the call, in the task that waits for the thread."""
        await self._answer_with(self._in_context(self._call()))

    def serve_in_callback(self) -> None:
        """Make the call, in a system task."""
        try:
            task = spawn_system_task(self._serve_in_own_task, name=self._fn, context=self._context)
            # The task may end before its first step.
            task.asyncio_task.add_done_callback(self._task_ended)
        except BaseException as error:
            if _is_ending():
                self.refuse(RunFinishedError("the run is ending and starts no more system tasks"))
            else:
                self.refuse(error)

    def _task_ended(self, _asyncio_task: object) -> None:
        self.refuse()

    async def _serve_in_own_task(self) -> None:
        await self._answer_with(self._call())

    async def _answer_with(self, call: Awaitable[RetT]) -> None:
        try:
            result = await call
        except BaseException as error:
            if self._answers is None:
                raise  # the waiting task is being destroyed, see _in_context()
            if isinstance(error, GeneratorExit) and not _in_loop():
                self.refuse()  # the system task is being destroyed
            else:
                self._answer(Error(error))
        else:
            self._answer(Value(result))

    @disable_ki_protection
    async def _call(self) -> RetT:
        return await coroutine_or_error(self._fn, *self._args)

    @types.coroutine
    def _in_context(self, coro: Coroutine[Any, Any, RetT]) -> Generator[Any, Any, RetT]:
        """Await a coroutine in the thread's context, not in the task's.

        asyncio does not let a task change its context, so each step enters the thread's context.
        """
        context = self._context
        step: Callable[..., Any] = coro.send
        arg: Any = None
        try:
            while True:
                try:
                    waits_for = context.run(step, arg)
                except StopIteration as stop:
                    return stop.value  # type: ignore[no-any-return]
                try:
                    arg = yield waits_for
                    step = coro.send
                except GeneratorExit:
                    self.refuse()
                    context.run(coro.close)
                    raise
                except BaseException as error:
                    step, arg = coro.throw, error
        finally:
            del arg  # no reference cycle: the frames of an error refer to this one


drivers.add(AsyncRequest._in_context.__code__)


def _in_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        running_loop()
    except RuntimeError:
        return False
    return True


def _is_ending() -> bool:
    """Whether the running loop belongs to a run that starts no more system tasks."""
    run = current_state().run
    return run is not None and (run.system_nursery is None or run.system_nursery._closed)


# -- the calling thread ---------------------------------------------------------


def _way_in(
    token: TrioToken | None,
) -> tuple[asyncio.AbstractEventLoop, Callable[[_Request[Any]], None]]:
    """The right loop, and the function by which the calling thread sends a request to it."""
    hop = _checked(token)
    if token is not None:
        if token._closed:
            raise RunFinishedError("run() has exited")
        loop = token._state.loop
        return loop, partial(_send, loop)
    assert hop is not None
    return hop.loop, partial(_send, hop.loop) if hop.abandon else hop.ask


def _checked(token: TrioToken | None) -> Hop | None:
    """Raise an error if it is not clear which loop is meant. Returns this thread's hop, if any."""
    hop = current_hop()
    if token is None and hop is None:
        raise explained(
            RuntimeError(f"{_NOT_OURS}, pass kwarg trio_token=..."),
            _CALL_DIRECTLY
            if _in_loop()
            else f"it says which loop is meant. The token comes from {WHENCE}",
        )
    if token is not None and not isinstance(token, TrioToken):
        raise RuntimeError("Passed kwarg trio_token is not of type TrioToken")
    return hop


def _send(loop: asyncio.AbstractEventLoop, request: _Request[Any]) -> None:
    call_in_loop(loop, request.serve_in_callback)


def _ask(
    request_type: type[_Request[Any]],
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    token: TrioToken | None,
) -> Any:
    """Send a request, and wait for its answer."""
    if _in_loop():
        _checked(token)
        raise explained(
            RuntimeError("this is a blocking function; call it from a thread"), _CALL_DIRECTLY
        )
    return _ask_and_block(request_type, fn, args, token)


def _ask_and_block(
    request_type: type[_Request[Any]],
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    token: TrioToken | None,
) -> Any:
    loop, send = _way_in(token)
    answers: SimpleQueue[Outcome[Any]] = SimpleQueue()
    with answered_at_close(loop, answers) as wait:
        # This thread keeps no reference to the request, so that the loop frees what it refers to.
        send(request_type(fn, args, answers))
        try:
            outcome = wait()
        except BaseException:
            if token is None:
                # Until then the task serves this request, and cannot take a result.
                wait()
            raise
    try:
        return outcome.unwrap()
    finally:
        del outcome  # no reference cycle


@contextmanager
def answered_at_close(
    loop: asyncio.AbstractEventLoop, answers: SimpleQueue[Outcome[RetT]]
) -> Iterator[Callable[[], Outcome[RetT]]]:
    """In the block a thread may wait for a loop: it is answered when the loop is closed, too.

    Returns:
        The function that waits for an answer.
    """
    closing = closing_of(loop)

    def wait() -> Outcome[RetT]:
        if loop.is_closed():
            _loop_closed(answers)
        return _wait(answers, loop, closing)

    try:
        if closing is not None:
            closing.add(answers, partial(_loop_closed, answers))
        yield wait
    finally:
        if closing is not None:
            closing.discard(answers)


def _loop_closed(answers: SimpleQueue[Outcome[Any]]) -> None:
    """Answer a thread whose loop is closed. The thread takes the first answer only."""
    answers.put(Error(RunFinishedError(_TOO_EARLY)))


def _wait(
    answers: SimpleQueue[Outcome[RetT]],
    loop: asyncio.AbstractEventLoop,
    closing: Closing | None,
) -> Outcome[RetT]:
    if closing is not None:
        return answers.get()
    while True:  # a loop that does not report that it is closed
        try:
            return answers.get(timeout=_LOOK_AGAIN)
        except Empty:
            if loop.is_closed():
                _loop_closed(answers)


def run_sync_blocking(token: TrioToken, fn: Callable[..., RetT], *args: Any) -> RetT:
    """Do the same as :func:`from_thread_run_sync`, also in a thread whose own loop this blocks.

    Raises:
        RunFinishedError: The loop of the token has ended.
        Exception: Any error that ``fn`` raised.
    """
    return _ask_and_block(_SyncRequest, fn, args, token)  # type: ignore[no-any-return]


@needs("threads", "from_thread.run()")
def from_thread_run(
    afn: Callable[[Unpack[ArgsT]], Awaitable[RetT]],
    *args: Unpack[ArgsT],
    trio_token: TrioToken | None = None,
) -> RetT:
    """Run an async function in the event loop's thread, and wait for its result.

    In a thread started by :func:`nurseryio.to_thread.run_sync`, ``afn`` runs in the task that
    waits for the thread, inside that task's cancel scopes. With a token, or if that task may
    abandon the thread, it runs in a system task.

    Args:
        afn: The async function.
        *args: Its positional arguments.
        trio_token: A token of the loop in which ``afn`` is to run, from
            :func:`nurseryio.lowlevel.current_trio_token`. It is needed in threads that were not
            started by :func:`nurseryio.to_thread.run_sync`.

    Returns:
        The result of ``afn``.

    Raises:
        Cancelled: The task that waits for the thread was cancelled while ``afn`` ran, or, with a
            token, the run ended meanwhile. ``afn`` did not catch the cancellation.
        RunFinishedError: The loop has ended, or is ending and starts no new system tasks.
        RuntimeError: The calling thread runs an event loop, which this would block; or no token
            was given and the thread is not a worker thread; or ``trio_token`` is not a token.
        TypeError: ``afn`` is not an async function.
        Exception: Any error that ``afn`` raised.

    Checkpoint: no, this blocks its thread.

    Trio: ``trio.from_thread.run``.
    """
    return _ask(AsyncRequest, afn, args, trio_token)  # type: ignore[no-any-return]


@needs("threads", "from_thread.run_sync()")
def from_thread_run_sync(
    fn: Callable[[Unpack[ArgsT]], RetT],
    *args: Unpack[ArgsT],
    trio_token: TrioToken | None = None,
) -> RetT:
    """Call a sync function in the event loop's thread, and wait for its result.

    In a thread started by :func:`nurseryio.to_thread.run_sync`, ``fn`` is called by the task that
    waits for the thread. With a token, or if that task may abandon the thread, it is called in a
    callback of the loop.

    Args:
        fn: The function. It must not block, because that would block the whole loop.
        *args: Its positional arguments.
        trio_token: A token of the loop in which ``fn`` is to be called, from
            :func:`nurseryio.lowlevel.current_trio_token`. It is needed in threads that were not
            started by :func:`nurseryio.to_thread.run_sync`.

    Returns:
        The result of ``fn``.

    Raises:
        RunFinishedError: The loop has ended.
        RuntimeError: The calling thread runs an event loop, which this would block; or no token
            was given and the thread is not a worker thread; or ``trio_token`` is not a token.
        TypeError: ``fn`` is an async function.
        Exception: Any error that ``fn`` raised.

    Checkpoint: no, this blocks its thread.

    Trio: ``trio.from_thread.run_sync``.
    """
    return _ask(_SyncRequest, fn, args, trio_token)  # type: ignore[no-any-return]


@needs("threads", "from_thread.check_cancelled()")
def from_thread_check_cancelled() -> None:
    """Raise :exc:`Cancelled` if the task that waits for this thread has been cancelled.

    This is for functions that run for a long time. Call it now and then, at places where the
    function can end. It checks whether a cancellation was ever delivered to that call of
    :func:`nurseryio.to_thread.run_sync`, with any value of ``abandon_on_cancel``.

    Raises:
        Cancelled: The task has been cancelled.
        RuntimeError: The thread was not started by :func:`nurseryio.to_thread.run_sync`.

    Checkpoint: no, this is not an async function. It never blocks.

    Trio: ``trio.from_thread.check_cancelled``.
    """
    hop = current_hop()
    if hop is None:
        raise explained(
            RuntimeError(f"{_NOT_OURS}, can't check for cancellation"),
            "nurseryio.to_thread.run_sync creates such threads",
        )
    if hop.raise_cancel is not None:
        hop.raise_cancel()
