"""The effect of a task that blocks instead of waiting, and how to find such a task.

time.sleep() blocks the whole thread: no other task can run until it returns. So the rude children
of this program sleep one after the other, and together need twice the time. An instrument finds
them.
"""

import time

import nurseryio

NAP = 0.3
LIMIT = 0.2


async def polite(name):
    print(f"  {name}: going to sleep")
    await nurseryio.sleep(NAP)
    print(f"  {name}: awake")


async def rude(name):
    print(f"  {name}: going to sleep")
    time.sleep(NAP)  # blocks the thread, and so every task in it
    print(f"  {name}: awake")


class SlowSteps(nurseryio.abc.Instrument):
    """Prints each task that blocks the loop for longer than LIMIT seconds."""

    def before_task_step(self, task):
        self.began = time.perf_counter()

    def after_task_step(self, task):
        if time.perf_counter() - self.began > LIMIT:
            print(f"slow step: {task.name} ran for more than {LIMIT} seconds without an await")


async def both(child):
    began = time.perf_counter()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, "child1", name=f"{child.__name__} child1")
        nursery.start_soon(child, "child2", name=f"{child.__name__} child2")
    naps = (time.perf_counter() - began) / NAP
    print(f"{child.__name__} children: both awake after {naps:.0f} nap(s)")


async def main():
    await both(polite)
    await both(rude)
    instrument = SlowSteps()
    nurseryio.lowlevel.add_instrument(instrument)
    await both(polite)
    await both(rude)
    nurseryio.lowlevel.remove_instrument(instrument)


if __name__ == "__main__":
    nurseryio.run(main)
