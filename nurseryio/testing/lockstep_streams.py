"""Lockstep streams: streams in the process without a buffer; a send lasts until all is received.

This module has the two stream classes and the pairs. The transfer itself is in
:class:`byte_queues.LockstepQueue`.

The streams are the extreme case of flow control. The stream checks use them as clogged streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._base import ReceiveStream, SendStream
from .._core import checkpoint
from .byte_queues import LockstepQueue
from .memory_streams import stapled_pair

if TYPE_CHECKING:
    from .._net.generic import StapledStream
    from .byte_queues import BytesLike


class LockstepSendStream(SendStream):
    """The sending half: an ``abc.SendStream`` with a plain method ``close``."""

    def __init__(self, queue: LockstepQueue) -> None:
        self._queue = queue

    def __repr__(self) -> str:
        return f"<LockstepSendStream at {id(self):#x}, {self._queue!r}>"

    async def send_all(self, data: BytesLike) -> None:
        """Wait until the receiver has taken every byte of the data.

        If cancelled, the bytes that the receiver has not taken are withdrawn.

        Raises:
            BrokenResourceError: if the receiver is closed before it has taken everything.
            BusyResourceError: while another task sends or waits to.
            ClosedResourceError: if this stream is closed, before or meanwhile.
            TypeError: if ``data`` is not a buffer, or one that is not contiguous.

        Checkpoint: yes.
        """
        await self._queue.send(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the other side waits to receive, or is closed.

        Raises:
            BusyResourceError: while another task sends or waits to.
            ClosedResourceError: if this stream is closed, before or meanwhile.

        Checkpoint: yes.
        """
        await self._queue.wait_send_might_not_block()

    def close(self) -> None:
        """Close this half at once; a task that waits in this half is woken with an error."""
        self._queue.close_sender()

    async def aclose(self) -> None:
        """Do what :meth:`close` does.

        Checkpoint: yes; the stream is closed even if the checkpoint raises.
        """
        self.close()
        await checkpoint()


class LockstepReceiveStream(ReceiveStream):
    """The receiving half: an ``abc.ReceiveStream`` with a plain method ``close``."""

    def __init__(self, queue: LockstepQueue) -> None:
        self._queue = queue

    def __repr__(self) -> str:
        return f"<LockstepReceiveStream at {id(self):#x}, {self._queue!r}>"

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        """Take bytes that the other side is sending, or wait until it does.

        Args:
            max_bytes: how many bytes at most, from 1 up; None for all of the send.

        Returns:
            At least one byte, or nothing if the sender is closed.

        Raises:
            BusyResourceError: while another task receives.
            ClosedResourceError: if this stream is closed, before or meanwhile.
            TypeError: if ``max_bytes`` is not a whole number.
            ValueError: if ``max_bytes`` is below 1.

        Checkpoint: yes.
        """
        return await self._queue.receive(max_bytes)

    def close(self) -> None:
        """Close this half at once; a task that waits in this half is woken with an error."""
        self._queue.close_receiver()

    async def aclose(self) -> None:
        """Do what :meth:`close` does.

        Checkpoint: yes; the stream is closed even if the checkpoint raises.
        """
        self.close()
        await checkpoint()


def lockstep_stream_one_way_pair() -> tuple[SendStream, ReceiveStream]:
    """Make two connected halves with no buffer between them.

    Every ``send_all`` lasts until ``receive_some`` has taken all of its data. In addition to the
    methods of the interfaces, both halves have a plain ``close()``.

    Returns:
        The sending half and the receiving half.

    Trio: ``trio.testing.lockstep_stream_one_way_pair``.
    """
    queue = LockstepQueue()
    return LockstepSendStream(queue), LockstepReceiveStream(queue)


def lockstep_stream_pair() -> tuple[
    StapledStream[SendStream, ReceiveStream],
    StapledStream[SendStream, ReceiveStream],
]:
    """Make two connected two-way streams with no buffer between them.

    Returns:
        The two ends, each a :class:`StapledStream` of lockstep halves.

    Trio: ``trio.testing.lockstep_stream_pair``.
    """
    return stapled_pair(lockstep_stream_one_way_pair)
