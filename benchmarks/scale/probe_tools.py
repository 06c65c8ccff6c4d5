"""What the probes of every library measure with."""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from ..network.server import resident


class MemoryGauge:
    """Resident memory between its making and `used`."""

    def __init__(self) -> None:
        gc.collect()
        self._before = resident()

    def used(self) -> int:
        """Return the bytes that came on top since this gauge was made."""
        gc.collect()
        return resident() - self._before


class IdleGauge:
    """CPU time against wall time between its making and `share`."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def share(self) -> float:
        """Return the CPU seconds per wall second since this gauge was made, in percent."""
        cpu = time.process_time() - self._cpu
        return 100 * cpu / (time.perf_counter() - self._wall)


class RefusingFuture(asyncio.Future[None]):
    """A future that says no to every cancellation, and counts them."""

    refused = 0

    def cancel(self, msg: Any | None = None) -> bool:
        self.refused += 1
        return False


class StubbornTask:
    """An asyncio task that swallows every cancellation until its time is over, and counts them."""

    def __init__(self, seconds: float) -> None:
        self.swallowed = 0
        self._end = time.monotonic() + seconds
        self.task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while (left := self._end - time.monotonic()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                self.swallowed += 1
