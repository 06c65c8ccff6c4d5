"""A stream of bytes over a connected socket: :class:`SocketStream`, which sends and receives.

Connections are made in :mod:`tcp_connect`, :mod:`listener` and :mod:`unix`.

Rule 1: bytes are not buffered between the caller and the kernel, in either direction. ``send_all``
returns when the kernel has taken the last byte. Nothing is read before a task calls
``receive_some``. So a cancelled ``receive_some`` loses nothing, and a sender has to wait while its
peer does not read.

Rule 2: each method checks for cancellation before it does anything else. Then it yields, unless
the other tasks have just run, because this task was woken from a wait. That wait replaces the yield
of one method, so of two methods in a row at least one lets the ready tasks run. While no other task
is ready, up to ``MAX_YIELD_CREDIT`` methods in a row skip the yield. That delays only events that
the loop has not seen yet, by less than a millisecond. The count is in ``Task._yield_credit``. So an
echo costs one iteration of the loop instead of two, and a bulk transfer hardly any.

Rule 3: the two methods that matter for speed, ``receive_some`` and ``send_all``, are one frame each
and call the standard library's socket directly. For other classes than :class:`~.sockets.Socket`
(a fake in a test, a ``LinkedSocket``), and if methods of the one socket were replaced before, they
call the methods of :class:`~.sockettype.SocketType`, which is slower.
"""

from __future__ import annotations

import errno
import operator
import socket as stdlib
from typing import TYPE_CHECKING, NoReturn, overload

from .._asyncio.compat import BARE_YIELD, current_task as current_asyncio_task, type_of
from .._base import (
    BrokenResourceError,
    BusyResourceError,
    ClosedResourceError,
    Final,
    HalfCloseableStream,
)
from .._base.exc_fields import explained
from .._base.unsupported import Elsewhere
from .._base.util import bytes_view, safe_repr
from .._core import checkpoint, checkpoint_if_cancelled, current_task
from .._core.task import MAX_YIELD_CREDIT, adopt_current, not_in_a_task, records
from .._core.traps import needs_checkpoint
from .._loop.compiled_io import put_streams_in_place
from .sockets import Socket
from .sockettype import SocketType

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from .._core import Task
    from .._loop.readiness import Readable
    from .._resolver.resolver import AddressFormat

__all__ = ["SocketStream", "bytes_view", "check_max_bytes", "is_closed_error", "raise_for"]

# Most bytes of one call of recv() if the caller does not pass a number. From a somewhat larger size
# on, malloc asks the system for fresh memory each time. If a call returns that many bytes, the next
# call asks for twice as many, up to RECEIVE_MOST.
RECEIVE_SIZE = 65536
RECEIVE_MOST = 4 * RECEIVE_SIZE

# Unsent bytes in the kernel at which a socket stops being writable: as many as a fast network
# carries in the time that it takes to wake a task.
UNSENT_LIMIT = 16384
NOTSENT_LOWAT: int | None = getattr(stdlib, "TCP_NOTSENT_LOWAT", None)

# Error numbers of a socket that was closed on this side: on Unix, on Windows.
_CLOSED = (errno.EBADF, errno.ENOTSOCK)


def is_closed_error(error: OSError) -> bool:
    """Whether the error means that the socket was closed on this side."""
    return error.errno in _CLOSED


def raise_for(error: OSError) -> NoReturn:
    """Raise the error of a stream that stands for this error of a socket."""
    if is_closed_error(error):
        raise ClosedResourceError("this socket was already closed") from None
    raise BrokenResourceError(f"socket connection broken: {error}") from error


def check_max_bytes(max_bytes: object, wanted: str = ">= 1") -> int:
    """Return ``max_bytes`` as an int.

    Raises:
        TypeError: ``max_bytes`` is not an integer.
        ValueError: ``max_bytes`` is less than 1.
    """
    try:
        number = operator.index(max_bytes)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError("max_bytes must be integer >= 1") from None
    if number < 1:
        raise ValueError(f"max_bytes must be {wanted}")
    return number


