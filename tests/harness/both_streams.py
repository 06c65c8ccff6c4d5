"""Scenarios as in ``both_builds``, for streams: each must have the same result on both builds.

``python -m harness.both_streams`` prints one line for each scenario. There is one for each test by
which the C functions of a stream and of its waits find that a case is not ordinary.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket as stdlib
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import nurseryio
from harness.both_builds import SCENARIOS, main, scenario, shown, tried, turns
from nurseryio import CancelScope, SocketStream, open_nursery
from nurseryio._loop.readiness import waits
from nurseryio.lowlevel import checkpoint, current_task
from nurseryio.socket import from_stdlib_socket

SCENARIOS.clear()

FIELDS = ("drained", "armed", "_waiting", "_stale", "_keep")


def pair() -> tuple[SocketStream, stdlib.socket]:
    """A stream, and the other side as a socket that does not block."""
    mine, peer = stdlib.socketpair()
    peer.setblocking(False)
    return SocketStream(from_stdlib_socket(mine)), peer


def tcp_pair() -> tuple[SocketStream, stdlib.socket]:
    with stdlib.create_server(("127.0.0.1", 0)) as server:
        peer = stdlib.create_connection(server.getsockname())
        mine, _ = server.accept()
    peer.setblocking(False)
    return SocketStream(from_stdlib_socket(mine)), peer


def fields(stream: Any) -> list[Any]:
    """All that a stream's operations write."""
    reads = stream._reads
    found = [stream._receiving, stream._sending, stream._size]
    if reads is not None:
        found += [getattr(reads, name, "none") for name in FIELDS]
        found.append(hasattr(reads, "state") and waits(reads.state).waking)
    try:
        found.append(current_task()._yield_credit)
    except RuntimeError:
        pass
    return found


async def ended(stream: Any, awaitable: Any) -> list[Any]:
    try:
        result = "nothing after five seconds"
        with nurseryio.move_on_after(5):
            result = await awaitable
        if isinstance(result, (bytes, bytearray)) and len(result) > 40:
            result = len(result)
        return [shown(result), *fields(stream)]
    except BaseException as error:
        cause = error.__cause__
        return [shown(error), cause and shown(cause), error.__suppress_context__, *fields(stream)]


async def own_turns(number: int = 5) -> None:
    """Let others run, without an effect on the credit of the task."""
    task = current_task()
    credit = task._yield_credit
    await turns(number)
    task._yield_credit = credit


# -- receiving and sending ----------------------------------------------------------


@scenario
async def messages_are_echoed() -> Any:
    found: list[Any] = []
    for make in (pair, tcp_pair):
        stream, peer = make()
        with peer:
            async with open_nursery() as nursery:

                @nursery.start_soon
                async def echo(stream: SocketStream = stream) -> None:
                    while True:
                        found.append(await ended(stream, stream.receive_some()))
                        if found[-1][0] == "b''":
                            break
                        found.append(await ended(stream, stream.send_all(b"answer")))

                for _ in range(20):
                    peer.send(b"question")
                    received = b""
                    while received != b"answer":
                        await turns(1)
                        with contextlib.suppress(BlockingIOError):
                            received += peer.recv(100)
                peer.shutdown(stdlib.SHUT_WR)
            await stream.aclose()
    return found


@scenario
async def what_has_arrived_is_received_in_pieces() -> Any:
    found: list[Any] = []
    stream, peer = pair()
    with peer:
        peer.send(bytes(range(200)))
        for number in (1, 2, 100, 1, 1000, 3):
            if number == 3:
                peer.send(b"last")
            found.append(await ended(stream, stream.receive_some(number)))
        peer.close()
        for _ in range(3):
            found.append(await ended(stream, stream.receive_some()))
    await stream.aclose()
    return found


