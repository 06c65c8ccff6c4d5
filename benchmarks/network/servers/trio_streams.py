"""Servers on Trio's streams: the same text for Trio and for nurseryio under the name `trio`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ssl import SSLContext
from typing import Any

from ...flavour import trio
from . import PIECE


async def echo(stream: Any) -> None:
    """Send back what comes."""
    async for data in stream:
        await stream.send_all(data)


async def sink(stream: Any) -> None:
    """Count what comes."""
    count = 0
    async for data in stream:
        count += len(data)
    await stream.send_all(count.to_bytes(8, "big"))


async def source(stream: Any) -> None:
    """Send as many bytes as asked for."""
    left = int.from_bytes(await stream.receive_some(8), "big")
    while left:
        piece = PIECE if left >= len(PIECE) else PIECE[:left]
        left -= len(piece)
        await stream.send_all(piece)


async def caller(stream: Any) -> None:
    """Connect to the client, as often as it is asked for."""
    port = int.from_bytes(await stream.receive_some(8), "big")
    times = int.from_bytes(await stream.receive_some(8), "big")
    for _ in range(times):
        async with await trio.open_tcp_stream("127.0.0.1", port):
            pass
    await stream.send_all(times.to_bytes(8, "big"))


HANDLERS = {"echo": echo, "sink": sink, "source": source, "caller": caller}


async def serve(kind: str, ssl_context: SSLContext | None, announce: Callable[[int], None]) -> None:
    """See the folder's docstring."""
    handler = HANDLERS[kind]
    if ssl_context is None:
        start = partial(trio.serve_tcp, handler, 0, host="127.0.0.1", backlog=1024)
    else:
        start = partial(
            trio.serve_ssl_over_tcp,
            handler,
            0,
            ssl_context,
            host="127.0.0.1",
            backlog=1024,
            https_compatible=True,
        )
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(start)
        if ssl_context is not None:
            listener = listener.transport_listener
        announce(listener.socket.getsockname()[1])
