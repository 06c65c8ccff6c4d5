"""Channels whose items nobody takes: buffers that grow, senders that wait. For the watchdog.

A channel has no hook, and does not know which tasks use it. So :class:`Backlogs` learns of each end
when it is made, and of older channels when a task waits in them. It looks at their queues from the
watchdog's thread, and compares each look with the one before.

Rule 1: a channel is stuck if tasks wait to send and the first of them has been the first, in the
same wait, for the whole time. Each receive serves that task, so nothing was received.

Rule 2: without a waiting sender a look cannot prove that nothing was received. So a channel with
items in its buffer is stuck only if the receiver is gone too. That is so if each receiving end was
dropped without being closed, if no task shows one, or if the task that was seen receiving has ended
and the tasks that show one wait at the end of a nursery.

Rule 3: looking keeps neither channels nor items alive.

Rule 4: which tasks hold an end is found out only for a message. Their suspended coroutines are
asked for the objects that they refer to, as the garbage collector does. Reading their variables
would keep the values alive.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from collections import deque
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from weakref import ref

from .._asyncio.compat import running_loop_or_none
from .._core.task import records
from .._observe.ages import queue_of
from .._observe.drawing import task_line
from .._observe.task_tree import tree_of
from .._observe.wait_parts import name_of_task, number_of
from .._sync.channel import ChannelEnd, MemoryReceiveChannel, MemorySendChannel
from .._sync.unbounded_queue import UnboundedQueue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._asyncio.compat import Loop
    from .._observe.tree_data import TaskInfo
    from .._sync.channel import ChannelState

__all__ = ["Backlogs", "Report"]

Tasks: TypeAlias = "list[TaskInfo] | None"

# The most tasks that a message names as senders, and as receivers.
MOST_TASKS = 5
# How far a task's variables are followed: through containers and attributes of objects.
DEPTH = 2
# The most objects that are looked at for one task, and the most tasks.
MOST_OBJECTS = 2000
MOST_HOLDERS = 1000


class Report(NamedTuple):
    """Something to log: the kind of event, what it is about, the lines, the data."""

    event: str
    about: object
    lines: list[str]
    details: dict[str, Any]


class _Channel:
    """What is known of one channel, or of an ``UnboundedQueue``.

    Args:
        thing: The state that its ends share; or the queue.
        log_at: The number of items from which on the buffer is big.
    """

    def __init__(self, thing: Any, log_at: float) -> None:
        self.thing = ref(thing)
        self.log_at = log_at
        # The receiving ends that are known, and whether these are all.
        self.ends: list[ref[Any]] = []
        self.all_known = False
        # What was first in the line at the last look, and since when it has been.
        self.first: object = None
        self.items = 0
        self.since = inf
        # When to look again for the tasks that have its ends. That is slow if there are many.
        self.again_at = -inf
        # The task that was last seen receiving, with its name.
        self.receiver: tuple[ref[Any], str] | None = None

    def has_lost_receiver(self) -> bool:
        """Whether the task that was last seen receiving has ended."""
        if self.receiver is None:
            return False
        task = self.receiver[0]()
        return task is None or task.done()

    def is_dropped(self) -> bool:
        """Whether each receiving end that is open was collected, so that none can receive."""
        if not self.all_known:
            return False
        self.ends = [each for each in self.ends if each() is not None]
        return all(end is None or end._closed for end in (each() for each in self.ends))


class Backlogs:
    """The channels of one loop.

    Args:
        loop: The event loop.
        big_buffer: From how many items on an unlimited buffer is reported.
        stuck_channel: After how many seconds a stuck channel is reported.
        clock: The clock, in seconds.
    """

    def __init__(
        self, loop: Loop, big_buffer: float, stuck_channel: float, clock: Callable[[], float]
    ) -> None:
        self._loop = loop
        self._big_buffer = big_buffer
        self._stuck_channel = stuck_channel
        self._clock = clock
        self._is_off = big_buffer == stuck_channel == inf
        # Channels that have got a receiving end since the last look, with that end, and whether it
        # is the first one. Of a queue, the queue itself.
        self._new: deque[tuple[ref[Any], ref[Any] | None, bool]] = deque()
        self._known: dict[int, _Channel] = {}

    def made(self, thing: Any) -> None:
        """Called by the thread that has made a receiving end or a queue."""
        if not self._is_off and running_loop_or_none() in (self._loop, None):
            if isinstance(thing, UnboundedQueue):
                self._new.append((ref(thing), None, False))
            else:
                state = thing._state
                self._new.append((ref(state), ref(thing), state.open_receivers == 1))

    def look(self) -> Iterator[Report]:
        """Look once, and return what is to be logged."""
        if self._is_off:
            return
        self._learn()
        for number, channel in list(self._known.items()):
            thing = channel.thing()
            if thing is None:
                del self._known[number]
                continue
            with suppress(RuntimeError):  # the loop has changed a queue meanwhile: look again later
                yield from self._look_at(channel, thing)

    def _learn(self) -> None:
        while self._new:
            reference, end, first = self._new.popleft()
            thing = reference()
            if thing is not None:
                channel = self._entry(thing)
                if end is not None:
                    channel.ends.append(end)
                    channel.all_known |= first
        for task in records.copy().values():
            queue = queue_of(task)
            if queue is not None and task._state.loop is self._loop:
                entry = queue.get(task)
                if isinstance(entry, MemoryReceiveChannel):
                    channel = self._entry(entry._state)
                    if channel.receiver is None or channel.receiver[0]() is not task.asyncio_task:
                        channel.receiver = (ref(task.asyncio_task), name_of_task(task))
                elif isinstance(entry, tuple) and isinstance(entry[0], MemorySendChannel):
                    self._entry(entry[0]._state)

    def _entry(self, thing: Any) -> _Channel:
        channel = self._known.get(id(thing))
        if channel is None or channel.thing() is not thing:
            channel = self._known[id(thing)] = _Channel(thing, self._big_buffer)
        return channel

    def _look_at(self, channel: _Channel, thing: Any) -> Iterator[Report]:
        if isinstance(thing, UnboundedQueue):
            items, unlimited = len(thing._items), True
        else:
            items, unlimited = len(thing.buffer), thing.max_buffer_size == inf
            yield from self._look_at_line(channel, thing)
        if unlimited:
            if items >= channel.log_at:
                channel.log_at = 2 * items
                yield self._big(thing, items)
            elif items < self._big_buffer / 2:
                channel.log_at = self._big_buffer

    # -- channels without a receiver -----------------------------------------------------

    def _look_at_line(self, channel: _Channel, state: ChannelState) -> Iterator[Report]:
        first: object = None
        if state.senders:
            park = next(iter(state.senders))._park
            first = None if park is None else ref(park)
        elif state.buffer:
            first = id(state.buffer[0])
        if first is None or state.receivers or not state.open_receivers:
            channel.first = None
            return
        now = self._clock()
        # References to one living object are equal, and equal to no others.
        if channel.first != first or len(state.buffer) < channel.items:
            channel.first = first
            channel.since = now
            channel.again_at = now + self._stuck_channel
        channel.items = len(state.buffer)
        if now >= channel.again_at:
            channel.again_at = now + self._stuck_channel
            report = self._stuck(channel, state, now - channel.since)
            if report is not None:
                yield report

    def _stuck(self, channel: _Channel, state: ChannelState, seconds: float) -> Report | None:
        senders, items = len(state.senders), len(state.buffer)
        dropped = channel.is_dropped()
        sending, receiving = self._at(state)
        if senders and sending is not None:
            waiting = {id(task) for task in list(state.senders)}
            sending = [task for task in sending if task.id in waiting]
        lost = channel.has_lost_receiver()
        if not senders and not dropped:
            if receiving is None:
                return None
            if any(
                not lost or task.wait is None or task.wait.kind != "nursery" for task in receiving
            ):
                return None  # the task may be busy with another item
        lines = [f"a memory channel is stuck: {_what(senders, items, seconds)}"]
        if dropped:
            lines.append("   each receiving end was dropped without a close()")
        elif receiving == []:
            lines.append("   no task has a receiving end among its variables")
        lines += _named("could receive", receiving)
        if channel.receiver is not None:
            lines.append(f"   received last: {channel.receiver[1]}{', which has ended' * lost}")
        lines += _named("sends", sending)
        details = {
            "seconds": seconds,
            "tasks_waiting_send": senders,
            "items": items,
            "open_receive_channels": state.open_receivers,
            "dropped": dropped,
            "senders": _texts(sending),
            "receivers": _texts(receiving),
            "last_receiver": None if channel.receiver is None else channel.receiver[1],
        }
        return Report("stuck channel", ("channel", id(state)), lines, details)

    # -- big buffers ---------------------------------------------------------------------

    def _big(self, thing: Any, items: int) -> Report:
        queue = isinstance(thing, UnboundedQueue)
        what = "an UnboundedQueue" if queue else "a memory channel without a limit"
        lines = [f"{what} holds {items:,} items"]
        sending, receiving = self._at(thing)
        lines += _named("uses it" if queue else "sends", sending)
        lines += _named("receives", receiving)
        details = {"items": items, "senders": _texts(sending), "receivers": _texts(receiving)}
        return Report("big buffer", ("buffer", id(thing)), lines, details)

    # -- the tasks at a channel ----------------------------------------------------------

    def _at(self, thing: Any) -> tuple[Tasks, Tasks]:
        """The tasks that have a sending end of a channel, and those that have a receiving one.

        Of an ``UnboundedQueue``, the first list has all tasks that use it. None stands for
        tasks that cannot be looked at.
        """
        if not getattr(sys, "_is_gil_enabled", lambda: True)():
            return None, None  # another thread's coroutine may be running
        tasks = list(asyncio.all_tasks(self._loop))
        sending, receiving = set(), set()
        for task in tasks[:MOST_HOLDERS]:
            record = records.get(task)
            for held in _held_by(task.get_coro() if record is None else record.coro):
                if held is thing or (isinstance(held, MemorySendChannel) and held._state is thing):
                    sending.add(number_of(task))
                elif isinstance(held, MemoryReceiveChannel) and held._state is thing:
                    receiving.add(number_of(task))
        infos = tree_of(self._loop).tasks
        all_seen = len(tasks) <= MOST_HOLDERS
        return (
            [info for info in infos if info.id in sending],
            [info for info in infos if info.id in receiving] if all_seen else None,
        )


def _what(senders: int, items: int, seconds: float) -> str:
    items_wait = f"{items:,} item{' waits' if items == 1 else 's wait'} in its buffer"
    if not senders:
        return f"for at least {seconds:.1f} s {items_wait}"
    tasks_wait = f"{senders:,} task{' waits' if senders == 1 else 's wait'} to send"
    and_items = f", {items_wait}" if items else ""
    return f"for at least {seconds:.1f} s no task has received, {tasks_wait}{and_items}"


def _texts(tasks: Tasks) -> list[str] | None:
    return None if tasks is None else [task_line(task) for task in tasks[:MOST_TASKS]]


def _named(what: str, tasks: Tasks) -> list[str]:
    lines = [f"   {what}: {line}" for line in _texts(tasks) or ()]
    more = len(tasks or ()) - MOST_TASKS
    return lines if more <= 0 else [*lines, f"   {what}: {more:,} more"]


# Objects that belong to the stack of a task, however deep it is.
_STACK = (
    types.CoroutineType,
    types.GeneratorType,
    types.AsyncGeneratorType,
    types.FrameType,
)
_STACK_NAMES = frozenset(("coroutine_wrapper", "async_generator_asend", "async_generator_athrow"))
# What is followed besides; and instances of classes that are not of a library.
_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_NOT_FOLLOWED = (type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType)
_LIBRARIES = ("nurseryio", "asyncio", "_asyncio", "uvloop", "anyio", "builtins")


def _held_by(coro: Any) -> Iterator[Any]:
    """The ends of channels, and the queues, that a suspended coroutine refers to."""
    seen = {id(coro)}
    todo: deque[tuple[Any, int]] = deque([(coro, 0)])
    while todo and len(seen) < MOST_OBJECTS:
        owner, depth = todo.popleft()
        inside = isinstance(owner, _STACK) or type(owner).__name__ in _STACK_NAMES
        for each in gc.get_referents(owner):
            if id(each) in seen:
                continue
            seen.add(id(each))
            kind = type(each)
            if issubclass(kind, (ChannelEnd, UnboundedQueue)):
                yield each
            elif issubclass(kind, _STACK) or kind.__name__ in _STACK_NAMES:
                if inside:
                    todo.appendleft((each, 0))
            elif kind is types.CellType or (
                kind is dict and not inside and type(owner) not in _CONTAINERS
            ):
                # A variable of the function around; or the attributes of an object, which may be
                # in a dict between.
                todo.append((each, depth))
            elif depth < DEPTH and _is_followed(kind):
                todo.append((each, depth + 1))


def _is_followed(kind: type) -> bool:
    if kind in _CONTAINERS:
        return True
    if issubclass(kind, _NOT_FOLLOWED):
        return False
    module = str(getattr(kind, "__module__", "builtins"))
    return module.partition(".")[0] not in _LIBRARIES