@scenario
async def the_number_of_bytes_to_receive() -> Any:
    found: list[Any] = []
    numbers: list[Any] = [0, -1, 2**31, 2**62, 2**70, "x", 3.0, True, False, None, 1]
    for number in numbers:
        stream, peer = pair()
        with peer:
            peer.send(b"data")
            if number not in (2**31, 2**62):  # these would take much memory
                found.append([number, await ended(stream, stream.receive_some(number))])
            peer.send(b"more")
            found.append(await ended(stream, stream.receive_some(2)))
        await stream.aclose()
    return found


@scenario
async def full_calls_make_the_next_one_larger() -> Any:
    stream, peer = pair()
    found: list[Any] = []
    given = iter([65536, 65536, 131072, 262144, 262144, 65536, 10, 65536, 65535])
    real: Any = stream
    await ended(stream, connect_reads(stream, peer))
    asked: list[Any] = []

    def recv(most: int) -> bytes:
        asked.append(most)
        return bytes(next(given))

    real._recv = recv
    with peer:
        for _ in range(9):
            peer.send(b"x")
            found.append(await ended(stream, stream.receive_some()))
    await stream.aclose()
    return [found, asked]


async def connect_reads(stream: SocketStream, peer: stdlib.socket) -> None:
    """Have the stream find its Readable."""
    peer.send(b"x")
    await stream.receive_some()


@scenario
async def data_of_every_kind_is_sent() -> Any:
    found: list[Any] = []
    sub = type("sub", (bytes,), {})
    every: list[Any] = [b"x", b"", b"y" * 1000, bytearray(b"z"), memoryview(b"m"), sub(b"sub")]
    every += ["text", None, 5, [1], memoryview(b"0123456789")[::2]]
    for data in every:
        stream, peer = pair()
        with peer:
            for _ in range(2):
                found.append(await ended(stream, stream.send_all(data)))
                with contextlib.suppress(BlockingIOError):
                    found.append(len(peer.recv(5000)))
        await stream.aclose()
    return found


@scenario
async def the_credit_of_a_task_saves_yields() -> Any:
    found: list[Any] = []
    for busy in (False, True):
        stream, peer = pair()
        with peer:
            await connect_reads(stream, peer)
            for number in range(17):
                task: Any = current_task()
                if busy:
                    asyncio.get_running_loop().call_soon(found.append, "others ran")
                task._yield_credit = number
                try:
                    found.append([number, await ended(stream, stream.send_all(b"x"))])
                    peer.recv(1)
                    peer.send(b"abc")
                    task._yield_credit = number
                    if busy:
                        asyncio.get_running_loop().call_soon(found.append, "others ran")
                    found.append(await ended(stream, stream.receive_some(2)))
                    found.append(await ended(stream, stream.receive_some(2)))
                except BaseException as error:
                    found.append(shown(error))
                task._yield_credit = 0
        await stream.aclose()
    return found


@scenario
async def a_long_message_waits_for_room() -> Any:
    found: list[Any] = []
    for make in (pair, tcp_pair):
        for end in ("drained", "cancelled", "closed", "peer closed", "native"):
            stream, peer = make()
            await connect_reads(stream, peer)
            async with open_nursery() as nursery:

                @nursery.start_soon
                async def send(stream: SocketStream = stream, end: str = end) -> None:
                    found.append([end, await ended(stream, stream.send_all(bytes(20_000_000)))])

                await turns(10)
                (child,) = nursery.child_tasks
                frames = [frame.f_code.co_name for frame, _ in child.iter_await_frames()]
                found.append([name for name in frames if name != "_run_child"])
                found.append(stream._sending)
                number = 0
                if end == "drained":
                    while number < 20_000_000:
                        try:
                            number += len(peer.recv(1_000_000))
                        except BlockingIOError:
                            await nurseryio.sleep(0.001)
                elif end == "cancelled":
                    nursery.cancel_scope.cancel()
                elif end == "closed":
                    await stream.aclose()
                elif end == "native":
                    child.asyncio_task.cancel()
                else:
                    peer.close()
            peer.close()
            await stream.aclose()
            # An error of TCP is one of two, by chance.
            text = repr(found[-1])
            if end == "peer closed":
                found[-1] = ["BrokenResourceError" in text, stream._sending]
            if end == "native":
                found[-1] = ["Cancelled" in text, stream._sending]
    return found


