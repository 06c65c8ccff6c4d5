"""Random and exhaustive schedules: cancel tasks at every await, repeatably.

Many concurrency bugs need a cancellation that arrives at the moment of a hand-over. This module
creates such moments. A *scenario* runs *actors* on a :class:`Schedule`, which counts the steps of
each actor (a step ends where the task stops running). It cancels actors at chosen steps: by a
scope, by a deadline, by asyncio's own ``task.cancel()``, or by two of them at once.

The module itself checks for every actor:

* It is not stuck: the actors end, and do not wait for a timer to end.
* No cancellation is lost: one that lands before the actor's last checkpoint takes effect.
* asyncio's cancel count is right: ``task.cancelling()`` counts the native requests and nothing
  else.

Only the scenario can know whether an item, lock or permit was lost: it checks that after
:meth:`Schedule.run`.

Rule 1: all random choices come from the schedule's seed and none from clocks, so that a schedule
that fails once fails again.

Rule 2: a schedule that fails has a record, a line of text. It repeats the schedule, by itself or in
the environment variable ``NURSERYIO_SCHEDULE``. A failed random schedule is made smaller first.
"""

from __future__ import annotations

import itertools
import os
import random
import time
import types
from contextlib import nullcontext
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from .._asyncio.compat import HAS_CANCEL_COUNTS, cancelling, running_loop
from .._base.exception_groups import leaves
from .._core import checkpoint, current_task
from .._nursery import CancelScope, current_effective_deadline, open_nursery
from .task_order import AS_ASYNCIO, TaskOrder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence

    from .._core import Task
    from .._nursery import Nursery

__all__ = ["PlannedCancel", "Schedule", "StuckError", "cancel_at_every_await", "random_schedules"]

