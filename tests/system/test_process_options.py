"""The types of what a child may be started with say what ``subprocess.Popen`` takes."""

from __future__ import annotations

import inspect
import subprocess

from nurseryio._system.process import _NOT_FOR_BYTE_STREAMS
from nurseryio._system.process_options import ProcessOptions, RunOptions

# Arguments of nurseryio's functions.
OURS = {"args", "stdin", "stdout", "stderr"}


def test_process_options_type_has_every_popen_option_except_the_refused() -> None:
    popens = set(inspect.signature(subprocess.Popen).parameters)
    ours = set(ProcessOptions.__optional_keys__)
    assert popens - OURS - set(_NOT_FOR_BYTE_STREAMS) <= ours
    assert not ours & set(_NOT_FOR_BYTE_STREAMS)


def test_process_options_type_has_no_option_that_popen_never_takes() -> None:
    popens = set(inspect.signature(subprocess.Popen).parameters)
    assert ProcessOptions.__optional_keys__ - popens <= {"process_group"}


def test_run_process_options_include_stdin_stdout_and_stderr() -> None:
    assert RunOptions.__optional_keys__ - ProcessOptions.__optional_keys__ == {"stdout", "stderr"}
    assert not RunOptions.__required_keys__
