"""Servers on asyncio's streams (`asyncio.start_server`)."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from ssl import SSLContext

from . import PIECE


async def echo(reader: StreamReader, writer: StreamWriter) -> None:
    """Send back what comes."""
    while data := await reader.read(len(PIECE)):
        writer.write(data)
        await writer.drain()
    writer.close()


async def sink(reader: StreamReader, writer: StreamWriter) -> None:
    """Count what comes."""
    count = 0
    while data := await reader.read(len(PIECE)):
        count += len(data)
    writer.write(count.to_bytes(8, "big"))
    await writer.drain()
    writer.close()


async def source(reader: StreamReader, writer: StreamWriter) -> None:
    """Send as many bytes as asked for."""
    left = int.from_bytes(await reader.readexactly(8), "big")
    while left:
        piece = PIECE if left >= len(PIECE) else PIECE[:left]
        left -= len(piece)
        writer.write(piece)
        await writer.drain()
    writer.close()


async def caller(reader: StreamReader, writer: StreamWriter) -> None:
    """Connect to the client, as often as it is asked for."""
    port = int.from_bytes(await reader.readexactly(8), "big")
    times = int.from_bytes(await reader.readexactly(8), "big")
    for _ in range(times):
        _reader, called = await asyncio.open_connection("127.0.0.1", port)
        called.close()
    writer.write(times.to_bytes(8, "big"))
    await writer.drain()
    writer.close()


HANDLERS = {"echo": echo, "sink": sink, "source": source, "caller": caller}


async def serve(kind: str, ssl_context: SSLContext | None, announce: Callable[[int], None]) -> None:
    """See the folder's docstring."""
    server = await asyncio.start_server(
        HANDLERS[kind], "127.0.0.1", 0, ssl=ssl_context, backlog=1024
    )
    announce(server.sockets[0].getsockname()[1])
    async with server:
        await server.serve_forever()
