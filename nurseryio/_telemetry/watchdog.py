"""``Watchdog``: a thread that logs what stands still on a loop, while it stands still.

The thread looks at the loop from outside, a few times in each ``slow_step``. It does not use the
hooks of instruments, so the loop makes its steps at full speed.

Rule 1: a step blocks the loop if two looks find the same task in a step, and a call that was sent
to the loop between them has not been made. Between two steps of one task the loop makes such
calls, so it has been a single step.

Rule 2: a call is sent only after a look has found the loop in a step. An idle loop is not woken.

Rule 3: each message is about one thing: a place, a scope. The same thing is logged again only after
a pause.

Rule 4: the thread never ends the program, keeps it alive or raises an error in it. What cannot be
looked at is looked at again the next time.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from .._asyncio import compat
from .._asyncio.compat import running_loop
from .._asyncio.interpreter import BackgroundThread
from .._base.abcs import Instrument
from .._base.unsupported import needs
from .._base.util import SECONDS, as_float, safe_repr
from .._base.watchers import unwatch, watch
from .._core.scope_tree import chain
from .._core.task import records
from .._observe.ages import Ages
from .._observe.drawing import scope_line, task_line
from .._observe.explain import explain
from .._observe.places import program_place
from .._observe.task_tree import interrupted_stack, scope_info, tree_of
from .._observe.wait_parts import name_of_task
from .backlog import Backlogs

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from .._asyncio.compat import Loop
    from .._core.task import Task
    from .._observe.places import Place

LOGGER = logging.getLogger("nurseryio.Watchdog")

# How many looks there are in the time of a slow step.
LOOKS = 4
# How many looks at scopes, tasks and channels there are in ``stuck_cancel``, and the longest pause
# between two of them (seconds).
LOOKS_AROUND = 4
LONGEST_PAUSE = 2.0
# From which time on (seconds) it is noted that the process stood still.
SHORTEST_STOP = 0.05
# How many kinds of tasks are named when there are many.
KINDS = 5


class Watchdog(Instrument):
    """Logs what stands still on an event loop: blocking steps, cancelled scopes that do not end.

    ::

        with Watchdog(slow_step=0.1, stuck_cancel=5.0):
            ...

    It watches the loop that runs in this thread, from another thread. ``run(...,
    instruments=[Watchdog()])`` does the same for a whole run. The messages go to the logger
    ``nurseryio.Watchdog``, at level WARNING. Each has an attribute ``watchdog`` (``extra`` of
    :mod:`logging`), a dict with the same data: ``event``, ``seconds``, ``task``, ``path``,
    ``stack`` and others.

    * A step that blocks the loop is logged **while it blocks**, with the task, the scopes and
      nurseries around it, and the stack of the line that blocks; and again, with its length, when
      it has ended.
    * A cancelled scope that has not ended is logged with what :func:`explain` says about it.
    * While it watches, the reason of each cancellation keeps the stack of the call of ``cancel()``:
      see :class:`CancelReason`.
    * A number of tasks is logged when it is first reached, and each time it has doubled, with the
      lines at which most of them are.
    * A memory channel that is stuck is logged: its consumer is gone, or does not come back. That is
      so if tasks wait to send, and nothing was received for ``stuck_channel``. If no task waits to
      send, it is so if items stay in the buffer that long, and either its receiving ends were
      dropped without a ``close()``, or no task has one among its variables.
    * A memory channel without a limit, or an ``UnboundedQueue``, is logged when it holds
      ``big_buffer`` items, and each time their number has doubled.

    Messages about channels name the tasks that have the ends, as far as tasks show them: among the
    variables of their functions, and one or two attributes or containers deep. That is left out on
    a Python without the GIL. Known are the channels that were made while the watchdog watches, and
    older ones once a task was seen waiting in them. Not detected is a consumer that is only slow,
    or one that sends as many items into the channel as it takes out.

    While it watches, trees and explanations say for how long, at least, a task has waited, a lock
    was held, and a scope has been cancelled; also which line has set a deadline, and at which lines
    a task has swallowed cancellations. A scope with a deadline then takes a little longer to enter.

    Args:
        slow_step: How long a step may take (seconds); ``inf`` for any time. A step that takes a
            little longer may be logged only when it has ended.
        stuck_cancel: How long a cancelled scope may take to end (seconds); ``inf`` for any time.
        many_tasks: How many tasks are many; None for any number.
        stuck_channel: How long items of a channel may wait (seconds); ``inf`` for any time.
        big_buffer: How many items are many for a buffer without a limit; None for any number.
        pause: How long the same place, scope or channel is not logged again (seconds).

    Raises:
        TypeError: an argument is not a number.
        ValueError: a time is not positive, or ``many_tasks`` or ``big_buffer`` is not.

    Trio: none.
    """

    def __init__(
        self,
        *,
        slow_step: float = 0.1,
        stuck_cancel: float = 5.0,
        many_tasks: int | None = 10_000,
        stuck_channel: float = 30.0,
        big_buffer: int | None = 10_000,
        pause: float = 60.0,
    ) -> None:
        self._limits = _Limits(
            slow_step=_positive(slow_step, "slow_step"),
            stuck_cancel=_positive(stuck_cancel, "stuck_cancel"),
            many_tasks=_number(many_tasks, "many_tasks"),
            stuck_channel=_positive(stuck_channel, "stuck_channel"),
            big_buffer=_number(big_buffer, "big_buffer"),
            pause=_positive(pause, "pause"),
        )
        self._watch: _Watch | None = None

    def __repr__(self) -> str:
        state = "not watching" if self._watch is None else f"watching {self._watch.loop!r}"
        return f"<nurseryio.instruments.Watchdog at {id(self):#x}, {state}>"

    @needs("observers", "Watchdog")
    def start(self) -> None:
        """Begin to watch the loop that runs in this thread.

        Raises:
            NotImplementedError: the platform does not have threads.
            RuntimeError: no loop runs in this thread, or the watchdog is watching a loop already.
        """
        if self._watch is not None and not self._watch.over:
            raise RuntimeError("this watchdog is watching a loop already: use another one")
        watching = _Watch(running_loop(), self._limits)
        watching.start()
        self._watch = watching

    def stop(self) -> None:
        """Stop watching. Does nothing if the watchdog does not watch a loop."""
        watching, self._watch = self._watch, None
        if watching is not None:
            watching.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_details: object) -> None:
        self.stop()

    def before_run(self) -> None:
        """The run begins: watch its loop."""
        self.start()

    def after_run(self) -> None:
        """The run is over."""
        self.stop()


def _positive(value: Any, name: str) -> float:
    seconds = as_float(value, name, SECONDS)
    if not seconds > 0:
        raise ValueError(f"{name} must be positive")
    return seconds


def _number(value: Any, name: str) -> float:
    if value is None:
        return inf
    if not isinstance(value, int):
        raise TypeError(f"{name} must be an int or None, not {value!r}")
    if value <= 0:
        raise ValueError(f"{name} must be positive")
    return value


class _Limits(NamedTuple):
    """The arguments of a watchdog; ``inf`` for no limit."""

    slow_step: float = inf
    stuck_cancel: float = inf
    many_tasks: float = inf
    stuck_channel: float = inf
    big_buffer: float = inf
    pause: float = 60.0


class _Step:
    """A step that the loop was found in.

    Args:
        key: What identifies it: the task, or the frame of the callback.
        since: When it was first seen.
    """

    def __init__(self, key: object, since: float) -> None:
        self.key = key
        self.since = since
        self.ended: float | None = None
        self.details: dict[str, Any] = {}
        self.text = ""
        self.place: Place | None = None
        self.logged = False
        # For how many of its seconds the whole process has stood still.
        self.stopped = 0.0

    def end(self) -> None:
        """Called by the loop: the step has ended, as the loop makes other calls again."""
        self.ended = time.monotonic()


class _Watch:
    """One loop that is watched: the thread and what it has seen."""

    def __init__(
        self, loop: Loop, limits: _Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.loop = loop
        self._clock = clock
        self._loop_thread = threading.get_ident()
        self._limits = limits
        self._log_tasks_at = limits.many_tasks
        self._step: _Step | None = None
        self._ages = Ages(loop, clock)
        self._backlogs = Backlogs(loop, limits.big_buffer, limits.stuck_channel, clock)
        # Until when a thing is not logged again.
        self._silent: dict[object, float] = {}
        self._look_around_at = -inf
        shorter = min(limits.stuck_cancel, limits.stuck_channel)
        self._pause_around = min(shorter / LOOKS_AROUND, LONGEST_PAUSE)
        self._interval = min(limits.slow_step / LOOKS, self._pause_around)
        self._stopped = threading.Event()
        self._thread = BackgroundThread(self._run, "nurseryio watchdog", end=self._stopped.set)

    @property
    def over(self) -> bool:
        """Whether the thread has ended, or will at its next look."""
        return self._stopped.is_set() or self.loop.is_closed() or not self._thread.is_alive()

    def start(self) -> None:
        watch(self)
        self._ages.show()
        try:
            self._thread.start()
        except BaseException:
            self._let_go()
            raise

    def stop(self) -> None:
        self._stopped.set()
        self._let_go()
        if self._thread is not threading.current_thread():
            self._thread.join(self._interval + 1)

    def _let_go(self) -> None:
        unwatch(self)
        self._ages.hide()

    def made(self, thing: Any) -> None:
        """Called by the thread that has made a channel, while the watch is on."""
        self._backlogs.made(thing)

    def _run(self) -> None:
        while True:
            began, cpu_time = self._clock(), time.process_time()
            if self._stopped.wait(self._interval) or self.loop.is_closed():
                break
            now = self._clock()
            stopped = stood_still(now - began, time.process_time() - cpu_time, self._interval)
            # BaseException: a handler of logging may raise any error.
            with suppress(BaseException):
                self.look(now, stopped)
        # A run often ends right after the step that has blocked it.
        step = self._step
        if step is not None and step.ended is not None:
            with suppress(BaseException):
                self._report_end(step, step.ended)
        self._let_go()

    def look(self, now: float, stopped: float = 0.0) -> None:
        """Look once.

        Args:
            now: the time, on the watch's clock.
            stopped: for how many seconds before the whole process has stood still.
        """
        if isfinite(self._limits.slow_step):
            if self._step is not None:
                self._step.stopped += stopped
            self._look_at_step(now)
        if now >= self._look_around_at:
            self._look_around_at = now + self._pause_around
            for part in (self._look_at_scopes, self._look_at_channels, self._look_at_tasks):
                with suppress(Exception):  # the loop changes what is looked at
                    part(now)

    # -- steps that block ----------------------------------------------------------

    def _look_at_step(self, now: float) -> None:
        step = self._step
        if step is not None and step.ended is not None:
            self._report_end(step, step.ended)
            self._step = step = None
        frame = sys._current_frames().get(self._loop_thread)
        key = self._busy_with(frame)
        if step is not None and step.key is not key:
            # One iteration of the loop with many steps: none of them need be slow.
            self._step = step = None
        if key is None:
            return
        if step is None:
            self._step = step = _Step(key, now)
            with suppress(RuntimeError):  # the loop is closed
                self.loop.call_soon_threadsafe(step.end)
            return
        if not step.logged:
            self._describe(step, key, frame)
            if now - step.since >= self._limits.slow_step:
                self._report(step, now - step.since, "is blocking the loop, so far for")

    def _busy_with(self, frame: Any) -> object:
        """What the loop is in a step of; None if it waits for input and output."""
        with suppress(RuntimeError):
            task = asyncio.current_task(self.loop)
            if task is not None:
                return task
        while frame is not None:
            if frame.f_code is compat.CALLBACK_CODE:
                return frame
            frame = frame.f_back
        return None

    def _describe(self, step: _Step, key: Any, frame: Any) -> None:
        places = interrupted_stack(self.loop, frame)
        if compat.is_task(key):
            task = records.get(key)
            name: str | None = name_of_task(key if task is None else task)
            path = [] if task is None else path_of(task, self.loop.time())
            step.text = f"task {name!r}"
        else:
            name, path = None, []
            step.text = "a callback" if places else f"a callback, {safe_repr(key.f_locals['self'])}"
        step.place = program_place(places)
        step.details = {"task": name, "path": path, "stack": [str(place) for place in places]}

    def _report(self, step: _Step, seconds: float, what: str) -> None:
        step.logged = True
        if self._is_silent(("step", step.place or step.text), time.monotonic()):
            step.text = ""
            return
        stack = step.details["stack"]
        lines = [f"{step.text} {what} {seconds:.2f} s{', at:' if stack else ''}"]
        lines += [f"   {place}" for place in stack]
        if step.details["path"]:
            lines.append("   inside: " + " > ".join(step.details["path"]))
        lines += _about_stop(step)
        details = {"seconds": seconds, "stopped": step.stopped, "ended": False}
        self._log("slow step", lines, **details, **step.details)

    def _report_end(self, step: _Step, ended: float) -> None:
        seconds = ended - step.since
        if not step.logged:
            if seconds >= self._limits.slow_step and step.text:
                self._report(step, seconds, "has blocked the loop, for")
        elif step.text:
            line = f"{step.text} has blocked the loop for {seconds:.2f} s, and has ended that step"
            details = {"seconds": seconds, "stopped": step.stopped, "ended": True}
            self._log("slow step", [line, *_about_stop(step)], **details, **step.details)

    # -- scopes that do not end ------------------------------------------------------

    def _look_at_scopes(self, now: float) -> None:
        cancelled = self._ages.look()
        limit = self._limits.stuck_cancel
        if not isfinite(limit):
            return
        all_of_them = set(cancelled)
        for scope in cancelled:
            since = self._ages.cancelled_since(scope)
            seconds = 0.0 if since is None else now - since
            around: Any = scope._parent
            if seconds < limit or all_of_them.intersection(chain(around, None)):
                continue  # the outermost one is enough
            if not self._is_silent(("scope", id(scope)), now):
                explanation = explain(scope)  # type: ignore[arg-type]
                if explanation.ended:
                    continue
                line = f"cancelled, and has not ended for at least {seconds:.1f} s: {explanation}"
                self._log("stuck cancel", [line], seconds=seconds, **explanation.as_dict())

    # -- channels ----------------------------------------------------------------------

    def _look_at_channels(self, now: float) -> None:
        for event, about, lines, details in self._backlogs.look():
            if not self._is_silent(about, now):
                self._log(event, lines, **details)

    # -- many tasks --------------------------------------------------------------------

    def _look_at_tasks(self, _now: float) -> None:
        count = self._ages.count
        if count < self._log_tasks_at:
            return
        self._log_tasks_at = 2 * count
        tasks = tree_of(self.loop).tasks
        kinds: Counter[Any] = Counter((task.state, task.place) for task in tasks)
        lines = [f"{count:,} tasks; most of them are:"]
        for (state, place), number in kinds.most_common(KINDS):
            one = next(task for task in tasks if (task.state, task.place) == (state, place))
            lines.append(f"   {number:,} like {task_line(one)}")
        places = {str(place): number for (_, place), number in kinds.most_common(KINDS)}
        self._log("many tasks", lines, count=count, places=places)

    # -- messages ------------------------------------------------------------------------

    def _is_silent(self, thing: object, now: float) -> bool:
        if now < self._silent.get(thing, -inf):
            return True
        self._silent[thing] = now + self._limits.pause
        if len(self._silent) > 1000:
            self._silent = {key: until for key, until in self._silent.items() if until > now}
        return False

    def _log(self, event: str, lines: list[str], **details: Any) -> None:
        LOGGER.warning("%s", "\n".join(lines), extra={"watchdog": {"event": event, **details}})


def stood_still(pause: float, cpu_time: float, expected: float) -> float:
    """For how many seconds the whole process has stood still.

    Args:
        pause: how long a thread has slept (seconds).
        cpu_time: how much CPU time the process has used meanwhile (seconds).
        expected: how long the thread was to sleep (seconds).
    """
    late = pause - expected
    return late if late > max(expected, SHORTEST_STOP) and cpu_time < pause / 10 else 0.0


def _about_stop(step: _Step) -> list[str]:
    if not step.stopped:
        return []
    return [
        f"   for about {step.stopped:.2f} s of it the whole process stood still: it was stopped, "
        "got no CPU, or a call did not release the GIL"
    ]


def path_of(task: Task, now: float) -> list[str]:
    """The tasks and scopes around a task's innermost line, outermost first; it begins with a task.

    The tasks that ``run()`` has made for itself are left out.
    """
    run = task._state.run
    root = None if run is None else run.root_task
    found: list[str] = []
    owner: Any = task
    for node in chain(task.scope, None):
        if node._task is root or node._task is None:
            break
        if node._task is not owner:
            found.append(name_of_task(owner))
            owner = node._task
        found.append(scope_line(scope_info(node, now)))
    found.append(name_of_task(owner))
    return found[::-1]
