"""How instruments see a loop: every task, ours or not, on a loop that may be running already.

Rule 1: asyncio's tasks schedule each of their steps through ``loop.call_soon``, looked up on the
loop object. While instruments are installed that attribute is replaced on the one object; with
the last instrument it goes, and full speed is back.

Rule 2: a task is reported as spawned before it is reported as scheduled. A nursery's child is
scheduled by asyncio before its record exists, so the nursery announces a spawn (``hold``) and
reports it (``spawned``).

Rule 3: steps that an eager task factory runs inside ``create_task`` pass by unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import host
from .idle import idle_of
from .instruments import Instruments
from .task import LoopState, Task, adopt, current_state, records

if TYPE_CHECKING:
    from .abcs import Instrument


class Gauge:
    """The replacement of one loop's ``call_soon``."""

    def __init__(self, state: LoopState, instruments: Instruments) -> None:
        self._state = state
        self._instruments = instruments
        self._call_soon = state.loop.call_soon
        # A nursery is making a task; whether that task has been scheduled already.
        self._holding = self._scheduled = False
        state.loop.call_soon = self.call_soon  # type: ignore[method-assign,assignment]
        if host.selector_of(state.loop) is not None:
            idle_of(state)

    def remove(self) -> None:
        """Give the loop its own ``call_soon`` back."""
        del self._state.loop.call_soon

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """``loop.call_soon``, with the steps of tasks reported."""
        owner = host.owner_of(callback)
        if owner is None:
            return self._call_soon(callback, *args, context=context)
        task = records.get(owner)
        if task is None and self._holding:
            self._scheduled = True
        else:
            if task is None:
                task = adopt(owner)
                if not host.has_run(task.coro):
                    self._instruments.call("task_spawned", task)
            self._instruments.call("task_scheduled", task)
        return self._call_soon(self._step, callback, owner, args, context=context)

    def _step(self, callback: Any, owner: Any, args: tuple[Any, ...]) -> None:
        task = records.get(owner)
        if task is None or self._state.gauge is not self:
            callback(*args)
            return
        self._call_inside(owner, "before_task_step", task)
        try:
            callback(*args)
        finally:
            if task._parent_nursery is None and owner.done():
                self._call_inside(owner, "task_exited", task)
            self._call_inside(owner, "after_task_step", task)
            settle(self._state)

    def _call_inside(self, owner: Any, hook: str, task: Task) -> None:
        """Call a hook that may ask for the running task, just before or after its step."""
        if hook in self._instruments:
            # The record of a task that has ended is gone, but not for this question.
            records[owner] = task
            host.enter_task(self._state.loop, owner)
            try:
                self._instruments.call(hook, task)
            finally:
                host.leave_task(self._state.loop, owner)
                if owner.done():
                    records.pop(owner, None)

    def hold(self) -> None:
        """A nursery is about to make a task."""
        self._holding, self._scheduled = True, False

    def spawned(self, task: Task) -> None:
        """The nursery has made it."""
        self._holding = False
        self._instruments.call("task_spawned", task)
        if self._scheduled:
            self._instruments.call("task_scheduled", task)

    def exited(self, task: Task) -> None:
        """A nursery's child has ended."""
        self._instruments.call("task_exited", task)


def install(state: LoopState, instrument: Instrument) -> None:
    """Add an instrument to a loop."""
    if state.instruments is None:
        state.instruments = Instruments()
    state.instruments.add(instrument)
    if state.gauge is None:
        state.gauge = Gauge(state, state.instruments)


def uninstall(state: LoopState, instrument: Instrument) -> None:
    """Take an instrument from a loop."""
    if state.instruments is None:
        raise KeyError(instrument)
    state.instruments.remove(instrument)
    settle(state)


def settle(state: LoopState) -> None:
    """Unhook the loop if no instrument is left."""
    if state.instruments is not None and not state.instruments:
        state.instruments = None
        if state.gauge is not None:
            state.gauge.remove()
            state.gauge = None
        if host.selector_of(state.loop) is not None:
            idle_of(state).release()


def add_instrument(instrument: Instrument) -> None:
    """Start instrumenting the running loop.

    It sees every task of the loop from now on, whoever started it. Adding one that is installed
    already does nothing.

    Args:
        instrument: an object with any of the methods of :class:`~nurseryio.abc.Instrument`.

    Raises:
        RuntimeError: where no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.add_instrument``.
    """
    install(current_state(), instrument)


def remove_instrument(instrument: Instrument) -> None:
    """Stop instrumenting the running loop.

    Args:
        instrument: one that was added.

    Raises:
        KeyError: it is not installed; perhaps it was removed because it raised.
        RuntimeError: where no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.remove_instrument``.
    """
    uninstall(current_state(), instrument)
