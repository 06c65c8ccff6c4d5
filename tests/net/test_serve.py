"""Servers: a task for each connection, what ends them and what does not."""

# Covered below 95 %: one line is never reached; a nursery of another make, and listeners that are
# not a list, have no test.

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import pathlib
import resource
import socket as stdlib
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from harness import certs, net
from harness.core import gone, without_gc

import nurseryio
from nurseryio import (
    BrokenResourceError,
    Event,
    Nursery,
    SocketListener,
    SocketStream,
    StapledStream,
    lowlevel,
    open_memory_channel,
    open_tcp_listeners,
    serve_listeners,
    socket,
)
from nurseryio.abc import Listener
from nurseryio.testing import (
    MemoryReceiveStream,
    MemorySendStream,
    MockClock,
    memory_stream_pair,
    open_stream_to_socket_listener,
    wait_all_tasks_blocked,
)

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

MemoryStream = StapledStream[MemorySendStream, MemoryReceiveStream]


class MemoryListener(Listener[MemoryStream]):
    """Accepts connections that the test makes, or fails as the test says."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.attempts: list[float] = []
        self.closed = False
        self._give, self._take = open_memory_channel[MemoryStream](99)

    async def connect(self) -> MemoryStream:
        client, server = memory_stream_pair()
        await self._give.send(server)
        return client

    async def accept(self) -> MemoryStream:
        await nurseryio.lowlevel.checkpoint()
        self.attempts.append(nurseryio.current_time())
        if self.errors:
            raise self.errors.pop(0)
        return await self._take.receive()

    async def aclose(self) -> None:
        self.closed = True
        await nurseryio.lowlevel.checkpoint()


async def echo(stream: SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def serve_here(
    nursery: Nursery, handler: Callable[[SocketStream], Awaitable[object]], **options: Any
) -> SocketListener:
    """Start a TCP server on a port of the loopback: its listener."""
    listeners = await open_tcp_listeners(net.free_port(), host="127.0.0.1")
    await nursery.start(
        lambda task_status: serve_listeners(handler, listeners, task_status=task_status, **options)
    )
    return listeners[0]


# -- connections and handlers ---------------------------------------------------


async def test_serve_listeners_starts_a_handler_for_each_connection_of_each_listener() -> None:
    listeners = [MemoryListener(), MemoryListener()]

    async def handler(stream: MemoryStream) -> None:
        assert await stream.receive_some() == b"question"
        await stream.send_all(b"answer")

    async with nurseryio.open_nursery() as nursery:
        assert await nursery.start(serve_listeners, handler, listeners) is listeners
        for listener in listeners * 3:
            client = await listener.connect()
            await client.send_all(b"question")
            assert await client.receive_some() == b"answer"
            # The handler has ended, and with it the connection.
            assert await client.receive_some() == b""
        nursery.cancel_scope.cancel()
    assert all(listener.closed for listener in listeners)


class NamelessHandler:
    """A handler without a ``__qualname__``."""

    def __init__(self, handler: Callable[[Any], Awaitable[object]]) -> None:
        self.handler = handler

    def __repr__(self) -> str:
        return "the nameless one"

    async def __call__(self, stream: Any) -> None:
        await self.handler(stream)


async def test_the_task_of_a_connection_has_the_name_of_its_handler() -> None:
    seen: list[tuple[str, str]] = []

    async def handler(stream: MemoryStream) -> None:
        task = lowlevel.current_task()
        seen.append((task.name.rpartition(".")[2], str(task.asyncio_task.get_name())))
        await stream.receive_some()

    nameless: Any = NamelessHandler(handler)
    expected = handler.__qualname__
    for kind, shown in ((handler, expected), (partial(handler), expected), (nameless, None)):
        async with nurseryio.open_nursery() as nursery:
            listener = MemoryListener()
            await nursery.start(serve_listeners, kind, [listener])
            client = await listener.connect()
            await client.send_all(b"x")
            await client.receive_some()
            nursery.cancel_scope.cancel()
        name, asyncio_name = seen.pop()
        assert name == ("handler" if shown else "the nameless one")
        assert asyncio_name == (shown or "the nameless one")


@pytest.mark.watching_only("streams over transports yield in other places")
async def test_the_first_call_of_a_handler_does_not_yield_if_it_does_not_wait() -> None:
    turns: list[int] = []
    loop = asyncio.get_running_loop()

    async def handler(stream: SocketStream) -> None:
        loop.call_soon(turns.append, 1)
        await stream.receive_some()
        turns.append(2)
        nursery.cancel_scope.cancel()

    with stdlib.create_server(("127.0.0.1", 0)) as sock:
        listener = SocketListener(socket.from_stdlib_socket(sock))
        with stdlib.create_connection(sock.getsockname()) as client:
            client.sendall(b"x")
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(serve_listeners, handler, [listener])
    assert turns == [2, 1]


async def test_a_connection_of_any_kind_is_closed_forcefully_after_its_handler() -> None:
    listener = MemoryListener()
    deadlines = []

    async def handler(stream: MemoryStream) -> None:
        stream.send_stream.close_hook = lambda: deadlines.append(
            nurseryio.current_effective_deadline()
        )

    async with nurseryio.open_nursery() as nursery:
        await nursery.start(serve_listeners, handler, [listener])
        await listener.connect()
        await wait_all_tasks_blocked()
        assert deadlines == [-float("inf")]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("end", ["returns", "raises", "is cancelled", "has closed it"])
async def test_the_connection_is_closed_however_its_handler_ends(end: str) -> None:
    served = []

    async def handler(stream: SocketStream) -> None:
        served.append(stream)
        await stream.receive_some()
        if end == "raises":
            raise KeyError("handler")
        if end == "is cancelled":
            await nurseryio.sleep_forever()
        if end == "has closed it":
            await stream.aclose()

    expected: Any = contextlib.nullcontext()
    if end == "raises":
        expected = pytest.RaisesGroup(pytest.RaisesGroup(KeyError))
    with expected:
        async with nurseryio.open_nursery() as nursery:
            listener = await serve_here(nursery, handler)
            async with await open_stream_to_socket_listener(listener) as client:
                await client.send_all(b"x")
                await wait_all_tasks_blocked()
                if end == "is cancelled":
                    assert served[0].socket.fileno() != -1
                    nursery.cancel_scope.cancel()
                with contextlib.suppress(BrokenResourceError):
                    assert await client.receive_some() == b""
                nursery.cancel_scope.cancel()
    assert served[0].socket.fileno() == -1


async def test_an_error_of_a_handler_ends_the_server_and_its_other_handlers() -> None:
    ended = []

    async def handler(stream: SocketStream) -> None:
        try:
            if await stream.receive_some() == b"bad":
                raise KeyError("handler")
            await nurseryio.sleep_forever()
        finally:
            ended.append(stream)

    with pytest.RaisesGroup(pytest.RaisesGroup(KeyError)):
        async with nurseryio.open_nursery() as nursery:
            listener = await serve_here(nursery, handler)
            good = await open_stream_to_socket_listener(listener)
            await good.send_all(b"good")
            await wait_all_tasks_blocked()
            bad = await open_stream_to_socket_listener(listener)
            await bad.send_all(b"bad")
            try:
                await nurseryio.sleep_forever()
            finally:
                good.socket.close()
                bad.socket.close()
    assert len(ended) == 2
    assert listener.socket.fileno() == -1


async def test_a_reset_in_the_middle_of_a_message_affects_its_own_handler_alone() -> None:
    broken = []

    async def handler(stream: SocketStream) -> None:
        try:
            await echo(stream)
        except BrokenResourceError as exc:
            broken.append(exc)

    async with nurseryio.open_nursery() as nursery:
        listener = await serve_here(nursery, handler)
        async with await open_stream_to_socket_listener(listener) as steady:
            rude = await open_stream_to_socket_listener(listener)
            await rude.send_all(bytes(1000))
            await rude.receive_some(10)
            net.reset(rude)
            await steady.send_all(b"x")
            assert await steady.receive_some() == b"x"
            await wait_all_tasks_blocked()
        assert isinstance(broken[0].__cause__, ConnectionError)
        assert len(broken) == 1
        nursery.cancel_scope.cancel()


async def test_handler_nursery_runs_the_handlers_in_another_nursery() -> None:
    async with nurseryio.open_nursery() as handlers:
        async with nurseryio.open_nursery() as nursery:
            listener = await serve_here(nursery, echo, handler_nursery=handlers)
            client = await open_stream_to_socket_listener(listener)
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"
            nursery.cancel_scope.cancel()
        # The server has gone, the handler has not.
        assert listener.socket.fileno() == -1
        await client.send_all(b"y")
        assert await client.receive_some() == b"y"
        await client.aclose()


async def test_a_handler_that_is_no_async_function_ends_the_server_with_an_explanation() -> None:
    with pytest.RaisesGroup(
        pytest.RaisesGroup(pytest.RaisesExc(TypeError, match="NoneType|async"))
    ):
        async with nurseryio.open_nursery() as nursery:
            listener = await serve_here(nursery, lambda stream: None)  # type: ignore[arg-type, return-value]
            async with await open_stream_to_socket_listener(listener):
                await nurseryio.sleep_forever()


# -- accept fails ---------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.ECONNABORTED, "aborted")])
async def test_an_error_of_accept_ends_the_server(error: Exception) -> None:
    listener = MemoryListener(error)
    other = MemoryListener()
    with pytest.RaisesGroup(pytest.RaisesExc(check=lambda e: e is error)):
        await serve_listeners(nurseryio.sleep_forever, [listener, other])  # type: ignore[arg-type]
    assert listener.closed
    assert other.closed


async def test_a_cancellation_does_not_replace_an_error_of_accept() -> None:
    error = KeyError("x")

    class Late(MemoryListener):
        async def aclose(self) -> None:
            await super().aclose()
            scope.cancel()
            await nurseryio.lowlevel.checkpoint()

    with pytest.RaisesGroup(pytest.RaisesExc(check=lambda e: e is error)):
        with nurseryio.CancelScope() as scope:
            await serve_listeners(nurseryio.sleep_forever, [Late(error)])  # type: ignore[arg-type]


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_accept_errors_like_emfile_enfile_and_enomem_are_logged_and_tried_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    errors = [OSError(code, os.strerror(code)) for _ in range(3)]
    listener = MemoryListener(*errors)

    async def handler(stream: MemoryStream) -> None:
        await stream.send_all(b"room at last")

    async with nurseryio.open_nursery() as nursery:
        await nursery.start(serve_listeners, handler, [listener])
        client = await listener.connect()
        assert await client.receive_some() == b"room at last"
        nursery.cancel_scope.cancel()
    assert listener.attempts[:4] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert len(caplog.records) == 3
    for record, error in zip(caplog.records, errors, strict=True):
        assert record.name == "nurseryio.serve_listeners"
        assert record.levelno == logging.ERROR
        assert errno.errorcode[code] in record.getMessage()
        assert "retrying in 0.1 seconds" in record.getMessage()
        assert record.exc_info is not None
        assert record.exc_info[1] is error


@contextlib.contextmanager
def room_for_descriptors(count: int) -> Iterator[None]:
    """Within this block the process may open so many file descriptors more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.watching_only("a transport needs two descriptors")
