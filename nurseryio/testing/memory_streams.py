"""Streams inside the process with buffers that never fill, and hooks to disturb them.

What lives here: :class:`MemorySendStream`, :class:`MemoryReceiveStream`, the pump between the two
and pairs that are connected already. What does not: the buffers (:mod:`byte_queues`), and streams
without any buffer (:mod:`lockstep_streams`).

Rule 1: a call yields twice before it does its work, so that two tasks which use one side of a
stream at once do meet, and the second gets its ``BusyResourceError``, whatever the schedule.

Rule 2: hooks are plain attributes, free to change at any time; they run inside the call that they
belong to, after its checkpoints.
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
    """The sending half of a stream inside the process. Nothing sent ever waits for room.

    What is sent stays in an internal buffer until the test takes it out with :meth:`get_data` or
    :meth:`get_data_nowait`, or :func:`memory_stream_pump` carries it to a receiving half.

    Args:
        send_all_hook: async function of no arguments, awaited by :meth:`send_all` after the data
            has been buffered; None for nothing.
        wait_send_all_might_not_block_hook: the same for that method.
        close_hook: plain function of no arguments, called by :meth:`close` and :meth:`aclose`.

    The hooks are attributes of the same names and may be changed at any time.

    Trio: ``trio.testing.MemorySendStream``.
    """

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
        self._one_user = ConflictDetector("another task is already sending on this stream")

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
        """Close this half at once: what was sent can still be taken out, then comes the end.

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
        """Take out what has been sent, waiting until there is something.

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
        """Take out what has been sent, without waiting.

        Args:
            max_bytes: how many bytes at most, from 1 up; None for all that there are.

        Returns:
            At least one byte, or nothing once the stream is closed and everything taken.

        Raises:
            WouldBlock: if there is nothing to take yet.
            BusyResourceError: while another task waits in :meth:`get_data`.
            ValueError: if ``max_bytes`` is below 1.

        Trio: ``trio.testing.MemorySendStream.get_data_nowait``.
        """
        return self._outgoing.get_nowait(max_bytes)


class MemoryReceiveStream(ReceiveStream, metaclass=Final):
    """The receiving half of a stream inside the process.

    What it receives is what the test gives it with :meth:`put_data` and :meth:`put_eof`, or what
    :func:`memory_stream_pump` carries over from a sending half.

    Args:
        receive_some_hook: async function of no arguments, awaited by :meth:`receive_some` before
            it looks at the buffer; None for nothing.
        close_hook: plain function of no arguments, called by :meth:`close` and :meth:`aclose`.

    The hooks are attributes of the same names and may be changed at any time.

    Trio: ``trio.testing.MemoryReceiveStream``.
    """

    def __init__(
        self,
        receive_some_hook: AsyncHook | None = None,
        close_hook: SyncHook | None = None,
    ) -> None:
        self.receive_some_hook = receive_some_hook
        self.close_hook = close_hook
        self._incoming = UnboundedQueue()
        # The end in the buffer means that the peer has finished; this, that we have.
        self._closed = False
        self._one_user = ConflictDetector("another task is already receiving on this stream")

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"holding {self._incoming!r}"
        return f"<MemoryReceiveStream {state} at {id(self):#x}>"

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        """Await :attr:`receive_some_hook`, then take data, waiting until there is some.

        Args:
            max_bytes: how many bytes at most, from 1 up; None for all that there are.

        Returns:
            At least one byte, or nothing at the end of the stream.

        Raises:
            BusyResourceError: while another task receives.
            ClosedResourceError: if this stream is closed, before or meanwhile.
            TypeError: if ``max_bytes`` is no whole number.
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
        """Close this half at once and throw away what it holds; a task that waits is woken.

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
        """Give this half data to receive.

        Raises:
            ClosedResourceError: if it is closed, or :meth:`put_eof` was called.
            TypeError: if ``data`` is not a buffer, or one that is not contiguous.

        Trio: ``trio.testing.MemoryReceiveStream.put_data``.
        """
        self._incoming.put(data)

    def put_eof(self) -> None:
        """Let the stream end after the data that has been put so far. May be called again.

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
    """Carry what one half has sent over to another half, the end of the stream included.

    Args:
        memory_send_stream: where the data is taken out.
        memory_receive_stream: where it is put in.
        max_bytes: how many bytes at most, from 1 up; None for all that there are.

    Returns:
        Whether there was anything to carry.

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
        raise BrokenResourceError("the receiving end of this stream is closed") from None
    return True


def memory_stream_one_way_pair() -> tuple[MemorySendStream, MemoryReceiveStream]:
    """Make two connected halves: what is sent on the first is received on the second, at once.

    The connection is made of hooks: :func:`memory_stream_pump` is called by the first one's
    ``send_all_hook`` and ``close_hook``. Set the former to None to make the connection stall, or
    to something that pumps a byte at a time to make it trickle.

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
    """Make two-way streams of two pairs that go opposite ways."""
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
