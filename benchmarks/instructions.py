"""A micro row's cost in machine instructions: `python -m benchmarks.instructions ROW [...]`.

Counted by `valgrind --tool=callgrind`: slow, but the same number in every run to about a
thousandth, however busy the machine is. Instructions are not time (cache misses and the kernel are
missing), so this finds what a change did to a row; the verdict on a row comes from the timings.

Each row is run with two sizes and the difference taken, so that starting the interpreter does not
count. `--keep DIR` keeps callgrind's own files, to be read by `callgrind_annotate` or KCachegrind.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .harness import ROOT, python_path
from .libraries import DEFAULT, LIBRARIES, STOCK, UVLOOP, why_missing
from .rows import BY_NAME, Row

SHARE = 0.1
"""Part of a row's full size that the larger run has more than the smaller: valgrind is slow."""


def count(library: str, loop: str, row: Row, n: int, folder: Path) -> int:
    """Return the instructions of a process that runs a row once with n work units.

    Raises:
        RuntimeError: valgrind or the row failed.
    """
    out = folder / f"callgrind.{row.name}.{library}.{loop}.{n}"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", sys.executable]
    done = subprocess.run(
        [*command, "-m", "benchmarks.worker", library, loop, row.name],
        input=f"{n}\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            **LIBRARIES[library].environment(),
            "PYTHONPATH": python_path(),
            "PYTHONHASHSEED": "0",
        },
        check=False,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if '"count"' not in done.stdout or found is None:
        raise RuntimeError(done.stdout.strip() or done.stderr.strip()[-500:])
    return int(found[1])


def each(library: str, loop: str, row: Row, folder: Path) -> float:
    """Return the instructions of one work unit of a row."""
    small = max(row.tiny, 100)
    large = small + max(row.tiny * 5, round(row.n * SHARE))
    more = count(library, loop, row, large, folder) - count(library, loop, row, small, folder)
    return more / (large - small)


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
            except RuntimeError as error:
                print(f"{name:22} {library:18} SKIPPED: {error}", flush=True)
                continue
            base = base or cost
            print(f"{name:22} {library:18} {cost:12,.0f} {cost / base:6.2f}", flush=True)


if __name__ == "__main__":
    main()
