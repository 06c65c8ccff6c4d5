"""Records: one :class:`Task` per asyncio task that takes part, one :class:`LoopState` per loop.

Rule 1: a record is found through one dict keyed by the asyncio task. A nursery child's record
is entered when it is spawned and removed at the end of its last step; for a task that somebody
else started it is made at first use (*adopted*) and removed by a done-callback.

Rule 2: a record never keeps a finished task's coroutine, result or error alive.

Rule 3: what belongs to a whole loop (deadlines, instruments, the watch list of delivery) lives
in its :class:`LoopState`, never in a module global: several loops may run in several threads.
"""

from __future__ import annotations

import contextvars
import gc
from math import inf
from typing import TYPE_CHECKING, Any

from . import foreign, host
from .deadlines import Deadlines
from .extra import NO_EXTRA, Extra
from .host import current_task as current_asyncio_task
from .tree import ROOT, Node, chain
from .util import NoPublicConstructor, blank, name_of

if TYPE_CHECKING:
    import asyncio
    import types
    from collections.abc import Callable, Iterator, Sized

    from .deadlines import Entry
    from .instruments import Instruments
    from .nursery import Nursery


# What Task._rested is after others have had their turn, because the task has waited.
RESTED = 16

# ... and for a task that has just begun: there may be others behind it that are still to begin.
NEW = RESTED - 1


class Task(metaclass=NoPublicConstructor):
    """One task: an :class:`asyncio.Task` and what structured concurrency knows of it.

    Records are handed out by :func:`current_task`, ``Nursery.child_tasks`` and instruments; they
    are never made by hand.

    Attributes:
        asyncio_task: the asyncio task itself; None once a task that asyncio code started has
            ended.
        coro: the coroutine object that the task runs.

    Trio: ``trio.lowlevel.Task``, with ``asyncio_task`` added.
    """

    __slots__ = (
        "__weakref__",
        "_abort",
        "_coro",
        "_extra",
        "_held",
        "_last_interrupted",
        "_look_closer",
        "_name",
        "_park",
        "_parent_nursery",
        "_rested",
        "_shielded_step",
        "_started",
        "_state",
        "_strikes",
        "_wakeup",
        "_watched",
        "asyncio_task",
        "scope",
    )

    # -- where the task stands --
    # The innermost open scope; ROOT for an adopted task outside any scope, and after the end.
    scope: Node
    _parent_nursery: Nursery | None
    _state: LoopState
    _coro: Any
    # What the name is made of when somebody asks; None for an adopted task.
    _name: Any
    # -- what it is doing --
    # False until the first step; always True for an adopted task.
    _started: bool
    # The future of wait_task_rescheduled() while the task waits there.
    _park: asyncio.Future[Any] | None
    # Its abort function, only there while _park is set. A dict is a queue to take the task out of
    # (see parking). Once called it is replaced: by AGREED if the wait is over, else by None.
    _abort: Any
    # The callback by which asyncio wakes the task, noted when the task was first rescheduled.
    _wakeup: Any
    # In a yield that scope cancellation must not interrupt.
    _shielded_step: bool
    # How many operations the task may make while nobody else is ready, before it asks the loop
    # whether somebody is: see parking, and stream in _net.
    _rested: int
    # -- the ledger (see delivery) --
    # Invariant: True only while scope._effective; then one of asyncio_task.cancelling() is ours.
    _held: bool
    # Invariant: True exactly while the record is on its loop's watch list.
    _watched: bool
    # The future of foreign code that was interrupted last. It refuses while it is not done.
    _last_interrupted: Any
    # Interruptions of foreign awaits: their number, since when they are counted, and for how many
    # seconds it is waited after too many.
    _strikes: tuple[int, float, float] | None
    # checkpoint_if_cancelled() must look closer: a native cancel was held off and put back, so
    # that it may be pending in the asyncio task.
    _look_closer: bool
    _extra: Extra
    # None until the asyncio task is made, and in an adopted task after its end.
    asyncio_task: asyncio.Task[Any]

    def _own_extra(self) -> Extra:
        """The task's own :class:`Extra`, to note something there."""
        if self._extra is NO_EXTRA:
            self._extra = Extra()
        return self._extra

    def __repr__(self) -> str:
        return f"<Task {self.name!r} at {id(self):#x}>"

    @property
    def coro(self) -> Any:
        """The coroutine object of the function that was spawned."""
        return self._coro

    @property
    def name(self) -> str:
        """A name for people: the one given at the spawn, else the function's qualified name."""
        name = self._name
        if name is None:
            # An adopted task: asyncio may name it after it has been seen for the first time.
            return str(self.asyncio_task.get_name())
        if not isinstance(name, str):
            name = self._name = name_of(name)
        return name

    @name.setter
    def name(self, name: str) -> None:
        if self.asyncio_task is not None:
            self.asyncio_task.set_name(str(name))
        self._name = name

    @property
    def context(self) -> contextvars.Context:
        """The context that the task runs in (a copy of it where Python does not tell: 3.10).

        May be assigned: the task goes on in that context from its next step on. That is for test
        frameworks and the like; it slows the loop down while the task lives.

        Raises:
            TypeError: on assigning anything but a ``contextvars.Context``.
            RuntimeError: on assigning when the task has ended.
        """
        context = self._extra.context
        if context is None:
            context = host.task_context(self.asyncio_task)
        return contextvars.copy_context() if context is None else context

    @context.setter
    def context(self, context: contextvars.Context) -> None:
        if not isinstance(context, contextvars.Context):
            raise TypeError(f"context must be a contextvars.Context, not {context!r}")
        if host.is_over(self.asyncio_task):
            raise RuntimeError(f"{self!r} has ended")
        self._own_extra().context = context
        for hook in context_hooks:
            hook(self, context)

    @property
    def parent_nursery(self) -> Nursery | None:
        """The nursery that the task runs in; None for a task that asyncio code started."""
        return self._parent_nursery

    @property
    def eventual_parent_nursery(self) -> Nursery | None:
        """Where a task spawned by ``nursery.start()`` goes once it is ready; else None."""
        return self._extra.eventual_parent_nursery

    @property
    def custom_sleep_data(self) -> Any:
        """Free for whoever calls ``wait_task_rescheduled``; None again when the task wakes."""
        return self._extra.custom_sleep_data

    @custom_sleep_data.setter
    def custom_sleep_data(self, data: Any) -> None:
        self._own_extra().custom_sleep_data = data

    @property
    def child_nurseries(self) -> list[Nursery]:
        """The nurseries that are open in this task, outer before inner."""
        found: list[Any] = [
            node._nest
            for node in chain(self.scope, self._base())
            if node._nest is not None and node._occupant is self
        ]
        found.reverse()
        return found

    def _base(self) -> Node:
        """The node at which the task's own part of the scope tree begins."""
        parent = self._parent_nursery
        return ROOT if parent is None else parent.cancel_scope

    def iter_await_frames(self) -> Iterator[tuple[types.FrameType, int]]:
        """Walk down what the task is waiting in: pairs of frame and line number, outermost first.

        ``traceback.StackSummary.extract(task.iter_await_frames())`` makes a printable stack.
        """
        return await_frames(self._coro)


