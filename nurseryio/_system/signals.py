"""Waiting for signals of the operating system: :func:`open_signal_receiver`.

Ours, not anyio's or the loop's: neither passes on a signal that arrived but was not looked at, and
a loop's ``add_signal_handler`` forgets the handler that was there before.

Rule 1: a signal is noted by a handler of the :mod:`signal` module, which runs in the main thread
between two bytecodes. It does nothing but ask the loop for a call.

Rule 2: a loop that sleeps is woken, whichever thread the system chose to interrupt: a wake-up
descriptor is set, unless the loop or somebody else has set one.

Rule 3: no signal is lost. What nobody has looked at when the receiver is closed is sent again, to
the handlers that were there before.

A handler that was registered with ``loop.add_signal_handler`` for the same signal is called too
while a receiver is open, as loops hear of signals by the wake-up descriptor.
"""

from __future__ import annotations

import signal
import threading
from collections import OrderedDict
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from .._asyncio.compat import running_loop
from .._base import ConflictDetector
from .._base.forked import generation
from .._base.signal_handlers import Replaced
from .._base.signal_wakeup import SignalWakeup
from .._core import checkpoint
from .._run import current_trio_token
from .._sync import ParkingLot

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import FrameType

    from typing_extensions import Self

__all__ = ["open_signal_receiver"]


def open_signal_receiver(
    *signals: signal.Signals | int,
) -> AbstractContextManager[AsyncIterator[int]]:
    """Receive signals in a task, while the ``with`` block lasts, instead of having handlers called.

    ::

        with nurseryio.open_signal_receiver(signal.SIGHUP) as received:
            async for signum in received:
                reload_configuration()

    A signal that arrives several times before it is looked at is received once. Signals that
    were not looked at when the block is left are raised again, for the handlers from before. In a
    forked child these handlers are back from the start.

    Args:
        *signals: The signals to receive.

    Returns:
        A context manager that gives an async iterator of signal numbers, in the order of arrival,
        for one task at a time. It never ends by itself.

    Raises:
        TypeError: No signal was given, or something else than the number of one.
        RuntimeError: This is not the main thread, the only one where Python allows it; or no
            loop is running; or the handler of a signal was installed below Python, by C code, and
            could not be put back; or, from the iterator, the block has been left.
        ValueError: There is no such signal.
        OSError: The signal cannot be caught, as ``SIGKILL``.
        BusyResourceError: From the iterator: another task is using it.

    Checkpoint: no, entering and leaving are not async. Each step of the iterator is one.

    Trio: ``trio.open_signal_receiver``.
    """
    return _Receiving(signals)


class _Receiving(AbstractContextManager["AsyncIterator[int]"]):
    """The context manager: while it is open its handlers are in the place of others.

    Not a ``@contextmanager``, which assigns to fields of the exceptions that pass it.
    """

    def __init__(self, signals: tuple[signal.Signals | int, ...]) -> None:
        self._signals = signals
        self._receiver = _SignalReceiver()
        self._undo = ExitStack()
        self._generation = generation()

    def __enter__(self) -> AsyncIterator[int]:
        _check(self._signals)
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
            # What has arrived in the parent is not raised again in a forked child.
            if self._generation == generation():
                self._receiver.close()


def _check(signals: tuple[signal.Signals | int, ...]) -> None:
    if not signals:
        raise TypeError("No signals were provided: name at least one to wait for")
    for signum in signals:
        if not isinstance(signum, int):
            raise TypeError(f"signals are numbers, such as signal.SIGTERM, not {signum!r}")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "open_signal_receiver works in Python's main thread only: open it in a loop that runs "
            "there"
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
        """A signal has arrived. May come late, when the receiver is closed."""
        if self._closed:
            signal.raise_signal(signum)
        else:
            self._arrived[signum] = None
            self._waiting.unpark()

    def close(self) -> None:
        """Pass on what has arrived, after the former handlers are back."""
        self._closed = True
        self._raise_again()

    def _raise_again(self) -> None:
        # Recursive so that a handler that raises keeps nobody else from hearing of a signal, and
        # the errors are chained.
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
            raise RuntimeError("the open_signal_receiver block has been left")
        with self._detector:
            if self._arrived:
                await checkpoint()
            else:
                await self._waiting.park()
            signum, _ = self._arrived.popitem(last=False)
        return signum
