"""Abstract base classes of clocks, instruments, streams, channels, listeners and resolvers.

This module has interfaces with their contracts, and the few methods that follow from other methods
(``async with``, ``async for``). It has no implementations.

Rule 1: this module imports only :mod:`errors`.

Rule 2: every class has empty ``__slots__``, so that implementations can use ``__slots__`` too.
"""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import EndOfChannel

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .._core.task import Task

__all__ = [
    "AsyncResource",
    "Channel",
    "Clock",
    "HalfCloseableStream",
    "HostnameResolver",
    "Instrument",
    "Listener",
    "ReceiveChannel",
    "ReceiveStream",
    "SendChannel",
    "SendStream",
    "SocketFactory",
    "Stream",
]

T = TypeVar("T")
ReceiveType = TypeVar("ReceiveType", covariant=True)
SendType = TypeVar("SendType", contravariant=True)


# -- the run --------------------------------------------------------------------


class Clock(ABC):
    """The source of a run's time; given as ``run(..., clock=...)``.

    Trio: ``trio.abc.Clock``.
    """

    __slots__ = ()

    @abstractmethod
    def start_clock(self) -> None:
        """Called once, when the run begins."""

    @abstractmethod
    def current_time(self) -> float:
        """Return the time of this clock, in seconds from a start that the clock chooses."""

    @abstractmethod
    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Return how long to sleep in real time until ``deadline``.

        Args:
            deadline: A time of this clock, in seconds.

        Returns:
            Real seconds; ``math.inf`` for ever. This method is called again after each sleep. So a
            clock that is not moved by the passing of time may return any number that is safe.
        """


class Instrument(ABC):  # noqa: B024 - every hook is optional
    """An observer of a run: its hooks are called when tasks are spawned, make steps and end.

    Every hook does nothing here, so a subclass defines only the hooks that it needs. If a hook
    raises an error, the error is logged and the instrument is removed.

    Trio: ``trio.abc.Instrument``.
    """

    __slots__ = ()

    def before_run(self) -> None:  # noqa: B027
        """The run begins."""

    def after_run(self) -> None:  # noqa: B027
        """The run is over."""

    def task_spawned(self, task: Task) -> None:  # noqa: B027
        """A task has been made; it has not made its first step."""

    def task_scheduled(self, task: Task) -> None:  # noqa: B027
        """A task has become ready; other ready tasks may run first."""

    def before_task_step(self, task: Task) -> None:  # noqa: B027
        """A task is about to run."""

    def after_task_step(self, task: Task) -> None:  # noqa: B027
        """A task has run, up to its next suspension or its end."""

    def task_exited(self, task: Task) -> None:  # noqa: B027
        """A task has ended."""

    def before_io_wait(self, timeout: float) -> None:  # noqa: B027
        """The loop is about to wait for input and output, ``timeout`` seconds at most."""

    def after_io_wait(self, timeout: float) -> None:  # noqa: B027
        """The loop has waited, ``timeout`` seconds at most, possibly less."""


# -- sockets --------------------------------------------------------------------


class HostnameResolver(ABC):
    """Resolves host names instead of the system; see ``socket.set_custom_hostname_resolver``.

    Trio: ``trio.abc.HostnameResolver``.
    """

    __slots__ = ()

    @abstractmethod
    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[
        tuple[
            socket.AddressFamily,
            socket.SocketKind,
            int,
            str,
            tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
        ]
    ]:
        """Do what :func:`socket.getaddrinfo` does.

        Args:
            host: The name in its encoded form: international names arrive as ``b"xn--..."``.
                A numeric address may be resolved without calling this method.
            port, family, type, proto, flags: As for the standard function.

        Returns:
            The addresses, in the form of the standard function.

        Raises:
            socket.gaierror: There is no such name.

        Checkpoint: yes, as a rule.
        """

    @abstractmethod
    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]:
        """Do what :func:`socket.getnameinfo` does.

        Args:
            sockaddr: The address.
            flags: As for the standard function.

        Returns:
            The name of the host, and that of the service.

        Raises:
            socket.gaierror: There is no name for the address.

        Checkpoint: yes, as a rule.
        """


class SocketFactory(ABC):
    """Makes sockets instead of the system; see ``socket.set_custom_socket_factory``.

    Trio: ``trio.abc.SocketFactory``.
    """

    __slots__ = ()

    @abstractmethod
    def socket(
        self,
        family: socket.AddressFamily | int = socket.AF_INET,
        type: socket.SocketKind | int = socket.SOCK_STREAM,
        proto: int = 0,
    ) -> Any:
        """Return a new socket, an instance of a subclass of ``nurseryio.socket.SocketType``.

        Not called when ``nurseryio.socket.socket`` is given a ``fileno``.
        """


# -- resources ------------------------------------------------------------------


class AsyncResource(ABC):
    """An object to be closed when it is no longer needed, where closing may take a while.

    An ``async with`` block closes the resource at its end.

    Trio: ``trio.abc.AsyncResource``.
    """

    __slots__ = ()

    @abstractmethod
    async def aclose(self) -> None:
        """Close the resource: gracefully if that is possible, in any case for good.

        The resource is closed afterwards even if this method raises, also if it raises
        :class:`Cancelled`. An error means that the graceful part was not completed, not that the
        resource is still open. In a cancelled scope the method therefore closes at once, without
        the graceful part. Closing again does nothing. Tasks that are using the resource, or try to
        use it later, get :class:`ClosedResourceError`.

        Checkpoint: yes.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


