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

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from .._asyncio import compat, display
from .._base.exc_fields import class_name
from .._base.util import is_library, qualname_of, safe_repr
from .._core.task import records
from .places import places_of, program_place, stack_of

if TYPE_CHECKING:
    import types

    from .._core.task import Task

__all__ = ["OPERATIONS", "Wait", "name_of_task", "operation_of", "wait_of"]

# The most names of tasks in one sentence.
MOST_NAMES = 5

Frames = list[tuple["types.FrameType", int]]


@dataclass(frozen=True, slots=True)
class Wait:
    """What a task waits for.

    Attributes:
        kind: One word or two for programs: ``"lock"``, ``"channel receive"``, ``"thread"``,
            ``"nursery"``, ``"sleep"``, ``"future"`` and others.
        text: A sentence without its subject: ``"waits for a lock that 'writer' holds"``.
        details: What the text says, as JSON-ready values: names of tasks, numbers, addresses.
        tasks: The ids of tasks that all have to act before the wait ends, as far as they are known:
            the owner of the lock, the children of the nursery. Empty if other code may end it.
        waited: For how many seconds, at least, the task has waited; None if nobody has looked.
        held: For how many seconds, at least, the lock has had its present owner; None if it is not
            a lock, or nobody has looked.
    """

    kind: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[int, ...] = ()
    waited: float | None = None
    held: float | None = None


class View:
    """The suspended frames of one operation, and the task."""

    def __init__(self, frames: Frames, task: Task | None) -> None:
        self.frames = frames
        self.task = task

    def __getitem__(self, name: str) -> Any:
        """A local variable of the operation; None if it is not set."""
        return self.frames[0][0].f_locals.get(name)

    def inner(self, name: str, function: str) -> Any:
        """A local variable of a function that the operation waits in; None if it is not there."""
        for frame, _ in self.frames[1:]:
            if frame.f_code.co_name == function and name in frame.f_locals:
                return frame.f_locals[name]
        return None


# -- names ------------------------------------------------------------------------


def name_of_task(task: Any) -> str:
    """The name of a task of nurseryio or asyncio; a text in its place if it cannot be shown."""
    try:
        return str(task.get_name() if isinstance(task, asyncio.Task) else task.name)
    except Exception:
        return "a task whose name cannot be shown"


def number_of(asyncio_task: Any) -> int:
    """The id of a task in the tree: that of its record if it has one."""
    return id(records.get(asyncio_task) or asyncio_task)


def _names(tasks: Any) -> tuple[list[str], str]:
    """The names of tasks or other objects, as a list and as a part of a sentence."""
    names = []
    for task in list(tasks):
        shown = task if isinstance(task, str) else getattr(task, "name", None)
        names.append(shown if isinstance(shown, str) else safe_repr(task))
    counted = sorted(Counter(names).items())
    quoted = [
        repr(name) if count == 1 else f"{name!r} ({count:,} times)"
        for name, count in counted[:MOST_NAMES]
    ]
    more = sum(count for _, count in counted[MOST_NAMES:])
    if more:
        quoted.append(f"{more:,} more")
    return names, ", ".join(quoted)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _tasks(count: int) -> str:
    return _number(count, "task")


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s"


# -- operations of nurseryio --------------------------------------------------------


def _sleep(view: View) -> Wait:
    entry = view["entry"] or view.inner("entry", "_sleep")
    when = inf if entry is None else entry[0]
    if when == inf or view.task is None:
        return Wait("sleep", "sleeps for ever")
    return _timed_sleep(when - view.task._state.loop.time(), {})


def _timed_sleep(left: float, details: dict[str, Any]) -> Wait:
    details["left"] = left
    if left < 0:
        return Wait("sleep", f"sleeps, and should have woken {_seconds(-left)} ago", details)
    return Wait("sleep", f"sleeps for another {_seconds(left)}", details)


def _event(view: View) -> Wait:
    count = len(view["self"]._waiting)
    others = f", as {_tasks(count - 1)} more" if count > 1 else ""
    return Wait("event", f"waits for an Event to be set{others}", {"tasks_waiting": count})


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
    details = {"value": view["self"]._value, "tasks_waiting": len(view["self"]._lot)}
    return Wait("semaphore", "waits for a Semaphore, whose value is 0", details)


