"""Programs with flaws that the injection harness must notice: a check of the harness itself.

``python -m harness.injection_flaws`` prints for each one which fault was expected and which were
found, in lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial

from nurseryio import CancelScope, lowlevel, sleep

from .injection import warm_up
from .injection_lines import Injector
from .injection_probe import Block, Probe
from .injection_programs import CASES, LONG, Program
from .injection_trial import Result, run_each

# Each program, the fault that it shows, whether an error is injected into its checkpoint, and the
# cases that it is run on.
FLAWS: list[tuple[Callable[[Probe], Awaitable[object]], str, bool, tuple[str, ...]]] = []


def flaw(
    kind: str, injected: bool = False, cases: tuple[str, ...] = ("run-stock", "app-uvloop")
) -> Callable[[Callable[[Probe], Awaitable[object]]], Callable[[Probe], Awaitable[object]]]:
    """Decorator: a program that shows a fault of this kind."""

    def add(run: Callable[[Probe], Awaitable[object]]) -> Callable[[Probe], Awaitable[object]]:
        FLAWS.append((run, kind, injected, cases))
        return run

    return add


@flaw("hangs")
async def waits_for_nothing(p: Probe) -> None:
    """Nothing will ever end this wait."""
    await asyncio.get_running_loop().create_future()


@flaw("late")
async def sleeps_too_long(p: Probe) -> None:
    """A sleep of hours."""
    await sleep(10000)


@flaw("spins")
async def turns_for_ever(p: Probe) -> None:
    """Yields to the loop without end."""
    while True:
        await asyncio.sleep(0)


@flaw("hangs")
async def keeps_the_loop(p: Probe) -> None:
    """Never gives the loop a turn."""
    while True:
        pass


@flaw("child runs")
async def child_outlives_block(p: Probe) -> None:
    """A block is left by hand while its child runs."""
    block = Block(p)
    await block.__aenter__()
    block.spawn(p.nap, 0.5)
    await sleep(0.25)
    block.nursery._body_running = False
    block.nursery._children.clear()
    await block.__aexit__(None, None, None)
    await sleep(1.0)


@flaw("scope open")
async def scope_is_not_left(p: Probe) -> None:
    """A scope is entered and not left."""
    CancelScope().__enter__()


@flaw("cancel count")
async def request_is_left(p: Probe) -> None:
    """A native cancel request stays."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass


@flaw("stray cancel")
async def request_is_pending(p: Probe) -> None:
    """A native cancel request is still to be raised."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@flaw("task left")
async def task_is_left(p: Probe) -> object:
    """A native task goes on."""
    return repr(p.task(asyncio.sleep(LONG)))


@flaw("original lost")
async def own_error_is_swallowed(p: Probe) -> None:
    """An error of the program does not come out."""
    try:
        p.raise_error("lost")
    except Exception:
        pass


@flaw("original twice")
async def own_error_comes_twice(p: Probe) -> None:
    """An error of the program comes out at two places."""
    try:
        p.raise_error("twice")
    except Exception as error:
        p.caught(error)
        raise


@flaw("invalid", cases=("run-stock",))
async def watched_for_nothing(p: Probe) -> None:
    """A record that is marked as watched is not on the list."""
    lowlevel.current_task()._recheck_queued = True


@flaw("lost", injected=True)
async def error_is_swallowed(p: Probe) -> None:
    """The injected error does not come out."""
    try:
        await lowlevel.checkpoint()
    except BaseException:
        pass


@flaw("twice", injected=True)
async def error_comes_twice(p: Probe) -> None:
    """The injected error comes out at two places."""
    try:
        await lowlevel.checkpoint()
    except BaseException as error:
        p.caught(error)
        raise


@flaw("bystander", injected=True)
async def bystander_is_disturbed(p: Probe) -> None:
    """After the injected error a task that has nothing to do with it is cancelled."""
    try:
        await lowlevel.checkpoint()
    except BaseException:
        for task in asyncio.all_tasks():
            if "bystander" in repr(task.get_coro()):
                task.cancel()
        raise


@flaw("engine error", injected=True)
async def state_is_confused(p: Probe) -> None:
    """After the injected error the engine stumbles over its own state."""
    try:
        await lowlevel.checkpoint()
    except BaseException as error:
        p.caught(error)
        raise KeyError("confused") from None


def look_at(run: Callable[[Probe], Awaitable[object]], injected: bool, case: str) -> Result:
    """Run a program with a flaw."""
    program = Program(run, (case,), fresh=True)
    if not injected:
        return next(run_each(program, case, [Injector]))
    expected = next(run_each(program, case, [Injector]))
    line = next(line for line in sorted(expected.counts) if line.function == "checkpoint")
    return next(run_each(program, case, [partial(Injector, line, 1, MemoryError)], expected))


def main() -> None:
    """The command."""
    warm_up()
    for run, kind, injected, cases in FLAWS:
        for case in cases:
            if case not in CASES or (kind == "cancel count" and sys.version_info < (3, 11)):
                continue
            result = look_at(run, injected, case)
            found = sorted({kind for kind, _ in result.faults})
            print(json.dumps({"flaw": run.__name__, "case": case, "kind": kind, "found": found}))


if __name__ == "__main__":
    main()
