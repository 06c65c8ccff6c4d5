"""The standard input, output and error of the program: ``open_stdin()`` and its relatives.

A descriptor is waited for in non-blocking mode only. But this mode is a property of the *open
file*, which the program shares with the shell and with other programs on the same terminal. A
program that sets it and crashes leaves a shell behind that cannot read. So this module never
changes the mode of a shared open file. It has three ways, and takes the first that is possible:

1. *Private.* A terminal, or a pipe on Linux, is opened again. The new open file belongs to this
   stream alone, may be non-blocking, and ends with the process, however that ends
   (:class:`~.._net.fd_stream.FdStream`).
2. *Shared.* The descriptor stays in blocking mode. A task waits until it is ready, then reads what
   is there, or writes as much as a ready pipe takes without blocking (:class:`_Shared`).
3. *Threads.* Files on disk cannot be waited for, and some loops cannot wait for descriptors. A
   ready terminal may have room for less than one call writes. A worker thread reads or writes
   (:class:`_Threaded`).

Rule 1: bytes are not buffered here, and nothing is read before a task calls ``receive_some``. Only
a thread whose reading was cancelled may have read; the next call returns its bytes. A file on disk
is read at its position, which a call moves when it returns the bytes. So a cancelled call leaves
them to all programs that share the open file.

Rule 2: each way has a descriptor of its own, not 0, 1 or 2. So closing a stream does not close the
standard descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket as stdlib
import stat
import sys
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

from .._asyncio.compat import running_loop
from .._base import (
    ClosedResourceError,
    ConflictDetector,
    NoPublicConstructor,
    ReceiveStream,
    SendStream,
)
from .._base.thread_cache import start_thread_soon
from .._base.unsupported import needs
from .._base.util import bytes_view
from .._core import checkpoint, checkpoint_if_cancelled, current_task
from .._loop.wait_io import notify_closing, wait_readable, wait_writable
from .._loop.watching import can_watch
from .._net.fd_stream import FdStream, raise_for
from .._net.stream import RECEIVE_SIZE, check_max_bytes
from .._run.introspection import in_trio_run
from .._sync import Event
from .._system.threads import to_thread_run_sync

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from .._base.outcome import Outcome

    Way: TypeAlias = "FdStream | _Shared | _Threaded"

__all__ = ["StandardReceiveStream", "StandardSendStream", "open_stderr", "open_stdin"]
__all__ += ["open_stdout"]

T = TypeVar("T")

# A pipe that is ready for writing takes so many bytes without blocking. POSIX promises 512.
PIPE_BUF: int = getattr(select, "PIPE_BUF", 512)

# The flag with which one call on a socket does not block.
DONTWAIT: int | None = getattr(stdlib, "MSG_DONTWAIT", None)

# The device /dev/ptmx, which makes a new pair of terminals each time it is opened.
PTMX = (5, 2)

# The most bytes that a thread writes at once: a cancellation waits for a file on disk.
WRITE_PIECE = 2**20


# -- what users open ------------------------------------------------------------


class _Standard:
    """The attributes that input and output have in common."""

    _name: str
    _way: Way
    _is_tty: bool

    def _take(self, name: str, fd: int, flags: int) -> None:
        _check_access(name, fd, flags)
        self._name = name
        self._is_tty = os.isatty(fd)
        self._way = _choose(fd, flags)

    def __repr__(self) -> str:
        return f"<the program's {self._name}: {self._way!r}>"

    def isatty(self) -> bool:
        """Whether this is a terminal."""
        return self._is_tty

    def fileno(self) -> int:
        """The descriptor of this stream, not 0, 1 or 2; -1 once the stream is closed."""
        return self._way.fileno()

    async def aclose(self) -> None:
        """Close this stream. The standard descriptor stays open.

        Tasks that use the stream get :class:`ClosedResourceError`. A thread that is still reading
        is left alone.

        Raises:
            Cancelled: if the task is cancelled; the stream is closed nevertheless.

        Checkpoint: yes.
        """
        self._way.close()
        await checkpoint()


class StandardReceiveStream(_Standard, ReceiveStream, metaclass=NoPublicConstructor):
    """The standard input of the program; :func:`nurseryio.open_stdin` makes it.

    Trio: none.
    """

    def __init__(self, name: str, fd: int) -> None:
        self._take(name, fd, os.O_RDONLY)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait until something can be read, and return it.

        A terminal returns a line when the user has ended it.

        Args:
            max_bytes: The most bytes to return, at least 1. If None, the stream picks a good size.

        Returns:
            At least one byte, or ``b""`` at the end. After the end of a terminal's input (Ctrl-D)
            the user can type more.

        Raises:
            TypeError: ``max_bytes`` is not an integer.
            ValueError: ``max_bytes`` is less than 1.
            BusyResourceError: Another task is receiving on this stream.
            BrokenResourceError: Reading failed; the cause is the ``OSError``.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled; nothing that was typed or sent is lost.

        Checkpoint: yes.
        """
        return await self._way.receive_some(max_bytes)


