"""DTLS endpoints: serving, who is who, garbage from the network, being forgotten."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
from harness import certs, dtlspairs, net
from harness.datagrams import Network, Packet
from OpenSSL import SSL

import nurseryio
from nurseryio import (
    BrokenResourceError,
    BusyResourceError,
    ClosedResourceError,
    DTLSChannel,
    DTLSEndpoint,
)
from nurseryio._dtls.codec import (
    HELLO_VERIFY_REQUEST,
    read_client_hello,
    read_fragment,
    read_records,
)
from nurseryio.socket import AF_INET, AF_INET6, SOCK_DGRAM
from nurseryio.testing import wait_all_tasks_blocked

pytestmark = pytest.mark.costly("DTLS hardly depends on the loop")


async def udp_endpoint(*, ipv6: bool = False) -> DTLSEndpoint:
    """An endpoint on a real socket, bound to loopback."""
    sock = nurseryio.socket.socket(AF_INET6 if ipv6 else AF_INET, SOCK_DGRAM)
    await sock.bind(("::1" if ipv6 else "127.0.0.1", 0))
    return DTLSEndpoint(sock)


# -- over real sockets ----------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [False, True])
async def test_dtls_client_and_server_exchange_data_over_udp(ipv6: bool) -> None:
    with await udp_endpoint(ipv6=ipv6) as server, await udp_endpoint(ipv6=ipv6) as client:
        async with nurseryio.open_nursery() as nursery:
            await nursery.start(server.serve, certs.dtls_server_context(), dtlspairs.echo)
            address = server.socket.getsockname()[:2]
            channel = client.connect(address, certs.dtls_client_context())
            for packet in (b"one", b"two"):
                await channel.send(packet)
                assert await channel.receive() == packet
            nursery.cancel_scope.cancel()


async def test_one_ssl_context_works_for_many_dtls_connections_and_both_sides() -> None:
    network = Network()
    context = certs.dtls_client_context()
    certs.certificate().configure_cert(context)
    for _ in range(2):
        with dtlspairs.endpoint(network) as server, dtlspairs.endpoint(network) as client:
            async with nurseryio.open_nursery() as nursery:
                await nursery.start(server.serve, context, dtlspairs.echo)
                channel = client.connect(server.socket.getsockname(), context)
                await channel.send(b"question")
                assert await channel.receive() == b"question"
                nursery.cancel_scope.cancel()


async def test_dtls_connect_works_with_an_unbound_socket() -> None:
    with await udp_endpoint() as server:
        with DTLSEndpoint(nurseryio.socket.socket(type=SOCK_DGRAM)) as client:
            async with nurseryio.open_nursery() as nursery:
                await nursery.start(server.serve, certs.dtls_server_context(), dtlspairs.echo)
                channel = client.connect(server.socket.getsockname(), certs.dtls_client_context())
                await channel.send(b"x")
                assert await channel.receive() == b"x"
                nursery.cancel_scope.cancel()


async def test_packets_to_closed_ports_disturb_no_other_connection() -> None:
    with await udp_endpoint() as server, await udp_endpoint() as client:
        async with nurseryio.open_nursery() as nursery:
            await nursery.start(server.serve, certs.dtls_server_context(), dtlspairs.echo)
            for port in range(1, 6):
                nobody = client.connect(("127.0.0.1", port), certs.dtls_client_context())
                nursery.start_soon(nobody.do_handshake)
            channel = client.connect(server.socket.getsockname(), certs.dtls_client_context())
            await channel.send(b"x")
            assert await channel.receive() == b"x"
            nursery.cancel_scope.cancel()


openssl = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(openssl is None, reason="the program openssl is not installed")


@needs_openssl
async def test_the_dtls_server_works_with_openssl_s_client() -> None:
    received: list[bytes] = []
    finished = nurseryio.Event()

    async def handler(channel: DTLSChannel) -> None:
        packet = await channel.receive()
        received.append(packet)
        await channel.send(packet.upper())
        # The close_notify of the program.
        received.extend([packet async for packet in channel])
        finished.set()

    with await udp_endpoint() as server:
        async with nurseryio.open_nursery() as nursery:
            await nursery.start(server.serve, certs.dtls_server_context(), handler)
            port = server.socket.getsockname()[1]
            process = subprocess.Popen(
                [str(openssl), "s_client", "-dtls1_2", "-quiet", "-connect", f"127.0.0.1:{port}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            with process:
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(b"hello\n")
                process.stdin.flush()
                line = await nurseryio.to_thread.run_sync(process.stdout.readline)
                assert line == b"HELLO\n"
                process.terminate()
            nursery.cancel_scope.cancel()
    assert received == [b"hello\n"]


@needs_openssl
async def test_the_dtls_client_works_with_openssl_s_server(tmp_path: Any) -> None:
    certs.certificate().private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    with await udp_endpoint() as client:
        port = net.free_port(SOCK_DGRAM)
        process = subprocess.Popen(
            [
                *(str(openssl), "s_server", "-dtls1_2", "-quiet"),
                *("-accept", str(port), "-cert", str(tmp_path / "server.pem")),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with process:
            assert process.stdin is not None and process.stdout is not None
            channel = client.connect(("127.0.0.1", port), certs.dtls_client_context())
            # The first tries come before the program is ready.
            await channel.do_handshake(initial_retransmit_timeout=0.05)
            await channel.send(b"hello\n")
            assert await nurseryio.to_thread.run_sync(process.stdout.readline) == b"hello\n"
            process.stdin.write(b"and back\n")
            process.stdin.flush()
            assert await channel.receive() == b"and back\n"
            process.terminate()


# -- serving ----------------------------------------------------------------------------


async def test_a_dtls_handler_gets_its_arguments_and_a_channel_that_is_closed_after_it() -> None:
    network = Network()
    channels: list[DTLSChannel] = []

    async def handler(channel: DTLSChannel, *args: object) -> None:
        assert args == (1, "two")
        assert channel.peer_address == client.socket.getsockname()
        assert channel.endpoint is server
        channels.append(channel)
        await channel.send(await channel.receive())

    with dtlspairs.endpoint(network) as server, dtlspairs.endpoint(network) as client:
        async with nurseryio.open_nursery() as nursery:

            async def serve(task_status: Any) -> None:
                await server.serve(
                    certs.dtls_server_context(), handler, 1, "two", task_status=task_status
                )

            await nursery.start(serve)
            address: Any = server.socket.getsockname()
            channel = client.connect(address, certs.dtls_client_context())
            await channel.send(b"x")
            assert await channel.receive() == b"x"
            await wait_all_tasks_blocked()
            with pytest.raises(ClosedResourceError):
                await channels[0].receive()
            nursery.cancel_scope.cancel()


async def test_dtls_serve_ends_when_the_endpoint_is_closed_and_the_handlers_have_ended() -> None:
    network = Network()
    ended: list[str] = []

    async def handler(channel: DTLSChannel) -> None:
        await channel.send(await channel.receive())
        with pytest.raises(ClosedResourceError):
            await channel.receive()
        ended.append("handler")

    async def serve(task_status: Any) -> None:
        await server.serve(certs.dtls_server_context(), handler, task_status=task_status)
        ended.append("server")

    with dtlspairs.endpoint(network) as server, dtlspairs.endpoint(network) as client:
        async with nurseryio.open_nursery() as nursery:
            await nursery.start(serve)
            address: Any = server.socket.getsockname()
            channel = client.connect(address, certs.dtls_client_context())
            await channel.send(b"x")
            assert await channel.receive() == b"x"
            server.close()
        server.close()
    assert ended == ["handler", "server"]


async def test_an_error_of_a_handler_ends_the_dtls_server() -> None:
    network = Network()

    async def handler(_channel: DTLSChannel) -> None:
        raise KeyError

    with dtlspairs.endpoint(network) as server, dtlspairs.endpoint(network) as client:

        async def run() -> None:
            async with nurseryio.open_nursery() as nursery:
                await nursery.start(server.serve, certs.dtls_server_context(), handler)
                address: Any = server.socket.getsockname()
                channel = client.connect(address, certs.dtls_client_context())
                nursery.start_soon(channel.do_handshake)

        with pytest.raises(Exception) as caught:
            await run()
        error: Any = caught.value
        while hasattr(error, "exceptions"):
            (error,) = error.exceptions
        assert isinstance(error, KeyError)


async def test_only_one_task_may_call_dtls_serve_at_a_time_and_another_one_later() -> None:
    network = Network()
    with dtlspairs.endpoint(network) as server:
        for _ in range(2):
            async with nurseryio.open_nursery() as nursery:
                context = certs.dtls_server_context()
                await nursery.start(server.serve, context, dtlspairs.echo)
                with pytest.raises(BusyResourceError, match="already serving"):
                    await server.serve(context, dtlspairs.echo)
                nursery.cancel_scope.cancel()


async def test_one_dtls_endpoint_has_incoming_and_outgoing_connections_to_many_peers() -> None:
    network = Network()
    async with dtlspairs.serving(network) as left, dtlspairs.serving(network) as right:
        async with dtlspairs.serving(network) as middle:
            for peer in (left, right):
                address: Any = peer.socket.getsockname()
                out = middle.connect(address, certs.dtls_client_context())
                await out.send(b"x")
                assert await out.receive() == b"x"
            for number in range(3):
                with dtlspairs.endpoint(network) as client:
                    address = middle.socket.getsockname()
                    channel = client.connect(address, certs.dtls_client_context())
                    await channel.send(b"%d" % number)
                    assert await channel.receive() == b"%d" % number


async def test_a_client_that_starts_again_gets_a_new_handler_and_the_old_one_an_error() -> None:
    network = Network()
    broken = nurseryio.Event()
    handlers = 0

    async def handler(channel: DTLSChannel) -> None:
        nonlocal handlers
        handlers += 1
        if handlers == 1:
            with pytest.raises(BrokenResourceError, match="new connection"):
                await channel.receive()
            broken.set()
        else:
            await dtlspairs.echo(channel)

    async with dtlspairs.serving(network, handler) as server:
        address: Any = server.socket.getsockname()
        with dtlspairs.endpoint(network) as client:
            await client.connect(address, certs.dtls_client_context()).do_handshake()
            again = client.connect(address, certs.dtls_client_context())
            await again.send(b"x")
            assert await again.receive() == b"x"
            await broken.wait()
    assert handlers == 2


# -- who is there ---------------------------------------------------------------------


async def test_no_state_is_kept_of_a_sender_that_does_not_return_its_cookie() -> None:
    network = Network()
    answers: list[Packet] = []
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:

            def note_answers(packet: Packet) -> None:
                if packet.source == server.socket.getsockname():
                    answers.append(packet)
                    scope.cancel()
                else:
                    network.deliver(packet)

            network.route = note_answers
            address: Any = server.socket.getsockname()
            with nurseryio.CancelScope() as scope:
                await client.connect(address, certs.dtls_client_context()).do_handshake()
            assert not server._channels
    (answer,) = answers
    (record,) = read_records(answer.data)
    assert read_fragment(record.body).kind == HELLO_VERIFY_REQUEST
    assert len(answer.data) < 100


async def test_a_client_hello_changed_on_its_way_is_ignored(
    autojump_clock: nurseryio.abc.Clock,
) -> None:
    network = Network()
    damaged = 0
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:

            def damage(packet: Packet) -> None:
                nonlocal damaged
                data = bytearray(packet.data)
                if packet.destination == server.socket.getsockname():
                    hello = read_client_hello(packet.data)
                    if hello.cookie:
                        # The header of the record, before this, may change.
                        data[27 + damaged % (len(data) - 27)] ^= 1
                        damaged += 1
                network.deliver(packet._replace(data=bytes(data)))

            network.route = damage
            address: Any = server.socket.getsockname()
            with nurseryio.move_on_after(3600):
                await client.connect(address, certs.dtls_client_context()).do_handshake()
            assert not server._channels
    assert damaged > 50


async def test_a_client_hello_that_arrives_twice_makes_one_connection() -> None:
    network = Network()
    handlers: list[DTLSChannel] = []

    async def handler(channel: DTLSChannel) -> None:
        handlers.append(channel)
        await dtlspairs.echo(channel)

    def twice(packet: Packet) -> None:
        network.deliver(packet)
        network.deliver(packet)

    network.route = twice
    async with dtlspairs.serving(network, handler) as server:
        with dtlspairs.endpoint(network) as client:
            address: Any = server.socket.getsockname()
            channel = client.connect(address, certs.dtls_client_context())
            await channel.send(b"x")
            assert await channel.receive() == b"x"
    assert len(handlers) == 1


async def test_garbage_packets_do_not_disturb_a_dtls_server() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        there = server.socket.getsockname()
        stranger = ("127.0.0.1", 9)
        with dtlspairs.endpoint(network) as client:
            hellos: list[bytes] = []

            def note(packet: Packet) -> None:
                hellos.append(packet.data)
                network.deliver(packet)

            network.route = note
            address: Any = there
            channel = client.connect(address, certs.dtls_client_context())
            await channel.do_handshake()
            hello = hellos[0]
            garbage = [b"", b"xyz", hello[:-1], hello[:14], hello + b"\0", hello[:13] + b"\1"]
            garbage += [hello[:at] + b"\xff" + hello[at + 1 :] for at in range(11, 80)]
            for data in garbage:
                for source in (stranger, client.socket.getsockname()):
                    network.deliver(Packet(source, there, data))
            await wait_all_tasks_blocked()
            await channel.send(b"x")
            assert await channel.receive() == b"x"


# After the handshake none of these packets has a meaning, whoever has sent it.
JUNK = {
    "empty": b"",
    "one byte": b"\x16",
    "a short record": b"\x16\xfe\xfd" + bytes(11),
    "zeros": b"\x16\xfe\xfd" + bytes(200),
    "a length that lies": b"\x16\xfe\xfd" + bytes(8) + b"\xff\xff" + b"a" * 20,
    "a ClientKeyExchange": b"\x16\xfe\xfd" + bytes(7) + b"\x02\x00\x0c\x10" + bytes(11),
    "a ChangeCipherSpec": b"\x14\xfe\xfd" + bytes(7) + b"\x03\x00\x01\x01",
    "a Finished": b"\x16\xfe\xfd\x00\x01" + bytes(6) + b"\x00\x30" + b"f" * 48,
    "an alert": b"\x15\xfe\xfd" + bytes(7) + b"\x07\x00\x02\x02\x28",
    "an encrypted alert": b"\x15\xfe\xfd\x00\x01" + bytes(6) + b"\x00\x20" + b"a" * 32,
    "data": b"\x17\xfe\xfd\x00\x01" + bytes(6) + b"\x00\x20" + b"z" * 32,
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK.keys())
async def test_garbage_packets_after_the_handshake_get_no_answer_and_change_nothing(
    junk: bytes,
) -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            here, there = client.socket.getsockname(), server.socket.getsockname()
            address: Any = there
            channel = client.connect(address, certs.dtls_client_context())
            await channel.do_handshake()
            await wait_all_tasks_blocked()
            sent = server.socket.sent  # type: ignore[attr-defined]
            for _ in range(5):
                network.deliver(Packet(here, there, junk))
                network.deliver(Packet(there, here, junk))
            await wait_all_tasks_blocked()
            assert server.socket.sent == sent  # type: ignore[attr-defined]
            await channel.send(b"x")
            assert await channel.receive() == b"x"
            # A client that starts again at this address does not get messages of the old
            # connection.
            again = client.connect(address, certs.dtls_client_context())
            network.deliver(Packet(here, there, junk))
            await again.send(b"y")
            assert await again.receive() == b"y"


async def test_a_dtls_endpoint_that_does_not_serve_ignores_client_hellos() -> None:
    network = Network()
    with dtlspairs.endpoint(network) as client, dtlspairs.endpoint(network) as other:
        other._ensure_receive_loop()
        address: Any = other.socket.getsockname()
        async with nurseryio.open_nursery() as nursery:
            channel = client.connect(address, certs.dtls_client_context())
            nursery.start_soon(channel.do_handshake)
            await wait_all_tasks_blocked()
            assert client.socket.sent == 1  # type: ignore[attr-defined]
            assert other.socket.sent == 0  # type: ignore[attr-defined]
            nursery.cancel_scope.cancel()


# -- making one, and the end ------------------------------------------------------------


async def test_dtls_endpoint_takes_only_nurseryio_datagram_sockets() -> None:
    import socket as stdlib

    with nurseryio.socket.socket() as stream_socket:
        with pytest.raises(ValueError, match=r"^DTLS requires a SOCK_DGRAM socket$"):
            DTLSEndpoint(stream_socket)
    with stdlib.socket(type=SOCK_DGRAM) as plain:
        with pytest.raises(TypeError, match=r"nurseryio\.socket"):
            DTLSEndpoint(plain)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="incoming_packets_buffer"):
        dtlspairs.endpoint(Network(), incoming_packets_buffer=-1)


async def test_dtls_endpoint_without_pyopenssl_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    with pytest.raises(ImportError, match="pip install pyOpenSSL"):
        dtlspairs.endpoint(Network())


@pytest.mark.parametrize(
    "address",
    [
        ("localhost", 5000),
        ("::1", 5000),
        ("127.0.0.1", 0),
        ("127.0.0.1", 65536),
        ("127.0.0.1",),
        "127.0.0.1:5000",
        None,
    ],
)
async def test_dtls_connect_refuses_what_is_not_a_peer_address(address: Any) -> None:
    with dtlspairs.endpoint(Network()) as client:
        with pytest.raises(ValueError, match="resolve a host name first"):
            client.connect(address, certs.dtls_client_context())


async def test_dtls_connect_refuses_a_context_that_is_not_pyopenssls() -> None:
    context: Any = certs.client_context()
    with dtlspairs.endpoint(Network()) as client:
        with pytest.raises(TypeError, match=r"OpenSSL\.SSL\.Context"):
            client.connect(("127.0.0.1", 5000), context)
        with pytest.raises(TypeError, match=r"OpenSSL\.SSL\.Context"):
            await client.serve(context, dtlspairs.echo)


async def test_dtls_serve_needs_a_bound_socket() -> None:
    with DTLSEndpoint(nurseryio.socket.socket(type=SOCK_DGRAM)) as server:
        with pytest.raises(RuntimeError, match="bind the socket"):
            await server.serve(certs.dtls_server_context(), dtlspairs.echo)


async def test_a_closed_dtls_endpoint_cannot_be_used_and_its_channels_are_closed() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        address: Any = server.socket.getsockname()
        with dtlspairs.endpoint(network) as client:
            channel = client.connect(address, certs.dtls_client_context())
            await channel.do_handshake()
            client.close()
            for use in (channel.receive, channel.do_handshake):
                with pytest.raises(ClosedResourceError):
                    await use()
            with pytest.raises(ClosedResourceError):
                client.connect(address, certs.dtls_client_context())
            with pytest.raises(ClosedResourceError):
                await client.serve(certs.dtls_server_context(), dtlspairs.echo)


async def test_a_dtls_channel_without_references_is_garbage_collected() -> None:
    network = Network()
    with dtlspairs.endpoint(network) as client:
        client.connect(("127.0.0.1", 5000), certs.dtls_client_context())
        gc.collect()
        assert not client._channels


@pytest.mark.filterwarnings("always:unclosed DTLS:ResourceWarning")
async def test_a_dtls_endpoint_that_was_not_closed_warns_and_its_task_ends() -> None:
    async def forget() -> None:
        endpoint = await udp_endpoint()
        channel = endpoint.connect(("127.0.0.1", 9), certs.dtls_client_context())
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(channel.do_handshake)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    with pytest.warns(ResourceWarning, match="unclosed DTLS endpoint"):
        await forget()
        await wait_all_tasks_blocked()
        gc.collect()
    # Leaves nothing behind: the matrix looks for tasks and file descriptors after each test.


@pytest.mark.filterwarnings("always:unclosed DTLS:ResourceWarning")
def test_a_dtls_endpoint_can_be_garbage_collected_after_its_run() -> None:
    async def main() -> DTLSEndpoint:
        return dtlspairs.endpoint(Network())

    endpoint = nurseryio.run(main)
    with pytest.warns(ResourceWarning, match="unclosed DTLS endpoint"):
        del endpoint
        gc.collect()


def test_dtls_endpoint_must_be_made_inside_a_run() -> None:
    with pytest.raises(RuntimeError):
        dtlspairs.endpoint(Network())


async def test_a_socket_closed_by_other_code_ends_the_dtls_reader_quietly() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:

            def deliver_and_close(packet: Packet) -> None:
                network.deliver(packet)
                server.socket.close()

            network.route = deliver_and_close
            address: Any = server.socket.getsockname()
            async with nurseryio.open_nursery() as nursery:
                channel = client.connect(address, certs.dtls_client_context())
                nursery.start_soon(channel.do_handshake)
                await wait_all_tasks_blocked()
                assert client.socket.sent == 1  # type: ignore[attr-defined]
                nursery.cancel_scope.cancel()


def test_the_pyopenssl_methods_that_are_used_exist() -> None:
    assert hasattr(SSL, "OP_NO_RENEGOTIATION")
    assert callable(SSL.Connection.DTLSv1_listen)


async def test_repr_of_a_dtls_endpoint_shows_whether_it_serves_and_whether_it_is_open() -> None:
    with await udp_endpoint() as server:
        assert f", 0 connections, on {server.socket!r}>" in repr(server)
        async with nurseryio.open_nursery() as nursery:
            await nursery.start(server.serve, certs.dtls_server_context(), dtlspairs.echo)
            assert ", 0 connections, serving, on <" in repr(server)
            nursery.cancel_scope.cancel()
    assert ", closed, on <" in repr(server)


# -- errors of the socket ---------------------------------------------------------------


class Failing:
    """Makes a socket's ``recvfrom`` fail, so many times, behind the next packet."""

    def __init__(self, sock: Any, code: int, times: float) -> None:
        self.times = times
        self.calls = 0
        self._recvfrom, self._code = sock.recvfrom, code
        sock.recvfrom = self.recvfrom

    async def recvfrom(self, size: int) -> Any:
        self.calls += 1
        if self.calls > 1 and self.times > 0:
            self.times -= 1
            raise OSError(self._code, os.strerror(self._code))
        return await self._recvfrom(size)


