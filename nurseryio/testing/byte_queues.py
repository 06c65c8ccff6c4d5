"""Byte queues: the buffers inside the memory streams, which one task fills and another empties.

This module has :class:`UnboundedQueue`, which accepts everything at once, and
:class:`LockstepQueue`, which accepts bytes only while a task receives them. The stream interfaces
are in ``memory_streams`` and ``lockstep_streams``.

Rule 1: every async method is a checkpoint when it succeeds.

Rule 2: bytes leave a buffer only in the last step of a call, after its last checkpoint. So a
cancelled call has taken nothing.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from .._base import BrokenResourceError, ClosedResourceError, ConflictDetector, WouldBlock
from .._base.util import bytes_view
from .._core import checkpoint, checkpoint_if_cancelled
from .._sync.parking_lot import ParkingLot

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from typing_extensions import Buffer

    BytesLike: TypeAlias = bytes | bytearray | memoryview | Buffer


def check_max_bytes(max_bytes: object) -> int | None:
    """Return ``max_bytes`` if it is None or a whole number from 1 up.

    Raises:
        TypeError: for anything that is not a whole number.
        ValueError: for numbers below 1.
    """
    if max_bytes is None:
        return None
    count = operator.index(max_bytes)  # type: ignore[arg-type]
    if count < 1:
        raise ValueError("max_bytes must be >= 1")
    return count


def cut(buffer: bytearray, max_bytes: int | None) -> bytearray:
    """Remove and return the first bytes of a buffer, at most ``max_bytes``."""
    taken = buffer[:max_bytes]
    del buffer[:max_bytes]
    return taken


class UnboundedQueue:
    """Accepts any number of bytes at once, until an end is put behind them."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        # Invariant: once True, the buffer does not grow any more.
        self._ended = False
        self._changed = ParkingLot()
        self._one_reader = ConflictDetector("another task is using this stream")

    def __repr__(self) -> str:
        return f"<{len(self._buffer)} bytes{', then the end' if self._ended else ''}>"

    def put(self, data: BytesLike) -> None:
        """Append bytes.

        Raises:
            ClosedResourceError: if the end was put before.
            TypeError: if ``data`` is not a contiguous buffer.
        """
        view = bytes_view(data)
        if self._ended:
            raise ClosedResourceError("virtual connection closed")
        self._buffer += view
        self._changed.unpark_all()

    def end(self, *, drop: bool = False) -> None:
        """Put the end behind the buffered bytes, or drop the bytes first (``drop``)."""
        if drop:
            self._buffer.clear()
        self._ended = True
        self._changed.unpark_all()

    def get_nowait(self, max_bytes: int | None) -> bytearray:
        """Take the buffered bytes; empty at the end.

        Raises:
            WouldBlock: if there are neither bytes nor the end.
            BusyResourceError: while another task waits in :meth:`get`.
        """
        max_bytes = check_max_bytes(max_bytes)
        with self._one_reader:
            if not self._ready():
                raise WouldBlock("no data has arrived")
            return cut(self._buffer, max_bytes)

    async def get(self, max_bytes: int | None) -> bytearray:
        """Take the buffered bytes; wait until there are some or the end. Empty at the end.

        Raises:
            BusyResourceError: while another task does the same.
        """
        max_bytes = check_max_bytes(max_bytes)
        with self._one_reader:
            await checkpoint()
            while not self._ready():
                await self._changed.park()
                # A task that is cancelled after it was woken must not take bytes.
                await checkpoint_if_cancelled()
            return cut(self._buffer, max_bytes)

    def _ready(self) -> bool:
        return bool(self._buffer) or self._ended


class LockstepQueue:
    """Passes bytes only while both sides are there: a send lasts until all is received."""

    def __init__(self) -> None:
        # The bytes of the current send that the receiver has not taken yet.
        self._buffer = bytearray()
        self._sender_closed = False
        self._receiver_closed = False
        self._receiver_waits = False
        self._changed = ParkingLot()
        self._one_sender = ConflictDetector("another task is already sending")
        self._one_receiver = ConflictDetector("another task is already receiving")

    def __repr__(self) -> str:
        closed = [("sender", self._sender_closed), ("receiver", self._receiver_closed)]
        states = [f"{side} closed" for side, is_closed in closed if is_closed]
        return ", ".join(states or [f"{len(self._buffer)} bytes to hand over"])

    def close_sender(self) -> None:
        """Refuse further sends. A waiting send gets an error, the receiver gets the end."""
        self._sender_closed = True
        self._changed.unpark_all()

    def close_receiver(self) -> None:
        """Refuse further receives. A waiting receive gets an error, and so does the sender."""
        self._receiver_closed = True
        self._changed.unpark_all()

    async def send(self, data: BytesLike) -> None:
        """Offer bytes, and wait until the receiver has taken the last one.

        If cancelled, the bytes that the receiver has not taken are withdrawn.

        Raises:
            ClosedResourceError: if this side is closed, before or meanwhile.
            BrokenResourceError: if the other side is closed before it has taken everything.
            BusyResourceError: while another task uses this side.
        """
        view = bytes_view(data)
        with self._one_sender, view:
            self._check_sender()
            self._check_that_receiver_is_there()
            await checkpoint()
            self._check_sender()
            self._check_that_receiver_is_there()
            self._buffer += view
            self._changed.unpark_all()
            try:
                await self._wait_until(lambda: not self._buffer)
                self._check_sender()
                if self._buffer:
                    self._check_that_receiver_is_there()
            finally:
                self._buffer.clear()

    async def wait_send_might_not_block(self) -> None:
        """Wait until a receiver waits, or has closed its side.

        Raises:
            ClosedResourceError: if this side is closed, before or meanwhile.
            BusyResourceError: while another task uses this side.
        """
        with self._one_sender:
            self._check_sender()
            await checkpoint()
            await self._wait_until(lambda: self._receiver_waits)
            self._check_sender()

    async def receive(self, max_bytes: int | None) -> bytearray:
        """Take bytes of the current send, or wait for a send; empty at the end.

        Raises:
            ClosedResourceError: if this side is closed, before or meanwhile.
            BusyResourceError: while another task does the same.
        """
        max_bytes = check_max_bytes(max_bytes)
        with self._one_receiver:
            self._check_receiver()
            await checkpoint()
            self._receiver_waits = True
            self._changed.unpark_all()
            try:
                await self._wait_until(lambda: bool(self._buffer))
            finally:
                self._receiver_waits = False
            # A task that is cancelled after it was woken must not take bytes.
            await checkpoint_if_cancelled()
            self._check_receiver()
            taken = cut(self._buffer, max_bytes)
            self._changed.unpark_all()
            return taken

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds, or either side is closed."""
        while not (condition() or self._sender_closed or self._receiver_closed):
            await self._changed.park()

    def _check_sender(self) -> None:
        if self._sender_closed:
            raise ClosedResourceError("this stream is closed")

    def _check_receiver(self) -> None:
        if self._receiver_closed:
            raise ClosedResourceError("this stream is closed")

    def _check_that_receiver_is_there(self) -> None:
        if self._receiver_closed:
            raise BrokenResourceError("the receiving end of this stream is closed")
