"""Handlers that stand in the place of others, and how those come back."""

# Covered below 95 %: code that runs in a forked child is not measured; TestInAChild is about it.

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
from harness import forks, pypy

import nurseryio
from nurseryio import open_signal_receiver, to_thread
from nurseryio._base import signal_handlers as module
from nurseryio._base.signal_handlers import Replaced

pytestmark = pytest.mark.skipif(os.name != "posix", reason="uses signals of Unix")

ONE = signal.SIGUSR1


@pytest.fixture(autouse=True)
def _all_are_given_back() -> Iterator[None]:
    before = signal.getsignal(ONE)
    yield
    assert signal.getsignal(ONE) is before
    assert not [each for each in module._standing if each.signum == ONE]


def handler() -> Callable[[int, object], None]:
    return lambda _signum, _frame: None


def test_the_previous_signal_handler_is_restored() -> None:
    replaced = Replaced(ONE, handler())
    assert signal.getsignal(ONE) is replaced.handler
    replaced.give_back()
    replaced.give_back()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_signal_handlers_are_restored_in_any_order(order: tuple[int, ...]) -> None:
    replaced = [Replaced(ONE, handler()) for _ in range(3)]
    left = dict(enumerate(replaced))
    for index in order:
        left.pop(index).give_back()
        if left:
            assert signal.getsignal(ONE) is left[max(left)].handler


def test_a_signal_handler_set_meanwhile_by_other_code_stays_with_unless_taken() -> None:
    before = signal.getsignal(ONE)
    replaced = Replaced(ONE, handler())
    theirs = handler()
    signal.signal(ONE, theirs)
    replaced.give_back(unless_taken=True)
    assert signal.getsignal(ONE) is theirs
    signal.signal(ONE, before)


@pypy.needs_refused_signals
def test_a_signal_that_cannot_be_caught_is_an_oserror_and_leaves_no_record() -> None:
    with pytest.raises(OSError):
        Replaced(signal.SIGKILL, handler())
    assert not [each for each in module._standing if each.signum == signal.SIGKILL]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
class TestInAChild:
    def test_a_forked_child_has_the_previous_signal_handlers(self) -> None:
        before = signal.getsignal(ONE)
        replaced = [Replaced(ONE, handler()) for _ in range(2)]

        def check() -> None:
            assert signal.getsignal(ONE) is before
            for each in replaced:
                each.give_back()
            assert signal.getsignal(ONE) is before

        assert forks.in_child(check) == 0
        for each in reversed(replaced):
            each.give_back()

    def test_a_forked_child_keeps_a_signal_handler_set_meanwhile_by_other_code(self) -> None:
        replaced = Replaced(ONE, handler())
        theirs = handler()
        signal.signal(ONE, theirs)
        assert forks.in_child(lambda: [][signal.getsignal(ONE) is not theirs :]) == 0
        replaced.give_back()

    # SIGINT raises KeyboardInterrupt in a process that has never run a loop, SIGTERM ends it.
    @pytest.mark.run_only
    @pytest.mark.parametrize("receiving", [False, True])
    @pytest.mark.parametrize("in_thread", [False, True])
    @pytest.mark.parametrize(
        ("signum", "code"), [(signal.SIGINT, forks.FAILED), (signal.SIGTERM, -signal.SIGTERM)]
    )
    async def test_signals_end_a_forked_child_as_they_end_any_process(
        self, signum: int, code: int, in_thread: bool, receiving: bool
    ) -> None:
        # Some tools that watch tests have their own handler for SIGTERM.
        theirs = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with open_signal_receiver(signum) if receiving else nullcontext():
            if in_thread:
                ended = await to_thread.run_sync(forks.killed_in_child, signum)
            else:
                ended = forks.killed_in_child(signum)
        signal.signal(signal.SIGTERM, theirs)
        assert ended == code

    async def test_a_forked_child_that_leaves_a_signal_receiver_re_raises_no_signal(
        self,
    ) -> None:
        # The child ends by the signal if it is raised again.
        with open_signal_receiver(ONE) as received:
            signal.raise_signal(ONE)
            await nurseryio.lowlevel.checkpoint()
            await nurseryio.lowlevel.checkpoint()
            receiver = open_signal_receiver(ONE)
            inner = receiver.__enter__()
            signal.raise_signal(ONE)
            assert forks.in_child(lambda: receiver.__exit__(None, None, None)) == 0
            assert await inner.__anext__() == ONE
            receiver.__exit__(None, None, None)
            assert await received.__anext__() == ONE