def await_frames(awaited: Any) -> Iterator[tuple[types.FrameType, int]]:
    """The frames, with line numbers, of a coroutine and of what it waits in, outermost first."""
    while awaited is not None:
        for prefix, link in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            if hasattr(awaited, f"{prefix}_frame"):
                frame = getattr(awaited, f"{prefix}_frame")
                if frame is not None:
                    yield frame, frame.f_lineno
                awaited = getattr(awaited, link)
                break
        else:
            awaited = _generator_behind(awaited)


def make_task(
    state: LoopState, coro: Any, name: object, parent: Nursery | None, scope: Node
) -> Task:
    """A new record."""
    self: Task = blank(Task)
    self._state = state
    self._coro = coro
    self._name = name
    self._parent_nursery = parent
    self.scope = scope
    self._started = self._held = self._watched = self._shielded_step = self._look_closer = False
    self._rested = NEW
    self._park = self._last_interrupted = self._strikes = self._wakeup = None
    self.asyncio_task = None  # type: ignore[assignment]
    self._extra = NO_EXTRA
    return self


def _generator_behind(awaited: Any) -> Any:
    """The async generator that ``__anext__()``, ``asend()`` and the like are stepping."""
    if type(awaited).__name__ not in ("async_generator_asend", "async_generator_athrow"):
        return None
    return next((ref for ref in gc.get_referents(awaited) if hasattr(ref, "ag_frame")), None)


