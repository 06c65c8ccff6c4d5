"""The checks on a one-way stream: good streams pass them all, and each fault is found."""

from __future__ import annotations

from typing import Any

import pytest
from harness.broken_streams import FAULTY_RECEIVERS, FAULTY_SENDERS, buffered, clogged, says

from nurseryio._checks.one_way import ONE_WAY_CHECKS
from nurseryio.testing import check_one_way_stream


@pytest.mark.parametrize("check", ONE_WAY_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("maker", [buffered(), clogged()], ids=["buffered", "clogged"])
async def test_check_one_way_stream_passes_a_good_stream(check: Any, maker: Any) -> None:
    assert await check(maker) is None


@pytest.mark.parametrize("sender", FAULTY_SENDERS)
async def test_check_one_way_stream_finds_a_fault_of_the_sender(sender: Any) -> None:
    with pytest.raises(Exception) as caught:
        await check_one_way_stream(buffered(sender=sender), None)
    assert says(caught.value, FAULTY_SENDERS[sender])


@pytest.mark.parametrize("receiver", FAULTY_RECEIVERS)
async def test_check_one_way_stream_finds_a_fault_of_the_receiver(receiver: Any) -> None:
    with pytest.raises(Exception) as caught:
        await check_one_way_stream(buffered(receiver=receiver), None)
    assert says(caught.value, FAULTY_RECEIVERS[receiver])
