"""Micro rows in quattro's idiom: its task group and its cancel scopes; the rest it leaves to
asyncio.

See the folder's docstring for the rules.
"""

from __future__ import annotations

import asyncio

import quattro

from ..stopwatch import Stopwatch
from ..work import BLINK, CHAIN, FAN, HOUR, TOGETHER, cancel_all


async def nursery_one(n: int, watch: Stopwatch) -> int:
    """Groups of one child that does nothing."""
    ran = 0

    async def child() -> None:
        nonlocal ran
        ran += 1

    watch.start()
    for _ in range(n):
        async with quattro.TaskGroup() as group:
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
        async with quattro.TaskGroup() as group:
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
    async with quattro.TaskGroup() as group:
        for _ in range(n):
            group.create_task(child())
    watch.stop()
    return ran


async def nested(n: int, watch: Stopwatch) -> int:
    """Chains of groups, each in the only child of the one above."""
    opened = 0

    async def level(depth: int) -> None:
        nonlocal opened
        async with quattro.TaskGroup() as group:
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
            async with quattro.TaskGroup() as group:
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
            async with quattro.TaskGroup() as group:
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

    async with quattro.TaskGroup() as group:
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

    async with quattro.TaskGroup() as group:
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

    async with quattro.TaskGroup() as group:
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
    async with quattro.TaskGroup() as group:
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
        with quattro.CancelScope():
            left += 1
    watch.stop()
    return left


async def move_on_idle(n: int, watch: Stopwatch) -> int:
    """A timeout that does not fire around a body that does not block."""
    left = 0
    watch.start()
    for _ in range(n):
        with quattro.move_on_after(HOUR):
            left += 1
    watch.stop()
    return left


async def move_on_blocks(n: int, watch: Stopwatch) -> int:
    """A timeout that does not fire around a body that lets others run once."""
    left = 0
    watch.start()
    for _ in range(n):
        with quattro.move_on_after(HOUR):
            await asyncio.sleep(0)
            left += 1
    watch.stop()
    return left


async def move_on_fired(n: int, watch: Stopwatch) -> int:
    """A timeout of zero around an endless sleep; the program goes on."""
    fired = 0
    watch.start()
    for _ in range(n):
        with quattro.move_on_after(0) as scope:
            await asyncio.sleep(HOUR)
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
        with quattro.move_on_after(BLINK) as scope:
            await asyncio.sleep(HOUR)
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
            with quattro.fail_after(0):
                await asyncio.sleep(HOUR)
        except TimeoutError:
            fired += 1
    watch.stop()
    return fired
