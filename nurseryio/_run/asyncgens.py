"""Closing the async generators that are left unfinished under ``run``.

Rule 1: a generator that is garbage collected before its end is closed in a system task, inside a
cancelled scope. So its ``finally`` blocks run, but they may not wait for anything.

Rule 2: at the end of the run the remaining generators are closed in the same way, in no particular
order, until there are none. A generator that starts during this time is closed as well. So is one
that another thread has collected before the run ended. If the other thread is still collecting it
then, it is lost.

Rule 3: errors in them are logged and not raised. ``SystemExit`` and ``KeyboardInterrupt`` are the
exception: they end the run once all generators are closed.

On a loop that ``run`` did not make, asyncio's own hooks remain in use.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any

from .._base.errors import RunFinishedError
from .._base.util import LocalWeakSet
from .._nursery.scope import CancelScope
from .driving import EXITS

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable

LOGGER = logging.getLogger("nurseryio.async_generator_errors")

Generator = Any  # an async generator object, of Python or of a compiler such as Cython


class AsyncGenerators:
    """The async generators that have started in one run and have not ended."""

    def __init__(
        self,
        call_soon: Callable[..., object],
        spawn: Callable[..., object],
    ) -> None:
        self._call_soon = call_soon
        self._spawn = spawn
        self._alive = LocalWeakSet()
        # Generators that were collected when no system task could be made any more. They are closed
        # at the end of the run. Other threads may collect some, so that they are added one by one
        # at one end, and taken at the other.
        self._late: deque[Generator] = deque()
        self._finishing = False
        # The name of the generator that is being closed at the end of the run, in a list.
        self.closing: list[str] = []

    def install(self) -> None:
        """Set the hooks of this thread. asyncio restores the earlier ones when the loop stops."""
        sys.set_asyncgen_hooks(firstiter=self._first, finalizer=self._collected)

    def _first(self, generator: Generator) -> None:
        self._alive.add(generator)

    def _collected(self, generator: Generator) -> None:
        name = name_of_generator(generator)
        if self._finishing:
            self._late.append(generator)
            return
        try:
            self._call_soon(self._close_soon, generator, name)
        except RunFinishedError:
            return
        warnings.warn(
            f"Async generator {name!r} was garbage collected before it had been exhausted. "
            "Surround its use in 'async with aclosing(...):' to ensure that it gets cleaned up "
            "as soon as you're done using it.",
            ResourceWarning,
            stacklevel=2,
            source=generator,
        )

    def _close_soon(self, generator: Generator, name: str) -> None:
        try:
            self._spawn(close, generator, name, name=f"close asyncgen {name} (abandoned)")
        except RuntimeError:
            self._late.append(generator)

    def are_late(self) -> bool:
        """Whether a generator was collected after the end of :meth:`finish`."""
        return bool(self._late)

    async def finish(self) -> None:
        """Close all remaining generators (rule 2)."""
        self._finishing = True
        exits: list[BaseException] = []
        while self._alive or self._late:
            batch = set(self._alive.alive())
            self._alive.clear()
            batch.update(self._late.popleft() for _ in range(len(self._late)))
            for generator in batch:
                self.closing = [name_of_generator(generator)]
                try:
                    await close(generator, self.closing[0])
                except EXITS as exc:
                    exits.append(exc)
        self.closing = []
        if exits:
            raise BaseExceptionGroup("exits in async generators", exits)


def name_of_generator(generator: Generator) -> str:
    """A name for people: the defining module and function."""
    frame = getattr(generator, "ag_frame", None)
    module = frame.f_globals.get("__name__") if frame is not None else None
    return f"{module or '<unknown>'}.{getattr(generator, '__qualname__', '<unknown>')}"


async def close(generator: Generator, name: str) -> None:
    """Close one generator (rules 1 and 3)."""
    try:
        with CancelScope(shield=True) as scope:
            scope.cancel(reason="disallow async work when closing async generators during shutdown")
            await generator.aclose()
    except (GeneratorExit, *EXITS):
        raise
    except BaseException:
        LOGGER.exception(
            "Exception ignored during finalization of async generator %r -- "
            "surround your use of the generator in 'async with aclosing(...):' "
            "to raise exceptions like this in the context where they're generated",
            name,
        )
