"""Waking a loop that sleeps when a signal of the operating system arrives.

Python calls a signal's handler in the main thread, between two bytecodes. If the system chooses to
interrupt another thread, or the main thread just before it goes to sleep in the loop's wait for
events, the handler has to wait until something else wakes the loop, perhaps for ever. Python's
wake-up descriptor mends that: a byte is written to it at once, in whichever thread.

Rule 1: a wake-up descriptor that the loop has set (uvloop does, asyncio does for handlers of its
own) or somebody else has, stays. So ask while the loop runs.
"""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .host import Loop


class SignalWakeup:
    """A wake-up descriptor that wakes one loop. For the main thread only."""

    def __init__(self) -> None:
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._loop: Loop | None = None

    def install(self, loop: Loop) -> None:
        """From now on signals wake ``loop``, which is running."""
        global _installed
        if _installed is not None and _installed._loop is loop:
            return
        before = signal.set_wakeup_fd(-1)
        if before != -1:
            signal.set_wakeup_fd(before)
            return
        ours, pythons = self._sockets = socket.socketpair()
        ours.setblocking(False)
        pythons.setblocking(False)
        signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        _installed = self
        self._loop = loop
        # Called again as long as there is more to read.
        loop.add_reader(ours, ours.recv, 4096)

    def remove(self) -> None:
        """Take it away, if it was installed."""
        global _installed
        if self._sockets is None:
            return
        _installed = None
        ours, pythons = self._sockets
        current = signal.set_wakeup_fd(-1)
        if current not in (-1, pythons.fileno()):
            signal.set_wakeup_fd(current)  # a handler was added to the loop meanwhile
        assert self._loop is not None
        self._loop.remove_reader(ours)
        self._sockets = self._loop = None
        ours.close()
        pythons.close()


# To put back a descriptor that was only asked for would change when Python warns, so a second one
# for the same loop is not even asked for.
_installed: SignalWakeup | None = None
