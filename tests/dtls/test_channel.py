"""DTLS connections: the handshake over a network that loses things, data, ends."""

from __future__ import annotations

import array
import itertools
import random
from typing import Any

import pytest
from harness import certs, dtlspairs
from harness.datagrams import Network, Packet
from OpenSSL import SSL

import nurseryio
from nurseryio import (
    BrokenResourceError,
    ClosedResourceError,
    DTLSChannel,
    DTLSChannelStatistics,
    DTLSEndpoint,
    EndOfChannel,
    NeedHandshakeError,
)
from nurseryio._dtls.codec import read_records
from nurseryio.testing import assert_checkpoints, wait_all_tasks_blocked

pytestmark = pytest.mark.costly("DTLS hardly depends on the loop")


def connect(client: DTLSEndpoint, server: DTLSEndpoint, **options: Any) -> DTLSChannel:
    address: Any = server.socket.getsockname()
    return client.connect(address, certs.dtls_client_context(**options))


# -- handshake --------------------------------------------------------------------


@pytest.mark.parametrize("ipv6", [False, True])
async def test_packets_go_both_ways_after_an_implicit_handshake(ipv6: bool) -> None:
    network = Network()
    async with dtlspairs.serving(network, ipv6=ipv6) as server:
        with dtlspairs.endpoint(network, ipv6=ipv6) as client:
            channel = connect(client, server)
            for packet in (b"one", b"two" * 100):
                await channel.send(packet)
                assert await channel.receive() == packet


async def test_tasks_that_need_the_dtls_handshake_share_one() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(channel.do_handshake)
                nursery.start_soon(channel.send, b"x")
                nursery.start_soon(channel.receive)
            with assert_checkpoints():
                await channel.do_handshake()
            # Two hellos, what completes the handshake, and the packet.
            assert client.socket.sent == 4  # type: ignore[attr-defined]


@pytest.mark.parametrize("timeout", [0.25, 1.0, 4.0])
async def test_retransmit_a_lost_flight_is_sent_again_after_the_initial_timeout(
    autojump_clock: nurseryio.abc.Clock, timeout: float
) -> None:
    network = Network()
    lost: list[Packet] = []

    def lose_one(packet: Packet) -> None:
        lost.append(packet)
        network.route = network.deliver

    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            network.route = lose_one
            before = nurseryio.current_time()
            await connect(client, server).do_handshake(initial_retransmit_timeout=timeout)
            assert nurseryio.current_time() - before == pytest.approx(timeout)
    assert len(lost) == 1


async def test_retransmit_timeout_doubles_up_to_once_a_minute_without_an_answer(
    autojump_clock: nurseryio.abc.Clock,
) -> None:
    network = Network()
    sent: list[float] = []
    network.route = lambda _packet: sent.append(nurseryio.current_time())
    with dtlspairs.endpoint(network) as client, dtlspairs.endpoint(network) as silent:
        with nurseryio.move_on_after(400) as scope:
            await connect(client, silent).do_handshake()
        assert scope.cancelled_caught
    waits = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert waits[:6] == pytest.approx([1, 2, 4, 8, 16, 32])
    assert waits[6:] == pytest.approx([60] * len(waits[6:]))
    assert len(waits) > 10


async def test_retransmit_a_handshake_over_a_network_that_loses_and_reorders_packets_succeeds(
    autojump_clock: nurseryio.abc.Clock,
) -> None:
    network = Network()
    weather = random.Random(0)

    async with nurseryio.open_nursery() as nursery:

        def event() -> str:
            return weather.choices(("arrives", "is late", "is lost", "is doubled"), (6, 2, 1, 1))[0]

        async def carry(packet: Packet) -> None:
            while (what := event()) != "arrives":
                if what == "is lost":
                    return
                if what == "is doubled":
                    nursery.start_soon(carry, packet)
                await nurseryio.sleep(weather.random() * 3)
            network.deliver(packet)

        async with dtlspairs.serving(network) as server:
            network.route = lambda packet: nursery.start_soon(carry, packet)
            for number in range(30):
                with dtlspairs.endpoint(network) as client:
                    channel = connect(client, server)
                    await channel.do_handshake()
                    answer = None
                    while answer is None:
                        with nurseryio.move_on_after(10):
                            await channel.send(b"%d" % number)
                            answer = await channel.receive()
                    assert answer == b"%d" % number
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("ipv6", "smallest"), [(False, 576 - 28), (True, 1280 - 48)])
async def test_retransmit_smaller_packets_are_tried_where_large_ones_get_lost(
    autojump_clock: nurseryio.abc.Clock, ipv6: bool, smallest: int
) -> None:
    network = Network()

    def lose_large(packet: Packet) -> None:
        if len(packet.data) <= smallest:
            network.deliver(packet)

    network.route = lose_large
    async with dtlspairs.serving(network, ipv6=ipv6) as server:
        with dtlspairs.endpoint(network, ipv6=ipv6) as client:
            channel = connect(client, server)
            channel.set_ciphertext_mtu(9000)
            await channel.send(b"x")
            assert await channel.receive() == b"x"
            # A value that the user has set is not changed.
            assert channel.get_cleartext_mtu() > 8900


