"""A Trio program: two children in a nursery."""

import nurseryio as trio


async def child1():
    print("  child1: has started, and sleeps")
    await trio.sleep(1)
    print("  child1: is at its end")


async def child2():
    print("  child2: has started, and sleeps")
    await trio.sleep(1)
    print("  child2: is at its end")


async def parent():
    print("parent: has started")
    async with trio.open_nursery() as nursery:
        print("parent: starts child1")
        nursery.start_soon(child1)

        print("parent: starts child2")
        nursery.start_soon(child2)

        print("parent: waits for its children")
    print("parent: is at its end")


trio.run(parent)
