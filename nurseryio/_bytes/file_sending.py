"""Sending a file over a stream: :func:`sendfile`.

Over a socket of the system the kernel copies from the file to the socket (``os.sendfile``). Over
all other streams, TLS for example, the file is read in pieces, and each piece is sent.

Rule 1: reading a file may block, so each system call that reads is made in a worker thread. The
thread uses duplicates of both descriptors. So it cannot meet a number that was closed and used
again meanwhile.

Rule 2: a thread that has begun is waited for. So the count of bytes is right in spite of a
cancellation, and the position of the file shows it.

Rule 3: the kernel copies only if ``read()`` would return the bytes on the disk: the file is of a
type of :mod:`io` itself, and the bytes that were written to it have been flushed.

Rule 4: an error of ``os.sendfile`` may come from the file or from the connection. After an error
that the connection does not explain, the rest is sent in pieces, which raises the right error or
works. (Some files cannot be given to ``os.sendfile``.)
"""

from __future__ import annotations

import io
import os
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from .._base import Cancelled, ClosedResourceError
from .._base.unsupported import needs
from .._base.util import safe_repr
from .._core import checkpoint
from .._net.stream import SocketStream, raise_for
from .._system.files import AsyncIOWrapper, complete_in_thread
from .._system.threads import to_thread_run_sync

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from .._base import SendStream

    class Readable(Protocol):
        """A file for reading bytes that has a position."""

        def read(self, size: int, /) -> bytes: ...
        def seek(self, offset: int, /) -> int: ...

    File: TypeAlias = Readable | AsyncIOWrapper[Readable]

__all__ = ["sendfile"]

# The most bytes of one call of os.sendfile(): a cancellation waits for the call to end.
KERNEL_PIECE = 2**20

# The most bytes that are read at once if the kernel does not copy.
READ_PIECE = 131072


class _UseReading(Exception):
    """``os.sendfile`` does not work with this file."""


class _Progress:
    """How far a file was sent."""

    __slots__ = ("left", "sent", "start")

    def __init__(self, start: int, count: int | None) -> None:
        self.start = start
        self.sent = 0
        # Bytes that are to be sent yet; None: up to the end of the file.
        self.left = count

    @property
    def position(self) -> int:
        return self.start + self.sent

    def next_piece(self, most: int) -> int:
        return most if self.left is None else min(self.left, most)

    def add(self, sent: int) -> None:
        self.sent += sent
        if self.left is not None:
            self.left -= sent


@needs("files")
async def sendfile(
    stream: SendStream, file: File, offset: int = 0, count: int | None = None
) -> int:
    """Send a file, or a part of it, over a stream.

    Over a :class:`SocketStream` the operating system copies the bytes, which costs less than
    reading and sending them. Over other streams the file is read in a worker thread. In both cases
    the loop does not wait for the disk.

    In the end, however the call ends, the position of the file is ``offset`` plus the number of
    bytes that were sent. After a cancellation or an error over a :class:`SocketStream` whose bytes
    the system copies, this number is exact. Over other streams it counts whole pieces, and a part
    of the next piece may have been sent.

    Args:
        stream: The stream to send over.
        file: A file that was opened for reading bytes, by :func:`open` or :func:`open_file`. Do not
            use it elsewhere during the call.
        offset: The position in the file of the first byte.
        count: The most bytes to send; None for all up to the end of the file.

    Returns:
        The number of bytes that were sent. It is less than ``count`` if the file ends before.

    Raises:
        TypeError: ``file`` cannot be read, or is a text file, or a number is not an integer.
        ValueError: A number is negative.
        OSError: The file cannot be read.
        BusyResourceError: Another task is sending on the stream.
        BrokenResourceError: The connection is broken.
        ClosedResourceError: The stream is closed, or was closed during the call.
        Cancelled: if the task is cancelled.
        NotImplementedError: the platform does not have threads, as a web page.

    Checkpoint: yes.

    Trio: none.
    """
    source: Any = file.wrapped if isinstance(file, AsyncIOWrapper) else file
    _check_file(source)
    for name, number in (("offset", offset), ("count", 0 if count is None else count)):
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"{name} must be an integer, not {safe_repr(number)}")
        if number < 0:
            raise ValueError(f"{name} must not be negative")
    progress = _Progress(offset, count)
    await to_thread_run_sync(_prepare, source, offset)
    try:
        await _send(stream, source, progress)
    except BaseException as error:
        back = partial(source.seek, progress.position)
        with suppress(OSError, ValueError):
            if isinstance(error, (Cancelled, Exception)):
                # In a thread, because a compressed file is read from its start again to go back.
                await complete_in_thread(back)
            else:
                back()
        raise
    source.seek(progress.position)
    return progress.sent


def _prepare(file: Any, offset: int) -> None:
    buffered = _plain(file)
    if isinstance(buffered, io.BufferedRandom):
        # A seek() inside of the buffer does not write it out.
        buffered.flush()
    file.seek(offset)


def _check_file(file: Any) -> None:
    is_text = isinstance(file, io.TextIOBase)
    if not isinstance(file, io.IOBase):
        # A wrapper around a file, as tempfile has it.
        is_text = "b" not in str(getattr(file, "mode", "b"))
    if is_text:
        raise TypeError(f"sendfile() needs a file opened in binary mode, not {safe_repr(file)}")
    if not (callable(getattr(file, "read", None)) and callable(getattr(file, "seek", None))):
        raise TypeError(
            f"sendfile() needs an open file with read() and seek(), not {safe_repr(file)}"
        )


async def _send(stream: SendStream, file: Any, progress: _Progress) -> None:
    # Not if the methods of the socket were replaced (rule 3 of _net.stream).
    if isinstance(stream, SocketStream) and stream._send is not None:
        number = _descriptor(file)
        if number is not None:
            try:
                await _send_by_kernel(stream, number, progress)
                return
            except _UseReading:
                pass
    await _send_by_reading(stream, file, progress)


def _plain(file: Any) -> io.FileIO | io.BufferedReader | io.BufferedRandom | None:
    """The file of the module ``io`` whose bytes ``file`` returns; None if there is none.

    Subclasses and other wrappers may return other bytes than those on the disk.
    """
    if type(file).__module__ == "tempfile":
        file = getattr(file, "file", None)
    return file if type(file) in (io.FileIO, io.BufferedReader, io.BufferedRandom) else None


def _descriptor(file: Any) -> int | None:
    """The descriptor of a file that the kernel can read; None if there is none."""
    plain = _plain(file)
    if plain is None or not hasattr(os, "sendfile"):
        return None
    # "raw" may be of any class.
    return plain.fileno() if type(getattr(plain, "raw", plain)) is io.FileIO else None


async def _send_by_kernel(stream: SocketStream, number: int, progress: _Progress) -> None:
    stream._check_open()
    target = os.dup(stream.socket.fileno())
    try:
        source = os.dup(number)
    except BaseException:
        os.close(target)
        raise
    try:
        with _sending_alone(stream):
            await _copy(stream, target, source, progress)
    finally:
        try:
            os.close(target)
        finally:
            os.close(source)


@contextmanager
def _sending_alone(stream: SocketStream) -> Iterator[None]:
    """The checks and the errors of ``send_all``, for other code that sends on the socket."""
    if stream._sending:
        raise stream._busy_sending()
    if stream.socket.did_shutdown_SHUT_WR:
        raise ClosedResourceError("can't send data after sending EOF")
    stream._check_open()
    try:
        stream._sending = True
        yield
    except OSError as error:
        raise_for(error)
    finally:
        stream._sending = False


async def _copy(stream: SocketStream, target: int, source: int, progress: _Progress) -> None:
    await checkpoint()
    while piece := progress.next_piece(KERNEL_PIECE):
        stream._check_open()
        try:
            sent = await to_thread_run_sync(
                os.sendfile, target, source, progress.position, piece, thread_name="sendfile"
            )
        except BlockingIOError:
            await stream.socket.wait_writable()
            continue
        except (BrokenPipeError, ConnectionError, TimeoutError):
            raise
        except OSError as error:
            raise _UseReading from error
        if not sent:
            break
        progress.add(sent)


async def _send_by_reading(stream: SendStream, file: Any, progress: _Progress) -> None:
    await checkpoint()
    while piece := progress.next_piece(READ_PIECE):
        data = await to_thread_run_sync(_read_at, file, progress.position, piece)
        if not data:
            break
        await stream.send_all(data)
        progress.add(len(data))


def _read_at(file: Any, position: int, most: int) -> bytes:
    file.seek(position)
    data: bytes = file.read(most)
    return data
