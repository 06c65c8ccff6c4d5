"""Paths whose methods that use the file system are awaited: :class:`Path`.

anyio's ``Path`` is not used, for two reasons. It is not a ``PurePath``. And its methods iterate
asynchronously where Trio's return an ordinary iterator that is complete.

Rule 1: a path *is* a :class:`pathlib.PurePath`. Methods that do not use the file system are
inherited as they are.

Rule 2: every other method is made from that of :class:`pathlib.Path` by the decorators of
``path_methods``, and runs in a worker thread.

Rule 3: a method exists exactly where ``pathlib.Path`` has it: in the same Python versions, on the
same systems.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import TYPE_CHECKING, Any, ClassVar, overload

from .._base.unsupported import needs
from .files import AsyncIOWrapper, Opening, opens, wrap_file
from .path_methods import (
    Info,
    Walk,
    call_in_thread,
    returns_path,
    returns_paths,
    returns_value,
    to_pathlib,
)
from .threads import to_thread_run_sync

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from typing import IO, BinaryIO, Literal

    from _typeshed import (
        OpenBinaryMode,
        OpenBinaryModeReading,
        OpenBinaryModeUpdating,
        OpenBinaryModeWriting,
        OpenTextMode,
    )
    from typing_extensions import Self

    from .path_methods import PathT

__all__ = ["Path", "PosixPath", "WindowsPath"]


class Path(pathlib.PurePath):
    """A path whose methods that use the file system are async.

    It is used like :class:`pathlib.Path`, with ``await`` before every method that does more than
    compute: ``await path.read_text()``. ``Path(...)`` makes a :class:`PosixPath` or a
    :class:`WindowsPath`.

    A method that has begun cannot be stopped, so it runs to its end in spite of a cancellation.
    The attributes and methods that only compute are those of :class:`pathlib.PurePath`.

    Args:
        args: The parts of the path, strings or paths. None for the current folder.

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
    @needs("files", "Path.cwd()")
    async def cwd(cls) -> Self:
        """The current directory, see :meth:`pathlib.Path.cwd`.

        Checkpoint: yes.

        Trio: ``trio.Path.cwd``.
        """
        return cls(await to_thread_run_sync(pathlib.Path.cwd))

    @classmethod
    @needs("files", "Path.home()")
    async def home(cls) -> Self:
        """The user's home directory, see :meth:`pathlib.Path.home`.

        Checkpoint: yes.

        Trio: ``trio.Path.home``.
        """
        return cls(await to_thread_run_sync(pathlib.Path.home))

    def as_uri(self) -> str:
        """The path as a ``file:`` URI. It must be absolute.

        Raises:
            ValueError: The path is not absolute.
        """
        uri: str = to_pathlib(self).as_uri()
        return uri

    # fmt: off
    @overload
    def open(
        self, mode: OpenTextMode = "r", buffering: int = -1, encoding: str | None = None,
        errors: str | None = None, newline: str | None = None,
    ) -> Opening[AsyncIOWrapper[io.TextIOWrapper]]: ...
    @overload
    def open(
        self, mode: OpenBinaryMode, buffering: Literal[0], encoding: None = None,
        errors: None = None, newline: None = None,
    ) -> Opening[AsyncIOWrapper[io.FileIO]]: ...
    @overload
    def open(
        self, mode: OpenBinaryModeUpdating, buffering: Literal[-1, 1] = -1,
        encoding: None = None, errors: None = None, newline: None = None,
    ) -> Opening[AsyncIOWrapper[io.BufferedRandom]]: ...
    @overload
    def open(
        self, mode: OpenBinaryModeWriting, buffering: Literal[-1, 1] = -1,
        encoding: None = None, errors: None = None, newline: None = None,
    ) -> Opening[AsyncIOWrapper[io.BufferedWriter]]: ...
    @overload
    def open(
        self, mode: OpenBinaryModeReading, buffering: Literal[-1, 1] = -1,
        encoding: None = None, errors: None = None, newline: None = None,
    ) -> Opening[AsyncIOWrapper[io.BufferedReader]]: ...
    @overload
    def open(
        self, mode: OpenBinaryMode, buffering: int, encoding: None = None,
        errors: None = None, newline: None = None,
    ) -> Opening[AsyncIOWrapper[BinaryIO]]: ...
    @overload
    def open(
        self, mode: str, buffering: int = -1, encoding: str | None = None,
        errors: str | None = None, newline: str | None = None,
    ) -> Opening[AsyncIOWrapper[IO[Any]]]: ...
    # fmt: on

    @opens
    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Opening[AsyncIOWrapper[Any]]:
        """Open the file, see :meth:`pathlib.Path.open` and :func:`nurseryio.open_file`.

        Use it as ``async with path.open(...) as file:``, or await it.

        Returns:
            A call to be awaited or used with ``async with``. Its result is the open file, with
            async methods.

        Raises:
            OSError: The file cannot be opened.

        Checkpoint: yes.

        Trio: ``trio.Path.open``.
        """
        args = (mode, buffering, encoding, errors, newline)
        return Opening(self._open_wrapped(args), "Path.open")

    async def _open_wrapped(self, args: tuple[Any, ...]) -> AsyncIOWrapper[Any]:
        return wrap_file(await call_in_thread(pathlib.Path.open, self, args, {}))

    @returns_path(pathlib.Path.absolute)
    def absolute(self: PathT) -> None:
        """Make the path absolute, without following links."""

    @returns_value(pathlib.Path.chmod)
    def chmod(self) -> None:
        """Change the permissions."""

    @returns_value(pathlib.Path.exists)
    def exists(self) -> None:
        """Ask whether the path exists."""

    @returns_path(pathlib.Path.expanduser)
    def expanduser(self: PathT) -> None:
        """Replace ``~`` and ``~user`` by home directories."""

    @returns_paths(pathlib.Path.glob)
    def glob(self: PathT) -> None:
        """Find the paths that match a pattern, relative to this path."""

    @returns_value(pathlib.Path.hardlink_to)
    def hardlink_to(self) -> None:
        """Make this path another name of the file ``target``."""

    @returns_value(pathlib.Path.is_block_device)
    def is_block_device(self) -> None:
        """Ask whether it is a block device."""

    @returns_value(pathlib.Path.is_char_device)
    def is_char_device(self) -> None:
        """Ask whether it is a character device."""

    @returns_value(pathlib.Path.is_dir)
    def is_dir(self) -> None:
        """Ask whether it is a directory."""

    @returns_value(pathlib.Path.is_fifo)
    def is_fifo(self) -> None:
        """Ask whether it is a named pipe."""

    @returns_value(pathlib.Path.is_file)
    def is_file(self) -> None:
        """Ask whether it is an ordinary file."""

    @returns_value(pathlib.Path.is_socket)
    def is_socket(self) -> None:
        """Ask whether it is a Unix socket."""

    @returns_value(pathlib.Path.is_symlink)
    def is_symlink(self) -> None:
        """Ask whether it is a symbolic link."""

    @returns_paths(pathlib.Path.iterdir)
    def iterdir(self: PathT) -> None:
        """List the entries of the directory."""

    @returns_value(pathlib.Path.lchmod)
    def lchmod(self) -> None:
        """Change the permissions; if the path is a link, those of the link itself."""

    @returns_value(pathlib.Path.lstat)
    def lstat(self) -> None:
        """Ask for size, times and so on; if the path is a link, those of the link itself."""

    @returns_value(pathlib.Path.mkdir)
    def mkdir(self) -> None:
        """Make a directory."""

    @returns_value(pathlib.Path.read_bytes)
    def read_bytes(self) -> None:
        """Read the whole file as bytes."""

    @returns_value(pathlib.Path.read_text)
    def read_text(self) -> None:
        """Read the whole file as text."""

    @returns_path(pathlib.Path.readlink)
    def readlink(self: PathT) -> None:
        """Ask where a symbolic link points."""

    @returns_path(pathlib.Path.rename)
    def rename(self: PathT) -> None:
        """Give the file or directory another name."""

    @returns_path(pathlib.Path.replace)
    def replace(self: PathT) -> None:
        """Give the file or directory another name, and replace a file of that name."""

    @returns_path(pathlib.Path.resolve)
    def resolve(self: PathT) -> None:
        """Make the path absolute and follow all links."""

    @returns_paths(pathlib.Path.rglob)
    def rglob(self: PathT) -> None:
        """Find the paths that match a pattern, at any depth below this path."""

    @returns_value(pathlib.Path.rmdir)
    def rmdir(self) -> None:
        """Remove an empty directory."""

    @returns_value(pathlib.Path.samefile)
    def samefile(self) -> None:
        """Ask whether another path refers to the same file."""

    @returns_value(pathlib.Path.stat)
    def stat(self) -> None:
        """Ask for size, times and so on."""

    @returns_value(pathlib.Path.symlink_to)
    def symlink_to(self) -> None:
        """Make this path a symbolic link to ``target``."""

    @returns_value(pathlib.Path.touch)
    def touch(self) -> None:
        """Make an empty file; if the file exists, set its time."""

    @returns_value(pathlib.Path.unlink)
    def unlink(self) -> None:
        """Remove the file or link."""

    @returns_value(pathlib.Path.write_bytes)
    def write_bytes(self) -> None:
        """Write bytes as the whole content of the file."""

    @returns_value(pathlib.Path.write_text)
    def write_text(self) -> None:
        """Write text as the whole content of the file."""

    if sys.platform != "win32":

        @returns_value(pathlib.Path.group)
        def group(self) -> None:
            """Ask for the name of the file's group."""

        @returns_value(pathlib.Path.owner)
        def owner(self) -> None:
            """Ask for the name of the file's owner."""

    if sys.platform != "win32" or sys.version_info >= (3, 12):

        @returns_value(pathlib.Path.is_mount)
        def is_mount(self) -> None:
            """Ask whether another file system is mounted here."""

    if sys.version_info < (3, 12):

        @returns_value(pathlib.Path.link_to)
        def link_to(self) -> None:
            """Make ``target`` another name of this file."""

    if sys.version_info >= (3, 12):

        @returns_value(pathlib.Path.is_junction)
        def is_junction(self) -> None:
            """Ask whether it is a junction of Windows."""

        def walk(
            self,
            top_down: bool = True,
            on_error: Callable[[OSError], object] | None = None,
            follow_symlinks: bool = False,
        ) -> Walk[Self]:
            """Iterate over the directory tree: ``async for path, dirs, files in top.walk():``.

            Each step runs in a worker thread. If ``top_down`` is true, directories that you remove
            from ``dirs`` are not visited.

            Args:
                top_down: See :meth:`pathlib.Path.walk`.
                on_error: See :meth:`pathlib.Path.walk`; it runs in the worker thread.
                follow_symlinks: See :meth:`pathlib.Path.walk`.

            Returns:
                An async iterator of directories, each with the names of the directories and of
                the other files in it.

            Checkpoint: yes, each step is.

            Trio: none.
            """
            steps = to_pathlib(self).walk(top_down, on_error, follow_symlinks)
            return Walk(type(self), steps)

    if sys.version_info >= (3, 13):

        @returns_value(pathlib.Path.full_match)
        def full_match(self) -> None:  # type: ignore[override]
            """Match the whole path with a pattern. Async as in Trio, though it only computes."""

        @classmethod
        def from_uri(cls, uri: str) -> Self:
            """Make a path from a ``file:`` URI, see :meth:`pathlib.Path.from_uri`.

            Raises:
                ValueError: ``uri`` is not a ``file:`` URI, or the path is not absolute.
            """
            return cls(pathlib.Path.from_uri(uri))

    if sys.version_info >= (3, 14):

        @property
        def info(self) -> Info:
            """The kind of the file, with the async methods of :class:`pathlib.types.PathInfo`.

            Keep the object to ask several questions with few system calls::

                info = path.info
                if await info.is_file() or await info.is_dir():
                    ...

            Each access makes a new object, which asks the system again.

            Trio: none.
            """
            return Info(to_pathlib(self).info)

        @returns_path(pathlib.Path.copy)
        def copy(self: PathT) -> None:
            """Copy the file or tree to ``target``."""

        @returns_path(pathlib.Path.copy_into)
        def copy_into(self: PathT) -> None:
            """Copy the file or tree into a directory."""

        @returns_path(pathlib.Path.move)
        def move(self: PathT) -> None:
            """Move the file or tree to ``target``."""

        @returns_path(pathlib.Path.move_into)
        def move_into(self: PathT) -> None:
            """Move the file or tree into a directory."""


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
