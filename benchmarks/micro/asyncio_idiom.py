"""Micro rows in asyncio's own idiom: TaskGroup, timeout, Event, Lock, Semaphore, Queue, to_thread.

This is the measure of all others (1.00). See the folder's docstring for the rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

from ..stopwatch import Stopwatch
from ..work import (
    BLINK,
    CHAIN,
    DEEP,
    FAN,
    FAN_PLACES,
    HOUR,
    LINE,
    LINES,
    TOGETHER,
    cancel_all,
    nothing,
    spread,
)


async def nursery_one(n: int, watch: Stopwatch) -> int:
    """Groups of one child that does nothing."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        ran += 1

    watch.start()
    for _ in range(n):
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
    watch.stop()
    return ran


async def nursery_hundred(n: int, watch: Stopwatch) -> int:
    """Groups of a hundred children that do nothing."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        ran += 1

    watch.start()
    for _ in range(n // FAN):
        async with asyncio.TaskGroup() as group:
            for _ in range(FAN):
                group.create_task(child())
    watch.stop()
    return ran


async def children_checkpoint(n: int, watch: Stopwatch) -> int:
    """One group of n children, each letting the others run once."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        await asyncio.sleep(0)
        ran += 1

    watch.start()
    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(child())
    watch.stop()
    return ran


async def nested(n: int, watch: Stopwatch) -> int:
    """Chains of groups, each in the only child of the one above."""
    opened = 0

    async def level(depth: int) -> None:
        nonlocal opened
        async with asyncio.TaskGroup() as group:
            opened += 1
            if depth > 1:
                group.create_task(level(depth - 1))

    watch.start()
    for _ in range(n // CHAIN):
        await level(CHAIN)
    watch.stop()
    return opened


async def child_raises(n: int, watch: Stopwatch) -> int:
    """A child fails, the group is caught outside."""
    caught = 0

    async def child() -> None:
        raise ValueError

    watch.start()
    for _ in range(n):
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
        except* ValueError:
            caught += 1
    watch.stop()
    return caught


async def child_raises_among(n: int, watch: Stopwatch) -> int:
    """A child fails while its siblings sleep; they are cancelled, and the group is caught."""
    caught = 0

    async def child() -> None:
        await asyncio.sleep(0)
        raise ValueError

    async def sibling() -> None:
        await asyncio.sleep(HOUR)

    watch.start()
    for _ in range(n // TOGETHER):
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(TOGETHER - 1):
                    group.create_task(sibling())
                group.create_task(child())
        except* ValueError:
            caught += TOGETHER
    watch.stop()
    return caught


async def cancel_sleepers(n: int, watch: Stopwatch) -> int:
    """Cancel n sleeping children and join them."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        try:
            await asyncio.sleep(HOUR)
        finally:
            ended += 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child()) for _ in range(n)]
        for _ in range(3):
            await asyncio.sleep(0)
        watch.start()
        cancel_all(tasks)
    watch.stop()
    return ended


async def cancel_forever(n: int, watch: Stopwatch) -> int:
    """Cancel n children that wait for ever."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended += 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child()) for _ in range(n)]
        for _ in range(3):
            await asyncio.sleep(0)
        watch.start()
        cancel_all(tasks)
    watch.stop()
    return ended


async def cancel_waiters(n: int, watch: Stopwatch) -> int:
    """Cancel n children that wait for one event."""
    ended = 0
    event = asyncio.Event()

    async def child() -> None:
        nonlocal ended
        try:
            await event.wait()
        finally:
            ended += 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child()) for _ in range(n)]
        for _ in range(3):
            await asyncio.sleep(0)
        watch.start()
        cancel_all(tasks)
    watch.stop()
    return ended


# A future is also how asyncio waits for ever.
cancel_on_futures = cancel_forever


async def spawn_and_cancel(n: int, watch: Stopwatch) -> int:
    """Start n children, let them fall asleep, cancel and join them: all of it timed."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        try:
            await asyncio.sleep(HOUR)
        finally:
            ended += 1

    watch.start()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(child()) for _ in range(n)]
        for _ in range(3):
            await asyncio.sleep(0)
        cancel_all(tasks)
    watch.stop()
    return ended


async def scope(n: int, watch: Stopwatch) -> int:
    """Enter and leave a scope without a deadline."""
    left = 0
    watch.start()
    for _ in range(n):
        async with asyncio.timeout(None):
            left += 1
    watch.stop()
    return left


async def move_on_idle(n: int, watch: Stopwatch) -> int:
    """A timeout that does not fire around a body that does not block."""
    left = 0
    watch.start()
    for _ in range(n):
        try:
            async with asyncio.timeout(HOUR):
                left += 1
        except TimeoutError:
            pass
    watch.stop()
    return left


async def move_on_blocks(n: int, watch: Stopwatch) -> int:
    """A timeout that does not fire around a body that lets others run once."""
    left = 0
    watch.start()
    for _ in range(n):
        try:
            async with asyncio.timeout(HOUR):
                await asyncio.sleep(0)
                left += 1
        except TimeoutError:
            pass
    watch.stop()
    return left


async def move_on_fired(n: int, watch: Stopwatch) -> int:
    """A timeout of zero around an endless sleep; the program goes on."""
    fired = 0
    watch.start()
    for _ in range(n):
        try:
            async with asyncio.timeout(0):
                await asyncio.sleep(HOUR)
        except TimeoutError:
            fired += 1
    watch.stop()
    return fired


async def move_on_fired_late(n: int, watch: Stopwatch) -> int:
    """A timeout of two milliseconds around an endless sleep.

    The task is parked when it fires.
    """
    fired = 0
    watch.start()
    for _ in range(n):
        try:
            async with asyncio.timeout(BLINK):
                await asyncio.sleep(HOUR)
        except TimeoutError:
            fired += 1
    watch.stop()
    return fired


# asyncio has one form for both: the timeout always raises.
fail_after_fired = move_on_fired


async def checkpoint(n: int, watch: Stopwatch) -> int:
    """Let others run, n times."""
    passed = 0
    watch.start()
    for _ in range(n):
        await asyncio.sleep(0)
        passed += 1
    watch.stop()
    return passed


async def checkpoint_deep(n: int, watch: Stopwatch) -> int:
    """Let others run, n times, under many nested scopes."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(DEEP):
            await stack.enter_async_context(asyncio.timeout(None))
        return await checkpoint(n, watch)


