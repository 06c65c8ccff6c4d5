"""No error path leaves cyclic garbage: the objects of an error are freed as soon as the error is.

An exception holds its traceback, the traceback its frames, each frame its variables and the frame
that has called it. One variable with the exception in it closes the circle, and everything that
the callers hold stays until a collection.

A path is a function that raises. To look at one more, write it and put it into ``PATHS``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket as stdlib
import sys
import threading
import types
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from harness import certs, net, tlspairs
from harness.core import without_gc
from harness.datagrams import Network
from harness.dtlspairs import echo, endpoint
from harness.net import reset, tcp_pair, unix_pair
from harness.resisting import Frozen

import nurseryio
from nurseryio import aio, from_thread, lowlevel, to_thread
from nurseryio._base.outcome import Error
from nurseryio.abc import HostnameResolver
from nurseryio.testing import memory_stream_pair, wait_all_tasks_blocked

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup, ExceptionGroup

Path = Callable[[], Awaitable[object]]

open_nursery = nurseryio.open_nursery


class Marker:
    """Lives in a variable of the function that an error passes last."""


class Failure(Exception):
    pass


def fail(*_args: object) -> Any:
    raise Failure


async def crash(*_args: object) -> Any:
    await nurseryio.sleep(0)
    raise Failure


async def crash_at_once() -> None:
    raise Failure


async def crash_at_end(error: type[BaseException] = Failure) -> None:
    try:
        await nurseryio.sleep_forever()
    finally:
        raise error


async def crash_started(task_status: nurseryio.TaskStatus[None]) -> None:
    task_status.started()
    await crash()


async def ignore(*_args: object, task_status: Any = None) -> None:
    pass


# -- nurseries and scopes -------------------------------------------------------


async def body_fails() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        fail()


async def child_fails() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        nursery.start_soon(crash)


async def child_fails_in_two_nurseries() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(child_fails)
        nursery.start_soon(nurseryio.sleep_forever)
        await child_fails()


async def body_and_child_fail() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(crash_at_end)
        await wait_all_tasks_blocked()
        fail()


async def children_fail_when_cancelled() -> None:
    async with open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(crash_at_end)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def child_exits() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(crash_at_end, SystemExit)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def start_fails() -> None:
    async with open_nursery() as nursery:
        await nursery.start(crash)


async def start_fails_after_started() -> None:
    async with open_nursery() as nursery:
        await nursery.start(crash_started)


async def start_ends_early() -> None:
    async with open_nursery() as nursery:
        await nursery.start(ignore)


async def no_function_to_start() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(Marker())  # type: ignore[arg-type]


async def coroutine_to_start() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(crash())  # type: ignore[arg-type]


async def sync_function_to_start() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(lambda: 5)  # type: ignore[arg-type,return-value]


async def resisting_group() -> None:
    class Group(ExceptionGroup[Exception]):
        def derive(self, excs: Any) -> Any:
            raise Failure

    async with open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        try:
            await nurseryio.sleep(1)
        except nurseryio.Cancelled as error:
            raise BaseExceptionGroup("g", [error, Group("g", [Frozen()])]) from None


async def child_fails_in_a_cancelled_scope() -> None:
    with nurseryio.CancelScope() as scope:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep_forever)
            scope.cancel()
            nursery.start_soon(crash_at_once)


async def child_fails_when_a_scope_is_cancelled() -> None:
    with nurseryio.CancelScope() as scope:
        async with open_nursery() as nursery:
            nursery.start_soon(crash_at_end)
            nursery.start_soon(nurseryio.sleep_forever)
            await wait_all_tasks_blocked()
            scope.cancel()
            await nurseryio.sleep_forever()


async def too_slow() -> None:
    with nurseryio.fail_after(0):
        await nurseryio.sleep_forever()


async def scope_entered_twice() -> None:
    with nurseryio.CancelScope() as scope, scope:
        pass


async def scope_left_twice() -> None:
    with nurseryio.CancelScope() as scope:
        scope.__exit__(None, None, None)


async def cancelled_natively() -> None:
    task = asyncio.ensure_future(child_fails_late())
    await nurseryio.sleep(0)
    task.cancel()
    try:
        await task
    finally:
        del task


async def child_fails_late() -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        await nurseryio.sleep_forever()


async def bad_sleep() -> None:
    await nurseryio.sleep("1")  # type: ignore[arg-type]


async def bad_limit() -> None:
    with nurseryio.move_on_after(None):  # type: ignore[arg-type]
        pass


# -- waiting and channels -------------------------------------------------------


async def rescheduled_with_an_error() -> None:
    task = lowlevel.current_task()
    asyncio.get_running_loop().call_soon(lambda: lowlevel.reschedule(task, Error(Failure())))
    await lowlevel.wait_task_rescheduled(lambda _: lowlevel.Abort.FAILED)


async def channel_closed() -> None:
    _sending, receiving = nurseryio.open_memory_channel[int](0)
    async with open_nursery() as nursery:
        nursery.start_soon(receiving.receive)
        await wait_all_tasks_blocked()
        receiving.close()


async def channel_broken() -> None:
    sending, receiving = nurseryio.open_memory_channel[int](0)
    receiving.close()
    await sending.send(1)


async def channel_ended() -> None:
    sending, receiving = nurseryio.open_memory_channel[int](0)
    sending.close()
    await receiving.receive()


async def channel_full() -> None:
    sending, _receiving = nurseryio.open_memory_channel[int](0)
    sending.send_nowait(1)


async def lot_broken() -> None:
    lot = lowlevel.ParkingLot()

    async def breaker() -> None:
        lowlevel.add_parking_lot_breaker(lowlevel.current_task(), lot)
        await nurseryio.sleep(0)

    async with open_nursery() as nursery:
        nursery.start_soon(breaker)
        await lot.park()


async def lock_left_behind() -> None:
    lock = nurseryio.Lock()

    async def holder() -> None:
        await lock.acquire()

    async with open_nursery() as nursery:
        nursery.start_soon(holder)
        await nurseryio.sleep(0)
        await lock.acquire()


async def condition_cancelled() -> None:
    with nurseryio.fail_after(0):
        async with nurseryio.Condition() as condition:
            await condition.wait()


# -- results --------------------------------------------------------------------


async def gather_fails() -> None:
    await nurseryio.gather(crash, crash)


async def race_fails() -> None:
    await nurseryio.race(crash, crash_at_end)


async def no_function_to_gather() -> None:
    await nurseryio.gather(5)  # type: ignore[arg-type]


async def amap_fails(fn: Any = crash, items: Any = (1, 2, 3), ordered: bool = True) -> None:
    async with nurseryio.amap(fn, items, limit=2, ordered=ordered) as results:
        async for _ in results:
            pass


def failing_items() -> Iterator[int]:
    yield 1
    fail()


async def amap_body_fails() -> None:
    async with nurseryio.amap(ignore, range(3), limit=2) as results:
        await results.receive()
        fail()


async def items_of_ours(error: type[BaseException] | None) -> AsyncGenerator[int, None]:
    yield 1
    if error is not None:
        raise error


ours = nurseryio.as_safe_channel(items_of_ours)


async def safe_channel_fails(error: type[BaseException] = Failure) -> None:
    async with ours(error) as channel:
        async for _ in channel:
            pass


async def safe_channel_body_fails(error: type[BaseException] = Failure) -> None:
    async with ours(None) as channel:
        await channel.receive()
        raise error


@nurseryio.as_safe_channel
async def failing_at_end(in_nursery: bool = False) -> AsyncGenerator[int, None]:
    try:
        if in_nursery:
            async with open_nursery() as nursery:
                nursery.start_soon(crash_at_end)
                nursery.start_soon(crash_at_end, GeneratorExit)
                yield 1
        else:
            yield 1
    finally:
        if not in_nursery:
            fail()


async def safe_channel_and_body_fail(in_nursery: bool = False) -> None:
    async with failing_at_end(in_nursery) as channel:
        await channel.receive()
        if not in_nursery:
            raise KeyError


async def safe_channel_given_too_much() -> None:
    async with ours():  # type: ignore[call-arg]
        pass


# -- threads --------------------------------------------------------------------


async def thread_fails(abandon: bool = False) -> None:
    await to_thread.run_sync(fail, abandon_on_cancel=abandon)


async def thread_calls_what_fails(call: Any, fn: Any, abandon: bool = False) -> None:
    await to_thread.run_sync(call, fn, abandon_on_cancel=abandon)


async def other_thread_calls_what_fails(call: Any, fn: Any) -> None:
    done = nurseryio.Event()
    token = lowlevel.current_trio_token()

    def work() -> None:
        with contextlib.suppress(Failure):
            call(fn, trio_token=token)
        token.run_sync_soon(done.set)

    thread = threading.Thread(target=work)
    thread.start()
    await done.wait()
    await to_thread.run_sync(thread.join)
    fail()


async def thread_finds_itself_cancelled() -> None:
    def work() -> None:
        while True:
            from_thread.check_cancelled()
            from_thread.run(nurseryio.sleep, 0)

    with nurseryio.fail_after(0.001):
        await to_thread.run_sync(work)


async def coroutine_from_a_thread() -> None:
    await to_thread.run_sync(crash)


class FailingLimiter:
    async def acquire_on_behalf_of(self, borrower: object) -> None:
        pass

    def release_on_behalf_of(self, borrower: object) -> None:
        fail()


async def limiter_fails() -> None:
    await to_thread.run_sync(fail, limiter=FailingLimiter())


async def thread_does_not_start() -> None:
    await to_thread.run_sync(ignore, thread_name=5)  # type: ignore[arg-type]


# -- processes, files, signals --------------------------------------------------


async def process_fails(**options: Any) -> None:
    await nurseryio.run_process([sys.executable, "-c", "import sys; sys.exit(3)"], **options)


async def no_such_program() -> None:
    await nurseryio.run_process(["/no/such/program"], capture_stdout=True)


async def process_cannot_be_ended() -> None:
    async def deliver(process: nurseryio.Process) -> None:
        process.kill()
        fail()

    with nurseryio.move_on_after(0.01):
        await nurseryio.run_process(["sleep", "60"], deliver_cancel=deliver)


async def no_such_file() -> None:
    await nurseryio.open_file("/no/such/file")


async def no_such_path() -> None:
    await nurseryio.Path("/no/such/path").read_text()


async def closed_file() -> None:
    file = await nurseryio.open_file(__file__)
    await file.aclose()
    await file.read()


async def no_signals() -> None:
    with nurseryio.open_signal_receiver():
        pass


async def signal_body_fails() -> None:
    with nurseryio.open_signal_receiver(signal.SIGUSR1):
        fail()


# -- the network ----------------------------------------------------------------


async def refused() -> None:
    await nurseryio.open_tcp_stream("127.0.0.1", net.free_port())


async def refused_from_a_local_address() -> None:
    await nurseryio.open_tcp_stream("127.0.0.1", net.free_port(), local_address="::1")


async def refused_socket() -> None:
    with nurseryio.socket.socket() as sock:
        await sock.connect(("127.0.0.1", net.free_port()))


async def no_such_host() -> None:
    await nurseryio.open_tcp_stream("no-such-host.invalid", 1)


async def no_such_service() -> None:
    await nurseryio.socket.getaddrinfo("127.0.0.1", "no-such-service")


class FailingResolver(HostnameResolver):
    async def getaddrinfo(self, *_args: Any) -> Any:
        await crash()

    async def getnameinfo(self, *_args: Any) -> Any:
        await crash()


async def resolver_fails() -> None:
    nurseryio.socket.set_custom_hostname_resolver(FailingResolver())
    try:
        await nurseryio.open_tcp_stream("some-host", 1)
    finally:
        nurseryio.socket.set_custom_hostname_resolver(None)


async def bad_host() -> None:
    await nurseryio.open_tcp_stream(5, 1)  # type: ignore[arg-type]


async def port_in_use() -> None:
    with stdlib.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        await nurseryio.open_tcp_listeners(sock.getsockname()[1], host="127.0.0.1")


async def no_such_socket() -> None:
    await nurseryio.open_unix_socket("/no/such/socket")


async def no_place_for_a_socket() -> None:
    await nurseryio.open_unix_listeners("/no/such/directory/socket")


async def handler_fails() -> None:
    async with open_nursery() as nursery:
        serve: Any = partial(nurseryio.serve_tcp, crash, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        address = listener.socket.getsockname()
        async with await nurseryio.open_tcp_stream(*address) as stream:
            await stream.receive_some()


async def listener_closed() -> None:
    [listener] = await nurseryio.open_tcp_listeners(0, host="127.0.0.1")
    async with open_nursery() as nursery:
        nursery.start_soon(nurseryio.serve_listeners, ignore, [listener])
        await wait_all_tasks_blocked()
        listener.socket.close()


async def connection_reset() -> None:
    async with tcp_pair() as (left, right):
        await right.send_all(b"x")
        reset(left)
        while True:
            await right.receive_some()


async def connection_broken() -> None:
    async with unix_pair() as (left, right):
        right.socket.close()
        await left.send_all(b"x")


async def stream_closed_under_a_reader() -> None:
    async with unix_pair() as (left, _right), open_nursery() as nursery:
        nursery.start_soon(left.receive_some)
        await wait_all_tasks_blocked()
        await left.aclose()


async def two_readers() -> None:
    async with unix_pair() as (left, _right), open_nursery() as nursery:
        nursery.start_soon(left.receive_some)
        nursery.start_soon(left.receive_some)


async def not_bytes() -> None:
    async with unix_pair() as (left, _right):
        await left.send_all("text")  # type: ignore[arg-type]


async def memory_stream_broken() -> None:
    left, right = memory_stream_pair()
    await right.aclose()
    await left.send_all(b"x")


# -- TLS ------------------------------------------------------------------------


async def certificate_is_not_trusted() -> None:
    context = certs.client_context(trusting=False)
    await tlspairs.connect(tlspairs.over_memory(context=context))


async def peer_does_not_speak_tls() -> None:
    left, right = memory_stream_pair()
    client = nurseryio.SSLStream(left, certs.client_context(), server_hostname=certs.HOST)
    await right.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await client.do_handshake()


async def tls_ends_without_goodbye() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    await server.transport_stream.aclose()
    await client.receive_some()


async def tls_record_is_damaged() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    await server.transport_stream.send_all(b"\x17\x03\x03\x00\x05hello")
    await client.receive_some()


async def tls_used_after_close() -> None:
    client, server = await tlspairs.connect(tlspairs.over_memory())
    async with open_nursery() as nursery:
        nursery.start_soon(client.aclose)
        nursery.start_soon(server.aclose)
    await client.send_all(b"x")


async def tls_asked_before_the_handshake() -> None:
    client, _server = tlspairs.over_memory()
    client.selected_alpn_protocol()


async def tls_port_refuses() -> None:
    await nurseryio.open_ssl_over_tcp_stream("127.0.0.1", net.free_port())


async def tls_over_tcp_fails() -> None:
    async def answer(stream: nurseryio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"no TLS here")

    async with open_nursery() as nursery:
        serve: Any = partial(nurseryio.serve_tcp, answer, 0, host="127.0.0.1")
        [listener] = await nursery.start(serve)
        address = listener.socket.getsockname()
        try:
            async with await nurseryio.open_ssl_over_tcp_stream(*address) as stream:
                await stream.do_handshake()
        finally:
            nursery.cancel_scope.cancel()


async def dtls_certificate_is_not_trusted() -> None:
    network = Network()
    with endpoint(network) as server, endpoint(network) as client:
        async with open_nursery() as nursery:
            await nursery.start(server.serve, certs.dtls_server_context(), echo)
            context = certs.dtls_client_context(trusting=False)
            await client.connect(server.socket.getsockname(), context).do_handshake()


# -- together with asyncio ------------------------------------------------------


async def supervised_task_fails() -> None:
    async with open_nursery() as nursery:
        aio.supervise(nursery, asyncio.ensure_future(crash()))


async def supervised_future_fails() -> None:
    async with open_nursery() as nursery:
        future = asyncio.get_running_loop().create_future()
        aio.supervise(nursery, future)
        await wait_all_tasks_blocked()
        future.set_exception(Failure())
        del future


class Manager:
    """Not an ``@asynccontextmanager``: contextlib's own frames keep what passes them."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.nursery = open_nursery()

    async def __aenter__(self) -> None:
        if self.where == "entering":
            fail()
        await self.nursery.__aenter__()
        if self.where == "inside":
            self.nursery.start_soon(crash)

    async def __aexit__(self, *_details: object) -> None:
        self.nursery.cancel_scope.cancel()
        await self.nursery.__aexit__(None, None, None)
        if self.where == "exiting":
            fail()


