"""The wake-up descriptor: a loop that sleeps hears of signals, whichever thread they interrupt."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading

import nurseryio
from nurseryio import to_thread
from nurseryio._core.wakeup import SignalWakeup

TIMEOUT = 30.0


async def test_a_handler_is_called_while_the_loop_has_nothing_else_to_do() -> None:
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


async def test_a_descriptor_that_somebody_has_set_stays() -> None:
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


async def test_one_that_the_loop_sets_meanwhile_stays() -> None:
    loop = asyncio.get_running_loop()
    wakeup = SignalWakeup()
    wakeup.install(loop)
    loop.add_signal_handler(signal.SIGUSR1, str)
    wakeup.remove()
    current = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(current)
    assert current != -1
    loop.remove_signal_handler(signal.SIGUSR1)


async def test_installing_and_removing_may_be_said_twice() -> None:
    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    wakeup = SignalWakeup()
    wakeup.remove()
    for _ in range(2):
        wakeup.install(asyncio.get_running_loop())
    for _ in range(2):
        wakeup.remove()
    assert signal.set_wakeup_fd(before) == before
