"""Streams that break one promise each, to see that the stream checks notice.

Each class changes one thing about a good stream. This module has the pairs, their faults, and the
messages that the checks must give. The tests are elsewhere.
"""

from __future__ import annotations

import contextlib
import re
import sys
from typing import Any

import nurseryio
from nurseryio.testing import lockstep_stream_one_way_pair, memory_stream_one_way_pair

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


class Send(nurseryio.abc.SendStream):
    """A good sender, in front of another one."""

    def __init__(self, below: Any) -> None:
        self.below = below

    async def send_all(self, data: Any) -> None:
        await self.below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.below.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.below.aclose()


class Receive(nurseryio.abc.ReceiveStream):
    """A good receiver, in front of another one."""

    def __init__(self, below: Any) -> None:
        self.below = below

    async def receive_some(self, max_bytes: Any = None) -> bytes:
        return bytes(await self.below.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self.below.aclose()


class SendsUppercase(Send):
    async def send_all(self, data: Any) -> None:
        await self.below.send_all(bytes(data).upper())


class SendsWithoutCheckpoint(Send):
    async def send_all(self, data: Any) -> None:
        hook = self.below.send_all_hook
        self.below._outgoing.put(data)
        await hook()


class EndsOnEmptySend(Send):
    async def send_all(self, data: Any) -> None:
        await self.below.send_all(data)
        if not data:
            self.below.close()


class SendsAfterClose(Send):
    async def send_all(self, data: Any) -> None:
        try:
            await self.below.send_all(data)
        except nurseryio.ClosedResourceError:
            await nurseryio.lowlevel.checkpoint()


class IsNeverBroken(Send):
    async def send_all(self, data: Any) -> None:
        with contextlib.suppress(nurseryio.BrokenResourceError):
            await self.below.send_all(data)


class TakesAnyLimit(Receive):
    async def receive_some(self, max_bytes: Any = None) -> bytes:
        if max_bytes is not None and max_bytes < 1:
            await nurseryio.lowlevel.checkpoint()
            return b""
        return await super().receive_some(max_bytes)


class TakesFractions(Receive):
    async def receive_some(self, max_bytes: Any = None) -> bytes:
        return await super().receive_some(max_bytes if max_bytes is None else int(max_bytes))


class LetsTwoReceive(Receive):
    """Makes the second wait in place of refusing it; the first is ended by nothing then."""

    inside = 0

    async def receive_some(self, max_bytes: Any = None) -> bytes:
        self.inside += 1
        if self.inside > 1:
            await nurseryio.lowlevel.checkpoint()
            raise ConnectionError("two at once")
        try:
            return await super().receive_some(max_bytes)
        finally:
            self.inside -= 1


class ReceivesAfterClose(Receive):
    async def receive_some(self, max_bytes: Any = None) -> bytes:
        try:
            return await super().receive_some(max_bytes)
        except nurseryio.ClosedResourceError:
            await nurseryio.lowlevel.checkpoint()
            return b""


class ClosesOnlyWhenNotCancelled(Receive):
    async def aclose(self) -> None:
        await nurseryio.lowlevel.checkpoint()
        await self.below.aclose()


class ClosesOnce(Receive):
    closed = False

    async def aclose(self) -> None:
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True
        await self.below.aclose()


class IsUncancellable(Receive):
    async def receive_some(self, max_bytes: Any = None) -> bytes:
        if nurseryio.current_effective_deadline() < 0:
            with nurseryio.CancelScope(shield=True):
                await nurseryio.lowlevel.checkpoint()
                return b""
        return await super().receive_some(max_bytes)


class DropsTheLastByte(Receive):
    async def receive_some(self, max_bytes: Any = None) -> bytes:
        data = await super().receive_some(max_bytes)
        return b"" if data == b"y" else data


# The faulty classes, and what the checks have to say about each.
FAULTY_SENDERS = {
    SendsUppercase: "must return b'x' here, not b'X'",
    SendsWithoutCheckpoint: "did not yield",
    EndsOnEmptySend: "must return b'y' here, not b''",
    SendsAfterClose: "expected ClosedResourceError, got no error",
    IsNeverBroken: "the peer is closed, and yet",
}
FAULTY_RECEIVERS = {
    TakesAnyLimit: "expected ValueError, got no error",
    TakesFractions: r"receive_some\(1.5\) must raise TypeError, not wait",
    LetsTwoReceive: "expected a group of one BusyResourceError",
    ReceivesAfterClose: "expected ClosedResourceError, got no error",
    ClosesOnlyWhenNotCancelled: "the peer is closed, and yet",
    ClosesOnce: "closed already",
    IsUncancellable: "expected CancelledError, got no error",
    DropsTheLastByte: "must return b'y' here, not b''",
}


class NeverWaits(Send):
    async def wait_send_all_might_not_block(self) -> None:
        await nurseryio.lowlevel.checkpoint()


class LetsTwoWait(Send):
    """The second sender returns at once."""

    inside = 0

    async def send_all(self, data: Any) -> None:
        await self._one_at_a_time(self.below.send_all, data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._one_at_a_time(self.below.wait_send_all_might_not_block)

    async def _one_at_a_time(self, function: Any, *args: Any) -> None:
        if self.inside:
            raise ConnectionError("two at once")
        self.inside += 1
        try:
            await function(*args)
        finally:
            self.inside -= 1


class ReportsItsOwnCloseAsBroken(Send):
    async def send_all(self, data: Any) -> None:
        try:
            await self.below.send_all(data)
        except nurseryio.ClosedResourceError:
            raise nurseryio.BrokenResourceError("reported as broken") from None


class FailsWhenThePeerIsGone(Send):
    async def wait_send_all_might_not_block(self) -> None:
        await self.below.wait_send_all_might_not_block()
        if self.below._queue._receiver_closed:
            raise ConnectionError("the peer is gone")


class FlushesOnClose(Send):
    """Closes at once only if it is cancelled; otherwise it waits until everything is received."""

    unsent: Any = None

    async def send_all(self, data: Any) -> None:
        self.unsent = data
        await self.below.send_all(data)
        self.unsent = None

    async def aclose(self) -> None:
        try:
            if self.unsent is not None:
                await nurseryio.sleep_forever()
        finally:
            await self.below.aclose()


class FlushesAfterCancelledSend(FlushesOnClose):
    """Only what a cancelled send has left is waited for."""

    inside = False

    async def send_all(self, data: Any) -> None:
        self.inside = True
        try:
            await super().send_all(data)
        finally:
            self.inside = False

    async def aclose(self) -> None:
        if self.inside:
            await self.below.aclose()
        else:
            await super().aclose()


FAULTY_CLOGGED_SENDERS = {
    FlushesOnClose: "must not wait for the receiver while another task is sending",
    FlushesAfterCancelledSend: "must not wait for the receiver after a send was cancelled",
    NeverWaits: "must wait on a clogged stream",
    LetsTwoWait: "expected a group of one BusyResourceError",
    ReportsItsOwnCloseAsBroken: "expected ClosedResourceError|reported as broken",
    FailsWhenThePeerIsGone: "the peer is gone",
}


def buffered(sender: type[Send] = Send, receiver: type[Receive] = Receive) -> Any:
    """A maker of pairs that take everything at once."""

    async def make() -> tuple[Send, Receive]:
        left, right = memory_stream_one_way_pair()
        return sender(left), receiver(right)

    return make


def clogged(sender: type[Send] = Send, receiver: type[Receive] = Receive) -> Any:
    """A maker of pairs on which each send waits for the receiver."""

    async def make() -> tuple[Send, Receive]:
        left, right = lockstep_stream_one_way_pair()
        return sender(left), receiver(right)

    return make


def says(error: BaseException, message: str) -> bool:
    """Whether an error, or one in a group of any depth, has a message that matches."""
    if isinstance(error, BaseExceptionGroup):
        return any(says(inner, message) for inner in error.exceptions)
    return re.search(message, str(error)) is not None
