"""Trio functions that cannot exist on asyncio raise an error that says what to do instead."""

from __future__ import annotations

import pytest

from nurseryio import lowlevel


def test_start_guest_run_is_refused() -> None:
    with pytest.raises(NotImplementedError, match="await your function in it"):
        lowlevel.start_guest_run(None)


@pytest.mark.parametrize(
    "name",
    [
        "permanently_detach_coroutine_object",
        "temporarily_detach_coroutine_object",
        "reattach_detached_coroutine_object",
    ],
)
async def test_detaching_and_reattaching_coroutine_objects_is_refused(name: str) -> None:
    with pytest.raises(NotImplementedError, match=f"^{name}.. moves a coroutine"):
        await getattr(lowlevel, name)(None)
