"""Many event loops in many threads: a bounded part of ``python -m harness.thread_stress``.

It runs in a process of its own, because it changes how often threads are switched, collects garbage
itself, and makes ``import trio`` give this library. ``NURSERYIO_SEED`` sets the first seed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SECONDS = 2
SEED = os.environ.get("NURSERYIO_SEED", "1")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends SIGUSR1")


@pytest.mark.limit(120)
def test_many_loops_in_many_threads_lose_no_call_error_or_signal_and_leave_nothing() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "harness.thread_stress", "--seconds", f"{SECONDS}", "--seed", SEED],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=110,
    )
    text = ended.stdout + ended.stderr
    assert ended.returncode == 0, text
    counts = dict(re.findall(r"^([a-z_ ]+): (\d+)$", ended.stdout, re.MULTILINE))
    assert int(counts["lives"]) >= 24 * int(counts["rounds"]), text
    assert int(counts["functions accepted"]) > 0
    assert f"0 faults, first seed {SEED}" in ended.stdout
