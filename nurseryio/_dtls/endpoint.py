"""DTLS over a UDP socket: :class:`DTLSEndpoint`, which connects, serves, and reads the socket.

This module has the task that reads the socket, and the table of connections by address. The
connections are in :mod:`channel`.

Rule 1: there is one connection to an address at a time. A new connection replaces the old one: at
once if this end is the client, otherwise when the peer has proved that it receives at the address.

Rule 2: nothing is remembered about a peer before that proof (:mod:`cookie`).

Rule 3: the reading task does not keep the endpoint alive, and ends when the socket is closed. Other
errors of the socket do not end the task. It is a system task, so an error in it would end the run.

Rule 4: a peer that has proved its address, but does not complete its handshake, uses memory. So at
most ``MOST_OPENING`` connections may be in their handshake. One more breaks the oldest of them.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket as stdlib_socket
import warnings
import weakref
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._base import BusyResourceError, ClosedResourceError, Final, WouldBlock
from .._net.stream import is_closed_error
from .._nursery import TASK_STATUS_IGNORED, TaskStatus, current_time, open_nursery, sleep
from .._run.system_tasks import spawn_system_task
from .._run.token import current_trio_token
from .._sync import Lock, MemorySendChannel, open_memory_channel
from .channel import DTLSChannel
from .codec import Malformed, hello_verify_request, is_client_hello, read_client_hello
from .cookie import CookieJar
from .engine import prepare_context, pyopenssl

if TYPE_CHECKING:
    from OpenSSL import SSL
    from typing_extensions import Self, TypeVarTuple, Unpack

    from .._net.sockettype import SocketType

    PosArgsT = TypeVarTuple("PosArgsT")

__all__ = ["DTLSEndpoint"]

# More than any UDP packet holds.
MAX_DATAGRAM = 65535

# The most connections that peers have begun and not completed. Each holds about 64 KiB.
MOST_OPENING = 512

# Seconds to wait if reading the socket fails time after time.
PAUSE = 0.1

logger = logging.getLogger("nurseryio.DTLSEndpoint")


class DTLSEndpoint(metaclass=Final):
    """A UDP socket that carries any number of DTLS connections, as server, as client, or both.

    Close the endpoint when you do not need it any more; ``with`` does that.

    Args:
        socket: A socket of type ``SOCK_DGRAM``. To serve, it must be bound. From now on it belongs
            to the endpoint.
        incoming_packets_buffer: How many packets each connection keeps until they are received.
            Further packets are dropped.

    Attributes:
        socket: As given.
        incoming_packets_buffer: As given.

    Raises:
        ImportError: pyOpenSSL is not installed.
        TypeError: ``socket`` is not one of this library's sockets.
        ValueError: ``socket`` is not of type ``SOCK_DGRAM``, or the buffer is negative.
        RuntimeError: Called outside of a run.

    Trio: ``trio.DTLSEndpoint``.
    """

    # For __del__, in case __init__ fails.
    _closed = True

    def __init__(self, socket: SocketType, *, incoming_packets_buffer: int = 10) -> None:
        # Kept here, so that the connections can catch OpenSSL's errors without an import.
        self._lib: Any = pyopenssl()
        if isinstance(socket, stdlib_socket.socket) or not hasattr(socket, "recvfrom"):
            raise TypeError(f"DTLSEndpoint needs a nurseryio.socket.SocketType, not {socket!r}")
        if socket.type != stdlib_socket.SOCK_DGRAM:
            raise ValueError("DTLS requires a SOCK_DGRAM socket")
        if incoming_packets_buffer < 0:
            raise ValueError("incoming_packets_buffer must not be negative")
        self.socket = socket
        self.incoming_packets_buffer = incoming_packets_buffer
        self._token = current_trio_token()
        # Connections by address. Weak, so that connections that are not used any more disappear.
        self._channels: weakref.WeakValueDictionary[Any, DTLSChannel] = (
            weakref.WeakValueDictionary()
        )
        # The connections that peers have begun and that are in their handshake, oldest first.
        self._opening: weakref.WeakValueDictionary[Any, DTLSChannel] = weakref.WeakValueDictionary()
        self._cookies: CookieJar | None = None
        # While serving: the context, and the channel to serve() for new connections.
        self._listening_context: SSL.Context | None = None
        self._arrivals: MemorySendChannel[DTLSChannel] | None = None
        # Two tasks must not wait for one socket at the same time.
        self._send_lock = Lock()
        self._receiving = False
        self._closed = False

    def __repr__(self) -> str:
        serving = "" if self._listening_context is None else ", serving"
        state = "closed" if self._closed else f"{len(self._channels)} connections{serving}"
        return f"<DTLSEndpoint at {id(self):#x}, {state}, on {self.socket!r}>"

    def __del__(self) -> None:
        if self._closed:
            return
        # The socket has to be closed on the loop, so that the reading task wakes and ends.
        with contextlib.suppress(RuntimeError):
            self._token.run_sync_soon(self.socket.close)
        # Last, because warn() may raise.
        warnings.warn(
            f"unclosed DTLS endpoint {self!r}; close it, or use it in a 'with' block",
            ResourceWarning,
            source=self,
            stacklevel=1,
        )

    # -- closing ------------------------------------------------------------------------

    def close(self) -> None:
        """Close the socket and all connections. Tasks that use them get :exc:`ClosedResourceError`.

        A running :meth:`serve` returns when its handlers have ended. Closing again does nothing.
        """
        self._closed = True
        self.socket.close()
        for channel in list(self._channels.values()):
            channel.close()
        if self._arrivals is not None:
            self._arrivals.close()

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
            raise ClosedResourceError("this DTLS endpoint was closed")

    # -- connections --------------------------------------------------------------------

    def connect(self, address: tuple[str, int], ssl_context: SSL.Context) -> DTLSChannel:
        """Make a connection as its client. Nothing is sent yet.

        The handshake is done when the channel is first used, so you can configure the channel
        before.

        Args:
            address: IP address and port of the server. Resolve a host name first, because the
                endpoint assigns packets to connections by the address that they come from.
            ssl_context: The certificates to offer and to trust, and other settings.

        Returns:
            The connection. It breaks an earlier connection to the same address.

        Raises:
            ClosedResourceError: The endpoint is closed.
            TypeError: ``ssl_context`` is not an ``OpenSSL.SSL.Context``.
            ValueError: ``ssl_context`` was not made for DTLS, or for servers only; or ``address``
                is not an IP address with a port.

        Checkpoint: no, this is not an async function.
        """
        self._check()
        prepare_context(ssl_context, server_side=False)
        key = self._full_address(address)
        channel: DTLSChannel = DTLSChannel._create(self, key, ssl_context)
        channel._engine.be_client()
        self._put(channel)
        return channel

    async def serve(
        self,
        ssl_context: SSL.Context,
        async_fn: Callable[[DTLSChannel, Unpack[PosArgsT]], Awaitable[object]],
        *args: Unpack[PosArgsT],
        task_status: TaskStatus[None] = TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections, and run a handler for each in a nursery.

        Returns when the endpoint is closed and all handlers have ended. Usually started by

            await nursery.start(endpoint.serve, ssl_context, handler)

        The peer of a handler's channel has proved its address. But the handshake is not done yet:
        it is done when the channel is first used, and can fail then. The channel is closed when the
        handler ends. An error that a handler does not catch ends the server. At most 512 channels
        may be in such a handshake: one more breaks the oldest.

        Args:
            ssl_context: The server's certificate and settings.
            async_fn: Called as ``async_fn(channel, *args)`` for each connection.
            *args: More arguments for it.
            task_status: For ``nursery.start``, which returns when connections are accepted.

        Raises:
            BusyResourceError: Another task is already serving on this endpoint.
            ClosedResourceError: The endpoint is closed.
            RuntimeError: The socket is not bound.
            TypeError: ``ssl_context`` is not an ``OpenSSL.SSL.Context``.
            ValueError: ``ssl_context`` was not made for DTLS, or for clients only.

        Checkpoint: yes.
        """
        self._check()
        if self._listening_context is not None:
            raise BusyResourceError("another task is already serving on this DTLS endpoint")
        if not self._is_bound():
            raise RuntimeError("bind the socket of a DTLS endpoint before serving on it")
        prepare_context(ssl_context, server_side=True)

        async def handle(channel: DTLSChannel) -> None:
            with channel:
                await async_fn(channel, *args)

        self._ensure_receive_loop()
        self._arrivals, arrivals = open_memory_channel[DTLSChannel](MOST_OPENING)
        self._listening_context = ssl_context
        try:
            task_status.started()
            async with open_nursery() as nursery:
                async for channel in arrivals:
                    nursery.start_soon(handle, channel)
        finally:
            self._listening_context = self._arrivals = None

    def _is_bound(self) -> bool:
        try:
            return bool(self.socket.getsockname()[1])
        except OSError:
            return False

    def _full_address(self, address: tuple[str, int]) -> Any:
        """Return the address in the form in which the system returns it with each packet."""
        try:
            host, port = address[:2]
            ip = ipaddress.ip_address(host.partition("%")[0])
            ipv6 = self.socket.family == stdlib_socket.AF_INET6
            if (ip.version == 6) is not ipv6 or not 0 < port <= 65535:
                raise ValueError
        except (AttributeError, TypeError, ValueError):
            raise ValueError(
                f"cannot connect to {address!r}: DTLS needs an IP address of the socket's family "
                "with a port, such as ('127.0.0.1', 12345); resolve a host name first"
            ) from None
        return (host, port, *(address[2:] or (0, 0))) if ipv6 else (host, port)

    def _put(self, channel: DTLSChannel) -> None:
        before = self._channels.get(channel.peer_address)
        if before is not None:
            before._replace()
        self._channels[channel.peer_address] = channel

    def _forget_channel(self, channel: DTLSChannel) -> None:
        if self._channels.get(channel.peer_address) is channel:
            del self._channels[channel.peer_address]
        self._opened(channel)

    def _opened(self, channel: DTLSChannel) -> None:
        """Record that the handshake of this connection is over: it succeeded or failed."""
        if self._opening.get(channel.peer_address) is channel:
            del self._opening[channel.peer_address]

    # -- the socket -----------------------------------------------------------------------

    async def _send(self, datagram: bytes, address: Any) -> None:
        async with self._send_lock:
            await self.socket.sendto(datagram, address)

    def _ensure_receive_loop(self) -> None:
        # Started only after a packet was sent or before serving: on some systems a socket must be
        # bound before it can be read, and sending binds it.
        if not self._receiving:
            self._receiving = True
            endpoint: weakref.ReferenceType[DTLSEndpoint] = weakref.ref(self)
            spawn_system_task(_receive_loop, endpoint, self.socket)

    async def _take_in(self, datagram: bytes, address: Any) -> None:
        if is_client_hello(datagram):
            await self._take_in_hello(datagram, address)
        else:
            channel = self._channels.get(address)
            if channel is not None:
                await channel._take_in(datagram)

    async def _take_in_hello(self, datagram: bytes, address: Any) -> None:
        if self._listening_context is None or self._arrivals is None:
            return
        try:
            hello = read_client_hello(datagram)
        except Malformed:
            return
        now = current_time()
        if self._cookies is None:
            self._cookies = CookieJar(now)
        if not self._cookies.check(address, hello, now):
            cookie = self._cookies.make(address, hello, now)
            await self._send(hello_verify_request(hello, cookie), address)
            return
        before = self._channels.get(address)
        if before is not None and before._hello is not None and before._hello[1:] == hello[1:]:
            # The same ClientHello again, because it or the answer to it was slow.
            return
        channel: DTLSChannel = DTLSChannel._create(self, address, self._listening_context)
        if not channel._accept(datagram, hello):
            return
        try:
            self._arrivals.send_nowait(channel)
        except WouldBlock:
            # Too many connections wait for serve(). The peer will send its ClientHello again.
            return
        self._put(channel)
        self._opening.pop(address, None)
        if len(self._opening) >= MOST_OPENING:
            oldest = next(self._opening.values(), None)
            if oldest is not None:
                oldest._give_way()
        self._opening[address] = channel


async def _receive_loop(
    endpoint_ref: weakref.ReferenceType[DTLSEndpoint], sock: SocketType
) -> None:
    """Read the socket of an endpoint until the socket is closed, or the endpoint is collected."""
    failing = False
    while True:
        try:
            datagram, address = await sock.recvfrom(MAX_DATAGRAM)
        except ClosedResourceError:
            return
        except OSError as error:
            if is_closed_error(error):
                return
            if error.errno == errno.ECONNRESET:
                # Some systems report here that a peer has refused an earlier packet.
                continue
            # The system is short of a resource, or reports the failure of an earlier packet.
            if not failing:
                logger.warning("reading the socket of a DTLS endpoint failed, going on: %s", error)
                failing = True
                continue
            await sleep(PAUSE)
            endpoint = endpoint_ref()
            if endpoint is None or endpoint._closed:
                return
            del endpoint
            continue
        failing = False
        endpoint = endpoint_ref()
        if endpoint is None:
            return
        try:
            await endpoint._take_in(datagram, address)
        except ClosedResourceError:
            return
        except OSError:
            # This answer cannot be sent. For the peer it is a lost packet.
            pass
        finally:
            del endpoint