async def test_the_handshake_keeps_to_the_ciphertext_mtu_that_was_set() -> None:
    network = Network()
    sizes: list[int] = []

    def note(packet: Packet) -> None:
        sizes.append(len(packet.data))
        network.deliver(packet)

    async def handler(channel: DTLSChannel) -> None:
        channel.set_ciphertext_mtu(300)
        await dtlspairs.echo(channel)

    network.route = note
    async with dtlspairs.serving(network, handler) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            channel.set_ciphertext_mtu(300)
            await channel.send(b"x")
            assert await channel.receive() == b"x"
    assert max(sizes) <= 300


async def test_an_untrusted_certificate_fails_the_handshake_on_both_sides() -> None:
    network = Network()
    heard: list[BaseException] = []

    async def handler(channel: DTLSChannel) -> None:
        with pytest.raises(BrokenResourceError) as caught:
            await channel.do_handshake()
        heard.append(caught.value)
        done.set()

    done = nurseryio.Event()
    async with dtlspairs.serving(network, handler) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server, trusting=False)
            uses: list[Any] = [channel.do_handshake, channel.receive, lambda: channel.send(b"x")]
            for use in uses:
                with pytest.raises(
                    BrokenResourceError, match="certificate verify failed"
                ) as caught:
                    await use()
                assert isinstance(caught.value.__cause__, SSL.Error)
            assert "broken" in repr(channel)
            await done.wait()
    assert "alert" in str(heard[0])


async def test_a_cancelled_handshake_can_be_continued() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            network.route = lambda _packet: scope.cancel()
            with nurseryio.CancelScope() as scope:
                await channel.do_handshake()
            assert scope.cancelled_caught
            network.route = network.deliver
            await channel.send(b"x")
            assert await channel.receive() == b"x"


async def test_retransmit_the_last_flight_is_sent_again_if_it_was_lost(
    autojump_clock: nurseryio.abc.Clock,
) -> None:
    network = Network()
    lost: list[Packet] = []
    async with dtlspairs.serving(network) as server:

        def lose_the_end(packet: Packet) -> None:
            # The server's last words are the first that it sends encrypted.
            last = packet.source == server.socket.getsockname() and (
                read_records(packet.data)[-1].epoch == 1
            )
            if last and not lost:
                lost.append(packet)
            else:
                network.deliver(packet)

        network.route = lose_the_end
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            await channel.do_handshake()
            await channel.send(b"x")
            assert await channel.receive() == b"x"
    assert len(lost) == 1


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
async def test_a_wrong_initial_retransmit_timeout_is_refused(timeout: float) -> None:
    network = Network()
    with dtlspairs.endpoint(network) as client:
        with pytest.raises(ValueError, match="initial_retransmit_timeout"):
            await connect(client, client).do_handshake(initial_retransmit_timeout=timeout)


# -- data -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", ValueError, "^openssl doesn't support sending empty DTLS packets$"),
        (b"x" * 16385, ValueError, "at most 16384 bytes"),
        ("text", TypeError, "must be bytes"),
    ],
)
async def test_send_refuses_what_cannot_be_a_packet(
    data: Any, error: type[Exception], says: str
) -> None:
    network = Network()
    with dtlspairs.endpoint(network) as client:
        with pytest.raises(error, match=says):
            await connect(client, client).send(data)


async def test_of_several_tasks_that_receive_each_packet_reaches_one() -> None:
    network = Network()
    received: list[bytes] = []
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)

            async def receive() -> None:
                received.append(await channel.receive())

            await channel.do_handshake()
            async with nurseryio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(receive)
                for number in range(5):
                    await channel.send(b"%d" % number)
    assert sorted(received) == [b"%d" % number for number in range(5)]


async def test_a_cancelled_receive_loses_no_packet() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            await channel.do_handshake()
            for number in range(10):
                with nurseryio.CancelScope() as scope:
                    scope.cancel()
                    await channel.receive()
                await channel.send(b"%d" % number)
                await wait_all_tasks_blocked()
                with nurseryio.CancelScope() as scope:
                    scope.cancel()
                    await channel.receive()
                assert await channel.receive() == b"%d" % number


@pytest.mark.parametrize("kind", [bytearray, memoryview, lambda data: array.array("H", data)])
async def test_a_packet_can_be_any_buffer(kind: Any) -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            await channel.send(kind(b"abcd"))
            assert await channel.receive() == b"abcd"


async def test_packets_beyond_the_incoming_buffer_are_dropped_and_counted() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network, incoming_packets_buffer=3) as client:
            channel = connect(client, server)
            await channel.do_handshake()
            for number in range(8):
                await channel.send(b"%d" % number)
                await wait_all_tasks_blocked()
            assert channel.statistics() == DTLSChannelStatistics(incoming_packets_dropped_in_trio=5)
            assert [await channel.receive() for _ in range(3)] == [b"0", b"1", b"2"]
            await channel.send(b"again")
            assert await channel.receive() == b"again"


