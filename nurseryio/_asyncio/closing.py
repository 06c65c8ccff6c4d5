"""Functions to call once a loop has been closed: :func:`closing_of`.

A thread that waits for a call in a loop has to be woken if the loop is closed before it makes the
call. No loop has a hook for that, and finalizers are not enough. In a free-threaded build an object
that another thread has dropped is finalized by the thread that made it. That thread may be the one
that waits.

Rule 1: ``close`` is replaced on the one loop object, from the first use until the loop is closed.

Rule 2: all functions here may be called in any thread. A function that is added before the loop is
closed is called. The caller looks at ``loop.is_closed()`` after adding one, because the loop may
have been closed just before.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .compat import Loop


class Closing:
    """The replacement of one loop's ``close``. It calls functions once the loop is closed."""

    __slots__ = ("_close", "_functions", "_loop")

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._close = loop.close
        self._functions: dict[object, Callable[[], object]] = {}

    def add(self, key: object, function: Callable[[], object]) -> None:
        """Have ``function()`` called, which must not raise, in the thread that closes the loop."""
        self._functions[key] = function

    def discard(self, key: object) -> None:
        """Forget the function that was added with this key."""
        self._functions.pop(key, None)

    def __call__(self) -> None:
        """Close the loop by its own method, then call the functions."""
        loop = self._loop
        try:
            self._close()
        finally:
            if loop.is_closed():
                attributes = vars(loop)
                if attributes.get("close") is self:
                    attributes.pop("close", None)  # no reference cycle
                # A copy, because other threads may add and discard meanwhile.
                for function in self._functions.copy().values():
                    function()


# Two threads may be the first ones that need the object of a loop. The lock is reentrant, because a
# finalizer may run while it is held.
_replacing = threading.RLock()


def renew_lock() -> None:
    """Called in a forked child: another thread of the parent may have held the lock."""
    global _replacing
    _replacing = threading.RLock()


def closing_of(loop: Loop) -> Closing | None:
    """The :class:`Closing` of a loop, made at first use.

    Returns:
        None if the loop does not let its method be replaced.
    """
    try:
        with _replacing:
            found: object = loop.close
            if not isinstance(found, Closing):
                found = Closing(loop)
                loop.close = found  # type: ignore[method-assign]
    except (MemoryError, RecursionError):
        raise
    except Exception:
        return None  # a class without such an attribute, or one that refuses to change it
    return found
