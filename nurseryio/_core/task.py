"""Task records: one :class:`Task` for each asyncio task that uses the library, and their table.

Rule 1: a record is found in one dict, whose keys are the asyncio tasks. The record of a nursery's
child is entered when the child is spawned, and removed at the end of its last step. A task that
other code has started gets its record at first use: it is *adopted*. A done-callback removes that
record.

Rule 2: a record never keeps a finished task's coroutine, result or error alive.
"""

from __future__ import annotations

import contextvars
import gc
from types import CoroutineType, FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

from .._asyncio import compat
from .._asyncio.browser import call_when_done
from .._asyncio.compat import callbacks_of, current_task as current_asyncio_task
from .._base.exc_fields import explained
from .._base.unsupported import Elsewhere
from .._base.util import InTheNameOf, NoPublicConstructor, blank, name_of, safe_repr, unset_hook
from . import anyio_hook, loop_state as loop_state_module
from .loop_state import IN_A_THREAD, WHENCE, LoopState, loop_state
from .scope_tree import ROOT, Node, chain
from .task_extra import NO_EXTRA, Extra

if TYPE_CHECKING:
    import asyncio
    import types
    from collections.abc import Callable, Iterator

    from .._nursery.nursery import Nursery


# The value of Task._yield_credit after the task has waited, so that all ready tasks have run.
MAX_YIELD_CREDIT = 16

# How many operations on channels in a row do not yield although other tasks are ready.
FREE_CHANNEL_OPERATIONS = 7

# Its value in a task that has just begun. Its first operation on a channel yields, because tasks
# behind it may not have made their first step yet.
INITIAL_YIELD_CREDIT = MAX_YIELD_CREDIT - FREE_CHANNEL_OPERATIONS


class Task(metaclass=NoPublicConstructor):
    """One task: an :class:`asyncio.Task` and its place in structured concurrency.

    :func:`current_task`, ``Nursery.child_tasks`` and instruments hand out these records. They are
    never made by hand.

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
        "_owns_cancel_request",
        "_last_interrupted",
        "_deferred_cancel",
        "_name",
        "_park",
        "_parent_nursery",
        "_yield_credit",
        "_shielded_step",
        "_started",
        "_state",
        "_swallowed_cancels",
        "_wakeup",
        "_recheck_queued",
        "asyncio_task",
        "scope",
    )

    # -- where the task is in the scope tree --
    # The innermost open scope; ROOT for an adopted task outside any scope, and after the end.
    scope: Node
    _parent_nursery: Nursery | None
    _state: LoopState
    _coro: Any
    # The name, or an object (a function) from which it is made at first use; None if adopted.
    _name: Any
    # -- what it is doing --
    # False until the first step; always True for an adopted task.
    _started: bool
    # The future of wait_task_rescheduled() while the task waits there.
    _park: asyncio.Future[Any] | None
    # The abort function of that wait; None while _park is None. A dict stands for a queue that the
    # task is to be taken out of (see wait_queue), an EndlessWait for a wait that goes on. Once it
    # was called, it is replaced: by AGREED if the wait is over, else by None.
    _abort: Any
    # The callback by which asyncio wakes the task, noted when the task was first rescheduled.
    _wakeup: Any
    # In a yield that scope cancellation must not interrupt.
    _shielded_step: bool
    # How many operations in a row may still skip their yield while no other task is ready: see
    # wait_queue, and stream in _net.
    _yield_credit: int
    # -- the ledger (see cancel_ledger), and delivery --
    # Invariant: True only while scope._effective. Then one request of asyncio_task.cancelling()
    # belongs to the scope.
    _owns_cancel_request: bool
    # Invariant: True exactly while the record is in its loop's recheck queue.
    _recheck_queued: bool
    # The future of asyncio code that was interrupted last. If it is still not done, it refuses.
    _last_interrupted: Any
    # Interruptions of awaits in asyncio code: their number, the time from which they are counted,
    # and the seconds of the pause after too many. None before the first.
    _swallowed_cancels: tuple[int, float, float] | None
    # A native cancel was deferred, so that it may be pending in the asyncio task:
    # checkpoint_if_cancelled() has to find out.
    _deferred_cancel: bool
    _extra: Extra
    # None until the asyncio task is made, and in an adopted task after its end.
    asyncio_task: asyncio.Task[Any]

    def _own_extra(self) -> Extra:
        """The task's :class:`Extra` for writing; made if the task still shares ``NO_EXTRA``."""
        if self._extra is NO_EXTRA:
            self._extra = Extra()
        return self._extra

    if not TYPE_CHECKING:
        cancel = Elsewhere("cancel the scope around it, or TaskHandle(f, x).cancel()")
        result = Elsewhere("use gather(), or a TaskHandle")
        add_done_callback = Elsewhere("call the function at the end of the task, in 'finally'")

    def __repr__(self) -> str:
        return _shown(self.name, id(self))

    def _repr_later(self) -> Any:
        """``repr()`` of the task, or what ``CancelReason`` makes it from when it is read."""
        name = self._name
        if type(name) is InTheNameOf:
            name = name.fn
        if type(name) is FunctionType:
            module = name.__module__
            if type(module) is str:
                return (_shown_function, module, name.__qualname__, id(self))
        elif type(name) is str:
            return (_shown, name, id(self))
        return safe_repr(self)

    @property
    def coro(self) -> Any:
        """The coroutine object of the function that was spawned."""
        return self._coro

    @property
    def name(self) -> str:
        """A name for people: the one given at the spawn, or the function's qualified name."""
        name = self._name
        if name is None:
            # An adopted task: asyncio code may name it after its record was made.
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
        """The context that the task runs in.

        Before Python 3.12 it is a copy of the caller's context, unless the task was given a context
        here or at its spawn.

        The context may be assigned: from its next step on the task runs in the new one. This is for
        test frameworks and similar tools. It slows the loop down until the task has ended.

        Raises:
            TypeError: on assigning something that is not a ``contextvars.Context``.
            RuntimeError: on assigning after the task has ended.
        """
        context = self._extra.context
        if context is None:
            context = compat.task_context(self.asyncio_task)
        return contextvars.copy_context() if context is None else context

    @context.setter
    def context(self, context: contextvars.Context) -> None:
        if not isinstance(context, contextvars.Context):
            raise TypeError(f"context must be a contextvars.Context, not {context!r}")
        if compat.is_over(self.asyncio_task):
            raise RuntimeError(f"{self!r} has ended")
        self._own_extra().context = context
        switch_context(self, context)

    @property
    def parent_nursery(self) -> Nursery | None:
        """The nursery that the task runs in; None for a task that asyncio code started."""
        return self._parent_nursery

    @property
    def eventual_parent_nursery(self) -> Nursery | None:
        """The nursery that a task spawned by ``start()`` moves to once it is ready; else None."""
        return self._extra.eventual_parent_nursery

    @property
    def custom_sleep_data(self) -> Any:
        """Data of the code that calls ``wait_task_rescheduled``; None again when the task wakes."""
        return self._extra.custom_sleep_data

    @custom_sleep_data.setter
    def custom_sleep_data(self, data: Any) -> None:
        self._own_extra().custom_sleep_data = data

    @property
    def child_nurseries(self) -> list[Nursery]:
        """The nurseries that are open in this task, outer before inner."""
        found: list[Any] = [
            node._nursery
            for node in chain(self.scope, self._base())
            if node._nursery is not None and node._task is self
        ]
        found.reverse()
        return found

    def _base(self) -> Node:
        """The node at which the task's own part of the scope tree begins."""
        parent = self._parent_nursery
        return ROOT if parent is None else parent.cancel_scope

    def iter_await_frames(self) -> Iterator[tuple[types.FrameType, int]]:
        """Walk down the frames in which the task waits.

        Returns:
            Pairs of a frame and its line number, outermost first.

        ``traceback.StackSummary.extract(task.iter_await_frames())`` makes a printable stack.
        """
        return await_frames(self._coro)


