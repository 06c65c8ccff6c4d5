"""Micro rows in anyio's idiom, on its asyncio back end.

See the folder's docstring for the rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import anyio.to_thread
from anyio.streams.buffered import BufferedByteReceiveStream

from ..stopwatch import Stopwatch
from ..work import BLINK, CHAIN, DEEP, FAN, FAN_PLACES, HOUR, LINE, LINES, TOGETHER, nothing, spread


async def nursery_one(n: int, watch: Stopwatch) -> int:
    """Groups of one child that does nothing."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        ran += 1

    watch.start()
    for _ in range(n):
        async with anyio.create_task_group() as group:
            group.start_soon(child)
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
        async with anyio.create_task_group() as group:
            for _ in range(FAN):
                group.start_soon(child)
    watch.stop()
    return ran


async def children_checkpoint(n: int, watch: Stopwatch) -> int:
    """One group of n children, each letting the others run once."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        await anyio.lowlevel.checkpoint()
        ran += 1

    watch.start()
    async with anyio.create_task_group() as group:
        for _ in range(n):
            group.start_soon(child)
    watch.stop()
    return ran


async def nested(n: int, watch: Stopwatch) -> int:
    """Chains of groups, each in the only child of the one above."""
    opened = 0

    async def level(depth: int) -> None:
        nonlocal opened
        async with anyio.create_task_group() as group:
            opened += 1
            if depth > 1:
                group.start_soon(level, depth - 1)

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
            async with anyio.create_task_group() as group:
                group.start_soon(child)
        except* ValueError:
            caught += 1
    watch.stop()
    return caught


async def child_raises_among(n: int, watch: Stopwatch) -> int:
    """A child fails while its siblings sleep; they are cancelled, and the group is caught."""
    caught = 0

    async def child() -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError

    async def sibling() -> None:
        await anyio.sleep(HOUR)

    watch.start()
    for _ in range(n // TOGETHER):
        try:
            async with anyio.create_task_group() as group:
                for _ in range(TOGETHER - 1):
                    group.start_soon(sibling)
                group.start_soon(child)
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
            await anyio.sleep(HOUR)
        finally:
            ended += 1

    async with anyio.create_task_group() as group:
        for _ in range(n):
            group.start_soon(child)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        watch.start()
        group.cancel_scope.cancel()
    watch.stop()
    return ended


async def cancel_forever(n: int, watch: Stopwatch) -> int:
    """Cancel n children that wait for ever."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        try:
            await anyio.sleep_forever()
        finally:
            ended += 1

    async with anyio.create_task_group() as group:
        for _ in range(n):
            group.start_soon(child)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        watch.start()
        group.cancel_scope.cancel()
    watch.stop()
    return ended


async def cancel_waiters(n: int, watch: Stopwatch) -> int:
    """Cancel n children that wait for one event."""
    ended = 0
    event = anyio.Event()

    async def child() -> None:
        nonlocal ended
        try:
            await event.wait()
        finally:
            ended += 1

    async with anyio.create_task_group() as group:
        for _ in range(n):
            group.start_soon(child)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        watch.start()
        group.cancel_scope.cancel()
    watch.stop()
    return ended


async def cancel_on_futures(n: int, watch: Stopwatch) -> int:
    """Cancel n children that each wait for a future of the loop."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended += 1

    async with anyio.create_task_group() as group:
        for _ in range(n):
            group.start_soon(child)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        watch.start()
        group.cancel_scope.cancel()
    watch.stop()
    return ended


async def spawn_and_cancel(n: int, watch: Stopwatch) -> int:
    """Start n children, let them fall asleep, cancel and join them: all of it timed."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        try:
            await anyio.sleep(HOUR)
        finally:
            ended += 1

    watch.start()
    async with anyio.create_task_group() as group:
        for _ in range(n):
            group.start_soon(child)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    watch.stop()
    return ended


async def scope(n: int, watch: Stopwatch) -> int:
    """Enter and leave a scope without a deadline."""
    left = 0
    watch.start()
    for _ in range(n):
        with anyio.CancelScope():
            left += 1
    watch.stop()
    return left


async def move_on_idle(n: int, watch: Stopwatch) -> int:
    """A timeout that does not fire around a body that does not block."""
    left = 0
    watch.start()
    for _ in range(n):
        with anyio.move_on_after(HOUR):
            left += 1
    watch.stop()
    return left


async def move_on_blocks(n: int, watch: Stopwatch) -> int:
    """A timeout that does not fire around a body that lets others run once."""
    left = 0
    watch.start()
    for _ in range(n):
        with anyio.move_on_after(HOUR):
            await anyio.lowlevel.checkpoint()
            left += 1
    watch.stop()
    return left


async def move_on_fired(n: int, watch: Stopwatch) -> int:
    """A timeout of zero around an endless sleep; the program goes on."""
    fired = 0
    watch.start()
    for _ in range(n):
        with anyio.move_on_after(0) as scope:
            await anyio.sleep(HOUR)
        if scope.cancelled_caught:
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
        with anyio.move_on_after(BLINK) as scope:
            await anyio.sleep(HOUR)
        if scope.cancelled_caught:
            fired += 1
    watch.stop()
    return fired


