"""Connected sockets and streams for the tests of the network room."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import random
import socket as stdlib
import termios
from collections.abc import AsyncIterator

import pytest

from nurseryio import SocketStream, socket


def has_localhost() -> bool:
    """Whether this machine knows the name ``localhost``, which a new chroot does not."""
    with contextlib.suppress(OSError):
        return bool(stdlib.getaddrinfo("localhost", 80, stdlib.AF_INET))
    return False


# For programs that look up a name.
LOCALHOST = "localhost" if has_localhost() else "127.0.0.1"
needs_localhost = pytest.mark.skipif(
    LOCALHOST != "localhost", reason="this machine does not know the name localhost"
)


def has_ipv6() -> bool:
    """Whether this machine can use ``::1``."""
    with contextlib.suppress(OSError), stdlib.socket(stdlib.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


def free_port(kind: int = stdlib.SOCK_STREAM) -> int:
    """A free port of 127.0.0.1.

    It lies below the numbers that systems choose for connections and for port 0. One of those
    could be in use again before the test, or a program that it starts, comes to use it.

    Args:
        kind: ``SOCK_STREAM`` for TCP, ``SOCK_DGRAM`` for UDP.
    """
    while True:
        port = random.randrange(12_000, 32_000)
        with contextlib.suppress(OSError), stdlib.socket(type=kind) as probe:
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.asynccontextmanager
async def tcp_pair() -> AsyncIterator[tuple[SocketStream, SocketStream]]:
    """Two streams that are the ends of one TCP connection."""
    with socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = socket.socket()
        await client.connect(listener.getsockname())
        server, _address = await listener.accept()
    async with SocketStream(client) as left, SocketStream(server) as right:
        yield left, right


@contextlib.asynccontextmanager
async def unix_pair() -> AsyncIterator[tuple[SocketStream, SocketStream]]:
    """Two streams over a pair of sockets; data that one sends, the other has at once."""
    left, right = socket.socketpair()
    async with SocketStream(left) as a, SocketStream(right) as b:
        yield a, b


def reset(stream: SocketStream) -> None:
    """Close a TCP stream so that its peer sees the connection reset."""
    # struct linger: on, 0 seconds.
    linger = (1).to_bytes(4, "little") + bytes(4)
    stream.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, linger)
    stream.socket.close()


def clog(stream: SocketStream) -> int:
    """Fill the way out of a stream, behind its back: how many bytes the kernel took."""
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            taken += os.write(stream.socket.fileno(), bytes(65536))
    return taken


def drain(stream: SocketStream, most: int | None = None) -> int:
    """Take what has arrived at a stream, behind its back: how many bytes."""
    taken = 0
    with contextlib.suppress(BlockingIOError):
        while most is None or taken < most:
            want = 65536 if most is None else min(65536, most - taken)
            got = len(os.read(stream.socket.fileno(), want))
            taken += got
            if not got:
                break
    return taken


def unread(stream: SocketStream) -> int:
    """How many bytes wait in the kernel to be received."""
    count = array.array("i", [0])
    fcntl.ioctl(stream.socket.fileno(), termios.FIONREAD, count)
    return count[0]


def is_open(fd: int) -> bool:
    """Whether a number stands for an open file."""
    try:
        os.fstat(fd)
    except OSError as exc:
        assert exc.errno == errno.EBADF
        return False
    return True


async def send_forever(sock: socket.SocketType) -> None:
    """Send on a socket, as much as it takes."""
    while True:
        await sock.send(bytes(65536))
