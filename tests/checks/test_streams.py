"""The public checks: which checks they make, and what they want of two-way streams."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from harness.broken_streams import buffered, clogged

import nurseryio
from nurseryio.testing import (
    check_half_closeable_stream,
    check_one_way_stream,
    check_two_way_stream,
    memory_stream_pair,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup


class TwoWay(nurseryio.abc.HalfCloseableStream):
    """A good two-way stream, in front of another one."""

    def __init__(self, below: Any) -> None:
        self.below = below
        self.ended = False

    async def send_all(self, data: Any) -> None:
        await self.below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.below.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        await self.below.send_eof()

    async def receive_some(self, max_bytes: Any = None) -> bytes:
        return bytes(await self.below.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self.below.aclose()


class MixesUpLongData(TwoWay):
    async def send_all(self, data: Any) -> None:
        await self.below.send_all(bytes(data)[::-1] if len(data) > 200 else data)


class EndsBothWays(TwoWay):
    async def send_eof(self) -> None:
        await self.below.aclose()


class EndsOnce(TwoWay):
    async def send_eof(self) -> None:
        if self.ended:
            raise RuntimeError("ended already")
        self.ended = True
        await self.below.send_eof()


def pairs(left: type[TwoWay], right: type[TwoWay] | None = None) -> Any:
    async def make() -> tuple[TwoWay, TwoWay]:
        one, other = memory_stream_pair()
        return left(one), (right or left)(other)

    return make


async def test_check_one_way_two_way_and_half_closeable_stream_pass_good_streams() -> None:
    assert await check_one_way_stream(buffered(), clogged()) is None
    assert await check_two_way_stream(pairs(TwoWay), None) is None
    assert await check_half_closeable_stream(pairs(TwoWay), None) is None


async def test_check_two_way_stream_checks_both_directions() -> None:
    made = []

    async def make() -> Any:
        one, other = memory_stream_pair()
        made.append((one, other))
        return one, other

    used = set()

    async def make_left_only_once() -> Any:
        left, right = await make()
        used.add(id(left))
        return left, right

    await check_two_way_stream(make_left_only_once, None)
    assert len(made) == len(used) > 10

    class NotAStream:
        async def aclose(self) -> None:
            """Do nothing."""

    async def make_half() -> Any:
        one, _ = memory_stream_pair()
        return one, NotAStream()

    with pytest.raises(AssertionError, match=r"must be an abc\.ReceiveStream"):
        await check_two_way_stream(make_half, None)


async def test_data_that_arrives_changed_is_noticed_in_either_direction() -> None:
    for left, right in ((MixesUpLongData, TwoWay), (TwoWay, MixesUpLongData)):
        with pytest.raises(ExceptionGroup) as caught:
            await check_two_way_stream(pairs(left, right), None)
        assert caught.group_contains(AssertionError, match="not the data that was sent")


async def test_half_close_must_leave_the_other_direction_open() -> None:
    with pytest.raises(ExceptionGroup):
        await check_half_closeable_stream(pairs(EndsBothWays), None)


async def test_half_close_send_eof_may_be_called_again() -> None:
    with pytest.raises(RuntimeError, match="ended already"):
        await check_half_closeable_stream(pairs(EndsOnce), None)


async def test_stream_checks_require_the_abc_that_they_check() -> None:
    class OneWayLooking(nurseryio.abc.Stream):
        def __init__(self, below: Any) -> None:
            self.below = below

        send_all = TwoWay.send_all
        wait_send_all_might_not_block = TwoWay.wait_send_all_might_not_block
        receive_some = TwoWay.receive_some
        aclose = TwoWay.aclose

    with pytest.raises(AssertionError, match=r"must be an abc\.HalfCloseableStream"):
        await check_half_closeable_stream(pairs(OneWayLooking), None)  # type: ignore[arg-type]
