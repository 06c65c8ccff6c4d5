"""Checks of clogged pairs of streams, on which every send waits until something is received.

This module checks ``wait_send_all_might_not_block`` and sends that wait, one function per topic.
Checks that do not need a clogged pair are in ``one_way``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from .._base import BrokenResourceError, BusyResourceError, ClosedResourceError
from .._loop.selector_idle import wait_all_tasks_blocked
from .._net.generic import aclose_forcefully
from .._nursery import open_nursery
from .support import expect, fresh, wait_writable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._base import AsyncResource, HalfCloseableStream, ReceiveStream, SendStream
    from .._nursery import CancelScope
    from .support import StreamMaker

    Maker = StreamMaker[SendStream, ReceiveStream]
    TwoWayMaker = StreamMaker[HalfCloseableStream, HalfCloseableStream]


async def check_waits_until_received(maker: Maker) -> None:
    """``wait_send_all_might_not_block`` waits, until the receiver makes room."""
    async with fresh(maker) as (sender, receiver):
        record: list[str] = []

        async def wait_for_room(scope: CancelScope) -> None:
            record.append("sender waits")
            await wait_writable(sender)
            record.append("sender woke")
            scope.cancel()

        async def make_room() -> None:
            await wait_all_tasks_blocked()
            record.append("receiver starts")
            while True:
                await receiver.receive_some(16384)

        async with open_nursery() as nursery:
            nursery.start_soon(wait_for_room, nursery.cancel_scope)
            await wait_all_tasks_blocked()
            nursery.start_soon(make_room)

        assert record == ["sender waits", "receiver starts", "sender woke"], (
            "wait_send_all_might_not_block() must wait on a clogged stream, and wake when the "
            f"receiver makes room; got this order: {record}"
        )


async def check_two_senders(maker: Maker) -> None:
    """If two tasks send, or wait to send, at the same time, one of them gets an error."""
    # A send that was cancelled half-way may have broken the stream: a new pair each time.
    async with fresh(maker) as (sender, _):
        with expect(BusyResourceError, in_group=True):
            async with open_nursery() as nursery:
                nursery.start_soon(sender.wait_send_all_might_not_block)
                nursery.start_soon(sender.wait_send_all_might_not_block)

    async with fresh(maker) as (sender, _):
        with expect(BusyResourceError, in_group=True):
            async with open_nursery() as nursery:
                nursery.start_soon(sender.wait_send_all_might_not_block)
                nursery.start_soon(sender.send_all, b"123")

    async with fresh(maker) as (sender, _):
        with expect(BusyResourceError, in_group=True):
            async with open_nursery() as nursery:
                nursery.start_soon(sender.send_all, b"123")
                nursery.start_soon(sender.send_all, b"123")


async def check_receiver_gone(maker: Maker) -> None:
    """Closing the receiver ends the wait for room, with or without an error."""
    async with fresh(maker) as (sender, receiver):

        async def wait_for_room() -> None:
            with suppress(BrokenResourceError):
                await wait_writable(sender)

        async with open_nursery() as nursery:
            nursery.start_soon(wait_for_room)
            await wait_all_tasks_blocked()
            await aclose_forcefully(receiver)

    async with fresh(maker) as (sender, receiver):
        await aclose_forcefully(receiver)
        with suppress(BrokenResourceError):
            await wait_writable(sender)


async def close_when_idle(resource: AsyncResource) -> None:
    """Close forcefully, once all other tasks wait."""
    await wait_all_tasks_blocked()
    await aclose_forcefully(resource)


async def check_close_wakes_sender(maker: Maker) -> None:
    """A task that waits in the sender is woken with an error when the sender is closed."""
    async with fresh(maker) as (sender, _), open_nursery() as nursery:
        nursery.start_soon(close_when_idle, sender)
        with expect(ClosedResourceError):
            await sender.send_all(b"xyzzy")

    async with fresh(maker) as (sender, _), open_nursery() as nursery:
        nursery.start_soon(close_when_idle, sender)
        with expect(ClosedResourceError):
            await sender.wait_send_all_might_not_block()


async def check_close_does_not_wait_for_receiver(maker: Maker) -> None:
    """A graceful close ends soon, even if a task is sending or a cancelled send has left data."""
    async with fresh(maker) as (sender, _):

        async def expect_closed() -> None:
            with expect(ClosedResourceError):
                await sender.send_all(ENOUGH_TO_WAIT)

        async with open_nursery() as nursery:
            nursery.start_soon(expect_closed)
            await wait_all_tasks_blocked()
            await _expect_prompt_close(sender, "while another task is sending")

    async with fresh(maker) as (sender, _):
        async with open_nursery() as nursery:
            nursery.start_soon(sender.send_all, ENOUGH_TO_WAIT)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        await _expect_prompt_close(sender, "after a send was cancelled")


# In bytes. Some transports accept a little more although they are clogged, but not this much.
ENOUGH_TO_WAIT = bytes(2**20)


async def _expect_prompt_close(resource: AsyncResource, when: str) -> None:
    async with open_nursery() as nursery:
        ended: list[bool] = []

        async def close() -> None:
            await resource.aclose()
            ended.append(True)

        nursery.start_soon(close)
        await wait_all_tasks_blocked()
        if not ended:
            nursery.cancel_scope.cancel()
            raise AssertionError(f"aclose() must not wait for the receiver {when}")


CLOGGED_CHECKS: tuple[Callable[[Maker], Awaitable[None]], ...] = (
    check_waits_until_received,
    check_two_senders,
    check_receiver_gone,
    check_close_wakes_sender,
    check_close_does_not_wait_for_receiver,
)


async def check_eof_while_sending(maker: TwoWayMaker) -> None:
    """If one task sends, or waits to send, and one calls ``send_eof``, one gets an error."""
    async with fresh(maker) as (sender, _):
        with expect(BusyResourceError, in_group=True):
            async with open_nursery() as nursery:
                nursery.start_soon(sender.send_all, b"x")
                await wait_all_tasks_blocked()
                nursery.start_soon(sender.send_eof)

    async with fresh(maker) as (sender, _):
        with expect(BusyResourceError, in_group=True):
            async with open_nursery() as nursery:
                nursery.start_soon(sender.wait_send_all_might_not_block)
                await wait_all_tasks_blocked()
                nursery.start_soon(sender.send_eof)
