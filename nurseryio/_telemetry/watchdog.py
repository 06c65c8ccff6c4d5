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
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .._asyncio import compat
from .._asyncio.compat import running_loop
from .._base import call_stack
from .._base.abcs import Instrument
from .._base.unsupported import needs
from .._base.util import SECONDS, as_float, safe_repr
from .._core.loop_state import loop_state
from .._core.scope_tree import chain
from .._core.task import records
from .._observe.drawing import scope_line, task_line
from .._observe.explain import explain
from .._observe.places import program_place
from .._observe.task_tree import interrupted_stack, scope_info, tree_of
from .._observe.wait_parts import name_of_task

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._asyncio.compat import Loop
    from .._core.loop_state import LoopState
    from .._core.task import Task
    from .._observe.places import Place

LOGGER = logging.getLogger("nurseryio.Watchdog")

# How many looks there are in the time of a slow step.
LOOKS = 4
# How many looks at the scopes there are in ``stuck_cancel``.
LOOKS_AT_SCOPES = 4
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

    Args:
        slow_step: How long a step may take (seconds); ``inf`` for any time. A step that takes a
            little longer may be logged only when it has ended.
        stuck_cancel: How long a cancelled scope may take to end (seconds); ``inf`` for any time.
        many_tasks: How many tasks are many; None for any number.
        pause: How long the same place or scope is not logged again (seconds).

    Raises:
        TypeError: an argument is not a number.
        ValueError: a time is not positive, or ``many_tasks`` is not.

    Trio: none.
    """

    def __init__(
        self,
        *,
        slow_step: float = 0.1,
        stuck_cancel: float = 5.0,
        many_tasks: int | None = 10_000,
        pause: float = 60.0,
    ) -> None:
        self._slow_step = _positive(slow_step, "slow_step")
        self._stuck_cancel = _positive(stuck_cancel, "stuck_cancel")
        self._pause = _positive(pause, "pause")
        if many_tasks is not None and not isinstance(many_tasks, int):
            raise TypeError(f"many_tasks must be an int or None, not {many_tasks!r}")
        if many_tasks is not None and many_tasks <= 0:
            raise ValueError("many_tasks must be positive")
        self._many_tasks = many_tasks
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
        self._watch = _Watch(
            running_loop(), self._slow_step, self._stuck_cancel, self._many_tasks, self._pause
        )
        self._watch.start()

    def stop(self) -> None:
        """Stop watching. Does nothing if the watchdog does not watch a loop."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

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

    def end(self) -> None:
        """Called by the loop: the step has ended, as the loop makes other calls again."""
        self.ended = time.monotonic()


class _Watch:
    """One loop that is watched: the thread and what it has seen."""

    def __init__(
        self,
        loop: Loop,
        slow_step: float,
        stuck_cancel: float,
        many_tasks: int | None,
        pause: float,
    ) -> None:
        self.loop = loop
        self._state: LoopState = loop_state(loop)
        self._loop_thread = threading.get_ident()
        self._slow_step = slow_step
        self._stuck_cancel = stuck_cancel
        self._pause = pause
        self._log_tasks_at: float = inf if many_tasks is None else many_tasks
        self._step: _Step | None = None
        # When each cancelled scope was first seen.
        self._cancelled: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        # Until when a thing is not logged again.
        self._silent: dict[object, float] = {}
        self._look_at_scopes_at = -inf
        self._interval = min(slow_step / LOOKS, stuck_cancel / LOOKS_AT_SCOPES, 1.0)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nurseryio watchdog", daemon=True)

    @property
    def over(self) -> bool:
        """Whether the thread has ended, or will at its next look."""
        return self._stopped.is_set() or self.loop.is_closed() or not self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()
        call_stack.watchers.add(self)

    def stop(self) -> None:
        self._stopped.set()
        call_stack.watchers.discard(self)
        if self._thread is not threading.current_thread():
            self._thread.join(self._interval + 1)

    def _run(self) -> None:
        while not self._stopped.wait(self._interval) and not self.loop.is_closed():
            with suppress(Exception):
                self.look(time.monotonic())
        # A run often ends right after the step that has blocked it.
        step = self._step
        if step is not None and step.ended is not None:
            with suppress(Exception):
                self._report_end(step, step.ended)
        call_stack.watchers.discard(self)

    def look(self, now: float) -> None:
        """Look once.

        Args:
            now: the time, on the clock of ``time.monotonic``.
        """
        if isfinite(self._slow_step):
            self._look_at_step(now)
        if now >= self._look_at_scopes_at:
            self._look_at_scopes_at = now + min(self._stuck_cancel / LOOKS_AT_SCOPES, 10.0)
            if isfinite(self._stuck_cancel):
                self._look_at_scopes(now)
            self._look_at_tasks()

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
            if now - step.since >= self._slow_step:
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
        if isinstance(key, asyncio.Task):
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
        self._log("slow step", lines, seconds=seconds, ended=False, **step.details)

    def _report_end(self, step: _Step, ended: float) -> None:
        seconds = ended - step.since
        if not step.logged:
            if seconds >= self._slow_step and step.text:
                self._report(step, seconds, "has blocked the loop, for")
        elif step.text:
            line = f"{step.text} has blocked the loop for {seconds:.2f} s, and has ended that step"
            self._log("slow step", [line], seconds=seconds, ended=True, **step.details)

    # -- scopes that do not end ------------------------------------------------------

    def _look_at_scopes(self, now: float) -> None:
        found = set()
        for task in records.copy().values():
            if task._state is not self._state:
                continue
            outermost: Any = None
            for node in chain(task.scope, None):
                if node._called and node._task is not None:
                    outermost = node
            if outermost is not None:
                found.add(outermost)
        for scope in found:
            since = self._cancelled.setdefault(scope, now)
            seconds = now - since
            if seconds >= self._stuck_cancel and not self._is_silent(("scope", id(scope)), now):
                explanation = explain(scope)
                if explanation.ended:
                    continue
                line = f"cancelled at least {seconds:.1f} s ago, and not ended: {explanation}"
                self._log("stuck cancel", [line], seconds=seconds, **explanation.as_dict())

    # -- many tasks --------------------------------------------------------------------

    def _look_at_tasks(self) -> None:
        count = len(asyncio.all_tasks(self.loop))
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
        self._silent[thing] = now + self._pause
        if len(self._silent) > 1000:
            self._silent = {key: until for key, until in self._silent.items() if until > now}
        return False

    def _log(self, event: str, lines: list[str], **details: Any) -> None:
        LOGGER.warning("%s", "\n".join(lines), extra={"watchdog": {"event": event, **details}})


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
