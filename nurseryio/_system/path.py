"""Paths whose methods that touch the file system are awaited: :class:`Path`.

Ours, not anyio's: anyio's ``Path`` is no ``PurePath``, and iterates asynchronously where Trio
returns an iterator that is ready.

Rule 1: a path *is* a :class:`pathlib.PurePath`: what needs no file system is inherited as it is.

Rule 2: every other method is made from that of :class:`pathlib.Path` by one of four functions, by
what it returns: a plain value, a path, many paths, or an open file. It runs in a worker thread,
on a ``pathlib.Path`` made for the call.

Rule 3: a method exists exactly where ``pathlib.Path`` has it, by Python version and system.
"""

from __future__ import annotations

import os
import pathlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

from .files import AsyncIOWrapper, wrap_file
from .threads import to_thread_run_sync

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from typing import IO, BinaryIO, Concatenate, Literal, ParamSpec

    from _typeshed import (
        OpenBinaryMode,
        OpenBinaryModeReading,
        OpenBinaryModeUpdating,
        OpenBinaryModeWriting,
        OpenTextMode,
    )
    from typing_extensions import Self

    P = ParamSpec("P")

__all__ = ["Path", "PosixPath", "WindowsPath"]

T = TypeVar("T")
PathT = TypeVar("PathT", bound="Path")


# -- making methods -------------------------------------------------------------


def _to_pathlib(value: Any) -> Any:
    return value._pathlib_class(value) if isinstance(value, Path) else value


async def _in_thread(fn: Callable[..., T], path: Path, args: Any, kwargs: Any) -> T:
    """Call a function of ``pathlib.Path`` in a worker thread.

    Paths of ours among the arguments become ``pathlib``'s as well: it calls their methods.
    """
    plain_args = [_to_pathlib(arg) for arg in args]
    plain_kwargs = {name: _to_pathlib(arg) for name, arg in kwargs.items()}
    call = partial(fn, _to_pathlib(path), *plain_args, **plain_kwargs)
    return await to_thread_run_sync(call, thread_name=fn.__name__)


def _named_after(fn: Any, method: Any, note: str = "") -> Any:
    method.__name__ = fn.__name__
    method.__qualname__ = f"Path.{fn.__name__}"
    method.__doc__ = (
        f"Like :meth:`pathlib.Path.{fn.__name__}`, in a worker thread.{note}\n\n"
        "Checkpoint: yes.\n\n"
        f"Trio: ``trio.Path.{fn.__name__}``.\n"
    )
    return method