class StandardSendStream(_Standard, SendStream, metaclass=NoPublicConstructor):
    """The standard output or error of the program.

    :func:`nurseryio.open_stdout` and :func:`nurseryio.open_stderr` make it.

    Trio: none.
    """

    def __init__(self, name: str, fd: int) -> None:
        self._take(name, fd, os.O_WRONLY)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write ``data``, and wait until the system has taken all of it.

        Args:
            data: The bytes to write; empty data is allowed and writes nothing.

        Raises:
            TypeError: ``data`` is not a buffer, or not contiguous.
            BusyResourceError: Another task is sending on this stream.
            BrokenResourceError: The reader is gone, or writing failed; the cause is the
                ``OSError``.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled. Then an unknown part of the data has been written.

        Checkpoint: yes.
        """
        await self._way.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the system has room for more data.

        Raises:
            BusyResourceError: Another task is sending on this stream.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled.

        Checkpoint: yes.
        """
        await self._way.wait_send_all_might_not_block()


@needs("files")
def open_stdin() -> StandardReceiveStream:
    """Open the standard input of the program as a stream.

    Reading can be cancelled, and the terminal or pipe is as before for the shell and for other
    programs, also if this program is killed. Do not read from ``sys.stdin`` too, which may have
    read ahead.

    Returns:
        The stream. Closing it does not close descriptor 0.

    Raises:
        OSError: The program has no standard input, or it is open for writing only, as under
            ``nohup``.
        RuntimeError: No loop is running in this thread.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    _check_there(sys.__stdin__)
    return StandardReceiveStream._create("standard input", 0)


@needs("files")
def open_stdout() -> StandardSendStream:
    """Open the standard output of the program as a stream.

    The text that ``print()`` has buffered is written first. Later prints are not in step with this
    stream: flush them, or use one of the two alone.

    Returns:
        The stream. Closing it does not close descriptor 1.

    Raises:
        OSError: The program has no standard output, or it is open for reading only.
        RuntimeError: No loop is running in this thread.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    _check_there(sys.__stdout__)
    _flush(sys.stdout)
    return StandardSendStream._create("standard output", 1)


