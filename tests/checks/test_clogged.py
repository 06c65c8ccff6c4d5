"""The checks on a clogged stream: good streams pass them all, and each fault is found."""

from __future__ import annotations

from typing import Any

import pytest
from harness.broken_streams import FAULTY_CLOGGED_SENDERS, buffered, clogged, says

import nurseryio
from nurseryio._checks.clogged import CLOGGED_CHECKS, check_eof_while_sending
from nurseryio.testing import check_one_way_stream, lockstep_stream_one_way_pair


@pytest.mark.parametrize("check", CLOGGED_CHECKS, ids=lambda check: check.__name__)
async def test_a_good_clogged_stream_passes(check: Any) -> None:
    assert await check(clogged()) is None


@pytest.mark.parametrize("sender", FAULTY_CLOGGED_SENDERS)
async def test_a_fault_of_a_clogged_stream_is_found(sender: Any) -> None:
    with pytest.raises(Exception) as caught:
        await check_one_way_stream(buffered(), clogged(sender))
    assert says(caught.value, FAULTY_CLOGGED_SENDERS[sender])


class Closeable(nurseryio.abc.HalfCloseableStream):
    """A half-closeable stream in front of a lockstep sender; ``polite`` if it keeps its promise."""

    def __init__(self, below: Any, polite: bool) -> None:
        self._below = below
        self._polite = polite

    async def send_all(self, data: Any) -> None:
        await self._below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._below.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        if self._polite:
            with self._below._queue._one_sender:
                await nurseryio.lowlevel.checkpoint()
        await self._below.aclose()

    async def receive_some(self, max_bytes: Any = None) -> bytes:
        raise AssertionError("not used by the check")

    async def aclose(self) -> None:
        await self._below.aclose()


@pytest.mark.parametrize("polite", [True, False])
async def test_half_close_send_eof_while_a_task_is_sending_must_raise_busy_resource_error(
    polite: bool,
) -> None:
    async def make() -> Any:
        sender, _ = lockstep_stream_one_way_pair()
        return Closeable(sender, polite), Closeable(sender, polite)

    if polite:
        assert await check_eof_while_sending(make) is None
    else:
        with pytest.raises(AssertionError, match="expected a group of one BusyResourceError"):
            await check_eof_while_sending(make)
