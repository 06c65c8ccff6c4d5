"""A DTLS connection: :class:`DTLSChannel`, with its handshake, timer, sending and receiving.

The socket, and the table of connections by address, are in :mod:`endpoint`. The protocol is in
:mod:`engine`.

Rule 1: any packet may get lost. During the handshake, a flight without an answer in time is sent
again, at growing intervals. After the handshake, the user has to handle lost packets.

Rule 2: after a method of a channel was cancelled, the channel can be used as before.
"""

from __future__ import annotations

import copy
import math
import socket
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._base import (
    BrokenResourceError,
    Channel,
    ClosedResourceError,
    EndOfChannel,
    NeedHandshakeError,
    NoPublicConstructor,
    WouldBlock,
)
from .._base.util import Frozen
from .._core import checkpoint
from .._nursery import move_on_after
from .._sync import Lock, open_memory_channel
from .codec import ClientHello, is_of_handshake, is_unencrypted
from .engine import MAX_DATA, DTLSEngine, HandshakeFailed, PeerClosed, describe
from .flight import Flight, Packer

if TYPE_CHECKING:
    from OpenSSL import SSL
    from typing_extensions import Self

    from .endpoint import DTLSEndpoint

__all__ = ["DTLSChannel", "DTLSChannelStatistics"]

# Bytes of the headers of IP and UDP.
IPV4_OVERHEAD = 28
IPV6_OVERHEAD = 48
# Bytes of the largest packet on most networks, and of the largest that every network must carry.
USUAL_PACKET = 1500
IPV4_SMALLEST_PACKET = 576
IPV6_SMALLEST_PACKET = 1280
# Below this, not even the first message of a handshake fits.
SMALLEST_MTU = 64

# Seconds between two tries, at most.
LONGEST_TIMEOUT = 60.0
# After this many tries without an answer, the datagrams may be too large for the network.
TRIES_BEFORE_SHRINKING = 2


class DTLSChannelStatistics(Frozen):
    """Counters of a :class:`DTLSChannel`.

    Attributes:
        incoming_packets_dropped_in_trio: Packets from this peer that arrived while the channel's
            buffer was full, and were dropped. Receive more often, or give the endpoint a larger
            ``incoming_packets_buffer``.

    Trio: ``trio.DTLSChannelStatistics``.
    """

    __slots__ = ("incoming_packets_dropped_in_trio",)

    incoming_packets_dropped_in_trio: int


