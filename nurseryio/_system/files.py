"""Files whose methods are awaited: ``open_file``, ``wrap_file``, and the wrapper that they return.

``open_file`` returns an :class:`Opening`, which can be awaited and used with ``async with``.

anyio's ``AsyncFile`` is not used, because it has other attributes and does not shield its
``aclose``.

Rule 1: methods that may block run in a worker thread. Attributes and methods that only return
information are passed through. The two sets ``IN_THREAD`` and ``PASSED_THROUGH`` list them. A name
in neither set does not exist on the wrapper, however harmless it is, so that nothing blocks by
accident.

Rule 2: a wrapper has exactly those names of the two sets that the wrapped file has.
"""

from __future__ import annotations

import inspect
import io
import sys
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from .._base import AsyncResource, Cancelled
from .._base.exc_fields import add_note
from .._base.unsupported import needs
from .._base.util import text_of
from .._core import checkpoint_if_cancelled
from .._nursery import CancelScope
from .threads import to_thread_run_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from typing import IO, BinaryIO, Literal, TypeAlias

    from _typeshed import (
        OpenBinaryMode,
        OpenBinaryModeReading,
        OpenBinaryModeUpdating,
        OpenBinaryModeWriting,
        OpenTextMode,
        StrOrBytesPath,
    )
    from typing_extensions import Buffer

    from . import file_types as ft
    from .file_types import DataT

    FileName: TypeAlias = StrOrBytesPath | int
    Opener: TypeAlias = Callable[[str, int], int]

__all__ = ["AsyncIOWrapper", "Opening", "complete_in_thread", "open_file", "opens"]
__all__ += ["wrap_file"]

T = TypeVar("T")
FileT = TypeVar("FileT")
FileT_co = TypeVar("FileT_co", covariant=True)
FnT = TypeVar("FnT", bound="Callable[..., Any]")
OpenT = TypeVar("OpenT", bound="AsyncIOWrapper[Any]")

PASSED_THROUGH = frozenset(
    # of every file
    {"closed", "fileno", "isatty", "readable", "seekable", "writable"}
    # of text files
    | {"buffer", "encoding", "errors", "line_buffering", "newlines"}
    # of buffered and raw files
    | {"closefd", "mode", "name", "raw"}
    # of files in memory
    | {"getbuffer", "getvalue"}
)

IN_THREAD = frozenset(
    {"flush", "seek", "tell", "truncate"}
    | {"peek", "read", "read1", "readall", "readinto", "readinto1", "readline", "readlines"}
    | {"write", "writelines"}
)