async def test_running_out_of_descriptors_does_not_end_a_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with nurseryio.open_nursery() as nursery:
        listener = await serve_here(nursery, echo)
        # When it waits, it has all the descriptors that it needs.
        await wait_all_tasks_blocked()
        # Both ends of a connection are in this process: the last one has no room for its second.
        with room_for_descriptors(3):
            first = await open_stream_to_socket_listener(listener)
            await first.send_all(b"1")
            assert await first.receive_some() == b"1"
            second = await open_stream_to_socket_listener(listener)
            await second.send_all(b"2")
            with nurseryio.move_on_after(30) as scope:
                while not caplog.records:
                    await nurseryio.sleep(0.001)
            assert not scope.cancelled_caught
            await first.aclose()
            assert await second.receive_some() == b"2"
            await second.aclose()
        nursery.cancel_scope.cancel()
    assert "EMFILE" in caplog.text
    caplog.clear()


@pytest.mark.parametrize("ending", ["returns", "cancelled"])
async def test_a_served_connection_and_its_task_are_freed_at_once(ending: str) -> None:
    watched: list[weakref.ref[Any]] = []

    async def handler(stream: SocketStream) -> None:
        task = nurseryio.lowlevel.current_task()
        watched.extend(weakref.ref(thing) for thing in (stream, stream.socket, task))
        await stream.send_all(await stream.receive_some())
        if ending == "cancelled":
            with nurseryio.move_on_after(0):
                await stream.receive_some()

    async def visit(listener: SocketListener) -> None:
        async with await open_stream_to_socket_listener(listener) as client:
            watched.extend(weakref.ref(thing) for thing in (client, client.socket))
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"

    async with nurseryio.open_nursery() as nursery:
        listener = await serve_here(nursery, handler)
        await visit(listener)
        await wait_all_tasks_blocked()
        watched.clear()
        with without_gc():
            await visit(listener)
            await wait_all_tasks_blocked()
            assert len(watched) == 5
            assert all(map(gone, watched))
        nursery.cancel_scope.cancel()


