"""The programs that the pictures show.

Each is run under virtual time. `Record.doing()` and `Record.mark()` are for the picture alone; what
is between them is what a user would write.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import nurseryio
from nurseryio.aio import edge_cancellation
from nurseryio.instruments import task_tree

from .record import Record

# -- a nursery with one child that fails -------------------------------------------


async def nursery(record: Record) -> None:
    async def page(seconds: float, error: Exception | None = None) -> None:
        record.doing("fetches")
        try:
            await nurseryio.sleep(seconds)
            if error is not None:
                record.mark(repr(error), "fault")
                raise error
        except nurseryio.Cancelled:
            record.doing("cleans up", "cleanup")
            with nurseryio.CancelScope(shield=True):
                await nurseryio.sleep(1)
            raise

    record.doing("async with open_nursery():", "other")
    try:
        async with nurseryio.open_nursery() as children:
            children.start_soon(page, 1, name="page 1")
            children.start_soon(page, 3, OSError("no route"), name="page 2")
            children.start_soon(page, 60, name="page 3")
    except BaseException as group:
        record.mark(type(group).__name__, "fault")
        record.doing("except", "other")
        await nurseryio.sleep(1)


# -- a timeout, and a function that swallows the cancellation ----------------------


async def stubborn(record: Record) -> None:
    for number in range(1, 5):
        record.doing(f"try {number}")
        try:
            await asyncio.sleep(1.5)  # the server does not answer
        except asyncio.CancelledError:
            record.mark("swallowed", "fault")


async def timeout(record: Record) -> None:
    async with nurseryio.open_nursery() as children:
        children.start_soon(timeout_of_asyncio, record, name="asyncio.timeout(2)")
        children.start_soon(timeout_of_nurseryio, record, name="move_on_after(2)")


async def timeout_of_asyncio(record: Record) -> None:
    async with asyncio.timeout(2):
        await stubborn(record)


async def timeout_of_nurseryio(record: Record) -> None:
    with nurseryio.move_on_after(2):
        await stubborn(record)


# -- a cancellation that goes down the tree of scopes -------------------------------


async def scopes(record: Record) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tree before and after the scope of one handler is cancelled."""

    async def read() -> None:
        await nurseryio.sleep_forever()

    async def write() -> None:
        with nurseryio.CancelScope(shield=True):
            await finished.wait()

    async def handler_1() -> None:
        with nurseryio.CancelScope() as scope:
            handler_scopes.append(scope)
            async with nurseryio.open_nursery() as parts:
                parts.start_soon(read, name="read")
                parts.start_soon(write, name="write")

    async def handler_2() -> None:
        async with nurseryio.open_nursery() as parts:
            parts.start_soon(nurseryio.sleep_forever, name="query")

    handler_scopes: list[nurseryio.CancelScope] = []
    finished = nurseryio.Event()
    async with nurseryio.open_nursery() as handlers:
        handlers.start_soon(handler_1, name="handler 1")
        handlers.start_soon(handler_2, name="handler 2")
        await nurseryio.sleep(1)
        before = task_tree().as_dict()
        handler_scopes[0].cancel()
        await nurseryio.sleep(1)
        after = task_tree().as_dict()
        finished.set()
        handlers.cancel_scope.cancel()
    return before, after


# -- start() -------------------------------------------------------------------------


async def start(record: Record) -> None:
    async def server(*, task_status: nurseryio.TaskStatus[int]) -> None:
        record.doing("opens the port")
        await nurseryio.sleep(2)
        record.mark("started(8080)", "work")
        task_status.started(8080)
        record.doing("serves, as a child of the nursery")
        await nurseryio.sleep_forever()

    async with nurseryio.open_nursery() as children:
        record.doing("await nursery.start(server)", "other")
        port = await children.start(server, name="server")
        record.doing(f"goes on: port {port} is open", "other")
        await nurseryio.sleep(3)
        children.cancel_scope.cancel()


# -- edge cancellation -----------------------------------------------------------------


async def edge(record: Record) -> None:
    async def query() -> None:
        record.doing("query")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            for step in ("stop it", "drain", "give back"):
                record.doing(step, "cleanup")
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    record.mark(f"'{step}' is interrupted: the connection is lost", "fault")
                    raise
            record.mark("the connection is in its pool again", "work")
            raise

    async def in_a_scope() -> None:
        with nurseryio.move_on_after(2):
            await query()

    async def in_edge_cancellation() -> None:
        with nurseryio.move_on_after(2), edge_cancellation(grace=5):
            await query()

    async with nurseryio.open_nursery() as children:
        children.start_soon(in_a_scope, name="in a scope")
        children.start_soon(in_edge_cancellation, name="edge_cancellation")


# -- streams and back-pressure -----------------------------------------------------------

PIECE = 16 * 1024
# What a sender has written and its receiver has not read yet, as a name and a time with each.
ASYNCIO, NURSERYIO = "asyncio: writer.write() without drain()", "nurseryio: send_all()"


def small_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets with small buffers, so that the picture is not the kernel's."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, PIECE)
    return ends


async def streams(record: Record) -> None:
    """Ten pieces are written in a second, and two are read."""
    seconds, period = 6, 0.1
    under_way = dict.fromkeys((ASYNCIO, NURSERYIO), 0)

    def count(name: str, change: int) -> None:
        under_way[name] += change
        record.value(name, under_way[name] // PIECE)

    async def asyncio_sender(end: socket.socket) -> None:
        _, writer = await asyncio.open_connection(sock=end)
        try:
            while True:
                writer.write(bytes(PIECE))
                count(ASYNCIO, PIECE)
                await asyncio.sleep(period)
        finally:
            writer.transport.abort()

    async def nurseryio_sender(end: socket.socket) -> None:
        async with nurseryio.SocketStream(nurseryio.socket.from_stdlib_socket(end)) as stream:
            while True:
                await stream.send_all(bytes(PIECE))
                count(NURSERYIO, PIECE)
                await nurseryio.sleep(period)

    async def receiver(name: str, end: socket.socket) -> None:
        async with nurseryio.SocketStream(nurseryio.socket.from_stdlib_socket(end)) as stream:
            while True:
                await nurseryio.sleep(period * 5)
                left = PIECE
                while left:
                    left -= len(await stream.receive_some(left))
                count(name, -PIECE)

    with nurseryio.move_on_after(seconds):
        async with nurseryio.open_nursery() as children:
            for name, sender in ((ASYNCIO, asyncio_sender), (NURSERYIO, nurseryio_sender)):
                ours, theirs = small_pair()
                children.start_soon(sender, ours)
                children.start_soon(receiver, name, theirs)
