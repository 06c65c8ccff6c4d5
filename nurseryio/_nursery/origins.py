"""Which line has set a deadline: kept while a watcher looks, or a loop is in debug mode.

The line is in the entry of the deadline, as a fifth element, which is never compared. So it lives
as long as the deadline does, and needs no place in the scope.

``heappush`` of ``scope`` is replaced while lines are kept. So entering a scope does nothing for it
at other times.

Rule: noting a line fails without harm. The deadline is more important than its note.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

from .._base.call_stack import calls_if_wanted, text_of
from .._base.errors import CancelReason
from .._base.watchers import switches

if TYPE_CHECKING:
    from .._base.call_stack import Calls
    from .._core.deadlines import Entry

__all__ = ["DEADLINE", "note_in", "noted", "origin_of", "reason_now", "reason_of"]

DEADLINE = CancelReason("deadline")

# Whether lines are noted.
kept = False


@switches.append
def _switch(wanted: bool) -> None:
    global kept
    kept = wanted


def note_in(module: dict[str, Any]) -> None:
    """Have a module note the lines of its deadlines, while they are kept.

    Args:
        module: its ``globals()``, with ``heappush``.
    """

    @switches.append
    def switch(wanted: bool) -> None:
        module["heappush"] = _push if wanted else heapq.heappush


def noted(entry: Entry) -> Entry:
    """Note in the new entry of a deadline which line has set it, if that is wanted."""
    if kept:
        try:
            calls = calls_if_wanted()
            if calls is not None:
                entry.append(calls)
        except Exception:
            pass  # near the limit of the stack; rule of this file
    return entry


def _push(heap: list[Any], entry: Entry) -> None:
    """``heappush`` with the line that has set the deadline."""
    heapq.heappush(heap, noted(entry))


def origin_of(entry: Entry | None) -> Calls | None:
    """The calls that have set a deadline, innermost first; None if they were not kept."""
    return entry[4] if entry is not None and len(entry) > 4 else None


def reason_of(entry: Entry | None) -> CancelReason:
    """The reason of a scope that is cancelled because of its deadline."""
    calls = origin_of(entry)
    if calls is None:
        return DEADLINE
    try:
        return CancelReason("deadline", stack=text_of(calls))
    except Exception:
        return DEADLINE


def reason_now() -> CancelReason:
    """The reason of a scope that is due when it is entered, so that it never has an entry."""
    return reason_of(noted([0.0, 0, None, None]))
