"""Waiting for signals."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from harness import matrix
from harness.resisting import Frozen, make

import nurseryio
from nurseryio import CancelScope, open_nursery, open_signal_receiver, to_thread
from nurseryio.lowlevel import checkpoint, current_trio_token

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses signals of Unix")

TIMEOUT = 10.0
ONE, TWO = signal.SIGUSR1, signal.SIGUSR2


@pytest.fixture(autouse=True)
def handlers_are_put_back() -> Iterator[None]:
    """After each test the handlers and the wake-up descriptor are those from before."""
    before = [signal.getsignal(number) for number in (ONE, TWO)]
    yield
    assert [signal.getsignal(number) for number in (ONE, TWO)] == before
    assert signal.set_wakeup_fd(-1) == -1


class Handlers:
    """Handlers of the program's own for both signals."""

    def __init__(self) -> None:
        self.called: list[int] = []

    def __enter__(self) -> Handlers:
        self._before = {number: signal.signal(number, self._handle) for number in (ONE, TWO)}
        return self

    def __exit__(self, *_exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, signum: int, _frame: object) -> None:
        self.called.append(signum)


async def until_noted() -> None:
    """Wait until the loop has made the calls that signal handlers have asked for."""
    noted = nurseryio.Event()
    current_trio_token().run_sync_soon(noted.set, idempotent=True)
    await noted.wait()


# -- receiving ------------------------------------------------------------------


async def test_open_signal_receiver_receives_a_signal_and_calls_no_handler() -> None:
    with Handlers() as handlers:
        with open_signal_receiver(ONE) as received:
            signal.raise_signal(ONE)
            async for signum in received:
                assert signum == ONE
                break
        assert handlers.called == []


async def test_a_signal_wakes_a_task_that_iterates_the_signal_receiver() -> None:
    async with open_nursery() as nursery:
        with open_signal_receiver(ONE) as received:
            nursery.start_soon(received.__anext__)
            for _ in range(5):
                await checkpoint()
            os.kill(os.getpid(), ONE)
            while nursery.child_tasks:
                await checkpoint()


async def test_a_signal_that_interrupts_another_thread_wakes_the_loop_too() -> None:
    seen = threading.Event()

    def in_thread() -> bool:
        signal.raise_signal(ONE)  # of this thread alone
        return seen.wait(TIMEOUT)

    with open_signal_receiver(ONE) as received:
        async with open_nursery() as nursery:
            nursery.start_soon(to_thread.run_sync, in_thread)
            assert await received.__anext__() == ONE
            seen.set()


async def test_a_signal_that_arrives_several_times_before_it_is_received_counts_once() -> None:
    with open_signal_receiver(ONE, TWO) as received:
        for _ in range(3):
            signal.raise_signal(ONE)
            await until_noted()
        signal.raise_signal(TWO)
        await until_noted()
        assert [await received.__anext__(), await received.__anext__()] == [ONE, TWO]
        with nurseryio.move_on_after(0) as scope:
            await received.__anext__()
        assert scope.cancelled_caught


async def test_fairness_no_signal_starves_the_others() -> None:
    with open_signal_receiver(ONE, TWO) as received:
        got = []
        for _ in range(6):
            signal.raise_signal(ONE)
            signal.raise_signal(TWO)
            await until_noted()
            got.append(await received.__anext__())
        assert got in ([ONE, TWO] * 3, [TWO, ONE] * 3)
        await received.__anext__()


async def test_a_cancelled_signal_receiver_loses_no_signal() -> None:
    with open_signal_receiver(ONE) as received:
        with CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            await received.__anext__()
        assert scope.cancelled_caught
        signal.raise_signal(ONE)
        await until_noted()
        with CancelScope() as scope:
            scope.cancel()
            await received.__anext__()
        assert scope.cancelled_caught
        assert await received.__anext__() == ONE


async def test_a_native_cancel_of_a_signal_receiver_loses_no_signal() -> None:
    with open_signal_receiver(ONE) as received:
        task = asyncio.get_running_loop().create_task(received.__anext__())  # type: ignore[arg-type]
        await checkpoint()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        signal.raise_signal(ONE)
        assert await received.__anext__() == ONE


async def test_each_step_of_a_signal_receiver_is_a_checkpoint() -> None:
    order = []

    async def other() -> None:
        order.append("other")

    with open_signal_receiver(ONE) as received:
        signal.raise_signal(ONE)
        await until_noted()
        async with open_nursery() as nursery:
            nursery.start_soon(other)
            await received.__anext__()
            order.append("received")
    assert order == ["other", "received"]


# -- leaving --------------------------------------------------------------------


async def test_a_signal_queued_but_not_received_is_raised_again_for_the_previous_handler() -> None:
    with Handlers() as handlers:
        with open_signal_receiver(ONE, TWO):
            signal.raise_signal(TWO)
            signal.raise_signal(ONE)
            await until_noted()
            assert handlers.called == []
        assert sorted(handlers.called) == [ONE, TWO]


async def test_a_signal_that_was_not_even_queued_is_raised_again_for_the_previous_handler() -> None:
    with Handlers() as handlers:
        with open_signal_receiver(ONE, TWO):
            signal.raise_signal(TWO)
            signal.raise_signal(ONE)
        await until_noted()
        assert sorted(handlers.called) == [ONE, TWO]


async def test_a_signal_that_was_ignored_before_is_ignored_again() -> None:
    before = signal.signal(ONE, signal.SIG_IGN)
    try:
        with open_signal_receiver(ONE):
            signal.raise_signal(ONE)
            await until_noted()
    finally:
        signal.signal(ONE, before)


