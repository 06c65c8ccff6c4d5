"""A server process of the network rows.

Started as `python -m benchmarks.network.server FILE STARTER LOOP KIND [CERTIFICATE]`. It prints its
port as a line of JSON and then answers every line on its standard input with the CPU seconds and
the resident bytes of the process; it ends at end of file. The answers come from a thread of their
own that sleeps in between.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import threading
import time
from typing import Any

from ..libraries import failure, start


def tell(**answer: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(answer), flush=True)


def resident() -> int:
    """Return the bytes of memory that this process has resident now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def answer_questions() -> None:
    """Tell the time that this process has used, whenever asked.

    End the process with its standard input.
    """
    for _ in sys.stdin:
        tell(cpu=time.process_time(), resident=resident())
    os._exit(0)


def main(file: str, starter: str, loop: str, kind: str, chain: str | None = None) -> None:
    """Serve until standard input ends."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    context = None
    if chain is not None:
        from .certificate import server_context

        context = server_context(chain)
    module = importlib.import_module(f"{__package__}.servers.{file}")

    def announce(port: int) -> None:
        threading.Thread(target=answer_questions, daemon=True).start()
        tell(port=port)

    try:
        start(starter, loop, module.serve, kind, context, announce)
    except Exception as error:
        tell(**failure(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