def _shown(name: str, number: int) -> str:
    return f"<Task {name!r} at {number:#x}>"


def _shown_function(module: str, qualname: str, number: int) -> str:
    return _shown(f"{module}.{qualname}", number)


def await_frames(awaited: Any) -> Iterator[tuple[types.FrameType, int]]:
    """The frames, with line numbers, of a coroutine and all that it awaits, outermost first."""
    for _, frame in await_chain(awaited):
        yield frame, frame.f_lineno


def await_chain(awaited: Any) -> Iterator[tuple[Any, types.FrameType]]:
    """A coroutine and all coroutines and generators that it awaits, each with its frame."""
    while awaited is not None:
        if type(awaited) is CoroutineType:  # nearly always
            frame = awaited.cr_frame
            if frame is not None:
                yield awaited, frame
            awaited = awaited.cr_await
            continue
        for prefix, link in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
            if hasattr(awaited, f"{prefix}_frame"):
                frame = getattr(awaited, f"{prefix}_frame")
                if frame is not None:
                    yield awaited, frame
                if frame is not None and frame.f_code in drivers:
                    inside = referents(awaited, frame)
                    awaited = next((each for each in inside if hasattr(each, "cr_frame")), None)
                else:
                    awaited = getattr(awaited, link)
                break
        else:
            awaited = _generator_behind(awaited)


# The code of generators that send into a coroutine, which Python does not show as awaited.
drivers: set[types.CodeType] = set()


def referents(link: Any, frame: types.FrameType) -> Iterator[Any]:
    """The values in the variables and on the stack of a suspended coroutine or generator.

    Unlike ``f_locals``, this does not keep them alive.
    """
    for thing in gc.get_referents(link):
        if thing is frame:  # in Python 3.10 the frame has them
            for inner in gc.get_referents(frame):
                if inner is not frame.f_globals and inner is not frame.f_builtins:
                    yield inner
        else:
            yield thing


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
    self._started = self._recheck_queued = self._shielded_step = False
    self._owns_cancel_request = self._deferred_cancel = False
    self._yield_credit = INITIAL_YIELD_CREDIT
    self._park = self._last_interrupted = self._swallowed_cancels = self._wakeup = None
    self._extra = NO_EXTRA
    self.asyncio_task = None  # type: ignore[assignment]
    return self


