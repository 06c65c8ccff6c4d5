"""The order in which ready tasks run: shuffled by a seed, recorded, and repeated.

asyncio runs tasks in the order in which they became ready. That order is an accident: it comes from
the network, timers and threads. A program that needs it works until something takes a little
longer. Trio shuffles ready tasks for this reason.

This module has :class:`TaskOrder`, which shuffles the tasks of one loop. The module ``schedules``
uses it for scenarios, and the pytest plugin for the tests that ask for it.

Rule 1: only steps of tasks change places with each other. Other callbacks of the loop keep their
places, because asyncio's transports need their order. A step never runs before a callback that was
scheduled earlier than the step. Correct programs rely on that, and so does the engine: the callback
may be the one that delivers a cancellation to the task.

Rule 2: tasks that are ready at the same time change places. A task never waits for one that becomes
ready later, so a program cannot starve under any order.

Rule 3: the loop looks up ``call_soon`` on the loop object for each step, as described in
``_loop.step_hooks``. While a block is open, that attribute is replaced. Each step gets a place in
the loop's queue. When the loop comes to a place, one of the steps of its batch runs there.

Rule 4: a record repeats an order only if the same tasks are ready. So a block begins without the
numbers that the engine keeps from earlier work: whether the last nurseries were slow, and how often
the running task has gone on without a yield.
"""

from __future__ import annotations

import contextvars
import random
from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from .._asyncio import compat
from .._asyncio.loop_parts import replacement
from .._core.task import INITIAL_YIELD_CREDIT, current_task

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["AS_ASYNCIO", "TaskOrder"]

# How many of the choices differ from asyncio's. A seed selects one: with few changes in a run, one
# task can be much later than the others; with many, everything is mixed.
RATES = (1.0, 0.5, 0.1)

# The record of the order in which nothing differs from asyncio's.
AS_ASYNCIO = "-"


class _Ready(NamedTuple):
    """A step that is ready, and how many other callbacks were scheduled before it."""

    callback: Any
    args: tuple[Any, ...]
    context: contextvars.Context
    before: int


_before = attrgetter("before")


class TaskOrder:
    """An order in which the ready tasks of a loop run.

    ::

        with TaskOrder(17) as order:
            ...  # run the code under test
        print(order)  # TaskOrder('3:2,5:1')

    It is entered in a task. In the ``with`` block, tasks that are ready at the same time run in
    that order, on any loop. Callbacks that are not steps of tasks keep their order, and no task
    overtakes a callback that was scheduled before it became ready.

    Each choice between several ready tasks has a number. The first of the ready tasks is 0, as in
    asyncio. The record lists the choices of another task.

    Args:
        how: a seed, for a random order; or a record, to repeat an order.

    Raises:
        TypeError: ``how`` is neither a seed nor a text.
        ValueError: ``how`` is a text and not a record.

    Trio: none. (Trio always shuffles.)
    """

    def __init__(self, how: int | str) -> None:
        self._planned: dict[int, int] | None = None
        if isinstance(how, str):
            self._planned = _parse(how)
        elif not isinstance(how, int):
            raise TypeError("a TaskOrder is made from a seed or a record")
        self._random = random.Random(0 if isinstance(how, str) else how)
        self._rate = self._random.choice(RATES)
        self._differing: dict[int, int] = {}
        self._choices = 0
        # How many callbacks that are not steps were scheduled in the block.
        self._callbacks = 0
        # The steps that became ready since the loop last began a batch.
        self._filling: list[_Ready] = []
        self._loop: Any = None
        self._before: Any = None
        self._call_soon: Any = None
        self._hook: Any = None

    def __repr__(self) -> str:
        return f"TaskOrder({self.record!r})"

    @property
    def record(self) -> str:
        """The order up to now, as a text from which a ``TaskOrder`` repeats it."""
        return ",".join(f"{n}:{i}" for n, i in self._differing.items()) or AS_ASYNCIO

    @property
    def choices(self) -> int:
        """How many times several tasks were ready, so that one had to be chosen."""
        return self._choices

    def __enter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("the TaskOrder is in use")
        task = current_task()
        state = task._state
        state.slow_exit_prediction = 0  # rule 4
        task._yield_credit = INITIAL_YIELD_CREDIT
        loop: Any = state.loop
        self._before = replacement(loop, "call_soon")
        self._call_soon = loop.call_soon
        self._hook = self._schedule
        loop.call_soon = self._hook
        self._loop = loop
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        # Steps that already have a place still run in it.
        loop, self._loop = self._loop, None
        # Other code may have replaced call_soon since. Its hook stays, and still calls this one.
        if loop.call_soon is self._hook:
            if self._before is None:
                del loop.call_soon
            else:
                loop.call_soon = self._before
        self._hook = self._before = None  # a bound method: no reference cycle

    def _schedule(self, callback: Any, *args: Any, context: Any = None) -> Any:
        if self._loop is None or compat.owner_of(callback) is None:
            self._callbacks += 1
            return self._call_soon(callback, *args, context=context)
        if context is None:
            context = contextvars.copy_context()
        batch = self._filling
        # In an empty context: the step is run in its own one, which may be that of several tasks.
        before = self._callbacks
        handle = self._call_soon(self._run_one, batch, before, context=contextvars.Context())
        batch.append(_Ready(callback, args, context, before))
        return handle

    def _run_one(self, batch: list[_Ready], before: int) -> None:
        if batch is self._filling:
            self._filling = []
        # Rule 1. These are the first steps of the batch, and the one of this place or an earlier
        # one is always among them.
        ready = bisect_right(batch, before, key=_before)
        callback, args, context, _ = batch.pop(self._choose(ready))
        context.run(callback, *args)

    def _choose(self, ready: int) -> int:
        if ready < 2:
            return 0
        number = self._choices
        self._choices += 1
        if self._planned is not None:
            chosen = min(self._planned.get(number, 0), ready - 1)
        elif self._random.random() < self._rate:
            chosen = self._random.randrange(ready)
        else:
            chosen = 0
        if chosen:
            self._differing[number] = chosen
        return chosen


def _parse(record: str) -> dict[int, int]:
    if record == AS_ASYNCIO:
        return {}
    planned = {}
    for choice in record.split(","):
        number, colon, chosen = choice.partition(":")
        if not (colon and number.isdecimal() and chosen.isdecimal()):
            raise ValueError(f"{record!r} is not the record of a TaskOrder, such as '3:2,5:1'")
        planned[int(number)] = int(chosen)
    return planned