class AsyncIOWrapper(AsyncResource, Generic[FileT_co]):
    """A file whose methods that may block are async.

    Made by :func:`open_file` and :func:`wrap_file`. It has the methods and attributes of the file
    that it wraps, as far as the :mod:`io` module defines them. ``async for`` iterates over its
    lines, and ``async with`` closes it at the end.

    Each async method runs in a worker thread (see :func:`nurseryio.to_thread.run_sync`). A method
    that has begun runs to its end in spite of a cancellation. Two tasks must not use one file at
    the same time.

    Trio: the *asynchronous file objects* of ``trio.open_file`` and ``trio.wrap_file``.
    """

    def __init__(self, file: FileT_co) -> None:
        self._wrapped = file

    def __repr__(self) -> str:
        return f"<nurseryio.AsyncIOWrapper of {self._wrapped!r}>"

    @property
    def wrapped(self) -> FileT_co:
        """The file itself. Its methods block."""
        return self._wrapped

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in PASSED_THROUGH:
                return getattr(self._wrapped, name)
            if name in IN_THREAD:
                method = _in_thread(self._wrapped, name)
                # Made once: from now on the attribute is found without __getattr__.
                setattr(self, name, method)
                return method
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> Iterable[str]:
        there = {name for name in PASSED_THROUGH | IN_THREAD if hasattr(self._wrapped, name)}
        return there.union(super().__dir__())

    def __aiter__(self) -> AsyncIOWrapper[FileT_co]:
        return self

    async def __anext__(self: AsyncIOWrapper[ft.ReadsLines[DataT]]) -> DataT:
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    async def detach(self: AsyncIOWrapper[ft.Detaches[T]]) -> AsyncIOWrapper[T]:
        """Separate the underlying file from the wrapped file, as ``io.BufferedIOBase.detach`` does.

        Returns:
            The underlying file, in a new wrapper.

        Raises:
            Cancelled: The call was cancelled before it did anything.
            ValueError: The underlying file has already been detached.

        Checkpoint: yes.
        """
        return wrap_file(await to_thread_run_sync(self._wrapped.detach))

    async def aclose(self: AsyncIOWrapper[ft.CanClose]) -> None:
        """Close the file, after writing out buffered data. Closing again does nothing.

        The file is closed even if the task is cancelled.

        Raises:
            Cancelled: The task is cancelled; the file is closed.
            OSError: The buffered data could not be written.

        Checkpoint: yes.
        """
        await complete_in_thread(self._wrapped.close)

    if TYPE_CHECKING:
        # fmt: off
        @property
        def closed(self: AsyncIOWrapper[ft.Base]) -> bool: ...
        @property
        def encoding(self: AsyncIOWrapper[ft.Text]) -> str: ...
        @property
        def errors(self: AsyncIOWrapper[ft.Text]) -> str | None: ...
        @property
        def line_buffering(self: AsyncIOWrapper[ft.Text]) -> bool: ...
        @property
        def buffer(self: AsyncIOWrapper[ft.Text]) -> BinaryIO: ...
        @property
        def newlines(self: AsyncIOWrapper[ft.HasNewlines[T]]) -> T: ...
        @property
        def raw(self: AsyncIOWrapper[ft.Buffered]) -> io.RawIOBase: ...
        @property
        def closefd(self: AsyncIOWrapper[ft.Raw]) -> bool: ...
        @property
        def name(self: AsyncIOWrapper[ft.Named[T]]) -> T: ...
        @property
        def mode(self: AsyncIOWrapper[ft.HasMode]) -> str: ...
        def fileno(self: AsyncIOWrapper[ft.Base]) -> int: ...
        def isatty(self: AsyncIOWrapper[ft.Base]) -> bool: ...
        def readable(self: AsyncIOWrapper[ft.Base]) -> bool: ...
        def seekable(self: AsyncIOWrapper[ft.Base]) -> bool: ...
        def writable(self: AsyncIOWrapper[ft.Base]) -> bool: ...
        def getvalue(self: AsyncIOWrapper[ft.InMemory[DataT]]) -> DataT: ...
        def getbuffer(self: AsyncIOWrapper[ft.InMemoryBinary]) -> memoryview: ...
        async def flush(self: AsyncIOWrapper[ft.Base]) -> None: ...
        async def seek(self: AsyncIOWrapper[ft.Base], offset: int, whence: int = 0, /) -> int: ...
        async def tell(self: AsyncIOWrapper[ft.Base]) -> int: ...
        async def truncate(self: AsyncIOWrapper[ft.Base], size: int | None = None, /) -> int: ...
        async def peek(self: AsyncIOWrapper[ft.Peeks], size: int = 0, /) -> bytes: ...
        async def read(
            self: AsyncIOWrapper[ft.Reads[DataT]], size: int | None = -1, /
        ) -> DataT: ...
        async def read1(self: AsyncIOWrapper[ft.ReadsOnce], size: int = -1, /) -> bytes: ...
        async def readall(self: AsyncIOWrapper[ft.Raw]) -> bytes: ...
        async def readinto(self: AsyncIOWrapper[ft.ReadsInto], buffer: Buffer, /) -> int | None: ...
        async def readinto1(self: AsyncIOWrapper[ft.ReadsOnce], buffer: Buffer, /) -> int: ...
        async def readline(
            self: AsyncIOWrapper[ft.ReadsLines[DataT]], size: int = -1, /
        ) -> DataT: ...
        async def readlines(
            self: AsyncIOWrapper[ft.ReadsLines[DataT]], hint: int = -1, /
        ) -> list[DataT]: ...
        async def write(self: AsyncIOWrapper[ft.Writes[T]], data: T, /) -> int: ...
        async def writelines(
            self: AsyncIOWrapper[ft.WritesLines[T]], lines: Iterable[T], /
        ) -> None: ...
        # fmt: on


