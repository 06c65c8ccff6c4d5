"""A process for one probe.

`python -m benchmarks.scale.worker LIBRARY LOOP PROBE AMOUNT` prints one line of JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from ..libraries import LIBRARIES, failure, start

FILES = {"asyncio": "asyncio_probes", "anyio": "anyio_probes"}


def main(library_name: str, loop: str, probe: str, amount: str) -> None:
    """Run one probe and print what it found, or why it could not."""
    library = LIBRARIES[library_name]
    os.environ.update(library.environment())
    answer: dict[str, Any]
    try:
        module = importlib.import_module(f"{__package__}.{FILES.get(library_name, 'trio_probes')}")
        answer = start(library.starter, loop, getattr(module, probe), json.loads(amount))
    except Exception as error:
        answer = failure(error)
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
