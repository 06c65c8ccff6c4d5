"""Memory channels: objects handed from task to task, with a bounded buffer in between.

What lives here: the two kinds of ends with the rules of the channel between them, and
:func:`open_memory_channel`. What the ends have in common lives in ``channel_state``.

Rule 1: an item is at every moment in exactly one place: with its sender (in ``senders``), in the
buffer, or with its receiver. It changes place within one synchronous step, so no cancellation can
find it in between. A receiver that was handed an item keeps it, whatever cancels it then.

Rule 2: tasks wait for senders, or for receivers, or not at all. Nobody waits to receive while
there is something in the buffer or somebody waiting to send; nobody waits to send while there is
room or somebody waiting to receive. First come, first served on both sides.

Rule 3: an end counts in ``_waiting`` the tasks that are asleep in calls on it, as opposed to its
clones, or have been woken there a moment ago. Closing an end looks for tasks to wake only if
there may be some.
"""

from __future__ import annotations

import inspect
import sys
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._base import BrokenResourceError, ClosedResourceError, EndOfChannel, Error, Value, WouldBlock
from .._base.abcs import ReceiveChannel, SendChannel
from .._base.util import NoPublicConstructor, generic_function
from .._core import checkpoint_if_cancelled, current_task
from .._core.task import MAX_YIELD_CREDIT
from .._core.wait_queue import maybe_yield, park, wake_all, wake_first, wake_some
from .channel_state import ChannelEnd, ChannelState

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = [
    "MemoryReceiveChannel",
    "MemorySendChannel",
    "open_memory_channel",
]

T = TypeVar("T")
SendType = TypeVar("SendType", contravariant=True)
ReceiveType = TypeVar("ReceiveType", covariant=True)


class MemorySendChannel(ChannelEnd, SendChannel[SendType], metaclass=NoPublicConstructor):
    """The sending end of a memory channel; made by :func:`open_memory_channel`.

    Any number of tasks may send at once. Leaving a ``with`` or ``async with`` block over it
    closes it.

    Trio: ``trio.MemorySendChannel``.
    """

    __slots__ = ()

    def __init__(self, state: ChannelState) -> None:
        super().__init__(state)
        state.open_senders += 1

    def _put(self, value: SendType) -> bool:
        """Get rid of the value if that is possible at once."""
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
            WouldBlock: Neither is the case.
            ClosedResourceError: This end was closed.
            BrokenResourceError: All receiving ends were closed.

        Trio: ``trio.MemorySendChannel.send_nowait``.
        """
        if not self._put(value):
            raise WouldBlock

    async def send(self, value: SendType) -> None:
        """Send an object, waiting for a receiver or for room in the buffer.

        Raises:
            ClosedResourceError: This end was closed, before or meanwhile.
            BrokenResourceError: All receiving ends were closed, before or meanwhile.
            Cancelled: The task was cancelled; the object was not sent.

        Checkpoint: yes.

        Trio: ``trio.MemorySendChannel.send``.
        """
        task = current_task()
        if task.scope._effective or task._deferred_cancel:
            await checkpoint_if_cancelled()
        if self._put(value):
            if task._yield_credit == MAX_YIELD_CREDIT:
                task._yield_credit = MAX_YIELD_CREDIT - 1  # the others have just had their turn
            else:
                await maybe_yield(task)
            return
        self._waiting += 1
        try:
            await park(task, self._state.senders, (self, value))
        finally:
            self._waiting -= 1

    def clone(self) -> MemorySendChannel[SendType]:
        """Make another sending end of the same channel, to be closed on its own.

        Receivers learn of the end when all of them are closed: give each of several producers a
        clone to close when it is done.

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
            wake_all(state.receivers, lambda: Error(EndOfChannel()))
        self._closed = True
        state.open_senders -= 1


