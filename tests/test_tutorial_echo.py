"""The tutorial's echo client and server as processes: ends, resets, Ctrl-C, many clients."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from harness import programs
from harness.net import free_port
from harness.programs import EXAMPLES, LOOPS, connect, receive_exactly, started

import nurseryio

CLIENT = EXAMPLES / "tutorial/echo_client.py"
SERVER = EXAMPLES / "tutorial/echo_server.py"
MESSAGE = b"concurrency is easier with fewer surprises"

each_loop = pytest.mark.parametrize("loop", LOOPS)


# -- the client -----------------------------------------------------------------


@contextlib.contextmanager
def listening() -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(programs.PATIENCE)
        yield listener, listener.getsockname()[1]


@each_loop
def test_the_echo_client_ends_with_exit_code_0_when_the_server_closes(loop: str) -> None:
    with listening() as (listener, port), started(CLIENT, port, loop=loop) as client:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(programs.PATIENCE)
            assert receive_exactly(connection, len(MESSAGE)) == MESSAGE
            connection.sendall(b"and back")
            client.read_until("receiver: received b'and back'")
            connection.shutdown(socket.SHUT_WR)
            client.end()
            # Its socket was closed, and not reset.
            late = receive_exactly(connection, 1000)
    assert (client.returncode, client.errors) == (0, "")
    # On a slow machine there may be time for more than one message.
    again = client.lines.count(f"sender: sending {MESSAGE!r}") - 1
    assert late == MESSAGE * again
    assert [text for text in client.lines if "sending" not in text] == [
        f"parent: connecting to port {port}",
        "parent: starting the sender",
        "parent: starting the receiver",
        "sender: here",
        "receiver: here",
        "receiver: received b'and back'",
        "receiver: connection closed",
    ]


@each_loop
def test_the_echo_client_without_a_server_names_the_address_in_its_error(loop: str) -> None:
    port = free_port()
    client = programs.run(CLIENT, port, loop=loop)
    assert client.returncode == 1
    last = client.errors.splitlines()[-1]
    assert last.startswith("OSError: ")
    assert "127.0.0.1" in last
    assert str(port) in last


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group and in the groups in it; of any other error itself."""
    parts: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return [leaf for part in parts for leaf in leaves(part)] or [error]


@pytest.fixture
def echo_client(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(CLIENT.parent))
    return importlib.import_module("echo_client")


async def test_sys_exit_in_the_receiver_cancels_the_sender_and_closes_the_socket(
    echo_client: ModuleType, monkeypatch: pytest.MonkeyPatch, host_kind: str
) -> None:
    fates = []
    connections = []

    async def sender(stream: nurseryio.SocketStream) -> None:
        connections.append(stream)
        try:
            await original(stream)
        except nurseryio.Cancelled:
            fates.append("cancelled")
            raise

    async def serve_once(stream: nurseryio.SocketStream) -> None:
        await stream.send_all(await stream.receive_some())

    original = echo_client.sender
    monkeypatch.setattr(echo_client, "sender", sender)
    with pytest.raises(BaseException) as caught:
        async with nurseryio.open_nursery() as nursery:
            listeners = await nurseryio.open_tcp_listeners(0, host="127.0.0.1")
            await nursery.start(nurseryio.serve_listeners, serve_once, listeners)
            await echo_client.parent(listeners[0].socket.getsockname()[1])
    if host_kind == "app":
        # It has left the outermost nursery of a task that asyncio started.
        assert type(caught.value) is SystemExit
    assert [type(error) for error in leaves(caught.value)] == [SystemExit]
    assert fates == ["cancelled"]
    assert connections[0].socket.fileno() == -1


# -- the server -----------------------------------------------------------------


def reset(connection: socket.socket) -> None:
    """Close a connection so that the peer learns it as an error."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@each_loop
def test_a_reset_in_the_middle_of_a_message_ends_that_one_handler_only(loop: str) -> None:
    port = free_port()
    with started(SERVER, port, loop=loop) as server:
        with connect(port) as rude:
            server.read_until("echo_server 0: a client has come")
            with connect(port) as polite:
                server.read_until("echo_server 1: a client has come")
                # More than fits on the way back: the handler is in the middle of sending.
                rude.sendall(bytes(1_000_000))
                server.read_until("echo_server 0: received")
                reset(rude)
                line = server.read_until("broken off")
                polite.sendall(b"still there?")
                assert receive_exactly(polite, 12) == b"still there?"
            server.read_until("echo_server 1: the client has gone")
        server.interrupt()
        server.end()
    assert line.startswith("echo_server 0: broken off: BrokenResourceError('socket connection")
    assert not [text for text in server.lines if text.startswith("echo_server 1: broken")]


SERVER_WITH_WITNESSES = f"""
import asyncio, sys
sys.path.insert(0, {str(SERVER.parent)!r})
import nurseryio, echo_server

async def witnessed(stream):
    try:
        await echo_server.echo_server(stream)
    except BaseException as error:
        print(type(error).__name__, "while the socket is open:", stream.socket.fileno() != -1)
        raise