# -- many -----------------------------------------------------------------------


async def converse(listener: SocketListener, many: int) -> None:
    """Hold ``many`` connections open at once and say something on each."""
    address = listener.socket.getsockname()
    clients = []
    for _ in range(many):
        sock = nurseryio.socket.socket()
        await sock.connect(address)
        clients.append(SocketStream(sock))
    for n, client in enumerate(clients):
        await client.send_all(b"%d" % n)
    for n, client in enumerate(clients):
        assert await client.receive_some() == b"%d" % n
    for client in clients:
        await client.aclose()


@pytest.mark.costly("many connections")
async def test_a_thousand_connections_at_once() -> None:
    async with nurseryio.open_nursery() as nursery:
        listener = await serve_here(nursery, echo)
        await converse(listener, 1000)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


@pytest.mark.run_only
@pytest.mark.stock_only("one kind of loop is enough for so many")
@pytest.mark.limit(300)
@pytest.mark.costly("many connections")
async def test_as_many_connections_as_files_may_be_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    # Both ends are in this process.
    room = 20_400 if hard == resource.RLIM_INFINITY else min(hard, 20_400)
    try:
        async with nurseryio.open_nursery() as nursery:
            listener = await serve_here(nursery, echo)
            await converse(listener, (room - 400) // 2)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- the end --------------------------------------------------------------------


async def test_the_port_is_free_as_soon_as_the_server_has_ended() -> None:
    for _ in range(3):
        async with nurseryio.open_nursery() as nursery:
            listener = await serve_here(nursery, echo)
            address = listener.socket.getsockname()
            async with await open_stream_to_socket_listener(listener) as client:
                await client.send_all(b"x")
                await client.receive_some()
                nursery.cancel_scope.cancel()
        with stdlib.socket() as probe:
            probe.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()


async def test_a_native_cancel_ends_serve_listeners() -> None:
    listeners = await open_tcp_listeners(0, host="127.0.0.1")
    task = asyncio.ensure_future(serve_listeners(echo, listeners))
    async with await open_stream_to_socket_listener(listeners[0]) as client:
        await client.send_all(b"x")
        assert await client.receive_some() == b"x"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with contextlib.suppress(BrokenResourceError):
            assert await client.receive_some() == b""
    assert listeners[0].socket.fileno() == -1


async def test_a_handler_that_is_not_callable_is_refused_before_anything_is_opened(
    tmp_path: pathlib.Path,
) -> None:
    async def handler(stream: Any) -> None:
        raise AssertionError

    servers: list[Callable[[Any], Awaitable[object]]] = [
        lambda handler: serve_listeners(handler, []),
        lambda handler: nurseryio.serve_tcp(handler, -1),
        lambda handler: nurseryio.serve_ssl_over_tcp(handler, -1, certs.server_context()),
        lambda handler: nurseryio.serve_unix(handler, tmp_path / "socket"),
    ]
    for serve in servers:
        with pytest.raises(TypeError, match="expecting an async function"):
            await serve("handler")
        with pytest.raises(TypeError, match="did you write handler"):
            await serve(handler(None))
    assert not (tmp_path / "socket").exists()


async def test_a_connection_whose_handler_cannot_be_started_is_closed() -> None:
    async with nurseryio.open_nursery() as ended:
        pass
    listener = MemoryListener()
    client = await listener.connect()
    with pytest.raises(ExceptionGroup) as caught:
        await serve_listeners(echo, [listener], handler_nursery=ended)
    assert isinstance(caught.value.exceptions[0], RuntimeError)
    assert await client.receive_some() == b""
    assert listener.closed


# -- stopping -------------------------------------------------------------------


async def test_a_stop_request_closes_the_listener_and_lets_handlers_finish() -> None:
    finish = Event()

    async def handler(stream: SocketStream) -> None:
        await stream.receive_some()
        await finish.wait()
        await stream.send_all(b"answer")

    async with nurseryio.open_nursery() as nursery:
        listener = await serve_here(nursery, handler)
        async with await open_stream_to_socket_listener(listener) as client:
            await client.send_all(b"question")
            await wait_all_tasks_blocked()
            nursery.cancel_scope.request_stop()
            await wait_all_tasks_blocked()
            assert listener.socket.fileno() == -1
            assert len(nursery.child_tasks) == 1
            finish.set()
            assert await client.receive_some() == b"answer"
            assert await client.receive_some() == b""
    assert not nursery.cancel_scope.cancel_called


async def test_a_handler_can_close_an_idle_connection_at_a_stop_request() -> None:
    async def handler(stream: SocketStream) -> None:
        with nurseryio.move_on_at_stop():
            async for data in stream:
                await stream.send_all(data)

    async with nurseryio.open_nursery() as nursery:
        listener = await serve_here(nursery, handler)
        async with await open_stream_to_socket_listener(listener) as client:
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"
            nursery.cancel_scope.request_stop()
            assert await client.receive_some() == b""


@pytest.mark.watching_only("connections wait in the queue of the system")
async def test_connections_in_the_systems_queue_are_served_after_a_stop_request() -> None:
    async def handler(stream: SocketStream) -> None:
        await stream.send_all(await stream.receive_some())

    clients = []
    try:
        async with nurseryio.open_nursery() as nursery:
            listener = await serve_here(nursery, handler)
            await wait_all_tasks_blocked()
            address = listener.socket.getsockname()
            for _ in range(20):  # without letting the server run
                clients.append(stdlib.create_connection(address))
                clients[-1].sendall(b"x")
            nursery.cancel_scope.request_stop()
        assert [client.recv(9) for client in clients] == [b"x"] * 20
        with pytest.raises(ConnectionRefusedError):
            stdlib.create_connection(address)
    finally:
        for client in clients:
            client.close()


async def test_a_listener_of_another_kind_is_closed_at_a_stop_request() -> None:
    async def handler(stream: MemoryStream) -> None:
        raise AssertionError("nobody connects")

    listeners = [MemoryListener(), MemoryListener()]
    async with nurseryio.open_nursery() as nursery:
        await nursery.start(serve_listeners, handler, listeners)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.request_stop()
    assert all(listener.closed for listener in listeners)


async def test_a_server_that_is_started_after_a_stop_request_ends_at_once() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.cancel_scope.request_stop()
        listener = await serve_here(nursery, echo)
    assert listener.socket.fileno() == -1


async def test_a_shield_that_is_set_after_a_stop_request_does_not_make_an_error_of_it() -> None:
    with nurseryio.CancelScope() as outer, nurseryio.CancelScope() as inner:
        async with nurseryio.open_nursery() as nursery:
            await serve_here(nursery, echo)
            await wait_all_tasks_blocked()
            outer.request_stop()
            inner.shield = True


async def test_a_server_with_a_handler_nursery_does_not_wait_for_handlers_at_a_stop() -> None:
    async with nurseryio.open_nursery() as handlers:
        async with nurseryio.open_nursery() as nursery:
            listener = await serve_here(nursery, echo, handler_nursery=handlers)
            client = await open_stream_to_socket_listener(listener)
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"
            nursery.cancel_scope.request_stop()
        assert len(handlers.child_tasks) == 1
        await client.aclose()


async def test_handlers_that_take_too_long_are_cancelled_after_the_grace_period(
    autojump_clock: MockClock,
) -> None:
    cancelled = []

    async def handler(stream: MemoryStream) -> None:
        try:
            await nurseryio.sleep_forever()
        finally:
            cancelled.append(nurseryio.current_time())

    listener = MemoryListener()
    async with nurseryio.open_nursery() as nursery:
        await nursery.start(serve_listeners, handler, [listener])
        await listener.connect()
        await nurseryio.sleep(1)
        asked = nurseryio.current_time()
        nursery.cancel_scope.request_stop(grace_period=10)
    assert cancelled == [asked + 10]


@pytest.mark.watching_only("connections wait in the queue of the system")
async def test_a_full_table_of_files_while_the_queue_is_accepted_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_listener: SocketListener) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(SocketListener, "_accept_queued", refuses)
    with caplog.at_level(logging.ERROR, "nurseryio.serve_listeners"):
        async with nurseryio.open_nursery() as nursery:
            listener = await serve_here(nursery, echo)
            nursery.cancel_scope.request_stop()
    assert "the rest of the queue is lost" in caplog.text
    assert listener.socket.fileno() == -1
