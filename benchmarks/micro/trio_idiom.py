"""Micro rows in Trio's idiom: the same text is run with Trio and with nurseryio under the name
`trio`.

See the folder's docstring for the rules, and `benchmarks.flavour` for which library is meant in
this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

from ..flavour import trio
from ..stopwatch import Stopwatch
from ..work import BLINK, CHAIN, DEEP, FAN, FAN_PLACES, HOUR, LINE, LINES, TOGETHER, nothing, spread


async def nursery_one(n: int, watch: Stopwatch) -> int:
    """Nurseries of one child that does nothing."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        ran += 1

    watch.start()
    for _ in range(n):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
    watch.stop()
    return ran


async def nursery_hundred(n: int, watch: Stopwatch) -> int:
    """Nurseries of a hundred children that do nothing."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        ran += 1

    watch.start()
    for _ in range(n // FAN):
        async with trio.open_nursery() as nursery:
            for _ in range(FAN):
                nursery.start_soon(child)
    watch.stop()
    return ran


async def children_checkpoint(n: int, watch: Stopwatch) -> int:
    """One nursery of n children, each letting the others run once."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        await trio.lowlevel.checkpoint()
        ran += 1

    watch.start()
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(child)
    watch.stop()
    return ran


async def nested(n: int, watch: Stopwatch) -> int:
    """Chains of nurseries, each in the only child of the one above."""
    opened = 0

    async def level(depth: int) -> None:
        nonlocal opened
        async with trio.open_nursery() as nursery:
            opened += 1
            if depth > 1:
                nursery.start_soon(level, depth - 1)

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
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
        except* ValueError:
            caught += 1
    watch.stop()
    return caught


