"""Memory channels: objects are passed from task to task, with a bounded buffer in between.

This module has :func:`open_memory_channel`, the two kinds of ends, and the state that all ends of
one channel share.

Rule 1: an item is at every moment in exactly one place: with its sender (in ``senders``), in the
buffer, or with its receiver. It moves within one synchronous step, so a cancellation cannot
arrive in between. A receiver that was handed an item keeps it, whatever cancels the receiver then.

Rule 2: tasks wait for senders, or for receivers, or not at all. No task waits to receive while
the buffer has an item or a task waits to send. No task waits to send while the buffer has room or
a task waits to receive. First come, first served on both sides.

Rule 3: the ``_waiting`` of an end counts the tasks that sleep in calls on this very end, not on its
clones. A task that was just woken is still counted. Closing an end searches for tasks to wake only
if the count is not zero.
"""

from __future__ import annotations

import inspect
import sys
from abc import abstractmethod
from collections import OrderedDict, deque
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._base import BrokenResourceError, ClosedResourceError, EndOfChannel, Error, Value, WouldBlock
from .._base.abcs import ReceiveChannel, SendChannel
from .._base.unsupported import Elsewhere
from .._base.util import Frozen, NoPublicConstructor, generic_function
from .._base.watchers import made, watchers
from .._core import checkpoint, checkpoint_if_cancelled, current_task
from .._core.task import INITIAL_YIELD_CREDIT
from .._core.wait_queue import maybe_yield, park, wake_all, wake_first, wake_some

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

    from typing_extensions import Self

    from .._core import Task

__all__ = [
    "MemoryChannelStatistics",
    "MemoryReceiveChannel",
    "MemorySendChannel",
    "open_memory_channel",
]

T = TypeVar("T")
SendType = TypeVar("SendType", contravariant=True)
ReceiveType = TypeVar("ReceiveType", covariant=True)

# The text of EndOfChannel.
AT_END = "all sending ends are closed, and every item has been received"


class MemoryChannelStatistics(Frozen):
    """The state of a memory channel at one moment.

    Attributes:
        current_buffer_used: How many items are in the buffer.
        max_buffer_size: How many items fit into the buffer; ``math.inf`` for any number.
        open_send_channels: How many sending ends are open, clones included.
        open_receive_channels: How many receiving ends are open, clones included.
        tasks_waiting_send: How many tasks wait in ``send``, on all ends together.
        tasks_waiting_receive: How many tasks wait in ``receive``, on all ends together.
        peak_buffer_used: The most items that have ever been in the buffer at once.

    Trio: ``trio.MemoryChannelStatistics``.
    """

    __slots__ = (
        "current_buffer_used",
        "max_buffer_size",
        "open_send_channels",
        "open_receive_channels",
        "tasks_waiting_send",
        "tasks_waiting_receive",
        "peak_buffer_used",
    )

    current_buffer_used: int
    max_buffer_size: int | float
    open_send_channels: int
    open_receive_channels: int
    tasks_waiting_send: int
    tasks_waiting_receive: int
    peak_buffer_used: int


class ChannelState:
    """The state that all ends of one channel share."""

    __slots__ = (
        "__weakref__",
        "buffer",
        "max_buffer_size",
        "open_receivers",
        "open_senders",
        "peak",
        "receivers",
        "senders",
    )

    def __init__(self, max_buffer_size: int | float) -> None:
        self.max_buffer_size: int | float = max_buffer_size
        self.buffer: deque[Any] = deque()
        self.peak: int = 0
        self.open_senders: int = 0
        self.open_receivers: int = 0
        # The tasks that wait to send, each with its end and its item; the tasks that wait to
        # receive, each with its end.
        self.senders: OrderedDict[Task, tuple[MemorySendChannel[Any], Any]] = OrderedDict()
        self.receivers: OrderedDict[Task, MemoryReceiveChannel[Any]] = OrderedDict()

    def statistics(self) -> MemoryChannelStatistics:
        return MemoryChannelStatistics(
            current_buffer_used=len(self.buffer),
            max_buffer_size=self.max_buffer_size,
            open_send_channels=self.open_senders,
            open_receive_channels=self.open_receivers,
            tasks_waiting_send=len(self.senders),
            tasks_waiting_receive=len(self.receivers),
            peak_buffer_used=self.peak,
        )


