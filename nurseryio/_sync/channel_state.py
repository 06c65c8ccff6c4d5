"""What the two kinds of ends of a memory channel share: the channel's state, and how an end closes.

Rule: the state is plain data. The ends in ``channel`` keep its rules, which stand there.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

from .._base.util import Frozen
from .._core import checkpoint

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .._core import Task
    from .channel import MemoryReceiveChannel, MemorySendChannel

__all__ = ["ChannelEnd", "ChannelState", "MemoryChannelStatistics"]


class MemoryChannelStatistics(Frozen):
    """The state of a memory channel at one moment.

    Attributes:
        current_buffer_used: How many items are in the buffer.
        max_buffer_size: How many it takes, ``math.inf`` for any number.
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
    """What all ends of one channel share."""

    __slots__ = (
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
        # Who waits to send, on which end, with what; who waits to receive, on which end.
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
        # How many tasks wait in calls on this end, at most; see rule 3 of ``channel``.
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