# -- errors and cancellation -------------------------------------------------------------


async def in_child(
    stream: SocketStream, operate: Callable[[], Any], then: Callable[[Any], Any]
) -> Any:
    """The end of an operation in a child that waits in it while something happens."""
    found: list[Any] = []
    with contextlib.suppress(asyncio.CancelledError):
        async with open_nursery() as nursery:

            @nursery.start_soon
            async def child() -> None:
                try:
                    with CancelScope() as scope:
                        scopes.append(scope)
                        found.append(await ended(stream, operate()))
                        found.append(await ended(stream, checkpoint()))
                except BaseException as error:
                    found.append(shown(error))

            scopes: list[Any] = []
            await own_turns()
            found.append(fields(stream))
            if not nursery.child_tasks:
                return found  # there was data left
            (task,) = nursery.child_tasks
            result = then((task, scopes))
            if hasattr(result, "__await__"):
                await result
            await own_turns()
            nursery.cancel_scope.cancel()
    return [*found, fields(stream)]


def events(stream: SocketStream, peer: stdlib.socket) -> dict[str, Callable[[Any], Any]]:
    def loses(child: Any) -> None:
        child[0].asyncio_task.cancel()
        peer.send(b"too late?")

    return {
        "data": lambda _: peer.send(b"data"),
        "end": lambda _: peer.shutdown(stdlib.SHUT_WR),
        "close": lambda _: stream.aclose(),
        "cancel": lambda child: child[1][0].cancel(),
        "cancel and data": lambda child: (child[1][0].cancel(), peer.send(b"d")) and None,
        "data and cancel": lambda child: (peer.send(b"d"), child[1][0].cancel()) and None,
        "native": lambda child: child[0].asyncio_task.cancel() and None,
        "native and data": loses,
        "nothing": lambda _: None,
        "closed under it": lambda _: peer.close(),
    }


def receive_while(
    event: str, rounds: int, instrumented: bool, most: int | None
) -> Callable[[], Any]:
    async def receive() -> Any:
        stream, peer = pair()
        found: list[Any] = []
        instrument = nurseryio.abc.Instrument()
        if instrumented:
            nurseryio.lowlevel.add_instrument(instrument)
        with peer:
            for number in range(rounds):
                if number:
                    peer.send(b"first")
                    found.append(await ended(stream, stream.receive_some(most)))
                found.append(
                    await in_child(
                        stream, lambda: stream.receive_some(most), events(stream, peer)[event]
                    )
                )
                if event in ("end", "close", "closed under it"):
                    break
        if instrumented:
            nurseryio.lowlevel.remove_instrument(instrument)
        await stream.aclose()
        return found

    name = event.replace(" ", "_")
    receive.__name__ = f"receive_{rounds}_{name}_{instrumented}_{most}"
    return receive


for _event in (
    *("data", "end", "close", "cancel", "cancel and data", "data and cancel", "native"),
    *("native and data", "nothing", "closed under it"),
):
    for _rounds in (1, 3):
        for _instrumented in (False, True):
            for _most in (None, 2):
                scenario(receive_while(_event, _rounds, _instrumented, _most))


@scenario
async def operations_in_a_cancelled_scope() -> Any:
    found: list[Any] = []
    for known in (False, True):
        stream, peer = pair()
        with peer:
            if known:
                await connect_reads(stream, peer)
            peer.send(b"data")
            with CancelScope() as scope:
                scope.cancel()
                found.append(await ended(stream, stream.receive_some()))
                found.append(await ended(stream, stream.send_all(b"x")))
                with CancelScope(shield=True):
                    found.append(await ended(stream, stream.receive_some()))
                    found.append(await ended(stream, stream.send_all(b"x")))
            found.append(scope.cancelled_caught)
        await stream.aclose()
    return found


