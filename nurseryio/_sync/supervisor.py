"""Supervision: a group in which a failing child does not end its siblings.

This module has :func:`open_supervisor`. A supervisor is a nursery. Its children catch their errors
and ask an error handler what to do.

Rule 1: the error handler is called once for each error, in the task that has failed, before
anything else happens to the child.

Rule 2: only ordinary errors are handled (``Exception``, and groups of them). A cancellation, an
exit and Ctrl-C pass. After the supervisor was cancelled or asked to stop, no child is restarted.

Rule 3: restarts are limited for all children together, as in OTP. Above the limit the error is
raised, with a note. So an error that comes back at once ends the program and not its work alone.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import AbstractAsyncContextManager
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from .._base.exc_fields import add_note
from .._base.util import (
    SECONDS,
    Frozen,
    InTheNameOf,
    NoPublicConstructor,
    as_float,
    blank,
    coroutine_or_error,
    name_of,
    reject_non_functions,
    safe_repr,
)
from .._nursery import (
    CancelScope,
    current_time,
    move_on_at_stop,
    open_nursery,
    sleep,
    stop_requested,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import TypeAlias

    from typing_extensions import TypeVarTuple, Unpack

    from .._core import Task
    from .._nursery import Nursery

    PosArgsT = TypeVarTuple("PosArgsT")

__all__ = ["ChildFailure", "Supervisor", "SupervisorStatistics", "open_supervisor"]

# What an error handler decides.
Decision = Literal["restart", "drop", "raise"]
DECISIONS: Final[tuple[Decision, ...]] = get_args(Decision)

if TYPE_CHECKING:
    OnError: TypeAlias = Callable[["ChildFailure"], Decision]

logger = logging.getLogger("nurseryio.supervisor")


class ChildFailure(Frozen):
    """One error of one child, for the error handler of a supervisor.

    Attributes:
        name: The name of the child.
        error: The error.
        restarts: How many times this child was restarted before.

    Trio: none.
    """

    __slots__ = ("name", "error", "restarts")

    name: str
    error: Exception
    restarts: int


class SupervisorStatistics(Frozen):
    """The state of a supervisor at one moment.

    Attributes:
        running: How many children run.
        pausing: How many children wait for their restart.
        restarts: How many restarts there were.
        dropped: How many children have ended for good after an error.

    Trio: none.
    """

    __slots__ = ("running", "pausing", "restarts", "dropped")

    running: int
    pausing: int
    restarts: int
    dropped: int


def open_supervisor(
    on_error: Callable[[ChildFailure], Literal["restart", "drop", "raise"]] | None = None,
    *,
    max_restarts: int = 3,
    within: float = 5,
    pause: float = 0.1,
    max_pause: float = 30,
) -> AbstractAsyncContextManager[Supervisor]:
    """Make a nursery whose children fail one by one: ``async with open_supervisor() as group:``.

    An error of a child does not cancel its siblings. The error is given to ``on_error``, which
    returns one of these:

    * ``"restart"``: the function is called again, with the same arguments, after a pause. The first
      pause takes ``pause`` seconds. It doubles up to ``max_pause`` with each restart of this child.
      It begins at ``pause`` again if the child has run for more than ``within`` seconds.
    * ``"drop"``: the child ends, and the others continue.
    * ``"raise"``: as in every nursery, all children are cancelled and the block raises the error.

    If there would be more than ``max_restarts`` restarts in ``within`` seconds, of all children
    together, the error is raised, too.

    Args:
        on_error: The error handler, an ordinary function. Its own errors are raised. If None, each
            error is logged to the logger ``nurseryio.supervisor``, and the child is restarted.
        max_restarts: The limit of restarts, 0 or more.
        within: The seconds in which restarts are counted, more than 0.
        pause: The seconds before the first restart of a child, not negative.
        max_pause: The longest pause in seconds.

    Returns:
        An async context manager that gives the :class:`Supervisor`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: A number is out of range.
        BaseExceptionGroup: At the end of the block, with the errors that were raised.

    Checkpoint: entering is not; leaving always lets other tasks run, and is not interrupted.

    Trio: none. As ``one_for_one`` of a supervisor in Erlang's OTP.
    """
    if on_error is not None:
        reject_non_functions((on_error,))
    if not isinstance(max_restarts, int):
        raise TypeError(f"max_restarts must be an int, not {safe_repr(max_restarts)}")
    within = as_float(within, "within", SECONDS)
    pause = as_float(pause, "pause", SECONDS)
    max_pause = as_float(max_pause, "max_pause", SECONDS)
    if max_restarts < 0 or within <= 0 or pause < 0 or max_pause < pause:
        raise ValueError(
            "max_restarts and pause must not be negative, within must be positive, and max_pause "
            "not less than pause"
        )
    made: Supervisor = blank(Supervisor)
    made._nursery = open_nursery()
    made._on_error = _log_and_restart if on_error is None else on_error
    made._max_restarts = max_restarts
    made._within = within
    made._pauses = (pause, max_pause)
    made._times = deque()
    made._running = made._pausing = made._restarts = made._dropped = 0
    return _Open(made)


def _log_and_restart(failure: ChildFailure) -> Decision:
    # Whether it is restarted is not certain here: the limit and a stop request come after this.
    logger.error("%s has failed", failure.name, exc_info=failure.error)
    return "restart"


class _Open(AbstractAsyncContextManager["Supervisor"]):
    """The context manager of :func:`open_supervisor`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    async def __aenter__(self) -> Supervisor:
        supervisor = self._supervisor  # the line after the entry must not fail
        await supervisor._nursery.__aenter__()
        return supervisor

    async def __aexit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        try:
            return await self._supervisor._nursery.__aexit__(etype, exc, tb)
        finally:
            del exc, tb  # no reference cycle: the traceback holds this frame


