"""A network for datagrams inside the process, whose losses and delays the test decides.

A packet that a socket sends goes to the network's ``route``, by default straight to its
destination. A test that wants losses, delays, duplicates or forgeries puts its own function there,
which calls :meth:`Network.deliver` as often as it likes.
"""

from __future__ import annotations

import itertools
import math
import socket
from collections.abc import Callable
from typing import NamedTuple

from nurseryio import ClosedResourceError, open_memory_channel
from nurseryio.lowlevel import checkpoint

__all__ = ["Address", "FakeSocket", "Network", "Packet"]

Address = tuple[object, ...]


class Packet(NamedTuple):
    """A datagram on its way."""

    source: Address
    destination: Address
    data: bytes


class Network:
    """Where the sockets are."""

    def __init__(self) -> None:
        self.route: Callable[[Packet], None] = self.deliver
        self.sockets: dict[Address, FakeSocket] = {}
        self._ports = itertools.count(5000)

    def socket(self, *, ipv6: bool = False) -> FakeSocket:
        """A socket with its own address."""
        port = next(self._ports)
        address: Address = ("::1", port, 0, 0) if ipv6 else ("127.0.0.1", port)
        self.sockets[address] = FakeSocket(self, address)
        return self.sockets[address]

    def deliver(self, packet: Packet) -> None:
        """Hand a packet to the socket at its destination, if there is one."""
        receiver = self.sockets.get(packet.destination)
        if receiver is not None:
            receiver.arrive(packet)


class FakeSocket:
    """The methods of a UDP socket that a DTLS endpoint uses."""

    type = socket.SOCK_DGRAM

    def __init__(self, network: Network, address: Address) -> None:
        self.family = socket.AF_INET if len(address) == 2 else socket.AF_INET6
        self.sent = 0
        self._network = network
        self._address = address
        self._arrivals, self._queue = open_memory_channel[Packet](math.inf)

    def getsockname(self) -> Address:
        return self._address

    def arrive(self, packet: Packet) -> None:
        """A packet for this socket has come."""
        self._arrivals.send_nowait(packet)

    async def sendto(self, data: bytes, address: Address) -> int:
        await checkpoint()
        if self._network.sockets.get(self._address) is not self:
            raise ClosedResourceError
        self.sent += 1
        self._network.route(Packet(self._address, address, bytes(data)))
        return len(data)

    async def recvfrom(self, _size: int) -> tuple[bytes, Address]:
        packet = await self._queue.receive()
        return packet.data, packet.source

    def close(self) -> None:
        """Close the socket; a task that waits for a packet gets ClosedResourceError."""
        self._network.sockets.pop(self._address, None)
        self._queue.close()