@scenario
async def a_yield_is_cancelled() -> Any:
    found: list[Any] = []
    for send in (False, True):
        for native in (False, True):
            stream, peer = pair()
            with peer:
                await connect_reads(stream, peer)

                async def operate(
                    stream: Any = stream, send: bool = send, native: bool = native
                ) -> None:
                    stream._reads.drained = False
                    stream._reads.disarm()
                    task = current_task()
                    task._yield_credit = 0
                    with CancelScope() as scope:
                        loop = asyncio.get_running_loop()
                        loop.call_soon(task.asyncio_task.cancel if native else scope.cancel)
                        done = stream.send_all(b"x") if send else stream.receive_some()
                        found.append(await ended(stream, done))
                        found.append(await ended(stream, checkpoint()))

                with contextlib.suppress(asyncio.CancelledError):
                    async with open_nursery() as nursery:
                        nursery.start_soon(operate)
            await stream.aclose()
    return found


@scenario
async def two_tasks_use_one_direction() -> Any:
    found: list[Any] = []
    stream, peer = pair()
    with peer:
        async with open_nursery() as nursery:

            async def receive() -> None:
                found.append(await ended(stream, stream.receive_some()))

            async def send() -> None:
                found.append(await ended(stream, stream.send_all(bytes(5_000_000))))

            for operate in (receive, receive, send, send):
                nursery.start_soon(operate)
            await turns()
            found.append(await ended(stream, stream.receive_some()))
            found.append(await ended(stream, stream.send_all(b"")))
            found.append(await ended(stream, stream.wait_send_all_might_not_block()))
            nursery.cancel_scope.cancel()
    await stream.aclose()
    return found


@scenario
async def streams_that_have_ended() -> Any:
    found: list[Any] = []
    for known in (False, True):
        stream, peer = tcp_pair()
        if known:
            await connect_reads(stream, peer)
        await stream.send_eof()
        found.append(await ended(stream, stream.send_all(b"x")))
        found.append(await ended(stream, stream.receive_some(0)))
        peer.send(b"x")
        found.append(await ended(stream, stream.receive_some()))
        await stream.aclose()
        for operate in (lambda stream=stream: stream.send_all(b"x"), stream.receive_some):
            found.append(await ended(stream, operate()))
        peer.close()
        stream, peer = tcp_pair()
        if known:
            await connect_reads(stream, peer)
        peer.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await turns()
        for operate in (
            *(stream.receive_some, lambda stream=stream: stream.send_all(b"x")),
            *(stream.receive_some, lambda stream=stream: stream.send_all(b"x")),
        ):
            found.append(await ended(stream, operate()))
        await stream.aclose()
    return found


@scenario
async def functions_of_the_socket_are_unusual() -> Any:
    found: list[Any] = []
    errors: list[BaseException] = [OSError(9, "bad"), OSError(5, "io"), KeyError("k")]
    errors += [TimeoutError(), KeyboardInterrupt(), BlockingIOError(), MemoryError()]
    errors.append(StopIteration(5))
    for outcome in [*errors, b"", b"x", bytearray(b"y"), 0, 1, 2]:
        for block in (False, True):
            stream, peer = pair()
            real: Any = stream
            with peer:
                await connect_reads(stream, peer)
                calls = 0

                def call(given: Any, block: bool = block, outcome: Any = outcome) -> Any:
                    nonlocal calls
                    calls += 1
                    if block and calls == 1:
                        raise BlockingIOError
                    if calls > 4:
                        raise KeyError("too often")
                    if isinstance(outcome, BaseException):
                        raise outcome
                    is_sent = not isinstance(given, int)
                    return outcome if isinstance(outcome, int) is is_sent else [b"r", 2][is_sent]

                original = real._recv, real._send
                real._recv = real._send = call
                peer.send(b"data")
                found.append([shown(outcome), await ended(stream, stream.receive_some())])
                calls = 0
                found.append(await ended(stream, stream.send_all(b"ab")))
                real._recv, real._send = original
                found.append(await ended(stream, stream.receive_some()))
            await stream.aclose()
    return found