# -- byte streams ---------------------------------------------------------------


class SendStream(AsyncResource):
    """The sending end of a stream of bytes.

    For objects instead of bytes see :class:`SendChannel`.

    Trio: ``trio.abc.SendStream``.
    """

    __slots__ = ()

    @abstractmethod
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of ``data``, waiting while the stream accepts no more data.

        After an error or a cancellation, an unknown part of the data has been sent.

        Args:
            data: The bytes to send.

        Raises:
            BusyResourceError: Another task is in ``send_all``, in
                ``wait_send_all_might_not_block`` or in ``send_eof`` of this stream.
            BrokenResourceError: The stream cannot be used any more, for example because the
                peer has closed it.
            ClosedResourceError: You closed this stream before, or another task did meanwhile.

        Checkpoint: yes.
        """

    @abstractmethod
    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` may be able to send without waiting.

        For programs that choose the data as late as possible, such as a screen sharer. This method
        may return too early, never too late.

        Raises:
            BusyResourceError: As for ``send_all``; likewise the others.
            BrokenResourceError: The stream cannot be used any more.
            ClosedResourceError: You closed this stream before, or another task did meanwhile.

        Checkpoint: yes.
        """


class ReceiveStream(AsyncResource):
    """The receiving end of a stream of bytes; ``async for`` gives the pieces as they arrive.

    The pieces may differ from those that were sent: data sent at once may arrive in parts.
    For objects instead of bytes see :class:`ReceiveChannel`.

    Trio: ``trio.abc.ReceiveStream``.
    """

    __slots__ = ()

    @abstractmethod
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait until data has arrived, and return it.

        Args:
            max_bytes: The most bytes to return, at least 1; None leaves it to the stream.

        Returns:
            At least one byte, or ``b""`` if the stream has ended.

        Raises:
            BusyResourceError: Another task is receiving from this stream.
            BrokenResourceError: The stream cannot be used any more.
            ClosedResourceError: You closed this stream before, or another task did meanwhile.

        Checkpoint: yes.
        """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes | bytearray:
        data = await self.receive_some()
        if not data:
            raise StopAsyncIteration
        return data


class Stream(SendStream, ReceiveStream):
    """A stream of bytes in both directions.

    Trio: ``trio.abc.Stream``.
    """

    __slots__ = ()


class HalfCloseableStream(Stream):
    """A stream whose sending direction can be ended while the other direction stays open.

    Trio: ``trio.abc.HalfCloseableStream``.
    """

    __slots__ = ()

    @abstractmethod
    async def send_eof(self) -> None:
        """End the sending direction; data can still be received.

        The peer sees the end of the stream after all data that was sent before. A second call does
        nothing.

        Raises:
            BusyResourceError: Another task is sending on this stream.
            BrokenResourceError: The stream cannot be used any more.
            ClosedResourceError: You closed this stream before, or another task did meanwhile.

        Checkpoint: yes.
        """


T_resource = TypeVar("T_resource", bound=AsyncResource, covariant=True)


class Listener(AsyncResource, Generic[T_resource]):
    """Accepts incoming connections.

    Trio: ``trio.abc.Listener``.
    """

    __slots__ = ()

    @abstractmethod
    async def accept(self) -> T_resource:
        """Wait for a connection and return it, usually as a :class:`Stream`.

        Raises:
            BusyResourceError: Another task is in ``accept`` of this listener.
            ClosedResourceError: You closed this listener before, or another task did meanwhile.
            OSError: The system refuses, for example because it is out of file descriptors.

        Checkpoint: yes.
        """


# -- channels -------------------------------------------------------------------


class SendChannel(AsyncResource, Generic[SendType]):
    """The sending end of a channel of Python objects.

    Trio: ``trio.abc.SendChannel``.
    """

    __slots__ = ()

    @abstractmethod
    async def send(self, value: SendType) -> None:
        """Send an object, waiting while the channel has no room for it.

        Raises:
            BrokenResourceError: The channel cannot be used any more, for example because all
                receiving ends are closed.
            ClosedResourceError: You closed this end before, or another task did meanwhile.
            BusyResourceError: Another task is sending, and this channel allows one at a time.

        Checkpoint: yes.
        """


class ReceiveChannel(AsyncResource, Generic[ReceiveType]):
    """The receiving end of a channel of Python objects; ``async for`` receives each object.

    Trio: ``trio.abc.ReceiveChannel``.
    """

    __slots__ = ()

    @abstractmethod
    async def receive(self) -> ReceiveType:
        """Wait for an object and return it.

        Raises:
            EndOfChannel: All senders have closed and every object has been received. An
                ``async for`` loop ends without an error then.
            BrokenResourceError: The channel cannot be used any more.
            ClosedResourceError: You closed this end before, or another task did meanwhile.
            BusyResourceError: Another task is receiving, and this channel allows one at a time.

        Checkpoint: yes.
        """

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReceiveType:
        try:
            return await self.receive()
        except EndOfChannel:
            raise StopAsyncIteration from None


class Channel(SendChannel[T], ReceiveChannel[T]):
    """A channel of Python objects in both directions.

    Trio: ``trio.abc.Channel``.
    """

    __slots__ = ()
