"""What stands between a loop and the steps of its tasks: instruments, and contexts that change.

Instruments see every task, ours or not, on a loop that may be running already. A task whose
``Task.context`` was assigned makes its steps in that context.

Rule 1: asyncio's tasks schedule each of their steps through ``loop.call_soon``, looked up on the
loop object. While instruments are installed, or such a task lives, that attribute is replaced on
the one object; with the last of them it goes, and full speed is back.

Rule 2: a task is reported as spawned before it is reported as scheduled. A nursery's child is
scheduled by asyncio before its record exists, so the nursery announces a spawn (``hold``) and
reports it (``spawned``).

Rule 3: steps that an eager task factory runs inside ``create_task`` pass by unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._base.instruments import Instruments
from .._core import task as task_module
from .._core.loop_state import LoopState, current_state
from .._core.task import Task, adopt, end_hooks, records
from .selector_idle import selector_idle_of

if TYPE_CHECKING:
    import contextvars

    from .._base.abcs import Instrument


class StepHooks:
    """The replacement of one loop's ``call_soon``."""

    def __init__(self, state: LoopState) -> None:
        self._state = state
        # Also found in the state while there are any.
        self._instruments = Instruments()
        # The tasks whose context was assigned, and these contexts.
        self._contexts: dict[Any, contextvars.Context] = {}
        # What the loop object had in the place of its own method before, if anything.
        self._before = vars(state.loop).get("call_soon")
        self._call_soon = state.loop.call_soon
        # A nursery is making a task; whether that task has been scheduled already.
        self._holding = self._scheduled = False
        self._hook = self.call_soon
        state.loop.call_soon = self._hook  # type: ignore[method-assign,assignment]

    def add(self, instrument: Instrument) -> None:
        """Call this instrument from now on."""
        self._instruments.add(instrument)
        if self._state.instruments is None:
            self._state.instruments = self._instruments
            if compat.selector_of(self._state.loop) is not None:
                selector_idle_of(self._state)

    def settle(self) -> None:
        """Give the loop its own ``call_soon`` back if there is nothing to do here any more."""
        state = self._state
        if state.instruments is not None and not state.instruments:
            state.instruments = None
            if compat.selector_of(state.loop) is not None:
                selector_idle_of(state).release()
        if state.instruments is None and not self._contexts and state.step_hooks is self:
            state.step_hooks = None
            # Somebody else's hook that was put over this one stays, and calls it as before.
            if vars(state.loop).get("call_soon") is self._hook:
                if self._before is None:
                    del state.loop.call_soon
                else:
                    state.loop.call_soon = self._before  # type: ignore[method-assign]
            del self._hook  # no circle

    def use_context(self, task: Task, context: contextvars.Context) -> None:
        """Have the task make its steps in another context from the next one on."""
        self._contexts[task.asyncio_task] = context

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """``loop.call_soon``, with the steps of tasks reported."""
        step = callback
        try:
            owner = compat.owner_of(callback)
            if owner is not None:
                context = self._contexts.get(owner, context)
                if self._state.instruments is not None or owner in self._contexts:
                    self._note_scheduled(owner)
                    step, args = self._step, (callback, owner, args)
        except BaseException as error:
            # The step is to be made, whatever becomes of the report.
            self._state.finish_later(_raise, error)
        return self._call_soon(step, *args, context=context)

    def _note_scheduled(self, owner: Any) -> None:
        task = records.get(owner)
        if task is None and self._holding:
            self._scheduled = True
            return
        if task is None:
            task = adopt(owner)
            if not compat.has_run(task.coro):
                self._instruments.call("task_spawned", task)
        self._instruments.call("task_scheduled", task)

    def _step(self, callback: Any, owner: Any, args: tuple[Any, ...]) -> None:
        task = None
        try:
            task = records.get(owner)
            if task is not None and self._state.step_hooks is self:
                self._call_inside(owner, "before_task_step", task)
            else:
                task = None
        except BaseException as error:
            self._state.finish_later(_raise, error)
        try:
            callback(*args)
        finally:
            if task is not None:
                self._after_step(owner, task)

    def _after_step(self, owner: Any, task: Task) -> None:
        try:
            if task._parent_nursery is None and owner.done():
                self._call_inside(owner, "task_exited", task)
            self._call_inside(owner, "after_task_step", task)
            if owner.done():
                self._contexts.pop(owner, None)
            self.settle()
        except BaseException as error:
            self._state.finish_later(_raise, error)

    def _call_inside(self, owner: Any, hook: str, task: Task) -> None:
        """Call a hook that may ask for the running task, just before or after its step."""
        if hook in self._instruments:
            # The record of a task that has ended is gone, but not for this question.
            records[owner] = task
            try:
                compat.enter_task(self._state.loop, owner)
                self._instruments.call(hook, task)
            finally:
                current: Any = compat.current_task_or_none()
                if current is owner:
                    compat.leave_task(self._state.loop, owner)
                if owner.done():
                    records.pop(owner, None)

    def forget(self, owner: Any) -> None:
        """A task is over: it needs no context any more."""
        self._contexts.pop(owner, None)
        self.settle()

    def hold(self) -> None:
        """A nursery is about to make a task."""
        self._holding, self._scheduled = True, False

    def release(self) -> None:
        """No task was made after all."""
        self._holding = False

    def spawned(self, task: Task) -> None:
        """The nursery has made it."""
        self._holding = False
        self._instruments.call("task_spawned", task)
        if self._scheduled:
            self._instruments.call("task_scheduled", task)

    def exited(self, task: Task) -> None:
        """A nursery's child has ended."""
        self._instruments.call("task_exited", task)
        if task.asyncio_task in self._contexts:
            self.forget(task.asyncio_task)


def _raise(error: BaseException) -> None:
    """Have an error reported that came up where it could not be raised."""
    raise error


def step_hooks_of(state: LoopState) -> StepHooks:
    """The loop's :class:`StepHooks`, installed at first use."""
    hooks = state.step_hooks
    if not isinstance(hooks, StepHooks):
        hooks = state.step_hooks = StepHooks(state)
    return hooks


def switch_context(task: Task, context: contextvars.Context) -> None:
    """``Task.context`` was assigned."""
    step_hooks_of(task._state).use_context(task, context)


task_module.switch_context = switch_context


def _forget_context(task: Task) -> None:
    hooks = task._state.step_hooks
    if isinstance(hooks, StepHooks):
        hooks.forget(task.asyncio_task)


end_hooks.append(_forget_context)


def install(state: LoopState, instrument: Instrument) -> None:
    """Add an instrument to a loop."""
    step_hooks_of(state).add(instrument)


def uninstall(state: LoopState, instrument: Instrument) -> None:
    """Take an instrument from a loop."""
    if state.instruments is None:
        raise KeyError(instrument)
    state.instruments.remove(instrument)
    step_hooks_of(state).settle()


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
