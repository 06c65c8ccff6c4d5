"""Two tasks at the same time, and a nursery that waits for both.

Look at the order of the lines, and at the time: each child sleeps for a second, and the whole
program takes only one second.
"""

import nurseryio


async def child1():
    print("  child1: here, going to sleep")
    await nurseryio.sleep(1)
    print("  child1: awake, and done")


async def child2():
    print("  child2: here, going to sleep")
    await nurseryio.sleep(1)
    print("  child2: awake, and done")


async def parent():
    print("parent: opening a nursery")
    async with nurseryio.open_nursery() as nursery:
        print("parent: starting child1")
        nursery.start_soon(child1)
        print("parent: starting child2")
        nursery.start_soon(child2)
        print("parent: at the end of the block, where it waits for both")
    print("parent: both are gone")


if __name__ == "__main__":
    nurseryio.run(parent)
