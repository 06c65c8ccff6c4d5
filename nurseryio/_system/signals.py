"""Receiving signals of the operating system in a task: :func:`open_signal_receiver`.

anyio's function and the loop's ``add_signal_handler`` are not used. A signal that arrived but was
not received is lost in both. And ``add_signal_handler`` forgets the handler from before.

Rule 1: a handler of the :mod:`signal` module notes the signal. Python calls it in the main thread,
between two bytecodes. The handler only schedules a callback of the loop.

Rule 2: a signal wakes a loop that sleeps, even if the system interrupted another thread. For this a
wake-up descriptor is set, unless the loop or other code has set one.

Rule 3: no signal is lost. Signals that were not received when the receiver is closed are raised
again, for the handlers from before.

If a handler was registered with ``loop.add_signal_handler`` for the same signal, it is called too
while a receiver is open. The reason is that loops learn of signals from the wake-up descriptor.
"""

from __future__ import annotations

import signal
import threading
from collections import OrderedDict
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from .._asyncio.compat import running_loop
from .._asyncio.interpreter import SIGNAL_HANDLERS
from .._base import ConflictDetector
from .._base.exc_fields import explained
from .._base.forked import generation
from .._base.signal_handlers import Replaced
from .._base.signal_wakeup import SignalWakeup
from .._base.unsupported import needs
from .._core import checkpoint
from .._run.token import current_trio_token
from .._sync import ParkingLot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import FrameType

    from typing_extensions import Self

__all__ = ["open_signal_receiver"]


@needs("signals")
def open_signal_receiver(
    *signals: signal.Signals | int,
) -> AbstractContextManager[AsyncIterator[int]]:
    """Receive signals in a task, in place of their handlers, while the ``with`` block lasts.

    ::

        with nurseryio.open_signal_receiver(signal.SIGHUP) as received:
            async for signum in received:
                reload_configuration()

    A signal that arrives several times before it is received is received once. Signals that have
    arrived but were not received when the block is left are raised again, for the handlers from
    before. A forked child starts with the handlers from before.

    Args:
        *signals: The signals to receive.

    Returns:
        A context manager that returns an async iterator of signal numbers, in the order of
        arrival, for one task at a time. The iterator never ends.

    Raises:
        TypeError: No signal was given, or an argument is not a number.
        RuntimeError: This is not the main thread of the main interpreter, the only one where
            Python allows it; or no loop is running. Or the handler of a signal was installed by C
            code, so Python could not restore it. Or, from the iterator: the block has been left.
        ValueError: There is no such signal.
        OSError: The signal cannot be caught, for example ``SIGKILL``.
        BusyResourceError: From the iterator: another task is using it.

    Checkpoint: no, entering and leaving are not async. Each step of the iterator is one.

    Trio: ``trio.open_signal_receiver``.
    """
    return _Receiving(signals)


class _Receiving(AbstractContextManager["AsyncIterator[int]"]):
    """The context manager. While it is open, its handlers replace those from before.

    It is not made by ``@contextmanager``, which would assign to fields of the exceptions that
    leave the block.
    """

    def __init__(self, signals: tuple[signal.Signals | int, ...]) -> None:
        self._signals = signals
        self._receiver = _SignalReceiver()
        self._undo = ExitStack()
        self._generation = generation()

    def __enter__(self) -> AsyncIterator[int]:
        if not self._signals:
            raise TypeError("No signals were provided")
        check(self._signals, "open_signal_receiver")
        token = current_trio_token()
        receiver = self._receiver
        wakeup = SignalWakeup()

        def on_signal(signum: int, _frame: FrameType | None) -> None:
            token.run_sync_soon(receiver.note, signum, idempotent=True)

        try:
            with ExitStack() as undo:
                undo.callback(wakeup.remove)
                wakeup.install(running_loop())
                for signum in dict.fromkeys(self._signals):
                    undo.callback(Replaced(signum, on_signal).give_back)
                self._undo = undo.pop_all()
        except BaseException:
            receiver.close()
            raise
        return receiver

    def __exit__(self, *_exc_details: object) -> None:
        try:
            self._undo.close()
        finally:
            # Signals that arrived in the parent are not raised again in a forked child.
            if self._generation == generation():
                self._receiver.close()


def check(signals: tuple[signal.Signals | int, ...], caller: str) -> None:
    """Check that handlers of these signals can be replaced here, for a public function."""
    for signum in signals:
        if not isinstance(signum, int):
            raise TypeError(f"signals are numbers, such as signal.SIGTERM, not {signum!r}")
    if not SIGNAL_HANDLERS:
        raise RuntimeError(
            f"{caller} works in Python's main interpreter only: open it in a loop that "
            "runs there, and send the signal's number to this interpreter through a queue"
        )
    if threading.current_thread() is not threading.main_thread():
        raise explained(
            RuntimeError(
                f"Sorry, {caller} is only possible when running in Python interpreter's main thread"
            ),
            "open it in a loop that runs there",
        )
    for signum in signals:
        if signal.getsignal(signum) is None:
            raise RuntimeError(
                f"cannot receive signal {signum}: its handler was installed below Python, by C "
                "code, and Python could not put it back afterwards; install one by "
                "signal.signal() before, if the one that is there may go"
            )


class _SignalReceiver:
    """The signals that have arrived, oldest first."""

    def __init__(self) -> None:
        self._arrived: OrderedDict[int, None] = OrderedDict()
        self._waiting = ParkingLot()
        self._detector = ConflictDetector(
            "only one task can iterate on a signal receiver at a time"
        )
        self._closed = False

    def note(self, signum: int) -> None:
        """Record that a signal has arrived. If the receiver is closed already, raise it again."""
        if self._closed:
            signal.raise_signal(signum)
        else:
            self._arrived[signum] = None
            self._waiting.unpark()

    def close(self) -> None:
        """Raise the signals that have arrived again. The handlers from before must be back."""
        self._closed = True
        self._raise_again()

    def _raise_again(self) -> None:
        # Recursive, so that the other signals are raised even if a handler raises an error, and
        # so that the errors are chained.
        if self._arrived:
            signum, _ = self._arrived.popitem(last=False)
            try:
                signal.raise_signal(signum)
            finally:
                self._raise_again()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        if self._closed:
            raise RuntimeError("open_signal_receiver block already exited")
        with self._detector:
            if self._arrived:
                await checkpoint()
            else:
                await self._waiting.park()
            signum, _ = self._arrived.popitem(last=False)
        return signum