PASSING = [errno.ENOBUFS, errno.ENOMEM, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.EPERM]


@pytest.mark.parametrize("code", PASSING, ids=map(errno.errorcode.get, PASSING))
async def test_an_error_of_recvfrom_is_logged_and_the_endpoint_goes_on(
    code: int, autojump_clock: nurseryio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()
    with dtlspairs.endpoint(network) as server, dtlspairs.endpoint(network) as client:
        failing = Failing(server.socket, code, 3)
        async with nurseryio.open_nursery() as nursery:
            await nursery.start(server.serve, certs.dtls_server_context(), dtlspairs.echo)
            address: Any = server.socket.getsockname()
            channel = client.connect(address, certs.dtls_client_context())
            await channel.send(b"x")
            assert await channel.receive() == b"x"
            nursery.cancel_scope.cancel()
    assert failing.times == 0
    (record,) = caplog.records
    assert record.name == "nurseryio.DTLSEndpoint"
    assert os.strerror(code) in record.getMessage()


async def test_recvfrom_that_fails_for_ever_is_tried_ten_times_a_second_until_closed(
    autojump_clock: nurseryio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    network = Network()
    with dtlspairs.endpoint(network) as server, dtlspairs.endpoint(network) as client:
        failing = Failing(server.socket, errno.ENOMEM, float("inf"))
        async with nurseryio.open_nursery() as nursery:
            await nursery.start(server.serve, certs.dtls_server_context(), dtlspairs.echo)
            address: Any = server.socket.getsockname()
            channel = client.connect(address, certs.dtls_client_context())
            with nurseryio.move_on_after(10):
                await channel.do_handshake()
            nursery.cancel_scope.cancel()
        assert 90 <= failing.calls <= 110
        assert len(caplog.records) == 1
    calls = failing.calls
    await nurseryio.sleep(1)
    assert failing.calls <= calls + 1


# -- connections that are not completed -------------------------------------------------


async def begun(client: DTLSEndpoint, server: DTLSEndpoint, network: Network) -> DTLSChannel:
    """A connection whose client falls silent when it has proved its address."""
    address: Any = server.socket.getsockname()
    channel = client.connect(address, certs.dtls_client_context())
    hellos = 0

    def route(packet: Packet) -> None:
        nonlocal hellos
        if packet.source == client.socket.getsockname():
            hellos += 1
            if hellos > 2:
                return
        network.deliver(packet)

    network.route = route
    with nurseryio.CancelScope() as scope:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(channel.do_handshake)
            await wait_all_tasks_blocked()
            scope.cancel()
    network.route = network.deliver
    return channel


async def test_with_too_many_unfinished_handshakes_the_oldest_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nurseryio._dtls.endpoint.MOST_OPENING", 3)
    network = Network()
    lost: list[Any] = []

    async def handler(channel: DTLSChannel) -> None:
        try:
            await dtlspairs.echo_strictly(channel)
        except BrokenResourceError as error:
            lost.append((channel.peer_address, str(error)))

    async with dtlspairs.serving(network, handler) as server:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(dtlspairs.endpoint(network)) for _ in range(6)]
            # A connection with a complete handshake does not count, however old.
            complete = await begun(clients[0], server, network)
            await complete.do_handshake()
            for client in clients[1:4]:
                await begun(client, server, network)
            assert len(server._opening) == 3 and not lost
            for client in clients[4:]:
                await begun(client, server, network)
            await wait_all_tasks_blocked()
            assert [address for address, _ in lost] == [
                client.socket.getsockname() for client in clients[1:3]
            ]
            assert all("too many connections were in their handshake" in says for _, says in lost)
            assert len(server._opening) == 3
            await complete.send(b"x")
            assert await complete.receive() == b"x"
            # The one that came last can still be completed, and one that is begun again.
            for client in (clients[5], clients[1]):
                address: Any = server.socket.getsockname()
                channel = client.connect(address, certs.dtls_client_context())
                await channel.send(b"y")
                assert await channel.receive() == b"y"
    assert not server._opening


async def test_connections_that_serve_does_not_accept_are_queued_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nurseryio._dtls.endpoint.MOST_OPENING", 3)
    network = Network()
    async with dtlspairs.serving(network) as server:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(dtlspairs.endpoint(network)) for _ in range(6)]
            arrivals, server._arrivals = server._arrivals, nurseryio.open_memory_channel(3)[0]
            for client in clients:
                await begun(client, server, network)
            assert len(server._channels) == len(server._opening) == 3
            server._arrivals = arrivals


async def test_a_pyopenssl_context_made_for_the_other_side_is_refused() -> None:
    with dtlspairs.endpoint(Network()) as end:
        with pytest.raises(ValueError, match="for a server"):
            await end.serve(SSL.Context(SSL.DTLS_CLIENT_METHOD), dtlspairs.echo)
        with pytest.raises(ValueError, match="for a client"):
            end.connect(("127.0.0.1", 5000), SSL.Context(SSL.DTLS_SERVER_METHOD))
        with pytest.raises(ValueError, match="made for TLS"):
            await end.serve(SSL.Context(SSL.TLS_METHOD), dtlspairs.echo)
        assert "serving" not in repr(end)