@needs("files")
def open_stderr() -> StandardSendStream:
    """Open the standard error of the program as a stream; see :func:`nurseryio.open_stdout`.

    Returns:
        The stream. Closing it does not close descriptor 2.

    Raises:
        OSError: The program has no standard error, or it is open for reading only.
        RuntimeError: No loop is running in this thread.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    _check_there(sys.__stderr__)
    _flush(sys.stderr)
    return StandardSendStream._create("standard error", 2)


def _check_there(file: object) -> None:
    """Raise the system's error if the program was started without this descriptor.

    Its number belongs to some other file then, for example to one of the loop's.
    """
    if file is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _check_access(name: str, fd: int, flags: int) -> None:
    """Raise the system's error if the descriptor is not open in this direction.

    Opening a terminal or pipe again would succeed, and read or write what others should.
    """
    if sys.platform != "win32":
        import fcntl  # here, because not each Python for web pages has it

        mode = fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
        if mode not in (flags, os.O_RDWR):
            direction = "reading" if flags == os.O_RDONLY else "writing"
            raise OSError(errno.EBADF, f"{name} is not open for {direction}")


def _flush(file: object) -> None:
    # It may be None, closed, or an object of another program.
    with contextlib.suppress(Exception):
        file.flush()  # type: ignore[attr-defined]


# -- the ways -------------------------------------------------------------------


def _choose(fd: int, flags: int) -> Way:
    watchable = can_watch(current_task()._state) and sys.platform != "win32"
    if watchable:
        private = _open_again(fd, flags)
        if private is not None:
            try:
                return FdStream(private)
            except BaseException:
                os.close(private)
                raise
        if _can_be_ready(fd, flags):
            return _Shared(fd)
    return _Threaded(fd)


def _can_be_ready(fd: int, flags: int) -> bool:
    """Whether the descriptor can be waited for, so that the next call does not block.

    Not for files on disk and the like. A terminal is ready for writing when it has room for one
    byte, and takes all bytes of a call before the call returns.
    """
    mode = os.fstat(fd).st_mode
    if stat.S_ISCHR(mode):
        return flags == os.O_RDONLY and os.isatty(fd)
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _open_again(fd: int, flags: int) -> int | None:
    """Open the terminal or pipe of a descriptor again, in non-blocking mode.

    Returns:
        The new descriptor; None if that is not possible.
    """
    status = os.fstat(fd)
    is_tty = os.isatty(fd)
    if not is_tty and not stat.S_ISFIFO(status.st_mode):
        return None
    names = []
    if sys.platform == "linux":
        names.append(f"/proc/self/fd/{fd}")
        if is_tty and (os.major(status.st_rdev), os.minor(status.st_rdev)) == PTMX:
            return None
    if is_tty:
        with contextlib.suppress(OSError):
            names.append(os.ttyname(fd))
    for name in names:
        try:
            found = os.open(name, flags | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # it belongs to another user, or the reader of the pipe is gone
        if os.path.samestat(os.fstat(found), status):
            return found
        os.close(found)
    return None


class _Duplicate:
    """A duplicate of a descriptor; it is closed with the stream, or with the object."""

    __slots__ = ("__weakref__", "_fd", "_receiving", "_sending")

    def __init__(self, fd: int) -> None:
        self._fd = -1
        self._receiving = ConflictDetector("another task is using this stream for receive")
        self._sending = ConflictDetector("another task is using this stream for send")
        self._fd = os.dup(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) != -1:
            os.close(self._fd)

    def fileno(self) -> int:
        return self._fd

    def check_open(self) -> None:
        if self._fd == -1:
            raise ClosedResourceError("file was already closed")

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd != -1:
            try:
                if in_trio_run():
                    notify_closing(fd)
            finally:
                os.close(fd)


class _Shared(_Duplicate):
    """A descriptor in blocking mode, which is read or written when it is ready."""

    __slots__ = ("_socket",)

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        # Calls on a socket can be told not to block, each for itself.
        self._socket: stdlib.socket | None = None
        if DONTWAIT is not None and stat.S_ISSOCK(os.fstat(fd).st_mode):
            self._socket = _socket_of(fd)

    def __repr__(self) -> str:
        return f"descriptor {self._fd}, shared"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._receiving:
            most = RECEIVE_SIZE if max_bytes is None else check_max_bytes(max_bytes)
            self.check_open()
            while True:
                await wait_readable(self)
                try:
                    if self._socket is not None:
                        return self._socket.recv(most, DONTWAIT or 0)
                    # Another program may have read the bytes meanwhile.
                    if _is_ready(self._fd, reading=True):
                        return os.read(self._fd, most)
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise_for(error)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sending, bytes_view(data) as view:
            self.check_open()
            sent = 0
            if not view:
                await checkpoint()
            while sent < len(view):
                await wait_writable(self)
                try:
                    if self._socket is not None:
                        with view[sent:] as rest:
                            sent += self._socket.send(rest, DONTWAIT or 0)
                    elif _is_ready(self._fd, reading=False):
                        with view[sent : sent + PIPE_BUF] as rest:
                            sent += os.write(self._fd, rest)
                except BlockingIOError:
                    pass
                except OSError as error:
                    raise_for(error)

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            self.check_open()
            await wait_writable(self)

    def close(self) -> None:
        super().close()
        if self._socket is not None:
            self._socket.close()


def _socket_of(fd: int) -> stdlib.socket:
    """A socket object over a duplicate, without a timeout. The mode of the socket is kept."""
    blocking = os.get_blocking(fd)
    duplicate = os.dup(fd)
    try:
        sock = stdlib.socket(fileno=duplicate)
    except BaseException:
        os.close(duplicate)
        raise
    if sock.gettimeout() is not None:
        # The program has called socket.setdefaulttimeout(), which made the socket non-blocking.
        sock.settimeout(None)
        os.set_blocking(fd, blocking)
    return sock


def _is_ready(fd: int, *, reading: bool) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN if reading else select.POLLOUT)
    return bool(poll.poll(0))


class _Threaded(_Duplicate):
    """A descriptor that worker threads read and write."""

    __slots__ = ("_is_on_disk", "_kept", "_reading")

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._is_on_disk = stat.S_ISREG(os.fstat(fd).st_mode)
        # The reading of a thread that no task has received yet.
        self._reading: _Reading | None = None
        # Bytes of such a reading that the call after it did not ask for.
        self._kept = b""

    def __repr__(self) -> str:
        return f"descriptor {self._fd}, in threads"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        with self._receiving:
            most = RECEIVE_SIZE if max_bytes is None else check_max_bytes(max_bytes)
            self.check_open()
            if self._is_on_disk and hasattr(os, "pread"):
                return await self._read_file(most)
            if self._kept:
                await checkpoint()
                data = self._kept
            else:
                data = await self._read(most)
            self._kept = data[most:]
            return data[:most]

    async def _read_file(self, most: int) -> bytes:
        position = os.lseek(self._fd, 0, os.SEEK_CUR)
        read = _OnDuplicate(self._fd, partial(_read, most=most, position=position))
        try:
            data = await to_thread_run_sync(read, thread_name="reader", abandon_on_cancel=True)
            self.check_open()
            os.lseek(self._fd, position + len(data), os.SEEK_SET)
        except OSError as error:
            raise_for(error)
        return data

    async def _read(self, most: int) -> bytes:
        await checkpoint_if_cancelled()
        reading = self._reading
        if reading is None:
            reading = self._reading = _Reading(_OnDuplicate(self._fd, partial(_read, most=most)))
        elif reading.loop is not running_loop():
            reading.move()
        await reading.done.wait()
        self.check_open()
        self._reading = None
        outcome = reading.outcome
        assert outcome is not None
        try:
            return outcome.unwrap()
        except OSError as error:
            raise_for(error)
        finally:
            del outcome, reading

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with self._sending, bytes_view(data) as view:
            self.check_open()
            if not view:
                await checkpoint()
            sent = 0
            while sent < len(view):
                self.check_open()
                with view[sent : sent + WRITE_PIECE] as piece:
                    # A copy, because an abandoned thread goes on after this call has ended.
                    write = _OnDuplicate(self._fd, partial(_write, data=bytes(piece)))
                try:
                    sent += await to_thread_run_sync(
                        write,
                        thread_name="writer",
                        # A terminal or pipe may block for ever, a file on disk does not.
                        abandon_on_cancel=not self._is_on_disk,
                    )
                except OSError as error:
                    raise_for(error)

    async def wait_send_all_might_not_block(self) -> None:
        with self._sending:
            self.check_open()
            await checkpoint()

    def close(self) -> None:
        super().close()
        if self._reading is not None:
            self._reading.done.set()


class _Reading:
    """A read by a worker thread. It may end after the call that began it was cancelled."""

    __slots__ = ("done", "loop", "outcome")

    def __init__(self, read: _OnDuplicate[bytes]) -> None:
        self.outcome: Outcome[bytes] | None = None
        self.loop = running_loop()
        self.done = Event()
        start_thread_soon(read, self._deliver, "reader")

    def _deliver(self, outcome: Outcome[bytes]) -> None:
        """Called in the thread. The outcome is set first, and the loop read afterwards."""
        self.outcome = outcome
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.done.set)

    def move(self) -> None:
        """Wait in the running loop from now on. The loop is set first, and the outcome read then.

        So either this method or the thread sets the new event, or both do.
        """
        self.done = Event()
        self.loop = running_loop()
        if self.outcome is not None:
            self.done.set()


class _OnDuplicate(Generic[T]):
    """A function to be called once, in a thread, with a duplicate of a descriptor.

    The descriptor itself may be closed meanwhile, and its number be used again.
    """

    __slots__ = ("_fd", "_fn")

    def __init__(self, fd: int, fn: Callable[[int], T]) -> None:
        self._fd = -1
        self._fn = fn
        self._fd = os.dup(fd)

    def __call__(self) -> T:
        try:
            return self._fn(self._fd)
        finally:
            self._close()

    def __del__(self) -> None:
        self._close()  # it was never called

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)


def _read(fd: int, most: int, position: int | None = None) -> bytes:
    return os.read(fd, most) if position is None else os.pread(fd, most, position)


def _write(fd: int, data: bytes) -> int:
    return os.write(fd, data)
