"""Nurseries and the task groups of asyncio and anyio, three deep: each level succeeds, fails, is
cancelled by its own means, and has its task cancelled natively.

The invariants are in ``harness.layers``; the results of each act are here.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from harness import layers
from harness.core import needs_counts

GROUPS = ("nursery", "TaskGroup", "anyio")
TOWERS = [
    pytest.param(kinds, id="-".join(kinds), marks=[needs_counts] if "TaskGroup" in kinds else [])
    for kinds in itertools.product(GROUPS, repeat=3)
    if "nursery" in kinds
]


@pytest.mark.parametrize("spread", [False, True], ids=["step_runner", "spread"])
@pytest.mark.parametrize("kinds", TOWERS)
async def test_each_of_three_nested_asyncio_anyio_or_nurseryio_blocks_ends_in_each_way(
    kinds: Any, spread: bool
) -> None:
    await layers.each_act(kinds, spread)
