"""Streams in memory, without any buffer."""

from __future__ import annotations

import asyncio

import pytest

import nurseryio
from nurseryio.abc import ReceiveStream, SendStream
from nurseryio.testing import (
    check_one_way_stream,
    check_two_way_stream,
    lockstep_stream_one_way_pair,
    lockstep_stream_pair,
    wait_all_tasks_blocked,
)


async def one_way() -> tuple[SendStream, ReceiveStream]:
    return lockstep_stream_one_way_pair()


async def two_way() -> tuple[nurseryio.StapledStream, nurseryio.StapledStream]:
    return lockstep_stream_pair()


@pytest.mark.costly("many operations")
async def test_lockstep_streams_pass_check_one_way_and_check_two_way_stream() -> None:
    await check_one_way_stream(one_way, one_way)
    await check_two_way_stream(two_way, two_way)


async def test_back_pressure_a_lockstep_send_waits_for_its_receiver() -> None:
    sender, receiver = lockstep_stream_one_way_pair()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(sender.send_all, b"abc")
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        assert await receiver.receive_some() == b"abc"


async def test_both_lockstep_halves_can_be_closed_synchronously() -> None:
    sender, receiver = lockstep_stream_one_way_pair()
    sender.close()  # type: ignore[attr-defined]
    assert await receiver.receive_some() == b""
    with pytest.raises(nurseryio.ClosedResourceError):
        await sender.send_all(b"x")
    receiver.close()  # type: ignore[attr-defined]
    with pytest.raises(nurseryio.ClosedResourceError):
        await receiver.receive_some()


async def test_lockstep_streams_refuse_text_and_max_bytes_below_one() -> None:
    sender, receiver = lockstep_stream_one_way_pair()
    with pytest.raises(TypeError, match="encode"):
        await sender.send_all("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_bytes"):
        await receiver.receive_some(0)


async def test_repr_of_lockstep_streams_shows_bytes_to_hand_over_and_closed_sides() -> None:
    sender, receiver = lockstep_stream_one_way_pair()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(sender.send_all, b"abc")
        await wait_all_tasks_blocked()
        assert repr(sender).endswith(", 3 bytes to hand over>")
        await receiver.receive_some(1)
        assert repr(receiver).endswith(", 2 bytes to hand over>")
        await receiver.receive_some()
    await receiver.aclose()
    assert repr(sender).endswith(", receiver closed>")
    await sender.aclose()
    assert repr(receiver).endswith(", sender closed, receiver closed>")


async def test_a_native_cancel_of_a_woken_lockstep_receiver_takes_no_data() -> None:
    # Its request may not be raised before the task returns; then asyncio drops the result.
    left, right = lockstep_stream_pair()
    receiver = asyncio.ensure_future(right.receive_some())
    await wait_all_tasks_blocked()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(left.send_all, b"x")
        while not left.send_stream._queue._buffer:  # type: ignore[attr-defined]
            await asyncio.sleep(0)
        receiver.cancel()
        await asyncio.wait([receiver])
        assert receiver.cancelled()
        assert await right.receive_some() == b"x"
