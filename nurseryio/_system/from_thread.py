"""From a thread back into the event loop: ``from_thread.run``, ``run_sync``, ``check_cancelled``.

Ours, not anyio's: there a call from a worker thread runs in a new task, here it runs in the very
task that waits for the thread (so it sees that task's scopes and cancellations), and a thread of
any origin may call with a token.

Two ways lead into the loop. A thread that a task waits for, and that the task cannot abandon,
asks that task (``Hop.ask``). All others, with a token or abandonable, get a system task or a
callback of the loop.

Rule 1: the calling thread sleeps until it is answered, and it *is* answered: by the call's end,
by the failure to begin it, by the end of the task that should have made it. A loop that is closed
while the request is in its queue calls nothing any more. So the loop alone owns the
:class:`_Request`, and there the request answers as it dies. (For this reason it does not go by
``TrioToken.run_sync_soon``: a token may be held for ever.)

Rule 2: what is called runs in a copy of the thread's context, and leaves no trace in the task's.
"""

from __future__ import annotations

import types
from abc import ABC, abstractmethod
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._asyncio.compat import running_loop
from .._base import Error, RunFinishedError, Value, coroutine_or_error
from .._base.util import safe_repr
from .._core import disable_ki_protection
from .._core.loop_state import WHENCE, current_state
from .._run import TrioToken, spawn_system_task
from .thread_call import call_in_loop, current_hop, function_name

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Coroutine, Generator

    from typing_extensions import TypeVarTuple, Unpack

    from .._base import Outcome

    ArgsT = TypeVarTuple("ArgsT")

__all__ = ["from_thread_check_cancelled", "from_thread_run", "from_thread_run_sync"]

RetT = TypeVar("RetT")

_NOT_OURS = "this thread was not started by nurseryio.to_thread.run_sync"


# -- requests -------------------------------------------------------------------


class _Request(ABC, Generic[RetT]):
    """A call that a thread wants made in the loop's thread, and where its answer goes."""

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
        if hasattr(self, "_answers"):  # else its making has failed, and the thread knows
            self.refuse()

    @abstractmethod
    async def serve(self) -> None:
        """Make the call, in the task that waits for the thread."""

    @abstractmethod
    def serve_in_callback(self) -> None:
        """Make the call, or start a task that does, in a callback of the loop."""

    def refuse(self, error: BaseException | None = None) -> None:
        """Answer the thread with an error, unless it has been answered."""
        if self._answers is not None:
            if error is None:
                error = RunFinishedError("the event loop ended before it could make this call")
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
        self.serve_in_callback()

    def serve_in_callback(self) -> None:
        """Make the call, in a callback of the loop."""
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
            raise TypeError(
                "from_thread.run_sync expected a synchronous function, but "
                f"{function_name(self._fn)} appears to be asynchronous; use from_thread.run"
            )
        return result  # type: ignore[no-any-return]