async def test_receive_passes_over_packets_without_data() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            await channel.do_handshake()
            there, here = server.socket.getsockname(), client.socket.getsockname()
            for rubbish in (b"", b"x", b"\x17\xfe\xfd\x00\x01" + bytes(30)):
                network.deliver(Packet(there, here, rubbish))

            def twice(packet: Packet) -> None:
                network.deliver(packet)
                network.deliver(packet)

            network.route = twice
            await channel.send(b"1")
            assert await channel.receive() == b"1"
            await channel.send(b"2")
            assert await channel.receive() == b"2"


# -- size of packets ----------------------------------------------------------------


async def test_get_cleartext_mtu_after_the_handshake_follows_set_ciphertext_mtu() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            with pytest.raises(NeedHandshakeError):
                channel.get_cleartext_mtu()
            await channel.do_handshake()
            assert 1400 < channel.get_cleartext_mtu() < 1472
            channel.set_ciphertext_mtu(1234)
            small = channel.get_cleartext_mtu()
            channel.set_ciphertext_mtu(4321)
            assert channel.get_cleartext_mtu() > small
            with pytest.raises(ValueError, match="at least 64"):
                channel.set_ciphertext_mtu(63)


# -- the end ------------------------------------------------------------------------


async def test_a_closed_channel_cannot_be_used_and_its_receivers_wake() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            await channel.do_handshake()

            async def receive() -> None:
                with pytest.raises(ClosedResourceError):
                    await channel.receive()

            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                channel.close()
            uses: list[Any] = [channel.do_handshake, channel.receive, lambda: channel.send(b"x")]
            for use in uses:
                with pytest.raises(ClosedResourceError):
                    await use()
            channel.close()
            with assert_checkpoints():
                await channel.aclose()
            assert "closed" in repr(channel)


@pytest.mark.parametrize("how", ["with", "async with"])
async def test_async_with_closes_a_dtls_channel(how: str) -> None:
    with dtlspairs.endpoint(Network()) as client:
        channel = connect(client, client)
        if how == "with":
            with channel as same:
                assert same is channel
        else:
            async with channel as same:
                assert same is channel
        with pytest.raises(ClosedResourceError):
            await channel.receive()


async def test_close_notify_of_the_peer_ends_the_channel_after_its_packets() -> None:
    network = Network()

    async def handler(channel: DTLSChannel) -> None:
        await channel.send(await channel.receive())
        # A peer of another implementation sends close_notify.
        connection = channel._engine._connection
        connection.shutdown()
        goodbye = connection.bio_read(1000)
        await channel.endpoint._send(goodbye, channel.peer_address)

    async with dtlspairs.serving(network, handler) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            await channel.send(b"last")
            assert [packet async for packet in channel] == [b"last"]
            for _ in range(2):
                with pytest.raises(EndOfChannel):
                    await channel.receive()


class FailedEngine:
    """Stands for an engine whose peer has sent an alert that the connection failed."""

    done = True

    def decrypt(self, _datagram: bytes) -> bytes:
        raise SSL.Error([("SSL routines", "", "tlsv1 alert internal error")])

    encrypt = decrypt


@pytest.mark.parametrize("first", ["send", "receive"])
async def test_an_authenticated_alert_of_the_peer_breaks_the_channel(first: str) -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            channel = connect(client, server)
            await channel.do_handshake()
            channel._engine = FailedEngine()  # type: ignore[assignment]
            network.deliver(Packet(server.socket.getsockname(), client.socket.getsockname(), b"x"))
            uses: dict[str, Any] = {"send": lambda: channel.send(b"x"), "receive": channel.receive}
            for use in (uses.pop(first), *uses.values()):
                with pytest.raises(BrokenResourceError, match="is over: tlsv1 alert") as caught:
                    await use()
                assert isinstance(caught.value.__cause__, SSL.Error)


async def test_a_new_dtls_connection_to_the_same_address_replaces_the_previous_one() -> None:
    network = Network()
    async with dtlspairs.serving(network) as server:
        with dtlspairs.endpoint(network) as client:
            before = connect(client, server)
            await before.do_handshake()

            async def receive() -> None:
                with pytest.raises(BrokenResourceError, match="new connection"):
                    await before.receive()

            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await wait_all_tasks_blocked()
                after = connect(client, server)
            for use in (before.do_handshake, before.receive):
                with pytest.raises(BrokenResourceError, match="new connection"):
                    await use()
            with pytest.raises(BrokenResourceError, match="new connection"):
                await before.send(b"x")
            before.close()
            await after.send(b"x")
            assert await after.receive() == b"x"


def test_dtls_channels_are_made_by_endpoints_only() -> None:
    with pytest.raises(TypeError, match="no public constructor"):
        DTLSChannel(None, None, None)  # type: ignore[arg-type]
