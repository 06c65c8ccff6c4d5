"""TLS over real sockets, with peers of other makes: Python's own ssl, the program openssl, HTTP."""

from __future__ import annotations

import hashlib
import http.server
import os
import shutil
import socket
import ssl
import subprocess
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import h11
import pytest
from harness import certs, tlspairs

import nurseryio
from nurseryio import BrokenResourceError, Cancelled, SocketStream, SSLStream
from nurseryio._checks.schedules import Schedule, cancel_at_every_await, random_schedules

pytestmark = pytest.mark.costly("TLS hardly depends on the loop")

both_versions = pytest.mark.parametrize("version", ["1.2", "1.3"])

MEGABYTE = 1024 * 1024

openssl = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(openssl is None, reason="the program openssl is not installed")


def streams() -> tuple[SocketStream, SocketStream]:
    """Two streams over real sockets, connected to each other."""
    left, right = nurseryio.socket.socketpair()
    return SocketStream(left), SocketStream(right)


def client_stream(stream: Any, version: str = "1.3", **options: Any) -> SSLStream[Any]:
    context = certs.client_context(version=version)
    return SSLStream(stream, context, server_hostname=certs.HOST, **options)


# -- Python's own ssl -----------------------------------------------------------------


@asynccontextmanager
async def thread(target: Callable[[socket.socket], None]) -> AsyncIterator[SocketStream]:
    """A stream to a socket that a thread uses in its own, blocking way."""
    ours, theirs = socket.socketpair()

    def run() -> None:
        with theirs:
            target(theirs)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.to_thread.run_sync, run)
        stream = SocketStream(nurseryio.socket.from_stdlib_socket(ours))
        try:
            yield stream
        finally:
            await nurseryio.aclose_forcefully(stream)


@both_versions
async def test_python_ssl_as_a_server_echoes_and_ends_with_close_notify_on_both_sides(
    version: str,
) -> None:
    def serve(sock: socket.socket) -> None:
        context = certs.server_context(version=version)
        with context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False) as wrapped:
            while data := wrapped.recv(4096):
                wrapped.sendall(data)
            wrapped.unwrap()

    async with thread(serve) as stream:
        client = client_stream(stream, version)
        data = os.urandom(300_000)

        async def send() -> None:
            await client.send_all(data)

        received = b""
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(send)
            while len(received) < len(data):
                received += await client.receive_some(5000)
        assert received == data
        transport, rest = await client.unwrap()
        assert (transport, rest) == (stream, b"")


@both_versions
async def test_python_ssl_as_a_client_gets_its_answer_and_a_clean_end(version: str) -> None:
    answers: list[bytes] = []

    def ask(sock: socket.socket) -> None:
        context = certs.client_context(version=version)
        with context.wrap_socket(
            sock, server_hostname=certs.HOST, suppress_ragged_eofs=False
        ) as wrapped:
            wrapped.sendall(b"question")
            while data := wrapped.recv(4096):
                answers.append(data)

    async with thread(ask) as stream:
        server: SSLStream[Any] = SSLStream(
            stream, certs.server_context(version=version), server_side=True
        )
        assert await server.receive_some() == b"question"
        await server.send_all(b"answer")
        await server.aclose()
    assert b"".join(answers) == b"answer"


async def test_python_ssl_that_closes_without_close_notify_is_noticed() -> None:
    def serve(sock: socket.socket) -> None:
        with certs.server_context().wrap_socket(sock, server_side=True) as wrapped:
            wrapped.sendall(b"half of it")

    async with thread(serve) as stream:
        client = client_stream(stream)
        assert await client.receive_some() == b"half of it"
        with pytest.raises(BrokenResourceError) as caught:
            await client.receive_some()
        assert isinstance(caught.value.__cause__, ssl.SSLEOFError)


async def test_python_ssl_that_does_not_trust_the_server_says_why() -> None:
    refusals: list[str] = []

    def ask(sock: socket.socket) -> None:
        context = certs.client_context(version="1.3", trusting=False)
        with pytest.raises(ssl.SSLCertVerificationError) as caught:
            context.wrap_socket(sock, server_hostname=certs.HOST)
        refusals.append(caught.value.verify_message)

    async with thread(ask) as stream:
        server: SSLStream[Any] = SSLStream(stream, certs.server_context(), server_side=True)
        with pytest.raises(BrokenResourceError, match="alert unknown ca"):
            await server.do_handshake()
    assert refusals