def _limiter(view: View) -> Wait:
    return _a_limiter(view["self"], "waits for a token of a CapacityLimiter")


def _a_limiter(limiter: Any, text: str) -> Wait:
    statistics = limiter.statistics()
    names, shown = _names(statistics.borrowers)
    total = statistics.total_tokens
    details = {
        "total_tokens": None if total == inf else total,
        "borrowed_tokens": statistics.borrowed_tokens,
        "borrowers": names,
        "tasks_waiting": statistics.tasks_waiting,
    }
    held = "the only one is" if total == 1 else f"all {total} are"
    return Wait("limiter", f"{text}; {held} held, by {shown}", details)


def _channel(view: View) -> dict[str, Any]:
    statistics = view["self"].statistics()
    details = {name: getattr(statistics, name) for name in type(statistics).__slots__}
    if details["max_buffer_size"] == inf:
        details["max_buffer_size"] = None
    return details


def _send(view: View) -> Wait:
    found = _channel(view)
    buffer = f"the buffer holds {found['current_buffer_used']} of {found['max_buffer_size']}"
    ends = _number(found["open_receive_channels"], "receiving end")
    text = f"waits to send to a memory channel; {buffer}, no task receives, {ends} open"
    return Wait("channel send", text, found)


def _receive(view: View) -> Wait:
    found = _channel(view)
    ends = _number(found["open_send_channels"], "sending end")
    count = found["tasks_waiting_receive"]
    others = f", {_tasks(count - 1)} more wait" if count > 1 else ""
    text = f"waits to receive from a memory channel; it is empty, {ends} open{others}"
    return Wait("channel receive", text, found)


def _queue(view: View) -> Wait:
    return Wait("queue", "waits for an item of an UnboundedQueue")


def _parking_lot(view: View) -> Wait:
    count = len(view["self"])
    return Wait("parking lot", f"is parked in a ParkingLot with {_tasks(count)}", {"parked": count})


def _nursery(view: View) -> Wait:
    nursery = view["self"]
    if not nursery._children and nursery._pending_starts:
        count = len(nursery._pending_starts)
        text = f"waits for {_number(count, 'call')} of start() in its nursery"
        return Wait("nursery", text, {"children": [], "starting": count})
    names, shown = _names(nursery._children)
    noun = "child" if len(names) == 1 else "children"
    text = f"waits for {len(names):,} {noun} of its nursery: {shown}"
    details = {"children": names, "starting": len(nursery._pending_starts)}
    return Wait("nursery", text, details, tuple(map(id, list(nursery._children))))


def _start(view: View) -> Wait:
    temporary = next(iter(view["self"]._pending_starts), None)
    names, shown = _names(() if temporary is None else temporary._children)
    whose = f" by {shown}" if names else ""
    text = f"waits for task_status.started() to be called{whose}"
    return Wait("start", text, {"children": names})


def _gather(view: View) -> Wait:
    function = view.frames[0][0].f_code.co_name
    nursery = view.inner("self", "__aexit__")
    if nursery is None:
        return Wait("tasks", f"waits in {function}()")
    names, shown = _names(nursery._children)
    text = f"waits for {_number(len(names), 'call')} of {function}(): {shown}"
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
    for frame, _ in view.frames:
        sock = _socket_in(frame.f_locals.get("self"))
        if sock is not None:
            for key, method in (("local", "getsockname"), ("peer", "getpeername")):
                try:
                    details[key] = _address(getattr(sock, method)())
                except Exception:  # not connected, or closed
                    continue
            break
    if "peer" in details:
        where = f" of the connection to {details['peer']}"
    elif "local" in details:
        where = f" at {details['local']}"
    else:
        where = ""
    return Wait("socket", f"waits in {function}(){where}", details)


def _socket_in(thing: Any) -> Any:
    """The socket in an object of nurseryio that sends and receives; None if there is none."""
    for _ in range(4):
        if thing is None or hasattr(thing, "getpeername"):
            return thing
        for name in ("socket", "_sock", "transport_stream", "_stream", "_wire", "_listener"):
            inner = getattr(thing, name, None)
            if inner is not None:
                thing = inner
                break
        else:
            return None
    return None


