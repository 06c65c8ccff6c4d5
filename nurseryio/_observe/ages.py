"""Since when: how long a task has waited, a lock was held, a scope has been cancelled.

The engine keeps no times, because that would cost each wait something. So an observer, such as the
watchdog, looks at the loop again and again. :class:`Ages` compares each look with the one before.
What is the same in both has lasted for at least the time between them.

Rule 1: an age is never too high. A wait is the same if the task waits for the same future. A lock
was held by one owner if another task has waited for it all that time. An owner that lets go
of such a lock gets it again only after that task.

Rule 2: looking keeps nothing alive. A task or future that does not allow weak references is left
out.

Rule 3: one thread calls :meth:`Ages.look`. Any thread may read: each look replaces the tables.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from .._asyncio import compat
from .._base.forked import in_child
from .._core.scope_tree import chain
from .._core.task import records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .._asyncio.compat import Loop
    from .._core.scope_tree import Node
    from .._core.task import Task

__all__ = ["Ages", "cancelled_for", "held_for", "queue_of", "waited_for"]


class _Wait(NamedTuple):
    """A wait that was seen: of which task, for what, since when; the lock's owner, since when."""

    task: ref[Any]
    future: ref[Any]
    since: float
    owner: ref[Task] | None
    held_since: float


class Ages:
    """The waits that were seen on one loop, and since when.

    Args:
        loop: The event loop.
        clock: The clock, in seconds.
    """

    def __init__(self, loop: Loop, clock: Callable[[], float] = time.monotonic) -> None:
        self.loop = loop
        self.clock = clock
        self._waits: dict[int, _Wait] = {}
        self._cancelled: dict[int, tuple[ref[Any], float]] = {}
        # How many tasks the last look has found.
        self.count = 0

    def show(self) -> None:
        """Have trees and explanations show these ages."""
        _shown[self] = None

    def hide(self) -> None:
        """Undo :meth:`show`."""
        _shown.pop(self, None)

    def look(self) -> list[Node]:
        """Look once.

        Returns:
            The scopes that are cancelled, and that a task is in.
        """
        found = [record for record in records.copy().values() if record._state.loop is self.loop]
        self._waits = self._look_at_waits(found)
        nodes = _cancelled_in(found)
        before = self._cancelled
        cancelled = {}
        for node in nodes:
            seen = before.get(id(node))
            cancelled[id(node)] = (
                seen if seen is not None and seen[0]() is node else (ref(node), self.clock())
            )
        self._cancelled = cancelled
        return nodes

    def _look_at_waits(self, found: list[Task]) -> dict[int, _Wait]:
        # A lock's queue, with the owner: the end of a task breaks the locks that it owns.
        owners: dict[int, Task] = {}
        for record in found:
            for lot in record._extra.breakers or ():
                owners[id(lot._parked)] = record
        before = self._waits
        waits = {}
        task: Any
        tasks = asyncio.all_tasks(self.loop)
        self.count = len(tasks)
        for task in tasks:
            try:
                future = compat.waiter(task)
                if future is None or future.done():
                    continue
                waiting = records.get(task)
                owner = None
                if owners and waiting is not None:
                    owner = owners.get(id(queue_of(waiting)))
                seen = before.get(id(task))
                if seen is None or seen.task() is not task or seen.future() is not future:
                    # The clock is read after the wait was seen: rule 1.
                    now = self.clock()
                    seen = _Wait(ref(task), ref(future), now, None, now)
                if (None if seen.owner is None else seen.owner()) is not owner:
                    seen = seen._replace(
                        owner=None if owner is None else ref(owner), held_since=self.clock()
                    )
                waits[id(task)] = seen
            except Exception:
                continue  # rule 2, and futures of other libraries that raise
        return waits

    # -- reading -----------------------------------------------------------------------

    def wait_of(self, task: Any) -> _Wait | None:
        """The wait of a task, if it is still the one that was seen last."""
        seen = self._waits.get(id(task))
        if seen is None or seen.future() is not compat.waiter(task) or seen.task() is not task:
            return None
        return seen

    def cancelled_since(self, node: Node) -> float | None:
        """When a scope was first seen cancelled."""
        seen = self._cancelled.get(id(node))
        return None if seen is None or seen[0]() is not node else seen[1]


def queue_of(task: Task) -> dict[Any, Any] | None:
    """The queue in which a task waits for a lock, a channel or the like; None if it does not."""
    if task._park is None:
        return None
    queue = getattr(task, "_abort", None)
    return queue if isinstance(queue, dict) else None


def _cancelled_in(found: list[Task]) -> list[Node]:
    nodes: dict[Node, None] = {}
    visited: set[Node] = set()
    for record in found:
        for node in chain(record.scope, None):
            if node in visited:
                break  # and all around it
            visited.add(node)
            if node._called and node._task is not None:
                nodes[node] = None
    return list(nodes)


# The ages that trees and explanations show.
_shown: dict[Ages, None] = {}
in_child(_shown.clear)


def _ages_of(loop: Loop) -> list[Ages]:
    return [ages for ages in _shown.copy() if ages.loop is loop] if _shown else []


def waited_for(loop: Loop, task: Any) -> float | None:
    """For how many seconds, at least, an asyncio task has waited in its present wait.

    None if that is not known.
    """
    return _longest(
        ages.clock() - wait.since
        for ages in _ages_of(loop)
        if (wait := ages.wait_of(task)) is not None
    )


def held_for(loop: Loop, task: Any, owner: int) -> float | None:
    """For how many seconds, at least, the lock that a task waits for has had its present owner.

    Args:
        loop: The event loop.
        task: The asyncio task that waits.
        owner: The ``id()`` of the owner's record.
    """
    return _longest(
        ages.clock() - wait.held_since
        for ages in _ages_of(loop)
        if (wait := ages.wait_of(task)) is not None
        and wait.owner is not None
        and id(wait.owner()) == owner
    )


def cancelled_for(loop: Loop, node: Node) -> float | None:
    """For how many seconds, at least, a scope has been cancelled; None if that is not known."""
    return _longest(
        ages.clock() - since
        for ages in _ages_of(loop)
        if (since := ages.cancelled_since(node)) is not None
    )


def _longest(seconds: Iterable[float]) -> float | None:
    return max(seconds, default=None)
