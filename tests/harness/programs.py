"""Programs run as separate processes: the examples, and programs written for Trio.

This module starts a program on a chosen loop, reads its output while it runs, ends it, and compares
output in which the order inside a tick does not matter. The expected output of each program is in
the tests.

Rule 1: nothing waits for a fixed time; a wait is ended by a line, an end of file or the end of a
process, and the time limit of the test is the last resort.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import matrix, source

EXAMPLES = source.ROOT / "examples"
LOOPS = [kind for kind in ("stock", "uvloop") if kind in matrix.KINDS]

# Seconds that a program is given to begin listening, or to end.
PATIENCE = 30.0

# Has every loop that a program makes be one of uvloop's; argv is that of the program.
ON_UVLOOP = """
import asyncio, os, runpy, sys, uvloop
asyncio.new_event_loop = asyncio.events.new_event_loop = uvloop.new_event_loop
del sys.argv[0]
sys.path[0] = os.path.dirname(sys.argv[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Program:
    """A program that runs. Made by :func:`started`.

    Attributes:
        lines: what it has printed so far, as far as it was read.
        pid: its process id.
        returncode: its exit code, once :meth:`end` has been called; negative for a signal.
        errors: what it wrote to stderr, likewise.
    """

    def __init__(self, process: subprocess.Popen[str], errors: tempfile._TemporaryFileWrapper[str]):
        self._process = process
        self._errors = errors
        self.pid = process.pid
        self.lines: list[str] = []
        self.returncode: int | None = None
        self.errors = ""

    def read_until(self, text: str) -> str:
        """Read lines until one holds ``text``, and return that one."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return line
        raise AssertionError(f"ended without {text!r}\n{self.lines}\n{self._stderr()}")

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.send_signal(signal.SIGINT)

    def interrupt_and_wait_for(self, text: str) -> None:
        """Press Ctrl-C, and wait until the program has written ``text`` to stderr."""
        self.interrupt()
        give_up = time.monotonic() + PATIENCE
        # Not by seek(), because the program writes where the common position is.
        while text.encode() not in os.pread(self._errors.fileno(), 1 << 20, 0):
            assert time.monotonic() < give_up, text
            assert self._process.poll() is None, text
            time.sleep(0.01)

    def interrupt_until_it_ends(self) -> None:
        """Press Ctrl-C again: signals that come too close together are one."""
        give_up = time.monotonic() + PATIENCE
        while self._process.poll() is None:
            assert time.monotonic() < give_up
            self.interrupt()
            time.sleep(0.05)
        self.end()

    def send_signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def end(self) -> list[str]:
        """Wait for the end, and return all that was printed."""
        assert self._process.stdout is not None
        self.lines += self._process.stdout.read().splitlines()
        self.returncode = self._process.wait(PATIENCE)
        self.errors = self._stderr()
        return self.lines

    def _stderr(self) -> str:
        self._errors.seek(0)
        return self._errors.read()


@contextlib.contextmanager
def started(
    file: Path | str, *args: object, loop: str = "stock", warnings: str = "error"
) -> Iterator[Program]:
    """Start a program; it is killed at the end of the block if it is still running.

    Args:
        file: the program's file.
        args: the arguments of its command line.
        loop: "stock" or "uvloop".
        warnings: the treatment of warnings, as for ``python -W``.
    """
    python = [sys.executable, "-u", "-W", warnings]
    command = [*python, *(["-c", ON_UVLOOP] if loop == "uvloop" else []), str(file)]
    paths = [str(source.ROOT), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [*command, *map(str, args)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
        with process:
            try:
                yield Program(process, errors)
            finally:
                process.kill()


def run(file: Path | str, *args: object, loop: str = "stock", warnings: str = "error") -> Program:
    """Run a program to its end; for the arguments see :func:`started`."""
    with started(file, *args, loop=loop, warnings=warnings) as program:
        program.end()
    return program


# -- servers --------------------------------------------------------------------


def connect(port: int) -> socket.socket:
    """Connect to a server that is about to start."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        except ConnectionRefusedError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """The next ``size`` bytes that arrive; fewer only if the peer ends the connection."""
    received = b""
    while len(received) < size and (data := sock.recv(size - len(received))):
        received += data
    return received


# -- comparing ------------------------------------------------------------------


def ticks(text: str) -> list[list[str]]:
    """The ticks of an expected output, which empty lines keep apart."""
    return [tick.splitlines() for tick in re.split(r"\n\n+", text.strip("\n"))]


def assert_same_but_for_order_inside_ticks(lines: list[str], expected: str) -> None:
    """Compare what was printed with an expected output, see :func:`ticks`."""
    rest = list(lines)
    for tick in ticks(expected):
        assert sorted(rest[: len(tick)]) == sorted(tick), "\n".join(lines)
        del rest[: len(tick)]
    assert not rest