async def child_raises_among(n: int, watch: Stopwatch) -> int:
    """A child fails while its siblings sleep; they are cancelled, and the group is caught."""
    caught = 0

    async def child() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError

    async def sibling() -> None:
        await trio.sleep(HOUR)

    watch.start()
    for _ in range(n // TOGETHER):
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(TOGETHER - 1):
                    nursery.start_soon(sibling)
                nursery.start_soon(child)
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
            await trio.sleep(HOUR)
        finally:
            ended += 1

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(child)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        watch.start()
        nursery.cancel_scope.cancel()
    watch.stop()
    return ended


async def cancel_forever(n: int, watch: Stopwatch) -> int:
    """Cancel n children that wait for ever."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            ended += 1

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(child)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        watch.start()
        nursery.cancel_scope.cancel()
    watch.stop()
    return ended


async def cancel_waiters(n: int, watch: Stopwatch) -> int:
    """Cancel n children that wait for one event."""
    ended = 0
    event = trio.Event()

    async def child() -> None:
        nonlocal ended
        try:
            await event.wait()
        finally:
            ended += 1

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(child)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        watch.start()
        nursery.cancel_scope.cancel()
    watch.stop()
    return ended


async def cancel_on_futures(n: int, watch: Stopwatch) -> int:
    """Cancel n children that each wait for a future of the loop, which Trio does not have."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended += 1

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(child)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        watch.start()
        nursery.cancel_scope.cancel()
    watch.stop()
    return ended


if trio.__name__ == "trio":
    del cancel_on_futures  # its loop has no futures


async def spawn_and_cancel(n: int, watch: Stopwatch) -> int:
    """Start n children, let them fall asleep, cancel and join them: all of it timed."""
    ended = 0

    async def child() -> None:
        nonlocal ended
        try:
            await trio.sleep(HOUR)
        finally:
            ended += 1

    watch.start()
    async with trio.open_nursery() as nursery:
        for _ in range(n):
            nursery.start_soon(child)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    watch.stop()
    return ended


async def scope(n: int, watch: Stopwatch) -> int:
    """Enter and leave a scope without a deadline."""
    left = 0
    watch.start()
    for _ in range(n):
        with trio.CancelScope():
            left += 1
    watch.stop()
    return left


async def move_on_idle(n: int, watch: Stopwatch) -> int:
    """A timeout that does not fire around a body that does not block."""
    left = 0
    watch.start()
    for _ in range(n):
        with trio.move_on_after(HOUR):
            left += 1
    watch.stop()
    return left


async def move_on_blocks(n: int, watch: Stopwatch) -> int:
    """A timeout that does not fire around a body that lets others run once."""
    left = 0
    watch.start()
    for _ in range(n):
        with trio.move_on_after(HOUR):
            await trio.lowlevel.checkpoint()
            left += 1
    watch.stop()
    return left


async def move_on_fired(n: int, watch: Stopwatch) -> int:
    """A timeout of zero around an endless sleep; the program goes on."""
    fired = 0
    watch.start()
    for _ in range(n):
        with trio.move_on_after(0) as scope:
            await trio.sleep(HOUR)
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
        with trio.move_on_after(BLINK) as scope:
            await trio.sleep(HOUR)
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
            with trio.fail_after(0):
                await trio.sleep(HOUR)
        except trio.TooSlowError:
            fired += 1
    watch.stop()
    return fired


async def checkpoint(n: int, watch: Stopwatch) -> int:
    """Let others run, n times."""
    passed = 0
    watch.start()
    for _ in range(n):
        await trio.lowlevel.checkpoint()
        passed += 1
    watch.stop()
    return passed


async def checkpoint_deep(n: int, watch: Stopwatch) -> int:
    """Let others run, n times, under many nested scopes."""
    with contextlib.ExitStack() as stack:
        for _ in range(DEEP):
            stack.enter_context(trio.CancelScope())
        return await checkpoint(n, watch)


async def sleep_zero(n: int, watch: Stopwatch) -> int:
    """Let others run by `sleep(0)`, n times."""
    passed = 0
    watch.start()
    for _ in range(n):
        await trio.sleep(0)
        passed += 1
    watch.stop()
    return passed


async def timers(n: int, watch: Stopwatch) -> int:
    """n children, each asleep for its own short time."""
    woke = 0

    async def child(delay: float) -> None:
        nonlocal woke
        await trio.sleep(delay)
        woke += 1

    watch.start()
    async with trio.open_nursery() as nursery:
        for delay in spread(n):
            nursery.start_soon(child, delay)
    watch.stop()
    return woke


async def event_ping_pong(n: int, watch: Stopwatch) -> int:
    """Two tasks wake each other in turn; an event serves once, so each turn makes a new one."""
    ping, pong = trio.Event(), trio.Event()
    turns = 0

    async def first() -> None:
        nonlocal pong
        for _ in range(n):
            ping.set()
            await pong.wait()
            pong = trio.Event()

    async def second() -> None:
        nonlocal ping, turns
        for _ in range(n):
            await ping.wait()
            ping = trio.Event()
            turns += 1
            pong.set()

    async with trio.open_nursery() as nursery:
        watch.start()
        nursery.start_soon(first)
        nursery.start_soon(second)
    watch.stop()
    return turns


async def lock_free(n: int, watch: Stopwatch) -> int:
    """Take and give back a lock that nobody else wants."""
    lock = trio.Lock()
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
                await trio.lowlevel.checkpoint()
                held += 1

    async with trio.open_nursery() as nursery:
        watch.start()
        for _ in range(TOGETHER):
            nursery.start_soon(child)
    watch.stop()
    return held


async def lock_contended(n: int, watch: Stopwatch) -> int:
    """Ten tasks want one lock, and let others run while they hold it."""
    return await _contend(n, watch, trio.Lock())


async def semaphore(n: int, watch: Stopwatch) -> int:
    """Ten tasks want one of three permits, and let others run while they hold it."""
    return await _contend(n, watch, trio.Semaphore(3))


async def limiter(n: int, watch: Stopwatch) -> int:
    """Ten tasks want one of three tokens, and let others run while they hold it."""
    return await _contend(n, watch, trio.CapacityLimiter(3))


async def _carry(n: int, watch: Stopwatch, size: int, producers: int) -> int:
    send, receive = trio.open_memory_channel(size)
    got = 0

    async def produce(channel: Any) -> None:
        async with channel:
            for item in range(n // producers):
                await channel.send(item)

    async def consume() -> None:
        nonlocal got
        async for _ in receive:
            got += 1

    async with trio.open_nursery() as nursery, send:
        watch.start()
        nursery.start_soon(consume)
        for _ in range(producers):
            nursery.start_soon(produce, send.clone())
    watch.stop()
    return got


async def channel_direct(n: int, watch: Stopwatch) -> int:
    """Items handed from one task to another through a channel without a buffer."""
    return await _carry(n, watch, 0, 1)


async def channel_buffered(n: int, watch: Stopwatch) -> int:
    """Items from one task to another through a channel of a hundred places."""
    return await _carry(n, watch, FAN, 1)


async def channel_fan_in(n: int, watch: Stopwatch) -> int:
    """Items from a hundred producers to one consumer."""
    return await _carry(n, watch, FAN_PLACES, FAN)


async def thread_hop(n: int, watch: Stopwatch) -> int:
    """Run nothing in a worker thread and come back."""
    back = 0
    await trio.to_thread.run_sync(nothing)
    watch.start()
    for _ in range(n):
        await trio.to_thread.run_sync(nothing)
        back += 1
    watch.stop()
    return back


async def read_lines(n: int, watch: Stopwatch) -> int:
    """Lines from a socket, one by one."""
    there = 0
    left, right = socket.socketpair()
    with right:
        async with trio.SocketStream(trio.socket.from_stdlib_socket(left)) as stream:
            lines = lines_of(stream)
            watch.start()
            for _ in range(n // LINES):
                right.sendall(LINE * LINES)
                for _ in range(LINES):
                    there += len(await lines.__anext__()) == len(LINE) - 2
            watch.stop()
    return there


def lines_of(stream: Any) -> Any:
    """Iterate over the lines of a stream: nurseryio has a class for it, Trio does not."""
    if hasattr(trio, "BufferedReceiveStream"):
        return trio.BufferedReceiveStream(stream).lines()
    return split_by_hand(stream)


async def split_by_hand(stream: Any) -> AsyncGenerator[bytes, None]:
    """Keep what has arrived in a bytearray, and look for the next line end in it."""
    arrived = bytearray()
    seen = 0
    while True:
        end = arrived.find(b"\r\n", seen)
        if end < 0:
            seen = max(0, len(arrived) - 1)
            piece = await stream.receive_some()
            if not piece:
                return
            arrived += piece
        else:
            yield bytes(arrived[:end])
            del arrived[: end + 2]
            seen = 0