# The kinds of cancellation. Double ones happen in the same iteration of the loop, in that order.
Kind = Literal["scope", "deadline", "native", "scope+native", "native+scope"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# The actors are stuck if none makes a step for this many iterations of the loop and this many
# seconds of real time. The seconds are there for loops whose timers have a coarse resolution.
STUCK_TICKS = 2_000
STUCK_SECONDS = 0.1

# The environment variable with the record of the only schedule to be run.
VARIABLE = "NURSERYIO_SCHEDULE"

# The most schedules that are tried to find a smaller one that fails in the same way.
SMALLER_RUNS = 60


class PlannedCancel(NamedTuple):
    """One planned cancellation.

    Attributes:
        actor: Which actor is cancelled: its index in the arguments of :meth:`Schedule.run`.
        step: After which of the actor's steps, counted from 1.
        kind: How it is cancelled: ``"scope"``, ``"deadline"`` (of a scope), ``"native"`` (asyncio's
            ``task.cancel()``), or ``"scope+native"`` and ``"native+scope"``: both in the same
            iteration of the loop, in that order.
        delay: How many iterations of the loop after that step; 0 cancels the task before it has
            even stopped running.

    Trio: none.
    """

    actor: int
    step: int
    kind: Kind
    delay: int


class StuckError(AssertionError):
    """Actors are waiting, and nothing will ever wake them.

    Trio: none.
    """


class Schedule:
    """One way in which a scenario can happen.

    Args:
        seed: Decides all random choices: :attr:`random`, :meth:`pause`, and the cancellations if
            none are given.
        cancels: The planned cancellations. By default they are random.
        order: The order in which ready tasks run, see :class:`TaskOrder`: a seed or a record. By
            default it is asyncio's.

    Attributes:
        seed: The seed.
        random: For the scenario's own decisions.
        steps: After :meth:`run`, how many steps each actor has made.
        landed: After :meth:`run`, the cancellations that came before their actor had ended.

    Trio: none.
    """

    def __init__(
        self,
        seed: int,
        cancels: Iterable[PlannedCancel] | None = None,
        order: int | str | None = None,
    ) -> None:
        self.seed: int = seed
        self.random: random.Random = random.Random(seed)
        self.steps: list[int] = []
        self.landed: list[PlannedCancel] = []
        self._cancels: list[PlannedCancel] | None = None if cancels is None else list(cancels)
        self._order: TaskOrder | None = None if order is None else TaskOrder(order)
        self._begun = False
        self._progress = 0

    def __repr__(self) -> str:
        order = "" if self._order is None else f", {self._order.record!r}"
        return f"Schedule({self.seed}, {self._cancels}{order})"

    @property
    def record(self) -> str:
        """The schedule as one line of text, for :meth:`from_record`.

        It has the random cancellations, and the order of the tasks, after :meth:`run` only.
        """
        cancels = ",".join(f"{c.actor}.{c.step}.{c.kind}.{c.delay}" for c in self._cancels or ())
        return f"{self.seed}/{cancels}/{'' if self._order is None else self._order.record}"

    @classmethod
    def from_record(cls, record: str) -> Schedule:
        """Make the schedule that repeats another one.

        Args:
            record: The :attr:`record` of the other one.

        Raises:
            ValueError: The text is not a record.

        Trio: none.
        """
        try:
            seed, cancels, order = record.split("/")
            planned = [_planned(text) for text in cancels.split(",") if text]
            return cls(int(seed), planned, order or None)
        except ValueError:
            raise ValueError(
                f"{record!r} is not the record of a Schedule, such as '17/0.3.scope.1/3:2'"
            ) from None

    async def pause(self) -> None:
        """Let other tasks run, for a random number of 0 to 3 checkpoints.

        Checkpoint: unless the number is 0.
        """
        for _ in range(self.random.randrange(4)):
            await checkpoint()

    async def run(self, *actors: Callable[[], Awaitable[object]]) -> None:
        """Run async functions at the same time, and cancel them as planned.

        Args:
            *actors: Async functions without parameters. They must let cancellations pass, and must
                wait only for each other, not for time or the network.

        Raises:
            StuckError: Some actors wait for ever.
            AssertionError: A cancellation was lost, or asyncio's count of them is wrong.
            ExceptionGroup: Actors failed.

        Checkpoint: yes.
        """
        if not self._begun:
            self._begun = True
            # Also chosen if there are cancellations already, so that the random numbers that follow
            # are the same in a schedule and in its repetition.
            chosen = self._random_cancels(len(actors))
            if self._cancels is None:
                self._cancels = chosen
        cancels = self._cancels or []
        players = [
            _Player(self, actor, [s for s in cancels if s.actor == place])
            for place, actor in enumerate(actors)
        ]
        watchdog = _Watchdog(self, players)
        with self._order or nullcontext():
            async with open_nursery() as nursery:
                for player in players:
                    nursery.start_soon(player.play, name=player.actor)
                watchdog.start(nursery)
        self.steps = [player.steps for player in players]
        self.landed = [cancel for player in players for cancel in player.landed]
        if watchdog.stuck_actors:
            raise StuckError(f"{self} is stuck: {'; '.join(watchdog.stuck_actors)}")

    def _random_cancels(self, actors: int) -> list[PlannedCancel]:
        """Choose mostly one, sometimes 0, 2 or 3; early steps more often than late ones."""
        choose = self.random
        count = choose.choice((0, 1, 1, 1, 2, 3))
        return [
            PlannedCancel(
                choose.randrange(actors),
                1 + min(choose.randrange(12), choose.randrange(12)),
                choose.choice(KINDS),
                choose.randrange(4),
            )
            for _ in range(count)
        ]


def _planned(text: str) -> PlannedCancel:
    actor, step, kind, delay = text.split(".")
    if kind not in KINDS:
        raise ValueError(kind)
    return PlannedCancel(int(actor), int(step), kind, int(delay))


class _Player:
    """One actor: counts its steps, cancels it, and checks the effect."""

    def __init__(
        self,
        schedule: Schedule,
        actor: Callable[[], Awaitable[object]],
        cancels: list[PlannedCancel],
    ) -> None:
        self.schedule = schedule
        self.actor = actor
        self.cancels = cancels
        self.steps = 0
        self.landed: list[PlannedCancel] = []
        self.native_requests = 0
        # Set in the step that passes the last checkpoint.
        self.over = False
        self.scope: CancelScope = CancelScope()
        self.task: Task | None = None

    async def play(self) -> None:
        self.task = current_task()
        try:
            with self.scope:
                await _count_steps(self._act(), self._step)
                self.over = True
        finally:
            # If another actor has failed, all are cancelled, and one more cancellation is right.
            if current_effective_deadline() != -inf:
                self._check_cancel_count(self.task)
        self._check_effect()

    async def _act(self) -> None:
        await self.actor()
        # Cancellations that have landed so far take effect here at the latest.
        await checkpoint()

    def _step(self) -> None:
        self.steps += 1
        self.schedule._progress += 1
        for cancel in self.cancels:
            if cancel.step == self.steps:
                self._cancel_after(cancel, cancel.delay)

    def _cancel_after(self, cancel: PlannedCancel, ticks: int) -> None:
        if ticks:
            running_loop().call_soon(self._cancel_after, cancel, ticks - 1)
        elif not self.over:
            self.landed.append(cancel)
            for kind in cancel.kind.split("+"):
                self._cancel(kind)

    def _cancel(self, kind: str) -> None:
        assert self.task is not None
        if kind == "scope":
            self.scope.cancel(reason="cancelled by the schedule")
        elif kind == "deadline":
            self.scope.deadline = -inf
        elif self.task.asyncio_task.cancel():
            self.native_requests += 1

    def _check_cancel_count(self, task: Task) -> None:
        count = cancelling(task.asyncio_task)
        wanted = self.native_requests if HAS_CANCEL_COUNTS else 0
        assert count == wanted, f"{self} counts {count} cancel requests instead of {wanted}"

    def _check_effect(self) -> None:
        """Check the cancellations, once the scope was left without raising a cancellation."""
        kinds = {kind for cancel in self.landed for kind in cancel.kind.split("+")}
        if HAS_CANCEL_COUNTS:
            assert "native" not in kinds, f"{self} has lost a native cancel"
        # A deadline takes effect when the loop sees it, which may be after the last checkpoint.
        if not self.over:
            assert self.scope.cancelled_caught, f"{self} ended early, for no reason"
        elif "native" not in kinds:
            assert "scope" not in kinds, f"{self} has lost a cancel of its scope"

    def __str__(self) -> str:
        return f"{self.actor!r} at step {self.steps}, landed {self.landed}, of {self.schedule}"


@types.coroutine
def _count_steps(
    coro: Coroutine[Any, Any, None], stepped: Callable[[], None]
) -> Generator[Any, Any, None]:
    """Run a coroutine, and call ``stepped`` at each step, just before the task stops running."""
    advance: Callable[[], Any] = coro.__await__().__next__
    while True:
        try:
            waits_for = advance()
        except StopIteration:
            return
        stepped()
        try:
            yield waits_for
        except GeneratorExit:
            coro.close()
            raise
        except BaseException as error:
            advance = _thrower(coro, error)
        else:
            advance = _sender(coro)


def _sender(coro: Coroutine[Any, Any, None]) -> Callable[[], Any]:
    return lambda: coro.send(None)


def _thrower(coro: Coroutine[Any, Any, None], error: BaseException) -> Callable[[], Any]:
    return lambda: coro.throw(error)


class _Watchdog:
    """Cancels everything when no actor has made a step for long enough to be sure."""

    def __init__(self, schedule: Schedule, players: Sequence[_Player]) -> None:
        self.schedule = schedule
        self.players = players
        self.stuck_actors: list[str] = []
        self.seen = -1
        self.ticks = 0
        self.since = 0.0

    def start(self, nursery: Nursery) -> None:
        running_loop().call_soon(self._look, nursery)

    def _look(self, nursery: Nursery) -> None:
        if not nursery.child_tasks:
            return
        self.ticks += 1
        if self.schedule._progress != self.seen:
            self.seen = self.schedule._progress
            self.ticks = 0
            self.since = time.monotonic()
        elif self.ticks > STUCK_TICKS and time.monotonic() - self.since > STUCK_SECONDS:
            alive = nursery.child_tasks
            self.stuck_actors = [str(player) for player in self.players if player.task in alive]
            nursery.cancel_scope.cancel(reason="stuck")
            return
        running_loop().call_soon(self._look, nursery)


# -- many schedules -------------------------------------------------------------


async def random_schedules(
    scenario: Callable[[Schedule], Awaitable[object]],
    *,
    runs: int,
    seed: int = 0,
    shuffle: bool = False,
) -> int:
    """Run a scenario on many random schedules.

    A schedule that fails is repeated with fewer cancellations, and with fewer tasks out of their
    order, as long as it fails. So the error names a small one.

    Args:
        scenario: Makes the objects to be tested, calls :meth:`Schedule.run`, and then checks the
            objects.
        runs: How many schedules.
        seed: The seed of the first schedule; each further one has the next number.
        shuffle: Whether tasks that are ready at the same time run in a random order, see
            :class:`TaskOrder`.

    Returns:
        How many cancellations came before their actor had ended.

    Raises:
        AssertionError: A schedule has failed. The cause of the error is the failure. The message
            has the schedule, and its record. If the environment variable ``NURSERYIO_SCHEDULE`` has
            that record, this function runs that schedule alone.
        ValueError: The environment variable does not have the record of a schedule.

    Checkpoint: yes.

    Trio: none.
    """
    numbers = range(seed, seed + runs)
    schedules = (Schedule(n, order=n if shuffle else None) for n in numbers)
    return await _run_all(scenario, _asked_for() or schedules, make_smaller=True)


async def cancel_at_every_await(
    scenario: Callable[[Schedule], Awaitable[object]], *, seed: int = 0, delays: int = 2
) -> int:
    """Run a scenario again and again, with one cancellation each time, until all were tried.

    That is: every kind, at every step of every actor, with each delay.

    Args:
        scenario: As for :func:`random_schedules`.
        seed: The seed of all these schedules.
        delays: A cancellation comes 0 to ``delays`` - 1 iterations of the loop after the step.

    Returns:
        How many cancellations came before their actor had ended.

    Raises:
        AssertionError: As for :func:`random_schedules`.
        ValueError: As for :func:`random_schedules`.

    Checkpoint: yes.

    Trio: none.
    """
    asked = _asked_for()
    if asked:
        return await _run_all(scenario, asked)
    undisturbed = Schedule(seed, ())
    await _run_all(scenario, [undisturbed])
    cancels = (
        PlannedCancel(actor, step, kind, delay)
        for actor, steps in enumerate(undisturbed.steps)
        for step, kind, delay in itertools.product(range(1, steps + 1), KINDS, range(delays))
    )
    return await _run_all(scenario, (Schedule(seed, [cancel]) for cancel in cancels))


def _asked_for() -> list[Schedule]:
    """The schedule of the environment variable, if it has one. (It may have an order of tasks.)"""
    record = os.environ.get(VARIABLE, "")
    return [Schedule.from_record(record)] if "/" in record else []


async def _run_all(
    scenario: Callable[[Schedule], Awaitable[object]],
    schedules: Iterable[Schedule],
    make_smaller: bool = False,
) -> int:
    landed = 0
    for schedule in schedules:
        failed = await _run_one(scenario, schedule)
        if failed is not None:
            if make_smaller:
                schedule, failed = await _smaller(scenario, schedule, failed)
            raise AssertionError(
                f"{schedule} went wrong: {failed!r}\nto repeat it: {VARIABLE}='{schedule.record}'"
            ) from failed
        landed += len(schedule.landed)
    return landed


async def _run_one(
    scenario: Callable[[Schedule], Awaitable[object]], schedule: Schedule
) -> Exception | None:
    try:
        await scenario(schedule)
    except Exception as error:
        return error
    return None


async def _smaller(
    scenario: Callable[[Schedule], Awaitable[object]], schedule: Schedule, failed: Exception
) -> tuple[Schedule, Exception]:
    """Leave out cancellations and changes of the order as long as the error is of the same type.

    The types of the errors in a group count: nearly all errors of a nursery are in a group.

    Returns:
        The schedule that was found, and its error.
    """
    seed, cancels, order = schedule.record.split("/")
    shuffled = bool(order)
    # Both in one list: ("", cancel) and ("order", choice).
    parts = [("", text) for text in cancels.split(",") if text]
    parts += [("order", text) for text in order.split(",") if text not in ("", AS_ASYNCIO)]
    size, runs = len(parts), 0
    while size:
        start = 0
        while start < len(parts) and runs < SMALLER_RUNS:
            fewer = parts[:start] + parts[start + size :]
            choices = ",".join(text for kind, text in fewer if kind) or AS_ASYNCIO
            record = ",".join(text for kind, text in fewer if not kind)
            tried = Schedule.from_record(f"{seed}/{record}/{choices if shuffled else ''}")
            error = await _run_one(scenario, tried)
            runs += 1
            if error is not None and _types(error) == _types(failed):
                parts, schedule, failed = fewer, tried, error
            else:
                start += size
        size //= 2
    return schedule, failed


def _types(error: Exception) -> set[type[BaseException]]:
    return {type(leaf) for leaf in leaves(error)}
