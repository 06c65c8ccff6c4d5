"""What the two kinds of ends of a memory channel have in common."""

from __future__ import annotations

from math import inf

import nurseryio
from nurseryio import open_memory_channel
from nurseryio.testing import wait_all_tasks_blocked


async def test_statistics_tell_the_state_of_the_whole_channel_from_every_end() -> None:
    sending, receiving = open_memory_channel[int](2)
    other = sending.clone()
    assert sending.statistics() == receiving.statistics() == other.statistics()
    statistics = sending.statistics()
    assert statistics.current_buffer_used == 0
    assert statistics.max_buffer_size == 2
    assert statistics.open_send_channels == 2
    assert statistics.open_receive_channels == 1
    assert statistics.tasks_waiting_send == 0
    assert statistics.tasks_waiting_receive == 0
    assert statistics.peak_buffer_used == 0
    other.close()
    receiving.clone().close()
    assert sending.statistics().open_send_channels == 1
    assert sending.statistics().open_receive_channels == 1
    assert open_memory_channel[int](inf)[0].statistics().max_buffer_size == inf


async def test_statistics_count_those_who_wait_on_all_ends_together() -> None:
    sending, receiving = open_memory_channel[int](0)
    async with nurseryio.open_nursery() as nursery:
        for end in (sending, sending.clone(), sending.clone()):
            nursery.start_soon(end.send, 1)
        await wait_all_tasks_blocked()
        assert receiving.statistics().tasks_waiting_send == 3
        nursery.cancel_scope.cancel()
    async with nurseryio.open_nursery() as nursery:
        for end in (receiving, receiving.clone()):
            nursery.start_soon(end.receive)
        await wait_all_tasks_blocked()
        assert sending.statistics().tasks_waiting_receive == 2
        nursery.cancel_scope.cancel()
    assert sending.statistics().tasks_waiting_receive == 0


async def test_the_peak_stays_when_the_buffer_empties_and_counts_no_direct_hand_over() -> None:
    sending, receiving = open_memory_channel[int](5)
    for item in range(3):
        sending.send_nowait(item)
    for _ in range(3):
        receiving.receive_nowait()
    sending.send_nowait(1)
    assert sending.statistics().peak_buffer_used == 3
    assert sending.statistics().current_buffer_used == 1
    sending, receiving = open_memory_channel[int](5)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(receiving.receive)
        await wait_all_tasks_blocked()
        sending.send_nowait(1)
    assert sending.statistics().peak_buffer_used == 0


async def test_an_end_tells_its_state_and_its_channels() -> None:
    sending, receiving = open_memory_channel[int](2)
    sending.send_nowait(1)
    assert "MemorySendChannel at" in repr(sending)
    assert "open" in repr(sending)
    assert "holds 1 of 2, 0 tasks sending, 0 receiving" in repr(sending)
    sending.close()
    assert "closed" in repr(sending)
    assert "MemoryReceiveChannel at" in repr(receiving)
    assert "open" in repr(receiving)


async def test_ends_are_async_resources() -> None:
    sending, receiving = open_memory_channel[int](0)
    assert isinstance(sending, nurseryio.abc.SendChannel)
    assert isinstance(receiving, nurseryio.abc.ReceiveChannel)
    async with sending as entered, receiving:
        assert entered is sending
    with sending as entered:
        assert entered is sending
    assert sending.statistics().open_send_channels == 0
