"""Servers as raw `asyncio.Protocol`: the base of the network table."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ssl import SSLContext
from typing import cast

from . import PIECE


class Connected(asyncio.Protocol):
    """What all three share: the transport."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)


class Echo(Connected):
    """Sends back what comes; stops reading while the peer does not."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()


class Sink(Connected):
    """Counts what comes."""

    count = 0

    def data_received(self, data: bytes) -> None:
        self.count += len(data)

    def eof_received(self) -> None:
        self.transport.write(self.count.to_bytes(8, "big"))


class Source(Connected):
    """Sends as many bytes as it is asked for."""

    left = 0
    writing = True

    def data_received(self, data: bytes) -> None:
        self.left = int.from_bytes(data, "big")
        self.fill()

    def fill(self) -> None:
        """Write until the transport says stop or all is written."""
        while self.left and self.writing:
            piece = PIECE if self.left >= len(PIECE) else PIECE[: self.left]
            self.left -= len(piece)
            self.transport.write(piece)
        if not self.left:
            # Not at once: a transport that is closed from inside resume_writing
            # reports its end twice.
            asyncio.get_running_loop().call_soon(self.transport.close)

    def pause_writing(self) -> None:
        self.writing = False

    def resume_writing(self) -> None:
        self.writing = True
        self.fill()


class Caller(Connected):
    """Connects to the client, as often as it is asked for."""

    def data_received(self, data: bytes) -> None:
        port, times = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:], "big")
        self.task = asyncio.ensure_future(self.call(port, times))

    async def call(self, port: int, times: int) -> None:
        """Make the calls, and answer."""
        loop = asyncio.get_running_loop()
        for _ in range(times):
            transport, _protocol = await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
            transport.close()
        self.transport.write(times.to_bytes(8, "big"))
        self.transport.close()


CLASSES: dict[str, type[asyncio.BaseProtocol]] = {
    "echo": Echo,
    "sink": Sink,
    "source": Source,
    "caller": Caller,
}


async def serve(
    kind: str,
    ssl_context: SSLContext | None,
    announce: Callable[[int], None],
    classes: dict[str, type[asyncio.BaseProtocol]] = CLASSES,
) -> None:
    """See the folder's docstring."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(classes[kind], "127.0.0.1", 0, ssl=ssl_context, backlog=1024)
    announce(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()
