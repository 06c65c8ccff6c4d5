"""The wake-up descriptor: a signal wakes a sleeping loop, whichever thread it interrupts."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from typing import Any

import pytest

import nurseryio
from nurseryio import to_thread
from nurseryio._base import signal_wakeup as wakeup_module
from nurseryio._base.signal_wakeup import SignalWakeup

TIMEOUT = 30.0


async def test_a_signal_handler_is_called_while_the_loop_is_idle() -> None:
    over = threading.Event()
    woken = asyncio.Event()

    def in_thread() -> None:
        signal.raise_signal(signal.SIGUSR1)  # interrupts this thread
        assert over.wait(TIMEOUT)

    async def until_woken() -> None:
        await woken.wait()
        over.set()

    wakeup = SignalWakeup()
    wakeup.install(asyncio.get_running_loop())
    before = signal.signal(signal.SIGUSR1, lambda *_: woken.set())
    try:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(until_woken)
            nursery.start_soon(to_thread.run_sync, in_thread)
    finally:
        signal.signal(signal.SIGUSR1, before)
        wakeup.remove()


async def test_a_wakeup_fd_set_before_by_other_code_stays() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno())
        try:
            wakeup = SignalWakeup()
            wakeup.install(asyncio.get_running_loop())
            assert signal.set_wakeup_fd(theirs.fileno()) == theirs.fileno()
            wakeup.remove()
        finally:
            assert signal.set_wakeup_fd(before) == theirs.fileno()


async def test_a_wakeup_fd_that_the_loop_sets_meanwhile_stays() -> None:
    loop = asyncio.get_running_loop()
    wakeup = SignalWakeup()
    wakeup.install(loop)
    loop.add_signal_handler(signal.SIGUSR1, str)
    wakeup.remove()
    current = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(current)
    assert current != -1
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_install_and_remove_of_the_signal_wakeup_are_idempotent() -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    wakeup = SignalWakeup()
    wakeup.remove()
    for _ in range(2):
        wakeup.install(asyncio.get_running_loop())
    for _ in range(2):
        wakeup.remove()
    assert signal.set_wakeup_fd(before) == before


async def test_a_signal_wakeup_whose_install_fails_restores_the_wakeup_fd(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = signal.set_wakeup_fd(-1)
    real = signal.set_wakeup_fd

    def set_and_fail(*args: Any, **kwargs: Any) -> int:
        real(*args, **kwargs)
        raise MemoryError

    wakeup = SignalWakeup()
    loop = asyncio.get_running_loop()
    try:
        if wakeup_module.loop_parts.waking_descriptor(loop) is None:
            wakeup.install(loop)  # uvloop wakes itself
        else:
            with monkeypatch.context() as patch:
                patch.setattr(signal, "set_wakeup_fd", set_and_fail)
                with pytest.raises(MemoryError):
                    wakeup.install(loop)
        wakeup.remove()
        assert real(-1) == -1
    finally:
        real(before)
