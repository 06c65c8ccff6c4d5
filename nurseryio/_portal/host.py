"""The thread of a portal, and the run in it: :class:`Host`.

The host does not refer to the :class:`Portal` that users hold. So a portal that a program forgets
is collected, and its finalizer ends the host.

Rule 1: a thread that waits for a call is answered: by the call, or when the loop is closed.

Rule 2: after ``KeyboardInterrupt``, or another error of a signal handler, a waiting thread cancels
its call, and waits until the call has cleaned up. A second one ends the wait at once. The call is
still cancelled then.

Rule 3: at the end of the program all hosts end, with what runs in them. This happens by ``atexit``,
after the threads that are not daemons have ended, because these may still use a portal. In a
subinterpreter the thread of a host is not a daemon, so it has to end earlier.

Rule 4: in a forked child the host of the parent refuses all calls, and its end is not waited for.
"""

from __future__ import annotations

import atexit
import sys
import threading
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from .._asyncio.interpreter import DAEMONS, before_threads_are_joined
from .._base import Error, Value, capture
from .._base.errors import RunFinishedError
from .._base.exc_fields import chain, without_own_frame
from .._base.exception_groups import bare_exit, is_cancelled, only_cancelled
from .._base.forked import generation, in_child
from .._base.util import call_each
from .._core.task import current_task
from .._nursery import CancelScope, open_nursery
from .._run.run import run
from .._run.token import current_trio_token
from .._sync import Event
from .._system.from_thread import answered_at_close, run_sync_blocking
from .._system.thread_call import call_in_loop, current_hop
from .call import CLOSED, PortalCall

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from .._base import Outcome
    from .._nursery import Nursery
    from .._run.token import TrioToken

# The hosts whose loops run.
_hosts: dict[Host, None] = {}


