"""The long run that must not grow: a short one, and one with a leak."""

from __future__ import annotations

from typing import Any

import pytest
from harness import soak


@pytest.mark.run_only
async def test_memory_does_not_grow_in_a_short_soak() -> None:
    lines: list[str] = []
    await soak.soak(5_000, lines.append)  # the caches of the interpreter reach their size
    lines.clear()
    assert await soak.soak(10_000, lines.append) == []
    assert len(lines) == 10


@pytest.mark.run_only
async def test_a_soak_finds_a_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Any] = []

    async def leak() -> int:
        kept.extend([[]] for _ in range(100))
        return 200

    monkeypatch.setattr(soak, "WORK", (leak,))
    assert {"blocks", "objects"} <= set(await soak.soak(10_000, lambda _text: None))
