"""A benchmark process: one library, one micro row, one loop.

Started as `python -m benchmarks.worker LIBRARY LOOP ROW`. It answers each number n on its standard
input with one line of JSON: the seconds that n work units took and how many were counted. It ends
at end of file. A round uses a loop of its own, so nothing is carried over but warm code.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from .libraries import LIBRARIES, Library, failure, idiom, start
from .stopwatch import Stopwatch

RowFunction = Callable[[int, Stopwatch], Awaitable[int]]


class NoSuchRow(Exception):
    """The library has no idiom for this row."""


def row_function(library: Library, row: str) -> RowFunction:
    """Return the library's function for a row.

    Raises:
        NoSuchRow: The library's file has none.
    """
    function: RowFunction | None = getattr(idiom(library), row, None)
    if function is None:
        raise NoSuchRow(f"{library.name} has no idiom for it")
    return function


def measure(library: Library, loop: str, function: RowFunction, n: int) -> dict[str, Any]:
    """Run a row once with n work units and return seconds and count."""
    watch = Stopwatch()
    count = start(library.starter, loop, function, n, watch)
    return {"cpu": watch.cpu, "wall": watch.wall, "count": count}


def main(library_name: str, loop: str, row: str) -> None:
    """Serve rounds until standard input ends."""
    library = LIBRARIES[library_name]
    try:
        function = row_function(library, row)
    except NoSuchRow as error:
        print(json.dumps({"absent": str(error)}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        try:
            answer = measure(library, loop, function, int(line))
        except Exception as error:
            answer = failure(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
