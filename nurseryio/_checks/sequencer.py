"""Sequencer: blocks of code in different tasks run one after another, in a given order.

This module has :class:`Sequencer`, which has one event per position.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from typing import TYPE_CHECKING

from .._base import Cancelled, CancelReason
from .._base.util import Final
from .._sync.event import Event

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType


class Sequencer(metaclass=Final):
    """Runs blocks of code in the order of their numbers, even if they are in different tasks.

    ``async with sequencer(n):`` waits until block ``n - 1`` has ended; block 0 starts at once.
    Every number is used once::

        async def left(turn):
            async with turn(0):
                print("first")
            async with turn(2):
                print("third")


        async def right(turn):
            async with turn(1):
                print("second")


        async def main():
            turn = nurseryio.testing.Sequencer()
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(left, turn)
                nursery.start_soon(right, turn)

    If a task is cancelled while it waits for its block, the order can no longer be kept: the
    sequence is broken. This task, all that wait and all that come later get a ``RuntimeError``.
    (A native ``task.cancel()`` breaks the sequence as well, but the cancelled task gets the
    cancellation itself.)

    Trio: ``trio.testing.Sequencer``.
    """

    def __init__(self) -> None:
        self._ended: defaultdict[int, Event] = defaultdict(Event)
        self._claimed: set[int] = set()
        self._broken = False

    def __repr__(self) -> str:
        ended = sum(event.is_set() for event in self._ended.values())
        state = "broken" if self._broken else f"{ended} of {len(self._claimed)} blocks ended"
        return f"<Sequencer: {state} at {id(self):#x}>"

    def __call__(self, position: int) -> AbstractAsyncContextManager[None]:
        """Return the context manager for one block.

        Args:
            position: the block's place in the order, a whole number from 0 up.

        Returns:
            An async context manager. Entering it waits for the block before.

        Raises:
            TypeError: if the position is not a whole number.
            ValueError: if the position is negative.
            RuntimeError: on entering, if the position has been used before or the sequence is
                broken, now or while waiting.

        Checkpoint: entering is one unless the position is 0; leaving is not.
        """
        position = operator.index(position)
        if position < 0:
            raise ValueError(f"positions in a sequence count from 0, not {position}")
        return _Turn(self, position)

    async def _wait_for_turn(self, position: int) -> None:
        if position in self._claimed:
            raise RuntimeError(f"Attempted to reuse sequence point {position}")
        self._check_whole()
        self._claimed.add(position)
        if position == 0:
            return
        try:
            await self._ended[position - 1].wait()
        except Cancelled as exc:
            self._break()
            if exc.args and isinstance(exc.args[0], CancelReason):
                raise RuntimeError("Sequencer wait cancelled -- sequence broken") from None
            raise
        self._check_whole()

    def _break(self) -> None:
        self._broken = True
        for event in self._ended.values():
            event.set()

    def _check_whole(self) -> None:
        if self._broken:
            raise RuntimeError("sequence broken!")


class _Turn:
    """One block of a sequence."""

    def __init__(self, sequencer: Sequencer, position: int) -> None:
        self._sequencer = sequencer
        self._position = position

    async def __aenter__(self) -> None:
        await self._sequencer._wait_for_turn(self._position)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sequencer._ended[self._position].set()