class ChannelEnd:
    """One end of a memory channel, of either kind."""

    __slots__ = ("__dict__", "__weakref__", "_closed", "_state", "_waiting")

    def __init__(self, state: ChannelState) -> None:
        self._state = state
        self._closed = False
        # An upper bound for the tasks that wait in calls on this end; see rule 3.
        self._waiting = 0

    def __repr__(self) -> str:
        state = self._state
        return (
            f"<{type(self).__name__} at {id(self):#x}, {'closed' if self._closed else 'open'}, "
            f"channel {id(state):#x} holds {len(state.buffer)} of {state.max_buffer_size}, "
            f"{len(state.senders)} tasks sending, {len(state.receivers)} receiving>"
        )

    @abstractmethod
    def close(self) -> None:
        """Close this end."""

    async def aclose(self) -> None:
        """Close this end; see :meth:`close`.

        Raises:
            Cancelled: The task was cancelled; the end is closed all the same.

        Checkpoint: yes.

        Trio: ``trio.MemorySendChannel.aclose``, ``trio.MemoryReceiveChannel.aclose``.
        """
        self.close()
        await checkpoint()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is GeneratorExit:
            self.close()  # a coroutine that is being closed cannot await
        else:
            await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def statistics(self) -> MemoryChannelStatistics:
        """Return the present state of the channel, for debugging.

        Trio: ``trio.MemorySendChannel.statistics``, ``trio.MemoryReceiveChannel.statistics``.
        """
        return self._state.statistics()


class MemorySendChannel(ChannelEnd, SendChannel[SendType], metaclass=NoPublicConstructor):
    """The sending end of a memory channel; made by :func:`open_memory_channel`.

    Any number of tasks may send at once. The end can be used in a ``with`` or ``async with``
    block, which closes it at the end.

    Trio: ``trio.MemorySendChannel``.
    """

    __slots__ = ()

    def __init__(self, state: ChannelState) -> None:
        super().__init__(state)
        state.open_senders += 1

    def _put(self, value: SendType) -> bool:
        """Pass the value to a receiver or to the buffer; return False if neither is possible."""
        state = self._state
        if self._closed:
            raise ClosedResourceError("this sending end was closed")
        if state.open_receivers == 0:
            raise BrokenResourceError("all receiving ends were closed")
        if state.receivers:
            wake_first(state.receivers, Value(value))
            return True
        used = len(state.buffer)
        if used < state.max_buffer_size:
            state.buffer.append(value)
            if used >= state.peak:
                state.peak = used + 1
            return True
        return False

    def send_nowait(self, value: SendType) -> None:
        """Send an object if a receiver waits or the buffer has room.

        Raises:
            WouldBlock: No receiver waits, and the buffer is full.
            ClosedResourceError: This end was closed.
            BrokenResourceError: All receiving ends were closed.

        Trio: ``trio.MemorySendChannel.send_nowait``.
        """
        if not self._put(value):
            raise WouldBlock("no receiver waits, and the buffer is full")

    async def send(self, value: SendType) -> None:
        """Send an object; wait for a receiver or for room in the buffer.

        Raises:
            ClosedResourceError: This end was closed, before or meanwhile.
            BrokenResourceError: All receiving ends were closed, before or meanwhile.
            Cancelled: The task was cancelled; the object was not sent.

        Checkpoint: yes.

        Trio: ``trio.MemorySendChannel.send``.
        """
        task = current_task()
        # inlined: _core.traps.needs_checkpoint
        if task.scope._effective or task._deferred_cancel:
            await checkpoint_if_cancelled()
        if self._put(value):
            credit = task._yield_credit
            if credit > INITIAL_YIELD_CREDIT:
                task._yield_credit = credit - 1  # rule 5 of wait_queue
            else:
                await maybe_yield(task)
            return
        self._waiting += 1
        try:
            await park(task, self._state.senders, (self, value))
        finally:
            self._waiting -= 1

    if not TYPE_CHECKING:
        put = Elsewhere("use await send(value)")
        put_nowait = Elsewhere("use send_nowait(value)")
        join = Elsewhere("use a nursery, which waits for its tasks, or a channel for the results")
        qsize = Elsewhere("use statistics().current_buffer_used")

    def clone(self) -> MemorySendChannel[SendType]:
        """Make another sending end of the same channel, which is closed separately.

        Receivers get :class:`EndOfChannel` when all sending ends are closed. So if there are
        several producers, give each one a clone, and let it close the clone when it is done.

        Raises:
            ClosedResourceError: This end was closed.

        Trio: ``trio.MemorySendChannel.clone``.
        """
        if self._closed:
            raise ClosedResourceError("this sending end was closed")
        return MemorySendChannel._create(self._state)

    def close(self) -> None:
        """Close this end. Closing again does nothing.

        Tasks waiting in ``send`` on it get :class:`ClosedResourceError`. If it was the last
        sending end, receivers get what is in the buffer and then :class:`EndOfChannel`.

        Trio: ``trio.MemorySendChannel.close``.
        """
        if self._closed:
            return
        state = self._state
        if self._waiting:
            own = [task for task, (end, _value) in state.senders.items() if end is self]
            wake_some(
                state.senders,
                own,
                lambda: Error(ClosedResourceError("this sending end was closed")),
            )
        if state.open_senders == 1:
            wake_all(state.receivers, lambda: Error(EndOfChannel(AT_END)))
        self._closed = True
        state.open_senders -= 1


