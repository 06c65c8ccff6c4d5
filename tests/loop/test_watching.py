"""Which loops can watch file descriptors, and what is said where one cannot."""

from __future__ import annotations

import asyncio
import os
import socket as stdlib
import subprocess
import sys
from typing import Any

import pytest
from harness import matrix

import nurseryio
from nurseryio import lowlevel, socket
from nurseryio._core.task import current_state
from nurseryio._loop import watching
from nurseryio._loop.watching import ask, can_watch, check_can_watch


@pytest.mark.parametrize("kind", [*matrix.KINDS, matrix.BLIND])
def test_a_loop_is_probed_for_add_reader_support(kind: str) -> None:
    loop = matrix.new_loop(kind)
    try:
        assert ask(loop) is (kind != matrix.BLIND)
    finally:
        loop.close()


def test_probing_add_reader_leaves_a_loop_unchanged() -> None:
    class Careless(asyncio.SelectorEventLoop):
        numbers: Any = ()

        def add_reader(self, fd: Any, *_args: Any) -> None:
            self.numbers = [*self.numbers, fd]

        def remove_reader(self, fd: Any) -> bool:
            self.numbers.remove(fd)
            return True

    loop = Careless()
    assert ask(loop)
    assert loop.numbers == []
    loop.close()


async def test_a_loop_is_probed_for_add_reader_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = current_state()
    assert can_watch(state)
    monkeypatch.setattr(watching, "ask", None)
    assert can_watch(state)
    check_can_watch("these")


def test_without_a_loop_add_reader_support_is_not_checked() -> None:
    check_can_watch("these")


CANNOT = r"need an event loop that can watch file descriptors, which BlindLoop cannot: use another"


@pytest.mark.blind_only
async def test_without_add_reader_sockets_and_pipes_are_refused_before_they_are_made() -> None:
    left, right = stdlib.socketpair()
    reading, writing = os.pipe()
    with left, right, stdlib.socket(type=stdlib.SOCK_DGRAM) as datagrams:
        for call in (
            lambda: socket.socket(type=socket.SOCK_DGRAM),
            lambda: socket.socketpair(type=socket.SOCK_DGRAM),
            lambda: socket.from_stdlib_socket(datagrams),
            lambda: socket.fromfd(datagrams.fileno(), socket.AF_INET, socket.SOCK_DGRAM),
            lambda: lowlevel.FdStream(reading),
        ):
            with pytest.raises(NotImplementedError, match=CANNOT):
                call()
        for wait in (lowlevel.wait_readable, lowlevel.wait_writable):
            with pytest.raises(NotImplementedError, match=CANNOT):
                await wait(left)
        lowlevel.notify_closing(left)
        assert os.get_blocking(reading)
    os.close(reading)
    os.close(writing)


@pytest.mark.blind_only
async def test_without_add_reader_processes_run_but_pipes_to_them_are_refused_first() -> None:
    assert (await nurseryio.run_process([sys.executable, "-c", ""])).returncode == 0
    for options in ({"capture_stdout": True}, {"capture_stderr": True}, {"stdin": b"x"}):
        with pytest.raises(NotImplementedError, match=f"pipes to child processes {CANNOT}"):
            await nurseryio.run_process(["no-such-program"], **options)  # type: ignore[call-overload]
    with pytest.raises(NotImplementedError, match=CANNOT):
        await lowlevel.open_process(["no-such-program"], stdin=subprocess.PIPE)


def test_without_add_reader_a_socket_made_before_the_loop_is_an_error_when_used() -> None:
    left, right = socket.socketpair()

    async def main() -> None:
        with pytest.raises(NotImplementedError, match=CANNOT):
            await nurseryio.SocketStream(left).receive_some()
        with pytest.raises(NotImplementedError, match=CANNOT):
            await left.wait_writable()

    with left, right:
        nurseryio.run(main, loop_factory=matrix.BlindLoop)
