"""Network rows measured.

Servers alive side by side, the client visiting them in turn, round by round.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..harness import Worker, WorkerFailed
from ..libraries import LIBRARIES, STOCK, UVLOOP
from .client import EchoClient, be_called, draw, pour, visit
from .rows import NetworkRow

BASE = "protocol"
PINNED_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": str(256 << 20)}
"""Keeps the C library from mapping fresh memory for each large read, which drowns the rest."""


@dataclass(frozen=True)
class Server:
    """One way of writing a server: its file in `servers`, how it is started, and what it needs."""

    name: str
    file: str
    starter: str
    package: str | None = None
    loops: tuple[str, ...] = (STOCK, UVLOOP)

    def environment(self) -> dict[str, str]:
        """Return the variables that the server process needs."""
        return LIBRARIES[self.name].environment() if self.package else {}


SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Server(BASE, "protocol", "asyncio"),
        Server("buffered", "buffered", "asyncio"),
        Server("streams", "streams", "asyncio"),
        Server("anyio", "anyio_streams", "anyio", "anyio"),
        Server("trio", "trio_streams", "trio", "trio", loops=(STOCK,)),
        Server("nurseryio-pure", "trio_streams", "nurseryio", "nurseryio"),
        Server("nurseryio", "trio_streams", "nurseryio", "nurseryio"),
    )
}


@dataclass
class NetworkSamples:
    """Rounds of one server in one row.

    CPU seconds of the server and wall seconds of the client, or a reason.
    """

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    note: str = ""


class Running:
    """A server process that listens."""

    def __init__(
        self,
        server: Server,
        loop: str,
        row: NetworkRow,
        chain: str | None,
        launcher: Sequence[str] = (),
    ) -> None:
        environment = {**server.environment(), **({} if row.default_malloc else PINNED_MALLOC)}
        arguments = [server.file, server.starter, loop, row.service, *([chain] if chain else [])]
        self.worker = Worker(["-m", "benchmarks.network.server", *arguments], environment, launcher)
        try:
            answer = self.worker.answer()
            if "port" not in answer:
                raise WorkerFailed(str(answer.get("missing", answer.get("failed", answer))))
        except BaseException:
            self.worker.close()
            raise
        self.port: int = answer["port"]
        self._client: EchoClient | None = None

    def echo_client(self, row: NetworkRow, context: Any) -> EchoClient:
        """Return the connections of the echo rows: opened once, kept until the server is closed.

        They must stay: the first connection that ends hands a whole read buffer back to the C
        library, which from then on keeps such memory at hand, and the cost that users see while
        connections last would be gone.
        """
        if self._client is None:
            self._client = EchoClient(self.port, row.connections, row.size, context)
        return self._client

    def close(self) -> None:
        """Close the connections and end the server."""
        if self._client is not None:
            self._client.close()
        self.worker.close()

    def cpu(self) -> float:
        """Return the CPU seconds that the server process has used up to now."""
        return float(self.worker.ask("cpu")["cpu"])

    def resident(self) -> int:
        """Return the bytes that the server process has resident."""
        return int(self.worker.ask("resident")["resident"])


def one_round(
    running: Running, row: NetworkRow, times: int, context: Any
) -> tuple[float, float, int]:
    """Let the client do one round.

    Return the server's CPU seconds, wall seconds and the operations (or bytes) done.
    """
    if row.kind == "echo":
        client = running.echo_client(row, context)
        return _timed(running, lambda: client.wave(times))
    if row.kind == "visit":
        return _timed(running, lambda: visit(running.port, row.size, times))
    if row.kind == "caller":
        return _timed(running, lambda: be_called(running.port, times))
    service = pour if row.kind == "sink" else draw
    return _timed(
        running, lambda: sum(service(running.port, row.size, context) for _ in range(times))
    )


def _timed(running: Running, work: Callable[[], int]) -> tuple[float, float, int]:
    before, began = running.cpu(), time.perf_counter()
    count = work()
    wall = time.perf_counter() - began
    return running.cpu() - before, wall, count


def measure_row(
    row: NetworkRow,
    loop: str,
    servers: Sequence[str],
    *,
    share: float,
    rounds: int,
    processes: int,
    say: Callable[[str], None],
) -> dict[str, NetworkSamples]:
    """Measure one network row on one loop.

    Args:
        row: The row.
        loop: "stock" or "uvloop".
        servers: Names from `SERVERS`.
        share: Part of the row's full size that a round has.
        rounds: Rounds for each group of server processes.
        processes: How many times the group is made anew.
        say: Gets a line for everything that is left out.

    Returns:
        Samples for each server, in the order given.
    """
    results = {name: NetworkSamples() for name in servers}
    times = row.scaled(share)
    chain = context = None
    if row.tls:
        from .certificate import client_context, files

        chain, root = files()
        context = client_context(root)
    for _ in range(processes):
        running: dict[str, Running] = {}
        try:
            for name in servers:
                if results[name].note:
                    continue
                try:
                    running[name] = Running(SERVERS[name], loop, row, chain)
                except (WorkerFailed, OSError) as error:
                    results[name].note = f"missing: {error}"
                    say(f"SKIPPED {row.name} for {name}: {error}")
            _rounds(row, running, results, times, rounds, context, say)
        finally:
            for server in running.values():
                server.close()
    return results


def _rounds(
    row: NetworkRow,
    running: dict[str, Running],
    results: dict[str, NetworkSamples],
    times: int,
    rounds: int,
    context: Any,
    say: Callable[[str], None],
) -> None:
    alive = list(running)
    for number in range(rounds + 1):
        random.shuffle(alive)
        for name in list(alive):
            try:
                cpu, wall, _ = one_round(running[name], row, times, context)
            except (WorkerFailed, OSError) as error:
                results[name] = NetworkSamples(note=f"failed: {error}")
                say(f"SKIPPED {row.name} for {name}: {error}")
                alive.remove(name)
                continue
            if number:  # the first round warms both sides
                results[name].cpu.append(cpu)
                results[name].wall.append(wall)


def raise_file_limit() -> None:
    """Let this process open as many files as it may: the rows with many connections need them."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def usable(names: Sequence[str], loop: str, say: Callable[[str], None]) -> list[str]:
    """Return the servers that can run on a loop here, after a visible line for each that cannot."""
    from ..libraries import why_missing

    fine = []
    for name in names:
        server = SERVERS[name]
        reason = None
        if loop not in server.loops:
            continue
        if server.package:
            reason = why_missing(LIBRARIES[server.name], loop)
        if reason:
            say(f"SKIPPED server {name} on {loop}: {reason}")
        else:
            fine.append(name)
    return fine
