"""Hooks around the steps of tasks: instruments, and ``Task.context`` when it was assigned.

Instruments see every task of a loop, also tasks that asyncio code made. They can be added to a loop
that is running. A task whose ``Task.context`` was assigned makes its further steps in that context.

Rule 1: an asyncio task schedules each of its steps by ``loop.call_soon``, which it looks up on the
loop object. While there are instruments or such tasks, that attribute is replaced on the one
object. Removing the last of them restores the loop's own ``call_soon``, and with it the full speed.

Rule 2: a task is reported as spawned before it is reported as scheduled. asyncio schedules a child
of a nursery before the child's record exists. So the nursery announces a new task (``hold``), and
then reports it (``spawned``).

Rule 3: an instrument that implements only the hooks of a run costs the loop nothing.

Rule 4: steps that an eager task factory runs inside ``create_task`` are not reported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._asyncio.loop_parts import replacement
from .._base.instruments import HOOKS_OF_STEPS, Instruments, implements
from .._core import task as task_module
from .._core.loop_state import LoopState
from .._core.task import Task, adopt, current_state, end_hooks, records
from .selector_idle import selector_idle_of

if TYPE_CHECKING:
    import contextvars

    from .._base.abcs import Instrument


class StepHooks:
    """The replacement of one loop's ``call_soon``."""

    def __init__(self, state: LoopState) -> None:
        self._state = state
        # The same object is in LoopState.instruments while there are any.
        self._instruments = Instruments() if state.instruments is None else state.instruments
        # The tasks whose context was assigned, and these contexts.
        self._contexts: dict[Any, contextvars.Context] = {}
        # An earlier replacement of the method on the loop object, if there was one.
        self._before = replacement(state.loop, "call_soon")
        self._call_soon = state.loop.call_soon
        # Whether a nursery is making a task; whether that task has been scheduled already.
        self._holding = self._scheduled = False
        # While task_exited is called for a nursery's child: the error that the child has raised.
        self.exit_error: BaseException | None = None
        self._hook = self.call_soon
        state.loop.call_soon = self._hook  # type: ignore[method-assign,assignment]

    def add(self, instrument: Instrument) -> None:
        """Install an instrument."""
        state = self._state
        try:
            if not self._instruments.see_steps and state.selector is not None:
                selector_idle_of(state)
            self._instruments.add(instrument)
        finally:
            # Without an instrument, if this has failed, settle() then removes the hooks.
            state.instruments = self._instruments
            self.settle()

    def settle(self) -> None:
        """Restore the loop's own ``call_soon`` if no instrument or task needs a hook any more."""
        state = self._state
        if state.instruments is not None and not state.instruments:
            state.instruments = None
            idle = selector_idle_of.find(state)
            if idle is not None:
                idle.release()
        if not self._instruments.see_steps and not self._contexts and state.step_hooks is self:
            state.step_hooks = None
            # Other code may have replaced call_soon since. Its hook stays, and still calls this
            # object's.
            if state.loop.call_soon is self._hook:
                if self._before is None:
                    del state.loop.call_soon
                else:
                    state.loop.call_soon = self._before  # type: ignore[method-assign]
            del self._hook  # a bound method: no reference cycle

    def use_context(self, task: Task, context: contextvars.Context) -> None:
        """Make a task's steps run in another context, beginning with its next step."""
        self._contexts[task.asyncio_task] = context

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        """``loop.call_soon``, with the steps of tasks reported."""
        step = callback
        try:
            owner = compat.owner_of(callback)
            if owner is not None:
                context = self._contexts.get(owner, context)
                if self._instruments.see_steps or owner in self._contexts:
                    self._note_scheduled(owner)
                    step, args = self._step, (callback, owner, args)
        except BaseException as error:
            # The step is made even if reporting it fails.
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
            if self._contexts and owner.done():
                self._contexts.pop(owner, None)
            if not self._instruments.see_steps:
                self.settle()
        except BaseException as error:
            self._state.finish_later(_raise, error)

    def _call_inside(self, owner: Any, hook: str, task: Task) -> None:
        """Call a hook that may ask for the running task, just before or after its step."""
        if hook in self._instruments:
            # A task that has ended does not have a record any more, but the hook may ask for the
            # running task.
            records[owner] = task
            try:
                compat.enter_task(self._state.loop, owner)
                self._instruments.call(hook, task)
            finally:
                try:
                    self._leave(owner)
                except BaseException:
                    # Not later: asyncio could not enter the task for its step.
                    self._leave(owner)
                    raise

    def _leave(self, owner: Any) -> None:
        """Undo what :meth:`_call_inside` did before the hook. May be called twice."""
        current: Any = compat.current_task()
        if current is owner:
            compat.leave_task(self._state.loop, owner)
        if owner.done():
            records.pop(owner, None)

    def forget(self, owner: Any) -> None:
        """Forget the context of a task that has ended."""
        self._contexts.pop(owner, None)
        self.settle()

    def hold(self) -> None:
        """Note that a nursery is about to make a task."""
        self._holding, self._scheduled = True, False

    def release(self) -> None:
        """Note that the nursery did not make the task."""
        self._holding = False

    def spawned(self, task: Task) -> None:
        """Report the task that the nursery made."""
        self._holding = False
        self._instruments.call("task_spawned", task)
        if self._scheduled:
            self._instruments.call("task_scheduled", task)

    def exited(self, task: Task, error: BaseException | None) -> None:
        """Report the end of a nursery's child, which has raised ``error``."""
        self.exit_error = error
        try:
            self._instruments.call("task_exited", task)
        finally:
            self.exit_error = None
            del error
        if task.asyncio_task in self._contexts:
            self.forget(task.asyncio_task)


