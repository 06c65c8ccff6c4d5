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
    from collections.abc import Callable

__all__ = ["Watcher", "made", "note_debug", "switches", "unwatch", "watch", "watchers"]


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
    """Add a watcher. It is told of each channel that is made."""
    with _switching:
        watchers[watcher] = None
        _switch()


def unwatch(watcher: Watcher) -> None:
    """Remove a watcher. Does nothing if it is not there."""
    with _switching:
        watchers.pop(watcher, None)
        _switch()


def note_debug(debug: bool) -> None:
    """Say whether a loop of this process is in debug mode."""
    global _debug
    if debug is not _debug:
        with _switching:
            _debug = debug
            _switch()


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
    """Tell the watchers of a new channel. Called only while there are some."""
    for watcher in watchers.copy():
        watcher.made(thing)
