"""An application with everything in it: groups and scopes of three libraries, five levels deep."""

from __future__ import annotations

from typing import Any

import pytest
from harness import layers
from harness.core import needs_counts

# As much of it as there is on Python 3.10, too.
APPS = [
    pytest.param(("TaskGroup", "nursery", "anyio", "nursery", "timeout"), marks=needs_counts),
    pytest.param(("nursery", "timeout", "anyio", "TaskGroup", "scope"), marks=needs_counts),
    pytest.param(("anyio", "TaskGroup", "scope", "nursery", "anyio"), marks=needs_counts),
    ("anyio", "nursery", "scope", "anyio", "nursery"),
    ("nursery", "scope", "anyio", "scope", "anyio"),
]


@pytest.mark.parametrize("spread", [False, True], ids=["step_runner", "spread"])
@pytest.mark.parametrize("kinds", APPS, ids="-".join)
async def test_nested_asyncio_anyio_and_nurseryio_blocks_leave_nothing_whatever_happens(
    kinds: Any, spread: bool
) -> None:
    await layers.each_act(kinds, spread)
