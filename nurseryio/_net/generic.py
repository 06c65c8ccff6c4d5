"""What works for streams of every kind: closing in a hurry, two one-way streams made into one.

What lives here: :func:`aclose_forcefully` and :class:`StapledStream`. What does not: any stream
that moves bytes itself.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from .._base import AsyncResource, Final, HalfCloseableStream, ReceiveStream, SendStream
from .._nursery import CancelScope

__all__ = ["StapledStream", "aclose_forcefully"]

SendStreamT = TypeVar("SendStreamT", bound=SendStream)
ReceiveStreamT = TypeVar("ReceiveStreamT", bound=ReceiveStream)


async def aclose_forcefully(resource: AsyncResource) -> None:
    """Close a resource at once, without the goodbye that its kind may have.

    Uses what every :class:`~nurseryio.abc.AsyncResource` promises: an ``aclose()`` that is
    cancelled has closed all the same.

    Args:
        resource: What to close. Closed before, or in use by another task, makes no difference.

    Raises:
        Exception: Whatever its ``aclose()`` raises.

    Checkpoint: yes, but it never waits.

    Trio: ``trio.aclose_forcefully``.
    """
    with CancelScope() as scope:
        scope.cancel(reason="cancelled during aclose_forcefully")
        await resource.aclose()


class StapledStream(HalfCloseableStream, Generic[SendStreamT, ReceiveStreamT], metaclass=Final):
    """Joins a stream for sending and a stream for receiving into one that does both.

    For example the two pipes of a subprocess::

        async with StapledStream(process.stdin, process.stdout) as both:
            await both.send_all(b"question")
            await both.receive_some()

    Args:
        send_stream: Where everything about sending goes. Kept under this name.
        receive_stream: Where everything about receiving goes. Kept under this name.

    Trio: ``trio.StapledStream``.
    """

    send_stream: SendStreamT
    receive_stream: ReceiveStreamT

    def __init__(self, send_stream: SendStreamT, receive_stream: ReceiveStreamT) -> None:
        self.send_stream = send_stream
        self.receive_stream = receive_stream

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(send_stream={self.send_stream!r}, "
            f"receive_stream={self.receive_stream!r})"
        )

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Call ``send_stream.send_all``, which says the rest.

        Checkpoint: yes.
        """
        await self.send_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Call ``send_stream.wait_send_all_might_not_block``, which says the rest.

        Checkpoint: yes.
        """
        await self.send_stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Call ``send_stream.send_eof`` if there is such a method, else ``send_stream.aclose``.

        Checkpoint: yes.
        """
        send_eof = getattr(self.send_stream, "send_eof", None)
        await (self.send_stream.aclose() if send_eof is None else send_eof())

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Call ``receive_stream.receive_some``, which says the rest.

        Checkpoint: yes.
        """
        return await self.receive_stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close both streams, the second one also if closing the first one fails.

        Checkpoint: yes.
        """
        try:
            await self.send_stream.aclose()
        finally:
            await self.receive_stream.aclose()
