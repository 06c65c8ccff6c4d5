"""Temporary files and directories, which are made and removed in worker threads.

Rule 1: the thread that makes one is waited for, cancelled or not. So there is no moment in which a
file exists and no block removes it.

Rule 2: the end of a block removes the file or directory also if the task is cancelled.

The standard library's ``tempfile`` does the work. It also removes what is left if the program ends
inside of a block, but not if the process is killed.
"""

from __future__ import annotations

import tempfile
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from .._base.unsupported import needs
from .._system.files import Opening, complete_in_thread, opens, wrap_file
from .._system.path import Path
from .._system.threads import to_thread_run_sync

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from _typeshed import GenericPath, OpenBinaryMode, OpenTextMode

    from .._system.files import AsyncIOWrapper

    # The wrapper of tempfile around a file with a name passes all attributes of the file on.
    Text: TypeAlias = Opening[AsyncIOWrapper[io.TextIOWrapper]]
    Binary: TypeAlias = Opening[AsyncIOWrapper[io.BufferedRandom]]

__all__ = ["NamedTemporaryFile", "TemporaryDirectory", "TemporaryFile"]


# fmt: off
@overload
def TemporaryFile(
    mode: OpenTextMode, buffering: int = -1, encoding: str | None = None,
    newline: str | None = None, suffix: str | None = None, prefix: str | None = None,
    dir: GenericPath[str] | None = None, *, errors: str | None = None,
) -> Text: ...
@overload
def TemporaryFile(
    mode: OpenBinaryMode = "w+b", buffering: int = -1, encoding: None = None,
    newline: None = None, suffix: str | None = None, prefix: str | None = None,
    dir: GenericPath[str] | None = None, *, errors: None = None,
) -> Binary: ...
# fmt: on


@opens
@needs("files")
def TemporaryFile(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | None = None,
    prefix: str | None = None,
    dir: GenericPath[str] | None = None,
    *,
    errors: str | None = None,
) -> Opening[Any]:
    """Make a file without a name, which vanishes when it is closed.

    Use it as ``async with TemporaryFile() as file:``. The file is closed at the end of the block,
    also if the task is cancelled.

    Args:
        mode: As in ``tempfile.TemporaryFile``, like all further arguments.
        buffering: See :func:`open`.
        encoding: See :func:`open`.
        newline: See :func:`open`.
        suffix: The end of its name, while it has one.
        prefix: The beginning of its name, while it has one.
        dir: The directory; None for the usual one.
        errors: See :func:`open`.

    Returns:
        A call to be awaited or used with ``async with``, like that of :func:`open_file`. Its result
        is the open file, wrapped.

    Raises:
        Cancelled: The call was cancelled before a file was made.
        OSError: The file cannot be made.

    Checkpoint: yes.

    Trio: none.
    """
    return _making(
        tempfile.TemporaryFile,
        "TemporaryFile",
        mode=mode,
        buffering=buffering,
        encoding=encoding,
        newline=newline,
        suffix=suffix,
        prefix=prefix,
        dir=dir,
        errors=errors,
    )


# fmt: off
@overload
def NamedTemporaryFile(
    mode: OpenTextMode, buffering: int = -1, encoding: str | None = None,
    newline: str | None = None, suffix: str | None = None, prefix: str | None = None,
    dir: GenericPath[str] | None = None, delete: bool = True, *, errors: str | None = None,
) -> Text: ...
@overload
def NamedTemporaryFile(
    mode: OpenBinaryMode = "w+b", buffering: int = -1, encoding: None = None,
    newline: None = None, suffix: str | None = None, prefix: str | None = None,
    dir: GenericPath[str] | None = None, delete: bool = True, *, errors: None = None,
) -> Binary: ...
# fmt: on


@opens
@needs("files")
def NamedTemporaryFile(
    mode: str = "w+b",
    buffering: int = -1,
    encoding: str | None = None,
    newline: str | None = None,
    suffix: str | None = None,
    prefix: str | None = None,
    dir: GenericPath[str] | None = None,
    delete: bool = True,
    *,
    errors: str | None = None,
) -> Opening[Any]:
    """Make a file with a name, which is removed when it is closed.

    Use it as ``async with NamedTemporaryFile() as file:``. The name is ``file.name``. The file is
    closed at the end of the block, also if the task is cancelled.

    Args:
        mode: As in ``tempfile.NamedTemporaryFile``, like all further arguments.
        buffering: See :func:`open`.
        encoding: See :func:`open`.
        newline: See :func:`open`.
        suffix: The end of its name.
        prefix: The beginning of its name.
        dir: The directory; None for the usual one.
        delete: Whether the file is removed when it is closed.
        errors: See :func:`open`.

    Returns:
        A call to be awaited or used with ``async with``, like that of :func:`open_file`. Its result
        is the open file, wrapped.

    Raises:
        Cancelled: The call was cancelled before a file was made.
        OSError: The file cannot be made.

    Checkpoint: yes.

    Trio: none.
    """
    return _making(
        tempfile.NamedTemporaryFile,
        "NamedTemporaryFile",
        mode=mode,
        buffering=buffering,
        encoding=encoding,
        newline=newline,
        suffix=suffix,
        prefix=prefix,
        dir=dir,
        delete=delete,
        errors=errors,
    )


def _making(maker: Callable[..., Any], name: str, **options: Any) -> Opening[Any]:
    async def make() -> AsyncIOWrapper[Any]:
        return wrap_file(await to_thread_run_sync(partial(maker, **options)))

    return Opening(make(), name)


@needs("files")
def TemporaryDirectory(
    suffix: str | None = None,
    prefix: str | None = None,
    dir: GenericPath[str] | None = None,
    *,
    ignore_cleanup_errors: bool = False,
) -> AbstractAsyncContextManager[Path]:
    """Make a directory, and remove it with everything in it at the end of the block.

    Use it as ``async with TemporaryDirectory() as path:``. The directory is removed also if the
    task is cancelled.

    Args:
        suffix: The end of its name.
        prefix: The beginning of its name.
        dir: The directory to make it in; None for the usual one.
        ignore_cleanup_errors: Whether errors of removing are ignored, for example on Windows, where
            an open file cannot be removed.

    Returns:
        An async context manager. Its value is the :class:`Path` of the directory.

    Raises:
        Cancelled: On entry: the task was cancelled before a directory was made. At the end: the
            task is cancelled; the directory is removed.
        OSError: The directory cannot be made or removed.

    Checkpoint: yes, on entry and at the end.

    Trio: none.
    """
    return _Directory(
        partial(
            tempfile.TemporaryDirectory,
            suffix,
            prefix,
            dir,
            ignore_cleanup_errors=ignore_cleanup_errors,
        )
    )


class _Directory:
    """The block of a temporary directory."""

    __slots__ = ("_made", "_make")

    def __init__(self, make: Callable[[], tempfile.TemporaryDirectory[str]]) -> None:
        self._make = make
        self._made: tempfile.TemporaryDirectory[str] | None = None

    def __repr__(self) -> str:
        return f"<TemporaryDirectory {self._made.name if self._made else 'not entered'}>"

    async def __aenter__(self) -> Path:
        if self._made is not None:
            raise RuntimeError("this TemporaryDirectory() has had its block: make a new one")
        self._made = await to_thread_run_sync(self._make)
        return Path(self._made.name)

    async def __aexit__(self, *_error: object) -> None:
        assert self._made is not None
        await complete_in_thread(self._made.cleanup)
