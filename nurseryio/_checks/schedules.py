"""Random and exhaustive schedules: strike tasks with cancellations at every await, repeatably.

Concurrency bugs hide in the moment in which a hand-over and a cancellation meet. This module
makes such moments: a *scenario* runs *actors* on a :class:`Schedule`, which counts the steps of
each (a step ends where the task stops running) and strikes at chosen ones, by a scope, by a
deadline, by asyncio's own ``task.cancel()``, or by two of them at once.

What it checks by itself, for every actor:

* nobody is stuck: the actors end, without the help of time;
* no cancellation is lost: one that lands before the actor's last checkpoint takes effect;
* asyncio's books balance: ``task.cancelling()`` counts the native requests and nothing else.

What a lost item, lock or permit is, only the scenario knows: it checks that after
:meth:`Schedule.run`.

Rule: all chance comes from the schedule's seed and none from clocks, so that a schedule that
fails once fails again.
"""

from __future__ import annotations

import itertools
import random
import time
import types
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, get_args

from .._asyncio.compat import HAS_CANCEL_COUNTS, cancelling, running_loop
from .._core import checkpoint, current_task
from .._nursery import CancelScope, current_effective_deadline, open_nursery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Sequence

    from .._core import Task
    from .._nursery import Nursery

__all__ = ["PlannedCancel", "Schedule", "StuckError", "cancel_at_every_await", "random_schedules"]

# What cancels. The double ones happen in one and the same tick, in that order.
Kind = Literal["scope", "deadline", "native", "scope+native", "native+scope"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

# Ticks of the loop, and seconds of real time, without a step of any actor that mean that there
# never will be one. The seconds are there for loops whose timers tick slowly.
STUCK_TICKS = 2_000
STUCK_SECONDS = 0.1


class PlannedCancel(NamedTuple):
    """One cancellation to come.

    Attributes:
        actor: Which actor it hits, by its place in the list given to :meth:`Schedule.run`.
        step: After which of the actor's steps, counted from 1.
        kind: What cancels it: ``"scope"``, ``"deadline"`` (of a scope) or ``"native"`` (asyncio's
            ``task.cancel()``), or two of them in the same tick, in the order that
            ``"scope+native"`` and ``"native+scope"`` say.
        delay: How many ticks of the loop after that step; 0 strikes before the task has even
            stopped running.

    Trio: has no counterpart.
    """

    actor: int
    step: int
    kind: Kind
    delay: int


class StuckError(AssertionError):
    """Actors are waiting, and nothing will ever wake them.

    Trio: has no counterpart.
    """


class Schedule:
    """One way in which a scenario can happen.

    Args:
        seed: Decides everything that is random: :attr:`random`, :meth:`pause`, and the strikes
            if none are given.
        strikes: The cancellations to come. By default they are random.

    Attributes:
        random: For the scenario's own decisions.
        steps: After :meth:`run`, how many steps each actor has made.
        landed: After :meth:`run`, the strikes that found their actor alive.

    Trio: has no counterpart.
    """

    def __init__(self, seed: int, cancels: Iterable[PlannedCancel] | None = None) -> None:
        self.seed: int = seed
        self.random: random.Random = random.Random(seed)
        self.steps: list[int] = []
        self.landed: list[PlannedCancel] = []
        self._cancels: list[PlannedCancel] | None = None if cancels is None else list(cancels)
        self._progress = 0

    def __repr__(self) -> str:
        return f"Schedule({self.seed}, {self._cancels})"

    async def pause(self) -> None:
        """Let others run for a random while, of no to three checkpoints.

        Checkpoint: now and then.
        """
        for _ in range(self.random.randrange(4)):
            await checkpoint()

    async def run(self, *actors: Callable[[], Awaitable[object]]) -> None:
        """Run async functions at the same time, and strike them.

        Args:
            *actors: Async functions without parameters. They let cancellations pass, and wait
                for each other only, not for time or the network.

        Raises:
            StuckError: Some of them wait for ever.
            AssertionError: A cancellation was lost, or asyncio's count of them is wrong.
            ExceptionGroup: Actors failed.

        Checkpoint: yes.
        """
        if self._cancels is None:
            self._cancels = self._random_cancels(len(actors))
        players = [
            _Player(self, actor, [s for s in self._cancels if s.actor == place])
            for place, actor in enumerate(actors)
        ]
        watchdog = _Watchdog(self, players)
        async with open_nursery() as nursery:
            for player in players:
                nursery.start_soon(player.play, name=player.actor)
            watchdog.start(nursery)
        self.steps = [player.steps for player in players]
        self.landed = [cancel for player in players for cancel in player.landed]
        if watchdog.stuck_actors:
            raise StuckError(f"{self} is stuck: {'; '.join(watchdog.stuck_actors)}")

    def _random_cancels(self, actors: int) -> list[PlannedCancel]:
        """Mostly one strike, at times none, two or three; early steps more often than late ones."""
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


class _Player:
    """One actor: counts its steps, strikes it, and judges how it took that."""

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
        # Set in the step in which the last checkpoint has been passed.
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
            # While another actor's failure cancels everybody, a cancellation more is in order.
            if current_effective_deadline() != -inf:
                self._check_books(self.task)
        self._check_effect()

    async def _act(self) -> None:
        await self.actor()
        # Whatever has landed so far takes effect here at the latest.
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
            self.scope.cancel(reason="struck")
        elif kind == "deadline":
            self.scope.deadline = -inf
        elif self.task.asyncio_task.cancel():
            self.native_requests += 1

    def _check_books(self, task: Task) -> None:
        count = cancelling(task.asyncio_task)
        wanted = self.native_requests if HAS_CANCEL_COUNTS else 0
        assert count == wanted, f"{self} counts {count} cancel requests instead of {wanted}"

    def _check_effect(self) -> None:
        """The actor's scope was left without a cancellation going on outwards."""
        kinds = {kind for cancel in self.landed for kind in cancel.kind.split("+")}
        if HAS_CANCEL_COUNTS:
            assert "native" not in kinds, f"{self} has lost a native cancel"
        # A deadline takes effect when the loop has noticed it, which may be too late.
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
    """Run a coroutine, and tell of each of its steps just before the task stops running."""
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
    """Cancels everything once no actor has made a step for long enough to be sure."""

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
    scenario: Callable[[Schedule], Awaitable[object]], *, runs: int, seed: int = 0
) -> int:
    """Run a scenario on many random schedules.

    Args:
        scenario: Makes what is to be tested, calls :meth:`Schedule.run`, checks what is left.
        runs: How many schedules.
        seed: The seed of the first; each further one has the next.

    Returns:
        How many cancellations found their task alive.

    Raises:
        AssertionError: A schedule went wrong; the error that tells what is its cause. Run
            ``scenario(Schedule(seed))`` with the seed that it names to see it again.

    Checkpoint: yes.

    Trio: has no counterpart.
    """
    return await _run_all(scenario, (Schedule(number) for number in range(seed, seed + runs)))


