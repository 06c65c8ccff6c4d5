"""Calls in worker processes: `python -m benchmarks.workers [--calls N] [--rounds N]`.

The same function, which returns its argument, is called again and again by each of three libraries
in turn: `nurseryio.to_process.run_sync`, `anyio.to_process.run_sync`, and `loop.run_in_executor`
with a `ProcessPoolExecutor` of the start method "spawn". One warm worker of each makes the calls.
The time is that of the clock, because the work is done by two processes. The figure is the median
of the quotients of neighbouring rounds to the executor's, and half the distance between their
quartiles.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeAlias

import anyio.to_process

from nurseryio import to_process

from .figures import paired_ratio, spread
from .stopwatch import Stopwatch

Call: TypeAlias = Callable[[], Awaitable[object]]

SIZES = {"small": 1, "1 MB": 1_000_000}
"""The arguments, and results, of the calls: bytes."""


async def a_round(call: Call, calls: int) -> float:
    """Return the seconds of a round."""
    watch = Stopwatch()
    watch.start()
    for _ in range(calls):
        await call()
    watch.stop()
    return watch.wall


async def in_turns(data: bytes, calls: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of the rounds of each library."""
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        sides: dict[str, Call] = {
            "nurseryio": lambda: to_process.run_sync(bytes, data),
            "anyio": lambda: anyio.to_process.run_sync(bytes, data),
            "executor": lambda: loop.run_in_executor(executor, bytes, data),
        }
        for call in sides.values():
            assert await call() == data
        found: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(rounds):
            for name, call in sides.items():
                found[name].append(await a_round(call, calls))
    return found


def main() -> None:
    """Print the ratio of each library to the executor."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    p.add_argument("--calls", type=int, default=100)
    p.add_argument("--rounds", type=int, default=15)
    choice = p.parse_args()
    # anyio cannot import the module of a package that was started by "python -m".
    vars(sys.modules["__main__"]).pop("__file__", None)
    for size, length in SIZES.items():
        found = asyncio.run(in_turns(bytes(length), choice.calls, choice.rounds))
        executor = found["executor"]
        for name, seconds in found.items():
            ratio, half = paired_ratio(seconds, executor), spread(seconds, executor)
            micros = min(seconds) / choice.calls * 1e6
            print(f"{size:6} {name:10} {ratio:6.3f} ±{half:.3f}   best {micros:6.0f} us")


if __name__ == "__main__":
    main()
