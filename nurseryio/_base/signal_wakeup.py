"""Waking a loop that sleeps when a signal of the operating system arrives.

Python calls a signal's handler in the main thread, between two bytecodes. If the system chooses to
interrupt another thread, or the main thread just before it goes to sleep in the loop's wait for
events, the handler has to wait until something else wakes the loop, perhaps for ever. Python's
wake-up descriptor mends that: a byte is written to it at once, in whichever thread.

Rule 1: the descriptor is the loop's own, by which other threads wake it too. So the loop is not
given anything to wait for that it did not have before.

Rule 2: a wake-up descriptor that somebody has set stays. A loop of which ``host`` knows none sets
one itself while it runs, as uvloop does.

Rule 3: a forked child has none: its signals must not wake the parent's loop. (From Python 3.12 on
asyncio sees to that too.)
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from .._asyncio import compat
from .forked import generation, in_child

if TYPE_CHECKING:
    from .._asyncio.compat import Loop


class SignalWakeup:
    """Has signals wake one loop. For the main thread only."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._generation = generation()
        # Which descriptor was set, and which one had been set before.
        self._descriptor = self._before = -1

    def install(self, loop: Loop) -> None:
        """From now on signals wake ``loop``, which is running."""
        descriptor = compat.waking_descriptor(loop)
        if descriptor is None:
            return
        self.remove()
        # Noted first, so that remove() undoes it if something fails here.
        self._loop, self._descriptor = loop, descriptor
        self._generation = generation()
        self._before = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
        if self._before != -1:
            self.remove()

    def remove(self) -> None:
        """Back to what was before, if anything was done. May be called again if it has failed."""
        loop = self._loop if self._generation == generation() else None
        if loop is not None and not compat.has_signal_handlers(loop):
            # How a descriptor is warned of cannot be asked for. A loop's own is full in a burst of
            # signals without any harm, so none is put back with the warning.
            current = signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
            if current != self._descriptor:  # somebody has set it since
                signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        self._loop, self._before = None, -1


@in_child
def _wake_nobody() -> None:
    signal.set_wakeup_fd(-1)
