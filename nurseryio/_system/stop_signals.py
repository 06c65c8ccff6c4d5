"""Signals that ask a program to stop: :func:`stop_on_signals`.

Rule 1: the first signal requests a stop of the block's scope, the second one cancels the scope.
Both are done in a callback of the loop, so a loop that is blocked does not notice them.

Rule 2: the third signal is not this module's. The handlers from before are restored, and it is
raised again for them. As a rule, they end the process. This is done in the signal handler, so it
also helps if the loop is blocked.

Rule 3: a signal that arrives while the block is being left is raised again for the handler from
before, as in ``signals``.
"""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager, ExitStack
from math import inf
from typing import TYPE_CHECKING

from .._asyncio.compat import running_loop
from .._base.forked import generation
from .._base.signal_handlers import Replaced
from .._base.signal_wakeup import SignalWakeup
from .._base.unsupported import needs
from .._base.util import SECONDS, as_float
from .._nursery import CancelScope
from .._run.token import current_trio_token
from .signals import check

if TYPE_CHECKING:
    from types import FrameType, TracebackType

__all__ = ["stop_on_signals"]


@needs("signals")
def stop_on_signals(
    *signals: signal.Signals | int, grace_period: float = inf
) -> AbstractContextManager[CancelScope]:
    """Let signals stop the code in a ``with`` block: gently first, at once if they come again.

    ::

        async def main():
            with nurseryio.stop_on_signals(grace_period=20):
                await nurseryio.serve_tcp(handler, 8080)

    The first signal calls :meth:`CancelScope.request_stop` of the block's scope. The second one
    cancels the scope. At the third one the handlers from before are restored, and it is raised
    again for them. After the block the program continues, so its exit code is its own choice.

    Args:
        *signals: The signals. None stands for ``SIGTERM`` and ``SIGINT``.
        grace_period: Seconds from the first signal until the scope is cancelled, not negative.

    Returns:
        A context manager that gives the :class:`CancelScope` around the block. Afterwards
        ``stop_requested`` is true if a signal came, and ``cancelled_caught`` if the block was cut
        short.

    Raises:
        TypeError: An argument is not a number.
        ValueError: ``grace_period`` is negative or NaN, or there is no such signal.
        RuntimeError: This is not the main thread of the main interpreter, the only one where
            Python allows it; or no task is running. Or the handler of a signal was installed by C
            code, so Python could not restore it.
        OSError: A signal cannot be caught, for example ``SIGKILL``.

    Checkpoint: no, entering and leaving are not async.

    Trio: none.
    """
    grace_period = as_float(grace_period, "grace_period", SECONDS)
    if grace_period < 0:
        raise ValueError("grace_period must be non-negative")
    return _StopOnSignals(signals or (signal.SIGTERM, signal.SIGINT), grace_period)


class _StopOnSignals(AbstractContextManager["CancelScope"]):
    """The context manager. While it is open, its handlers replace those from before."""

    def __init__(self, signals: tuple[signal.Signals | int, ...], grace_period: float) -> None:
        self._signals = signals
        self._grace_period = grace_period
        self._scope = CancelScope()
        self._undo = ExitStack()
        self._generation = generation()
        # How many signals have arrived, and those that the loop has not noticed yet.
        self._arrived = 0
        self._unnoticed: list[int] = []
        self._noticed = 0
        self._is_open = True

    def __enter__(self) -> CancelScope:
        check(self._signals, "stop_on_signals")
        token = current_trio_token()
        wakeup = SignalWakeup()

        def on_signal(signum: int, frame: FrameType | None) -> None:
            self._arrived += 1
            if self._arrived > 2:
                self._undo.close()
                before = signal.getsignal(signum)
                if callable(before):
                    before(signum, frame)  # it may look at the code that was interrupted
                else:
                    signal.raise_signal(signum)
            else:
                self._unnoticed.append(signum)
                token.run_sync_soon(self._notice)

        scope = self._scope.__enter__()
        try:
            self._undo.callback(wakeup.remove)
            wakeup.install(running_loop())
            for signum in dict.fromkeys(self._signals):
                self._undo.callback(Replaced(signum, on_signal).give_back)
        except BaseException as error:
            self._undo.close()
            scope.__exit__(type(error), error, error.__traceback__)
            raise
        return scope

    def _notice(self) -> None:
        """Act on a signal, in a callback of the loop."""
        if not self._is_open or not self._unnoticed:
            return
        del self._unnoticed[0]
        self._noticed += 1
        if self._noticed == 1:
            self._scope.request_stop(self._grace_period)
        else:
            self._scope.cancel("a second signal to stop has arrived")

    def __exit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        try:
            self._undo.close()
        finally:
            self._is_open = False
            try:
                swallowed = self._scope.__exit__(etype, exc, tb)
            finally:
                # Signals that arrived in the parent are not raised again in a forked child.
                if self._generation == generation():
                    self._raise_again()
        return swallowed

    def _raise_again(self) -> None:
        # Recursive, so that the second one is raised even if a handler raises an error.
        if self._unnoticed:
            try:
                signal.raise_signal(self._unnoticed.pop(0))
            finally:
                self._raise_again()