class MemoryReceiveChannel(ChannelEnd, ReceiveChannel[ReceiveType], metaclass=NoPublicConstructor):
    """The receiving end of a memory channel; made by :func:`open_memory_channel`.

    Any number of tasks may receive at once; each object is received by one of them, in the order
    in which they asked. The end can be used in a ``with`` or ``async with`` block, which closes it
    at the end.

    Trio: ``trio.MemoryReceiveChannel``.
    """

    __slots__ = ()

    def __init__(self, state: ChannelState) -> None:
        super().__init__(state)
        state.open_receivers += 1
        if watchers:
            made(self)

    def _can_take(self) -> bool:
        """Return whether :meth:`_take` may be called now."""
        state = self._state
        if self._closed:
            raise ClosedResourceError("this receiving end was closed")
        if state.buffer or state.senders:
            return True
        if state.open_senders == 0:
            raise EndOfChannel(AT_END)
        return False

    def _take(self) -> ReceiveType:
        """Remove the oldest item, and move the item of a waiting sender into the buffer."""
        state = self._state
        if state.senders:
            state.buffer.append(wake_first(state.senders)[1][1])
        taken: ReceiveType = state.buffer.popleft()
        return taken

    def receive_nowait(self) -> ReceiveType:
        """Receive an object if there is one.

        Raises:
            WouldBlock: The channel does not hold an object now.
            EndOfChannel: The channel is empty, and all sending ends were closed.
            ClosedResourceError: This end was closed.

        Trio: ``trio.MemoryReceiveChannel.receive_nowait``.
        """
        if not self._can_take():
            raise WouldBlock("the channel holds no item")
        return self._take()

    def receive(self) -> Coroutine[Any, Any, ReceiveType]:
        """Receive an object; wait until there is one.

        Raises:
            EndOfChannel: Nothing is left, and all sending ends were closed, before or meanwhile.
            ClosedResourceError: This end was closed, before or meanwhile.
            Cancelled: The task was cancelled; nothing was taken out of the channel.

        Checkpoint: yes.

        Trio: ``trio.MemoryReceiveChannel.receive``.
        """
        return self._receive(EndOfChannel)

    if sys.version_info >= (3, 12):
        receive = inspect.markcoroutinefunction(receive)

    def __anext__(self) -> Coroutine[Any, Any, ReceiveType]:
        return self._receive(StopAsyncIteration)

    async def _receive(self, at_end: type[Exception]) -> ReceiveType:
        """Implement both ways to receive in a single coroutine, which is faster than two."""
        task = current_task()
        # inlined: _core.traps.needs_checkpoint
        if task.scope._effective or task._deferred_cancel:
            await checkpoint_if_cancelled()
        try:
            if self._can_take():
                value = self._take()
                credit = task._yield_credit
                if credit > INITIAL_YIELD_CREDIT:
                    task._yield_credit = credit - 1  # rule 5 of wait_queue
                else:
                    try:
                        await maybe_yield(task)
                    except BaseException:
                        self._state.buffer.appendleft(value)
                        raise
                return value
            self._waiting += 1
            try:
                received: ReceiveType = await park(task, self._state.receivers, self)
            finally:
                self._waiting -= 1
            return received
        except EndOfChannel as end:
            raise at_end(*end.args) from None

    if not TYPE_CHECKING:
        get = Elsewhere("use await receive()")
        get_nowait = Elsewhere("use receive_nowait()")
        task_done = Elsewhere("use a nursery, which waits for its tasks")
        empty = Elsewhere("use statistics().current_buffer_used == 0")
        qsize = Elsewhere("use statistics().current_buffer_used")

    def clone(self) -> MemoryReceiveChannel[ReceiveType]:
        """Make another receiving end of the same channel, which is closed separately.

        Each object is still received by one task only: clones share the objects, and do not get
        copies. Senders get :class:`BrokenResourceError` once all receiving ends are closed.

        Raises:
            ClosedResourceError: This end was closed.

        Trio: ``trio.MemoryReceiveChannel.clone``.
        """
        if self._closed:
            raise ClosedResourceError("this receiving end was closed")
        return MemoryReceiveChannel._create(self._state)

    def close(self) -> None:
        """Close this end. Closing again does nothing.

        Tasks waiting in ``receive`` on it get :class:`ClosedResourceError`. If it was the last
        receiving end, the items in the buffer are dropped and senders get
        :class:`BrokenResourceError`.

        Trio: ``trio.MemoryReceiveChannel.close``.
        """
        if self._closed:
            return
        state = self._state
        if self._waiting:
            own = [task for task, end in state.receivers.items() if end is self]
            wake_some(
                state.receivers,
                own,
                lambda: Error(ClosedResourceError("this receiving end was closed")),
            )
        if state.open_receivers == 1:
            wake_all(
                state.senders,
                lambda: Error(BrokenResourceError("all receiving ends were closed")),
            )
            state.buffer.clear()
        self._closed = True
        state.open_receivers -= 1


