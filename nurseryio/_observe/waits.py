"""What a task waits for, as a sentence and as data, found out without any help from the task.

A task that waits has a stack of suspended frames. The innermost frames are those of nurseryio or
asyncio; the first of these is the operation that the program has called. Its local variables name
the lock, the channel or the thread that the task waits for. So a program that nobody looks at does
not do anything for this module.

Rule 1: :data:`OPERATIONS` is the table of the operations, by module and function. Its functions
read public attributes where there are some, and otherwise private ones of the same library. A test
checks that each entry names a function that exists, and that each operation that waits has one.

Rule 2: nothing is changed, and nothing here may fail: a value that cannot be shown is left out.

Rule 3: variables are read only of the frames that a description needs. Before Python 3.13 a frame
whose variables were read keeps these values until it ends, even if its code deletes them.

Rule 4: the functions may be called in any thread. They see values of one moment each, so two of
them may not fit together.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._base.exc_fields import class_name
from .._base.util import is_library, qualname_of, safe_repr
from .._core.task import Task
from .asyncio_waits import of_asyncio
from .holders import MOST_NAMES, listed
from .places import places_of, program_place, stack_of
from .wait_parts import (
    View,
    Wait,
    address_text,
    counted,
    in_block,
    in_variables,
    name_of_task,
    other_side,
    socket_in,
    timed_sleep,
)

if TYPE_CHECKING:
    from .holders import Holders
    from .wait_parts import Frames

__all__ = ["OPERATIONS", "Wait", "operation_of", "wait_of"]

# -- operations of nurseryio --------------------------------------------------------


def _sleep(view: View) -> Wait:
    entry = view["entry"] or view.inner("entry", "_sleep")
    when = inf if entry is None else entry[0]
    if when == inf or view.task is None:
        return Wait("sleep", "sleeps for ever")
    return timed_sleep(when - view.task._state.loop.time(), {})


def _event(view: View) -> Wait:
    event = view["self"]
    count = len(event._waiting)
    others = ""
    if count > 1:
        others = f", as {'does' if count == 2 else 'do'} {counted(count - 1, 'other task')}"
    details = {"tasks_waiting": count}
    text = f"waits for an Event to be set{others}"
    return Wait("event", text + in_variables(view, details, event), details)


def _lock(view: View) -> Wait:
    return _a_lock(view["self"], "waits for a lock")


def _a_lock(lock: Any, text: str) -> Wait:
    owner = lock._owner
    details: dict[str, Any] = {"owner": None, "tasks_waiting": len(lock._lot)}
    if owner is None:
        return Wait("lock", text, details)
    name = name_of_task(owner)
    details["owner"] = name
    return Wait("lock", f"{text} that {name!r} holds", details, (id(owner),))


def _condition(view: View) -> Wait:
    condition = view["self"]
    notified = view.task in condition._lock._lot._parked
    if notified or view.inner("self", "acquire") is not None:
        return _a_lock(condition._lock, "waits for the lock of the Condition")
    count = len(condition._lot)
    return Wait("condition", "waits to be notified on a Condition", {"tasks_waiting": count})


def _semaphore(view: View) -> Wait:
    semaphore = view["self"]
    details = {"value": semaphore._value, "tasks_waiting": len(semaphore._lot)}
    return in_block(
        view, "semaphore", "waits for a Semaphore, whose value is 0", semaphore, details
    )


def _limiter(view: View) -> Wait:
    return _a_limiter(view["self"], "waits for a token of a CapacityLimiter")


def _a_limiter(limiter: Any, text: str) -> Wait:
    statistics = limiter.statistics()
    # A thread borrows for the task that waits for it.
    owners = [getattr(each, "_task", None) or each for each in statistics.borrowers]
    names, shown = listed(owners)
    total = statistics.total_tokens
    details = {
        "total_tokens": None if total == inf else total,
        "borrowed_tokens": statistics.borrowed_tokens,
        "borrowers": names,
        "tasks_waiting": statistics.tasks_waiting,
    }
    held = "the only one is" if total == 1 else f"all {total} are"
    ids = tuple(id(each) for each in owners if type(each) is Task)
    # Any object may borrow: it is not known which code will release its token.
    any_of = ids if len(ids) == len(owners) else ()
    return Wait("limiter", f"{text}; {held} held, by {shown}", details, any_of=any_of)


def _channel(view: View) -> dict[str, Any]:
    statistics = view["self"].statistics()
    details = {name: getattr(statistics, name) for name in type(statistics).__slots__}
    if details["max_buffer_size"] == inf:
        details["max_buffer_size"] = None
    return details


def _send(view: View) -> Wait:
    found = _channel(view)
    buffer = f"the buffer holds {found['current_buffer_used']} of {found['max_buffer_size']}"
    ends = counted(found["open_receive_channels"], "receiving end")
    text = f"waits to send to a memory channel; {buffer}, no task receives, {ends} open"
    return _with_ends(view, "channel send", text, found, "receive", found["open_receive_channels"])


def _receive(view: View) -> Wait:
    found = _channel(view)
    ends = counted(found["open_send_channels"], "sending end")
    count = found["tasks_waiting_receive"]
    wait = "waits" if count == 2 else "wait"
    others = f", {counted(count - 1, 'task')} more {wait}" if count > 1 else ""
    text = f"waits to receive from a memory channel; it is empty{others}, {ends} open"
    return _with_ends(view, "channel receive", text, found, "send", found["open_send_channels"])


def _with_ends(
    view: View, kind: str, text: str, details: dict[str, Any], method: str, count: int
) -> Wait:
    """The wait for the other side of a channel, with the tasks that have its ends in variables."""
    if view.holders is None or not count:
        return Wait(kind, text, details)
    known, tasks = view.holders.ends_of(view["self"]._state, method)
    details["tasks_with_ends"], shown = view.holders.shown(tasks)
    if tasks:
        has = "has" if len(tasks) == 1 else "have"
        text += f", which {shown} {has}" if known == count else f", {shown} {has} {known} of them"
    elif view.holders.complete:
        text += ", which no task has in a variable"
    # An end that is in no variable is somewhere else, and other code may use it.
    any_of = tuple(tasks) if known == count else ()
    return Wait(kind, text, details, any_of=any_of, certain=False)


def _queue(view: View) -> Wait:
    return Wait("queue", "waits for an item of an UnboundedQueue")


def _parking_lot(view: View) -> Wait:
    count = len(view["self"])
    return Wait(
        "parking lot", f"is parked in a ParkingLot with {counted(count, 'task')}", {"parked": count}
    )


def _nursery(view: View) -> Wait:
    nursery = view["self"]
    if not nursery._children and nursery._pending_starts:
        count = len(nursery._pending_starts)
        text = f"waits for {counted(count, 'call')} of start() in its nursery"
        return Wait("nursery", text, {"children": [], "starting": count})
    names, shown = listed(nursery._children)
    noun = "child" if len(names) == 1 else "children"
    text = f"waits for {len(names):,} {noun} of its nursery: {shown}"
    details = {"children": names, "starting": len(nursery._pending_starts)}
    return Wait("nursery", text, details, tuple(map(id, list(nursery._children))))


def _start(view: View) -> Wait:
    temporary = next(iter(view["self"]._pending_starts), None)
    names, shown = listed(() if temporary is None else temporary._children)
    whose = f" by {shown}" if names else ""
    text = f"waits for task_status.started() to be called{whose}"
    return Wait("start", text, {"children": names})


def _gather(view: View) -> Wait:
    function = view.frames[0][0].f_code.co_name
    nursery = view.inner("self", "__aexit__")
    if nursery is None:
        return Wait("tasks", f"waits in {function}()")
    names, shown = listed(nursery._children)
    text = f"waits for {counted(len(names), 'call')} of {function}(): {shown}"
    return Wait("tasks", text, {"children": names})


def _thread(view: View) -> Wait:
    hop = view["hop"]
    limiter = view["limiter"]
    if view.inner("borrower", "acquire_on_behalf_of") is not None:
        return _a_limiter(limiter, "waits for a thread")
    sync_fn = view["sync_fn"]
    function = qualname_of(sync_fn) or class_name(type(sync_fn))
    ident = getattr(hop, "thread", None)
    frame = None if ident is None else sys._current_frames().get(ident)
    place = program_place(places_of(stack_of(frame)))
    details: dict[str, Any] = {"function": function, "thread": ident}
    text = f"waits for a thread that runs {function}()"
    if place is not None:
        details["place"] = str(place)
        text += f", now at {place}"
    return Wait("thread", text, details)


def _worker(view: View) -> Wait:
    call = view["call"]
    kind = "interpreter" if getattr(call, "kind", "") == "to_interpreter" else "process"
    if view.inner("borrower", "acquire_on_behalf_of") is not None:
        return _a_limiter(view["limiter"], f"waits for a worker {kind}")
    sync_fn = view["sync_fn"]
    function = qualname_of(sync_fn) or class_name(type(sync_fn))
    worker = getattr(call, "worker", None)
    pid = getattr(worker, "pid", None)
    details: dict[str, Any] = {"function": function, "pid": pid}
    text = f"waits for a worker {kind} that runs {function}()"
    if kind == "process":
        text += ", and is starting" if pid is None else f", pid {pid}"
    return Wait(f"worker {kind}", text, details)


def _process(view: View) -> Wait:
    return _a_process(view["self"])


def _a_process(process: Any) -> Wait:
    text = f"waits for process {process.pid} to end: {safe_repr(process.args)}"
    return Wait("process", text, {"pid": process.pid})


def _run_process(view: View) -> Wait:
    process = view["process"]
    if process is None:
        return Wait("process", "waits for a process")
    return _a_process(process)


def _descriptor(view: View) -> Wait:
    function = view.frames[0][0].f_code.co_name
    number = view["number"] or view.inner("number", "_wait")
    able = "readable" if "read" in function else "writable"
    text = f"waits for descriptor {number} to become {able}"
    return Wait("descriptor", text, {"fd": number})


def _socket(view: View) -> Wait:
    function = view.frames[0][0].f_code.co_name.strip("_")
    details: dict[str, Any] = {"operation": function}
    found: dict[str, Any] = {}
    for frame, _ in view.frames:
        sock = socket_in(frame.f_locals.get("self"))
        if sock is not None:
            for key, method in (("local", "getsockname"), ("peer", "getpeername")):
                try:
                    found[key] = getattr(sock, method)()
                    details[key] = address_text(found[key])
                except Exception:  # not connected, or closed
                    continue
            break
    text = f"waits in {function}()"
    if details.get("peer"):
        text += f" of the connection to {details['peer']}"
    elif details.get("local"):
        text += f" at {details['local']}"
    if function.startswith("receive"):
        return other_side(view, text, found.get("peer"), details)
    return Wait("socket", text, details)


def _serve(view: View) -> Wait:
    addresses = [_local_address(listener) for listener in view["listeners"]]
    text = f"serves {', '.join(map(str, addresses[:MOST_NAMES]))}"
    return Wait("server", text, {"addresses": addresses})


def _accept(view: View) -> Wait:
    address = _local_address(view["listener"])
    return Wait("accept", f"waits for a connection to {address}", {"address": address})


def _local_address(listener: Any) -> str:
    sock = socket_in(listener)
    return safe_repr(listener) if sock is None else address_text(sock.getsockname())


def _name_lookup(view: View) -> Wait:
    host = view["host"]
    return Wait("name look-up", f"waits for the address of {host!r}", {"host": safe_repr(host)})


def _signal(view: View) -> Wait:
    return Wait("signal", "waits for a signal")


def _rescheduled(view: View) -> Wait:
    return Wait("custom", "waits to be rescheduled by other code")


def _yields(view: View) -> Wait:
    return Wait("checkpoint", "is at a checkpoint")


def _idle(view: View) -> Wait:
    return Wait("idle loop", "waits until all other tasks are blocked")


# The operations of nurseryio that wait: module (below nurseryio) -> function -> description.
OPERATIONS: dict[str, dict[str, Callable[[View], Wait]]] = {
    "_nursery.timeouts": {"sleep": _sleep, "sleep_until": _sleep, "sleep_forever": _sleep},
    "_nursery.nursery": {"__aexit__": _nursery, "start": _start},
    "_sync.event": {"wait": _event},
    "_sync.lock": {"acquire": _lock},
    "_sync.condition": {"wait": _condition},
    "_sync.semaphore": {"acquire": _semaphore},
    "_sync.limiter": {"acquire": _limiter, "acquire_on_behalf_of": _limiter},
    "_sync.channel": {"send": _send, "_receive": _receive},
    "_sync.unbounded_queue": {"get_batch": _queue, "__anext__": _queue},
    "_sync.parking_lot": {"park": _parking_lot},
    "_sync.results": {"gather": _gather, "race": _gather},
    "_net.serve": {"serve_listeners": _serve, "_serve_one": _accept},
    "_system.threads": {"to_thread_run_sync": _thread},
    "_workers.processes": {"to_process_run_sync": _worker},
    "_workers.interpreters": {"to_interpreter_run_sync": _worker},
    "_system.process": {"wait": _process},
    "_system.run_process": {"run_process": _run_process},
    "_system.signals": {"__anext__": _signal},
    "_loop.wait_io": {"wait_readable": _descriptor, "wait_writable": _descriptor},
    "_loop.selector_idle": {"wait_all_tasks_blocked": _idle},
    "_resolver.resolver": {"getaddrinfo": _name_lookup},
    "_core.traps": {
        "wait_task_rescheduled": _rescheduled,
        "checkpoint": _yields,
        "checkpoint_if_cancelled": _yields,
        "cancel_shielded_checkpoint": _yields,
    },
}

# The rooms whose other functions wait for a socket.
SOCKET_ROOMS = ("nurseryio._net.", "nurseryio._tls.", "nurseryio._dtls.")


# -- any task -----------------------------------------------------------------------


def operation_of(frames: Frames) -> Frames:
    """The innermost frames that belong to nurseryio and asyncio, without the program's."""
    index = len(frames)
    while index and is_library(frames[index - 1][0].f_code):
        index -= 1
    return frames[index:]