class SocketStream(HalfCloseableStream, metaclass=Final):
    """A stream of bytes over a connected socket.

    Two options are set on a TCP socket. ``TCP_NODELAY`` makes the system send small messages at
    once. ``TCP_NOTSENT_LOWAT`` (16 KiB, where the system has it) limits the unsent data in the
    kernel, so that data is not old when it is sent. :meth:`setsockopt` can change both.

    Args:
        socket: A connected socket of type ``SOCK_STREAM``, from ``nurseryio.socket``. It is closed
            with the stream. Kept as the attribute ``socket``.

    Raises:
        TypeError: ``socket`` is not a socket of ``nurseryio.socket``.
        ValueError: ``socket`` is of another type than ``SOCK_STREAM``.

    Trio: ``trio.SocketStream``.
    """

    # _size: the most bytes to receive if the caller does not pass a number.
    __slots__ = (
        "__dict__",
        "__weakref__",
        *"_reads _receiving _recv _send _sending _size socket".split(),
    )

    socket: SocketType
    # None: the methods of the socket are called instead (rule 3).
    _recv: Callable[[int], bytes] | None
    _send: Callable[[Buffer], int] | None

    def __init__(self, socket: SocketType) -> None:
        if not isinstance(socket, SocketType):
            raise explained(
                TypeError("SocketStream requires a nurseryio socket object"),
                f"not {safe_repr(socket)}; see nurseryio.socket.from_stdlib_socket()",
            )
        kind = type_of(socket._sock) if type(socket) is Socket else socket.type
        if kind != stdlib.SOCK_STREAM:
            raise ValueError("SocketStream requires a SOCK_STREAM socket")
        self._take(socket)
        if self._recv is not None and vars(socket):
            # A test has replaced methods of this socket.
            self._recv = self._send = None

    if not TYPE_CHECKING:
        read = Elsewhere("use await receive_some()")
        write = Elsewhere("use await send_all(data)")
        drain = Elsewhere("await send_all(data) waits for it")
        close = Elsewhere("use await aclose()")

    @classmethod
    def _of_accepted(cls, socket: SocketType) -> SocketStream:
        """Make a stream over a socket that a checked listener accepted, without checking again."""
        self = cls.__new__(cls)
        self._take(socket)
        return self

    def _take(self, socket: SocketType) -> None:
        self.socket = socket
        # Whether a task is in a method of the direction.
        self._receiving = self._sending = False
        self._reads: Readable | None = None
        self._size = RECEIVE_SIZE
        self._recv = self._send = None
        setsockopt: Callable[[int, int, int], None] = socket.setsockopt
        if type(socket) is Socket:
            native = socket._sock
            self._recv, self._send, setsockopt = native.recv, native.send, native.setsockopt
        try:
            setsockopt(stdlib.IPPROTO_TCP, stdlib.TCP_NODELAY, 1)
            if NOTSENT_LOWAT is not None:
                setsockopt(stdlib.IPPROTO_TCP, NOTSENT_LOWAT, UNSENT_LIMIT)
        except OSError:
            pass  # not a TCP socket

    def __repr__(self) -> str:
        return f"<SocketStream over {self.socket!r}>"

    # -- receiving --------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait until something has arrived, and return it.

        Args:
            max_bytes: The most bytes to return, at least 1. If None, the stream picks a good size.

        Returns:
            At least one byte, or ``b""`` if the peer has ended its sending direction.

        Raises:
            TypeError: ``max_bytes`` is not an integer.
            ValueError: ``max_bytes`` is less than 1.
            BusyResourceError: Another task is receiving on this stream.
            BrokenResourceError: The connection is broken; the cause is the ``OSError``.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled; nothing that has arrived is lost.

        Checkpoint: yes.
        """
        if max_bytes is None:
            max_bytes = self._size
        elif type(max_bytes) is not int or max_bytes < 1:
            max_bytes = check_max_bytes(max_bytes)
        if self._receiving:
            raise BusyResourceError("another task is already reading / writing this fd")
        # inlined: _core.task.current_task
        try:
            task = records[current_asyncio_task()]  # type: ignore[index]
        except KeyError:
            task = adopt_current()
        except RuntimeError as error:
            not_in_a_task(error)
        # inlined: _core.traps.needs_checkpoint
        if task.scope._effective or task._deferred_cancel:
            await self._check_first(task)
        reads = self._reads
        if reads is None or reads.state is not task._state:
            reads = self._find_reads(task)
            if reads is None:
                return await self._receive_the_long_way(max_bytes)
        self._receiving = True
        try:
            credit = task._yield_credit
            if not reads.drained and (credit == MAX_YIELD_CREDIT or (credit and not reads.queue)):
                task._yield_credit = credit - 1
            elif reads.drained or reads.armed:
                await reads
                task._yield_credit = MAX_YIELD_CREDIT
            else:
                await BARE_YIELD
                task._yield_credit = MAX_YIELD_CREDIT
            while True:
                try:
                    data = self._recv(max_bytes)  # type: ignore[misc]
                except BlockingIOError:
                    pass
                else:
                    if len(data) < max_bytes:
                        reads.drained = True
                        if len(data) < RECEIVE_SIZE:
                            self._size = RECEIVE_SIZE
                    else:
                        reads.drained = False
                        if max_bytes == self._size < RECEIVE_MOST:
                            self._size *= 2
                    return data
                await reads
                task._yield_credit = MAX_YIELD_CREDIT
        except OSError as exc:
            raise_for(exc)
        finally:
            self._receiving = False

    async def _check_first(self, task: Task) -> None:
        """Check for cancellation. Either there is one, or a test checks that the method yields."""
        task._yield_credit = 0
        await checkpoint_if_cancelled()

    def _find_reads(self, task: Task) -> Readable | None:
        if self._recv is not None:
            assert type(self.socket) is Socket
            self._reads = self.socket._waits.readable(task._state)
            return self._reads
        return None

    async def _receive_the_long_way(self, max_bytes: int) -> bytes:
        self._receiving = True
        try:
            return await self.socket.recv(max_bytes)
        except OSError as exc:
            raise_for(exc)
        finally:
            self._receiving = False

    # -- sending ----------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``, and wait until the kernel has taken all of it.

        Args:
            data: The bytes to send; empty data is allowed and sends nothing.

        Raises:
            TypeError: ``data`` is not a buffer, or not contiguous.
            BusyResourceError: Another task is sending on this stream.
            BrokenResourceError: The connection is broken; the cause is the ``OSError``.
            ClosedResourceError: The stream is closed, or was closed during the call, or
                :meth:`send_eof` was called before.
            Cancelled: if the task is cancelled. Then an unknown part of the data has been sent, and
                the rest will never be sent.

        Checkpoint: yes.
        """
        if self._sending:
            raise self._busy_sending()
        send = self._send
        if send is None or type(data) is not bytes or not data:
            await self._send_unusual(bytes_view(data))
            return
        if self.socket._did_shutdown:  # type: ignore[attr-defined]
            raise ClosedResourceError("can't send data after sending EOF")
        # inlined: _core.task.current_task
        try:
            task = records[current_asyncio_task()]  # type: ignore[index]
        except KeyError:
            task = adopt_current()
        except RuntimeError as error:
            not_in_a_task(error)
        # inlined: _core.traps.needs_checkpoint
        if task.scope._effective or task._deferred_cancel:
            await self._check_first(task)
        reads = self._reads
        if reads is None or reads.state is not task._state:
            reads = self._find_reads(task)
            assert reads is not None
        self._sending = True
        try:
            credit = task._yield_credit
            if credit == MAX_YIELD_CREDIT or (credit and not reads.queue):
                task._yield_credit = credit - 1
            else:
                await BARE_YIELD
                task._yield_credit = MAX_YIELD_CREDIT
            try:
                sent = send(data)
            except BlockingIOError:
                sent = 0
            if sent < len(data):
                await self._send_rest(task, memoryview(data), sent)
        except OSError as exc:
            raise_for(exc)
        finally:
            self._sending = False

    async def _send_rest(self, task: Task, view: memoryview, sent: int) -> None:
        """Send the rest of the data, in pieces for which the kernel has room."""
        assert type(self.socket) is Socket
        send = self._send
        assert send is not None
        writes = self.socket._waits.writable(task._state)
        try:
            with view:
                while sent < len(view):
                    await writes
                    try:
                        with view[sent:] as rest:
                            sent += send(rest)
                    except BlockingIOError:
                        pass
        finally:
            writes.release()
        task._yield_credit = MAX_YIELD_CREDIT

    async def _send_unusual(self, view: memoryview) -> None:
        """``send_all`` for other buffers than ``bytes``, for empty data, and for fakes."""
        with view:
            if self.socket.did_shutdown_SHUT_WR:
                raise ClosedResourceError("can't send data after sending EOF")
            self._sending = True
            try:
                if not view:
                    self._check_open()
                    await checkpoint()
                elif self._send is None:
                    sent = 0
                    while sent < len(view):
                        with view[sent:] as rest:
                            sent += await self.socket.send(rest)
                else:
                    await checkpoint()
                    await self._send_rest(current_task(), view, self._send_now(view))
            except OSError as exc:
                raise_for(exc)
            finally:
                self._sending = False

    def _send_now(self, view: memoryview) -> int:
        assert self._send is not None
        try:
            return self._send(view)
        except BlockingIOError:
            return 0

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room for more data.

        Raises:
            BusyResourceError: Another task is sending on this stream.
            BrokenResourceError: The connection is broken; the cause is the ``OSError``.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled.

        Checkpoint: yes.
        """
        if self._sending:
            raise self._busy_sending()
        self._sending = True
        try:
            await checkpoint_if_cancelled()
            self._check_open()
            await self.socket.wait_writable()
        except OSError as exc:
            raise_for(exc)
        finally:
            self._sending = False

    async def send_eof(self) -> None:
        """End the sending direction. Receiving is still possible. A second call does nothing.

        Raises:
            BusyResourceError: Another task is sending on this stream.
            BrokenResourceError: The connection is broken; the cause is the ``OSError``.
            ClosedResourceError: The stream is closed.
            Cancelled: if the task is cancelled; then nothing has happened.

        Checkpoint: yes.
        """
        if self._sending:
            raise self._busy_sending()
        self._sending = True
        try:
            await checkpoint()
            # Some systems refuse a second shutdown.
            if not self.socket.did_shutdown_SHUT_WR:
                self.socket.shutdown(stdlib.SHUT_WR)
        except OSError as exc:
            raise_for(exc)
        finally:
            self._sending = False

    def _busy_sending(self) -> BusyResourceError:
        return BusyResourceError("another task is currently sending data on this SocketStream")

    def _check_open(self) -> None:
        if self.socket.fileno() == -1:
            raise ClosedResourceError("this socket was already closed")

    # -- closing, options -------------------------------------------------------

    async def aclose(self) -> None:
        """Close the connection: when this returns or raises, the file descriptor is closed.

        Data that the kernel has taken before is still sent. Tasks that are using the stream get
        :class:`ClosedResourceError`. A second call is only a checkpoint.

        Raises:
            Cancelled: if the task is cancelled; the stream is closed nevertheless.

        Checkpoint: yes.
        """
        self.socket.close()
        task = current_task()
        if needs_checkpoint(task):
            await self._check_first(task)
        credit = task._yield_credit
        if credit == MAX_YIELD_CREDIT or (credit and not task._state.ready):
            task._yield_credit = credit - 1
        else:
            await BARE_YIELD
            task._yield_credit = MAX_YIELD_CREDIT

    @property
    def local_address(self) -> AddressFormat:
        """The address of this end. It is kept when it is first read, also after the stream's end.

        Raises:
            BrokenResourceError: The system cannot say it; the cause is the ``OSError``.
            ClosedResourceError: The stream is closed, and the address was not read before.
        """
        return self._address("_local_address", self.socket.getsockname)

    @property
    def remote_address(self) -> AddressFormat:
        """The address of the peer, like :attr:`local_address`. A peer that is gone has none."""
        return self._address("_remote_address", self.socket.getpeername)

    def _address(self, kept: str, ask: Callable[[], AddressFormat]) -> AddressFormat:
        if kept not in self.__dict__:
            try:
                self.__dict__[kept] = ask()
            except OSError as exc:
                raise_for(exc)
        return self.__dict__[kept]

    @overload
    def setsockopt(self, level: int, option: int, value: int | Buffer) -> None: ...

    @overload
    def setsockopt(self, level: int, option: int, value: None, length: int) -> None: ...

    def setsockopt(
        self, level: int, option: int, value: int | Buffer | None, length: int | None = None
    ) -> None:
        """Set an option of the socket; see :meth:`socket.socket.setsockopt`.

        Args:
            level: For example ``nurseryio.socket.IPPROTO_TCP``.
            option: For example ``nurseryio.socket.TCP_NODELAY``.
            value: A number or the bytes of a C structure; None together with ``length``.
            length: If given, a null pointer of that many bytes is passed.

        Raises:
            TypeError: Both ``value`` and ``length`` are given, or neither is.
            OSError: The system refuses.

        Checkpoint: no, this is not an async function.
        """
        if length is None:
            if value is None:
                raise TypeError(
                    "invalid value for argument 'value', must not be None when specifying length"
                )
            self.socket.setsockopt(level, option, value)
        elif value is not None:
            raise TypeError(
                f"invalid value for argument 'value': {value!r}, must be None when specifying "
                "optlen"
            )
        else:
            self.socket.setsockopt(level, option, value, length)

    @overload
    def getsockopt(self, level: int, option: int) -> int: ...

    @overload
    def getsockopt(self, level: int, option: int, buffersize: int) -> bytes: ...

    def getsockopt(self, level: int, option: int, buffersize: int = 0) -> int | bytes:
        """Return an option of the socket; see :meth:`socket.socket.getsockopt`.

        Args:
            level: For example ``nurseryio.socket.IPPROTO_TCP``.
            option: For example ``nurseryio.socket.TCP_NODELAY``.
            buffersize: If not 0, bytes are returned, up to this many.

        Raises:
            OSError: The system refuses.

        Checkpoint: no, this is not an async function.
        """
        if buffersize == 0:
            return self.socket.getsockopt(level, option)
        return self.socket.getsockopt(level, option, buffersize)


put_streams_in_place(SocketStream, Socket, globals())