def _generator_behind(awaited: Any) -> Any:
    """The async generator that an ``__anext__()``, ``asend()`` or similar object steps."""
    if type(awaited).__name__ not in ("async_generator_asend", "async_generator_athrow"):
        return None
    return next((ref for ref in gc.get_referents(awaited) if hasattr(ref, "ag_frame")), None)


# -- finding records ------------------------------------------------------------

records: dict[asyncio.Task[Any], Task] = {}


def _drop_swept_records() -> None:
    # Copied, because other threads may add and remove records meanwhile.
    for task, record in records.copy().items():
        if record._state.loop.is_closed():
            records.pop(task, None)


loop_state_module.drop_swept_records = _drop_swept_records


def wake_future(future: asyncio.Future[None]) -> None:
    """Set the result of a future of the library, so that the task that waits for it wakes.

    Does nothing if the future is done already.

    A future whose result is set clears its callbacks before it schedules them. If scheduling fails,
    they are called in the next iteration of the loop. The call may also raise although scheduling
    succeeded: a signal handler can raise just as the call returns.
    """
    if future.done():
        return
    callbacks = callbacks_of(future)
    try:
        future.set_result(None)
    except BaseException:
        call_later(future, callbacks)
        raise


def call_later(
    future: asyncio.Future[None], callbacks: list[tuple[Any, contextvars.Context]] | None
) -> None:
    """Call the callbacks of a future, whose result could not be set, in the next iteration."""
    if future.done():
        state = loop_state(future.get_loop())
        for callback, context in callbacks or ():
            state.finish_later(_wake_again, callback, context, future)


def _wake_again(callback: Any, context: contextvars.Context, future: asyncio.Future[None]) -> None:
    owner = compat.owner_of(callback)
    if owner is None or compat.waiter(owner) is future:
        context.run(callback, future)


NO_TASK = "must be called from async context"
NO_LOOP_NOTE = (
    "no event loop is running in this thread: call it in a task; "
    f"{IN_A_THREAD}; the token comes from {WHENCE}"
)


def current_state() -> LoopState:
    """The state of the loop that runs in this thread.

    Raises:
        RuntimeError: No loop is running in this thread.
    """
    loop = compat.running_loop_or_none()
    if loop is None:
        raise explained(RuntimeError(NO_TASK), NO_LOOP_NOTE)
    return loop_state(loop)


def not_in_a_task(error: RuntimeError) -> NoReturn:
    """Raise the error of ``asyncio.current_task()``, or a clearer one if no loop is running."""
    if compat.running_loop_or_none() is None:
        raise explained(RuntimeError(NO_TASK), NO_LOOP_NOTE) from None
    raise error


def current_task() -> Task:
    """The task that is running, as a record.

    Returns:
        The same object for as long as the task runs. A task that asyncio code started gets its
        record at the first call.

    Raises:
        RuntimeError: outside any task (no loop running, or in a callback of the loop).

    Trio: ``trio.lowlevel.current_task``.
    """
    try:
        return records[current_asyncio_task()]  # type: ignore[index]
    except KeyError:
        return adopt_current()
    except RuntimeError as error:
        not_in_a_task(error)


def adopt_current() -> Task:
    """The record of the running task, which has none yet.

    Raises:
        RuntimeError: in a callback of the loop.
    """
    task = current_asyncio_task()
    if task is None:
        raise explained(
            RuntimeError(NO_TASK),
            "that is, inside a task, not in a callback of the loop: start a task that does it, by "
            "nursery.start_soon(...)",
        ) from None
    return adopt(task)


def adopt(task: asyncio.Task[Any]) -> Task:
    """Make the record of a task that other code has started.

    Raises:
        RuntimeError: the task is of a class that cannot be cancelled in asyncio's way.
    """
    if not compat.shows_waiter(task):
        kind = type(task)
        raise explained(
            RuntimeError(
                f"tasks of the class {kind.__module__}.{kind.__qualname__} do not show what they "
                "wait for, so nurseryio cannot cancel them"
            ),
            "use an event loop whose tasks are those of asyncio",
        )
    anyio_hook.look()
    state = loop_state(task.get_loop())
    record = make_task(state, task.get_coro(), None, None, ROOT)
    record.asyncio_task = task
    record._started = True
    call_when_done(task, _forget_adopted, state.context)
    records[task] = record
    return record


# Functions to call with the record when an adopted task ends. Later modules add them.
end_hooks: list[Callable[[Task], object]] = []


# Makes a task run its further steps in another context. Set by ``step_hooks``.
switch_context: Callable[[Task, contextvars.Context], object] = unset_hook


def _forget_adopted(task: asyncio.Task[Any]) -> None:
    record = records.pop(task, None)
    if record is not None:
        for hook in end_hooks:
            try:
                hook(record)
            except BaseException as error:
                record._state.report(error)
        record.scope = ROOT
        record._owns_cancel_request = False
        # The task's error holds frames that hold the record: no reference cycle to the task.
        record._name = record.name
        record._wakeup = None
        record.asyncio_task = None  # type: ignore[assignment]
