"""DTLS endpoints on a network inside the process, for the tests of everything DTLS."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import nurseryio
from harness import certs
from harness.datagrams import Network
from nurseryio import BrokenResourceError, DTLSChannel, DTLSEndpoint

__all__ = ["echo", "echo_strictly", "endpoint", "serving"]


def endpoint(network: Network, *, ipv6: bool = False, **options: Any) -> DTLSEndpoint:
    """An endpoint with an address on this network."""
    return DTLSEndpoint(network.socket(ipv6=ipv6), **options)  # type: ignore[arg-type]


async def echo(channel: DTLSChannel) -> None:
    """A handler that sends everything back, for as long as the connection lasts."""
    with contextlib.suppress(BrokenResourceError):
        await echo_strictly(channel)


async def echo_strictly(channel: DTLSChannel) -> None:
    """The same, and lets the error out if the connection breaks."""
    async for packet in channel:
        await channel.send(packet)


@asynccontextmanager
async def serving(
    network: Network, handler: Any = echo, *, ipv6: bool = False
) -> AsyncIterator[DTLSEndpoint]:
    """A server on this network, for the time of the block."""
    with endpoint(network, ipv6=ipv6) as server:
        async with nurseryio.open_nursery() as nursery:
            await nursery.start(server.serve, certs.dtls_server_context(), handler)
            yield server
            nursery.cancel_scope.cancel()
