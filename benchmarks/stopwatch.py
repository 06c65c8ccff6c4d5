"""The stopwatch that a row starts and stops around its timed part.

CPU seconds of the whole process (all its threads) and wall seconds are both kept: on a shared
machine the first is steady where the second is not, but only the second sees waiting. Which of them
a row is judged by stands in `benchmarks.rows`.
"""

from __future__ import annotations

import gc
import time


class Stopwatch:
    """Measures one stretch of work, once."""

    __slots__ = ("_cpu", "_wall", "cpu", "wall")

    def __init__(self) -> None:
        self.cpu = 0.0
        self.wall = 0.0

    def start(self) -> None:
        """Begin the timed part.

        Garbage of the set-up is collected first; the collector stays on, as users have it.
        """
        gc.collect()
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def stop(self) -> None:
        """End the timed part."""
        self.cpu = time.process_time() - self._cpu
        self.wall = time.perf_counter() - self._wall
