"""Handlers of signals that stand in the place of others for a while, and how those come back.

The handlers themselves are elsewhere, in ``ki`` and in ``signals`` of ``_system``.

Rule 1: handlers may be given back in any order. One that stands below another is taken out from
below it.

Rule 2: in a forked child the handlers from before are back: a signal means there what it means in
a process that has never run a loop.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from .forked import in_child

if TYPE_CHECKING:
    from collections.abc import Callable

# Those that stand, in the order in which they were put there.
_standing: list[Replaced] = []


class Replaced:
    """A handler of ``signum`` that stands in the place of another. For the main thread.

    Args:
        signum: The signal.
        handler: Is put there now.

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
        """Put the handler from before back. Does nothing the second time.

        Args:
            unless_taken: A handler that somebody else has put there meanwhile stays.
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
