"""The system's sockets as objects with async methods: accept, connect, receive, send.

This module has :class:`Socket`, the class of every :class:`~.sockettype.SocketType` except fakes.
The functions that make sockets are in :mod:`socket_makers`, streams in :mod:`stream`.

The methods of the loop (``sock_recv`` and so on) are not used. Half of the calls are missing there,
and loops differ. They also do not raise an error in a task whose socket is closed meanwhile.

Rule 1: every async method calls the standard library's method on a non-blocking socket. If the call
would have blocked, the method waits and then calls again. So two tasks may use one socket as long
as they do not wait for the same direction.

Rule 2: the checkpoint comes before the call, and the call is the last step of a method. So if a
method is cancelled, nothing was received or sent. That holds for every kind of cancellation, also
for ``asyncio.Task.cancel`` when the task would end with this method.

Rule 3: a socket is ``owned`` if this library opened it, so that it is closed only through its
object. Only an owned socket keeps its registration with the loop between two waits (see
``_loop.readiness``).

Rule 4: tasks of several loops, in several threads, may use one socket.
"""

from __future__ import annotations

import errno
import os
import select
import socket as stdlib
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._asyncio.compat import accept_plainly, family_of
from .._base import Cancelled, ClosedResourceError
from .._core import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled, current_task
from .._core.task import MAX_YIELD_CREDIT
from .._core.traps import needs_checkpoint
from .._loop.readiness import Registrations, close_later
from .._loop.wait_io import notify_closing
from .._resolver.resolver import resolve_address
from .._run.introspection import in_trio_run
from .sockettype import DEFAULT_BACKLOG, SocketType

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from socket import AddressFamily, SocketKind
    from types import TracebackType

    from typing_extensions import Buffer, ParamSpec, Self

    from .._loop.readiness import Readiness
    from .._resolver.resolver import AddressFormat

    P = ParamSpec("P")

__all__ = ["NEXT_MAY_BE_FINE", "Socket"]

T = TypeVar("T")

# Errors of accept() after which the next call may succeed. Either a connection has not arrived yet,
# or the error is that of an incoming connection. The connection was refused by a firewall (EPERM)
# or reset before it was accepted; on Linux nearly any network error is possible. Every other error
# is one of the listener or of the machine, and is raised.
NEXT_MAY_BE_FINE = {
    getattr(errno, name)
    for name in (
        "EAGAIN EWOULDBLOCK EPERM ECONNABORTED ECONNRESET EPROTO ENETDOWN ENETUNREACH ENOPROTOOPT "
        "EHOSTDOWN EHOSTUNREACH ENONET EOPNOTSUPP ENOSR ESOCKTNOSUPPORT EPROTONOSUPPORT ETIMEDOUT"
    ).split()
    if hasattr(errno, name)
}

# Error numbers of connect() when the attempt has begun: on Unix, on Windows.
# On Unix EAGAIN means that it has not begun: the listener's queue is full (a Unix socket), or the
# system does not have a port or route left for the connection.
_UNDER_WAY = {errno.EINPROGRESS}
if sys.platform == "win32":
    _UNDER_WAY.add(errno.EWOULDBLOCK)

# Families of which Linux answers a second call of connect() by the state of the attempt: 0 if it
# has succeeded, its error if it has failed, else EALREADY.
_TELLS_STATE = {stdlib.AF_INET, stdlib.AF_INET6} if sys.platform == "linux" else set()


