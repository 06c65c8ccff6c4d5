"""Cancelled queries in real connection pools, with edge cancellation and without.

Without it, cleanup of a library that expects a single CancelledError is interrupted as well. These
tests also show which libraries have taken care of that themselves, so that the guide does not claim
more than is true.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from harness import servers

import nurseryio
from nurseryio.aio import edge_cancellation

POOL_SIZE = 3
Query = Callable[[], Awaitable[object]]


# Seconds for the server to end queries; those of the tests last longer.
PATIENCE = 20


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with servers.postgres() as url:
        yield url


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with servers.redis() as url:
        yield url


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """The libraries log what they lose, which is not what is tested."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(before)


def around(island: bool) -> contextlib.AbstractContextManager[object]:
    return edge_cancellation(grace=10) if island else contextlib.nullcontext()


class Observer:
    """A separate connection that looks at what the server does.

    A query with which the server goes on keeps its connection until it is done, however long it is.
    """

    def __init__(self, connection: object) -> None:
        self._connection = connection

    async def asleep(self) -> int:
        """How many of the server's connections are at work on a query of the tests."""
        return await self._connection.fetchval(  # type: ignore[attr-defined]
            "select count(*) from pg_stat_activity"
            " where state = 'active' and query like 'select pg_sleep%'"
        )

    async def going_on(self, island: bool) -> int:
        """How many queries the server goes on with after their cancellation.

        It ends a query a moment after the request to cancel it. The client may not wait for that.
        """
        if island:
            with nurseryio.move_on_after(PATIENCE):
                await self._until_asleep(0)
        return await self.asleep()

    async def cancel_queries(self, query: Query, *, island: bool) -> None:
        """Cancel as many queries as the pool has connections, while they are under way."""
        async with nurseryio.open_nursery() as nursery:
            for _ in range(POOL_SIZE):
                nursery.start_soon(self._in_island, query, island)
            await self._until_asleep(POOL_SIZE)
            nursery.cancel_scope.cancel()

    async def end_queries(self) -> None:
        """End those that the server goes on with."""
        await self._connection.execute(  # type: ignore[attr-defined]
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where query like 'select pg_sleep%'"
        )
        await self._until_asleep(0)

    async def _until_asleep(self, count: int) -> None:
        while await self.asleep() != count:
            await nurseryio.sleep(0.01)

    async def _in_island(self, query: Query, island: bool) -> None:
        # An interrupted cleanup may end in an error of the library's, depending on the timing.
        with contextlib.nullcontext() if island else contextlib.suppress(Exception):
            with around(island):
                await query()


@contextlib.asynccontextmanager
async def observer(postgres: str) -> AsyncIterator[Observer]:
    import asyncpg

    connection = await asyncpg.connect(postgres)
    try:
        yield Observer(connection)
        await Observer(connection).end_queries()
    finally:
        with nurseryio.CancelScope(shield=True):
            await connection.close()


# -- PostgreSQL -----------------------------------------------------------------

needs_psycopg = servers.needs_packages("psycopg", "psycopg_pool", "asyncpg")


async def use_psycopg_pool(postgres: str, island: bool) -> tuple[int, int]:
    """How many queries the server goes on with, and how many connections the pool has lost."""
    from psycopg_pool import AsyncConnectionPool

    pool = AsyncConnectionPool(postgres, min_size=POOL_SIZE, max_size=POOL_SIZE, open=False)

    async def query() -> None:
        async with pool.connection() as connection:
            await connection.execute("select pg_sleep(60)")

    async with pool, observer(postgres) as watch:
        await pool.wait()
        await watch.cancel_queries(query, island=island)
        return await watch.going_on(island), pool.get_stats().get("returns_bad", 0)


@needs_psycopg
async def test_without_edge_cancellation_psycopgs_pool_loses_a_connection_per_cancelled_query(
    postgres: str,
) -> None:
    left, lost = await use_psycopg_pool(postgres, island=False)
    assert lost == POOL_SIZE
    # All of them, unless the request to cancel happens to be out before it is interrupted.
    assert 0 < left <= POOL_SIZE


@needs_psycopg
async def test_with_edge_cancellation_psycopgs_pool_loses_no_connection(postgres: str) -> None:
    assert await use_psycopg_pool(postgres, island=True) == (0, 0)


async def use_getconn(postgres: str, island: bool) -> int:
    """How many connections are still there for others, after each was taken for a query by hand."""
    from psycopg_pool import AsyncConnectionPool

    pool = AsyncConnectionPool(postgres, min_size=POOL_SIZE, max_size=POOL_SIZE, open=False)

    async def query() -> None:
        connection = await pool.getconn()
        try:
            await connection.execute("select 1")
            await nurseryio.sleep_forever()  # talk to someone else in the middle of it
        finally:
            await connection.rollback()
            await pool.putconn(connection)

    async with pool:
        await pool.wait()
        for _ in range(POOL_SIZE):
            with nurseryio.move_on_after(0.2), around(island):
                await query()
        return pool.get_stats()["pool_available"]


@needs_psycopg
async def test_without_edge_cancellation_connections_taken_by_hand_are_never_returned(
    postgres: str,
) -> None:
    assert await use_getconn(postgres, island=False) == 0