async def main(port):
    try:
        await nurseryio.serve_tcp(witnessed, port)
    finally:
        print("serve_tcp has ended")

try:
    HOW
except KeyboardInterrupt as error:
    print("KeyboardInterrupt, bare")
    raise
"""
WAYS = {
    "run": "nurseryio.run(main, int(sys.argv[1]))",
    "app": "asyncio.run(main(int(sys.argv[1])))",
}


@each_loop
@pytest.mark.parametrize("way", WAYS)
def test_ctrl_c_on_the_server_cancels_all_handlers_and_frees_the_port(
    way: str, loop: str, tmp_path: Path
) -> None:
    file = tmp_path / "server.py"
    file.write_text(SERVER_WITH_WITNESSES.replace("HOW", WAYS[way]), encoding="utf-8")
    port = free_port()
    with started(file, port, loop=loop) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(port)) for _ in range(3)]
        for number, client in enumerate(clients):
            client.sendall(b"hello")
            assert receive_exactly(client, 5) == b"hello", number
        server.interrupt()
        server.end()
        # Each connection was closed, and not reset.
        assert [client.recv(1) for client in clients] == [b"", b"", b""]
        # A server may listen there at once.
        socket.create_server(("127.0.0.1", port)).close()
    # All are cancelled, except one that is running when the signal comes: that is interrupted.
    ends = [text for text in server.lines if "while the socket is open" in text]
    assert ends.count("CancelledError while the socket is open: True") >= 2
    assert len(ends) == 3
    assert server.lines[-2:] == ["serve_tcp has ended", "KeyboardInterrupt, bare"]
    # Python ends itself by the signal, which a shell shows as 130.
    assert server.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "KeyboardInterrupt" in server.errors.splitlines()  # the tasks follow as a note


@each_loop
def test_a_server_that_was_ended_by_ctrl_c_can_be_started_again_at_once(loop: str) -> None:
    port = free_port()
    for _ in range(2):
        with started(SERVER, port, loop=loop) as server, connect(port) as client:
            client.sendall(b"hello")
            assert receive_exactly(client, 5) == b"hello"
            server.interrupt()
            server.end()
        assert server.returncode in (-signal.SIGINT, 128 + signal.SIGINT)


# -- ten thousand ---------------------------------------------------------------


@pytest.mark.limit(180)
async def test_ten_thousand_tasks_sleep_at_once(loop_kind: str) -> None:
    # In its debug mode asyncio itself notes a whole stack for each step.
    count = 1_000 if loop_kind == "debug" else 10_000
    awake = 0
    asleep = nurseryio.Event()

    async def sleeper(number: int) -> None:
        nonlocal awake
        if number == count - 1:
            asleep.set()
        await nurseryio.sleep(0.5)
        awake += 1

    before = len(asyncio.all_tasks())
    began = nurseryio.current_time()
    async with nurseryio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(sleeper, number)
        await asleep.wait()
        assert len(nursery.child_tasks) + awake == count
        assert len(asyncio.all_tasks()) - before == count - awake
    assert awake == count
    # One after the other they would take count / 2 seconds.
    assert nurseryio.current_time() - began < count / 20


@pytest.fixture
def open_files() -> Iterator[int]:
    """How many files a process may have open here, with the soft limit as high as it goes."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 20_000
    highest = enough if hard == resource.RLIM_INFINITY else min(enough, hard)
    if soft != resource.RLIM_INFINITY and soft < highest:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    yield highest
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Barrier:
    """Lets no task pass before all have come."""

    def __init__(self, parties: int) -> None:
        self.missing = parties
        self.complete = nurseryio.Event()

    async def wait(self) -> None:
        self.missing -= 1
        if not self.missing:
            self.complete.set()
        await self.complete.wait()


async def echo_twice(port: int, door: nurseryio.CapacityLimiter, barrier: Barrier) -> None:
    # A listener's queue is short: not all of them knock at the same moment.
    async with door:
        stream = await nurseryio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(b"1")
        assert await stream.receive_some() == b"1"
        await barrier.wait()
        await stream.send_all(b"2")
        assert await stream.receive_some() == b"2"


@pytest.mark.limit(180)
@each_loop
def test_ten_thousand_clients_are_served_at_once(loop: str, open_files: int) -> None:
    count = min(10_000, open_files - 200)
    port = free_port()

    async def clients() -> None:
        door, barrier = nurseryio.CapacityLimiter(100), Barrier(count)
        async with nurseryio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(echo_twice, port, door, barrier)

    with started(SERVER, port, loop=loop) as server:
        connect(port).close()

        def listen() -> None:
            for _ in range(count + 1):
                server.read_until("the client has gone")

        listening = threading.Thread(target=listen)
        listening.start()
        nurseryio.run(clients)
        listening.join()
        server.interrupt()
        server.end()
    assert len([text for text in server.lines if text.endswith("a client has come")]) == count + 1
    assert server.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
