"""Lines of the engine at which an exception may do harm, each with the reason.

A line is named by its module, the qualified name of its function, and its code without the
indentation. An entry that names no line fails the test; one that is not needed any more fails the
complete run.
"""

from __future__ import annotations

WORKER_THREAD = (
    "A call that fails before it begins cannot be told from a function that fails, and a "
    "user's function must not be called twice. It is in a worker thread, where Ctrl-C is never "
    "raised, and a few frames deep: only lack of memory can raise here."
)
ABORT_FAILED_TWICE = (
    "The abort function has failed, and keeping its error fails as well. The task has been "
    "cancelled and its abort function is not called again: what it waits for must come by "
    "itself."
)
THE_CALL_FAILED = (
    "The call itself fails, before it has changed anything: as if the caller had not made it. "
    "The caller gets the error. A caller that has to make the call, to leave a block or to "
    "wake somebody, can only make it again."
)
FOREIGN_CALL_FAILED = (
    "Another library calls this method of a child's task, anyio for example to interrupt it, and "
    "the call fails. What that library does then is its own affair: anyio does not try again."
)
BLOCK_NOT_LEFT = (
    "``async with`` calls ``__aexit__``, and this call fails before its first line: the block "
    "is left, and no code of ours has run."
)
NOT_ENTERED = (
    "``async with`` has called ``__aenter__``, which has entered the block and returns a local "
    "variable. Nothing on this line can fail, except by Ctrl-C, which is not raised there."
)
TEXT_ALONE = (
    "The text that describes an error is made, and the class of the error fails at that. The text "
    "says less then, and the failure is dropped, because the error itself matters more."
)
TWO_FAILURES = (
    "The order in which blocks are left is broken already, which is an error by itself, and "
    "repairing it fails as well. The scopes below stay open and cancelled; each error is "
    "raised."
)
AFTER_THE_END = (
    "The task has ended and its outcome is with the nursery, which may have been left: nobody "
    "waits any more for what is raised now. asyncio reports it."
)
NOT_WOKEN = (
    "An operation that wakes another task or hands a lock on fails before it has done so, and "
    "its caller gets the error. The other task goes on waiting, for the operation to be "
    "repeated or, with a lock, for the end of its owner."
)
FAILED_AS_IT_WOKE = (
    "A task that was woken fails while it tidies up after its sleep. What the sleep would "
    "have returned or raised is not seen: the task gets the error in its place."
)
TIMER_FOR_NOTHING = (
    "A timer was set and is not noted. It fires once for nothing, as the timer of a deadline "
    "that was taken back does."
)
ANYIO_SHIELD = (
    "The wait for the children of a nursery is covered by a shield of anyio, and leaving it "
    "fails. anyio then leaves a request of its own to cancel the task counted."
)

