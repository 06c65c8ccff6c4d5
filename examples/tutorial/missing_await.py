"""Mistakes with await, and the messages by which you recognise them.

The warning is printed to stderr: "RuntimeWarning: coroutine 'sleep' was never awaited". When you
see these words, look for the missing await first, and at everything else afterwards.
"""

import time

import nurseryio


async def double(x):
    return 2 * x


async def broken_sleep(seconds):
    print(f"going to sleep for {seconds} seconds")
    began = time.perf_counter()
    nurseryio.sleep(seconds)  # the await is missing
    print(f"slept for {time.perf_counter() - began:.1f} seconds")


async def broken_sum():
    coroutine = double(3)  # the await is missing here, too
    try:
        print(coroutine + 1)
    except TypeError as error:
        print(f"TypeError: {error}")
    print(f"with await it is {await coroutine + 1}")


async def broken_spawn():
    try:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep(1))  # a call too many: start_soon() calls sleep
    except Exception as error:
        # A nursery raises the error, so the error is in a group.
        [reason] = error.exceptions
        print(f"{type(reason).__name__}: {reason}")


async def main():
    await broken_sleep(3)
    await broken_sum()
    await broken_spawn()


if __name__ == "__main__":
    nurseryio.run(main)