def wait_of(
    asyncio_task: Any, task: Task | None, frames: Frames, holders: Holders | None = None
) -> Wait:
    """What a waiting task waits for.

    Args:
        asyncio_task: The asyncio task.
        task: Its record; None if it does not have one.
        frames: Its frames, outermost first.
        holders: What the tasks of the loop hold; None if that must not be looked for.
    """
    future = compat.waiter(asyncio_task)
    number = id(task or asyncio_task)
    operation = operation_of(frames)
    for index, (frame, _) in enumerate(operation):
        module = str(frame.f_globals.get("__name__", ""))
        view = View(operation[index:], task, number, holders, future)
        if not module.startswith("nurseryio."):
            return of_asyncio(view, frames, asyncio_task.get_loop())
        describe = OPERATIONS.get(module[len("nurseryio.") :], {}).get(frame.f_code.co_name)
        if describe is None and module.startswith(SOCKET_ROOMS):
            describe = _socket
        if describe is not None:
            try:
                return describe(view)
            except Exception:
                break
    if operation:
        frame = operation[0][0]
        owner = frame.f_locals.get("self")
        where = "" if owner is None else f"{class_name(type(owner))}."
        return Wait("unknown", f"waits in {where}{frame.f_code.co_name}()")
    return of_asyncio(View([], task, number, holders, future), frames, asyncio_task.get_loop())
