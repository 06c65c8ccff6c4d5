"""The parts of multiprocessing that workers need: the main module, and the start of a process."""

from __future__ import annotations

import multiprocessing
import sys
from typing import Any

import pytest
from harness import worker_jobs

from nurseryio._workers.spawning import preparation, prepare, spawn_process


def test_a_spawned_process_is_not_in_the_table_of_children_of_multiprocessing() -> None:
    popen = spawn_process(worker_jobs.leave, 3)
    assert multiprocessing.active_children() == []
    assert popen.wait() == 3
    popen.close()


def test_a_preparation_has_the_path_and_the_main_module_only() -> None:
    data = preparation()
    assert data["sys_path"]
    assert set(data) <= {"sys_path", "init_main_from_name", "init_main_from_path"}


def test_a_worker_that_is_importing_the_main_module_cannot_start_another_one() -> None:
    seen: list[str] = []

    class Main(dict[str, Any]):
        """The data of a preparation, during which the main module asks for a worker."""

        def __contains__(self, _name: object) -> bool:
            if not seen:
                with pytest.raises(RuntimeError, match="bootstrapping phase") as caught:
                    preparation()
                seen.append(str(caught.value))
            return False

    path = list(sys.path)
    prepare(Main())
    assert seen
    assert preparation()
    assert sys.path == path