async def fail_after_fired(n: int, watch: Stopwatch) -> int:
    """A timeout of zero around an endless sleep; the error is caught."""
    fired = 0
    watch.start()
    for _ in range(n):
        try:
            with anyio.fail_after(0):
                await anyio.sleep(HOUR)
        except TimeoutError:
            fired += 1
    watch.stop()
    return fired


async def checkpoint(n: int, watch: Stopwatch) -> int:
    """Let others run, n times."""
    passed = 0
    watch.start()
    for _ in range(n):
        await anyio.lowlevel.checkpoint()
        passed += 1
    watch.stop()
    return passed


async def checkpoint_deep(n: int, watch: Stopwatch) -> int:
    """Let others run, n times, under many nested scopes."""
    with contextlib.ExitStack() as stack:
        for _ in range(DEEP):
            stack.enter_context(anyio.CancelScope())
        return await checkpoint(n, watch)


async def sleep_zero(n: int, watch: Stopwatch) -> int:
    """Let others run by `sleep(0)`, n times."""
    passed = 0
    watch.start()
    for _ in range(n):
        await anyio.sleep(0)
        passed += 1
    watch.stop()
    return passed


async def timers(n: int, watch: Stopwatch) -> int:
    """n children, each asleep for its own short time."""
    woke = 0

    async def child(delay: float) -> None:
        nonlocal woke
        await anyio.sleep(delay)
        woke += 1

    watch.start()
    async with anyio.create_task_group() as group:
        for delay in spread(n):
            group.start_soon(child, delay)
    watch.stop()
    return woke


async def event_ping_pong(n: int, watch: Stopwatch) -> int:
    """Two tasks wake each other in turn; an event serves once, so each turn makes a new one."""
    ping, pong = anyio.Event(), anyio.Event()
    turns = 0

    async def first() -> None:
        nonlocal pong
        for _ in range(n):
            ping.set()
            await pong.wait()
            pong = anyio.Event()

    async def second() -> None:
        nonlocal ping, turns
        for _ in range(n):
            await ping.wait()
            ping = anyio.Event()
            turns += 1
            pong.set()

    async with anyio.create_task_group() as group:
        watch.start()
        group.start_soon(first)
        group.start_soon(second)
    watch.stop()
    return turns


async def lock_free(n: int, watch: Stopwatch) -> int:
    """Take and give back a lock that nobody else wants."""
    lock = anyio.Lock()
    held = 0
    watch.start()
    for _ in range(n):
        async with lock:
            held += 1
    watch.stop()
    return held


async def _contend(n: int, watch: Stopwatch, guard: Any) -> int:
    held = 0

    async def child() -> None:
        nonlocal held
        for _ in range(n // TOGETHER):
            async with guard:
                await anyio.lowlevel.checkpoint()
                held += 1

    async with anyio.create_task_group() as group:
        watch.start()
        for _ in range(TOGETHER):
            group.start_soon(child)
    watch.stop()
    return held


async def lock_contended(n: int, watch: Stopwatch) -> int:
    """Ten tasks want one lock, and let others run while they hold it."""
    return await _contend(n, watch, anyio.Lock())


async def semaphore(n: int, watch: Stopwatch) -> int:
    """Ten tasks want one of three permits, and let others run while they hold it."""
    return await _contend(n, watch, anyio.Semaphore(3))


async def limiter(n: int, watch: Stopwatch) -> int:
    """Ten tasks want one of three tokens, and let others run while they hold it."""
    return await _contend(n, watch, anyio.CapacityLimiter(3))


async def _carry(n: int, watch: Stopwatch, size: int, producers: int) -> int:
    send, receive = anyio.create_memory_object_stream[int](size)
    got = 0

    async def produce(stream: Any) -> None:
        async with stream:
            for item in range(n // producers):
                await stream.send(item)

    async def consume() -> None:
        nonlocal got
        async for _ in receive:
            got += 1

    async with anyio.create_task_group() as group, send:
        watch.start()
        group.start_soon(consume)
        for _ in range(producers):
            group.start_soon(produce, send.clone())
    watch.stop()
    return got


async def channel_direct(n: int, watch: Stopwatch) -> int:
    """Items handed from one task to another through a stream without a buffer."""
    return await _carry(n, watch, 0, 1)


async def channel_buffered(n: int, watch: Stopwatch) -> int:
    """Items from one task to another through a stream of a hundred places."""
    return await _carry(n, watch, FAN, 1)


async def channel_fan_in(n: int, watch: Stopwatch) -> int:
    """Items from a hundred producers to one consumer."""
    return await _carry(n, watch, FAN_PLACES, FAN)


async def thread_hop(n: int, watch: Stopwatch) -> int:
    """Run nothing in a worker thread and come back."""
    back = 0
    await anyio.to_thread.run_sync(nothing)
    watch.start()
    for _ in range(n):
        await anyio.to_thread.run_sync(nothing)
        back += 1
    watch.stop()
    return back


async def read_lines(n: int, watch: Stopwatch) -> int:
    """Lines from a socket, one by one."""
    there = 0
    left, right = socket.socketpair()
    with right:
        async with await anyio.abc.UNIXSocketStream.from_socket(left) as stream:
            buffered = BufferedByteReceiveStream(stream)
            watch.start()
            for _ in range(n // LINES):
                right.sendall(LINE * LINES)
                for _ in range(LINES):
                    there += len(await buffered.receive_until(b"\r\n", 65536)) == len(LINE) - 2
            watch.stop()
    return there