def _raise(error: BaseException) -> None:
    """Raise an error that could not be raised where it occurred. Called later on the loop."""
    raise error


def step_hooks_of(state: LoopState) -> StepHooks:
    """The loop's :class:`StepHooks`, installed at first use."""
    hooks = state.step_hooks
    if not isinstance(hooks, StepHooks):
        hooks = state.step_hooks = StepHooks(state)
    return hooks


def switch_context(task: Task, context: contextvars.Context) -> None:
    """Run a task's further steps in ``context``, which was assigned to ``Task.context``."""
    step_hooks_of(task._state).use_context(task, context)


task_module.switch_context = switch_context


def _forget_context(task: Task) -> None:
    hooks = task._state.step_hooks
    if isinstance(hooks, StepHooks):
        hooks.forget(task.asyncio_task)


end_hooks.append(_forget_context)


def install(state: LoopState, instrument: Instrument) -> None:
    """Add an instrument to a loop."""
    if any(implements(instrument, hook) for hook in HOOKS_OF_STEPS):
        step_hooks_of(state).add(instrument)
        return
    if state.instruments is None:
        state.instruments = Instruments()
    state.instruments.add(instrument)


def uninstall(state: LoopState, instrument: Instrument) -> None:
    """Remove an instrument from a loop."""
    if state.instruments is None:
        raise KeyError(instrument)
    state.instruments.remove(instrument)
    if state.step_hooks is not None:
        state.step_hooks.settle()
    elif not state.instruments:
        state.instruments = None


def add_instrument(instrument: Instrument) -> None:
    """Start instrumenting the running loop.

    The instrument sees every task of the loop from now on, also tasks that asyncio code started.
    Adding an instrument that is installed already does nothing.

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
        instrument: an instrument that was added.

    Raises:
        KeyError: the instrument is not installed. Perhaps it was removed because it raised.
        RuntimeError: where no loop is running.

    Checkpoint: no.

    Trio: ``trio.lowlevel.remove_instrument``.
    """
    uninstall(current_state(), instrument)
