"""Failing system calls: whatever the system returns, no hang, no lost descriptor, no wrong data.

A bounded part of the runs of ``harness/syscall_injection.py``; ``make syscalls`` makes all of them.
The harness forks, so it runs in a separate process.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from harness import syscall_injection, syscall_programs, syscalls
from harness.syscall_injection import Run, aims
from harness.syscalls import Aim, Faults

import nurseryio

TESTS = Path(__file__).parent
PATHS = [str(TESTS), str(Path(nurseryio.__file__).parents[1])]

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="the errors are those of Linux's manual pages"
)


@pytest.mark.limit(300)
def test_syscall_injection_at_a_sample_of_system_calls_breaks_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "harness.syscall_injection", "--sample", "--quiet"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# -- the harness notices ----------------------------------------------------------


async def hides(run: Run) -> None:
    """Takes no notice of an error."""
    try:
        with nurseryio.socket.socket() as sock:
            await sock.bind(("127.0.0.1", 0))
    except OSError:
        pass


async def leaks(run: Run) -> None:
    """Leaves a socket open when an error comes."""
    try:
        sock = nurseryio.socket.socket()
        await sock.bind(("127.0.0.1", 0))
        sock.close()
    except OSError as error:
        run.caught(error)
        LEAKED.append(sock)


async def repeats(run: Run) -> None:
    """Reports an error twice."""
    try:
        with nurseryio.socket.socket() as sock:
            await sock.bind(("127.0.0.1", 0))
    except OSError as error:
        run.caught(error)
        run.caught(error)


async def garbles(run: Run) -> None:
    """Receives what was not sent."""
    with nurseryio.socket.socket() as sock:
        try:
            await sock.bind(("127.0.0.1", 0))
        except OSError as error:
            run.caught(error)
            run.data("somebody", b"abc", b"abd")


async def stumbles(run: Run) -> None:
    """Raises another error in its ``finally``."""
    try:
        with nurseryio.socket.socket() as sock:
            await sock.bind(("127.0.0.1", 0))
    except OSError as error:
        raise KeyError("sock") from error


async def breaks_the_loop(run: Run) -> None:
    """Has the loop report an error."""
    try:
        with nurseryio.socket.socket() as sock:
            await sock.bind(("127.0.0.1", 0))
    except OSError as error:
        run.caught(error)
        nurseryio.lowlevel.current_task().asyncio_task.get_loop().call_soon(lambda: 1 / 0)


LEAKED: list[Any] = []

FLAWS = [
    (hides, "lost"),
    (leaks, "descriptor left"),
    (repeats, "twice"),
    (garbles, "wrong data"),
    (stumbles, "confused"),
    (breaks_the_loop, "loop handler"),
]


@pytest.mark.parametrize(("program", "kind"), FLAWS)
def test_syscall_injection_finds_a_planted_flaw(
    monkeypatch: pytest.MonkeyPatch, program: syscall_programs.Program, kind: str
) -> None:
    monkeypatch.setitem(syscall_injection.PROGRAMS, "flawed", program)
    good = Run("flawed", "stock", None).run()
    assert good.faults == [] and good.counts["bind"] == 1
    result = Run("flawed", "stock", Aim("bind", 1, "EADDRINUSE")).run()
    while LEAKED:
        LEAKED.pop().close()
    assert [found for found, _ in result.faults] == [kind]


def test_injected_system_calls_fail_as_planned_and_work_again_afterwards() -> None:
    with Faults(Aim("socket", 2, "EMFILE", times=2)) as faults:
        faults.active = True
        # Not on behalf of the library.
        socket.socket().close()
        nurseryio.socket.socket().close()
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                nurseryio.socket.socket()
            assert caught.value.errno == errno.EMFILE
        nurseryio.socket.socket().close()
    assert faults.counts["socket"] == 4
    assert [error for error in faults.raised if isinstance(error, OSError)] == faults.raised
    assert "__init__" not in vars(socket.socket) or not hasattr(socket.socket.__init__, "check")


def test_syscall_injection_runs_depend_on_the_seed_and_the_calls_alone() -> None:
    counts = Counter({"recv": 20, "bind": 1})
    chosen = aims(counts, Random(1))
    assert chosen == aims(counts, Random(1))
    assert {aim.occurrence for aim in chosen if aim.call == "bind"} == {1}
    occurrences = {aim.occurrence for aim in chosen if aim.call == "recv"}
    assert {1, 2, 3, 20} < occurrences and len(occurrences) == syscall_injection.MOST_OCCURRENCES


def test_each_injected_errno_exists_and_each_system_call_can_be_made() -> None:
    for call, names in syscalls.ERRORS.items():
        for name in names:
            if name == syscalls.SHORT:
                continue
            assert isinstance(syscalls.make_error(name), OSError), (call, name)
    for rule in syscall_injection.ABSORBED:
        call, _, program = rule.partition(" in ")
        assert call in syscalls.ERRORS and (not program or program in syscall_programs.PROGRAMS)