async def hosted_manager_fails(where: str) -> None:
    async with open_nursery() as nursery:
        hosted = await aio.enter_in_task(nursery, Manager(where))
        await wait_all_tasks_blocked()
        await hosted.aclose()


async def hosted_manager_fails_when_nothing_waits() -> None:
    async with open_nursery() as nursery:
        await aio.enter_in_task(nursery, Manager("exiting"))
        nursery.cancel_scope.cancel()


async def island_is_cut_short() -> None:
    with nurseryio.fail_after(0), aio.edge_cancellation(1):
        await nurseryio.sleep_forever()


async def asyncio_code_fails() -> None:
    left, _right = memory_stream_pair()
    async with aio.asyncio_from_stream(left) as (reader, _writer):
        await reader.readexactly(-1)


PATHS: list[Path] = [
    body_fails,
    child_fails,
    child_fails_in_two_nurseries,
    body_and_child_fail,
    children_fail_when_cancelled,
    child_exits,
    start_fails,
    start_fails_after_started,
    start_ends_early,
    no_function_to_start,
    coroutine_to_start,
    sync_function_to_start,
    resisting_group,
    child_fails_in_a_cancelled_scope,
    child_fails_when_a_scope_is_cancelled,
    too_slow,
    scope_entered_twice,
    scope_left_twice,
    cancelled_natively,
    bad_sleep,
    bad_limit,
    rescheduled_with_an_error,
    channel_closed,
    channel_broken,
    channel_ended,
    channel_full,
    lot_broken,
    lock_left_behind,
    condition_cancelled,
    gather_fails,
    race_fails,
    no_function_to_gather,
    amap_fails,
    partial(amap_fails, ordered=False),
    partial(amap_fails, ignore, failing_items),
    partial(amap_fails, ignore, 5),
    amap_body_fails,
    safe_channel_fails,
    partial(safe_channel_fails, SystemExit),
    partial(safe_channel_fails, KeyboardInterrupt),
    safe_channel_body_fails,
    partial(safe_channel_body_fails, KeyboardInterrupt),
    safe_channel_and_body_fail,
    partial(safe_channel_and_body_fail, True),
    safe_channel_given_too_much,
    thread_fails,
    partial(thread_fails, abandon=True),
    partial(thread_calls_what_fails, from_thread.run, crash),
    partial(thread_calls_what_fails, from_thread.run, fail),
    partial(thread_calls_what_fails, from_thread.run_sync, fail),
    partial(thread_calls_what_fails, from_thread.run_sync, crash),
    partial(thread_calls_what_fails, from_thread.run, crash, abandon=True),
    partial(thread_calls_what_fails, from_thread.run_sync, fail, abandon=True),
    partial(other_thread_calls_what_fails, from_thread.run, crash),
    partial(other_thread_calls_what_fails, from_thread.run_sync, fail),
    thread_finds_itself_cancelled,
    coroutine_from_a_thread,
    limiter_fails,
    thread_does_not_start,
    process_fails,
    partial(process_fails, capture_stdout=True),
    partial(process_fails, no_such_option=1),
    no_such_program,
    process_cannot_be_ended,
    no_such_file,
    no_such_path,
    closed_file,
    no_signals,
    signal_body_fails,
    refused,
    refused_from_a_local_address,
    refused_socket,
    no_such_host,
    no_such_service,
    resolver_fails,
    bad_host,
    port_in_use,
    no_such_socket,
    no_place_for_a_socket,
    handler_fails,
    listener_closed,
    connection_reset,
    connection_broken,
    stream_closed_under_a_reader,
    two_readers,
    not_bytes,
    memory_stream_broken,
    certificate_is_not_trusted,
    peer_does_not_speak_tls,
    tls_ends_without_goodbye,
    tls_record_is_damaged,
    tls_used_after_close,
    tls_asked_before_the_handshake,
    tls_port_refuses,
    tls_over_tcp_fails,
    dtls_certificate_is_not_trusted,
    supervised_task_fails,
    supervised_future_fails,
    partial(hosted_manager_fails, "entering"),
    partial(hosted_manager_fails, "exiting"),
    partial(hosted_manager_fails, "inside"),
    hosted_manager_fails_when_nothing_waits,
    island_is_cut_short,
    asyncio_code_fails,
]


