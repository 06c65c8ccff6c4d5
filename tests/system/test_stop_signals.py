"""Signals that ask a program to stop."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from math import inf, nan

import pytest
from harness.forks import in_child

import nurseryio
from nurseryio import (
    move_on_at_stop,
    sleep,
    sleep_forever,
    stop_on_signals,
    stop_requested,
    wait_stop_requested,
)
from nurseryio.testing import MockClock

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")

USR1, USR2 = signal.SIGUSR1, signal.SIGUSR2


async def test_the_first_signal_requests_a_stop_with_a_grace_period() -> None:
    with stop_on_signals(USR1, grace_period=60) as scope:
        assert scope.deadline == inf
        signal.raise_signal(USR1)
        await wait_stop_requested()
        assert stop_requested()
        assert scope.deadline < inf
        await nurseryio.lowlevel.checkpoint()
    assert scope.stop_requested
    assert not scope.cancel_called


async def test_the_second_signal_cancels_and_may_be_another_one() -> None:
    with stop_on_signals(USR1, USR2) as scope:
        signal.raise_signal(USR1)
        await wait_stop_requested()
        signal.raise_signal(USR2)
        with pytest.raises(nurseryio.Cancelled, match="second signal"):
            await sleep_forever()
        await nurseryio.lowlevel.checkpoint()
    assert scope.cancelled_caught


async def test_two_signals_before_the_loop_notices_them_cancel() -> None:
    with stop_on_signals(USR1) as scope:
        signal.raise_signal(USR1)
        signal.raise_signal(USR1)
        await sleep_forever()
    assert scope.cancelled_caught


async def test_the_third_signal_is_given_to_the_handler_from_before() -> None:
    got: list[int] = []
    before = signal.signal(USR1, lambda signum, _frame: got.append(signum))
    try:
        with stop_on_signals(USR1):
            signal.raise_signal(USR1)
            signal.raise_signal(USR1)
            assert got == []
            signal.raise_signal(USR1)
            assert got == [USR1]
            signal.raise_signal(USR1)
        assert got == [USR1] * 2 + [USR1] * 2  # those that the loop had not noticed yet, too
    finally:
        signal.signal(USR1, before)


async def test_the_end_of_the_grace_period_cancels(autojump_clock: MockClock) -> None:
    with stop_on_signals(USR1, grace_period=3) as scope:
        signal.raise_signal(USR1)
        await wait_stop_requested()
        began = nurseryio.current_time()
        await sleep(99)
    assert scope.cancelled_caught
    assert nurseryio.current_time() == began + 3


async def test_without_a_signal_the_block_ends_and_the_handlers_are_restored() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)]
    with stop_on_signals() as scope:
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)] == before
    assert not scope.stop_requested


async def test_a_signal_that_the_loop_has_not_noticed_is_raised_again_after_the_block() -> None:
    got: list[int] = []
    before = signal.signal(USR1, lambda signum, _frame: got.append(signum))
    try:
        with stop_on_signals(USR1) as scope:
            signal.raise_signal(USR1)
        assert got == [USR1]
        assert not scope.stop_requested
        await nurseryio.lowlevel.checkpoint()
    finally:
        signal.signal(USR1, before)


async def test_both_signals_that_the_loop_has_not_noticed_are_raised_again() -> None:
    raised = []

    def fails(signum: int, _frame: object) -> None:
        raised.append(signum)
        raise ZeroDivisionError

    before = [signal.signal(number, fails) for number in (signal.SIGUSR1, signal.SIGUSR2)]
    try:
        with pytest.raises(ZeroDivisionError):
            with stop_on_signals(signal.SIGUSR1, signal.SIGUSR2):
                signal.raise_signal(signal.SIGUSR1)
                signal.raise_signal(signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR1, before[0])
        signal.signal(signal.SIGUSR2, before[1])
    assert raised == [signal.SIGUSR1, signal.SIGUSR2]


async def test_an_error_of_the_block_passes_and_a_shielded_block_is_not_left_early() -> None:
    with pytest.raises(ZeroDivisionError), stop_on_signals(USR1):
        raise ZeroDivisionError
    with stop_on_signals(USR1):
        signal.raise_signal(USR1)
        with move_on_at_stop() as waiting:
            await sleep_forever()
        assert waiting.cancelled_caught


@pytest.mark.parametrize(("grace", "kind"), [(-1, ValueError), (nan, ValueError), ("", TypeError)])
async def test_a_wrong_grace_period_of_stop_on_signals_is_refused(
    grace: float, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="grace"):
        stop_on_signals(grace_period=grace)


async def test_a_signal_that_does_not_exist_or_cannot_be_caught_leaves_nothing_behind() -> None:
    before = signal.getsignal(USR1)
    for wrong in (9999, signal.SIGKILL):
        with pytest.raises((ValueError, OSError)), stop_on_signals(USR1, wrong):
            raise AssertionError("entered")
    with pytest.raises(TypeError, match="signals are numbers"):
        stop_on_signals("TERM").__enter__()  # type: ignore[arg-type]
    assert signal.getsignal(USR1) is before
    await nurseryio.lowlevel.checkpoint()


async def test_stop_on_signals_needs_the_main_thread() -> None:
    errors: list[BaseException] = []

    async def elsewhere() -> None:
        with stop_on_signals(USR1):
            raise AssertionError("entered")

    def run() -> None:
        try:
            nurseryio.run(elsewhere)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    await nurseryio.to_thread.run_sync(thread.join)
    assert "stop_on_signals" in str(errors[0])


async def test_a_forked_child_has_the_handlers_from_before() -> None:
    before = signal.getsignal(USR1)

    def child() -> None:
        assert signal.getsignal(USR1) is before

    with stop_on_signals(USR1):
        signal.raise_signal(USR1)
        code = in_child(child)
        await wait_stop_requested()  # else the signal is raised again, and ends the tests
    assert code == 0


def run_program(text: str, *signals: signal.Signals) -> tuple[int, str]:
    """Run a program, send it a signal at each line that it prints, return its end."""
    program = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert program.stdout is not None
    lines = []
    for signum in signals:
        lines.append(program.stdout.readline())
        program.send_signal(signum)
    lines.append(program.stdout.read())
    program.stdout.close()
    return program.wait(), "".join(lines)


STUBBORN = """
    import nurseryio, time

    async def main():
        with nurseryio.stop_on_signals():
            print("one", flush=True)
            await nurseryio.wait_stop_requested()
            print("two", flush=True)
            try:
                await nurseryio.sleep_forever()
            finally:
                print("three", flush=True)
                for _ in range(3000):  # a signal just before a long sleep would not end it
                    time.sleep(0.01)

    nurseryio.run(main)
"""


def test_the_third_sigterm_ends_a_program_whose_loop_is_blocked() -> None:
    term = signal.SIGTERM
    end = run_program(STUBBORN, term, term, term)
    assert end == (-term, "one\ntwo\nthree\n")


def test_the_third_ctrl_c_ends_a_program_whose_loop_is_blocked() -> None:
    code, lines = run_program(STUBBORN, *[signal.SIGINT] * 3)
    assert lines == "one\ntwo\nthree\n"
    assert code == -signal.SIGINT


def test_a_program_that_stops_gently_has_its_own_exit_code() -> None:
    end = run_program(
        """
        import nurseryio, sys

        async def main():
            with nurseryio.stop_on_signals(grace_period=30):
                print("ready", flush=True)
                await nurseryio.wait_stop_requested()
                print("done", flush=True)
            return 3

        sys.exit(nurseryio.run(main))
        """,
        signal.SIGTERM,
    )
    assert end == (3, "ready\ndone\n")