class _AsyncRequest(_Request[RetT]):
    """A call of an async function."""

    __slots__ = ()

    async def serve(self) -> None:
        """Make the call, in the task that waits for the thread."""
        await self._answer_with(self._in_context(self._call()))

    def serve_in_callback(self) -> None:
        """Make the call, in a system task."""
        try:
            task = spawn_system_task(self._serve_in_own_task, name=self._fn, context=self._context)
            # It may end without having made a step.
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
                raise  # the task is being destroyed, see _in_context()
            if isinstance(error, GeneratorExit) and not _in_loop():
                self.refuse()  # the same, for a task that only makes this call
            else:
                self._answer(Error(error))
        else:
            self._answer(Value(result))

    @disable_ki_protection
    async def _call(self) -> RetT:
        return await coroutine_or_error(self._fn, *self._args)

    @types.coroutine
    def _in_context(self, coro: Coroutine[Any, Any, RetT]) -> Generator[Any, Any, RetT]:
        """Await a coroutine with the thread's context, not the task's own.

        asyncio fixes a task's context for good, so each step enters the other one.
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
            del arg  # an error's frames know this one: no circle


def _in_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        running_loop()
    except RuntimeError:
        return False
    return True


def _is_ending() -> bool:
    """Whether the running loop is that of a run which starts no more system tasks."""
    run = current_state().run
    return run is not None and (run.system_nursery is None or run.system_nursery._closed)


# -- the calling thread ---------------------------------------------------------


def _way_in(token: TrioToken | None) -> Callable[[_Request[Any]], None]:
    """How the calling thread sends a request to the loop that is meant."""
    if token is not None:
        if not isinstance(token, TrioToken):
            raise RuntimeError(f"trio_token must be a TrioToken, not {safe_repr(token)}")
        if token._closed:
            raise RunFinishedError("run() has exited")
        return partial(_send, token._state.loop)
    hop = current_hop()
    if hop is None:
        raise RuntimeError(
            f"{_NOT_OURS}; pass trio_token=token to say which loop is meant. The token comes from "
            f"{WHENCE}"
        )
    return partial(_send, hop.loop) if hop.abandon else hop.ask


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
        raise RuntimeError(
            "this is a blocking function, and this thread runs an event loop: in a task of that "
            "loop call the function directly, or await it; to call a function in another loop use "
            "token.run_sync_soon(function)"
        )
    send = _way_in(token)
    answers: SimpleQueue[Outcome[Any]] = SimpleQueue()
    # No variable may hold the request while this thread waits, see rule 1.
    send(request_type(fn, args, answers))
    try:
        outcome = answers.get()
    except BaseException:
        if token is None:
            answers.get()  # until then the task serves this thread and gets nothing else from it
        raise
    try:
        return outcome.unwrap()
    finally:
        del outcome  # no circle


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
        trio_token: Says which loop is meant, from
            :func:`nurseryio.lowlevel.current_trio_token`. Needed in threads that were started by
            other means.

    Returns:
        What ``afn`` returned.

    Raises:
        Cancelled: The task that waits for the thread was cancelled while ``afn`` ran, or with a
            token the run ended meanwhile; if ``afn`` let it pass.
        RunFinishedError: The loop has ended, or is ending and starts no new system tasks.
        RuntimeError: The calling thread runs an event loop, which this would block; or no token
            was given and the thread is not a worker thread; or ``trio_token`` is no token.
        TypeError: ``afn`` is not an async function.
        Exception: Whatever ``afn`` raised.

    Checkpoint: no, this blocks its thread.

    Trio: ``trio.from_thread.run``.
    """
    return _ask(_AsyncRequest, afn, args, trio_token)  # type: ignore[no-any-return]


def from_thread_run_sync(
    fn: Callable[[Unpack[ArgsT]], RetT],
    *args: Unpack[ArgsT],
    trio_token: TrioToken | None = None,
) -> RetT:
    """Call a sync function in the event loop's thread, and wait for its result.

    In a thread started by :func:`nurseryio.to_thread.run_sync`, ``fn`` is called by the task that
    waits for the thread. With a token, or if that task may abandon the thread, it is called
    between two tasks' steps.

    Args:
        fn: The function. It must not block, as the whole loop would.
        *args: Its positional arguments.
        trio_token: Says which loop is meant, from
            :func:`nurseryio.lowlevel.current_trio_token`. Needed in threads that were started by
            other means.

    Returns:
        What ``fn`` returned.

    Raises:
        RunFinishedError: The loop has ended.
        RuntimeError: The calling thread runs an event loop, which this would block; or no token
            was given and the thread is not a worker thread; or ``trio_token`` is no token.
        TypeError: ``fn`` is an async function.
        Exception: Whatever ``fn`` raised.

    Checkpoint: no, this blocks its thread.

    Trio: ``trio.from_thread.run_sync``.
    """
    return _ask(_SyncRequest, fn, args, trio_token)  # type: ignore[no-any-return]


def from_thread_check_cancelled() -> None:
    """Raise :exc:`Cancelled` if the task that waits for this thread has been cancelled.

    For functions that run long: called now and then, it ends them at a place of their choosing.
    It asks whether a cancellation was ever delivered to that call of
    :func:`nurseryio.to_thread.run_sync`, whatever its ``abandon_on_cancel`` says.

    Raises:
        Cancelled: It has been cancelled.
        RuntimeError: The thread was not started by :func:`nurseryio.to_thread.run_sync`.

    Checkpoint: no, this is not an async function. It never blocks.

    Trio: ``trio.from_thread.check_cancelled``.
    """
    hop = current_hop()
    if hop is None:
        raise RuntimeError(f"{_NOT_OURS}, so there is no cancellation to look for")
    if hop.raise_cancel is not None:
        hop.raise_cancel()