async def complete_in_thread(fn: Callable[[], object]) -> None:
    """Call ``fn()`` in a worker thread, for a cleanup: also if the task is cancelled.

    If there can be no further thread, ``fn()`` is called in this one.

    Raises:
        Cancelled: The task is cancelled; ``fn`` has been called.
        Exception: The error of ``fn``.

    Checkpoint: yes.
    """
    cancelled: Cancelled | None = None
    begun = False

    def call() -> object:
        nonlocal begun
        begun = True
        return fn()

    call.__name__ = text_of(fn, "__name__") or "cleanup"
    with CancelScope(shield=True):
        while True:
            try:
                await to_thread_run_sync(call)
                break
            except Cancelled as error:
                # A native cancellation, before the thread began. A shield does not stop those.
                cancelled = error
            except Exception:
                if begun:
                    raise
                # The system cannot start a thread. What is left open would make that worse.
                fn()
                break
    if cancelled is not None:
        try:
            raise cancelled
        finally:
            del cancelled
    await checkpoint_if_cancelled()


class Opening(Coroutine[Any, Any, OpenT]):
    """A call that opens a file: ``await`` returns the file, ``async with`` closes it at the end.

    It is a coroutine to all other code, and warns like one if it is never awaited.

    Args:
        coroutine: The call itself, an async function's.
        name: The name of the function that the user has called, for the warning.
    """

    __slots__ = ("__weakref__", "_coroutine", "_name", "_open")

    def __init__(self, coroutine: Coroutine[Any, Any, OpenT], name: str) -> None:
        for attribute in ("__name__", "__qualname__"):
            setattr(coroutine, attribute, name)
        self._coroutine = coroutine
        self._name = name

    def __repr__(self) -> str:
        return f"<call of {self._name}()>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            # Tasks and tools ask a coroutine for its name and its frame.
            if name in {"__name__", "__qualname__"} or name.startswith("cr_"):
                return getattr(self._coroutine, name)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __await__(self) -> Generator[Any, Any, OpenT]:
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        """As the method of a coroutine."""
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As the method of a coroutine."""
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As the method of a coroutine."""
        self._coroutine.close()

    async def __aenter__(self) -> OpenT:
        self._open = await self._coroutine
        return self._open

    async def __aexit__(self, *_error: object) -> None:
        await self._open.aclose()