async def test_all_previous_handlers_are_called_although_they_raise() -> None:
    def fail(signum: int, _frame: object) -> NoReturn:
        raise RuntimeError(signum)

    before = {number: signal.signal(number, fail) for number in (ONE, TWO)}
    try:
        with pytest.raises(RuntimeError) as caught:
            with open_signal_receiver(ONE, TWO):
                signal.raise_signal(ONE)
                signal.raise_signal(TWO)
                await until_noted()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert isinstance(caught.value.__context__, RuntimeError)
    assert {caught.value.args[0], caught.value.__context__.args[0]} == {ONE, TWO}


async def test_a_signal_receiver_after_its_block_is_an_error() -> None:
    with open_signal_receiver(ONE) as received:
        pass
    with pytest.raises(RuntimeError, match="block already exited"):
        await received.__anext__()


async def test_signal_receivers_may_be_nested() -> None:
    with open_signal_receiver(ONE) as outer:
        with open_signal_receiver(ONE) as inner:
            signal.raise_signal(ONE)
            assert await inner.__anext__() == ONE
            signal.raise_signal(ONE)
            await until_noted()
        # Signals that the inner receiver has not received go to the outer one.
        assert await outer.__anext__() == ONE


# -- misuse ---------------------------------------------------------------------


async def test_open_signal_receiver_needs_a_signal() -> None:
    with pytest.raises(TypeError, match="No signals were provided"):
        open_signal_receiver().__enter__()
    with pytest.raises(TypeError, match=r"numbers, such as signal.SIGTERM, not 'SIGHUP'"):
        open_signal_receiver("SIGHUP").__enter__()  # type: ignore[arg-type]


async def test_open_signal_receiver_takes_a_signal_named_twice() -> None:
    with open_signal_receiver(ONE, ONE) as received:
        signal.raise_signal(ONE)
        assert await received.__anext__() == ONE


async def test_open_signal_receiver_with_a_bad_signal_restores_the_handlers_of_the_others() -> None:
    with pytest.raises(ValueError, match="signal"):
        open_signal_receiver(ONE, 12345).__enter__()
    with pytest.raises(OSError):
        open_signal_receiver(ONE, signal.SIGKILL).__enter__()


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_open_signal_receiver_outside_the_main_thread_is_an_error(kind: str) -> None:
    async def receive() -> None:
        open_signal_receiver(ONE).__enter__()

    async def main() -> None:
        run = functools.partial(
            nurseryio.run, receive, loop_factory=functools.partial(matrix.new_loop, kind)
        )
        with pytest.raises(RuntimeError, match="main thread"):
            await to_thread.run_sync(run)

    nurseryio.run(main)


def test_open_signal_receiver_needs_a_loop() -> None:
    with pytest.raises(RuntimeError):
        open_signal_receiver(ONE).__enter__()


async def test_two_tasks_cannot_iterate_a_signal_receiver_at_once() -> None:
    with open_signal_receiver(ONE) as received:
        async with open_nursery() as nursery:
            nursery.start_soon(received.__anext__)
            await checkpoint()
            await checkpoint()
            with pytest.raises(nurseryio.BusyResourceError, match="only one task"):
                await received.__anext__()
            nursery.cancel_scope.cancel()


# -- the wake-up descriptor -----------------------------------------------------


async def test_a_wakeup_fd_that_is_set_stays() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        ours.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno())
        try:
            with open_signal_receiver(ONE) as received:
                os.kill(os.getpid(), ONE)
                with nurseryio.fail_after(TIMEOUT):
                    assert await received.__anext__() == ONE
            assert ours.recv(100) == bytes([ONE])
        finally:
            assert signal.set_wakeup_fd(before) == theirs.fileno()


async def test_a_handler_added_with_add_signal_handler_meanwhile_stays() -> None:
    loop = asyncio.get_running_loop()
    called = nurseryio.Event()
    with open_signal_receiver(ONE):
        loop.add_signal_handler(TWO, called.set)
    signal.raise_signal(TWO)
    with nurseryio.fail_after(TIMEOUT):
        await called.wait()
    loop.remove_signal_handler(TWO)


@pytest.mark.stock_only("other loops have a wake-up descriptor of their own")
async def test_many_signals_do_not_overflow_the_wakeup_fd() -> None:
    with open_signal_receiver(ONE) as received:
        for _ in range(20_000):
            signal.raise_signal(ONE)
        assert await received.__anext__() == ONE
        await until_noted()
        got: list[Any] = []
        with nurseryio.move_on_after(0):
            got.append(await received.__anext__())
        assert len(got) <= 1


async def test_an_error_that_overrides_its_fields_passes_open_signal_receiver_unchanged() -> None:
    error = make(Frozen)
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(Frozen) as caught:
        with nurseryio.open_signal_receiver(signal.SIGUSR1):
            raise error
    assert caught.value is error
    assert signal.getsignal(signal.SIGUSR1) is before


# -- handlers that are not Python's -----------------------------------------------------


async def test_a_signal_handler_not_installed_from_python_is_refused_before_any_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = signal.getsignal
    before = real(ONE)
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == TWO else real(number))
    with (
        pytest.raises(RuntimeError, match=f"signal {TWO:d}: its handler was installed below"),
        open_signal_receiver(ONE, TWO),
    ):
        pass
    monkeypatch.undo()
    assert signal.getsignal(ONE) is before


@pytest.mark.parametrize("first", [0, 1])
async def test_signal_receivers_may_be_closed_in_any_order(first: int) -> None:
    with Handlers() as handlers:
        receivers = [open_signal_receiver(ONE) for _ in range(2)]
        iterators = [receiver.__enter__() for receiver in receivers]
        receivers[first].__exit__(None, None, None)
        signal.raise_signal(ONE)
        assert await anext(iterators[1 - first]) == ONE
        receivers[1 - first].__exit__(None, None, None)
        signal.raise_signal(ONE)
        assert handlers.called == [ONE]