def _address(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return str(address)


def _serve(view: View) -> Wait:
    addresses = [_local_address(listener) for listener in view["listeners"]]
    text = f"serves {', '.join(map(str, addresses[:MOST_NAMES]))}"
    return Wait("server", text, {"addresses": addresses})


def _accept(view: View) -> Wait:
    address = _local_address(view["listener"])
    return Wait("accept", f"waits for a connection to {address}", {"address": address})


def _local_address(listener: Any) -> str:
    sock = _socket_in(listener)
    return safe_repr(listener) if sock is None else _address(sock.getsockname())


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


# -- asyncio ------------------------------------------------------------------------


def awaited_tasks(frames: Frames, future: Any) -> list[Any]:
    """The asyncio tasks that a task waits for, as far as asyncio shows them.

    Args:
        frames: The frames of the operation of asyncio that it waits in.
        future: The future that it waits for.
    """
    for frame, _ in frames:
        if frame.f_globals.get("__name__") == "asyncio.taskgroups":
            tasks = display.group_tasks(frame.f_locals.get("self"))
            if tasks:
                return tasks
    futures = display.gathered(future) or [future]
    return [each for each in futures if isinstance(each, asyncio.Task) and not each.done()]


def _of_asyncio(frames: Frames, future: Any, loop: Any) -> Wait:
    """What a task waits for in an operation of asyncio, or in a future of any library."""
    details: dict[str, Any] = {}
    function = None
    if frames:
        frame = frames[0][0]
        details["operation"] = function = _qualified(frame)
        timer = frame.f_locals.get("h") if frame.f_code.co_name == "sleep" else None
        if timer is not None:
            return _timed_sleep(timer.when() - loop.time(), details)
    tasks = awaited_tasks(frames, future)
    if tasks:
        details["tasks"], shown = _names(map(name_of_task, tasks))
        which = _number(len(tasks), "asyncio task")
        where = "" if function is None else f" in asyncio's {function}()"
        ids = tuple(map(number_of, tasks))
        return Wait("tasks", f"waits{where} for {which}: {shown}", details, ids)
    if function is not None:
        return Wait("asyncio", f"waits in asyncio's {function}()", details)
    return Wait("future", f"waits for a future of type {type(future).__name__}")


def _qualified(frame: types.FrameType) -> str:
    code = frame.f_code
    name = getattr(code, "co_qualname", None)
    # Python 3.10 lacks the name. asyncio's locks inherit methods from a private class.
    if name is None or name.startswith("_"):
        owner = frame.f_locals.get("self")
        name = code.co_name if owner is None else f"{type(owner).__name__}.{code.co_name}"
    return str(name)


# -- any task -----------------------------------------------------------------------


def operation_of(frames: Frames) -> Frames:
    """The innermost frames that belong to nurseryio and asyncio, without the program's."""
    index = len(frames)
    while index and is_library(frames[index - 1][0].f_code):
        index -= 1
    return frames[index:]


def wait_of(asyncio_task: Any, task: Task | None, operation: Frames) -> Wait:
    """What a waiting task waits for.

    Args:
        asyncio_task: The asyncio task.
        task: Its record; None if it does not have one.
        operation: The frames of its operation: see :func:`operation_of`.
    """
    future = compat.waiter(asyncio_task)
    for index, (frame, _) in enumerate(operation):
        module = str(frame.f_globals.get("__name__", ""))
        if not module.startswith("nurseryio."):
            return _of_asyncio(operation[index:], future, asyncio_task.get_loop())
        describe = OPERATIONS.get(module[len("nurseryio.") :], {}).get(frame.f_code.co_name)
        if describe is None and module.startswith(SOCKET_ROOMS):
            describe = _socket
        if describe is not None:
            try:
                return describe(View(operation[index:], task))
            except Exception:
                break
    if operation:
        return Wait("unknown", f"waits in {operation[0][0].f_code.co_name}()")
    return _of_asyncio([], future, asyncio_task.get_loop())
