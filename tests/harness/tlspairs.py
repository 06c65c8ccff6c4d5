"""Pairs of TLS streams that are connected to each other, for the tests of everything TLS."""

from __future__ import annotations

import ssl
from typing import Any

import nurseryio
from harness import certs
from nurseryio import SSLStream
from nurseryio.abc import Stream
from nurseryio.testing import lockstep_stream_pair, memory_stream_pair

__all__ = ["connect", "over_lockstep", "over_memory", "wrap"]


def wrap(
    client_side: Stream,
    server_side: Stream,
    *,
    version: str = "1.3",
    https_compatible: bool = False,
    context: ssl.SSLContext | None = None,
) -> tuple[SSLStream[Any], SSLStream[Any]]:
    """A client and a server over two streams that are connected to each other."""
    client: SSLStream[Any] = SSLStream(
        client_side,
        context or certs.client_context(version=version),
        server_hostname=certs.HOST,
        https_compatible=https_compatible,
    )
    server: SSLStream[Any] = SSLStream(
        server_side,
        certs.server_context(version=version),
        server_side=True,
        https_compatible=https_compatible,
    )
    return client, server


def over_memory(**options: Any) -> tuple[SSLStream[Any], SSLStream[Any]]:
    """A pair inside the process, without limits to what is on its way."""
    return wrap(*memory_stream_pair(), **options)


def over_lockstep(**options: Any) -> tuple[SSLStream[Any], SSLStream[Any]]:
    """A pair inside the process, on which a send waits until all of it is received."""
    return wrap(*lockstep_stream_pair(), **options)


async def connect(
    pair: tuple[SSLStream[Any], SSLStream[Any]],
) -> tuple[SSLStream[Any], SSLStream[Any]]:
    """Have the two do their handshake."""
    async with nurseryio.open_nursery() as nursery:
        for stream in pair:
            nursery.start_soon(stream.do_handshake)
    return pair