def opens(function: FnT) -> FnT:
    """Mark a function that returns an :class:`Opening` as async, for code that asks."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    return function


def _in_thread(file: object, name: str) -> Callable[..., Any]:
    """Make an async function of a method of a file."""
    method = getattr(file, name)

    async def call(*args: Any, **kwargs: Any) -> Any:
        return await to_thread_run_sync(partial(method, *args, **kwargs), thread_name=name)

    of = type(file)
    call.__name__ = name
    call.__qualname__ = f"AsyncIOWrapper.{name}"
    call.__doc__ = f"Like :meth:`{of.__module__}.{of.__qualname__}.{name}`, in a worker thread."
    return call


# fmt: off
@overload
def open_file(
    file: FileName, mode: OpenTextMode = "r", buffering: int = -1, encoding: str | None = None,
    errors: str | None = None, newline: str | None = None, closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[AsyncIOWrapper[io.TextIOWrapper]]: ...
@overload
def open_file(
    file: FileName, mode: OpenBinaryMode, buffering: Literal[0], encoding: None = None,
    errors: None = None, newline: None = None, closefd: bool = True, opener: Opener | None = None,
) -> Opening[AsyncIOWrapper[io.FileIO]]: ...
@overload
def open_file(
    file: FileName, mode: OpenBinaryModeUpdating, buffering: Literal[-1, 1] = -1,
    encoding: None = None, errors: None = None, newline: None = None, closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[AsyncIOWrapper[io.BufferedRandom]]: ...
@overload
def open_file(
    file: FileName, mode: OpenBinaryModeWriting, buffering: Literal[-1, 1] = -1,
    encoding: None = None, errors: None = None, newline: None = None, closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[AsyncIOWrapper[io.BufferedWriter]]: ...
@overload
def open_file(
    file: FileName, mode: OpenBinaryModeReading, buffering: Literal[-1, 1] = -1,
    encoding: None = None, errors: None = None, newline: None = None, closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[AsyncIOWrapper[io.BufferedReader]]: ...
@overload
def open_file(
    file: FileName, mode: OpenBinaryMode, buffering: int, encoding: None = None,
    errors: None = None, newline: None = None, closefd: bool = True, opener: Opener | None = None,
) -> Opening[AsyncIOWrapper[BinaryIO]]: ...
@overload
def open_file(
    file: FileName, mode: str, buffering: int = -1, encoding: str | None = None,
    errors: str | None = None, newline: str | None = None, closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[AsyncIOWrapper[IO[Any]]]: ...
# fmt: on


@opens
@needs("files")
def open_file(
    file: FileName,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Opener | None = None,
) -> Opening[AsyncIOWrapper[Any]]:
    """Open a file: the built-in :func:`open`, in a worker thread.

    Use it as ``async with open_file(...) as file:``, which closes the file at the end of the block.
    With ``file = await open_file(...)`` the file stays open until ``await file.aclose()``.

    Args:
        file: Name of the file, or a file descriptor.
        mode: All further arguments are those of :func:`open`.
        buffering: See :func:`open`.
        encoding: See :func:`open`.
        errors: See :func:`open`.
        newline: See :func:`open`.
        closefd: See :func:`open`.
        opener: See :func:`open`; it runs in the worker thread.

    Returns:
        A call to be awaited or used with ``async with``. Its result is the open file, wrapped.

    Raises:
        Cancelled: The call was cancelled before the file was opened.
        OSError: The file cannot be opened.
        ValueError: The arguments contradict each other.

    Checkpoint: yes.

    Trio: ``trio.open_file``.
    """
    args = (file, mode, buffering, encoding, errors, newline, closefd, opener)
    return Opening(_open_wrapped(io.open, *args), "open_file")


async def _open_wrapped(opener: Callable[..., FileT], *args: Any) -> AsyncIOWrapper[FileT]:
    return wrap_file(await to_thread_run_sync(opener, *args))


@needs("files")
def wrap_file(file: FileT) -> AsyncIOWrapper[FileT]:
    """Make the methods of an open file async.

    Args:
        file: Any object with a method ``close`` and a method ``read`` or ``write``.

    Returns:
        The wrapper. Its attribute ``wrapped`` is the file.

    Raises:
        TypeError: ``file`` does not have these methods. If it is the name of a file, use
            :func:`open_file`.

    Checkpoint: no, this is not an async function.

    Trio: ``trio.wrap_file``.
    """

    def has(name: str) -> bool:
        return callable(getattr(file, name, None))

    if not (has("close") and (has("read") or has("write"))):
        error = TypeError(
            f"{file} does not implement required duck-file methods: close and (read or write)"
        )
        if isinstance(file, str):
            add_note(error, "to open a file by its name use open_file")
        raise error
    return AsyncIOWrapper(file)
