"""``watchers``: who looks at this process while it runs, and the switches of what they need.

Some facts cannot be found out later: which line has set a deadline, which channels there are. They
are noted only while a watcher looks, or a loop is in debug mode. Noting is switched on by replacing
a variable of the module in question. So code that is not watched does nothing for it.

Rule: a function in :data:`switches` does not fail, and may be called with the same value twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from .forked import in_child, process_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._asyncio.compat import Loop

__all__ = [
    "Watcher",
    "is_in_debug_mode",
    "look_for_debug",
    "made",
    "switches",
    "unwatch",
    "watch",
    "watchers",
]


class Watcher(Protocol):
    """The method of a watcher that is called in the threads that it watches."""

    def made(self, thing: Any) -> None: ...


# A dict, because its copy() is atomic. The values do not matter.
watchers: dict[Watcher, None] = {}

# Functions to call with True when notes are wanted, and with False when they are not any more.
switches: list[Callable[[bool], object]] = []

# Whether a loop in debug mode is known.
_debug = False

_switching = process_lock(globals(), "_switching")


def watch(watcher: Watcher) -> None:
    """Add a watcher. Its ``made()`` is called with each channel that is made."""
    with _switching:
        watchers[watcher] = None
        _switch()


def unwatch(watcher: Watcher) -> None:
    """Remove a watcher. Does nothing if it is not there."""
    with _switching:
        watchers.pop(watcher, None)
        _switch()


def look_for_debug(loops: Callable[[], Iterable[Loop]]) -> None:
    """Find out whether a loop of this process is in debug mode.

    Args:
        loops: a function that returns the loops. It is called under the lock, so that of two
            threads with new loops the second one sees both.
    """
    global _debug
    with _switching:
        _debug = any(is_in_debug_mode(loop) for loop in loops())
        _switch()


def is_in_debug_mode(loop: Loop | None) -> bool:
    """Whether a loop is in debug mode. One that has been switched to it is noted."""
    global _debug
    try:
        found = loop is not None and loop.get_debug()
    except (AttributeError, NotImplementedError):  # a loop does not have to implement it
        return False
    if found and not _debug:
        with _switching:
            _debug = True
            _switch()
    return found


def _switch() -> None:
    wanted = _debug or bool(watchers)
    for switch in switches:
        switch(wanted)


@in_child
def _forget() -> None:
    # The threads of the parent's watchers do not exist here.
    watchers.clear()
    _switch()


def made(thing: Any) -> None:
    """Call each watcher with a new channel. Called only while there are some. Raises nothing."""
    for watcher in watchers.copy():
        try:
            watcher.made(thing)
        except Exception:
            continue  # near the limit of the stack