sleep_zero = checkpoint


async def timers(n: int, watch: Stopwatch) -> int:
    """n children, each asleep for its own short time."""
    woke = 0

    async def child(delay: float) -> None:
        nonlocal woke
        await asyncio.sleep(delay)
        woke += 1

    watch.start()
    async with asyncio.TaskGroup() as group:
        for delay in spread(n):
            group.create_task(child(delay))
    watch.stop()
    return woke


async def event_ping_pong(n: int, watch: Stopwatch) -> int:
    """Two tasks wake each other in turn; an event is cleared and used again."""
    ping, pong = asyncio.Event(), asyncio.Event()
    turns = 0

    async def first() -> None:
        for _ in range(n):
            ping.set()
            await pong.wait()
            pong.clear()

    async def second() -> None:
        nonlocal turns
        for _ in range(n):
            await ping.wait()
            ping.clear()
            turns += 1
            pong.set()

    async with asyncio.TaskGroup() as group:
        watch.start()
        group.create_task(first())
        group.create_task(second())
    watch.stop()
    return turns


async def lock_free(n: int, watch: Stopwatch) -> int:
    """Take and give back a lock that nobody else wants."""
    lock = asyncio.Lock()
    held = 0
    watch.start()
    for _ in range(n):
        async with lock:
            held += 1
    watch.stop()
    return held


async def _contend(n: int, watch: Stopwatch, guard: asyncio.Lock | asyncio.Semaphore) -> int:
    held = 0

    async def child() -> None:
        nonlocal held
        for _ in range(n // TOGETHER):
            async with guard:
                await asyncio.sleep(0)
                held += 1

    async with asyncio.TaskGroup() as group:
        watch.start()
        for _ in range(TOGETHER):
            group.create_task(child())
    watch.stop()
    return held


async def lock_contended(n: int, watch: Stopwatch) -> int:
    """Ten tasks want one lock, and let others run while they hold it."""
    return await _contend(n, watch, asyncio.Lock())


async def semaphore(n: int, watch: Stopwatch) -> int:
    """Ten tasks want one of three permits, and let others run while they hold it."""
    return await _contend(n, watch, asyncio.Semaphore(3))


# asyncio's bounded resource is the semaphore: it has no other.
limiter = semaphore


async def _carry(n: int, watch: Stopwatch, size: int, producers: int) -> int:
    queue: asyncio.Queue[int] = asyncio.Queue(size)
    got = 0

    async def produce() -> None:
        for item in range(n // producers):
            await queue.put(item)

    async def consume() -> None:
        nonlocal got
        for _ in range(n // producers * producers):
            await queue.get()
            got += 1

    async with asyncio.TaskGroup() as group:
        watch.start()
        group.create_task(consume())
        for _ in range(producers):
            group.create_task(produce())
    watch.stop()
    return got


async def channel_direct(n: int, watch: Stopwatch) -> int:
    """Items from one task to another through a queue of one place: asyncio has none of none."""
    return await _carry(n, watch, 1, 1)


async def channel_buffered(n: int, watch: Stopwatch) -> int:
    """Items from one task to another through a queue of a hundred places."""
    return await _carry(n, watch, FAN, 1)


async def channel_fan_in(n: int, watch: Stopwatch) -> int:
    """Items from a hundred producers to one consumer."""
    return await _carry(n, watch, FAN_PLACES, FAN)


async def thread_hop(n: int, watch: Stopwatch) -> int:
    """Run nothing in a worker thread and come back."""
    back = 0
    await asyncio.to_thread(nothing)
    watch.start()
    for _ in range(n):
        await asyncio.to_thread(nothing)
        back += 1
    watch.stop()
    return back


async def read_lines(n: int, watch: Stopwatch) -> int:
    """Lines from a socket, one by one."""
    there = 0
    left, right = socket.socketpair()
    with right:
        reader, writer = await asyncio.open_connection(sock=left)
        watch.start()
        for _ in range(n // LINES):
            right.sendall(LINE * LINES)
            for _ in range(LINES):
                there += len(await reader.readline()) == len(LINE)
        watch.stop()
        writer.close()
        await writer.wait_closed()
    return there