def spelled(path: Any) -> str:
    if not isinstance(path, partial):
        return str(path.__name__)
    given = [*path.args, *path.keywords.values()]
    return "-".join([path.func.__name__, *(getattr(x, "__name__", str(x)) for x in given)])


@pytest.mark.parametrize("path", PATHS, ids=spelled)
async def test_an_error_path_leaves_no_cyclic_garbage(path: Path) -> None:
    assert await left_by(path) == []  # also warms up what is made once
    with without_gc():
        assert await left_by(path) == []


async def left_by(path: Path) -> list[str]:
    """The objects that only the collector frees after a path: its errors, and its caller's
    variable."""
    gc.collect()
    before = errors_alive()
    raised, reference = await walk(path)
    assert raised, "the path must raise"
    for _ in range(400):
        await asyncio.sleep(0)
        if reference() is None and len(errors_alive()) == len(before):
            return []
        await asyncio.sleep(0.005)  # a thread may be about to forget what it has delivered
    known = set(map(id, before))
    left = [describe(error) for error in errors_alive() if id(error) not in known]
    return left or ["a variable of the caller"]


def errors_alive() -> list[BaseException]:
    return [thing for thing in gc.get_objects() if isinstance(thing, BaseException)]


def describe(error: BaseException) -> str:
    holders = [h.f_code for h in gc.get_referrers(error) if isinstance(h, types.FrameType)]
    return f"{error!r}, held by {holders}"


async def walk(path: Path) -> tuple[bool, weakref.ref[Marker]]:
    marker = Marker()
    try:
        await path()
    except BaseException:
        return True, weakref.ref(marker)
    return False, weakref.ref(marker)


async def test_the_measure_of_cyclic_garbage_finds_a_reference_cycle() -> None:
    async def keeps_its_error() -> None:
        try:
            fail()
        except Failure as exc:
            error = exc
        raise error

    with without_gc():
        assert await left_by(keeps_its_error)
    gc.collect()
