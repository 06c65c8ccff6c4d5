"""A Trio program: an async function that is run, and returns something."""

import nurseryio as trio


async def async_double(x):
    return 2 * x


async def double_sleep(x):
    await trio.sleep(2 * x)
    return "woken"


print(trio.run(async_double, 3))
print(trio.run(double_sleep, 0.01))