_GROUPS: dict[str, list[str]] = {
    WORKER_THREAD: [
        "thread_cache:_Worker._do_job:deliver(outcome)",
    ],
    ABORT_FAILED_TWICE: [
        "delivery:_agrees:except BaseException as exc:",
        "delivery:_agrees:if isinstance(task._abort, dict):",
        "delivery:_agrees:if not park.done():",
        "delivery:_agrees:if task._abort is AGREED:",
        "delivery:_agrees:return False",
        "delivery:_agrees:park.set_result(Error(exc))",
        "outcome:Error.__init__:if not isinstance(error, BaseException):",
        "outcome:Error.__init__:self.error: BaseException = error",
    ],
    FOREIGN_CALL_FAILED: [
        "compat:ChildTask.cancel:return plain_cancel(self, msg)",
        'compat:ChildTask.get_coro:return getattr(self, "shown", None) or _plain_get_coro(self)',
    ],
    THE_CALL_FAILED: [
        "task_exit:_never_ran:if task is None or task._started:",
        "task_exit:_never_ran:task = records.get(asyncio_task)",
        "step_hooks:StepHooks._step:callback(*args)",
        "step_hooks:StepHooks._step:task = None",
        "step_hooks:StepHooks.call_soon:return self._call_soon(step, *args, context=context)",
        "step_hooks:StepHooks.call_soon:step = callback",
        "compat:ChildTask.cancel:if not has_run(_plain_get_coro(self)):",
        'compat:has_run:frame = getattr(coro, "cr_frame", None)',
        'compat:has_run:if frame is None or getattr(coro, "cr_running", False):',
        'compat:has_run:return bool(getattr(coro, "cr_suspended", frame.f_lasti >= 0))',
        "scope:CancelScope.__exit__:task = self._task",
        "task:_forget_adopted:record = records.pop(task, None)",
        "timeouts:_Fail.__exit__:scope = self._scope",
        "timeouts:_Fail.__exit__:swallowed = scope.__exit__(etype, exc, tb)",
    ],
    BLOCK_NOT_LEFT: [
        "nursery:Nursery.start:async with temporary:",
        "results:gather:async with open_nursery() as nursery:",
        "supervisor:_Open.__aexit__:"
        "return await self._supervisor._nursery.__aexit__(etype, exc, tb)",
    ],
    NOT_ENTERED: [
        "supervisor:_Open.__aenter__:return supervisor",
    ],
    TEXT_ALONE: [
        "exception_groups:_text_later:is_plain = kind.__repr__ is _PLAIN_REPR",
    ],
    TWO_FAILURES: [
        "scope:CancelScope._leave_misnested:if owner.scope is self:",
        "scope:CancelScope._leave_misnested:task.scope = parent",
        "scope_tree:abandon:for inner in chain(task.scope, outer):",
        "scope_tree:abandon:if inner._nursery is not None:",
        "scope_tree:abandon:if node._nursery is not None:",
        "scope_tree:abandon:if node._task is not None:",
        "scope_tree:abandon:inner._abandoned = inner._effective = True",
        "scope_tree:abandon:if not encloses(outer, task.scope):",
        "scope_tree:abandon:node._abandoned = node._called = node._effective = True",
        "scope_tree:abandon:return affected",
        "scope_tree:abandon:task, outer = todo.pop()",
        "scope_tree:abandon:todo.append((node._task, node))",
        "scope_tree:abandon:affected.append(task)",
        "scope_tree:abandon:todo: list[tuple[TreeTask, Node]] = []",
        "scope_tree:abandon:while todo:",
        "scope_tree:chain:node = node._parent",
        "scope_tree:chain:node: Node | None = inner",
        "scope_tree:chain:while node is not None and node is not outer:",
        "scope_tree:chain:yield node",
        "scope_tree:encloses:return any(node is outer for node in chain(inner, None))",
    ],
    AFTER_THE_END: [
        "nursery:Nursery._run_child:del error, task, coro",
    ],
    NOT_WOKEN: [
        "task_extra:Extra.__init__:self.breakers: list[Any] | None = None",
        "task_extra:Extra.__init__:self.context: contextvars.Context | None = None",
        "task_extra:Extra.__init__:self.custom_sleep_data: Any = None",
        "task_extra:Extra.__init__:self.eventual_parent_nursery: Nursery | None = None",
        "task_extra:Extra.__init__:self.edge: EdgeProtocol | None = None",
        "task_extra:Extra.__init__:self.seen_done: tuple[Any, int] = (None, 0)",
        "lock:_Lock._try:return True",
        "lock:_Lock.acquire:return",
        "lock:_Lock.release:if task is not self._owner:",
        "wait_queue:move:task._abort = queue",
        "wait_queue:wake_first:reschedule(task, next_send)",
        "wait_queue:wake_first:task, entry = queue.popitem(last=False)",
        "wait_queue:wake_first:task: Any = None",
        "parking_lot:ParkingLot.repark:move(task, new_lot._parked)",
        "task:Task._own_extra:return self._extra",
        "traps:_note_wakeup:for wakeup, context in callbacks_of(park) or ():",
        'traps:_note_wakeup:if getattr(wakeup, "__self__", None) is task.asyncio_task:',
        "traps:_note_wakeup:return task._wakeup",
        "traps:_note_wakeup:task._wakeup = partial(context.run, wakeup)",
        "traps:reschedule:abort = task._abort",
        "traps:reschedule:if park is None:",
        "traps:reschedule:if task._extra is not NO_EXTRA:",
        "traps:reschedule:if wakeup is None:",
        "traps:reschedule:park = task._park",
        "traps:reschedule:state = task._state",
        "traps:reschedule:task._abort = None",
        "traps:reschedule:task._extra.custom_sleep_data = None",
        "traps:reschedule:wakeup = _note_wakeup(task, park)",
        "traps:reschedule:wakeup = task._wakeup",
    ],
    FAILED_AS_IT_WOKE: [
        "wait_queue:park:if task.scope._effective:",
        "wait_queue:park:task._park = task._abort = None",
        "wait_queue:park:task._yield_credit = MAX_YIELD_CREDIT",
        "traps:wait_task_rescheduled:task._park = task._abort = None",
    ],
    TIMER_FOR_NOTHING: [
        "loop_state:LoopState._arm:self.armed_at = when",
    ],
    ANYIO_SHIELD: [
        "nursery_exit:join_children:if shield is not None:",
        "nursery_exit:join_children:shield.__exit__(None, None, None)",
    ],
}

SHORT_LIST: dict[str, str] = {line: reason for reason, lines in _GROUPS.items() for line in lines}
