"""A DTLS connection: :class:`DTLSChannel`.

What lives here: the handshake with its timer, and the sending and receiving of packets over the
socket of an endpoint. What does not: the socket and who is behind which address (:mod:`dtls`), the
protocol (:mod:`dtls_engine`).

Rule 1: nothing is certain to arrive. During the handshake, what has no answer in time is sent
again, less and less often. After it, loss is the user's business.

Rule 2: a channel that was cancelled in any of its methods can be used as before.
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

# Bytes that IP and UDP put around a datagram.
IPV4_OVERHEAD = 28
IPV6_OVERHEAD = 48
# Bytes of the largest packet on most networks, and of the one that every network must carry.
USUAL_PACKET = 1500
IPV4_SMALLEST_PACKET = 576
IPV6_SMALLEST_PACKET = 1280
# Below this, not even the first message of a handshake fits.
SMALLEST_MTU = 64

# Seconds between two tries, at most.
LONGEST_TIMEOUT = 60.0
# After so many tries without an answer, the datagrams may be too large for the network.
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

    Comes from :meth:`DTLSEndpoint.connect`, or to the handler given to :meth:`DTLSEndpoint.serve`.
    It owns nothing of the system's, but closing it frees its endpoint from it; ``with`` and
    ``async with`` do so.

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
        # The most bytes of a datagram in the handshake; later that is the user's business.
        self._handshake_mtu = USUAL_PACKET - overhead
        self._engine = DTLSEngine(context, self._handshake_mtu)
        self._packer = Packer()
        self._handshake_lock = Lock()
        self._deliver, self._packets = open_memory_channel[bytes](endpoint.incoming_packets_buffer)
        self._dropped = 0
        # What opened this connection, if the peer did.
        self._hello: ClientHello | None = None
        # Why the channel cannot be used any more, although nobody closed it, and OpenSSL's error.
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
        """Become the server of whoever sent this ClientHello. False if OpenSSL refuses it."""
        self._hello = hello
        # The peer takes our first record for a repetition unless its number is higher than that of
        # the request for a cookie. We do not know that one, but this hello's is higher still.
        self._packer = Packer(hello.record_number)
        return self._engine.be_server(datagram)

    def _replace(self) -> None:
        """The peer, or our own user, has begun a new connection between the two addresses."""
        self._break("a new connection has replaced this one", None)

    def _give_way(self) -> None:
        """Others have begun connections, and this one has not completed its handshake."""
        self._break("too many connections were in their handshake, this one the longest", None)

    async def _take_in(self, datagram: bytes) -> None:
        """A datagram has come from the peer."""
        if self._engine.done:
            if is_of_handshake(datagram):
                # The peer may still be busy with the handshake: our last flight got lost. It is
                # sent from here, because no task may be receiving.
                await self._send_flight(self._answer(datagram))
            if is_unencrypted(datagram):
                return
        try:
            self._deliver.send_nowait(datagram)
        except WouldBlock:
            self._dropped += 1
        except ClosedResourceError:
            # Said after the end.
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

        The peer is not told. Closing again does nothing.
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
        """The channel cannot be used any more: whoever waits for a packet wakes and finds out."""
        if not self._broken:
            self._broken = reason
            # A copy: the frames of the error hold this channel.
            self._cause = copy.copy(cause)
        self.endpoint._opened(self)
        self._deliver.close()

    # -- handshake --------------------------------------------------------------------

    async def do_handshake(self, *, initial_retransmit_timeout: float = 1.0) -> None:
        """Make sure that the handshake is done: do it, or wait for the task that is doing it.

        Calling this is not necessary, but the place to set the timer, to limit the time by a scope
        around it, or to look at errors of the handshake alone.

        Args:
            initial_retransmit_timeout: Seconds after which something without an answer is sent
                again, at first; twice as long with each try that fails, up to a minute. One and a
                half times the way to the peer and back is a good value.

        Raises:
            BrokenResourceError: The handshake failed, for example as the peer's certificate is not
                trusted; ``__cause__`` is the error of OpenSSL. Or a new connection has replaced
                this one.
            ClosedResourceError: The channel or its endpoint is closed, or was closed meanwhile.
            OSError: The system refuses to send to that address.
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
                with suppress(OSError):  # which would hide what has failed
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
                # A timer that proved too short once is kept (RFC 6347, 4.2.4.1).
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
        """Send a packet, encrypted. It may get lost on the way, as packets do.

        Args:
            data: 1 to 16384 bytes, or any buffer of them; what is larger than
                :meth:`get_cleartext_mtu` may not arrive.

        Raises:
            BrokenResourceError: The handshake failed, or the connection is over.
            ClosedResourceError: The channel or its endpoint is closed.
            OSError: The system refuses to send it.
            TypeError: ``data`` is not bytes.
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

        Several tasks may receive at once. Can be cancelled without losing a packet.

        Raises:
            BrokenResourceError: The handshake failed, or the connection is over.
            ClosedResourceError: The channel or its endpoint is closed, or was closed meanwhile.
            EndOfChannel: The peer said that it will send nothing more.

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
        """Say how large an encrypted packet to this peer may be.

        Before the handshake, its messages are cut to this size (they are cut smaller by themselves
        when they seem to get lost, but that takes a while to find out). And
        :meth:`get_cleartext_mtu` follows. What is given to :meth:`send` is sent whatever its size.

        Args:
            new_mtu: Bytes of a UDP packet without the headers of IP and UDP, which are 28 bytes
                with IPv4 and 48 with IPv6. Until set, it is what fits into the 1500 bytes of an
                Ethernet packet.

        Raises:
            ValueError: Less than 64.
        """
        if new_mtu < SMALLEST_MTU:
            raise ValueError(f"the MTU must be at least {SMALLEST_MTU} bytes, not {new_mtu}")
        self._handshake_mtu = new_mtu
        self._engine.set_mtu(new_mtu)

    def get_cleartext_mtu(self) -> int:
        """Return how many bytes of data fit into a packet of the size that was set or is usual.

        Raises:
            NeedHandshakeError: The handshake, which decides on the overhead, is not done yet.
        """
        if not self._engine.done:
            raise NeedHandshakeError("await do_handshake() before asking for the MTU")
        return self._engine.data_mtu()

    def statistics(self) -> DTLSChannelStatistics:
        """Return the counters of this channel."""
        return DTLSChannelStatistics(incoming_packets_dropped_in_trio=self._dropped)
