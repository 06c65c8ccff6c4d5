"""A Dask cluster driven from nurseries: work that is too large for one machine, by the same rules.

    python examples/frameworks/dask_cluster.py [tcp://SCHEDULER:8786]

Without an address the program starts a cluster on this machine. Each task of the cluster has an
asyncio task that waits for it. If one task fails, the others are cancelled, on the cluster too. The
same happens when a scope is cancelled.
"""

import asyncio
import sys
import time
from functools import partial

from distributed import Client

import nurseryio


async def compute(client, fn, *args):
    """Have the cluster call a function, and return its result; to be used in a nursery."""
    future = client.submit(fn, *args, pure=False)
    try:
        return await future
    finally:
        # Cancels the task if it is not done, and releases its result if it was fetched.
        with nurseryio.move_on_after(5, shield=True):
            await future.cancel(force=True)


# -- functions for the cluster --------------------------------------------------


def square(number):
    return number * number


def slow(number):
    time.sleep(0.2)
    return number


def fail(message):
    raise ValueError(message)


# -- the program ----------------------------------------------------------------


async def left_on(client):
    """Return how many tasks the scheduler still has, after it has processed all messages."""
    for _ in range(100):
        known = await client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        if not known:
            break
        await nurseryio.sleep(0.02)
    return known


async def main(address=None):
    own = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    async with Client(address, asynchronous=True, **({} if address else own)) as client:
        async with nurseryio.amap(partial(compute, client, square), range(10), limit=4) as squares:
            print("squares:", [number async for number in squares])

        with nurseryio.move_on_after(0.3) as scope:
            async with nurseryio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(compute, client, slow, number)
        print("out of time:", scope.cancelled_caught)
        print("left on the cluster:", await left_on(client))

        try:
            async with nurseryio.open_nursery() as nursery:
                for number in range(20):
                    nursery.start_soon(compute, client, slow, number)
                nursery.start_soon(compute, client, fail, "bad input")
        except Exception as group:
            print("failed:", *group.exceptions)
        print("left on the cluster:", await left_on(client))
    print("tasks left:", len(asyncio.all_tasks()) - 1)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
