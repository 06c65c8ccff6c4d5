"""What a task waits for in an operation of asyncio, or in a future of any library.

Rule: asyncio records less than nurseryio does. A sentence says what is known, and no more.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._asyncio import compat, display
from .._base.exc_fields import class_name
from .._base.util import qualname_of
from .holders import listed
from .places import places_of, program_place, stack_of
from .wait_parts import (
    View,
    Wait,
    address_text,
    counted,
    in_block,
    in_variables,
    name_of_task,
    number_of,
    other_side,
    timed_sleep,
)

if TYPE_CHECKING:
    import types

    from .wait_parts import Frames

# The frames outside of an operation of asyncio in which a stream of another library is looked for.
NEAR = 3


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
    return [each for each in futures if compat.is_task(each) and not each.done()]


def of_asyncio(view: View, frames: Frames, loop: Any) -> Wait:
    """What a task waits for.

    Args:
        view: The operation of asyncio; without frames if the task waits for a future itself.
        frames: All frames of the task, outermost first.
        loop: The event loop.
    """
    details: dict[str, Any] = {}
    function = None
    if view.frames:
        frame = view.frames[0][0]
        details["operation"] = function = _qualified(frame)
        timer = frame.f_locals.get("h") if frame.f_code.co_name == "sleep" else None
        if timer is not None:
            return timed_sleep(timer.when() - loop.time(), details)
    tasks = awaited_tasks(view.frames, view.future)
    if tasks:
        details["tasks"], shown = listed(map(name_of_task, tasks))
        which = counted(len(tasks), "asyncio task")
        where = "" if function is None else f" in asyncio's {function}()"
        ids = tuple(map(number_of, tasks))
        return Wait("tasks", f"waits{where} for {which}: {shown}", details, ids)
    call = display.executor_call(view.future, sys._current_frames)
    if call is not None:
        return _of_executor(call, details, loop)
    if not view.frames:
        text = f"waits for a future of type {class_name(type(view.future))}"
        return Wait("future", text + in_variables(view, details, view.future), details)
    if view.frames[0][0].f_code.co_name == "shutdown_default_executor":
        return _of_shutdown(details, loop)
    owner = view["self"]
    for cls, describe in OPERATIONS.items():
        if isinstance(owner, cls):
            try:
                return describe(view, owner, details, frames)
            except Exception:  # an object of a subclass, which may do anything
                break
    return Wait("asyncio", f"waits in asyncio's {function}()", details)


def _qualified(frame: types.FrameType) -> str:
    code = frame.f_code
    name = getattr(code, "co_qualname", None)
    # Python 3.10 lacks the name. asyncio's locks inherit methods from a private class.
    if name is None or name.startswith("_"):
        owner = frame.f_locals.get("self")
        name = code.co_name if owner is None else f"{type(owner).__name__}.{code.co_name}"
    return str(name)


# -- threads ----------------------------------------------------------------------


def _of_executor(call: display.ExecutorCall, details: dict[str, Any], loop: Any) -> Wait:
    details["thread"] = call.thread
    name = None if call.function is None else _name_of(call.function)
    details["function"] = name
    if call.began:
        text = "waits for an executor" if name is None else "waits for a thread"
        text += " that works" if name is None else f" that runs {name}()"
    else:
        what = "a function" if name is None else f"{name}()"
        text = f"waits for an executor that has not begun {what}: all of its threads are busy"
    if call.thread is not None:
        place = program_place(places_of(stack_of(sys._current_frames().get(call.thread))))
        if place is not None:
            details["place"] = str(place)
            text += f", now at {place}"
    return Wait("thread", text, details)


def _of_shutdown(details: dict[str, Any], loop: Any) -> Wait:
    """The wait at the end of ``asyncio.run``, which may be for a call that does not return."""
    calls = display.calls_of_default_executor(loop, sys._current_frames)
    texts = []
    for call in calls:
        name = None if call.function is None else _name_of(call.function)
        place = program_place(places_of(stack_of(sys._current_frames().get(call.thread or 0))))
        at = "" if place is None else f", now at {place}"
        texts.append(f"{'a call' if name is None else f'{name}()'}{at}")
    details["calls"] = texts
    text = "waits for the threads of the default executor to end"
    return Wait("thread", ": ".join([text, *(["; ".join(texts)] if texts else [])]), details)


def _name_of(function: Any) -> str:
    """The name of the function that a call of ``to_thread`` or ``run_in_executor`` is about."""
    for _ in range(10):
        inner = getattr(function, "func", None)
        if inner is None:
            break
        # asyncio.to_thread calls context.run(function, ...).
        of_context = getattr(inner, "__name__", "") == "run" and bool(function.args)
        function = function.args[0] if of_context else inner
    return qualname_of(function) or class_name(type(function))


# -- primitives -------------------------------------------------------------------


def _lock(view: View, lock: Any, details: dict[str, Any], _frames: Frames) -> Wait:
    if not lock.locked():
        return Wait("lock", "waits for an asyncio.Lock that was just released", details)
    return in_block(view, "lock", "waits for an asyncio.Lock", lock, details)


def _condition(view: View, condition: Any, details: dict[str, Any], frames: Frames) -> Wait:
    inner = view.inner("self", "acquire")
    if inner is not None:
        return _lock(view, inner, details, frames)
    text = "waits to be notified on an asyncio.Condition"
    return Wait("condition", text + in_variables(view, details, condition), details)


def _semaphore(view: View, semaphore: Any, details: dict[str, Any], _frames: Frames) -> Wait:
    text = "waits for an asyncio.Semaphore, whose value is 0"
    return in_block(view, "semaphore", text, semaphore, details)


def _event(view: View, event: Any, details: dict[str, Any], frames: Frames) -> Wait:
    peer = _peer_near(frames)
    if peer is not None:
        details["peer"] = peer[1]
        return Wait("socket", f"waits in {peer[0]}() of the connection to {peer[1]}", details)
    text = "waits for an asyncio.Event to be set"
    return Wait("event", text + in_variables(view, details, event), details)


def _queue(view: View, queue: Any, details: dict[str, Any], _frames: Frames) -> Wait:
    size, most = queue.qsize(), queue.maxsize
    details.update(size=size, maxsize=most)
    function = view.frames[0][0].f_code.co_name
    if function == "get":
        kind, text = "queue get", "waits for an item of an asyncio.Queue; it is empty"
    elif function == "put":
        kind, text = "queue put", f"waits to put to an asyncio.Queue; it holds {size} of {most}"
    else:
        count = display.unfinished(queue)
        left = "all items" if count is None else counted(count, "item")
        left += " of an asyncio.Queue " + ("is" if count == 1 else "are")
        kind, text = "queue join", f"waits until {left} marked as done"
    return Wait(kind, text + in_variables(view, details, queue), details)


def _stream(view: View, stream: Any, details: dict[str, Any], _frames: Frames) -> Wait:
    text = f"waits in asyncio's {details['operation']}()"
    _, peer = display.addresses_of(stream)
    if peer is None:
        return Wait("socket", text, details)
    details["peer"] = address_text(peer)
    text += f" of the connection to {details['peer']}"
    return (
        other_side(view, text, peer, details)
        if isinstance(stream, asyncio.StreamReader)
        else Wait("socket", text, details)
    )


def _process(_view: View, process: Any, details: dict[str, Any], _frames: Frames) -> Wait:
    details["pid"] = process.pid
    text = f"waits in asyncio's {details['operation']}() of process {process.pid}"
    return Wait("process", text, details)


OPERATIONS: dict[type, Callable[[View, Any, dict[str, Any], Frames], Wait]] = {
    asyncio.Lock: _lock,
    asyncio.Condition: _condition,
    asyncio.Semaphore: _semaphore,
    asyncio.Event: _event,
    asyncio.Queue: _queue,
    asyncio.StreamReader: _stream,
    asyncio.StreamWriter: _stream,
    asyncio.subprocess.Process: _process,
}


def _peer_near(frames: Frames) -> tuple[str, str] | None:
    """The method and the peer of a stream of another library that waits for an event.

    Other libraries, such as anyio, wait for an event that their protocol sets.
    """
    for frame, _ in reversed(frames[-NEAR:]):
        _, peer = display.addresses_of(frame.f_locals.get("self"))
        if peer is not None:
            return frame.f_code.co_name, address_text(peer)
    return None
