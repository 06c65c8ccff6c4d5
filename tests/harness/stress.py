"""Scenarios under stress: many random schedules, then one cancellation at every single await.

Each cell of the loop matrix starts from its own seed, so that one run of the tests sees many more
schedules than one cell does. ``NURSERYIO_SCHEDULES`` sets how many each cell tries.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Awaitable, Callable

from harness.matrix import Case
from nurseryio._checks.schedules import Schedule, cancel_at_every_await, random_schedules

RUNS = int(os.environ.get("NURSERYIO_SCHEDULES", "60"))


async def stress(scenario: Callable[[Schedule], Awaitable[object]], case: Case) -> None:
    """Run a scenario on this cell's random schedules, and with a cancellation at each await.

    Fails if the scenario does, and if its actors were never cancelled.
    """
    seed = zlib.crc32(f"{case} {scenario.__qualname__}".encode())
    assert await random_schedules(scenario, runs=RUNS, seed=seed) > RUNS // 4
    assert await cancel_at_every_await(scenario, seed=seed, delays=1) > 10