async def test_python_ssl_resets_the_connection_and_send_all_raises() -> None:
    def serve(sock: socket.socket) -> None:
        certs.server_context().wrap_socket(sock, server_side=True).close()

    async with thread(serve) as stream:
        client = client_stream(stream)
        await client.do_handshake()
        with pytest.raises(BrokenResourceError):
            for _ in range(1000):
                await client.send_all(b"x" * 65536)
        with pytest.raises(BrokenResourceError, match="sending was cut short"):
            await client.send_all(b"x")


async def test_sent_data_arrives_although_the_peers_data_was_never_received() -> None:
    received: list[bytes] = []
    read_on = threading.Event()

    def serve(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        # Most of the data has to wait on the other side.
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certs.certificate().configure_cert(context)
        # One, so that the client's end knows when all that comes unasked has arrived.
        context.num_tickets = 1
        with context.wrap_socket(accepted, server_side=True, suppress_ragged_eofs=False) as wrapped:
            # A session ticket is on its way now. It is never asked for.
            read_on.wait()
            while data := wrapped.recv(65536):
                received.append(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.to_thread.run_sync, serve, listener)
            port = listener.getsockname()[1]
            client = client_stream(await nurseryio.open_tcp_stream("127.0.0.1", port))
            await client.do_handshake()
            await nurseryio.lowlevel.wait_readable(client.transport_stream.socket)
            await client.send_all(b"x" * 15_000)
            await client.aclose()
            read_on.set()
    assert b"".join(received) == b"x" * 15_000


# -- the program openssl --------------------------------------------------------------


@needs_openssl
@both_versions
async def test_the_tls_client_works_with_openssl_s_server(version: str, tmp_path: Path) -> None:
    certs.certificate().private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    process = subprocess.Popen(
        [
            *(str(openssl), "s_server", "-rev", "-accept", "127.0.0.1:0"),
            *("-no_ticket", "-cert", str(tmp_path / "server.pem")),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        assert process.stdout is not None
        line = b""
        while not line.startswith(b"ACCEPT"):
            line = await nurseryio.to_thread.run_sync(process.stdout.readline)
        port = int(line.decode().rpartition(":")[2])
        client = client_stream(await nurseryio.open_tcp_stream("127.0.0.1", port), version)
        async with client:
            await client.send_all(b"hello\n")
            received = b""
            while not received.endswith(b"\n"):
                received += await client.receive_some()
            assert received == b"olleh\n"
            assert client.version() == f"TLSv{version}"
        process.terminate()
        process.stdout.read()


@needs_openssl
@both_versions
async def test_the_tls_server_works_with_openssl_s_client(version: str, tmp_path: Path) -> None:
    certs.authority().cert_pem.write_to_path(tmp_path / "authority.pem")
    (listener,) = await nurseryio.open_ssl_over_tcp_listeners(
        0, certs.server_context(version=version), host="127.0.0.1"
    )
    below: Any = listener.transport_listener
    port = below.socket.getsockname()[1]
    process = subprocess.Popen(
        [
            *(str(openssl), "s_client", "-quiet", "-no_ign_eof", "-verify_return_error"),
            *("-connect", f"127.0.0.1:{port}", "-servername", certs.HOST),
            *("-verify_hostname", certs.HOST, "-CAfile", str(tmp_path / "authority.pem")),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    async with listener:
        stream = await listener.accept()
    with process:
        assert process.stdin is not None and process.stdout is not None
        async with stream:
            await stream.send_all(b"from the server\n")
            line = await nurseryio.to_thread.run_sync(process.stdout.readline)
            assert line == b"from the server\n"
            # At the end of its input the program sends close_notify.
            process.stdin.write(b"from the client\n")
            process.stdin.close()
            assert b"".join([data async for data in stream]) == b"from the client\n"
        assert await nurseryio.to_thread.run_sync(process.wait) == 0


# -- HTTPS ----------------------------------------------------------------------------


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body = b"<p>" + b"page " * 20_000 + b"</p>"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_args: object) -> None:
        pass


@contextmanager
def https_server() -> Iterator[int]:
    """The standard library's HTTP server in a thread, over TLS."""
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        server.socket = certs.server_context().wrap_socket(server.socket, server_side=True)
        worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        worker.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            worker.join()


async def next_event(connection: h11.Connection, stream: SSLStream[Any]) -> Any:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(bytes(await stream.receive_some()))
    return event


async def test_a_page_is_fetched_over_https_with_h11() -> None:
    with https_server() as port:
        tcp = await nurseryio.open_tcp_stream("127.0.0.1", port)
        async with client_stream(tcp, https_compatible=True) as stream:
            connection = h11.Connection(h11.CLIENT)
            request = h11.Request(method="GET", target="/", headers=[("Host", certs.HOST)])
            await stream.send_all(connection.send(request) or b"")
            await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
            response = await next_event(connection, stream)
            assert response.status_code == 200
            body = b""
            while isinstance(event := await next_event(connection, stream), h11.Data):
                body += event.data
            assert isinstance(event, h11.EndOfMessage)
            assert body == Page.body
            # The server sends no close_notify, as is usual for HTTPS.
            assert await stream.receive_some() == b""


# -- much data ------------------------------------------------------------------------


def resident_bytes() -> int:
    """The memory of this process, with the allocations of OpenSSL."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.limit(180)
async def test_back_pressure_100_megabytes_arrive_byte_for_byte_in_little_memory() -> None:
    chunk = os.urandom(10 * MEGABYTE)
    sent, received = hashlib.sha256(), hashlib.sha256()
    client, server = await tlspairs.connect(tlspairs.wrap(*streams()))
    count = 0

    async def send() -> None:
        for _ in range(10):
            sent.update(chunk)
            await client.send_all(chunk)
        await client.aclose()

    before = most = resident_bytes()
    tracemalloc.start()
    try:
        async with nurseryio.open_nursery() as nursery, server:
            nursery.start_soon(send)
            async for data in server:
                received.update(data)
                count += len(data)
                most = max(most, resident_bytes()) if count % 7 == 0 else most
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100 * MEGABYTE
    assert received.digest() == sent.digest()
    # Less than one chunk. A table of the interpreter's own may grow meanwhile, by some megabytes.
    assert peak < 8 * MEGABYTE
    # 100 MB were sent: 50 leave some space for what the allocators keep.
    assert most - before < 50 * MEGABYTE


async def test_back_pressure_a_sender_whose_peer_does_not_read_waits() -> None:
    client, server = await tlspairs.connect(tlspairs.wrap(*streams()))
    data = bytes(50 * MEGABYTE)
    tracemalloc.start()
    try:
        with nurseryio.move_on_after(0.2) as scope:
            await client.send_all(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert scope.cancelled_caught
    assert peak < 8 * MEGABYTE  # of 50, with room for the interpreter as above
    with pytest.raises(BrokenResourceError, match="sending was cut short"):
        await client.send_all(b"x")
    await client.aclose()
    await server.aclose()


# -- peers that do nothing, and interruptions -------------------------------------------


async def test_a_handshake_with_a_silent_peer_ends_with_its_scope() -> None:
    ours, silent = streams()
    client = client_stream(ours)
    with pytest.raises(nurseryio.TooSlowError), nurseryio.fail_after(0.05):
        await client.do_handshake()
    with pytest.raises(BrokenResourceError, match="handshake did not complete"):
        await client.do_handshake()
    await client.aclose()
    assert ours.socket.fileno() == -1
    await silent.aclose()


@pytest.mark.limit(180)
async def test_a_conversation_cancelled_anywhere_closes_its_sockets_and_reports_no_false_end(
    loop_kind: str,
) -> None:
    question, answer = os.urandom(70_000), os.urandom(90_000)

    async def receive_all(stream: SSLStream[Any], into: list[bytes]) -> None:
        async for data in stream:
            into.append(data)

    async def scenario(schedule: Schedule) -> None:
        below = streams()
        client, server = tlspairs.wrap(*below)
        asked: list[bytes] = []
        answered: list[bytes] = []
        ends: list[str] = []

        async def ask() -> None:
            async with client:
                try:
                    await client.send_all(question)
                    await receive_all(client, answered)
                    ends.append("client")
                except BrokenResourceError:
                    pass
                except Cancelled:
                    await nurseryio.aclose_forcefully(client)
                    raise

        async def serve() -> None:
            async with server:
                try:
                    while sum(map(len, asked)) < len(question):
                        data = await server.receive_some()
                        if not data:
                            return
                        asked.append(data)
                    await server.send_all(answer)
                    ends.append("server")
                except BrokenResourceError:
                    pass
                except Cancelled:
                    await nurseryio.aclose_forcefully(server)
                    raise

        await schedule.run(ask, serve)
        assert question.startswith(b"".join(asked))
        assert answer.startswith(b"".join(answered))
        if "client" in ends:
            assert b"".join(answered) == (answer if "server" in ends else b"")
        if not schedule.landed:
            assert sorted(ends) == ["client", "server"]
        for stream in below:
            assert stream.socket.fileno() == -1

    if loop_kind in ("stock", "uvloop"):
        assert await cancel_at_every_await(scenario, delays=1) > 40
    assert await random_schedules(scenario, runs=40) > 5
