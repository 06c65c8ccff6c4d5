"""Programs with worker processes: their main modules, input and output, Ctrl-C, a sudden end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from harness.worker_jobs import a_fifo, is_there, run_program, start_program

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="looks at processes as Unix has them"),
    pytest.mark.limit(60),
]

# -- ends of programs -----------------------------------------------------------

PROGRAM = """
import os, signal, sys
import nurseryio
from nurseryio import to_process
from harness import worker_jobs


async def main():
    async with nurseryio.open_nursery() as nursery:
        job = worker_jobs.Job({fifo!r})
        nursery.start_soon(job.run)
        {then}


if __name__ == "__main__":
    nurseryio.run(main)
"""


@pytest.mark.parametrize("forks_first", [False, True])
def test_a_worker_process_ends_in_mid_call_when_its_parent_is_killed(forks_first: bool) -> None:
    """Also if a forked child of the parent lives on, which has copies of the same descriptors."""
    then = "pass"
    if forks_first:
        then = "await job.pid(); os.fork() and print('forked', flush=True); os.read(0, 1)"
    with a_fifo() as fifo:
        process = start_program(PROGRAM.format(fifo=fifo, then=then), stdin=subprocess.PIPE)
        assert process.stdin and process.stdout and process.stderr
        with process.stdin, process.stdout, process.stderr:
            if forks_first:
                assert process.stdout.readline() == b"forked\n"
            with open(fifo) as end:
                if not forks_first:
                    assert int(end.readline())
                process.kill()
                # The worker alone has the other end of this pipe.
                assert end.read() == ""
            assert process.wait() == -signal.SIGKILL


def test_ctrl_c_in_a_terminal_ends_the_program_and_its_workers_with_one_traceback() -> None:
    with a_fifo() as fifo:
        # A terminal sends the signal to the whole process group.
        then = "print(await job.pid(), flush=True); os.killpg(0, signal.SIGINT)"
        status, output, errors = run_program(PROGRAM.format(fifo=fifo, then=then))
    assert status == -signal.SIGINT
    assert errors.count("Traceback (most recent call last)") == 1
    assert not is_there(int(output))


# -- the main module, input and output --------------------------------------------


def test_a_worker_process_has_the_functions_of_the_main_module_and_its_output_and_no_input() -> (
    None
):
    code = """
import os, sys
import nurseryio
from nurseryio import to_process

def job():
    print("printed", __name__)
    return sys.stdin.read(), os.read(0, 10)

if __name__ == "__main__":
    print(nurseryio.run(to_process.run_sync, job), flush=True)
    print(sys.stdin.read())
"""
    reader, writer = os.pipe()
    os.write(writer, b"for the program")
    os.close(writer)
    status, output, errors = run_program(code, stdin=reader)
    os.close(reader)
    assert (status, errors) == (0, "")
    assert output.splitlines() == ["printed __mp_main__", "('', b'')", "for the program"]


def test_a_main_module_that_starts_the_program_at_its_import_is_an_error_that_says_so() -> None:
    code = """
import nurseryio
from nurseryio import to_process

nurseryio.run(to_process.run_sync, int)
"""
    status, _, errors = run_program(code)
    assert status == 1
    assert "exited with status 1 before it could call a function" in errors
    assert "if __name__ == '__main__':" in errors


def test_a_function_of_a_main_program_without_a_file_is_an_error_that_says_so() -> None:
    code = """
import nurseryio, sys
from nurseryio import to_process

del sys.modules["__main__"].__file__
def job(): pass

if __name__ == "__main__":
    sys.modules["__main__"].__spec__ = None
    nurseryio.run(to_process.run_sync, job)
"""
    status, _, errors = run_program(code)
    assert status == 1
    assert "UnpicklingError: the worker cannot load the function or an argument" in errors
    if sys.version_info >= (3, 11):
        assert "put the function into another module" in errors
