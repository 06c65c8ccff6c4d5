"""Memory streams: streams inside the process with unlimited buffers, and hooks to disturb them.

This module has :class:`MemorySendStream`, :class:`MemoryReceiveStream`, the pump between the two
and pairs that are connected already. The buffers are in ``byte_queues``, streams without a buffer
in ``lockstep_streams``.

Rule 1: a call yields twice before it does its work. So if two tasks use one side of a stream at
the same time, the second gets its ``BusyResourceError`` in every schedule.

Rule 2: hooks are plain attributes, which may change at any time. A hook runs inside the call to
which it belongs, after the checkpoints of the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from .._base import (
    BrokenResourceError,
    ClosedResourceError,
    ConflictDetector,
    ReceiveStream,
    SendStream,
    WouldBlock,
)
from .._base.util import Final, bytes_view
from .._core import checkpoint
from .._net.generic import StapledStream
from .byte_queues import UnboundedQueue, check_max_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from .byte_queues import BytesLike

    AsyncHook: TypeAlias = Callable[[], Awaitable[object]]
    SyncHook: TypeAlias = Callable[[], object]

SendT = TypeVar("SendT", bound=SendStream)
ReceiveT = TypeVar("ReceiveT", bound=ReceiveStream)


class MemorySendStream(SendStream, metaclass=Final):
    """The sending half of a stream inside the process. A send never waits for room.

    The data stays in an internal buffer until the test takes it out with :meth:`get_data` or
    :meth:`get_data_nowait`, or :func:`memory_stream_pump` moves it to a receiving half.

    Args:
        send_all_hook: async function of no arguments, awaited by :meth:`send_all` after the data
            has been buffered; None for nothing.
        wait_send_all_might_not_block_hook: the same for that method.
        close_hook: plain function of no arguments, called by :meth:`close` and :meth:`aclose`.

    The hooks are attributes of the same names and may be changed at any time.

    Trio: ``trio.testing.MemorySendStream``.
    """

    send_all_hook: AsyncHook | None
    wait_send_all_might_not_block_hook: AsyncHook | None
    close_hook: SyncHook | None

    def __init__(
        self,
        send_all_hook: AsyncHook | None = None,
        wait_send_all_might_not_block_hook: AsyncHook | None = None,
        close_hook: SyncHook | None = None,
    ) -> None:
        self.send_all_hook = send_all_hook
        self.wait_send_all_might_not_block_hook = wait_send_all_might_not_block_hook
        self.close_hook = close_hook
        self._outgoing = UnboundedQueue()
        self._one_user = ConflictDetector("another task is using this stream")

    def __repr__(self) -> str:
        return f"<MemorySendStream holding {self._outgoing!r} at {id(self):#x}>"

    async def send_all(self, data: BytesLike) -> None:
        """Buffer the data, then await :attr:`send_all_hook`.

        Args:
            data: bytes to send; may be empty.

        Raises:
            BusyResourceError: while another task sends or waits to.
            ClosedResourceError: if this stream is closed.
            TypeError: if ``data`` is not a buffer, or one that is not contiguous.

        Checkpoint: yes.

        Trio: ``trio.testing.MemorySendStream.send_all``.
        """
        with self._one_user, bytes_view(data) as view:
            await checkpoint()
            await checkpoint()
            self._outgoing.put(view)
            if self.send_all_hook is not None:
                await self.send_all_hook()

    async def wait_send_all_might_not_block(self) -> None:
        """Await :attr:`wait_send_all_might_not_block_hook`; there is always room.

        Raises:
            BusyResourceError: while another task sends or waits to.
            ClosedResourceError: if this stream is closed.

        Checkpoint: yes.

        Trio: ``trio.testing.MemorySendStream.wait_send_all_might_not_block``.
        """
        with self._one_user:
            await checkpoint()
            await checkpoint()
            self._outgoing.put(b"")
            if self.wait_send_all_might_not_block_hook is not None:
                await self.wait_send_all_might_not_block_hook()

    def close(self) -> None:
        """Close this half at once: data sent before can still be taken out, followed by the end.

        Calls :attr:`close_hook`, at every call.

        Trio: ``trio.testing.MemorySendStream.close``.
        """
        self._outgoing.end()
        if self.close_hook is not None:
            self.close_hook()

    async def aclose(self) -> None:
        """Do what :meth:`close` does.

        Checkpoint: yes; the stream is closed even if the checkpoint raises.

        Trio: ``trio.testing.MemorySendStream.aclose``.
        """
        self.close()
        await checkpoint()

    async def get_data(self, max_bytes: int | None = None) -> bytearray:
        """Take out the data that has been sent; wait until there is some.

        Args:
            max_bytes: how many bytes at most, from 1 up; None for all that there are.

        Returns:
            At least one byte, or nothing once the stream is closed and everything taken.

        Raises:
            BusyResourceError: while another task takes data out.
            ValueError: if ``max_bytes`` is below 1.

        Checkpoint: yes.

        Trio: ``trio.testing.MemorySendStream.get_data``.
        """
        return await self._outgoing.get(max_bytes)

    def get_data_nowait(self, max_bytes: int | None = None) -> bytearray:
        """Take out the data that has been sent, without waiting.

        Args:
            max_bytes: how many bytes at most, from 1 up; None for all that there are.

        Returns:
            At least one byte, or nothing once the stream is closed and everything taken.

        Raises:
            WouldBlock: if no data has come yet.
            BusyResourceError: while another task waits in :meth:`get_data`.
            ValueError: if ``max_bytes`` is below 1.

        Trio: ``trio.testing.MemorySendStream.get_data_nowait``.
        """
        return self._outgoing.get_nowait(max_bytes)


class MemoryReceiveStream(ReceiveStream, metaclass=Final):
    """The receiving half of a stream inside the process.

    It receives the data that the test provides with :meth:`put_data` and :meth:`put_eof`, or that
    :func:`memory_stream_pump` moves from a sending half.

    Args:
        receive_some_hook: async function of no arguments, awaited by :meth:`receive_some` before
            it looks at the buffer; None for nothing.
        close_hook: plain function of no arguments, called by :meth:`close` and :meth:`aclose`.

    The hooks are attributes of the same names and may be changed at any time.

    Trio: ``trio.testing.MemoryReceiveStream``.
    """

    receive_some_hook: AsyncHook | None
    close_hook: SyncHook | None

    def __init__(
        self,
        receive_some_hook: AsyncHook | None = None,
        close_hook: SyncHook | None = None,
    ) -> None:
        self.receive_some_hook = receive_some_hook
        self.close_hook = close_hook
        self._incoming = UnboundedQueue()
        # The end in the buffer means that the peer has closed; this flag, that this side has.
        self._closed = False
        self._one_user = ConflictDetector("another task is using this stream")

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"holding {self._incoming!r}"
        return f"<MemoryReceiveStream {state} at {id(self):#x}>"

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        """Await :attr:`receive_some_hook`, then take data; wait until there is some.

        Args:
            max_bytes: how many bytes at most, from 1 up; None for all that there are.

        Returns:
            At least one byte, or nothing at the end of the stream.

        Raises:
            BusyResourceError: while another task receives.
            ClosedResourceError: if this stream is closed, before or meanwhile.
            TypeError: if ``max_bytes`` is not a whole number.
            ValueError: if ``max_bytes`` is below 1.

        Checkpoint: yes.

        Trio: ``trio.testing.MemoryReceiveStream.receive_some``.
        """
        max_bytes = check_max_bytes(max_bytes)
        with self._one_user:
            await checkpoint()
            await checkpoint()
            self._check_open()
            if self.receive_some_hook is not None:
                await self.receive_some_hook()
            data = await self._incoming.get(max_bytes)
            self._check_open()
            return data

    def close(self) -> None:
        """Close this half at once and discard its data; a task that waits is woken.

        Calls :attr:`close_hook`, at every call.

        Trio: ``trio.testing.MemoryReceiveStream.close``.
        """
        self._closed = True
        self._incoming.end(drop=True)
        if self.close_hook is not None:
            self.close_hook()

    async def aclose(self) -> None:
        """Do what :meth:`close` does.

        Checkpoint: yes; the stream is closed even if the checkpoint raises.

        Trio: ``trio.testing.MemoryReceiveStream.aclose``.
        """
        self.close()
        await checkpoint()

    def put_data(self, data: BytesLike) -> None:
        """Provide data that this half will receive.

        Raises:
            ClosedResourceError: if this half is closed, or :meth:`put_eof` was called.
            TypeError: if ``data`` is not a buffer, or one that is not contiguous.

        Trio: ``trio.testing.MemoryReceiveStream.put_data``.
        """
        self._incoming.put(data)

    def put_eof(self) -> None:
        """End the stream after the data that has been put so far. It may be called again.

        Trio: ``trio.testing.MemoryReceiveStream.put_eof``.
        """
        self._incoming.end()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedResourceError("this stream is closed")


def memory_stream_pump(
    memory_send_stream: MemorySendStream,
    memory_receive_stream: MemoryReceiveStream,
    *,
    max_bytes: int | None = None,
) -> bool:
    """Move the data that one half has sent to another half, including the end of the stream.

    Args:
        memory_send_stream: the half from which the data is taken.
        memory_receive_stream: the half into which the data is put.
        max_bytes: how many bytes at most, from 1 up; None for all that there are.

    Returns:
        Whether there was data or an end to move.

    Raises:
        BrokenResourceError: if there is data, and the receiving half is closed.
        BusyResourceError: while a task waits in ``memory_send_stream.get_data()``.

    Trio: ``trio.testing.memory_stream_pump``.
    """
    try:
        data = memory_send_stream.get_data_nowait(max_bytes)
    except WouldBlock:
        return False
    if not data:
        memory_receive_stream.put_eof()
        return True
    try:
        memory_receive_stream.put_data(data)
    except ClosedResourceError:
        raise BrokenResourceError("MemoryReceiveStream was closed") from None
    return True


def memory_stream_one_way_pair() -> tuple[MemorySendStream, MemoryReceiveStream]:
    """Make two connected halves: data sent on the first is received on the second, at once.

    The connection consists of hooks: ``send_all_hook`` and ``close_hook`` of the first half call
    :func:`memory_stream_pump`. To make the connection stall, set ``send_all_hook`` to None. To make
    it slow, set the hook to a function that pumps one byte at a time.

    Returns:
        The sending half and the receiving half.

    Trio: ``trio.testing.memory_stream_one_way_pair``.
    """
    sender = MemorySendStream()
    receiver = MemoryReceiveStream()

    def pump() -> None:
        memory_stream_pump(sender, receiver)

    async def pump_async() -> None:
        pump()

    sender.send_all_hook = pump_async
    sender.close_hook = pump
    return sender, receiver


def stapled_pair(
    one_way_pair: Callable[[], tuple[SendT, ReceiveT]],
) -> tuple[StapledStream[SendT, ReceiveT], StapledStream[SendT, ReceiveT]]:
    """Make two two-way streams from two one-way pairs in opposite directions."""
    there_in, there_out = one_way_pair()
    back_in, back_out = one_way_pair()
    return StapledStream(there_in, back_out), StapledStream(back_in, there_out)


def memory_stream_pair() -> tuple[
    StapledStream[MemorySendStream, MemoryReceiveStream],
    StapledStream[MemorySendStream, MemoryReceiveStream],
]:
    """Make two connected two-way streams inside the process, which never wait for room.

    Each is a :class:`StapledStream`, whose ``send_stream`` and ``receive_stream`` are the halves
    with their hooks.

    Returns:
        The two ends.

    Trio: ``trio.testing.memory_stream_pair``.
    """
    return stapled_pair(memory_stream_one_way_pair)
