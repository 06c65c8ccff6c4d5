"""A worker on asyncio that takes jobs from a queue in Redis, a few at a time.

    python examples/frameworks/redis_worker.py redis://127.0.0.1:6379

A job is the time in seconds that it takes. It moves from the list "jobs" to the list "taken" and,
when it has ended, to "done" or "failed", so no job is ever lost. On SIGTERM or Ctrl-C the worker
takes no more jobs, gives the running jobs a moment to end, and puts back the rest.
"""

import asyncio
import signal
import sys

import redis.asyncio as redis

import nurseryio

AT_A_TIME = 3
MOMENT = 0.5


async def work(server, limiter, *, task_status):
    """Take one job and do it.

    Until started() is called this runs in the scope around jobs.start(), which stops the taking of
    jobs. After that it runs in the scope of the nursery, which stops the jobs.
    """
    async with limiter:
        job = await take(server)
        task_status.started()
        print("took", job)
        outcome = "jobs"
        try:
            await nurseryio.sleep(float(job))
            outcome = "done"
        except ValueError:
            outcome = "failed"
        finally:
            # In a cancelled scope, cleanup that has to wait needs a shield, with a time limit.
            with nurseryio.move_on_after(5, shield=True):
                await put(server, job, outcome)


async def take(server):
    # Shielded: if this were interrupted, Redis might have handed out a job that is then lost.
    job = None
    while job is None:
        await nurseryio.lowlevel.checkpoint()
        with nurseryio.CancelScope(shield=True):
            job = await server.blmove("jobs", "taken", timeout=0.1)
    return job


async def put(server, job, where):
    async with server.pipeline(transaction=True) as pipe:
        await pipe.lrem("taken", 1, job).lpush(where, job).execute()
    print("put", job, "into", where)


async def stop_on(signals, scope):
    async for number in signals:
        print(signal.Signals(number).name)
        scope.cancel("the worker is to stop")
        return


async def main(url):
    limiter = nurseryio.CapacityLimiter(AT_A_TIME)
    with nurseryio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with redis.from_url(url, decode_responses=True) as server:
            async with nurseryio.open_nursery() as jobs:
                with nurseryio.CancelScope() as taking:
                    jobs.start_soon(stop_on, signals, taking)
                    print("ready")
                    while True:
                        await jobs.start(work, server, limiter)
                print(limiter.borrowed_tokens, "jobs under way")
                jobs.cancel_scope.deadline = nurseryio.current_time() + MOMENT
    print("tasks left:", len(asyncio.all_tasks()) - 1)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