@scenario
async def fields_of_another_type() -> Any:
    found: list[Any] = []
    values: list[Any] = [None, 0, 1, True, "x", 5.0, object()]
    for name in ("_receiving", "_sending", "_size", "_reads", "drained", "armed", "queue"):
        for value in values:
            stream, peer = pair()
            with peer:
                await connect_reads(stream, peer)
                reads: Any = stream._reads
                target: Any = stream if name.startswith("_") else reads
                before = getattr(target, name)
                peer.send(b"data")
                setattr(target, name, value)
                with nurseryio.move_on_after(0.05):
                    found.append(
                        [name, shown(value), *(await ended(stream, stream.receive_some()))[:1]]
                    )
                    if name != "queue":
                        found.append((await ended(stream, stream.send_all(b"x")))[:1])
                setattr(target, name, before)
            await stream.aclose()
    return found


@scenario
async def methods_of_a_socket_are_replaced() -> Any:
    mine, peer = stdlib.socketpair()
    socket: Any = from_stdlib_socket(mine)
    calls: list[Any] = []

    async def recv(number: int) -> bytes:
        calls.append(number)
        await checkpoint()
        return b"replaced"

    async def send(data: Any) -> int:
        calls.append(bytes(data))
        await checkpoint()
        return len(data)

    socket.recv, socket.send = recv, send
    stream = SocketStream(socket)
    with peer:
        found = [
            await ended(stream, stream.receive_some()),
            await ended(stream, stream.send_all(b"x")),
        ]
    await stream.aclose()
    return [*found, calls]