class Socket(SocketType):
    """A socket of the system. The methods are described at :class:`~.sockettype.SocketType`.

    Args:
        sock: The socket of the standard library. It is put into non-blocking mode, and other code
            must not use it from now on.
        owned: See rule 3.

    Raises:
        TypeError: ``sock`` is of another class, such as ``ssl.SSLSocket``.
    """

    # With a __dict__, so that a test can replace the methods of one socket.
    __slots__ = ("__dict__", "__weakref__", "_did_shutdown", "_kind", "_sock", "_waits")

    # The waits for this socket. Refers to the standard library's socket, not to this object.
    _waits: Registrations

    def __init__(self, sock: stdlib.socket, owned: bool = False) -> None:
        # Exactly this class: in a subclass, such as that for TLS, recv() does something else.
        if type(sock) is not stdlib.socket:
            raise TypeError(f"expected object of type 'socket.socket', not {type(sock).__name__!r}")
        self._sock = sock
        self._waits = Registrations(sock, owned)
        self._did_shutdown = False
        # Family, type and protocol of the sockets that a listener accepts, as plain numbers.
        self._kind: tuple[int, int, int] | None = None
        # Of a socket that other code has used, the system may think otherwise.
        if not owned or sock.gettimeout() != 0:
            try:
                sock.setblocking(False)
            except BaseException:
                if owned:
                    sock.close()
                raise

    def __repr__(self) -> str:
        return repr(self._sock).replace("socket.socket", "nurseryio.socket.socket", 1)

    def __del__(self) -> None:
        waits = getattr(self, "_waits", None)  # __init__ may have failed
        registered = None if waits is None else waits.registered()
        if registered:
            # The loop must not watch the number of a closed descriptor. If nothing is registered,
            # the standard library's socket closes itself, and warns as well.
            try:
                text = f"unclosed {self!r}"
                warnings.warn(text, ResourceWarning, stacklevel=2, source=self)
            finally:
                close_later(registered, self._sock.detach())

    # -- methods that do not block ----------------------------------------------

    def detach(self) -> int:
        for waits in self._end_waits():
            waits.close_soon()
        return self._sock.detach()

    def fileno(self) -> int:
        return self._sock.fileno()

    def getpeername(self) -> AddressFormat:
        return self._sock.getpeername()

    def getsockname(self) -> AddressFormat:
        return self._sock.getsockname()

    @overload
    def getsockopt(self, level: int, optname: int) -> int: ...

    @overload
    def getsockopt(self, level: int, optname: int, buflen: int) -> bytes: ...

    def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int | bytes:
        if buflen is None:
            return self._sock.getsockopt(level, optname)
        return self._sock.getsockopt(level, optname, buflen)

    @overload
    def setsockopt(self, level: int, optname: int, value: int | Buffer) -> None: ...

    @overload
    def setsockopt(self, level: int, optname: int, value: None, optlen: int) -> None: ...

    def setsockopt(
        self, level: int, optname: int, value: int | Buffer | None, optlen: int | None = None
    ) -> None:
        if optlen is None:
            if value is None:
                raise TypeError(
                    "invalid value for argument 'value', must not be None when specifying optlen"
                )
            self._sock.setsockopt(level, optname, value)
        elif value is not None:
            raise TypeError(
                f"invalid value for argument 'value': {value!r}, must be None when specifying "
                "optlen"
            )
        else:
            self._sock.setsockopt(level, optname, value, optlen)

    def listen(self, backlog: int = DEFAULT_BACKLOG) -> None:
        self._sock.listen(backlog)

    def get_inheritable(self) -> bool:
        return self._sock.get_inheritable()

    def set_inheritable(self, inheritable: bool) -> None:
        self._sock.set_inheritable(inheritable)

    if sys.platform == "win32":

        def share(self, process_id: int) -> bytes:
            return self._sock.share(process_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def family(self) -> AddressFamily:
        return self._sock.family

    @property
    def type(self) -> SocketKind:
        return self._sock.type

    @property
    def proto(self) -> int:
        return self._sock.proto

    @property
    def did_shutdown_SHUT_WR(self) -> bool:
        return self._did_shutdown

    def dup(self) -> Socket:
        return Socket(self._sock.dup(), owned=True)

    def close(self) -> None:
        if self._sock.fileno() == -1:
            return
        elsewhere = self._end_waits()
        if elsewhere:
            close_later(elsewhere, self._sock.detach())
        else:
            self._sock.close()

    def _end_waits(self) -> list[Readiness]:
        """End all waits, also for the bare descriptor; see :meth:`Registrations.close`."""
        fd = self._sock.fileno()
        elsewhere = self._waits.close()
        if fd != -1 and self._waits.others_wait(fd) and in_trio_run():
            notify_closing(fd)
        return elsewhere

    @contextmanager
    def _handed_on(self) -> Iterator[None]:
        """Give the connection to another program: make it blocking, then close it on this side.

        If the body of the ``with`` block raises, the socket stays open and becomes non-blocking
        again. No task may use the socket during the block: it would block the loop.

        Raises:
            ClosedResourceError: The socket is closed.
        """
        if self._sock.fileno() == -1:
            raise ClosedResourceError("this socket was already closed")
        self._sock.setblocking(True)
        try:
            yield
        except BaseException:
            if self._sock.fileno() != -1:
                self._sock.setblocking(False)
            raise
        self.close()

    def shutdown(self, flag: int) -> None:
        self._sock.shutdown(flag)
        if flag in (stdlib.SHUT_WR, stdlib.SHUT_RDWR):
            self._did_shutdown = True

    def is_readable(self) -> bool:
        if sys.platform == "win32":
            return bool(select.select([self._sock], [], [], 0)[0])
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    # -- waiting ----------------------------------------------------------------

    async def _reading(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn``, again each time the socket becomes readable, until it does not block."""
        await checkpoint()
        try:
            return fn(*args, **kwargs)
        except BlockingIOError:
            pass
        readable = self._waits.readable(current_task()._state)
        while True:
            await readable
            try:
                return fn(*args, **kwargs)
            except BlockingIOError:
                pass

    async def _writing(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``fn``, again each time the socket becomes writable, until it does not block."""
        await checkpoint()
        try:
            return fn(*args, **kwargs)
        except BlockingIOError:
            pass
        writable = self._waits.writable(current_task()._state)
        while True:
            await writable.once()
            try:
                return fn(*args, **kwargs)
            except BlockingIOError:
                pass

    async def wait_writable(self) -> None:
        await checkpoint_if_cancelled()
        if self._sock.fileno() == -1:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        await self._waits.writable(current_task()._state).once()

    # -- connections ------------------------------------------------------------

    async def bind(self, address: AddressFormat) -> None:
        address = await resolve_address(self._sock, address, local=True)
        await checkpoint()
        self._sock.bind(address)

    async def accept(self) -> tuple[SocketType, AddressFormat]:
        sock, address = await self._reading(self._sock.accept)
        return Socket(sock, owned=True), address

    async def _accept_after_wait(self) -> Socket:
        """``accept`` for a listener: if registered with the loop, it waits before the first try.

        A connection that fails before it is accepted is skipped.
        """
        sock = self._sock
        kind = self._kind
        if kind is None:
            kind = self._kind = (int(sock.family), int(sock.type), sock.proto)
        task = current_task()
        readable = self._waits.readable(task._state)
        if readable.armed:
            if needs_checkpoint(task):
                await checkpoint_if_cancelled()
            await readable
        else:
            await checkpoint()
        while True:
            try:
                accepted = accept_plainly(sock, kind)
            except OSError as exc:
                if exc.errno not in NEXT_MAY_BE_FINE:
                    raise
            else:
                return Socket(accepted, owned=True)
            await readable

    async def connect(self, address: AddressFormat) -> None:
        try:
            address = await resolve_address(self._sock, address, local=False)
            task = current_task()
            if needs_checkpoint(task):
                await checkpoint_if_cancelled()
            try:
                error = self._begin_to_connect(address)
            except BaseException:
                await cancel_shielded_checkpoint()
                raise
            if error is not None:
                await cancel_shielded_checkpoint()
            else:
                await self._until_connected()
                error = self._sock.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_ERROR)
            task._yield_credit = MAX_YIELD_CREDIT
        except Cancelled:
            # The attempt may have begun, and cannot be undone.
            self.close()
            raise
        if error:
            raise OSError(error, f"Error connecting to {address!r}: {os.strerror(error)}")

    def _begin_to_connect(self, address: AddressFormat) -> int | None:
        """Begin a connection attempt.

        Returns:
            0 if it has succeeded, its error number if it has failed, None if it is under way.

        Raises:
            OSError: It could not begin.
        """
        error = self._sock.connect_ex(address)
        if error and error not in _UNDER_WAY:
            raise OSError(error, os.strerror(error))
        if error and family_of(self._sock) in _TELLS_STATE:
            # A peer on this machine has answered already. So one call more saves five: waiting
            # takes four of the epoll object, and asking for the error.
            error = self._sock.connect_ex(address)
            if error == errno.EISCONN:
                return 0
            if error == errno.EALREADY:
                return None
        return None if error in _UNDER_WAY else error

    async def _until_connected(self) -> None:
        """Wait until a connection attempt has succeeded or failed."""
        await self._waits.writable(current_task()._state).once()

    # -- receiving --------------------------------------------------------------

    async def recv(self, buflen: int, flags: int = 0, /) -> bytes:
        return await self._reading(self._sock.recv, buflen, flags)

    async def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        return await self._reading(self._sock.recv_into, buffer, nbytes, flags)

    async def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, AddressFormat]:
        return await self._reading(self._sock.recvfrom, bufsize, flags)

    async def recvfrom_into(
        self, buffer: Buffer, nbytes: int = 0, flags: int = 0
    ) -> tuple[int, AddressFormat]:
        return await self._reading(self._sock.recvfrom_into, buffer, nbytes, flags)

    if sys.platform != "win32":

        async def recvmsg(
            self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
        ) -> tuple[bytes, list[tuple[int, int, bytes]], int, AddressFormat]:
            return await self._reading(self._sock.recvmsg, bufsize, ancbufsize, flags)

        async def recvmsg_into(
            self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
        ) -> tuple[int, list[tuple[int, int, bytes]], int, AddressFormat]:
            # A list, here and in sendmsg(): a second try needs the elements again, which an
            # iterator does not have any more.
            kept = list(buffers)
            return await self._reading(self._sock.recvmsg_into, kept, ancbufsize, flags)

    # -- sending ----------------------------------------------------------------

    async def send(self, bytes: Buffer, flags: int = 0, /) -> int:
        return await self._writing(self._sock.send, bytes, flags)

    @overload
    async def sendto(self, data: Buffer, address: AddressFormat, /) -> int: ...

    @overload
    async def sendto(self, data: Buffer, flags: int, address: AddressFormat, /) -> int: ...

    async def sendto(self, *args: Any) -> int:
        *others, address = args
        address = await resolve_address(self._sock, address, local=False)
        sendto: Callable[..., int] = self._sock.sendto
        return await self._writing(sendto, *others, address)

    if sys.platform != "win32":

        async def sendmsg(
            self,
            buffers: Iterable[Buffer],
            ancdata: Iterable[tuple[int, int, Buffer]] = (),
            flags: int = 0,
            address: AddressFormat | None = None,
            /,
        ) -> int:
            data, extra = list(buffers), list(ancdata)
            if address is not None:
                address = await resolve_address(self._sock, address, local=False)
            return await self._writing(self._sock.sendmsg, data, extra, flags, address)