class DTLSChannel(Channel[bytes], metaclass=NoPublicConstructor):
    """An encrypted connection that carries packets: each arrives whole, or not at all.

    :meth:`DTLSEndpoint.connect` returns channels, and :meth:`DTLSEndpoint.serve` passes them to its
    handler. A channel does not own a socket or another resource of the system, but closing the
    channel removes it from its endpoint. ``with`` and ``async with`` close it.

    Attributes:
        endpoint: The :class:`DTLSEndpoint` that it belongs to.
        peer_address: The address of the peer.

    Trio: ``trio.DTLSChannel``.
    """

    def __init__(self, endpoint: DTLSEndpoint, peer_address: Any, context: SSL.Context) -> None:
        self.endpoint = endpoint
        self.peer_address = peer_address
        self._ipv6 = endpoint.socket.family == socket.AF_INET6
        overhead = IPV6_OVERHEAD if self._ipv6 else IPV4_OVERHEAD
        # The most bytes of a datagram in the handshake. Later the user chooses the size.
        self._handshake_mtu = USUAL_PACKET - overhead
        self._engine = DTLSEngine(context, self._handshake_mtu)
        self._packer = Packer()
        self._handshake_lock = Lock()
        self._deliver, self._packets = open_memory_channel[bytes](endpoint.incoming_packets_buffer)
        self._dropped = 0
        # The ClientHello that opened this connection, None if this end is the client.
        self._hello: ClientHello | None = None
        # The reason that the channel broke (empty if it did not), and OpenSSL's error.
        self._broken = ""
        self._cause: BaseException | None = None
        self._closed = False

    def __repr__(self) -> str:
        if self._closed:
            state = "closed"
        elif self._broken:
            state = "broken"
        else:
            state = "connected" if self._engine.done else "no handshake yet"
        return f"<DTLSChannel: peer {self.peer_address!r}, {state}>"

    # -- for the endpoint -----------------------------------------------------------

    def _accept(self, datagram: bytes, hello: ClientHello) -> bool:
        """Become the server for the sender of this ClientHello. False if OpenSSL refuses it."""
        self._hello = hello
        # The peer drops the first record of this channel as a repetition, unless its number is
        # higher than that of the request for a cookie. That number is not known here, but the
        # number of this ClientHello is higher still.
        self._packer = Packer(hello.record_number)
        return self._engine.be_server(datagram)

    def _replace(self) -> None:
        """Break: the peer or the user of this end has begun a new connection to this address."""
        self._break("a new connection has replaced this one", None)

    def _give_way(self) -> None:
        """Break: too many connections were in their handshake, and this one was the oldest."""
        self._break("too many connections were in their handshake, this one the longest", None)

    async def _take_in(self, datagram: bytes) -> None:
        """Process a datagram from the peer."""
        if self._engine.done:
            if is_of_handshake(datagram):
                # The peer may still be in the handshake, because this end's last flight got lost.
                # The flight is sent again here, because there may not be a receiving task.
                await self._send_flight(self._answer(datagram))
            if is_unencrypted(datagram):
                return
        try:
            self._deliver.send_nowait(datagram)
        except WouldBlock:
            self._dropped += 1
        except ClosedResourceError:
            # The datagram came after the end of the connection.
            pass

    def _answer(self, datagram: bytes) -> Flight:
        try:
            return self._engine.answer(datagram)
        except self.endpoint._lib.Error as error:
            self._break(f"the DTLS connection is over: {describe(error)}", error)
            return []

    # -- closing ----------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection. Tasks that use it get :exc:`ClosedResourceError`.

        Nothing is sent to the peer. Closing again does nothing.
        """
        if not self._closed:
            self._closed = True
            self.endpoint._forget_channel(self)
            self._packets.close()

    async def aclose(self) -> None:
        """Close the connection, as :meth:`close` does.

        Checkpoint: yes.
        """
        self.close()
        await checkpoint()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _check(self) -> None:
        if self._closed:
            raise ClosedResourceError("this DTLS channel was closed")
        if self._broken:
            raise BrokenResourceError(self._broken) from self._cause

    def _break(self, reason: str, cause: BaseException | None) -> None:
        """Make the channel unusable, and wake the tasks that wait for a packet: they raise."""
        if not self._broken:
            self._broken = reason
            # A copy, because the frames of the error hold this channel (a reference cycle).
            self._cause = copy.copy(cause)
        self.endpoint._opened(self)
        self._deliver.close()

    # -- handshake --------------------------------------------------------------------

    async def do_handshake(self, *, initial_retransmit_timeout: float = 1.0) -> None:
        """Make sure that the handshake is done: do it, or wait for the task that is doing it.

        You do not have to call this: :meth:`send` and :meth:`receive` do so. Call it to set the
        timer, to limit the time of the handshake by a scope, or to handle its errors separately.

        Args:
            initial_retransmit_timeout: Seconds after which messages without an answer are sent
                again for the first time. The time doubles with each try that fails, up to a
                minute. One and a half times the round trip to the peer is a good value.

        Raises:
            BrokenResourceError: The handshake failed, for example because the peer's certificate is
                not trusted; ``__cause__`` is the error of OpenSSL. Or a new connection has replaced
                this one.
            ClosedResourceError: The channel or its endpoint is closed, or was closed during the
                call.
            OSError: The system refuses to send to the peer's address.
            ValueError: The timeout is not a positive number.

        Checkpoint: yes.
        """
        if not 0 < initial_retransmit_timeout < math.inf:
            raise ValueError(
                f"initial_retransmit_timeout must be a positive number of seconds, "
                f"not {initial_retransmit_timeout!r}"
            )
        self._check()
        async with self._handshake_lock:
            if self._engine.done:
                return
            self._check()
            try:
                await self._do_handshake(initial_retransmit_timeout)
            except HandshakeFailed as error:
                self._break(f"the DTLS handshake failed: {error}", error.__cause__)
                with suppress(OSError):  # it would hide the error of the handshake
                    await self._send_flight(self._engine.alerts)
                self._check()
            self.endpoint._opened(self)

    async def _do_handshake(self, initial_timeout: float) -> None:
        engine = self._engine
        engine.begin()
        timeout = initial_timeout
        failures = 0
        while True:
            await self._send_flight(engine.flight)
            if engine.done:
                return
            self.endpoint._ensure_receive_loop()
            answered = False
            with move_on_after(timeout):
                await self._wait_for_answer()
                answered = True
            if answered:
                # A timeout that was too short once stays at its longer value (RFC 6347, 4.2.4.1).
                if failures == 0:
                    timeout = initial_timeout
                failures = 0
            else:
                timeout = min(2 * timeout, LONGEST_TIMEOUT)
                failures += 1
                if failures == TRIES_BEFORE_SHRINKING:
                    self._shrink()

    async def _wait_for_answer(self) -> None:
        while not self._engine.advance(await self._next_packet()):
            await self._send_flight(self._engine.alerts)

    async def _next_packet(self) -> bytes:
        try:
            return await self._packets.receive()
        except EndOfChannel:
            self._check()
            raise

    def _shrink(self) -> None:
        if self._ipv6:
            smallest = IPV6_SMALLEST_PACKET - IPV6_OVERHEAD
        else:
            smallest = IPV4_SMALLEST_PACKET - IPV4_OVERHEAD
        self._handshake_mtu = min(self._handshake_mtu, smallest)

    async def _send_flight(self, flight: Flight) -> None:
        for datagram in self._packer.pack(flight, self._handshake_mtu):
            await self.endpoint._send(datagram, self.peer_address)

    # -- data ---------------------------------------------------------------------------

    async def send(self, data: bytes) -> None:
        """Encrypt and send a packet. Like every packet, it may get lost on the way.

        Args:
            data: 1 to 16384 bytes, or any buffer of them. A packet that is larger than
                :meth:`get_cleartext_mtu` may not arrive.

        Raises:
            BrokenResourceError: The handshake failed, or the connection is over.
            ClosedResourceError: The channel or its endpoint is closed.
            OSError: The system refuses to send the packet.
            TypeError: ``data`` is not bytes or a buffer.
            ValueError: ``data`` is empty or too long.

        Checkpoint: yes.
        """
        self._check()
        if type(data) is not bytes:
            try:
                data = memoryview(data).tobytes()
            except TypeError:
                raise TypeError(f"a DTLS packet must be bytes, not {data!r:.80}") from None
        if not data:
            raise ValueError("openssl doesn't support sending empty DTLS packets")
        if len(data) > MAX_DATA:
            raise ValueError(f"a DTLS packet has at most {MAX_DATA} bytes, not {len(data)}")
        if not self._engine.done:
            await self.do_handshake()
        self._check()
        try:
            datagram = self._engine.encrypt(data)
        except self.endpoint._lib.Error as error:
            self._break(f"the DTLS connection is over: {describe(error)}", error)
            self._check()
            raise
        await self.endpoint._send(datagram, self.peer_address)

    async def receive(self) -> bytes:
        """Wait for a packet from the peer, and return it decrypted.

        Several tasks may receive at once. If this is cancelled, no packet is lost.

        Raises:
            BrokenResourceError: The handshake failed, or the connection is over.
            ClosedResourceError: The channel or its endpoint is closed, or was closed during the
                call.
            EndOfChannel: The peer has ended the connection with ``close_notify``.

        Checkpoint: yes.
        """
        if not self._engine.done:
            await self.do_handshake()
        while True:
            packet = await self._next_packet()
            try:
                data = self._engine.decrypt(packet)
            except PeerClosed:
                self._deliver.close()
                continue
            except self.endpoint._lib.Error as error:
                self._break(f"the DTLS connection is over: {describe(error)}", error)
                continue
            if data:
                return data

    # -- size of packets --------------------------------------------------------------

    def set_ciphertext_mtu(self, new_mtu: int) -> None:
        """Set the largest size of an encrypted packet to this peer.

        Before the handshake, this sets the size of the packets into which the handshake's messages
        are cut. (They are cut smaller automatically when they seem to get lost, but that takes some
        time.) The result of :meth:`get_cleartext_mtu` changes too. :meth:`send` does not compare
        its data with this size.

        Args:
            new_mtu: Bytes of a UDP packet without the headers of IP and UDP, which are 28 bytes
                with IPv4 and 48 with IPv6. The default is the size that fits into the 1500 bytes of
                an Ethernet packet.

        Raises:
            ValueError: ``new_mtu`` is less than 64.
        """
        if new_mtu < SMALLEST_MTU:
            raise ValueError(f"the MTU must be at least {SMALLEST_MTU} bytes, not {new_mtu}")
        self._handshake_mtu = new_mtu
        self._engine.set_mtu(new_mtu)

    def get_cleartext_mtu(self) -> int:
        """Return how many bytes of data fit into a packet of the largest size.

        That size is the one set by :meth:`set_ciphertext_mtu`, or the default.

        Raises:
            NeedHandshakeError: The handshake, which decides on the overhead, is not done yet.
        """
        if not self._engine.done:
            raise NeedHandshakeError("await do_handshake() before asking for the MTU")
        return self._engine.data_mtu()

    def statistics(self) -> DTLSChannelStatistics:
        """Return the counters of this channel."""
        return DTLSChannelStatistics(incoming_packets_dropped_in_trio=self._dropped)