if TYPE_CHECKING:
    # Type checkers accept a function that takes its type in brackets only in this form.
    class open_memory_channel(tuple[MemorySendChannel[T], MemoryReceiveChannel[T]], Generic[T]):
        def __new__(  # type: ignore[misc]
            cls, max_buffer_size: int | float
        ) -> tuple[MemorySendChannel[T], MemoryReceiveChannel[T]]: ...

else:

    @generic_function
    def open_memory_channel(max_buffer_size):
        """Make a channel that passes objects from task to task.

        Type checkers take the objects' type in brackets: ``open_memory_channel[int](0)``.

        Args:
            max_buffer_size: How many items the buffer holds before ``send`` waits: an int, or
                ``math.inf`` if ``send`` should never wait. With 0, ``send`` waits for the
                receiver; use 0 unless you know why a larger buffer would be better.

        Returns:
            The sending end and the receiving end. Neither has to be closed, but closing an end is
            how one side lets the other side know that it is done.

        Raises:
            TypeError: ``max_buffer_size`` is neither an int nor ``math.inf``.
            ValueError: ``max_buffer_size`` is negative.

        Checkpoint: no, this is not an async function.

        Trio: ``trio.open_memory_channel``.
        """
        if not isinstance(max_buffer_size, int) and max_buffer_size != inf:
            raise TypeError("max_buffer_size must be an integer or math.inf")
        if max_buffer_size < 0:
            raise ValueError("max_buffer_size must be >= 0")
        state = ChannelState(max_buffer_size)
        return MemorySendChannel._create(state), MemoryReceiveChannel._create(state)
