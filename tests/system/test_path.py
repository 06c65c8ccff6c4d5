"""Paths with async methods."""

# Covered below 95 %: six names of pathlib exist on other Pythons alone: link_to on 3.10 and
# 3.11, info, copying and moving on 3.14.

from __future__ import annotations

import inspect
import os
import pathlib
import pickle
import sys
import threading

import pytest

import nurseryio
from nurseryio import CancelScope, Path, PosixPath, WindowsPath
from nurseryio._system.files import AsyncIOWrapper

ON_WINDOWS = os.name == "nt"
Native = WindowsPath if ON_WINDOWS else PosixPath


@pytest.fixture
def path(tmp_path: pathlib.Path) -> Path:
    """A path at which nothing is, in a directory of the test's own."""
    return Path(tmp_path / "thing")


# -- the whole ------------------------------------------------------------------


def own_names(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_path_has_every_public_name_of_pathlib_path_and_no_other() -> None:
    theirs = own_names(pathlib.Path)
    if ON_WINDOWS and sys.version_info < (3, 12):
        theirs -= {"is_mount"}
    if ON_WINDOWS:
        theirs -= {"owner", "group"}
    assert own_names(Path) == theirs


def test_methods_of_path_beyond_pure_path_are_async() -> None:
    plain = {"as_uri", "from_uri", "info", "walk"}
    if sys.version_info < (3, 12):
        plain.add("open")  # it returns a coroutine, and cannot be marked as async
    for name in own_names(pathlib.Path) - own_names(pathlib.PurePath) - plain:
        method = getattr(Path, name)
        assert inspect.iscoroutinefunction(method), name
        assert method.__name__ == name
        assert method.__qualname__ == f"Path.{name}"
        assert f"pathlib.Path.{name}" in str(method.__doc__)
        assert "Checkpoint: yes" in str(method.__doc__)


def test_every_method_of_path_has_pathlibs_signature() -> None:
    for name in own_names(pathlib.Path) - own_names(pathlib.PurePath) - {"info"}:
        expected = list(inspect.signature(getattr(pathlib.Path, name)).parameters)
        assert list(inspect.signature(getattr(Path, name)).parameters) == expected, name


def test_pure_path_methods_are_inherited() -> None:
    for name in own_names(pathlib.PurePath) - {"as_uri", "full_match"}:
        assert getattr(Path, name) == getattr(pathlib.PurePath, name), name


# -- making and comparing -------------------------------------------------------


def test_path_is_a_posix_or_windows_path_as_on_the_system() -> None:
    assert type(Path("a")) is Native
    assert isinstance(Path("a"), pathlib.PurePath)
    assert not isinstance(Path("a"), pathlib.Path)
    assert type(Native("a")) is Native


def test_a_path_is_made_of_strings_and_paths() -> None:
    assert Path("a", "b") == Path("a/b") == Path(pathlib.Path("a"), Path("b"))
    assert str(Path()) == "."
    with pytest.raises(TypeError):
        Path(1)  # type: ignore[arg-type]


def test_repr_of_a_path() -> None:
    assert repr(Path("a/b")) == f"nurseryio.Path({os.path.join('a', 'b')!r})"
    assert os.fspath(Path("a")) == str(Path("a")) == "a"
    assert bytes(Path("a")) == b"a"


def test_paths_compare_with_pathlibs() -> None:
    assert Path("a") == pathlib.Path("a") == Path("a")
    assert hash(Path("a")) == hash(pathlib.Path("a"))
    assert Path("a") < pathlib.Path("b") > Path("a")
    assert Path("a") != "a"


def test_paths_computed_from_a_path_are_nurseryio_paths() -> None:
    path = Path("a/b.txt")
    for other in (
        path.parent,
        path.with_suffix(".py"),
        path.with_name("c"),
        path / "c",
        "c" / path,
        path / pathlib.Path("c"),
        path.joinpath("c"),
        path.relative_to("a"),
        *path.parents,
    ):
        assert type(other) is Native


def test_a_path_survives_pickling() -> None:
    path = pickle.loads(pickle.dumps(Path("a/b")))
    assert path == Path("a/b")
    assert type(path) is Native


def test_subclasses_of_path_keep_their_type() -> None:
    class Mine(Native):  # type: ignore[misc,valid-type]
        pass

    assert type(Mine("a") / "b") is Mine


# -- the file system ------------------------------------------------------------


async def test_path_writes_stats_and_unlinks_a_file(path: Path) -> None:
    assert not await path.exists()
    assert await path.write_text("word\n", encoding="utf-8") == 5
    assert await path.read_bytes() == b"word\n"
    assert (await path.stat()).st_size == 5
    assert await path.is_file()
    assert not await path.is_dir()
    await path.unlink()
    with pytest.raises(FileNotFoundError):
        await path.read_text(encoding="utf-8")
    await path.unlink(missing_ok=True)


async def test_path_methods_run_in_a_thread(path: Path) -> None:
    threads = set()

    class Target:
        def __fspath__(self) -> str:
            threads.add(threading.current_thread())
            return os.fspath(path.with_name("target"))

    await path.touch()
    await path.rename(Target())  # type: ignore[arg-type]
    assert threads
    assert threading.current_thread() not in threads


async def test_paths_that_methods_return_are_nurseryio_paths(path: Path) -> None:
    await path.touch()
    for other in (
        await path.resolve(),
        await path.absolute(),
        await path.rename(path.with_name("renamed")),
        await path.with_name("renamed").replace(path),
        await Path("~").expanduser(),
        await Path.cwd(),
        await Path.home(),
    ):
        assert type(other) is Native
    assert str(await Path.cwd()) == os.getcwd()
    assert str(await Path.home()) == os.path.expanduser("~")


async def test_iterdir_and_glob_are_awaited_and_iterated_with_a_plain_for(path: Path) -> None:
    await path.mkdir()
    await (path / "below").mkdir()
    for name in ("one.txt", "two.dat", "below/three.txt"):
        await (path / name).touch()
    entries = await path.iterdir()
    assert next(iter(entries)) in {path / "below", path / "one.txt", path / "two.dat"}
    assert {p.name for p in await path.iterdir()} == {"below", "one.txt", "two.dat"}
    assert {p.name for p in await path.glob("*.txt")} == {"one.txt"}
    assert {p.name for p in await path.rglob("*.txt")} == {"one.txt", "three.txt"}
    assert {type(p) for p in await path.glob("**/*")} == {Native}


async def test_an_error_in_iterdir_is_raised_by_the_awaited_call(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await path.iterdir()


async def test_nurseryio_paths_may_be_arguments_of_path_methods(path: Path) -> None:
    await path.write_bytes(b"data")
    other = path.with_name("other")
    await other.hardlink_to(path)
    assert await path.samefile(other)
    assert await path.samefile(other_path=other)
    await other.unlink()
    await other.symlink_to(path)
    assert await other.readlink() == path
    assert type(await other.readlink()) is Native


async def test_path_open_gives_a_file_with_async_methods(path: Path) -> None:
    async with await path.open("w", encoding="utf-8") as file:
        assert isinstance(file, AsyncIOWrapper)
        await file.write("word")
    async with await nurseryio.open_file(path, encoding="utf-8") as file:
        assert await file.read() == "word"


async def test_a_cancelled_path_method_does_nothing(path: Path) -> None:
    with CancelScope() as scope:
        scope.cancel()
        await path.touch()
    assert scope.cancelled_caught
    assert not await path.exists()


def test_as_uri_of_a_path_is_sync(tmp_path: pathlib.Path) -> None:
    assert Path(tmp_path).as_uri() == tmp_path.as_uri()
    with pytest.raises(ValueError, match="relative path"):
        Path("a").as_uri()


if sys.version_info >= (3, 12):

    async def make_tree(path: Path) -> None:
        for name in ("a", "a/b", "c"):
            await (path / name).mkdir(parents=True)
            await (path / name / "file").touch()

    async def test_path_walk_visits_the_directory_tree(path: Path) -> None:
        await make_tree(path)
        seen = []
        async for where, dirs, files in path.walk():
            assert type(where) is Native
            seen.append((where.relative_to(path).as_posix(), sorted(dirs), files))
        assert sorted(seen) == [
            (".", ["a", "c"], []),
            ("a", ["b"], ["file"]),
            ("a/b", [], ["file"]),
            ("c", [], ["file"]),
        ]

    async def test_path_walk_leaves_out_directories_removed_from_its_list(path: Path) -> None:
        await make_tree(path)
        seen = []
        async for where, dirs, _files in path.walk():
            seen.append(where)
            if "a" in dirs:
                dirs.remove("a")
        assert seen == [path, path / "c"]

    async def test_path_walk_takes_top_down_and_on_error(path: Path) -> None:
        await make_tree(path)
        last = None
        async for where, _dirs, _files in path.walk(top_down=False):
            last = where
        assert last == path
        errors = []
        async for _step in (path / "missing").walk(on_error=errors.append):
            raise AssertionError
        assert [type(error) for error in errors] == [FileNotFoundError]

    async def test_each_step_of_path_walk_is_a_checkpoint(path: Path) -> None:
        await make_tree(path)
        steps = 0
        with CancelScope() as scope:
            async for _step in path.walk():
                steps += 1
                scope.cancel()
        assert scope.cancelled_caught
        assert steps == 1


if sys.version_info >= (3, 13):

    async def test_full_match_is_async_as_in_trio() -> None:
        assert await Path("a/b/c.txt").full_match("a/**/*.txt")

    def test_path_from_uri() -> None:
        path = Path.from_uri("file:///a/b")
        assert path == Path("/a/b")
        assert type(path) is Native


if sys.version_info >= (3, 14):

    async def test_path_copy_and_move(path: Path) -> None:
        await path.write_bytes(b"data")
        folder = path.with_name("folder")
        await folder.mkdir()
        copied = await path.copy(path.with_name("copy"))
        assert await copied.read_bytes() == b"data"
        assert await copied.move_into(folder) == folder / "copy"
        assert await path.copy_into(folder) == folder / "thing"
        moved = await path.move(folder / "moved")
        assert type(moved) is Native
        assert {p.name for p in await folder.iterdir()} == {"copy", "thing", "moved"}

    async def test_info_asks_for_the_kind_of_a_file_once(path: Path) -> None:
        await path.mkdir()
        link = path.with_name("link")
        await link.symlink_to(path)
        info = link.info
        assert await info.exists() and await info.is_dir() and await info.is_symlink()
        assert not await info.is_file()
        assert not await info.is_dir(follow_symlinks=False)
        await link.unlink()
        assert await info.exists()
        assert not await link.info.exists()

    def test_info_has_the_async_methods_of_pathlibs_info() -> None:
        from pathlib.types import PathInfo

        for name in own_names(PathInfo):
            method = getattr(type(Path("/").info), name)
            assert inspect.iscoroutinefunction(method), name
            parameters = [*inspect.signature(getattr(PathInfo, name)).parameters]
            assert [*inspect.signature(method).parameters] == parameters, name