def _returns_value(
    fn: Callable[Concatenate[pathlib.Path, P], T],
) -> Callable[Concatenate[Path, P], Coroutine[Any, Any, T]]:
    async def method(self: Path, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await _in_thread(fn, self, args, kwargs)

    return _named_after(fn, method)  # type: ignore[no-any-return]


def _returns_path(
    fn: Callable[Concatenate[pathlib.Path, P], pathlib.Path],
) -> Callable[Concatenate[PathT, P], Coroutine[Any, Any, PathT]]:
    async def method(self: PathT, /, *args: P.args, **kwargs: P.kwargs) -> PathT:
        return type(self)(await _in_thread(fn, self, args, kwargs))

    return _named_after(fn, method)  # type: ignore[no-any-return]


def _returns_paths(
    fn: Callable[Concatenate[pathlib.Path, P], Iterable[pathlib.Path]],
) -> Callable[Concatenate[PathT, P], Coroutine[Any, Any, Iterator[PathT]]]:
    def listed(path: pathlib.Path, *args: P.args, **kwargs: P.kwargs) -> list[pathlib.Path]:
        return list(fn(path, *args, **kwargs))

    listed.__name__ = fn.__name__

    async def method(self: PathT, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[PathT]:
        return map(type(self), await _in_thread(listed, self, args, kwargs))

    note = (
        "\n\nAll paths are collected before the call returns, so loop over them by an ordinary\n"
        f"``for entry in await path.{fn.__name__}(...):``."
    )
    return _named_after(fn, method, note)  # type: ignore[no-any-return]


# -- paths ----------------------------------------------------------------------


class Path(pathlib.PurePath):
    """A path whose methods that touch the file system are async.

    As :class:`pathlib.Path`, with ``await`` before every method that does more than compute:
    ``await path.read_text()``. Calling it gives a :class:`PosixPath` or :class:`WindowsPath`.

    A method that has begun ends in spite of a cancellation, as it cannot be stopped.

    Trio: ``trio.Path``.
    """

    __slots__ = ()

    _pathlib_class: ClassVar[type[pathlib.Path]]

    def __new__(cls, *args: str | os.PathLike[str]) -> Self:
        if cls is Path:
            cls = WindowsPath if os.name == "nt" else PosixPath  # type: ignore[assignment]
        return super().__new__(cls, *args)

    def __repr__(self) -> str:
        return f"nurseryio.Path({str(self)!r})"

    @classmethod
    async def cwd(cls) -> Self:
        """The current directory, see :meth:`pathlib.Path.cwd`.

        Checkpoint: yes.

        Trio: ``trio.Path.cwd``.
        """
        return cls(await to_thread_run_sync(pathlib.Path.cwd))

    @classmethod
    async def home(cls) -> Self:
        """The user's home directory, see :meth:`pathlib.Path.home`.

        Checkpoint: yes.

        Trio: ``trio.Path.home``.
        """
        return cls(await to_thread_run_sync(pathlib.Path.home))

    def as_uri(self) -> str:
        """The path as a ``file:`` URI. It must be absolute.

        Raises:
            ValueError: It is not.
        """
        uri: str = _to_pathlib(self).as_uri()
        return uri

    # fmt: off
    @overload
    async def open(
        self, mode: OpenTextMode = "r", buffering: int = -1, encoding: str | None = None,
        errors: str | None = None, newline: str | None = None,
    ) -> AsyncIOWrapper[io.TextIOWrapper]: ...
    @overload
    async def open(
        self, mode: OpenBinaryMode, buffering: Literal[0], encoding: None = None,
        errors: None = None, newline: None = None,
    ) -> AsyncIOWrapper[io.FileIO]: ...
    @overload
    async def open(
        self, mode: OpenBinaryModeUpdating, buffering: Literal[-1, 1] = -1,
        encoding: None = None, errors: None = None, newline: None = None,
    ) -> AsyncIOWrapper[io.BufferedRandom]: ...
    @overload
    async def open(
        self, mode: OpenBinaryModeWriting, buffering: Literal[-1, 1] = -1,
        encoding: None = None, errors: None = None, newline: None = None,
    ) -> AsyncIOWrapper[io.BufferedWriter]: ...
    @overload
    async def open(
        self, mode: OpenBinaryModeReading, buffering: Literal[-1, 1] = -1,
        encoding: None = None, errors: None = None, newline: None = None,
    ) -> AsyncIOWrapper[io.BufferedReader]: ...
    @overload
    async def open(
        self, mode: OpenBinaryMode, buffering: int, encoding: None = None,
        errors: None = None, newline: None = None,
    ) -> AsyncIOWrapper[BinaryIO]: ...
    @overload
    async def open(
        self, mode: str, buffering: int = -1, encoding: str | None = None,
        errors: str | None = None, newline: str | None = None,
    ) -> AsyncIOWrapper[IO[Any]]: ...
    # fmt: on

    async def open(self, *args: Any, **kwargs: Any) -> AsyncIOWrapper[Any]:
        """Open the file, see :meth:`pathlib.Path.open` and :func:`nurseryio.open_file`.

        Returns:
            The open file, with async methods.

        Raises:
            OSError: It cannot be opened.

        Checkpoint: yes.

        Trio: ``trio.Path.open``.
        """
        return wrap_file(await _in_thread(pathlib.Path.open, self, args, kwargs))

    absolute = _returns_path(pathlib.Path.absolute)
    chmod = _returns_value(pathlib.Path.chmod)
    exists = _returns_value(pathlib.Path.exists)
    expanduser = _returns_path(pathlib.Path.expanduser)
    glob = _returns_paths(pathlib.Path.glob)
    hardlink_to = _returns_value(pathlib.Path.hardlink_to)
    is_block_device = _returns_value(pathlib.Path.is_block_device)
    is_char_device = _returns_value(pathlib.Path.is_char_device)
    is_dir = _returns_value(pathlib.Path.is_dir)
    is_fifo = _returns_value(pathlib.Path.is_fifo)
    is_file = _returns_value(pathlib.Path.is_file)
    is_socket = _returns_value(pathlib.Path.is_socket)
    is_symlink = _returns_value(pathlib.Path.is_symlink)
    iterdir = _returns_paths(pathlib.Path.iterdir)
    lchmod = _returns_value(pathlib.Path.lchmod)
    lstat = _returns_value(pathlib.Path.lstat)
    mkdir = _returns_value(pathlib.Path.mkdir)
    read_bytes = _returns_value(pathlib.Path.read_bytes)
    read_text = _returns_value(pathlib.Path.read_text)
    readlink = _returns_path(pathlib.Path.readlink)
    rename = _returns_path(pathlib.Path.rename)
    replace = _returns_path(pathlib.Path.replace)
    resolve = _returns_path(pathlib.Path.resolve)
    rglob = _returns_paths(pathlib.Path.rglob)
    rmdir = _returns_value(pathlib.Path.rmdir)
    samefile = _returns_value(pathlib.Path.samefile)
    stat = _returns_value(pathlib.Path.stat)
    symlink_to = _returns_value(pathlib.Path.symlink_to)
    touch = _returns_value(pathlib.Path.touch)
    unlink = _returns_value(pathlib.Path.unlink)
    write_bytes = _returns_value(pathlib.Path.write_bytes)
    write_text = _returns_value(pathlib.Path.write_text)
    if sys.platform != "win32":
        group = _returns_value(pathlib.Path.group)
        owner = _returns_value(pathlib.Path.owner)
    if sys.platform != "win32" or sys.version_info >= (3, 12):
        is_mount = _returns_value(pathlib.Path.is_mount)
    if sys.version_info < (3, 12):
        link_to = _returns_value(pathlib.Path.link_to)
    if sys.version_info >= (3, 12):
        is_junction = _returns_value(pathlib.Path.is_junction)

        def walk(
            self,
            top_down: bool = True,
            on_error: Callable[[OSError], object] | None = None,
            follow_symlinks: bool = False,
        ) -> Walk[Self]:
            """Go through the directory tree: ``async for path, dirs, files in top.walk():``.

            Each step runs in a worker thread. Going top down, names taken out of ``dirs`` are
            not visited.

            Args:
                top_down: See :meth:`pathlib.Path.walk`.
                on_error: See :meth:`pathlib.Path.walk`; it runs in the worker thread.
                follow_symlinks: See :meth:`pathlib.Path.walk`.

            Returns:
                An async iterator of directories, each with the names of the directories and of
                the other files in it.

            Checkpoint: yes, each step is.

            Trio: has none.
            """
            steps = _to_pathlib(self).walk(top_down, on_error, follow_symlinks)
            return Walk(type(self), steps)

    if sys.version_info >= (3, 13):
        # Async in Trio, though it computes only.
        full_match = _returns_value(pathlib.Path.full_match)  # type: ignore[assignment]

        @classmethod
        def from_uri(cls, uri: str) -> Self:
            """Make a path from a ``file:`` URI, see :meth:`pathlib.Path.from_uri`.

            Raises:
                ValueError: It is no such URI, or the path is not absolute.
            """
            return cls(pathlib.Path.from_uri(uri))

    if sys.version_info >= (3, 14):
        copy = _returns_path(pathlib.Path.copy)
        copy_into = _returns_path(pathlib.Path.copy_into)
        move = _returns_path(pathlib.Path.move)
        move_into = _returns_path(pathlib.Path.move_into)


class Walk(Generic[PathT]):
    """The steps of ``Path.walk``, each in a worker thread. For one task at a time."""

    def __init__(
        self, cls: type[PathT], steps: Iterator[tuple[pathlib.Path, list[str], list[str]]]
    ) -> None:
        self._cls = cls
        self._steps = steps

    def __aiter__(self) -> Walk[PathT]:
        return self

    async def __anext__(self) -> tuple[PathT, list[str], list[str]]:
        step = await to_thread_run_sync(next, self._steps, None, thread_name="walk")
        if step is None:
            raise StopAsyncIteration
        path, dirs, files = step
        return self._cls(path), dirs, files


class PosixPath(Path, pathlib.PurePosixPath):
    """A :class:`Path` of a system other than Windows.

    Trio: ``trio.PosixPath``.
    """

    __slots__ = ()

    _pathlib_class = pathlib.PosixPath


class WindowsPath(Path, pathlib.PureWindowsPath):
    """A :class:`Path` on Windows.

    Trio: ``trio.WindowsPath``.
    """

    __slots__ = ()

    _pathlib_class = pathlib.WindowsPath