@needs_psycopg
async def test_with_edge_cancellation_connections_taken_by_hand_are_returned(postgres: str) -> None:
    assert await use_getconn(postgres, island=True) == POOL_SIZE


needs_sqlalchemy = servers.needs_packages("sqlalchemy", "greenlet", "asyncpg")


async def use_sqlalchemy(postgres: str, island: bool) -> int:
    """How many queries the server goes on with."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(
        postgres.replace("postgresql:", "postgresql+asyncpg:"), pool_size=POOL_SIZE, max_overflow=0
    )

    async def query() -> None:
        async with engine.begin() as connection:
            await connection.execute(text("select pg_sleep(60)"))

    async with observer(postgres) as watch:
        try:
            await watch.cancel_queries(query, island=island)
            return await watch.going_on(island)
        finally:
            await engine.dispose()


@needs_sqlalchemy
async def test_without_edge_cancellation_sqlalchemy_connections_go_on_with_their_query(
    postgres: str,
) -> None:
    # All of them, unless the request to cancel happens to be out before it is interrupted.
    assert 0 < await use_sqlalchemy(postgres, island=False) <= POOL_SIZE


@needs_sqlalchemy
async def test_with_edge_cancellation_no_sqlalchemy_connection_goes_on_with_its_query(
    postgres: str,
) -> None:
    assert await use_sqlalchemy(postgres, island=True) == 0


async def use_asyncpg_pool(postgres: str, island: bool) -> tuple[int, int]:
    """How many queries the server goes on with, and how many connections are idle."""
    import asyncpg

    async with asyncpg.create_pool(
        postgres, min_size=POOL_SIZE, max_size=POOL_SIZE, max_inactive_connection_lifetime=0
    ) as pool:

        async def query() -> None:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("select pg_sleep(60)")

        async with observer(postgres) as watch:
            await watch.cancel_queries(query, island=island)
            # Its work for a connection goes on in separate tasks. Code that wants all of them
            # waits for that.
            async with pool.acquire(), pool.acquire(), pool.acquire():
                pass
            return await watch.going_on(island), pool.get_idle_size()


@servers.needs_packages("asyncpg")
async def test_without_edge_cancellation_asyncpgs_pool_repairs_connections_and_may_warn(
    postgres: str, loop_errors: list[str]
) -> None:
    assert await use_asyncpg_pool(postgres, island=False) == (0, POOL_SIZE)
    # It depends on the timing whether it still finds the transaction open.
    assert len(loop_errors) <= POOL_SIZE
    assert all("with an active transaction" in error for error in loop_errors)


@servers.needs_packages("asyncpg")
async def test_with_edge_cancellation_asyncpgs_pool_has_nothing_to_repair(postgres: str) -> None:
    assert await use_asyncpg_pool(postgres, island=True) == (0, POOL_SIZE)


# -- Redis ----------------------------------------------------------------------


async def use_redis_lock(redis_url: str, island: bool) -> bool:
    """Whether the lock is still held when the task that held it was cancelled."""
    import redis.asyncio as redis

    async with redis.from_url(redis_url) as client:

        async def work() -> None:
            async with client.lock("the lock", timeout=60):
                await nurseryio.sleep_forever()

        with nurseryio.move_on_after(0.05), around(island):
            await work()
        return bool(await client.delete("the lock"))


@servers.needs_packages("redis")
async def test_without_edge_cancellation_a_redis_lock_stays_locked(redis_url: str) -> None:
    assert await use_redis_lock(redis_url, island=False)


@servers.needs_packages("redis")
async def test_with_edge_cancellation_a_redis_lock_is_released(redis_url: str) -> None:
    assert not await use_redis_lock(redis_url, island=True)


@servers.needs_packages("redis")
@pytest.mark.parametrize("island", [False, True])
async def test_the_redis_pool_needs_no_edge_cancellation(redis_url: str, island: bool) -> None:
    import redis.asyncio as redis

    pool = redis.BlockingConnectionPool.from_url(redis_url, max_connections=POOL_SIZE, timeout=1)
    async with redis.Redis(connection_pool=pool) as client:
        for _ in range(POOL_SIZE + 1):
            with nurseryio.move_on_after(0.02), around(island):
                await client.blpop("nothing", timeout=60)
        assert await client.ping()
    await pool.aclose()


# -- aiosqlite --------------------------------------------------------------------


@servers.needs_packages("aiosqlite")
@pytest.mark.parametrize("island", [True, False])
async def test_aiosqlite_threads_outlive_a_cancelled_close_without_edge_cancellation(
    island: bool,
) -> None:
    """A connection has a thread, which is not a daemon: the process waits for it at its end."""
    import aiosqlite

    connections, workers = [], []

    async def connect() -> None:
        before = set(threading.enumerate())
        connections.append(await aiosqlite.connect(":memory:"))
        workers.extend(set(threading.enumerate()) - before)

    with nurseryio.CancelScope() as scope, around(island):
        await connect()
        await connect()
        try:
            scope.cancel()
            await nurseryio.sleep_forever()
        finally:
            for connection in connections:
                await connection.close()
    assert scope.cancelled_caught
    await nurseryio.to_thread.run_sync(workers[0].join)
    # In a cancelled scope the first close() raises, so that the second one is not even called.
    if not island:
        assert workers[1].is_alive()
        await connections[1].close()
    await nurseryio.to_thread.run_sync(workers[1].join)