@scenario
async def a_task_of_asyncio_uses_a_stream() -> Any:
    stream, peer = pair()
    with peer:
        found: list[Any] = []

        async def use() -> None:
            peer.send(b"data")
            found.append(await ended(stream, stream.receive_some()))
            found.append(await ended(stream, stream.send_all(b"x")))
            asyncio.get_running_loop().call_soon(peer.send, b"more")
            found.append(await ended(stream, stream.receive_some()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stream.receive_some(), 0.01)
            found.append(fields(stream))

        await asyncio.create_task(use())
    await stream.aclose()
    return found


@scenario
async def operations_outside_of_a_task() -> Any:
    stream, peer = pair()
    with peer:
        await connect_reads(stream, peer)
        found: list[Any] = []

        def step() -> None:
            for operation in (stream.receive_some(), stream.send_all(b"x")):
                found.append(tried(lambda operation=operation: operation.send(None)))  # type: ignore[misc]
                operation.close()

        asyncio.get_running_loop().call_soon(step)
        await turns()
        found.append(fields(stream))
    await stream.aclose()
    return found


@scenario
async def coroutines_are_stepped_by_hand() -> Any:
    found: list[Any] = []

    def stepped(function: Callable[..., Any], *given: Any) -> str:
        try:
            result = function(*given)
        except BaseException as error:
            return shown(error)
        return type(result).__name__

    for make in ("receive", "send"):
        for how in ("close", "throw", "send", "throw before", "close before", "send value"):
            stream, peer = pair()
            with peer:
                await connect_reads(stream, peer)
                operation: Any = (
                    stream.receive_some()
                    if make == "receive"
                    else stream.send_all(bytes(9_000_000))
                )
                if "before" not in how:
                    found.append(stepped(operation.send, None))
                if "throw" in how:
                    found.append(stepped(operation.throw, KeyError("thrown")))
                elif "close" in how:
                    found.append(stepped(operation.close))
                else:
                    peer.send(b"data")
                    peer.setblocking(False)
                    value = 5 if how == "send value" else None
                    with contextlib.suppress(BlockingIOError):
                        while True:
                            peer.recv(100_000)
                    found.append(stepped(operation.send, value))
                    found.append(stepped(operation.throw, OSError(5, "thrown")))
                found.append([make, how, *fields(stream)])
                found.append(stepped(operation.send, None))
                found.append(stepped(operation.close))
                current_task()._yield_credit = 0
            stream.socket.close()
    return found


# -- waits -------------------------------------------------------------------------------


@scenario
async def an_object_is_awaited_directly() -> Any:
    found: list[Any] = []
    stream, peer = pair()
    with peer:
        await connect_reads(stream, peer)
        reads: Any = stream._reads

        async def wait() -> None:
            try:
                found.append(shown(await reads))
            except BaseException as error:
                found.append(shown(error))

        async with open_nursery() as nursery:
            nursery.start_soon(wait)
            await turns()
            nursery.start_soon(wait)
            await turns()
            found.append(await ended(stream, stream.receive_some()))
            peer.send(b"x")
            await turns()
            found.append(fields(stream))
            nursery.cancel_scope.cancel()
        writes = stream.socket._waits.writable(current_task()._state)  # type: ignore[attr-defined]
        found.append(shown(await writes))
        found.append(shown(await writes.once()))
    await stream.aclose()
    return found


@scenario
async def reports_of_every_kind() -> Any:
    found: list[Any] = []
    for kind in ("stale", "two callbacks", "no task", "hooks", "not kept", "cleared"):
        stream, peer = pair()
        with peer:
            await connect_reads(stream, peer)
            reads: Any = stream._reads
            if kind == "no task":
                for _ in range(3):
                    peer.send(b"x")
                    await turns()
                    found.append(fields(stream))
                    found.append(await ended(stream, stream.receive_some()))
            async with open_nursery() as nursery:

                @nursery.start_soon
                async def receive(stream: Any = stream) -> None:
                    found.append(await ended(stream, stream.receive_some()))
                    found.append(await ended(stream, stream.receive_some()))

                await turns()
                instrument = nurseryio.abc.Instrument()
                if kind == "stale":
                    reads._stale = True
                elif kind == "two callbacks":
                    reads._future.add_done_callback(lambda _: found.append("called"))
                elif kind == "hooks":
                    nurseryio.lowlevel.add_instrument(instrument)
                elif kind == "not kept":
                    reads._keep = False
                elif kind == "cleared":
                    waits(reads.state).waking = reads
                peer.send(b"x")
                await turns(8)
                found.append([kind, *fields(stream)])
                peer.send(b"x")
                await turns(8)
                nursery.cancel_scope.cancel()
            if kind == "hooks":
                nurseryio.lowlevel.remove_instrument(instrument)
        await stream.aclose()
    return found


@scenario
async def a_task_that_is_woken_in_place_raises() -> Any:
    found: list[Any] = []
    for error in (KeyError("k"), asyncio.CancelledError("c"), RecursionError("r")):
        stream, peer = pair()
        with peer:
            await connect_reads(stream, peer)

            async def receive(stream: Any = stream, error: Any = error) -> None:
                await stream.receive_some()
                found.append(shown(waits(stream._reads.state).waking is stream._reads))
                raise error

            try:
                async with open_nursery() as nursery:
                    nursery.start_soon(receive)
                    await turns()
                    peer.send(b"x")
            except BaseException as raised:
                found.append(shown(raised))
            found.append(fields(stream))
        await stream.aclose()
    return found


@scenario
async def contexts_are_kept() -> Any:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="outside")
    stream, peer = pair()
    found: list[Any] = []
    with peer:
        async with open_nursery() as nursery:

            @nursery.start_soon
            async def receive() -> None:
                variable.set("inside")
                for _ in range(3):
                    await stream.receive_some()
                    found.append(variable.get())
                    variable.set(variable.get() + "+")

            for _ in range(3):
                await turns()
                peer.send(b"x")
                found.append(variable.get())
    await stream.aclose()
    return found


@scenario
async def near_the_recursion_limit() -> Any:
    stream, peer = pair()
    found: list[Any] = []
    with peer:
        await connect_reads(stream, peer)

        async def deep(depth: int) -> Any:
            if depth:
                return await deep(depth - 1)
            return await stream.send_all(b"x")

        limit = sys.getrecursionlimit()
        results = set()
        for depth in range(limit - 120, limit):
            current_task()._yield_credit = 16
            try:
                await deep(depth)
                results.add("sent")
            except RecursionError:
                results.add("refused")
            found.append(fields(stream)[:3])
        found = [sorted(results), [each for each in found if each[:2] != [False, False]]]
    await stream.aclose()
    return found


