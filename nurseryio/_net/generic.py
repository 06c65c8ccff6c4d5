"""For streams of every kind: :func:`aclose_forcefully` and :class:`StapledStream`.

``aclose_forcefully`` closes without a goodbye; ``StapledStream`` joins two one-way streams. Streams
that send and receive bytes themselves are elsewhere (:mod:`stream`, :mod:`fd_stream`).
"""

from __future__ import annotations

from typing import Generic, TypeVar

from .._base import AsyncResource, Final, HalfCloseableStream, ReceiveStream, SendStream
from .._nursery import CancelScope

__all__ = ["StapledStream", "aclose_forcefully"]

SendStreamT = TypeVar("SendStreamT", bound=SendStream)
ReceiveStreamT = TypeVar("ReceiveStreamT", bound=ReceiveStream)


async def aclose_forcefully(resource: AsyncResource) -> None:
    """Close a resource at once, without the goodbye that some resources send.

    This calls ``aclose()`` in a cancelled scope. Every :class:`~nurseryio.abc.AsyncResource`
    promises that a cancelled ``aclose()`` closes it nevertheless.

    Args:
        resource: The resource to close. It may be closed already, or in use by another task.

    Raises:
        Exception: Any error that ``resource.aclose()`` raises.

    Checkpoint: yes, but it never waits.

    Trio: ``trio.aclose_forcefully``.
    """
    with CancelScope() as scope:
        scope.cancel(reason="cancelled during aclose_forcefully")
        await resource.aclose()


class StapledStream(HalfCloseableStream, Generic[SendStreamT, ReceiveStreamT], metaclass=Final):
    """A stream that sends over one stream and receives from another one.

    For example the two pipes of a subprocess::

        async with StapledStream(process.stdin, process.stdout) as both:
            await both.send_all(b"question")
            await both.receive_some()

    Args:
        send_stream: The stream for everything about sending. Kept as an attribute of this name.
        receive_stream: The stream for everything about receiving. Kept as an attribute of this
            name.

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
        """Call ``send_stream.send_all``, which has the same arguments and errors.

        Checkpoint: yes.
        """
        await self.send_stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Call ``send_stream.wait_send_all_might_not_block``, which has the same errors.

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
        """Call ``receive_stream.receive_some``, which has the same arguments, result and errors.

        Checkpoint: yes.
        """
        return await self.receive_stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        """Close both streams. The receiving stream is closed even if closing the other one fails.

        Checkpoint: yes.
        """
        try:
            await self.send_stream.aclose()
        finally:
            await self.receive_stream.aclose()