class Host:
    """An event loop in a separate thread.

    Args:
        name: The name of the thread, and of the loop's main task.
        loop_factory: As for :func:`nurseryio.run`.

    Attributes:
        nursery: The nursery of the main task. Each call is a child of it.
        token: The token of the loop.
        over: Set when the run has ended.
        failure: The error that has ended the run, for :meth:`close`.
    """

    nursery: Nursery
    token: TrioToken

    def __init__(
        self, name: str, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
    ) -> None:
        self.name = name
        self._loop_factory = loop_factory
        self._generation = generation()
        # Answered when calls can be made, or when the run has failed before that.
        self._started: SimpleQueue[Outcome[None]] = SimpleQueue()
        self._is_ready = False
        self._closing = Event()
        # The scopes of cleanup().
        self._cleanups: set[CancelScope] = set()
        # How the run is to end. Other threads set these, and then call _stop() in the loop.
        self.stopping: bool = False
        self._cancelling = False
        self.over: threading.Event = threading.Event()
        self.failure: BaseException | None = None
        options: dict[str, Any] = {}
        if sys.version_info >= (3, 14):
            # Otherwise the thread would keep the context of the code that started it alive.
            options["context"] = Context()
        self._thread = threading.Thread(target=self._work, name=name, daemon=DAEMONS, **options)

    def start(self) -> Host:
        """Start the thread, and wait until calls can be made.

        Returns:
            The host itself.

        Raises:
            RuntimeError: The system cannot start one more thread.
            BaseException: The error of ``loop_factory``.
        """
        _hosts[self] = None
        try:
            self._thread.start()
            self._started.get().unwrap()
        except BaseException:
            # The thread may run, if a signal handler has raised the error. It ends by itself.
            self.stop_soon(cancel=True)
            _hosts.pop(self, None)
            raise
        return self

    # -- in its thread --

    def _work(self) -> None:
        """The function that the thread runs."""
        try:
            run(self._main, loop_factory=self._loop_factory)
        except BaseException as error:
            if self._is_ready:
                self.failure = without_own_frame(error)
            else:
                self._started.put(Error(without_own_frame(error)))
        finally:
            _hosts.pop(self, None)
            self.over.set()

    async def _main(self) -> None:
        current_task().name = self.name
        async with open_nursery() as self.nursery:
            self.token = current_trio_token()
            self._is_ready = True
            if self.stopping:
                self._stop()
            self._started.put(Value(None))
            await self._closing.wait()

    def _stop(self) -> None:
        if self._cancelling:
            self.nursery.cancel_scope.cancel(reason="the portal was closed")
            for scope in self._cleanups:
                scope.shield = False
        self._closing.set()

    @contextmanager
    def cleanup(self) -> Iterator[None]:
        """A block that only the end of the portal cancels."""
        with CancelScope(shield=not self.nursery.cancel_scope.cancel_called) as scope:
            self._cleanups.add(scope)
            try:
                yield
            finally:
                self._cleanups.discard(scope)

    # -- in other threads --

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a forked child, and the thread is its parent's."""
        return self._generation != generation()

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the one of the loop."""
        return threading.get_ident() == self._thread.ident and not self.is_inherited

    def _waits_for_this_thread(self) -> bool:
        """Whether a task of the loop waits for the calling thread, and cannot abandon it."""
        hop = current_hop()
        if hop is None or hop.abandon or not self._is_ready:
            return False
        return hop.loop is self.token._state.loop

    def check_caller(self) -> None:
        """Raise an error if the calling thread cannot wait for this loop."""
        if self.is_inherited:
            raise RuntimeError(
                "this portal belongs to the parent process, whose threads do not exist in a forked "
                "child: open another one in the child, or use shared_portal()"
            )
        if self.is_here:
            raise RuntimeError(
                "this call would wait for itself: it was made in the thread of the portal's own "
                "event loop. Await the function there, or call the portal in a worker thread"
            )

    def _check_running(self) -> None:
        """Raise an error if the run has ended. At the end of the program little else works."""
        if self.over.is_set():
            raise RunFinishedError(CLOSED) from self.failure

    def ask(self, nursery: Nursery, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Await ``fn(*args)`` in a child of a nursery on the loop, and wait for the result."""
        self.check_caller()
        self._check_running()
        answers: SimpleQueue[Outcome[Any]] = SimpleQueue()
        call: PortalCall[Any] = PortalCall(nursery, fn, args, answers)
        with answered_at_close(self.token._state.loop, answers) as wait:
            try:
                self._send(call.serve_in_callback)
                outcome = wait()
            except RunFinishedError:
                raise
            except BaseException as error:
                self._interrupt(call, wait, error)
                raise
            finally:
                del call, args, fn
        try:
            return self.unwrap(outcome)
        finally:
            del outcome  # no reference cycle

    def unwrap(self, outcome: Outcome[Any]) -> Any:
        """Return or raise an outcome, as it leaves asyncio for plain code.

        A cancellation by the portal's end is a ``RunFinishedError``. A group around a lone
        ``SystemExit`` or ``KeyboardInterrupt`` is removed, as :func:`nurseryio.run` does.
        """
        if isinstance(outcome, Error):
            outcome = Error(bare_exit(outcome.error))
        try:
            return outcome.unwrap()
        except BaseException as error:
            if is_cancelled(error) and self.nursery.cancel_scope._effective:
                raise RunFinishedError("the portal was closed during this call") from error
            raise
        finally:
            del outcome  # no reference cycle

    def ask_sync(self, fn: Callable[..., Any], *args: Any) -> Any:
        """Call ``fn(*args)`` in a callback of the loop, and wait for the result."""
        self.check_caller()
        self._check_running()
        return self.unwrap(capture(run_sync_blocking, self.token, fn, *args))

    def _send(self, fn: Callable[[], object]) -> None:
        try:
            call_in_loop(self.token._state.loop, fn)
        except RunFinishedError:
            raise RunFinishedError(CLOSED) from self.failure

    def _interrupt(
        self, call: PortalCall[Any], wait: Callable[[], Outcome[Any]], error: BaseException
    ) -> None:
        """Cancel a call, and wait for its end. An error of its cleanup is shown with ``error``."""
        with suppress(RunFinishedError):  # the loop is closed, and has answered
            self._send(call.cancel)
        outcome = wait()
        try:
            if isinstance(outcome, Error) and not only_cancelled(outcome.error):
                chain(error, outcome.error)
        finally:
            del outcome, error  # no reference cycle

    def stop_soon(self, cancel: bool) -> None:
        """End the run once all calls have ended, or cancel them. It may be called in any thread.

        Does not block, so that finalizers may call this.
        """
        try:
            self._ask_to_stop(cancel)
        except BaseException:
            # A signal handler's error may have come before the loop got the request.
            self._ask_to_stop(cancel)
            raise

    def _ask_to_stop(self, cancel: bool) -> None:
        self._cancelling |= cancel
        self.stopping = True
        if self._is_ready and not self.is_inherited:
            with suppress(RunFinishedError):
                self.token.run_sync_soon(self._stop)

    def close(self, cancel: bool) -> None:
        """End the run, and wait for the end.

        Args:
            cancel: Cancel the calls that are being made. Otherwise they are waited for, until
                ``KeyboardInterrupt``, or another error of a signal handler, cancels them.

        Raises:
            RuntimeError: The calling thread is the one of the loop, or a task of the loop waits for
                the calling thread.
            BaseException: The error that has ended the run.
        """
        if self.is_inherited:
            return
        if self.is_here:
            self.check_caller()
        if not self.over.is_set() and self._waits_for_this_thread():
            raise RuntimeError(
                "the portal cannot be closed here: a task of its event loop waits for this thread. "
                "Close the portal in another thread"
            )
        try:
            self.stop_soon(cancel)
            self.over.wait()
        except BaseException:
            # The end of the program will not wait for it again.
            _hosts.pop(self, None)
            self.stop_soon(cancel=True)
            if not cancel:
                self.over.wait()
            raise
        self._thread.join()
        error, self.failure = self.failure, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # no reference cycle


def _end_all() -> None:
    """End all hosts, because the program ends. The first error is raised."""
    call_each(*(partial(host.close, cancel=True) for host in _hosts.copy()))


if DAEMONS:
    atexit.register(_end_all)
else:
    before_threads_are_joined(_end_all)


@in_child
def _forget_all() -> None:
    _hosts.clear()
