"""Replacing a signal handler for a while, and restoring the handler from before.

The handlers themselves are in ``_core.ki`` and ``_system.signals``.

Rule 1: replacements may be ended in any order. If a later replacement is in force for the signal,
it will restore the handler from before this one.

Rule 2: in a forked child the handlers from before are restored. So a signal has the same effect
there as in a process that has never run a loop.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from .forked import in_child

if TYPE_CHECKING:
    from collections.abc import Callable

# The replacements that have not been ended, in the order in which they were made.
_standing: list[Replaced] = []


class Replaced:
    """A handler of ``signum`` that replaces another one for a while. For the main thread.

    Args:
        signum: The signal.
        handler: The new handler, installed now.

    Raises:
        ValueError: There is no such signal.
        OSError: The signal cannot be caught.
    """

    __slots__ = ("before", "handler", "signum")

    def __init__(self, signum: int, handler: Callable[[int, Any], object]) -> None:
        self.signum = signum
        self.handler = handler
        self.before = signal.getsignal(signum)
        _standing.append(self)
        try:
            signal.signal(signum, handler)
        except BaseException:
            _standing.remove(self)
            raise

    def give_back(self, unless_taken: bool = False) -> None:
        """Restore the handler from before. A second call does nothing.

        Args:
            unless_taken: If other code has set another handler meanwhile, keep that handler.
        """
        if self not in _standing:
            return
        for other in _standing:
            if other.signum == self.signum and other.before is self.handler:
                other.before = self.before
                break
        else:
            if not unless_taken or self._is_in_charge():
                signal.signal(self.signum, self.before)
        _standing.remove(self)

    def _is_in_charge(self) -> bool:
        return signal.getsignal(self.signum) is self.handler


@in_child
def _give_all_back() -> None:
    for replaced in reversed(_standing):
        if replaced._is_in_charge():
            signal.signal(replaced.signum, replaced.before)
    _standing.clear()
