"""The programs whose system calls fail.

Rule 1: a program catches what its streams may raise and says so (``run.caught``), and notes what it
has received beside what was sent (``run.data``). What it does not catch leaves it.

Rule 2: it holds nothing open at its end, whatever was raised.
"""

from __future__ import annotations

import os
import socket as stdlib
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nurseryio
import nurseryio.aio
from harness import certs
from harness.net import LOCALHOST
from nurseryio import (
    BrokenResourceError,
    ClosedResourceError,
    SocketStream,
    SSLStream,
    StapledStream,
    open_nursery,
    socket,
    to_thread,
)
from nurseryio.lowlevel import FdStream, wait_readable, wait_writable

if TYPE_CHECKING:
    from harness.syscall_injection import Run

Program = Callable[["Run"], Awaitable[None]]

DATA = bytes(range(256)) * 200
LITTLE = DATA[:1000]

# The errors that a stream, a connection or a look-up may raise.
EXPECTED = (OSError, BrokenResourceError, ClosedResourceError)


async def talk(run: Run, name: str, stream: Any, data: bytes, *, ends: bool = True) -> None:
    """A client: send, end, receive the echo. Notes the data."""
    received = bytearray()

    async def receive() -> None:
        try:
            while len(received) < len(data) and (part := await stream.receive_some()):
                received.extend(part)
        except EXPECTED as error:
            run.caught(error)
            nursery.cancel_scope.cancel()

    try:
        async with stream, open_nursery() as nursery:
            nursery.start_soon(receive)
            try:
                await stream.send_all(data)
                if ends and hasattr(stream, "send_eof"):
                    await stream.send_eof()
            except EXPECTED as error:
                run.caught(error)
                nursery.cancel_scope.cancel()
    except EXPECTED as error:
        run.caught(error)
    run.data(name, data, bytes(received))


async def echo(run: Run, stream: Any) -> None:
    """A handler that sends back what it receives."""
    try:
        async with stream:
            async for data in stream:
                await stream.send_all(data)
    except EXPECTED as error:
        run.caught(error)


async def clients(run: Run, connect: Callable[[], Awaitable[Any]], count: int, data: bytes) -> None:
    """Some clients at once."""

    async def client(number: int) -> None:
        try:
            stream = await connect()
        except EXPECTED as error:
            run.caught(error)
            run.data(f"client {number}", data, b"")
            return
        await talk(run, f"client {number}", stream, data)

    async with open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(client, number)


async def served(
    run: Run, serve: Callable[..., Awaitable[Any]], visit: Callable[[Any], Awaitable[None]]
) -> None:
    """Run a server while there are clients. When the server fails, the clients are cancelled."""
    visiting = nurseryio.CancelScope()
    try:
        async with open_nursery() as nursery:
            listeners = await nursery.start(serve)
            with visiting:
                await visit(listeners)
            nursery.cancel_scope.cancel()
    except (*EXPECTED, BaseExceptionGroup) as error:
        run.caught(error)


# -- the programs ---------------------------------------------------------------


async def tcp_server(run: Run) -> None:
    """serve_tcp with several clients."""

    async def visit(listeners: Any) -> None:
        address = listeners[0].socket.getsockname()
        await clients(run, partial(nurseryio.open_tcp_stream, *address[:2]), 3, DATA)

    serve = partial(nurseryio.serve_tcp, partial(echo, run), 0, host="127.0.0.1")
    await served(run, serve, visit)


async def crowd(run: Run) -> None:
    """So many connections at once that an epoll object of the library's watches them."""

    async def visit(listeners: Any) -> None:
        address = listeners[0].socket.getsockname()
        await clients(run, partial(nurseryio.open_tcp_stream, *address[:2]), 8, LITTLE)

    serve = partial(nurseryio.serve_tcp, partial(echo, run), 0, host="127.0.0.1")
    await served(run, serve, visit)


