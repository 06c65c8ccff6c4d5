"""Servers as `asyncio.BufferedProtocol`: each connection has a buffer of its own for reading."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ssl import SSLContext
from typing import cast

from . import PIECE, protocol


class Buffered(asyncio.BufferedProtocol):
    """The transport and a buffer that is filled again and again."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.buffer = bytearray(len(PIECE))
        self.view = memoryview(self.buffer)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.view


class Echo(Buffered):
    """Sends back what comes.

    A copy, since the transport may keep it while the buffer is filled again.
    """

    def buffer_updated(self, nbytes: int) -> None:
        self.transport.write(bytes(self.view[:nbytes]))

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Sink(Buffered):
    """Counts what comes."""

    count = 0

    def buffer_updated(self, nbytes: int) -> None:
        self.count += nbytes

    def eof_received(self) -> None:
        self.transport.write(self.count.to_bytes(8, "big"))


CLASSES: dict[str, type[asyncio.BaseProtocol]] = {
    "echo": Echo,
    "sink": Sink,
    "source": protocol.Source,
    "caller": protocol.Caller,
}


async def serve(kind: str, ssl_context: SSLContext | None, announce: Callable[[int], None]) -> None:
    """See the folder's docstring."""
    await protocol.serve(kind, ssl_context, announce, CLASSES)