class Traced(Exception):
    """Raised by a trace function."""


def raising_once(name: str) -> Callable[..., Any]:
    """A trace function that raises as the method of this name is resumed."""
    calls = 0

    def trace(frame: Any, event: str, _arg: Any) -> None:
        nonlocal calls
        if event == "call" and frame.f_code.co_name == name:
            calls += 1
            if calls == 2:
                raise Traced

    return trace


@scenario
async def the_interpreter_does_not_resume_a_method() -> Any:
    found: list[Any] = []
    for name in ("receive_some", "send_all", "receive", "send"):
        stream, peer = pair()
        sender, receiver = nurseryio.open_memory_channel[int](0)
        with peer, sender, receiver:
            await connect_reads(stream, peer)
            operate: dict[str, Callable[[], Any]] = {
                "receive_some": stream.receive_some,
                "send_all": lambda stream=stream: stream.send_all(bytes(5_000_000)),
                "receive": receiver.receive,
                "send": lambda sender=sender: sender.send(1),
            }

            async def child(operation: Any = operate[name]) -> None:
                sys.settrace(raising_once(name))  # noqa: B023
                try:
                    await operation()
                except Traced as error:
                    found.append(shown(error))

            async with open_nursery() as nursery:
                nursery.start_soon(child)
                await turns()
                peer.send(b"x")
                if name == "receive":
                    sender.send_nowait(2)
                elif name == "send":
                    found.append(receiver.receive_nowait())
                with contextlib.suppress(BlockingIOError):
                    while peer.recv(1_000_000):
                        await turns()
                await turns()
                sys.settrace(None)
                nursery.cancel_scope.cancel()
            ends: list[Any] = [sender, receiver]
            found.append([name, *fields(stream), *(end._waiting for end in ends)])
        await stream.aclose()
    return found


@scenario
async def a_running_wait_is_entered_again() -> Any:
    found: list[Any] = []
    refused: set[str] = set()
    for how in ("close", "send", "throw"):
        stream, peer = pair()
        real: Any = stream
        with peer:
            await connect_reads(stream, peer)
            original, waits_of = real._send, list[Any]()

            def send(
                data: Any, original: Any = original, waits_of: Any = waits_of, how: str = how
            ) -> Any:
                given = {"close": (), "send": (None,), "throw": (KeyError(),)}[how]
                refused.update(tried(partial(getattr(wait, how), *given)) for wait in waits_of)
                return original(data)

            real._send = send
            async with open_nursery() as nursery:
                nursery.start_soon(real.send_all, bytes(3_000_000))
                await turns()
                (child,) = nursery.child_tasks
                if child.coro.cr_await is not None:
                    waits_of.append(child.coro.cr_await)
                number = 0
                while number < 3_000_000:
                    try:
                        number += len(peer.recv(1_000_000))
                    except BlockingIOError:
                        await turns()
                waits_of.clear()
            found.append(fields(stream)[:2])
        await stream.aclose()
    return [sorted(refused), *found]


@scenario
async def nothing_is_left_for_the_collector() -> Any:
    stream, peer = pair()
    with peer:
        await connect_reads(stream, peer)
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                with nurseryio.move_on_after(0.001):
                    await stream.receive_some()
                with nurseryio.move_on_after(0.001):
                    await stream.send_all(bytes(3_000_000))
                with contextlib.suppress(BlockingIOError):
                    while peer.recv(1_000_000):
                        pass
                peer.send(b"x")
                await stream.receive_some()
            await stream.aclose()
            for _ in range(20):
                with contextlib.suppress(nurseryio.ClosedResourceError):
                    await stream.receive_some()
            return gc.collect()
        finally:
            gc.enable()


if __name__ == "__main__":
    main()
