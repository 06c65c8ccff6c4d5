"""The scale tables measured: one fresh process for each number."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import harness
from ..harness import ROOT, Samples, Worker, WorkerFailed, python_path
from ..libraries import LIBRARIES
from ..network.measure import PINNED_MALLOC, SERVERS, Running, raise_file_limit
from ..network.rows import NetworkRow
from ..rows import Row

SIZES = (1_000, 10_000, 100_000)
DEPTHS = (1, 10, 100, 1000)
IDLE = ("idle_shield", "idle_thread", "idle_swallow", "idle_refuse")
FOREIGN = ("idle_swallow", "idle_refuse")
"""Probes with an asyncio future in them: not for Trio."""

SPAWN = Row("spawn_and_cancel", "spawn and cancel, per task", 1.15, 0, "", tiny=20, fixed=True)
Say = Callable[[str], None]


def probe(library: str, loop: str, name: str, amount: float, say: Say) -> dict[str, Any] | None:
    """Run one probe in a process of its own; return its numbers, or None after a visible line."""
    arguments = ["-m", "benchmarks.scale.worker", library, loop, name, str(amount)]
    # Malloc is pinned as in the network rows: large blocks are not mapped one by one.
    worker = Worker(arguments, {**PINNED_MALLOC, **LIBRARIES[library].environment()})
    try:
        answer = worker.answer()
    except WorkerFailed as error:
        answer = {"missing": str(error)}
    finally:
        worker.close()
    for reason in ("missing", "failed"):
        if reason in answer:
            say(f"SKIPPED {name} for {library}: {answer[reason]}")
            return None
    return answer


def probes(
    name: str, amounts: Iterable[float], loop: str, libraries: Sequence[str], say: Say
) -> dict[str, dict[str, Any]]:
    """Run one probe for each library and amount; return numbers by library and amount."""
    found: dict[str, dict[str, Any]] = {}
    for library in libraries:
        if library == "trio" and name in FOREIGN:
            continue
        for amount in amounts:
            answer = probe(library, loop, name, amount, say)
            if answer is None:
                break
            found.setdefault(library, {})[str(amount)] = answer
    return found


def spawn_and_cancel(
    sizes: Sequence[int], loop: str, libraries: Sequence[str], rounds: int, say: Say
) -> dict[str, dict[str, Samples]]:
    """Measure spawning and cancelling so many sleeping tasks.

    Return samples by size and library.
    """
    return {
        str(size): harness.measure_row(
            SPAWN,
            loop,
            libraries,
            n=size,
            rounds=rounds if size < 100_000 else max(3, rounds // 2),
            processes=1,
            say=say,
        )
        for size in sizes
    }


def imports(libraries: Sequence[str], rounds: int, say: Say) -> dict[str, Samples]:
    """Measure CPU seconds of importing asyncio and then each library, in fresh interpreters."""
    code = (
        "import time; t = time.process_time(); import asyncio, {}; print(time.process_time() - t)"
    )
    results = {name: Samples() for name in libraries}
    for number in range(rounds + 1):
        for name in libraries:
            if results[name].note:
                continue
            done = subprocess.run(
                [sys.executable, "-c", code.format(LIBRARIES[name].package or "asyncio")],
                capture_output=True,
                text=True,
                cwd=ROOT,
                env={"PYTHONPATH": python_path()},
                check=False,
            )
            if done.returncode:
                results[name].note = f"missing: {done.stderr.strip().splitlines()[-1]}"
                say(f"SKIPPED import of {name}: {results[name].note}")
            elif number:  # the first round writes the compiled files
                results[name].cpu.append(float(done.stdout))
    return results


def idle_connections(count: int, loop: str, servers: Sequence[str], say: Say) -> dict[str, float]:
    """Return the bytes that each echo server's process has resident for one idle connection."""
    raise_file_limit()
    found: dict[str, float] = {}
    row = NetworkRow("idle", "idle connections", None, "echo", 64, count, 1)
    for name in servers:
        try:
            running = Running(SERVERS[name], loop, row, None)
        except (WorkerFailed, OSError) as error:
            say(f"SKIPPED idle connections for {name}: {error}")
            continue
        try:
            before = running.resident()
            running.echo_client(row, None).wave(1)
            found[name] = (running.resident() - before) / count
        except (WorkerFailed, OSError) as error:
            say(f"SKIPPED idle connections for {name}: {error}")
        finally:
            running.close()
    return found


def measure(
    loop: str, libraries: Sequence[str], servers: Sequence[str], quick: bool, rounds: int, say: Say
) -> dict[str, Any]:
    """Take all scale tables on one loop and return them as plain data."""
    named = [name for name in libraries if name in ("asyncio", "anyio", "trio", "nurseryio")]
    with_floor = [name for name in libraries if name not in ("floor", "nurseryio-inside")]
    seconds = 0.5 if quick else 2.0
    say(f"scale on {loop}: spawn and cancel")
    spawned = spawn_and_cancel(SIZES[:2] if quick else SIZES, loop, with_floor, rounds, say)
    say(f"scale on {loop}: memory, idle CPU, depth, growth")
    return {
        "spawn_and_cancel": spawned,
        "sleeping_tasks": probes(
            "sleeping_tasks", [10_000 if quick else 100_000], loop, named, say
        ),
        "idle_connections": idle_connections(500 if quick else 5000, loop, servers, say),
        "idle": {name: probes(name, [seconds], loop, named, say) for name in IDLE},
        "depth": probes("depth", DEPTHS, loop, named, say),
        "growth": probes("growth", [100_000 if quick else 1_000_000], loop, named, say),
        "imports": imports(named, 3 if quick else 9, say),
    }
