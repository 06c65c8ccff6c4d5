"""What instruments cost: `python -m benchmarks.instruments [ROW ...]`.

Each row is a load under `nurseryio.run`, once for each instrument. The rounds of all instruments
are interleaved in one process, in an order shuffled each time. A figure is the median of the ratios
to the round without an instrument, of the CPU time of the loop's thread.

`hooks` is an instrument whose hooks do nothing: the part that the loop takes to call them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nurseryio
from nurseryio.abc import Instrument
from nurseryio.instruments import OpenTelemetry, TraceFile, Watchdog

from .micro import trio_idiom
from .network.client import EchoClient
from .network.servers import trio_streams
from .stopwatch import Stopwatch

CONNECTIONS = 50


class Hooks(Instrument):
    """All hooks of steps, doing nothing."""

    def task_spawned(self, task: Any) -> None:
        """Do nothing."""

    def task_scheduled(self, task: Any) -> None:
        """Do nothing."""

    def before_task_step(self, task: Any) -> None:
        """Do nothing."""

    def after_task_step(self, task: Any) -> None:
        """Do nothing."""

    def task_exited(self, task: Any) -> None:
        """Do nothing."""


# -- loads --------------------------------------------------------------------------


async def echo(n: int) -> float:
    """Serve n echoes of 64 bytes to 50 connections; the client is another thread."""
    ports: list[int] = []
    listening = nurseryio.Event()

    def announce(port: int) -> None:
        ports.append(port)
        listening.set()

    def load() -> None:
        client = EchoClient(ports[0], CONNECTIONS, 64)
        try:
            client.wave(max(1, n // CONNECTIONS))
        finally:
            client.close()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(trio_streams.serve, "echo", None, announce)
        await listening.wait()
        begin = time.thread_time()
        await nurseryio.to_thread.run_sync(load)
        taken = time.thread_time() - begin
        nursery.cancel_scope.cancel()
    return taken


def _micro(name: str) -> Callable[[int], Any]:
    row = getattr(trio_idiom, name)

    async def load(n: int) -> float:
        begin = time.thread_time()
        await row(n, Stopwatch())
        return time.thread_time() - begin

    return load


LOADS: dict[str, tuple[str, int, Callable[[int], Any]]] = {
    "echo": (f"echo server, 64 B, {CONNECTIONS} connections", 2000, echo),
    "spawn": ("spawn and join a child", 3000, _micro("nursery_hundred")),
    "channel": ("hand an item over in a channel", 3000, _micro("channel_direct")),
    "checkpoint": ("checkpoint", 5000, _micro("checkpoint")),
}


# -- instruments --------------------------------------------------------------------


@contextmanager
def _none() -> Iterator[None]:
    yield None


@contextmanager
def _hooks() -> Iterator[Instrument]:
    yield Hooks()


def _trace(waits: bool) -> Callable[[], Any]:
    @contextmanager
    def opened() -> Iterator[Instrument]:
        with tempfile.TemporaryDirectory() as folder:
            yield TraceFile(Path(folder) / "trace.json", waits=waits)

    return opened


@contextmanager
def _watchdog() -> Iterator[Instrument]:
    yield Watchdog()


@contextmanager
def _telemetry() -> Iterator[Instrument]:
    """With the SDK: a batch processor, whose exporter throws the spans away."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Drops(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    spans = TracerProvider(shutdown_on_exit=False)
    spans.add_span_processor(BatchSpanProcessor(Drops()))
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    try:
        yield OpenTelemetry(tracer_provider=spans, meter_provider=meters)
    finally:
        spans.shutdown()
        meters.shutdown()


INSTRUMENTS: dict[str, Callable[[], Any]] = {
    "none": _none,
    "Watchdog": _watchdog,
    "hooks": _hooks,
    "TraceFile(waits=False)": _trace(False),
    "TraceFile": _trace(True),
    "OpenTelemetry": _telemetry,
}


def one_round(instrument: str, row: str, n: int) -> float:
    """The CPU seconds of the loop's thread for n units of a load."""
    load = LOADS[row][2]
    with INSTRUMENTS[instrument]() as made:
        seconds: float = nurseryio.run(load, n, instruments=[] if made is None else [made])
    return seconds


def measure(row: str, names: list[str], n: int, rounds: int) -> dict[str, tuple[float, float]]:
    """For each instrument: the ratio to none, and the microseconds that a unit takes longer."""
    samples: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        one_round(name, row, max(CONNECTIONS, n // 10))
    for _ in range(rounds):
        for name in random.sample(names, len(names)):
            samples[name].append(one_round(name, row, n))
    found = {}
    for name, taken in samples.items():
        both = list(zip(taken, samples["none"], strict=True))
        ratio = statistics.median(mine / none for mine, none in both)
        more = statistics.median(mine - none for mine, none in both)
        found[name] = ratio, more / n * 1e6
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print a table: a row for each load, a column for each instrument."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.instruments", description=__doc__)
    parser.add_argument("rows", nargs="*", choices=[*LOADS, []], metavar="ROW")
    parser.add_argument("--instruments", default=",".join(INSTRUMENTS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--share", type=float, default=1.0, help="part of the full size")
    chosen = parser.parse_args(arguments)
    names = list(dict.fromkeys(["none", *chosen.instruments.split(",")]))
    print("| load | " + " | ".join(f"`{name}`" for name in names[1:]) + " |")
    print("|---|" + "---|" * len(names[1:]))
    for row in chosen.rows or LOADS:
        title, full, _ = LOADS[row]
        found = measure(row, names, max(CONNECTIONS, round(full * chosen.share)), chosen.rounds)
        cells = [f"{ratio:.2f} (+{more:.1f} µs)" for ratio, more in list(found.values())[1:]]
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