class LoopState:
    """What the library keeps for one event loop."""

    __slots__ = (
        "__weakref__",
        "armed_at",
        "clock",
        "context",
        "deadlines",
        "gauge",
        "instruments",
        "locals",
        "long_nurseries",
        "loop",
        "making",
        "ready",
        "run",
        "run_soon",
        "strict",
        "timer",
        "unfinished",
        "watch_due",
        "watch_list",
    )

    def __init__(self, loop: host.Loop) -> None:
        self.loop: host.Loop = loop
        # The library's callbacks run in an empty context: they must not keep a user's values alive.
        self.context: contextvars.Context = contextvars.Context()
        # Empty while nobody is ready to make a step (never, where the loop does not show it).
        self.ready: Sized = host.ready_queue(loop)
        # How the loop makes tasks, and whether something stands there.
        self.making: host.TaskMaking = host.TaskMaking(loop)
        self.deadlines: Deadlines = Deadlines()
        # Invariant: a loop timer is armed at armed_at, which is not later than the earliest
        # live deadline; inf and None mean that none is armed. While watch_due it may be later.
        self.armed_at: float = inf
        self.timer: asyncio.Handle | None = None
        # Records to look at again, and whether the call that will do it is scheduled.
        self.watch_list: list[Task] = []
        self.watch_due: bool = False
        # Calls that failed half-way, to be made again in the next iteration of the loop (see
        # finish_later); and the function that schedules that, which needs no stack.
        self.unfinished: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.run_soon: Callable[[], object] = host.emergency_call(loop, self._finish, self.context)
        # How many nurseries to come are taken to last longer than a turn of the loop.
        self.long_nurseries: int = 0
        # None while there are none: the hot paths test for that.
        self.instruments: Instruments | None = None
        # Set while instruments are installed: the hook into the loop (see gauge.py).
        self.gauge: Any = None
        # Set by run(): its Run object, its clock, its default for nurseries.
        self.run: Any = None
        self.clock: Any = None
        self.strict: bool | None = None
        # Values of RunVars.
        self.locals: dict[Any, Any] = {}

    def add_deadline(self, when: float, function: Any, argument: Any) -> Entry:
        """Have ``function(argument)`` called once the loop's time reaches ``when``."""
        entry = self.deadlines.add(when, function, argument)
        if when < self.armed_at:
            try:
                self._arm(when)
            except BaseException:
                self.deadlines.drop(entry)
                raise
        return entry

    def _arm(self, when: float) -> None:
        loop = self.loop
        if when > loop.time():
            timer: asyncio.Handle = loop.call_at(when, fire, self, context=self.context)
        else:
            # Not a timer: those are looked at only after the callbacks that are ready now, and
            # a task's next checkpoint must notice a deadline that has passed.
            timer = loop.call_soon(fire, self, context=self.context)
        before = self.timer
        self.timer = timer
        self.armed_at = when
        if before is not None:
            before.cancel()

    def expire(self) -> None:
        """Hand out what is due, now."""
        if self.deadlines.next() <= self.loop.time():
            if self.timer is not None:
                self.timer.cancel()
            fire(self)

    def arm_exactly(self) -> None:
        """Set the loop timer to the earliest live deadline: a dropped one may have been earlier."""
        when = self.deadlines.next()
        if when != self.armed_at and self.timer is not None:
            self.timer.cancel()
            self.timer = None
            self.armed_at = inf
            if when != inf:
                self._arm(when)

    # -- when something fails ----------------------------------------------------

    def finish_later(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` in the next iteration of the loop, to finish what failed.

        Needs neither stack nor the loop's Python code, so it works where almost nothing does.
        """
        self.unfinished.append((function, args))
        try:
            self.run_soon()
        except RuntimeError:
            if not self.loop.is_closed():
                raise

    def _finish(self) -> None:
        try:
            while self.unfinished:
                function, args = self.unfinished.pop(0)
                try:
                    function(*args)
                except BaseException as error:
                    self.report(error)
        finally:
            if self.unfinished:
                self.run_soon()

    def report(self, error: BaseException) -> None:
        """Report an error of the library's own bookkeeping, for which no caller waits.

        It ends a ``run`` with :exc:`TrioInternalError`; in another program the loop's exception
        handler gets it.

        Raises:
            BaseException: The error itself if it is one that ends the loop.
        """
        if not isinstance(error, Exception):
            raise error
        if self.run is not None:
            self.run.token._crash(error)
        else:
            self.loop.call_exception_handler(
                {"message": "nurseryio: an internal operation failed", "exception": error}
            )


# The least time (seconds) before a timer that came too early is armed again. uvloop counts in
# whole milliseconds and rounds; without this it would spin through the rest of one.
EARLY = 0.001


def fire(state: LoopState) -> None:
    """The callback of the loop timer: hand out what is due, then arm for the next."""
    try:
        promised = state.armed_at
        state.timer = None
        state.armed_at = inf
        deadlines = state.deadlines
        now = state.loop.time() + CLOCK_RESOLUTION
        while (due := deadlines.pop_due(now)) is not None:
            try:
                due[0](due[1])
            except BaseException as error:
                state.report(error)
        when = deadlines.next()
        # Those who have just been cancelled will drop deadlines of their own: whoever looks at
        # them again after their step arms the timer (delivery), once and not twice.
        if when < state.armed_at and not state.watch_due:
            # Still to come although the timer was set for it: the timer came early.
            state._arm(max(when, now + EARLY) if when <= promised else when)
    except BaseException:
        state.finish_later(fire, state)
        raise


# Stock loops fire a timer up to this many seconds before its time.
CLOCK_RESOLUTION = 1e-9

# -- finding records ------------------------------------------------------------

records: dict[asyncio.Task[Any], Task] = {}
# A closed loop stays until the next one is made.
_states: dict[host.Loop, LoopState] = {}


def loop_state(loop: host.Loop) -> LoopState:
    """The state kept for a loop, made at first use."""
    state = _states.get(loop)
    if state is None:
        _sweep_closed_loops()
        state = _states[loop] = LoopState(loop)
    return state


def _sweep_closed_loops() -> None:
    """Drop the states of loops that were closed, and the records of tasks that now never end."""
    for loop in list(_states):
        if loop.is_closed():
            _states.pop(loop, None)
    for task, record in list(records.items()):
        if record._state.loop.is_closed():
            records.pop(task, None)


def current_state() -> LoopState:
    """The state of the loop that runs in this thread.

    Raises:
        RuntimeError: where no loop is running.
    """
    try:
        loop = host.running_loop()
    except RuntimeError:
        raise RuntimeError("must be called from async context") from None
    return loop_state(loop)


def current_task() -> Task:
    """The task that is running, as a record.

    Returns:
        The same object for as long as the task runs; a task that asyncio code started gets its
        record at the first call.

    Raises:
        RuntimeError: outside any task (no loop running, or in a callback of the loop).

    Trio: ``trio.lowlevel.current_task``.
    """
    try:
        task = current_asyncio_task()
        return records[task]  # type: ignore[index]
    except KeyError:
        pass
    except RuntimeError:
        raise RuntimeError("must be called from async context") from None
    if task is None:
        raise RuntimeError("must be called from async context (inside a task, not a callback)")
    return adopt(task)


def check_home(state: LoopState) -> None:
    """Raise RuntimeError unless the caller may touch what belongs to the loop of ``state``.

    That is code that this loop runs; while it does not run, any code.
    """
    loop = host.running_loop_or_none()
    if loop is state.loop or (loop is None and not state.loop.is_running()):
        return
    if state.loop.is_closed():
        return  # its tasks make no step any more, whatever is done to them
    raise RuntimeError(
        "called from another thread or event loop than the one that this belongs to, where it "
        "would be lost: in a thread use nurseryio.from_thread.run_sync(function, "
        "trio_token=token), with a token that nurseryio.lowlevel.current_trio_token() has "
        "returned in the loop"
    )


def adopt(task: asyncio.Task[Any]) -> Task:
    """Make the record of a task that somebody else has started."""
    foreign.look()
    state = loop_state(task.get_loop())
    record = make_task(state, task.get_coro(), None, None, ROOT)
    record.asyncio_task = task
    record._started = True
    task.add_done_callback(_forget, context=state.context)
    records[task] = record
    return record


# What else has to happen when an adopted task ends, with its record: filled by upper floors.
end_hooks: list[Callable[[Task], object]] = []


# What has to happen when a task's context is assigned: filled by an upper floor.
context_hooks: list[Callable[[Task, contextvars.Context], object]] = []


def _forget(task: asyncio.Task[Any]) -> None:
    record = records.pop(task, None)
    if record is not None:
        for hook in end_hooks:
            try:
                hook(record)
            except BaseException as error:
                record._state.report(error)
        record.scope = ROOT
        record._held = False
        # What the task has raised holds frames that hold the record: no circle back to the task.
        record._name = record.name
        record._wakeup = None
        record.asyncio_task = None  # type: ignore[assignment]
