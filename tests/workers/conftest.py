"""Each worker is gone after its test, and multiprocessing's own process after the tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import resource_tracker

import pytest
from harness import worker_jobs


@pytest.fixture(scope="package", autouse=True)
def no_resource_tracker_is_left() -> Iterator[None]:
    if os.name != "posix":
        yield
        return
    # Otherwise the first test would leave its descriptor behind.
    resource_tracker.ensure_running()
    yield
    worker_jobs.stop_resource_tracker()
