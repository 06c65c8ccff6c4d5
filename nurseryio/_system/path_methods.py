"""The decorators that make the methods of ``Path`` from those of ``pathlib.Path``.

A method is declared by its name and a summary. There are three decorators, for methods of
``pathlib.Path`` that return a plain value, a path, or many paths::

    @returns_value(pathlib.Path.stat)
    def stat(self) -> None:
        \"\"\"Ask for size, times and so on.\"\"\"

Parameters and the type of the result are taken from ``pathlib``, in each Python version.

Rule: the call is made in a worker thread, on a ``pathlib.Path``. Each ``nurseryio.Path`` among the
arguments becomes a ``pathlib.Path`` as well, because the methods of ``pathlib`` call methods of
their arguments.
"""

from __future__ import annotations

import pathlib
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._base.unsupported import needs
from .threads import to_thread_run_sync

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from typing import Concatenate, ParamSpec, Protocol

    P = ParamSpec("P")

# For errors on a platform without threads.
_METHODS = "the methods of nurseryio.Path that use the file system"

T = TypeVar("T")
PathT = TypeVar("PathT", bound=pathlib.PurePath)

if TYPE_CHECKING:
    # The types of the methods that the decorators make. The type of "self" stays open.

    class MakesPath(Protocol[P]):
        def __call__(
            self, declared: Callable[[PathT], None], /
        ) -> Callable[Concatenate[PathT, P], Coroutine[Any, Any, PathT]]: ...

    class MakesPaths(Protocol[P]):
        def __call__(
            self, declared: Callable[[PathT], None], /
        ) -> Callable[Concatenate[PathT, P], Coroutine[Any, Any, Iterator[PathT]]]: ...


def to_pathlib(value: Any) -> Any:
    """Convert a ``nurseryio.Path`` to a ``pathlib.Path``; return any other value unchanged."""
    cls = getattr(type(value), "_pathlib_class", None)
    return value if cls is None else cls(value)


@needs("files", _METHODS)
async def call_in_thread(fn: Callable[..., T], path: pathlib.PurePath, args: Any, kwargs: Any) -> T:
    """Call a function of ``pathlib.Path`` in a worker thread."""
    plain_args = [to_pathlib(arg) for arg in args]
    plain_kwargs = {name: to_pathlib(arg) for name, arg in kwargs.items()}
    call = partial(fn, to_pathlib(path), *plain_args, **plain_kwargs)
    return await to_thread_run_sync(call, thread_name=fn.__name__)


def _complete(declared: Callable[[Any], None], fn: object, method: Any, note: str = "") -> Any:
    name = declared.__name__
    method.__name__ = name
    # ``inspect`` and ``help()`` find the parameters there.
    method.__wrapped__ = fn
    method.__qualname__ = declared.__qualname__
    method.__module__ = declared.__module__
    method.__doc__ = (
        f"{declared.__doc__}\n\n"
        f"Like :meth:`pathlib.Path.{name}`, in a worker thread.{note}\n\n"
        "Checkpoint: yes.\n\n"
        f"Trio: ``trio.Path.{name}``.\n"
    )
    return method


def returns_value(
    fn: Callable[Concatenate[pathlib.Path, P], T],
) -> Callable[[Callable[[Any], None]], Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]]:
    """Make a method that returns the result of ``fn``."""

    async def method(self: pathlib.PurePath, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await call_in_thread(fn, self, args, kwargs)

    return lambda declared: _complete(declared, fn, method)


def returns_path(fn: Callable[Concatenate[pathlib.Path, P], pathlib.Path]) -> MakesPath[P]:
    """Make a method that returns a path of the class of ``self``."""

    async def method(self: PathT, /, *args: P.args, **kwargs: P.kwargs) -> PathT:
        return type(self)(await call_in_thread(fn, self, args, kwargs))

    return lambda declared: _complete(declared, fn, method)


def returns_paths(
    fn: Callable[Concatenate[pathlib.Path, P], Iterable[pathlib.Path]],
) -> MakesPaths[P]:
    """Make a method that returns an iterator of paths of the class of ``self``."""

    def listed(path: pathlib.Path, *args: P.args, **kwargs: P.kwargs) -> list[pathlib.Path]:
        return list(fn(path, *args, **kwargs))

    listed.__name__ = fn.__name__

    async def method(self: PathT, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[PathT]:
        return map(type(self), await call_in_thread(listed, self, args, kwargs))

    note = (
        "\n\nAll paths are collected before the call returns, so loop over them by an ordinary\n"
        f"``for entry in await path.{fn.__name__}(...):``."
    )
    return lambda declared: _complete(declared, fn, method, note)


class Walk(Generic[PathT]):
    """The async iterator of ``Path.walk``. Each step runs in a worker thread.

    Only one task at a time may use it.
    """

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


class Info:
    """The kind of the file at a path, asked for in a worker thread and remembered from then on.

    ``info`` is the :attr:`pathlib.Path.info` of that path. It remembers what it has asked for.
    """

    __slots__ = ("_info",)

    def __init__(self, info: Any) -> None:
        self._info = info

    async def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Ask whether the path exists."""
        return await self._ask(self._info.exists, follow_symlinks=follow_symlinks)

    async def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Ask whether it is a directory."""
        return await self._ask(self._info.is_dir, follow_symlinks=follow_symlinks)

    async def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Ask whether it is an ordinary file."""
        return await self._ask(self._info.is_file, follow_symlinks=follow_symlinks)

    async def is_symlink(self) -> bool:
        """Ask whether it is a symbolic link."""
        return await self._ask(self._info.is_symlink)

    async def _ask(self, question: Callable[..., bool], **options: bool) -> bool:
        return await to_thread_run_sync(partial(question, **options), thread_name=question.__name__)
