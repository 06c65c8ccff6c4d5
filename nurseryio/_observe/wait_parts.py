"""The parts of a description of a wait: its data, the frames it is read from, names of tasks.

Rule: a name that cannot be shown does not prevent the description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._core.task import records

if TYPE_CHECKING:
    import types

    from .._core.task import Task
    from .holders import Holders

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
        any_of: The ids of tasks of which one has to act before the wait ends: the borrowers of a
            limiter, the tasks that have an end of the channel in a variable.
        certain: Whether code that is in neither list cannot end the wait. A callback or a thread
            may use a channel, and no task shows that.
        waited: For how many seconds, at least, the task has waited; None if nobody has looked.
        held: For how many seconds, at least, the lock has had its present owner; None if it is not
            a lock, or nobody has looked.
    """

    kind: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[int, ...] = ()
    any_of: tuple[int, ...] = ()
    certain: bool = True
    waited: float | None = None
    held: float | None = None


class View:
    """The suspended frames of one operation, the task, and what the other tasks hold.

    Attributes:
        frames: The frames from the operation inwards, each with its line number.
        task: The record of the task; None if it does not have one.
        number: The id of the task in the tree.
        holders: What the tasks of the loop hold; None if that was not looked for.
        future: The future that the task waits for, if it is a task of asyncio.
    """

    def __init__(
        self,
        frames: Frames,
        task: Task | None,
        number: int = 0,
        holders: Holders | None = None,
        future: Any = None,
    ) -> None:
        self.frames = frames
        self.task = task
        self.number = number
        self.holders = holders
        self.future = future

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
    """The name of a task of nurseryio or asyncio; a text in its place if it cannot be shown.

    It is a plain ``str``: a subclass may compare and hash as it likes.
    """
    try:
        name = str(task.get_name() if compat.is_task(task) else task.name)
        return str.__str__(name)
    except Exception:
        return "a task whose name cannot be shown"


def number_of(asyncio_task: Any) -> int:
    """The id of a task in the tree: that of its record if it has one."""
    return id(records.get(asyncio_task) or asyncio_task)


def counted(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def timed_sleep(left: float, details: dict[str, Any]) -> Wait:
    """The wait for a timer that has some seconds left."""
    if left == inf:
        return Wait("sleep", "sleeps for ever", details)
    details["left"] = left
    if left < 0:
        return Wait("sleep", f"sleeps, and should have woken {-left:.2f} s ago", details)
    return Wait("sleep", f"sleeps for another {left:.2f} s", details)


def in_variables(view: View, details: dict[str, Any], thing: Any) -> str:
    """The part of a sentence that says which other tasks have an object in a variable."""
    if view.holders is None:
        return ""
    tasks = [task for task in view.holders.with_variable(thing) if task != view.number]
    details["tasks_with_it"], shown = view.holders.shown(tasks)
    if tasks:
        return f"; {shown} {'has' if len(tasks) == 1 else 'have'} it in a variable"
    return "; no other task has it in a variable" if view.holders.complete else ""


def in_block(view: View, kind: str, text: str, thing: Any, details: dict[str, Any]) -> Wait:
    """The wait for an object that tasks hold in an ``async with`` block, with these tasks.

    Args:
        view: The operation.
        kind: The kind of the wait.
        text: Its text so far.
        thing: The lock or semaphore.
        details: The data so far.
    """
    if view.holders is None:
        return Wait(kind, text, details)
    tasks = view.holders.in_block_of(thing)
    details["owners"], shown = view.holders.shown(tasks)
    if tasks:
        text += f"; held by {shown}"
    elif view.holders.complete:
        text += "; no task is in an 'async with' block of it"
    # A semaphore does not show whether a task has taken it without a block.
    return Wait(kind, text, details, any_of=tuple(tasks), certain=kind == "lock")


# -- sockets ----------------------------------------------------------------------


def other_side(view: View, text: str, peer: object, details: dict[str, Any]) -> Wait:
    """The wait for data of a connection, with the tasks that have its other side.

    Args:
        view: The operation.
        text: Its text so far.
        peer: The address of the other side, as the socket has it.
        details: The data so far.
    """
    tasks = view.holders.with_stream_at(peer) if view.holders is not None and peer else []
    if tasks and view.holders is not None:
        details["tasks_at_peer"], shown = view.holders.shown(tasks)
        text += f", whose other side {shown} {'has' if len(tasks) == 1 else 'have'}"
    return Wait("socket", text, details, any_of=tuple(tasks), certain=False)


def socket_in(thing: Any) -> Any:
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


def address_text(address: Any) -> str:
    if isinstance(address, tuple) and len(address) >= 2:
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return str(address)
