"""Waking a sleeping loop when a signal arrives, by ``signal.set_wakeup_fd``.

Python calls the handler of a signal in the main thread, between two bytecodes. The system may
deliver the signal to another thread, or to the main thread just before the loop begins to wait for
events. Then the handler is not called until something else wakes the loop, perhaps never. Python's
wake-up descriptor solves this: a byte is written to it at once, in any thread.

Rule 1: the descriptor is the one by which other threads wake the loop too. So the loop does not
wait for any more descriptors than before.

Rule 2: a wake-up descriptor that other code has set is kept. A loop for which ``loop_parts`` does
not find a descriptor, such as uvloop's, sets one itself while it runs.

Rule 3: a forked child does not have a wake-up descriptor, because its signals must not wake the
parent's loop. (From Python 3.12 on asyncio does the same.)
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from .._asyncio import loop_parts
from .forked import generation, in_child

if TYPE_CHECKING:
    from .._asyncio.compat import Loop


class SignalWakeup:
    """Makes signals wake one loop. For the main thread only."""

    def __init__(self) -> None:
        self._loop: Loop | None = None
        self._generation = generation()
        # The descriptor that was set, and the one that had been set before.
        self._descriptor = self._before = -1

    def install(self, loop: Loop) -> None:
        """Make signals wake ``loop``, which is running, from now on."""
        descriptor = loop_parts.waking_descriptor(loop)
        if descriptor is None:
            return
        self.remove()
        # Recorded first, so that remove() undoes it if something fails here.
        self._loop, self._descriptor = loop, descriptor
        self._generation = generation()
        self._before = signal.set_wakeup_fd(descriptor, warn_on_full_buffer=False)
        if self._before != -1:
            self.remove()

    def remove(self) -> None:
        """Undo :meth:`install`, if it was called. May be called again if it has failed."""
        loop = self._loop if self._generation == generation() else None
        if loop is not None and not loop_parts.has_signal_handlers(loop):
            # Whether a descriptor had been set with the warning cannot be found out. A burst of
            # signals fills the buffer of a loop's descriptor and does no harm, so the descriptor is
            # restored without the warning.
            current = signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
            if current != self._descriptor:  # other code has set it since
                signal.set_wakeup_fd(current, warn_on_full_buffer=False)
        self._loop, self._before = None, -1


@in_child
def _wake_nobody() -> None:
    signal.set_wakeup_fd(-1)
