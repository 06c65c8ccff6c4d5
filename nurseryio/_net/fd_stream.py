"""Streams over bare file descriptors, such as pipes and terminals: :class:`FdStream`.

Streams over sockets are in :mod:`stream`. Files on disk are in ``_system``: a task cannot wait for
them to become readable.

Rule 1: a stream and its loop forget the number of the descriptor before the descriptor is closed.
Immediately after that, the number may belong to another file.

Rule 2: as in :mod:`stream`, bytes are not buffered here, and nothing is read before a task calls
``receive_some``.

Rule 3: if a stream is garbage-collected without having been closed, its descriptor is closed when
the last registration with a loop has ended, not before.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from .._base import BrokenResourceError, ClosedResourceError, ConflictDetector, Final, Stream
from .._base.forked import generation
from .._base.util import bytes_view
from .._core import checkpoint, checkpoint_if_cancelled, current_task
from .._loop.readiness import Registrations, close_later
from .._loop.wait_io import notify_closing
from .._loop.watching import check_can_watch
from .._run.introspection import in_trio_run
from .stream import RECEIVE_SIZE, check_max_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._loop.readiness import Readable, Writable

__all__ = ["FdStream", "raise_for"]


def raise_for(error: OSError) -> NoReturn:
    """Raise the error of a stream that stands for this error of a descriptor."""
    if error.errno == errno.EBADF:
        raise ClosedResourceError("file was already closed") from None
    raise BrokenResourceError(f"file descriptor broken: {error}") from error


class _Descriptor:
    """Owns a file descriptor, and remembers whether it was in blocking mode."""

    __slots__ = ("_fd", "_generation", "was_blocking")

    def __init__(self, fd: int) -> None:
        self.was_blocking = os.get_blocking(fd)
        os.set_blocking(fd, False)
        self._fd = fd
        self._generation = generation()

    def fileno(self) -> int:
        return self._fd

    def detach(self) -> int:
        """Forget and return the number, and give the open file its former mode."""
        fd, self._fd = self._fd, -1
        # Not in a forked child: it shares the open file with its parent, which still uses it.
        if fd != -1 and self._generation == generation():
            os.set_blocking(fd, self.was_blocking)
        return fd

    def close(self) -> None:
        fd = self._fd
        try:
            self.detach()
        finally:
            if fd != -1:
                os.close(fd)


class FdStream(Stream, metaclass=Final):
    """A stream of bytes over a file descriptor: the end of a pipe, a terminal, a character device.

    The descriptor belongs to the stream from now on and is closed with it. It is also closed when
    the stream is garbage-collected without having been closed. It is put into non-blocking mode,
    which is a property of the open file, not of the descriptor. So other descriptors of the same
    file are affected until the stream is closed, also those of other processes. For standard input
    use :func:`nurseryio.open_stdin`, which leaves the mode as it is.

    Args:
        fd: The file descriptor. Do not use that of a file on disk: such a file is always ready, and
            a task cannot wait for it.

    Raises:
        TypeError: ``fd`` is not an integer.
        OSError: ``fd`` is not an open descriptor.
        NotImplementedError: The running loop cannot watch file descriptors.

    Trio: ``trio.lowlevel.FdStream``.
    """

    __slots__ = "__dict__ __weakref__ _descriptor _fd _receiving _sending _waits".split()

    def __init__(self, fd: int) -> None:
        self._receiving = ConflictDetector("another task is using this stream for receive")
        self._sending = ConflictDetector("another task is using this stream for send")
        if not isinstance(fd, int):
            raise TypeError("file descriptor must be an int")
        check_can_watch("streams over bare descriptors")
        self._descriptor = _Descriptor(fd)
        self._waits = Registrations(self._descriptor, True)
        # The descriptor, for os.read() and os.write(); -1 once closed.
        self._fd = fd

    def __repr__(self) -> str:
        return f"<FdStream over fd {self._fd}>" if self._fd != -1 else "<FdStream, closed>"

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) == -1:
            return  # closed, or __init__ has failed
        # This does not warn, as in Trio: programs often leave a pipe to the garbage collector.
        registered = self._waits.registered()
        if registered:
            close_later(registered, self._descriptor.detach())
        else:
            self._descriptor.close()

    def fileno(self) -> int:
        """The file descriptor; -1 once the stream is closed."""
        return self._fd

    # -- waiting ----------------------------------------------------------------

    def _readable(self) -> Readable:
        return self._waits.readable(current_task()._state)

    def _writable(self) -> Writable:
        return self._waits.writable(current_task()._state)

    def _check_open(self) -> None:
        if self._fd == -1:
            raise ClosedResourceError("file was already closed")

    # -- both directions --------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait until something has arrived, and return it.

        Args:
            max_bytes: The most bytes to return, at least 1. If None, the stream picks a good size.

        Returns:
            At least one byte, or ``b""`` at the end: when no process has the other end open.

        Raises:
            TypeError: ``max_bytes`` is not an integer.
            ValueError: ``max_bytes`` is less than 1.
            BusyResourceError: Another task is receiving on this stream.
            BrokenResourceError: Reading failed; the cause is the ``OSError``.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled; nothing that has arrived is lost.

        Checkpoint: yes.
        """
        with self._receiving:
            if max_bytes is None:
                max_bytes = RECEIVE_SIZE
            else:
                max_bytes = check_max_bytes(max_bytes, "integer >= 1")
            await checkpoint()
            while True:
                try:
                    return os.read(self._fd, max_bytes)
                except BlockingIOError:
                    pass
                except OSError as exc:
                    raise_for(exc)
                await self._readable()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send ``data``, and wait until the kernel has taken all of it.

        Args:
            data: The bytes to send; empty data is allowed and sends nothing.

        Raises:
            TypeError: ``data`` is not a buffer, or not contiguous.
            BusyResourceError: Another task is sending on this stream.
            BrokenResourceError: No process has the other end open, or writing failed; the cause is
                the ``OSError``.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled. Then an unknown part of the data has been sent.

        Checkpoint: yes.
        """
        with self._sending, bytes_view(data) as view:
            self._check_open()
            await checkpoint()
            sent = 0
            writable = self._writable()
            try:
                while sent < len(view):
                    try:
                        with view[sent:] as rest:
                            sent += os.write(self._fd, rest)
                        continue
                    except BlockingIOError:
                        pass
                    except OSError as exc:
                        raise_for(exc)
                    await writable
            finally:
                writable.release()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the kernel has room for more data.

        Raises:
            BusyResourceError: Another task is sending on this stream.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled.

        Checkpoint: yes.
        """
        with self._sending:
            self._check_open()
            await checkpoint_if_cancelled()
            await self._writable().once()

    # -- closing ----------------------------------------------------------------

    def close(self) -> None:
        """Close the file descriptor now. Tasks that use the stream get ``ClosedResourceError``.

        Checkpoint: no, this is not an async function.
        """
        fd, self._fd = self._fd, -1
        if fd == -1:
            return
        elsewhere = self._waits.close()
        if in_trio_run():
            # A task may be in lowlevel.wait_readable() for the bare descriptor.
            notify_closing(fd)
        if elsewhere:
            close_later(elsewhere, self._descriptor.detach())
        else:
            self._descriptor.close()

    async def aclose(self) -> None:
        """Close the file descriptor: it is closed when this returns or raises.

        Raises:
            Cancelled: if the task is cancelled; the stream is closed nevertheless.

        Checkpoint: yes.
        """
        self.close()
        await checkpoint()

    @contextmanager
    def _handed_on(self) -> Iterator[None]:
        """Give the open file to another program: make it blocking, then close it on this side.

        If the body of the ``with`` block raises, the stream stays open and becomes non-blocking
        again.

        Raises:
            BusyResourceError: A task is using the stream, and would block the loop.
            ClosedResourceError: The stream is closed.
        """
        with self._receiving, self._sending:
            self._check_open()
            os.set_blocking(self._fd, True)
            try:
                yield
            except BaseException:
                if self._fd != -1:
                    os.set_blocking(self._fd, False)
                raise
            self._descriptor.was_blocking = True
        self.close()
