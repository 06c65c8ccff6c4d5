"""A network row's cost: `python -m benchmarks.network.instructions ROW [...]`.

For each server it prints the machine instructions of the server process for one operation, their
ratio to the raw Protocol, and the system calls for one operation. Instructions are counted by
`valgrind --tool=callgrind` and are those of the process alone, without the kernel's. So the system
calls, which `strace` counts in a run without valgrind, are as important.

An operation is a message, a visit, a call, or a piece of 64 KiB. The client does a small and a
large round, counted apart; the difference is what the operations cost. How many messages a server
finds in one iteration of its loop depends on its speed. So rows with several connections scatter.
`--keep DIR` keeps callgrind's files: those that end in `.2` hold the large round alone.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ..harness import WorkerFailed
from ..libraries import STOCK, UVLOOP
from .measure import SERVERS, Running, one_round, raise_file_limit, usable
from .rows import BY_NAME, NetworkRow
from .servers import PIECE

SHARE = 0.5
"""Part of a row's full size that the large round has more than the small one."""

DEFAULT = ["protocol", "streams", "nurseryio-pure", "nurseryio"]


def operations(row: NetworkRow, times: int) -> int:
    """Return the operations in so many waves, visits or transfers."""
    if row.kind in ("sink", "source"):
        return times * row.size // len(PIECE)
    return row.work(times)[0]


class Measured:
    """A server process under a tool, and the client beside it."""

    def __init__(self, server: str, loop: str, row: NetworkRow, launcher: list[str]) -> None:
        chain = self._context = None
        if row.tls:
            from .certificate import client_context, files

            chain, root = files()
            self._context = client_context(root)
        self.row = row
        self.running = Running(SERVERS[server], loop, row, chain, launcher)

    def round(self, times: int) -> None:
        """Have the client do a round, and wait until the server has seen its end."""
        one_round(self.running, self.row, times, self._context)
        for _ in range(3):
            time.sleep(0.02)
            self.running.cpu()

    def close(self) -> None:
        """End the server."""
        self.running.close()


def sizes(row: NetworkRow) -> tuple[int, int]:
    """Return the times of a small and of a large round."""
    small = max(1, round(row.times * 0.1))
    return small, small + max(1, round(row.times * SHARE))


def instructions(server: str, loop: str, row: NetworkRow, out: Path) -> float:
    """Return the instructions of the server process for one operation."""
    launcher = ["valgrind", "--tool=callgrind", "--quiet", "--instr-atstart=no"]
    measured = Measured(server, loop, row, [*launcher, f"--callgrind-out-file={out}"])
    control = ["callgrind_control"]
    pid = str(measured.running.worker.pid)
    totals = []
    small, large = sizes(row)
    try:
        measured.round(small)
        subprocess.run([*control, "--instr=on", pid], check=True, capture_output=True)
        for number, times in enumerate((small, large), 1):
            measured.round(times)
            subprocess.run([*control, "--dump", pid], check=True, capture_output=True)
            text = Path(f"{out}.{number}").read_text()
            found = re.search(r"^totals: (\d+)", text, re.M)
            totals.append(int(found[1]) if found else 0)
    finally:
        measured.close()
    return (totals[1] - totals[0]) / operations(row, large - small)


def system_calls(server: str, loop: str, row: NetworkRow, out: Path) -> dict[str, float]:
    """Return the number of each system call for one operation, the most frequent ones first."""
    launcher = ["strace", "-f", "-qq", "-o", str(out)]
    measured = Measured(server, loop, row, launcher)
    small, large = sizes(row)
    counts: list[Counter[str]] = []
    try:
        measured.round(small)
        for times in (small, large):
            seen = out.stat().st_size
            measured.round(times)
            with out.open() as file:
                file.seek(seen)
                counts.append(Counter(re.findall(r"^\d+ +(\w+)\(", file.read(), re.M)))
    finally:
        measured.close()
    made = operations(row, large - small)
    found = {name: (counts[1][name] - counts[0][name]) / made for name in counts[1]}
    return {
        name: number
        for name, number in sorted(found.items(), key=lambda item: -item[1])
        if number > 0.02
    }


def shown(calls: dict[str, float]) -> str:
    """Return the numbers of system calls as a line of text."""
    text = ", ".join(f"{name} {number:.2f}" for name, number in calls.items())
    return f"{sum(calls.values()):5.2f}: {text}"


def main() -> None:
    """Print a line for each row and server."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.network.instructions")
    p.add_argument("rows", nargs="+", choices=list(BY_NAME), metavar="ROW")
    p.add_argument("--servers", default=",".join(DEFAULT), help=f"of {','.join(SERVERS)}")
    p.add_argument("--loop", default=STOCK, choices=[STOCK, UVLOOP])
    p.add_argument("--keep", type=Path, help="keep the tools' files in this folder")
    choice: Any = p.parse_args()
    tools = [tool for tool in ("valgrind", "strace") if shutil.which(tool)]
    if not tools:
        raise SystemExit("neither valgrind nor strace is installed")
    raise_file_limit()
    folder = choice.keep or Path(tempfile.mkdtemp(prefix="nurseryio-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    servers = usable(choice.servers.split(","), choice.loop, print)
    for name in choice.rows:
        row, base = BY_NAME[name], 0.0
        for server in servers:
            out = folder / f"{name}.{server}.{choice.loop}"
            cost, calls = 0.0, "-"
            try:
                if "valgrind" in tools:
                    cost = instructions(server, choice.loop, row, out)
                    base = base or cost
                if "strace" in tools:
                    calls = shown(system_calls(server, choice.loop, row, Path(f"{out}.calls")))
            except (WorkerFailed, OSError) as error:
                print(f"{name:16} {server:14} SKIPPED: {error}", flush=True)
                continue
            ratio = cost / base if base else 0.0
            print(f"{name:16} {server:14} {cost:10,.0f} {ratio:5.2f}  {calls}", flush=True)


if __name__ == "__main__":
    main()
