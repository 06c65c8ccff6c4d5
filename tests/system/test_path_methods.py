"""How the methods of paths are made."""

from __future__ import annotations

import inspect
import pathlib
import threading
from typing import Any, ClassVar

import pytest

from nurseryio import CancelScope, Path
from nurseryio._system.path_methods import (
    Info,
    Walk,
    returns_path,
    returns_paths,
    returns_value,
    to_pathlib,
)

calls: list[tuple[Any, ...]] = []


def noted(path: pathlib.Path, *args: Any, **kwargs: Any) -> str:
    """Stands for a method of ``pathlib.Path``."""
    calls.append((path, args, kwargs, threading.current_thread()))
    return "value"


class Made:
    """A class with a method of each kind."""

    _pathlib_class: ClassVar[Any] = pathlib.Path

    def __init__(self, name: Any) -> None:
        self.name = name

    def __fspath__(self) -> str:
        return str(self.name)

    @returns_value(noted)
    def value(self) -> None:
        """Give a value."""

    @returns_path(pathlib.Path.with_name)
    def path(self) -> None:
        """Give a path."""

    @returns_paths(lambda path: (path / name for name in "abc"))
    def paths(self) -> None:
        """Give paths."""


def test_nurseryio_paths_become_pathlib_paths_and_other_arguments_stay() -> None:
    made = to_pathlib(Path("a"))
    assert isinstance(made, pathlib.Path)
    assert str(made) == "a"
    for thing in (pathlib.Path("a"), pathlib.PurePath("a"), "a", None):
        assert to_pathlib(thing) is thing


async def test_a_path_method_is_called_in_a_thread_with_pathlib_paths() -> None:
    calls.clear()
    assert await Made("a").value(Path("b"), 1, key=Path("c")) == "value"
    ((path, args, kwargs, thread),) = calls
    assert path == pathlib.Path("a")
    assert args == (pathlib.Path("b"), 1)
    assert kwargs == {"key": pathlib.Path("c")}
    assert all(isinstance(p, pathlib.Path) for p in (path, args[0], kwargs["key"]))
    assert thread is not threading.current_thread()


async def test_a_path_method_returns_paths_of_the_type_of_its_path() -> None:
    class Derived(Made):
        pass

    made = await Derived("a").path("b")
    assert type(made) is Derived
    assert str(made.name) == "b"
    found = await Derived("a").paths()
    assert next(found).name == pathlib.Path("a/a")
    assert [type(path) for path in found] == [Derived, Derived]


def test_a_path_method_has_the_declared_name_and_docstring() -> None:
    method = Made.value
    assert (method.__name__, method.__qualname__) == ("value", "Made.value")
    assert method.__module__ == __name__
    assert str(method.__doc__).startswith("Give a value.\n\n")
    assert "pathlib.Path.value" in str(method.__doc__)
    assert "ordinary" in str(Made.paths.__doc__)
    assert inspect.iscoroutinefunction(method)
    assert inspect.signature(method) == inspect.signature(noted)


async def test_path_walk_makes_each_step_in_a_thread() -> None:
    threads = []

    def steps() -> Any:
        for name in ("a", "b"):
            threads.append(threading.current_thread())
            yield pathlib.Path(name), [], []

    walk = Walk(Path, steps())
    assert [path async for path, _dirs, _files in walk] == [Path("a"), Path("b")]
    assert threading.current_thread() not in threads
    with pytest.raises(StopAsyncIteration):
        await walk.__anext__()


async def test_a_cancelled_path_walk_takes_no_step() -> None:
    walk = Walk(Path, iter([(pathlib.Path("a"), [], [])]))
    with CancelScope() as scope:
        scope.cancel()
        await walk.__anext__()
    assert scope.cancelled_caught
    path, _dirs, _files = await walk.__anext__()
    assert path == Path("a")


async def test_each_question_of_info_is_asked_in_a_worker_thread() -> None:
    class Asked:
        """Stands for what ``pathlib.Path.info`` is from Python 3.14 on."""

        def exists(self, *, follow_symlinks: bool) -> bool:
            return self.note("exists", follow_symlinks)

        def is_dir(self, *, follow_symlinks: bool) -> bool:
            return self.note("is_dir", follow_symlinks)

        def is_file(self, *, follow_symlinks: bool) -> bool:
            return self.note("is_file", follow_symlinks)

        def is_symlink(self) -> bool:
            return self.note("is_symlink", None)

        def note(self, *question: Any) -> bool:
            assert threading.current_thread().name == question[0]
            asked.append(question)
            return question[0] == "exists"

    asked: list[Any] = []
    info = Info(Asked())
    assert await info.exists()
    assert not await info.is_dir(follow_symlinks=False)
    assert not await info.is_file()
    assert not await info.is_symlink()
    assert asked == [
        ("exists", True),
        ("is_dir", False),
        ("is_file", True),
        ("is_symlink", None),
    ]
