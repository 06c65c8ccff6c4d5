"""Types for wrapped files: the attributes that a file must have for its wrapper to have them.

This module is for type checkers; no code runs here. A method of ``AsyncIOWrapper`` names one of
these types as the type of the wrapped file. So the method exists only for wrappers of such files.
Each type has attributes that occur together in the classes of the ``io`` module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable
    from typing import BinaryIO

    from typing_extensions import Buffer

T_co = TypeVar("T_co", covariant=True)
DataT = TypeVar("DataT", str, bytes)
DataT_co = TypeVar("DataT_co", str, bytes, covariant=True)
DataT_contra = TypeVar("DataT_contra", contravariant=True)


class CanClose(Protocol):
    """Every file."""

    def close(self) -> object: ...


class Base(Protocol):
    """The attributes of ``io.IOBase``."""

    @property
    def closed(self) -> bool: ...
    def fileno(self) -> int: ...
    def isatty(self) -> bool: ...
    def readable(self) -> bool: ...
    def seekable(self) -> bool: ...
    def writable(self) -> bool: ...
    def flush(self) -> None: ...
    def seek(self, offset: int, whence: int = ..., /) -> int: ...
    def tell(self) -> int: ...
    def truncate(self, size: int | None = ..., /) -> int: ...


class Reads(Protocol[DataT_co]):
    """Files that can be read whole or in pieces."""

    def read(self, size: int | None = ..., /) -> DataT_co: ...


class ReadsLines(Protocol[DataT]):
    """Files that can be read line by line."""

    def readline(self, size: int = ..., /) -> DataT: ...
    def readlines(self, hint: int = ..., /) -> list[DataT]: ...


class Writes(Protocol[DataT_contra]):
    """Files that can be written."""

    def write(self, data: DataT_contra, /) -> int: ...


class WritesLines(Protocol[DataT_contra]):
    """Files that can be written from an iterable."""

    def writelines(self, lines: Iterable[DataT_contra], /) -> None: ...


class Named(Protocol[T_co]):
    """Files that have the name or descriptor with which they were opened."""

    @property
    def name(self) -> T_co: ...


class HasMode(Protocol):
    """Files that have the mode in which they were opened."""

    @property
    def mode(self) -> str: ...


class Text(Protocol):
    """The attributes that ``io.TextIOWrapper`` adds."""

    @property
    def encoding(self) -> str: ...
    @property
    def errors(self) -> str | None: ...
    @property
    def line_buffering(self) -> bool: ...
    @property
    def buffer(self) -> BinaryIO: ...


class HasNewlines(Protocol[T_co]):
    """Text files. The type of ``newlines`` differs between the ``io`` classes."""

    @property
    def newlines(self) -> T_co: ...


class Buffered(Protocol):
    """The attribute that ``io.BufferedReader`` and similar classes add."""

    @property
    def raw(self) -> io.RawIOBase: ...


class Peeks(Protocol):
    """Buffered files that can be read."""

    def peek(self, size: int = ..., /) -> bytes: ...


class ReadsOnce(Protocol):
    """Binary files that can be read with one system call at most."""

    def read1(self, size: int = ..., /) -> bytes: ...
    def readinto1(self, buffer: Buffer, /) -> int: ...


class ReadsInto(Protocol):
    """Binary files that can be read into existing memory."""

    def readinto(self, buffer: Buffer, /) -> int | None: ...


class Raw(Protocol):
    """The attributes that ``io.FileIO`` adds."""

    @property
    def closefd(self) -> bool: ...
    def readall(self) -> bytes: ...


class InMemory(Protocol[DataT_co]):
    """``io.StringIO`` and ``io.BytesIO``."""

    def getvalue(self) -> DataT_co: ...


class InMemoryBinary(Protocol):
    """``io.BytesIO``."""

    def getbuffer(self) -> memoryview: ...


class Detaches(Protocol[T_co]):
    """Files that wrap another file and can be separated from it."""

    def detach(self) -> T_co: ...
