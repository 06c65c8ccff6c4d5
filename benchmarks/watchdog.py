"""What an installed `Watchdog` costs: `python -m benchmarks.watchdog [ROW ...]`.

Each row is run in turns without a watchdog, with one, and with a thread that wakes up as often and
does nothing, in one process and on one loop. The figures are the medians of the quotients of
neighbouring rounds, and half the distances between their quartiles. A round is longer than the
longest pause between two looks of the watchdog's thread. The time is that of the CPU for the whole
process, the thread included.

A thread that waits for the GIL can cost a tenth by itself, in CPython 3.13 for example, if the loop
makes a hundred short steps in each iteration. Only what exceeds this is the watchdog's own.

Instructions are no measure here: valgrind makes the program fifty times slower, and the thread
looks by the clock.
"""

from __future__ import annotations

import argparse
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import nurseryio
from nurseryio.instruments import Watchdog

from .figures import paired_ratio, spread
from .libraries import LIBRARIES, STOCK, UVLOOP, idiom, loop_factory
from .rows import BY_NAME
from .stopwatch import Stopwatch

ROWS = ("nursery_one", "nursery_hundred", "children_checkpoint", "checkpoint", "checkpoint_deep")
"""The rows about spawning and checkpoints."""

SECONDS = 1.5
"""How long a round is at least, in seconds of the CPU."""


PAUSE = 0.025
"""The pause between two looks of a watchdog with its defaults, in seconds."""


def watchdog() -> Watchdog:
    """Return a watchdog with its defaults, but for the message about many tasks.

    That is made once in the life of a program, not once in each round.
    """
    return Watchdog(many_tasks=None)


@contextmanager
def idle_thread() -> Iterator[None]:
    """Run a thread that wakes up as often as a watchdog's, and does nothing."""
    over = threading.Event()

    def wake() -> None:
        while not over.wait(PAUSE):
            pass

    thread = threading.Thread(target=wake)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


SIDES: tuple[Callable[[], AbstractContextManager[object]], ...] = (
    nullcontext,
    watchdog,
    idle_thread,
)


async def a_round(function: Callable[..., Any], n: int, times: int) -> float:
    """Return the CPU seconds of a round, in which the row is run a number of times."""
    seconds = 0.0
    for _ in range(times):
        watch = Stopwatch()
        await function(n, watch)
        seconds += watch.cpu
    return seconds


async def in_turns(
    function: Callable[..., Any], n: int, rounds: int, seconds: float
) -> tuple[list[float], ...]:
    """Return the CPU seconds of the rounds, for each of the sides."""
    found: tuple[list[float], ...] = tuple([] for _ in SIDES)
    await a_round(function, n, 1)  # warms the code up
    times = 1 + int(seconds / await a_round(function, n, 1))
    for number in range(rounds):
        for place in range(len(SIDES)):
            side = (number + place) % len(SIDES)
            gc.collect()
            with SIDES[side]():
                found[side].append(await a_round(function, n, times))
    return found


def main() -> None:
    """Print the ratios of each row."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.watchdog", description=__doc__)
    p.add_argument("rows", nargs="*", metavar="ROW", help=f"default: {' '.join(ROWS)}")
    p.add_argument("--rounds", type=int, default=21)
    p.add_argument("--loop", default=STOCK, choices=[STOCK, UVLOOP])
    p.add_argument("--tiny", action="store_true", help="only see that it works")
    choice = p.parse_args()
    logger = logging.getLogger("nurseryio.Watchdog")
    before = logger.disabled
    # Spawning ten thousand tasks in one step may block the loop for longer than the limit.
    logger.disabled = True
    try:
        for name in choice.rows or ROWS:
            _print_row(name, choice.loop, choice.rounds, choice.tiny)
    finally:
        logger.disabled = before


def _print_row(name: str, loop: str, rounds: int, tiny: bool) -> None:
    row = BY_NAME[name]
    plain, watched, idle = nurseryio.run(
        in_turns,
        getattr(idiom(LIBRARIES["nurseryio"]), name),
        row.tiny if tiny else row.n,
        rounds,
        0.0 if tiny else SECONDS,
        loop_factory=loop_factory(loop),
    )
    said = [
        f"{what} {paired_ratio(side, plain):6.3f} ±{spread(side, plain):.3f}"
        for what, side in (("watchdog", watched), ("a thread", idle))
    ]
    print(f"{name:22} {loop:6} {'   '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
