"""A micro row's cost in machine instructions: `python -m benchmarks.instructions ROW [...]`.

Counted by `valgrind --tool=callgrind`: slow, but nearly the same number in every run, however busy
the machine is. Instructions are not time (cache misses and the kernel are missing), so this finds
what a change did to a row; the verdict on a row comes from the timings.

One process runs a row with a small and a large size, counted apart; the difference is what the
work units cost. `--keep DIR` keeps callgrind's files: those that end in `.2` hold the large run
alone, for `callgrind_annotate` or KCachegrind.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from .harness import Worker, WorkerFailed
from .libraries import DEFAULT, LIBRARIES, STOCK, UVLOOP, why_missing
from .rows import BY_NAME, Row

SHARE = 0.1
"""Part of a row's full size that the large run has more than the small one: valgrind is slow."""


class Counted(Worker):
    """A worker under valgrind, which counts only between two calls of `dump`."""

    def __init__(self, library: str, loop: str, row: str, out: Path) -> None:
        valgrind = ["valgrind", "--tool=callgrind", "--quiet", "--instr-atstart=no"]
        worker = ["-m", "benchmarks.worker", library, loop, row]
        environment = {**LIBRARIES[library].environment(), "PYTHONHASHSEED": "0"}
        super().__init__(worker, environment, launcher=[*valgrind, f"--callgrind-out-file={out}"])
        self._out = out
        self._dumps = 0

    def control(self, *arguments: str) -> None:
        """Tell callgrind in the process what to do."""
        command = ["callgrind_control", *arguments, str(self.pid)]
        subprocess.run(command, check=True, capture_output=True)

    def dump(self) -> int:
        """Write what was counted since the last dump and return its total."""
        self.control("--dump")
        self._dumps += 1
        found = re.search(r"^totals: (\d+)", Path(f"{self._out}.{self._dumps}").read_text(), re.M)
        return int(found[1]) if found else 0


def each(library: str, loop: str, row: Row, folder: Path) -> float:
    """Return the instructions of one work unit of a row.

    Raises:
        WorkerFailed: The library has no such row, or failed in it.
    """
    small = max(row.tiny, 100)
    large = small + max(row.tiny * 5, round(row.n * SHARE))
    worker = Counted(library, loop, row.name, folder / f"{row.name}.{library}.{loop}")
    try:
        _check(worker.answer())
        _check(worker.ask(small))
        worker.control("--instr=on")
        totals = []
        for n in (small, large):
            _check(worker.ask(n))
            totals.append(worker.dump())
    finally:
        worker.close()
    return (totals[1] - totals[0]) / (large - small)


def _check(answer: dict[str, Any]) -> None:
    for reason in ("absent", "missing", "failed"):
        if reason in answer:
            raise WorkerFailed(answer[reason])


def main() -> None:
    """Print for each row the instructions per work unit of each library, and the ratio."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.instructions", description=__doc__)
    p.add_argument("rows", nargs="+", choices=list(BY_NAME), metavar="ROW")
    p.add_argument("--libraries", default="asyncio,nurseryio", help=f"of {','.join(DEFAULT)}")
    p.add_argument("--loop", default=STOCK, choices=[STOCK, UVLOOP])
    p.add_argument("--keep", type=Path, help="keep callgrind's files in this folder")
    choice = p.parse_args()
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind is not installed")
    folder = choice.keep or Path(tempfile.mkdtemp(prefix="nurseryio-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in choice.rows:
        base = None
        for library in choice.libraries.split(","):
            if why_missing(LIBRARIES[library], choice.loop):
                continue
            try:
                cost = each(library, choice.loop, BY_NAME[name], folder)
            except WorkerFailed as error:
                print(f"{name:22} {library:18} SKIPPED: {error}", flush=True)
                continue
            base = base or cost
            print(f"{name:22} {library:18} {cost:12,.0f} {cost / base:6.2f}", flush=True)


if __name__ == "__main__":
    main()