async def cancel_at_every_await(
    scenario: Callable[[Schedule], Awaitable[object]], *, seed: int = 0, delays: int = 2
) -> int:
    """Run a scenario again and again, with one cancellation each time, until all were tried.

    That is: every kind, at every step of every actor, with each delay.

    Args:
        scenario: As for :func:`random_schedules`.
        seed: The one seed of all these schedules.
        delays: Strikes come 0 to ``delays`` - 1 ticks after the step.

    Returns:
        How many cancellations found their task alive.

    Raises:
        AssertionError: As for :func:`random_schedules`.

    Checkpoint: yes.

    Trio: has no counterpart.
    """
    undisturbed = Schedule(seed, ())
    await _run_all(scenario, [undisturbed])
    cancels = (
        PlannedCancel(actor, step, kind, delay)
        for actor, steps in enumerate(undisturbed.steps)
        for step, kind, delay in itertools.product(range(1, steps + 1), KINDS, range(delays))
    )
    return await _run_all(scenario, (Schedule(seed, [cancel]) for cancel in cancels))


async def _run_all(
    scenario: Callable[[Schedule], Awaitable[object]], schedules: Iterable[Schedule]
) -> int:
    landed = 0
    for schedule in schedules:
        try:
            await scenario(schedule)
        except Exception as error:
            raise AssertionError(f"{schedule} went wrong: {error!r}") from error
        landed += len(schedule.landed)
    return landed
