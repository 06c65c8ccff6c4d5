"""Servers on anyio's streams and listeners, on its asyncio back end."""

from __future__ import annotations

from collections.abc import Callable
from ssl import SSLContext
from typing import Any

import anyio
from anyio.abc import ByteStream, Listener, SocketAttribute
from anyio.streams.tls import TLSListener

from . import PIECE


async def echo(stream: ByteStream) -> None:
    """Send back what comes."""
    async with stream:
        async for data in stream:
            await stream.send(data)


async def sink(stream: ByteStream) -> None:
    """Count what comes."""
    async with stream:
        count = 0
        async for data in stream:
            count += len(data)
        await stream.send(count.to_bytes(8, "big"))


async def source(stream: ByteStream) -> None:
    """Send as many bytes as asked for."""
    async with stream:
        left = int.from_bytes(await stream.receive(8), "big")
        while left:
            piece = PIECE if left >= len(PIECE) else PIECE[:left]
            left -= len(piece)
            await stream.send(piece)


async def caller(stream: ByteStream) -> None:
    """Connect to the client, as often as it is asked for."""
    async with stream:
        port = int.from_bytes(await stream.receive(8), "big")
        times = int.from_bytes(await stream.receive(8), "big")
        for _ in range(times):
            async with await anyio.connect_tcp("127.0.0.1", port):
                pass
        await stream.send(times.to_bytes(8, "big"))


HANDLERS = {"echo": echo, "sink": sink, "source": source, "caller": caller}


async def serve(kind: str, ssl_context: SSLContext | None, announce: Callable[[int], None]) -> None:
    """See the folder's docstring."""
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0, backlog=1024)
    announce(plain.extra(SocketAttribute.local_port))
    listener: Listener[Any] = plain
    if ssl_context is not None:
        listener = TLSListener(plain, ssl_context, standard_compatible=False)
    await listener.serve(HANDLERS[kind])
