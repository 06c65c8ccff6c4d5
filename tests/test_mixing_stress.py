"""Random programs of nurseryio, asyncio and anyio: no invariant is ever broken.

``NURSERYIO_PROGRAMS`` sets how many each cell of the loop matrix runs, ``NURSERYIO_SEED`` the first
seed. A failure shows its seed and the program.
"""

from __future__ import annotations

import os
import zlib

import pytest
from harness.matrix import Case
from harness.mixture import Program

PROGRAMS = int(os.environ.get("NURSERYIO_PROGRAMS", "100"))
SEED = os.environ.get("NURSERYIO_SEED")


@pytest.mark.limit(max(60.0, PROGRAMS / 10))
async def test_random_mixtures_end_and_lose_nothing(loop_case: Case) -> None:
    # Each cell tries other programs.
    first = zlib.crc32(str(loop_case).encode()) if SEED is None else int(SEED)
    for seed in range(first, first + PROGRAMS):
        await Program(seed).run()