async def unix_server(run: Run) -> None:
    """serve_unix; the socket file is gone in the end."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/socket"

        async def visit(_listeners: Any) -> None:
            await clients(run, partial(nurseryio.open_unix_socket, path), 2, DATA)

        serve = partial(nurseryio.serve_unix, partial(echo, run), path, mode=0o600)
        await served(run, serve, visit)
        if os.path.exists(path) and run.aim_at not in ("unlink", "stat"):
            run.fault("file left", path)


async def tls_server(run: Run) -> None:
    """serve_ssl_over_tcp."""

    async def connect(address: Any) -> Any:
        stream = await nurseryio.open_tcp_stream(*address[:2])
        return SSLStream(stream, certs.client_context(), server_hostname=certs.HOST)

    async def visit(listeners: Any) -> None:
        address = listeners[0].transport_listener.socket.getsockname()
        await clients(run, partial(connect, address), 1, DATA)

    context: ssl.SSLContext = certs.server_context()
    serve = partial(nurseryio.serve_ssl_over_tcp, partial(echo, run), 0, context, host="127.0.0.1")
    await served(run, serve, visit)


class Several(nurseryio.abc.HostnameResolver):
    """Knows two addresses for each name."""

    async def getaddrinfo(  # type: ignore[override]
        self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        return [
            (stdlib.AF_INET, stdlib.SOCK_STREAM, 6, "", (f"127.0.0.{last}", port))
            for last in (2, 3, 1)
        ]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> tuple[str, str]:
        raise NotImplementedError


async def happy_eyeballs(run: Run) -> None:
    """Connect to a name that stands for several addresses, all of which answer."""
    nurseryio.socket.set_custom_hostname_resolver(Several())
    try:

        async def visit(listeners: Any) -> None:
            port = listeners[0].socket.getsockname()[1]
            connect = partial(nurseryio.open_tcp_stream, "several.example", port)
            await clients(run, connect, 1, LITTLE)

        serve = partial(nurseryio.serve_tcp, partial(echo, run), 0, host="0.0.0.0")
        await served(run, serve, visit)
    finally:
        nurseryio.socket.set_custom_hostname_resolver(None)


async def bound_connect(run: Run) -> None:
    """Connect from a chosen address."""

    async def visit(listeners: Any) -> None:
        port = listeners[0].socket.getsockname()[1]
        connect = partial(nurseryio.open_tcp_stream, "127.0.0.1", port, local_address="127.0.0.1")
        await clients(run, connect, 1, LITTLE)

    serve = partial(nurseryio.serve_tcp, partial(echo, run), 0, host="127.0.0.1")
    await served(run, serve, visit)


async def datagrams(run: Run) -> None:
    """UDP sockets."""
    received = b""
    try:
        with (
            socket.socket(type=socket.SOCK_DGRAM) as one,
            socket.socket(type=socket.SOCK_DGRAM) as other,
        ):
            await one.bind(("127.0.0.1", 0))
            await other.bind(("127.0.0.1", 0))
            for _ in range(3):
                await one.sendto(LITTLE, other.getsockname())
                data, address = await other.recvfrom(2000)
                received += data
                await other.connect(address)
                await other.send(LITTLE)
                buffer = bytearray(2000)
                count = await one.recv_into(buffer)
                received += buffer[:count]
    except EXPECTED as error:
        run.caught(error)
    run.data("datagrams", LITTLE * 6, received)


async def sockets(run: Run) -> None:
    """The methods of sockets, without streams."""
    received = b""
    try:
        with socket.socket() as listener, socket.socket() as client:
            await listener.bind(("127.0.0.1", 0))
            listener.listen()
            async with open_nursery() as nursery:
                nursery.start_soon(client.connect, listener.getsockname())
                server, _address = await listener.accept()
                with server:
                    await server.send(b"x")
                    assert await client.recv(10) == b"x"
                    with server.dup() as twin:
                        await client.sendmsg([LITTLE[:500], LITTLE[500:]])
                        received, *_ = await twin.recvmsg(2000)
                    client.shutdown(socket.SHUT_WR)
                    assert await server.recv(10) == b""
    except (*EXPECTED, BaseExceptionGroup) as error:
        run.caught(error)
    run.data("sockets", LITTLE, received)


async def socket_pair(run: Run) -> None:
    """A pair of sockets, and waiting for bare descriptors."""
    try:
        left, right = socket.socketpair()
    except EXPECTED as error:
        run.caught(error)
        return
    with left, right:
        try:
            await wait_writable(left.fileno())
            await left.send(b"x")
            await wait_readable(right.fileno())
            assert await right.recv(1) == b"x"
            one, other = SocketStream(left), SocketStream(right)
        except EXPECTED as error:
            run.caught(error)
            return
        async with open_nursery() as nursery:
            nursery.start_soon(echo, run, other)
            await talk(run, "pair", one, DATA * 4)


async def pipes(run: Run) -> None:
    """FdStreams over pipes, stapled."""
    received = bytearray()
    descriptors: list[int] = []
    streams: list[FdStream] = []
    try:
        for _ in range(2):
            descriptors += os.pipe()
        for descriptor in tuple(descriptors):
            streams.append(FdStream(descriptor))
            descriptors.remove(descriptor)
        there_out, there_in, back_out, back_in = streams
        one, other = StapledStream(there_in, back_out), StapledStream(back_in, there_out)
        async with open_nursery() as nursery:
            nursery.start_soon(echo, run, other)
            await talk(run, "pipes", one, DATA * 4)
    except EXPECTED as error:
        run.caught(error)
    for stream in streams:
        try:
            await nurseryio.aclose_forcefully(stream)
        except EXPECTED as error:
            run.caught(error)
    for descriptor in descriptors:
        os.close(descriptor)
    del received


async def process(run: Run) -> None:
    """run_process with input and captured output."""
    try:
        done = await nurseryio.run_process(["/bin/cat"], stdin=LITTLE, capture_stdout=True)
    except (*EXPECTED, BaseExceptionGroup) as error:
        run.caught(error)
    else:
        assert done.stdout is not None
        run.data("process", LITTLE, done.stdout)


async def talking_process(run: Run) -> None:
    """A process with pipes to talk over, which is ended by a cancellation."""
    try:
        async with open_nursery() as nursery:
            child: Any = await nursery.start(
                partial(nurseryio.run_process, ["/bin/cat"], stdin=-1, stdout=-1, stderr=-3)
            )
            await talk(run, "process", child.stdio, LITTLE)
            nursery.cancel_scope.cancel()
    except (*EXPECTED, BaseExceptionGroup) as error:
        run.caught(error)


async def names(run: Run) -> None:
    """A name that a thread looks up, and a server that is found by it."""

    async def visit(listeners: Any) -> None:
        port = listeners[0].socket.getsockname()[1]

        async def connect() -> Any:
            # Not open_tcp_stream(LOCALHOST, port): where this name has an address for IPv6 too,
            # the error of an attempt at one of them is absorbed by the other attempt.
            found = await nurseryio.socket.getaddrinfo(LOCALHOST, port, stdlib.AF_INET)
            return await nurseryio.open_tcp_stream(*found[0][4])

        await clients(run, connect, 1, LITTLE)

    serve = partial(nurseryio.serve_tcp, partial(echo, run), 0, host="127.0.0.1")
    try:
        await served(run, serve, visit)
    except RuntimeError as error:
        run.caught(error)


async def files(run: Run) -> None:
    """Files, in threads."""
    with tempfile.TemporaryDirectory() as directory:
        path = nurseryio.Path(directory) / "file"
        received = b""
        try:
            async with await path.open("wb") as file:
                await file.write(LITTLE)
            received = await path.read_bytes()
            await path.chmod(0o600)
            assert (await to_thread.run_sync(Path(path).stat)).st_size == len(LITTLE)
            await path.unlink()
        except (*EXPECTED, RuntimeError) as error:
            run.caught(error)
        run.data("files", LITTLE, received)


async def transports(run: Run) -> None:
    """An asyncio transport as a stream, and a nurseryio stream for asyncio."""
    import asyncio

    left, right = stdlib.socketpair()
    right.setblocking(False)
    try:
        pair = await asyncio.open_connection(sock=left)
        async with nurseryio.aio.stream_from_asyncio(pair) as one:
            other = SocketStream(socket.from_stdlib_socket(right))
            async with open_nursery() as nursery:
                nursery.start_soon(echo, run, other)
                await talk(run, "transport", one, DATA * 4)
    except EXPECTED as error:
        run.caught(error)
    finally:
        right.close()


PROGRAMS: dict[str, Program] = {
    program.__name__: program
    for program in (
        tcp_server,
        crowd,
        unix_server,
        tls_server,
        happy_eyeballs,
        bound_connect,
        datagrams,
        sockets,
        socket_pair,
        pipes,
        process,
        talking_process,
        names,
        files,
        transports,
    )
}
if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup
