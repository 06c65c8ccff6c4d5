"""Reading with a buffer: :class:`BufferedReceiveStream`, for messages, lines, numbers of bytes.

Rule 1: bytes leave the buffer in the last step of an operation, after everything that can fail or
be cancelled. So an operation that raises has taken nothing, and the next one sees the same bytes.

Rule 2: the buffer holds at most the bytes that the caller asked for, and one piece that the stream
has returned. It is that piece itself, with the position of the first byte that was not taken. So
most bytes are copied once, into the result. Before a wait, the bytes that were taken are let go.

Rule 3: a call that finds its bytes in the buffer checks for cancellation. It lets other tasks run
if ``MAX_CREDIT`` such calls in a row have not. Most lines arrive together with others, and an
iteration of the loop costs as much as ten lines.

Rule 4: results do not depend on how the bytes were cut into pieces. A lone ``\\r`` that ends the
buffer ends a line of text at once. If the next piece begins with ``\\n``, that byte belongs to the
same line end, and is dropped before any method sees the piece.
"""

from __future__ import annotations

import asyncio
import codecs
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from .._asyncio.compat import current_task as current_asyncio_task
from .._base import BusyResourceError, ClosedResourceError, Final, ReceiveStream
from .._base.exc_fields import explained
from .._base.util import safe_repr
from .._core import checkpoint
from .._core.task import records
from .._net.stream import check_max_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from typing_extensions import Self

__all__ = ["BufferedReceiveStream"]

ReceiveStreamT = TypeVar("ReceiveStreamT", bound=ReceiveStream)
LineT = TypeVar("LineT", bytes, str)

# The longest line or message, in bytes, unless the caller gives another limit.
LIMIT = 65536

# How many calls in a row may find their bytes in the buffer and not yield.
MAX_CREDIT = 128

# Up to this size the buffer is a bytes object, which is replaced. A larger one is extended in place
# while an operation waits for more.
SMALL = 65536

# How many bytes are searched first for one kind of line end before the other. If all of the buffer
# was searched for "\n", each line that ends with "\r" would cost as much as all lines after it.
FIRST_STEP = 1024

_NEWLINE = 10
_RETURN = 13


class BufferedReceiveStream(ReceiveStream, Generic[ReceiveStreamT], metaclass=Final):
    """Receives exact numbers of bytes, messages and lines from any stream of bytes.

    The stream returns bytes in pieces of any size. This class keeps what it has received and not
    returned yet in :attr:`buffer`. An operation that fails or is cancelled takes nothing from the
    buffer, so nothing is lost, and it can be tried again.

    It receives only. Send on the stream itself, or join both with
    :class:`StapledStream(stream, BufferedReceiveStream(stream)) <StapledStream>`.

    Args:
        receive_stream: The stream to receive from. It is closed with this one. Kept as an attribute
            of this name. Do not receive from it directly, because the next bytes may be in the
            buffer already.

    Raises:
        TypeError: ``receive_stream`` does not have a method ``receive_some``.

    Trio: none.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        *"_closed _credit _data _piece _position _receiving _skip_newline receive_stream".split(),
    )

    receive_stream: ReceiveStreamT

    def __init__(self, receive_stream: ReceiveStreamT) -> None:
        if not callable(getattr(receive_stream, "receive_some", None)):
            raise TypeError(
                f"BufferedReceiveStream needs a stream to receive from, not "
                f"{safe_repr(receive_stream)}"
            )
        self.receive_stream = receive_stream
        # The buffer: the bytes of _data from _position on. It is a bytearray only in _fill().
        self._data = b""
        self._position = 0
        # A piece that was received and is not in _data yet: there was no memory for both.
        self._piece: bytes | bytearray | None = None
        self._credit = MAX_CREDIT
        self._closed = False
        # Whether a task is in _fill(). _credit is 0 then.
        self._receiving = False
        # Whether a line has ended with the "\r" that was the last byte received (rule 4).
        self._skip_newline = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._count()} bytes buffered"
        return f"<BufferedReceiveStream over {safe_repr(self.receive_stream)}, {state}>"

    @property
    def buffer(self) -> bytes:
        """A copy of the bytes that were received and not returned yet."""
        return bytes(self._data[self._position :])

    # -- receiving --------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return the bytes of the buffer; if there are none, wait until some arrive.

        Args:
            max_bytes: The most bytes to return, at least 1. If None, the stream picks a good size.

        Returns:
            At least one byte, or ``b""`` if the stream has ended.

        Raises:
            TypeError: ``max_bytes`` is not an integer.
            ValueError: ``max_bytes`` is less than 1.
            BusyResourceError: Another task is receiving on this stream.
            BrokenResourceError: The connection is broken.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled; nothing that has arrived is lost.

        Checkpoint: yes. Of the calls that find their bytes in the buffer, it may be that only every
        128th lets other tasks run.
        """
        if max_bytes is not None:
            max_bytes = check_max_bytes(max_bytes)
        if not self._count() or not self._may_return():
            await self._fill(lambda _start: 0 if self._count() else -1, None)
        count = self._count()
        return self._take(count if max_bytes is None else min(count, max_bytes))

    async def receive_exactly(self, nbytes: int) -> bytes:
        """Wait until ``nbytes`` bytes have arrived, and return them.

        Args:
            nbytes: How many bytes, at least 0. So many bytes may be kept in memory: check a number
                that comes from the peer.

        Raises:
            TypeError: ``nbytes`` is not an integer.
            ValueError: ``nbytes`` is negative.
            asyncio.IncompleteReadError: The stream has ended before. The bytes that have arrived
                are in the attribute ``partial``, and in the buffer.
            BusyResourceError: Another task is receiving on this stream.
            BrokenResourceError: The connection is broken.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled; nothing that has arrived is lost.

        Checkpoint: yes. Of the calls that find their bytes in the buffer, it may be that only every
        128th lets other tasks run.
        """
        if type(nbytes) is not int or nbytes < 0:
            nbytes = _check_count(nbytes, "nbytes")
        if self._count() < nbytes or self._closed or not self._may_return():
            if await self._fill(lambda _start: 0 if self._count() >= nbytes else -1, None) < 0:
                raise self._incomplete(nbytes)
        return self._take(nbytes)

    async def receive_until(self, delimiter: bytes, *, max_bytes: int = LIMIT) -> bytes:
        """Wait until ``delimiter`` has arrived, and return the bytes before it.

        The delimiter is taken from the buffer and not returned.

        Args:
            delimiter: At least one byte, for example ``b"\\r\\n"``.
            max_bytes: The most bytes before the delimiter, at least 0.

        Raises:
            TypeError: An argument is of the wrong type.
            ValueError: ``delimiter`` is empty, or ``max_bytes`` is negative.
            asyncio.IncompleteReadError: The stream has ended before. The bytes that have arrived
                are in the attribute ``partial``, and in the buffer.
            asyncio.LimitOverrunError: More than ``max_bytes`` bytes have arrived without the
                delimiter. They are in the buffer.
            BusyResourceError: Another task is receiving on this stream.
            BrokenResourceError: The connection is broken.
            ClosedResourceError: The stream is closed, or was closed during the call.
            Cancelled: if the task is cancelled; nothing that has arrived is lost.

        Checkpoint: yes. Of the calls that find their bytes in the buffer, it may be that only every
        128th lets other tasks run.
        """
        if type(max_bytes) is not int or max_bytes < 0:
            max_bytes = _check_count(max_bytes, "max_bytes")
        if not isinstance(delimiter, (bytes, bytearray)):
            raise TypeError(f"delimiter must be bytes, not {safe_repr(delimiter)}")
        if not delimiter:
            raise ValueError("delimiter must have at least one byte")
        start = self._position
        data = self._data
        end = data.find(delimiter, start, start + max_bytes + len(delimiter))
        if end < 0 or not self._may_return():
            end = await self._fill_until(delimiter, max_bytes)
            start = self._position
            data = self._data
        taken = data[start:end]
        self._position = end + len(delimiter)
        return taken

    @overload
    def lines(self, *, max_bytes: int = LIMIT) -> AsyncIterator[bytes]: ...

    @overload
    def lines(
        self, encoding: str, errors: str = "strict", *, max_bytes: int = LIMIT
    ) -> AsyncIterator[str]: ...

    def lines(
        self, encoding: str | None = None, errors: str = "strict", *, max_bytes: int = LIMIT
    ) -> AsyncIterator[bytes] | AsyncIterator[str]:
        """Iterate over the lines, without their line ends; use ``async for``.

        Lines of bytes end with ``\\n`` or ``\\r\\n``. Lines of text also end with a lone ``\\r``,
        as in files ("universal newlines"). The last line does not need a line end. Iterating takes
        whole lines and nothing more, so other methods can follow, and another iterator can go on.

        Each step raises the errors of :meth:`receive_until`, apart from ``IncompleteReadError``,
        and with ``encoding`` it may raise ``UnicodeDecodeError``. The line is still in the buffer
        then.

        Args:
            encoding: The encoding of text, for example ``"utf-8"``. None for lines of bytes.
            errors: What to do about bytes that are not in the encoding, as in ``bytes.decode``.
            max_bytes: The most bytes of a line, at least 0.

        Returns:
            An async iterator of ``bytes``, or of ``str`` with ``encoding``.

        Raises:
            TypeError: ``max_bytes`` is not an integer.
            ValueError: ``max_bytes`` is negative, or line ends in this encoding are not the bytes
                ``\\r`` and ``\\n`` (UTF-16 and UTF-32).
            LookupError: There is no such encoding, or no such way to handle errors.

        Checkpoint: no, this is not an async function. Each step of the iteration is a checkpoint,
        but may let other tasks run only at every 128th line that is in the buffer.
        """
        max_bytes = _check_count(max_bytes, "max_bytes")
        if encoding is None:
            return ByteLines(self, max_bytes)
        codecs.lookup_error(errors)
        if "a\r\n".encode(encoding)[-2:] != b"\r\n" or b"\r\n".decode(encoding) != "\r\n":
            raise ValueError(
                f"lines of {encoding!r} cannot be found by the bytes of their line ends: receive "
                "everything, and decode it then"
            )
        return TextLines(self, max_bytes, encoding, errors)

    async def aclose(self) -> None:
        """Close the stream, and discard the buffer.

        Raises:
            Exception: Any error that ``receive_stream.aclose()`` raises.
            Cancelled: if the task is cancelled; the stream is closed nevertheless.

        Checkpoint: yes.
        """
        self._closed = True
        self._data = b""
        self._piece = None
        self._position = 0
        await self.receive_stream.aclose()

    # -- the buffer -------------------------------------------------------------

    def _count(self) -> int:
        """How many bytes are in the buffer."""
        return len(self._data) - self._position

    def _may_return(self) -> bool:
        """Whether an operation that has its bytes may return without a yield (rule 3)."""
        credit = self._credit
        if credit:
            task = records.get(current_asyncio_task())  # type: ignore[arg-type]
            if task is not None and not task.scope._effective and not task._deferred_cancel:
                self._credit = credit - 1
                return True
        return False

    async def _fill(self, find: Callable[[int], int], most: int | None) -> int:
        """Receive until ``find`` finds the bytes that an operation needs. A checkpoint.

        Args:
            find: Looks into the buffer; its argument is how many bytes of it were there before. It
                returns a number that is not negative if it has found something.
            most: How many bytes the buffer may hold without it; None if there is no limit.

        Returns:
            The result of ``find``; negative if the stream has ended.
        """
        if self._receiving:
            raise BusyResourceError("another task is receiving on this BufferedReceiveStream")
        try:
            self._receiving = True
            self._credit = 0
            self._check_open()
            found = find(0)
            if found >= 0 or (most is not None and self._count() > most):
                await checkpoint()
                self._check_open()
            while found < 0:
                seen = self._count()
                if most is not None and seen > most:
                    raise self._overrun(most)
                if not await self._receive_piece():
                    break
                found = find(seen)
            self._credit = MAX_CREDIT
            return found
        finally:
            self._receiving = False
            if type(self._data) is not bytes:
                self._data = bytes(self._data)

    async def _fill_until(self, delimiter: bytes, max_bytes: int) -> int:
        """Receive until the delimiter is in the buffer, and return its place in ``_data``."""
        width = len(delimiter)

        def find(seen: int) -> int:
            start = self._position
            first = start + max(0, seen - width + 1)
            end = self._data.find(delimiter, first, start + max_bytes + width)
            return end - start if end >= 0 else -1

        length = await self._fill(find, max_bytes + width - 1)
        if length < 0:
            raise self._incomplete(None)
        return self._position + length

    async def _receive_piece(self) -> bool:
        """Wait for a piece, and append it to the buffer. False if the stream has ended."""
        if self._position:
            self._data, self._position = self._data[self._position :], 0
        if self._piece is None:
            self._piece = await self.receive_stream.receive_some()
            self._check_open()
        piece = self._piece
        if not piece:
            self._piece = None
            return False
        if self._skip_newline and piece[0] == _NEWLINE:
            piece = piece[1:]
        if not self._data:
            self._data, self._piece = bytes(piece), None
        elif len(self._data) < SMALL:
            self._data, self._piece = self._data + piece, None
        else:
            if type(self._data) is bytes:
                self._data = bytearray(self._data)  # type: ignore[assignment]
            self._data += piece
            self._piece = None
        self._skip_newline = False
        return True

    def _take(self, count: int) -> bytes:
        """Take ``count`` bytes from the buffer."""
        start = self._position
        taken = self._data[start : start + count]
        self._position = start + count
        return taken

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedResourceError("this stream was already closed")

    def _incomplete(self, wanted: int | None) -> asyncio.IncompleteReadError:
        return explained(
            asyncio.IncompleteReadError(self.buffer, wanted),
            "the stream has ended before; what it has sent is in the attribute 'partial'",
        )

    def _overrun(self, most: int) -> asyncio.LimitOverrunError:
        return asyncio.LimitOverrunError(
            "the delimiter or the line end is not within max_bytes; what has arrived is in the "
            "buffer",
            most,
        )


class _Lines(Generic[LineT]):
    """An iterator over lines. A subclass knows where a line ends, and what it returns."""

    __slots__ = ("_max_bytes", "_reader")

    def __init__(self, reader: BufferedReceiveStream[Any], max_bytes: int) -> None:
        self._reader = reader
        self._max_bytes = max_bytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._reader!r}>"

    def __aiter__(self) -> Self:
        return self

    async def _fill(self) -> int:
        """Wait for a line, and return its length without its end."""
        reader = self._reader
        # A line is followed by two bytes of its end at most, and one of them shows the end.
        length = await reader._fill(self._checked_length, self._max_bytes + 1)
        if length < 0:
            # The last line does not need an end.
            length = reader._count()
            if not length:
                raise StopAsyncIteration
            if length > self._max_bytes:
                raise reader._overrun(self._max_bytes)
        return length

    def _checked_length(self, seen: int) -> int:
        length = self._length(seen)
        if length > self._max_bytes:
            raise self._reader._overrun(self._max_bytes)
        return length

    def _length(self, seen: int) -> int:
        """The length of the first line in the buffer, without its end; negative if there is none.

        Args:
            seen: How many bytes of the buffer have no line end, as was found before.
        """
        raise NotImplementedError


class ByteLines(_Lines[bytes]):
    """Lines of bytes, which end with ``\\n`` or ``\\r\\n``."""

    __slots__ = ()

    async def __anext__(self) -> bytes:
        reader = self._reader
        start = reader._position
        data = reader._data
        end = data.find(b"\n", start)
        if end < 0 or end - start > self._max_bytes or not reader._may_return():
            length = await self._fill()
            start = reader._position
            data = reader._data
            end = data.find(b"\n", start)
            if end < 0:
                return reader._take(length)  # the last line
        last = end - 1
        line = data[start : last if data[last] == _RETURN and last >= start else end]
        reader._position = end + 1
        return line

    def _length(self, seen: int) -> int:
        reader = self._reader
        start = reader._position
        end = reader._data.find(b"\n", start + seen)
        if end > start and reader._data[end - 1] == _RETURN:
            end -= 1
        return end - start


class TextLines(_Lines[str]):
    """Lines of text, which end with ``\\n``, ``\\r\\n`` or ``\\r``."""

    __slots__ = ("_encoding", "_errors")

    def __init__(
        self,
        reader: BufferedReceiveStream[Any],
        max_bytes: int,
        encoding: str,
        errors: str,
    ) -> None:
        super().__init__(reader, max_bytes)
        self._encoding = encoding
        self._errors = errors

    async def __anext__(self) -> str:
        reader = self._reader
        length = self._length(0)
        if length < 0 or length > self._max_bytes or not reader._may_return():
            length = await self._fill()
        start = reader._position
        end = start + length
        data = reader._data
        line = data[start:end].decode(self._encoding, self._errors)
        line_end = data[end : end + 2]
        reader._skip_newline = line_end == b"\r"
        reader._position = min(len(data), end + (2 if line_end == b"\r\n" else 1))
        return line

    def _length(self, seen: int) -> int:
        reader = self._reader
        data = reader._data
        start = reader._position
        first = start + seen
        last = first + FIRST_STEP
        while True:
            end = data.find(b"\n", first, last)
            back = data.find(b"\r", first, last if end < 0 else end)
            if back >= 0:
                return back - start
            if end >= 0 or last >= len(data):
                return end - start
            first, last = last, last + 2 * (last - first)


def _check_count(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {safe_repr(value)}")
    if value < 0:
        raise ValueError(f"{name} must not be negative")
    return value
