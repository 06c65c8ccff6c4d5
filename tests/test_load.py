"""A web service under load, with clients that disconnect at random, leaks nothing.

``NURSERYIO_VISITS`` sets how many clients come to each loop's service, for longer runs.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from typing import Any

import httpx
import pytest
from harness import programs, rude_clients, servers
from harness.programs import EXAMPLES, LOOPS, PATIENCE

import nurseryio

VISITS = int(os.environ.get("NURSERYIO_VISITS", "500"))
# The first ones fill caches, free lists and the pool of threads.
WARMING_UP = 500
AT_A_TIME = 50

# Memory that a process may have gained in the end, in bytes. If only the request of each visit
# were kept, 500 visits would take over 4 MB. The measured gain is 1 MB at most, and less with
# each visit.
MAY_GROW = 2_500_000

PATH = "/quotes?patience=0.05"


def visit(port: int, count: int) -> dict[str, int]:
    return nurseryio.run(
        functools.partial(rude_clients.visits, port, PATH, count, at_a_time=AT_A_TIME)
    )


def health(port: int) -> dict[str, Any]:
    return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False).raise_for_status().json()


@servers.needs_packages("fastapi", "uvicorn")
@pytest.mark.skipif(sys.platform != "linux", reason="looks at the service by /proc")
@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.limit(60 + VISITS / 20)
def test_clients_that_disconnect_at_random_leave_nothing_behind(loop: str) -> None:
    example = EXAMPLES / "frameworks" / "fastapi_service.py"
    with programs.started(example, loop=loop, warnings="default") as service:
        port = int(service.read_until("listening on port").split()[-1])
        idle = health(port)
        assert idle["loop"].startswith("uvloop" if loop == "uvloop" else "asyncio")
        files = rude_clients.open_files_of(service.pid)
        visit(port, WARMING_UP)
        memory = rude_clients.memory_of(service.pid)

        tally = visit(port, VISITS)
        assert len(tally) == 4
        give_up = time.monotonic() + PATIENCE
        while health(port) != idle or rude_clients.open_files_of(service.pid) > files:
            assert time.monotonic() < give_up, f"{health(port)}, and when it was idle {idle}"
        assert rude_clients.memory_of(service.pid) - memory < MAY_GROW

        service.interrupt()
        service.end()
    assert (service.returncode, service.errors) == (0, "")
