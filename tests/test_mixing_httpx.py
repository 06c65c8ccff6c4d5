"""httpx, which waits by means of anyio, in nurseries: a cancelled request leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from harness.core import cancelling, little_cpu, until

import nurseryio


class Server:
    """Answers ``/`` at once and any other path never."""

    def __init__(self) -> None:
        self.silent = self.gone = 0
        self.url = ""
        self.handlers: list[asyncio.Task[None] | None] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.handlers.append(asyncio.current_task())
        request = await reader.readuntil(b"\r\n\r\n")
        if request.startswith(b"GET / "):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        else:
            self.silent += 1
        await reader.read()
        self.gone += 1
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    made = Server()
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        await asyncio.gather(*filter(None, made.handlers))
        await server.wait_closed()


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(timeout=None, trust_env=False)


def open_connections(of: httpx.AsyncClient) -> list[Any]:
    pool = of._transport._pool  # type: ignore[attr-defined]
    return [connection for connection in pool.connections if not connection.is_closed()]


async def test_httpx_children_fetch_side_by_side() -> None:
    answers = []

    async def fetch() -> None:
        answers.append((await http.get(server.url)).text)

    async with serving() as server, client() as http:
        async with nurseryio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(fetch)
    assert answers == ["ok"] * 5


async def test_cancelled_httpx_requests_leave_no_connection_and_cost_no_cpu() -> None:
    async with serving() as server, client() as http:
        async with nurseryio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(http.get, f"{server.url}/silent")
            while server.silent < 5:
                await asyncio.sleep(0.001)
            with little_cpu():
                await asyncio.sleep(0.1)
            nursery.cancel_scope.cancel()
        assert not open_connections(http)
        await until(lambda: server.gone == 5)
    assert cancelling() == 0


@pytest.mark.parametrize("shielded", [False, True])
async def test_move_on_after_cancels_an_httpx_request_and_the_client_goes_on(
    shielded: bool,
) -> None:
    async def expire() -> None:
        await until(lambda: server.silent == 1)  # also on a machine that is slow to connect
        scope.deadline = nurseryio.current_time()

    async with serving() as server, client() as http, nurseryio.open_nursery() as nursery:
        with nurseryio.move_on_after(1000, shield=shielded) as scope:
            nursery.start_soon(expire)
            await http.get(f"{server.url}/silent")
        assert scope.cancelled_caught
        assert not open_connections(http)
        assert (await http.get(server.url)).text == "ok"
    assert cancelling() == 0
