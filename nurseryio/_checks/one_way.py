"""Checks of one-way streams, one function per topic; each makes new streams.

Every pair of sender and receiver must pass them. Checks of clogged pairs are in ``clogged``, those
of two-way streams in ``streams``.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._base import (
    BrokenResourceError,
    BusyResourceError,
    Cancelled,
    ClosedResourceError,
    ReceiveStream,
    SendStream,
)
from .._loop.selector_idle import wait_all_tasks_blocked
from .._net.generic import aclose_forcefully
from .._nursery import CancelScope, open_nursery
from .support import close, expect, fresh, receive, receive_exactly, send, wait_writable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .support import Bytes, StreamMaker

    Maker = StreamMaker[SendStream, ReceiveStream]


async def check_transfer(maker: Maker) -> None:
    """Data arrives, whatever its type and size, and however ``receive_some`` is called."""
    async with fresh(maker) as (sender, receiver):
        assert isinstance(sender, SendStream), f"{sender!r} must be an abc.SendStream"
        assert isinstance(receiver, ReceiveStream), f"{receiver!r} must be an abc.ReceiveStream"

        samples: list[tuple[Bytes, bytes]] = [
            (b"x", b"x"),
            (bytearray(b"1"), b"1"),
            (memoryview(b"2"), b"2"),
        ]
        for data, expected in samples:
            async with open_nursery() as nursery:
                nursery.start_soon(send, sender, data)
                nursery.start_soon(receive_exactly, receiver, expected)

        async def send_nothing_then_y() -> None:
            await send(sender, b"")
            await send(sender, b"y")

        # Sending no bytes has no effect. In particular it is not the end of the stream.
        async with open_nursery() as nursery:
            nursery.start_soon(send_nothing_then_y)
            nursery.start_soon(receive_exactly, receiver, b"y")

        for arguments in ((), (None,)):
            async with open_nursery() as nursery:
                nursery.start_soon(send, sender, b"x")
                got = await receive(receiver, *arguments)
                assert got == b"x", f"receive_some{arguments} must return b'x', not {bytes(got)!r}"


async def check_arguments(maker: Maker) -> None:
    """``max_bytes`` must be a positive whole number; other values raise an error at once."""
    not_a_number: Any = 1.5
    async with fresh(maker) as (_, receiver):
        for wrong, error in ((-1, ValueError), (0, ValueError), (not_a_number, TypeError)):
            async with open_nursery() as nursery:
                nursery.start_soon(_cancel_when_idle, nursery.cancel_scope)
                try:
                    with expect(error):
                        await receiver.receive_some(wrong)
                except Cancelled:
                    raise AssertionError(
                        f"receive_some({wrong}) must raise {error.__name__}, not wait"
                    ) from None
                nursery.cancel_scope.cancel()


async def _cancel_when_idle(scope: CancelScope) -> None:
    await wait_all_tasks_blocked()
    scope.cancel()


async def check_two_receivers(maker: Maker) -> None:
    """If two tasks receive at the same time, one of them gets an error."""
    async with fresh(maker) as (_, receiver):
        with expect(BusyResourceError, in_group=True):
            async with open_nursery() as nursery:
                nursery.start_soon(receive, receiver, 1)
                nursery.start_soon(receive, receiver, 1)


async def check_empty_stream_is_writable(maker: Maker) -> None:
    """While the receiver waits on an empty stream, a send does not have to wait."""
    async with fresh(maker) as (sender, receiver):

        async def wait_then_end(scope: CancelScope) -> None:
            await wait_writable(sender)
            scope.cancel()

        async with open_nursery() as nursery:
            nursery.start_soon(wait_then_end, nursery.cancel_scope)
            nursery.start_soon(receive, receiver, 1)


# More than fits into any buffer between two ends, in bytes.
ENOUGH = 2**24


async def send_until_error(sender: SendStream) -> None:
    """Send again and again. The first sends after the peer has gone may still succeed."""
    data = b"x" * 100
    sent = 0
    while sent < ENOUGH:
        await send(sender, data)
        sent += len(data)
        data = (data * 2)[: 2**16]
    raise AssertionError(f"the peer is closed, and yet {sent} bytes could be sent")


async def check_closed_receiver(maker: Maker) -> None:
    """Closing the receiver breaks the sender, for good; every end can be closed repeatedly."""
    async with fresh(maker) as (sender, receiver):

        async def expect_broken() -> None:
            with expect(BrokenResourceError):
                await send_until_error(sender)

        async with open_nursery() as nursery:
            nursery.start_soon(expect_broken)
            nursery.start_soon(close, receiver)

        with expect(BrokenResourceError):
            await send(sender, b"x" * 100)
        with expect(ClosedResourceError):
            await receive(receiver, 4096)
        await close(receiver)
        await close(receiver)

        # The peer broke the stream. Once this side is closed as well, the error is "closed".
        await close(sender)
        with expect(ClosedResourceError):
            await send(sender, b"x" * 100)
        with expect(ClosedResourceError):
            await send(sender, b"")
        with expect(ClosedResourceError):
            await wait_writable(sender)
        await close(sender)
        await close(sender)


async def check_send_then_close(maker: Maker) -> None:
    """Data sent before a graceful close is received, then the end."""
    async with fresh(maker) as (sender, receiver):

        async def send_then_close() -> None:
            await send(sender, b"y")
            await close(sender)

        async def receive_then_close() -> None:
            # First let the sender do as much as it can while no task receives.
            await wait_all_tasks_blocked()
            await receive_exactly(receiver, b"y")
            await receive_exactly(receiver, b"")
            await close(receiver)

        async with open_nursery() as nursery:
            nursery.start_soon(send_then_close)
            nursery.start_soon(receive_then_close)


async def check_forceful_close(maker: Maker) -> None:
    """A close in a cancelled scope closes, and the peer neither hangs nor gets data."""
    async with fresh(maker) as (sender, receiver):
        await aclose_forcefully(receiver)
        with expect(BrokenResourceError):
            await send_until_error(sender)
        with expect(ClosedResourceError):
            await receive(receiver, 4096)

    async with fresh(maker) as (sender, receiver):
        await aclose_forcefully(sender)
        with expect(ClosedResourceError):
            await send(sender, b"123")
        # A clean end and a broken stream are both fine.
        with suppress(BrokenResourceError):
            await receive_exactly(receiver, b"")

    async with fresh(maker) as (sender, receiver):
        await aclose_forcefully(receiver)
        await aclose_forcefully(sender)
        with expect(ClosedResourceError):
            await send(sender, b"123")
        with expect(ClosedResourceError):
            await receive(receiver, 4096)


async def check_cancelled_calls(maker: Maker) -> None:
    """A call in a cancelled scope raises, and the streams can still be closed gracefully."""
    async with fresh(maker) as (sender, receiver):

        async def expect_cancelled(call: Callable[..., Awaitable[object]], *args: object) -> None:
            with expect(Cancelled):
                await call(*args)

        with CancelScope() as scope:
            scope.cancel()
            async with open_nursery() as nursery:
                nursery.start_soon(expect_cancelled, send, sender, b"x")
                nursery.start_soon(expect_cancelled, receive, receiver, 1)

        async with open_nursery() as nursery:
            nursery.start_soon(close, sender)
            nursery.start_soon(close, receiver)


async def check_close_wakes_receiver(maker: Maker) -> None:
    """A task that waits to receive is woken with an error when its stream is closed."""
    async with fresh(maker) as (_, receiver):

        async def expect_closed() -> None:
            with expect(ClosedResourceError):
                await receiver.receive_some(10)

        async with open_nursery() as nursery:
            nursery.start_soon(expect_closed)
            await wait_all_tasks_blocked()
            await aclose_forcefully(receiver)


ONE_WAY_CHECKS: tuple[Callable[[Maker], Awaitable[None]], ...] = (
    check_transfer,
    check_arguments,
    check_two_receivers,
    check_empty_stream_is_writable,
    check_closed_receiver,
    check_send_then_close,
    check_forceful_close,
    check_cancelled_calls,
    check_close_wakes_receiver,
)
