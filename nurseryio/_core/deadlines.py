"""The heap of deadlines, and how dropped deadlines are pruned. It uses neither a clock nor a loop.

Rule 1: an entry is a list ``[when, sequence, function, argument]``. The sequence number makes a
comparison stop before the function, and keeps equal deadlines in order of arrival.

Rule 2: dropping an entry that is last in the heap removes it. The entry of the newest timeout often
is last. Dropping any other entry only blanks its function and argument. Blank entries are skipped
when met, and removed together once they outnumber the others. So dropping costs O(1), and a million
timeouts that never fire leave nothing behind.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from typing import Any

# Blank entries are removed together only if there are more than this.
SWEEP_AT = 64

Entry = list[Any]


class Deadlines:
    """A priority queue of functions to call at given times."""

    __slots__ = ("_dropped", "_heap", "_sequence")

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._sequence = 0
        # Invariant: not less than the number of blank entries in the heap. It is greater only after
        # an exception between two lines. Then the heap is cleaned a little earlier.
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._heap) - self._dropped

    def add(self, when: float, function: Any, argument: Any) -> Entry:
        """Add ``function(argument)``, to be handed out once ``when`` (seconds) is reached."""
        self._sequence = sequence = self._sequence + 1
        entry = [when, sequence, function, argument]
        heappush(self._heap, entry)
        return entry

    def drop(self, entry: Entry) -> None:
        """Remove an entry that has not been handed out yet. Doing so twice is harmless."""
        if entry[2] is None:
            return
        heap = self._heap
        if heap[-1] is entry:
            del heap[-1]
            entry[2] = entry[3] = None
            return
        self._dropped = dropped = self._dropped + 1
        entry[2] = entry[3] = None
        if dropped > SWEEP_AT and dropped * 2 > len(heap):
            self._heap = [entry for entry in heap if entry[2] is not None]
            heapify(self._heap)
            self._dropped = 0

    def next(self) -> float:
        """The earliest deadline that was not dropped, ``inf`` if there is none."""
        heap = self._heap
        while heap:
            if heap[0][2] is not None:
                when: float = heap[0][0]
                return when
            heappop(heap)
            self._dropped -= 1
        return inf

    def next_due(self, now: float, done: Entry | None = None) -> Entry | None:
        """Remove the entry that was handed out last, and hand out the next one that is due.

        An entry stays in the heap while its function is called, so that a failure loses nothing.

        Args:
            now: the time (seconds).
            done: the entry that the last call returned.

        Returns:
            The earliest entry that was not dropped, None if its time has not come.
        """
        heap = self._heap
        if done is not None:
            if heap and heap[0] is done:
                heappop(heap)
                done[2] = done[3] = None  # a later drop() must not count it
            else:
                self.drop(done)
        while heap:
            first = heap[0]
            if first[0] > now:
                return None
            if first[2] is not None:
                return first
            heappop(heap)
            self._dropped -= 1
        return None

    def _validate(self) -> None:
        """Check the invariants of this file (for tests and fuzzers)."""
        assert self._dropped >= sum(entry[2] is None for entry in self._heap)
        assert all(
            self._heap[(i - 1) // 2][:2] <= self._heap[i][:2] for i in range(1, len(self._heap))
        )
