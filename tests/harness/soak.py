"""A long run that must not grow: a mixture of ordinary work, whose memory is counted ten times.

``python -m harness.soak 10_000_000`` in ``tests``, or ``make soak``. For each tenth of the work it
prints a line: the allocated blocks, the objects of the garbage collector, the size of the process,
and what the library keeps for its loop. It exits with 1 if one of these has grown after the first
tenth.

An operation is one child, item, wake, timeout or lock. All rounds do the same work, so that what a
round leaves behind shows. The worker threads and caches of the interpreter reach their size in the
first tenth.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import sys
import time
from typing import Any, NamedTuple

import nurseryio
from harness import matrix
from nurseryio._core.task import records
from nurseryio.lowlevel import checkpoint, current_task

# Blocks and objects may differ by this much from one count to another, kilobytes by that much.
FEW = 500
FEW_KILOBYTES = 2_048


class Count(NamedTuple):
    """What is there between two rounds."""

    blocks: int
    objects: int
    kilobytes: int
    kept: int

    @classmethod
    def now(cls) -> Count:
        """Count, after what can be collected has been."""
        for _ in range(3):
            gc.collect()
        state = current_task()._state
        kept = len(records) + len(state.deadlines._heap) + len(state.unfinished)
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return cls(sys.getallocatedblocks(), len(gc.get_objects()), size, kept)

    def grown(self, before: Count) -> list[str]:
        """The names of the counts that are greater than before."""
        limits = (FEW, FEW, FEW_KILOBYTES, 0)
        fields = zip(self._fields, self, before, limits, strict=True)
        return [name for name, new, old, few in fields if new > old + few]


async def children() -> int:
    """Children that end at once, that yield, that fail, and that are cancelled."""

    async def fail() -> None:
        await checkpoint()
        raise ValueError("a child")

    async def serve(task_status: Any = nurseryio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await nurseryio.sleep_forever()

    async with nurseryio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(checkpoint)
    try:
        async with nurseryio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(nurseryio.sleep_forever)
            await nursery.start(serve)
            nursery.start_soon(fail)
    except BaseException as error:
        del error
    with nurseryio.CancelScope() as scope:
        async with nurseryio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(nurseryio.Event().wait)
            await checkpoint()
            scope.cancel()
    return 40


async def channels() -> int:
    """Items through a channel with places, and through one without."""
    for places in (0, 8):
        send, receive = nurseryio.open_memory_channel[int](places)

        async def produce(send: Any = send) -> None:
            async with send:
                for number in range(30):
                    await send.send(number)

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(produce)
            async for _ in receive:
                pass
    return 120


async def timeouts() -> int:
    """Time limits that are not reached, that are, and that are set anew."""
    for _ in range(20):
        with nurseryio.move_on_after(60):
            await checkpoint()
    for _ in range(3):
        with nurseryio.move_on_after(0):
            await nurseryio.sleep(60)
        with nurseryio.move_on_after(60) as scope:
            scope.deadline += 60
            scope.deadline -= 90
    return 26


async def locks() -> int:
    """A lock, a semaphore, a limiter and a condition that several tasks want."""
    lock, condition = nurseryio.Lock(), nurseryio.Condition()
    semaphore, limiter = nurseryio.Semaphore(2), nurseryio.CapacityLimiter(2)

    async def use() -> None:
        for one in (lock, semaphore, limiter):
            async with one:
                await checkpoint()
        async with condition:
            condition.notify()

    async with nurseryio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(use)
    return 24


async def natives() -> int:
    """A nursery whose task is cancelled natively, and asyncio's own operations inside scopes."""

    async def host() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.Event().wait)
            nursery.start_soon(nurseryio.sleep_forever)
            await asyncio.Event().wait()

    task = asyncio.ensure_future(host())
    await checkpoint()
    await checkpoint()
    task.cancel()
    await asyncio.wait([task])
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await asyncio.Event().wait()
    return 4


WORK = (children, channels, timeouts, locks, natives)


async def soak(operations: int, counted: Any = print) -> list[str]:
    """Do this many operations.

    Args:
        operations: how many at least.
        counted: called with a text for each tenth.

    Returns:
        The names of the counts that have grown after the first tenth.
    """
    counts: list[Count] = []
    done, began = 0, time.perf_counter()
    for tenth in range(1, 11):
        while done < operations * tenth // 10:
            for work in WORK:
                done += await work()
        if tenth % 5 == 1:
            await nurseryio.to_thread.run_sync(int)
        counts.append(Count.now())
        fields = " ".join(f"{name} {value:,}" for name, value in counts[-1]._asdict().items())
        counted(f"{done:>12,} operations, {time.perf_counter() - began:6.0f} s: {fields}")
    return counts[-1].grown(counts[0])


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("operations", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--loop", choices=[*matrix.KINDS], default="stock")
    options = parser.parse_args(arguments)
    print(f"{options.loop}, compiled: {nurseryio.__compiled__}", flush=True)

    async def run() -> list[str]:
        return await soak(options.operations, lambda text: print(text, flush=True))

    loop = matrix.new_loop(options.loop)
    try:
        grown = loop.run_until_complete(run())
    finally:
        loop.close()
    print(f"grown: {', '.join(grown) or 'nothing'}")
    return bool(grown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