class Supervisor(metaclass=NoPublicConstructor):
    """A nursery whose children may fail one by one; made by :func:`open_supervisor`. Trio: none."""

    __slots__ = (
        "_dropped",
        "_max_restarts",
        "_nursery",
        "_on_error",
        "_pauses",
        "_pausing",
        "_restarts",
        "_running",
        "_times",
        "_within",
    )

    _nursery: Nursery
    _on_error: OnError
    _max_restarts: int
    _within: float
    # The first and the longest pause.
    _pauses: tuple[float, float]
    # When children were restarted; times that are too long ago are removed.
    _times: deque[float]
    _running: int
    _pausing: int
    _restarts: int
    _dropped: int

    @property
    def cancel_scope(self) -> CancelScope:
        """The scope around the block and all children; cancel it to stop them all."""
        return self._nursery.cancel_scope

    @property
    def child_tasks(self) -> frozenset[Task]:
        """The tasks of the children that have not ended for good. A restart keeps the task."""
        return self._nursery.child_tasks

    def __repr__(self) -> str:
        return f"<nurseryio.Supervisor at {id(self):#x}, {len(self.child_tasks)} children>"

    def statistics(self) -> SupervisorStatistics:
        """Count children and restarts."""
        return SupervisorStatistics(
            running=self._running,
            pausing=self._pausing,
            restarts=self._restarts,
            dropped=self._dropped,
        )

    def start_soon(
        self,
        async_fn: Callable[[Unpack[PosArgsT]], Awaitable[object]],
        *args: Unpack[PosArgsT],
        name: object = None,
    ) -> None:
        """Start a child that runs ``await async_fn(*args)``, again after each restart.

        Args:
            async_fn: An async function; for keyword arguments use ``functools.partial``.
            args: Its positional arguments.
            name: The name of the task in debugging output, a string or a function.

        Raises:
            TypeError: ``async_fn`` is not a function.
            RuntimeError: The block has ended, or the caller is in another thread or event loop.

        Checkpoint: no.

        Trio: as ``trio.Nursery.start_soon``.
        """
        reject_non_functions((async_fn,))
        name = async_fn if name is None else name
        run = InTheNameOf(async_fn, self._supervise)
        self._nursery.start_soon(run, async_fn, args, name_of(name), name=name)

    async def _supervise(self, async_fn: Any, args: tuple[Any, ...], name: str) -> None:
        restarts = 0
        pause, longest = self._pauses
        while True:
            self._running += 1
            began = current_time()
            try:
                # The scope cuts off those that the function has left open. Otherwise the next run
                # would be inside them.
                with CancelScope():
                    await coroutine_or_error(async_fn, *args)
                return
            except Exception as error:
                decision = self._decide(ChildFailure(name=name, error=error, restarts=restarts))
                if decision == "raise":
                    raise
                if decision == "drop":
                    self._dropped += 1
                    return
            finally:
                self._running -= 1
            restarts += 1
            if current_time() - began > self._within:
                pause = self._pauses[0]
            if not await self._paused(pause):
                return
            pause = min(pause * 2, longest)

    def _decide(self, failure: ChildFailure) -> Decision:
        """Ask the error handler, and see whether the child may be restarted."""
        decision = self._on_error(failure)
        if decision not in DECISIONS:
            if iscoroutine(decision):
                decision.close()  # no warning: the error says it
            raise TypeError(
                f"on_error must return 'restart', 'drop' or 'raise', not {safe_repr(decision)}"
            )
        if decision != "restart":
            return decision
        if stop_requested():
            return "drop"
        now = current_time()
        times = self._times
        while times and now - times[0] > self._within:
            times.popleft()
        if len(times) >= self._max_restarts:
            add_note(
                failure.error,
                f"{failure.name} is not restarted: {len(times)} restarts of all children in "
                f"{self._within:g} seconds are the limit",
            )
            return "raise"
        times.append(now)
        return "restart"

    async def _paused(self, seconds: float) -> bool:
        """Wait before a restart; return whether it is to be made."""
        self._pausing += 1
        try:
            with move_on_at_stop() as waiting:
                await sleep(seconds)
        finally:
            self._pausing -= 1
        if waiting.cancelled_caught:
            self._dropped += 1
            return False
        self._restarts += 1
        return True
