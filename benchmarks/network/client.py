"""The fixed raw client: blocking sockets, the same for every server.

Messages up to `SMALL` go out on all connections and are then collected from all (they fit into the
kernel's buffers, so this cannot lock up against a server with back-pressure); larger ones are sent
and collected at once.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
from typing import Any

SMALL = 65536
_CHUNK = 1 << 20


class EchoClient:
    """A number of connections to one echo server that stay open between rounds of work."""

    def __init__(
        self, port: int, connections: int, size: int, context: ssl.SSLContext | None = None
    ) -> None:
        self._message = bytes(size)
        self._buffer = bytearray(max(size, _CHUNK))
        self._sockets = [connect(port, context) for _ in range(connections)]

    def close(self) -> None:
        """Close every connection."""
        for sock in self._sockets:
            sock.close()

    def wave(self, times: int) -> int:
        """Send the message on every connection and wait for every echo, `times` times.

        Return how many came back.
        """
        message = self._message
        if len(message) <= SMALL:
            for _ in range(times):
                for sock in self._sockets:
                    sock.sendall(message)
                for sock in self._sockets:
                    receive_exactly(sock, len(message), self._buffer)
        else:
            for _ in range(times):
                exchange(self._sockets, message, self._buffer)
        return times * len(self._sockets)


def connect(port: int, context: ssl.SSLContext | None = None) -> socket.socket:
    """Open a connection to a local server, without Nagle's delay."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock if context is None else context.wrap_socket(sock, server_hostname="localhost")


def receive_exactly(sock: socket.socket, size: int, buffer: bytearray) -> None:
    """Receive `size` bytes into a buffer that is thrown away."""
    while size:
        got = sock.recv_into(buffer, size)
        if not got:
            raise ConnectionError("the server closed the connection")
        size -= got


def exchange(sockets: list[socket.socket], message: bytes, buffer: bytearray) -> None:
    """Send a large message on every connection while collecting what comes back."""
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        for sock in sockets:
            sock.setblocking(False)
            stack.callback(sock.settimeout, 30)
            both = selectors.EVENT_READ | selectors.EVENT_WRITE
            selector.register(sock, both, [memoryview(message), len(message)])
        while selector.get_map():
            for key, mask in selector.select():
                _exchange_some(selector, key, mask, buffer)


def _exchange_some(
    selector: selectors.BaseSelector, key: selectors.SelectorKey, mask: int, buffer: bytearray
) -> None:
    state: list[Any] = key.data
    sock: Any = key.fileobj
    if mask & selectors.EVENT_WRITE:
        state[0] = state[0][sock.send(state[0]) :]
        if not state[0]:
            selector.modify(sock, selectors.EVENT_READ, state)
    if mask & selectors.EVENT_READ:
        got = sock.recv_into(buffer)
        if not got:
            raise ConnectionError("the server closed the connection")
        state[1] -= got
        if not state[1]:
            selector.unregister(sock)


def visit(port: int, size: int, times: int) -> int:
    """Connect, have one message echoed, close; one after the other."""
    message, buffer = bytes(size), bytearray(size)
    for _ in range(times):
        with connect(port) as sock:
            sock.sendall(message)
            receive_exactly(sock, size, buffer)
    return times


def be_called(port: int, times: int) -> int:
    """Have the server connect to this process, close, and so on; return how often it says it has.

    Each connection is accepted and closed, one after the other.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener, connect(port) as sock:
        listener.settimeout(30)
        own_port: int = listener.getsockname()[1]
        sock.sendall(own_port.to_bytes(8, "big") + times.to_bytes(8, "big"))
        for _ in range(times):
            listener.accept()[0].close()
        return int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")


def pour(port: int, size: int, context: ssl.SSLContext | None = None) -> int:
    """Send `size` bytes to a sink and return the count that it answers with."""
    chunk = bytes(_CHUNK)
    with connect(port, context) as sock:
        for _ in range(size // _CHUNK):
            sock.sendall(chunk)
        sock.shutdown(socket.SHUT_WR)
        return int.from_bytes(sock.recv(8, socket.MSG_WAITALL), "big")


def draw(port: int, size: int, context: ssl.SSLContext | None = None) -> int:
    """Ask a source for `size` bytes and return how many came."""
    buffer, got = bytearray(_CHUNK), 0
    with connect(port, context) as sock:
        sock.sendall(size.to_bytes(8, "big"))
        while count := sock.recv_into(buffer):
            got += count
    return got