class MemoryReceiveChannel(ChannelEnd, ReceiveChannel[ReceiveType], metaclass=NoPublicConstructor):
    """The receiving end of a memory channel; made by :func:`open_memory_channel`.

    Any number of tasks may receive at once; each object goes to one of them, in the order in
    which they asked. Leaving a ``with`` or ``async with`` block over it closes it.

    Trio: ``trio.MemoryReceiveChannel``.
    """

    __slots__ = ()

    def __init__(self, state: ChannelState) -> None:
        super().__init__(state)
        state.open_receivers += 1

    def _can_take(self) -> bool:
        """Whether :meth:`_take` may be called."""
        state = self._state
        if self._closed:
            raise ClosedResourceError("this receiving end was closed")
        if state.buffer or state.senders:
            return True
        if state.open_senders == 0:
            raise EndOfChannel
        return False

    def _take(self) -> ReceiveType:
        """Remove the oldest item, and let a waiting sender's follow it into the buffer."""
        state = self._state
        if state.senders:
            state.buffer.append(wake_first(state.senders)[1][1])
        taken: ReceiveType = state.buffer.popleft()
        return taken

    def receive_nowait(self) -> ReceiveType:
        """Receive an object if there is one.

        Raises:
            WouldBlock: There is none now.
            EndOfChannel: There is none, and all sending ends were closed.
            ClosedResourceError: This end was closed.

        Trio: ``trio.MemoryReceiveChannel.receive_nowait``.
        """
        if not self._can_take():
            raise WouldBlock
        return self._take()

    def receive(self) -> Coroutine[Any, Any, ReceiveType]:
        """Receive an object, waiting for one.

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
        """Both ways to receive: one coroutine, not one inside another, for the sake of speed."""
        task = current_task()
        if task.scope._effective or task._deferred_cancel:
            await checkpoint_if_cancelled()
        try:
            if self._can_take():
                value = self._take()
                if task._yield_credit == MAX_YIELD_CREDIT:
                    task._yield_credit = MAX_YIELD_CREDIT - 1  # the others have just had their turn
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
        except EndOfChannel:
            raise at_end from None

    def clone(self) -> MemoryReceiveChannel[ReceiveType]:
        """Make another receiving end of the same channel, to be closed on its own.

        Each object still goes to one receiver only: clones share the work, they do not each get
        everything. Senders get :class:`BrokenResourceError` once all of them are closed.

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
        receiving end, what is in the buffer is dropped and senders get
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
    # The only way to tell type checkers of a function that takes its type in brackets.
    class open_memory_channel(tuple[MemorySendChannel[T], MemoryReceiveChannel[T]], Generic[T]):
        def __new__(  # type: ignore[misc]
            cls, max_buffer_size: int | float
        ) -> tuple[MemorySendChannel[T], MemoryReceiveChannel[T]]: ...

else:

    @generic_function
    def open_memory_channel(max_buffer_size):
        """Make a channel that hands objects from task to task.

        Type checkers take the objects' type in brackets: ``open_memory_channel[int](0)``.

        Args:
            max_buffer_size: How many items may be on the way before ``send`` waits: an int, or
                ``math.inf`` if it should never wait. With 0, ``send`` waits for the receiver;
                take that unless you know why more would be better.

        Returns:
            The sending end and the receiving end. Neither has to be closed, but closing is how
            one side tells the other that it is done.

        Raises:
            TypeError: ``max_buffer_size`` is neither an int nor ``math.inf``.
            ValueError: It is negative.

        Checkpoint: no, this is not an async function.

        Trio: ``trio.open_memory_channel``.
        """
        if not isinstance(max_buffer_size, int) and max_buffer_size != inf:
            raise TypeError(
                f"max_buffer_size must be an integer or math.inf, not {max_buffer_size!r}"
            )
        if max_buffer_size < 0:
            raise ValueError("max_buffer_size must be >= 0")
        state = ChannelState(max_buffer_size)
        return MemorySendChannel._create(state), MemoryReceiveChannel._create(state)
