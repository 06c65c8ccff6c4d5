"""The thread of a portal: its start, its end, and a thread that is interrupted while it waits."""

# Covered below 95 %: refused calls and forked children are in test_portal.py. Some branches are for
# Python 3.14 and for subinterpreters.

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

import nurseryio
from nurseryio import Cancelled, RunFinishedError
from nurseryio._portal import host as host_module
from nurseryio._portal.host import Host
from nurseryio.lowlevel import checkpoint


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host("host", None).start()
    yield made
    made.close(cancel=True)


def press_ctrl_c() -> None:
    """Send SIGINT to the main thread, as a terminal does."""
    # Python does not notice a signal that comes just before a thread begins to wait for a lock.
    time.sleep(0.02)
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


needs_signals_to_threads = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="a signal cannot be sent to one thread"
)


# -- the start ------------------------------------------------------------------


def test_an_error_of_the_loop_factory_is_raised_where_the_portal_is_opened() -> None:
    error = KeyError("no loop")

    def factory() -> NoReturn:
        raise error

    with pytest.raises(KeyError) as caught:
        Host("host", factory).start()
    assert caught.value is error
    assert not host_module._hosts


def test_a_host_whose_thread_cannot_be_started_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cannot(_self: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", cannot)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            Host("host", None).start()
    assert not host_module._hosts


@needs_signals_to_threads
def test_ctrl_c_while_a_portal_is_opened_ends_its_loop() -> None:
    pressed = threading.Event()
    loops = []

    def factory() -> Any:
        press_ctrl_c()
        pressed.wait(30)
        loops.append(asyncio.new_event_loop())
        return loops[0]

    with pytest.raises(KeyboardInterrupt):
        Host("host", factory).start()
    pressed.set()
    for thread in threading.enumerate():
        if thread.name == "host":
            thread.join(30)
    assert loops[0].is_closed()


# -- Ctrl-C while a thread waits --------------------------------------------------


@needs_signals_to_threads
def test_ctrl_c_in_a_waiting_thread_cancels_the_call_and_waits_for_its_cleanup(
    host: Host,
) -> None:
    events = []

    async def work() -> None:
        press_ctrl_c()
        try:
            await nurseryio.sleep_forever()
        except Cancelled as exc:
            events.append(str(exc.args[0].reason))
            with nurseryio.CancelScope(shield=True):
                for _ in range(10):
                    await checkpoint()
            events.append("cleaned up")
            raise

    with pytest.raises(KeyboardInterrupt):
        host.ask(host.nursery, work, ())
    assert events == ["the thread that waits for the call was interrupted", "cleaned up"]
    host.ask(host.nursery, checkpoint, ())


@needs_signals_to_threads
def test_an_error_of_the_cleanup_after_ctrl_c_is_the_context_of_the_interrupt(host: Host) -> None:
    error = KeyError("cleanup")

    async def work() -> None:
        press_ctrl_c()
        try:
            await nurseryio.sleep_forever()
        except Cancelled:
            raise error from None

    with pytest.raises(KeyboardInterrupt) as caught:
        host.ask(host.nursery, work, ())
    assert caught.value.__context__ is error


@needs_signals_to_threads
def test_a_second_ctrl_c_does_not_wait_for_the_cleanup_of_the_call(host: Host) -> None:
    go_on = host.ask_sync(nurseryio.Event)
    ended = host.ask_sync(nurseryio.Event)

    async def work() -> None:
        press_ctrl_c()
        try:
            await nurseryio.sleep_forever()
        finally:
            press_ctrl_c()
            with nurseryio.CancelScope(shield=True):
                await go_on.wait()
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        host.ask(host.nursery, work, ())
    assert not host.ask_sync(ended.is_set)
    host.ask_sync(go_on.set)
    host.ask(host.nursery, ended.wait, ())


@needs_signals_to_threads
def test_ctrl_c_while_a_portal_waits_for_calls_at_its_end_cancels_them() -> None:
    events = []
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await closing.wait()
            press_ctrl_c()
            await nurseryio.sleep_forever()
        finally:
            events.append("cleaned up")

    def call() -> None:
        with pytest.raises(RunFinishedError):
            host.ask(host.nursery, work, ())
        events.append("answered")

    host = Host("host", None).start()
    closing = host._closing
    thread = threading.Thread(target=call)
    thread.start()
    begun.wait()
    with pytest.raises(KeyboardInterrupt):
        host.close(cancel=False)
    thread.join()
    assert events == ["cleaned up", "answered"]
    assert host.over.is_set()
    host._thread.join()


@needs_signals_to_threads
def test_a_second_ctrl_c_does_not_wait_for_the_end_of_a_portal() -> None:
    go_on = threading.Event()
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await nurseryio.sleep_forever()
        finally:
            press_ctrl_c()
            with nurseryio.CancelScope(shield=True):
                await nurseryio.to_thread.run_sync(go_on.wait)

    def call() -> None:
        with pytest.raises(RunFinishedError):
            host.ask(host.nursery, work, ())

    host = Host("host", None).start()
    thread = threading.Thread(target=call)
    thread.start()
    begun.wait()
    with pytest.raises(KeyboardInterrupt):
        host.close(cancel=True)
    assert not host.over.is_set()
    assert host not in host_module._hosts  # the end of the program will not wait for it
    go_on.set()
    thread.join()
    host._thread.join()


def test_the_end_of_the_program_ends_all_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = [Host(f"host {number}", None).start() for number in range(3)]
    host_module._end_all()
    assert all(host.over.is_set() for host in hosts)
