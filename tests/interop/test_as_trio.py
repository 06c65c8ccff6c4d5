"""provide_trio: ``import trio`` gives nurseryio once a program has called it, only in that process.

Every test runs its own program: an imported module stays imported.
"""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
from harness import programs
from harness.crowd import Doorway, in_threads

from nurseryio._interop import as_trio

PROVIDE = """
import sys
import nurseryio
from nurseryio._interop.as_trio import provide_trio
"""


def says(folder: Path, text: str, loop: str = "stock") -> list[str]:
    """The output of a program, which must end well and without a warning."""
    file = folder / "program.py"
    file.write_text(PROVIDE + text, encoding="utf-8")
    program = programs.run(file, loop=loop)
    assert program.returncode == 0, program.errors
    return program.lines


@pytest.mark.parametrize("loop", programs.LOOPS)
def test_provide_trio_runs_a_program_written_for_trio(tmp_path: Path, loop: str) -> None:
    text = """
provide_trio()
import trio
from trio import socket
from trio.abc import Stream
import trio.lowlevel, trio.testing, trio.to_thread, trio.from_thread

async def child(number):
    await trio.lowlevel.checkpoint()
    trio.from_thread  # as an attribute too
    print(await trio.to_thread.run_sync(lambda: number))

async def main():
    left, right = trio.testing.memory_stream_pair()
    assert isinstance(left, Stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child, 1)
    with trio.move_on_after(0):
        await trio.sleep_forever()
    print(socket.AF_INET.name)

trio.run(main)
"""
    assert says(tmp_path, text, loop) == ["1", "AF_INET"]


def test_the_trio_stand_in_has_the_same_classes_as_nurseryio(tmp_path: Path) -> None:
    text = """
trio = provide_trio()
import trio as imported, trio.abc
from trio import *
print(trio is imported, trio.CancelScope is nurseryio.CancelScope is CancelScope)
print(trio.abc.Stream is nurseryio.abc.Stream, trio.__name__, trio.abc.__name__)
print("open_nursery" in dir(trio), "lowlevel" in dir(trio), trio.abc.__doc__[:20])
"""
    assert says(tmp_path, text) == [
        "True True",
        "True trio trio.abc",
        "True True Stands in for trio.a",
    ]


def test_the_trio_stand_in_has_the_version_of_the_trio_release_that_it_follows(
    tmp_path: Path,
) -> None:
    text = "print(provide_trio().__version__.split('.')[:2])"
    assert says(tmp_path, text) == ["['0', '35']"]


def test_a_patch_of_the_trio_stand_in_does_not_patch_nurseryio(tmp_path: Path) -> None:
    text = """
from unittest import mock
trio = provide_trio()
with mock.patch("trio.sleep"):
    print(trio.sleep is nurseryio.sleep)
print(trio.sleep is nurseryio.sleep)
"""
    assert says(tmp_path, text) == ["False", "True"]


def test_private_parts_of_trio_are_missing_and_the_error_says_why(tmp_path: Path) -> None:
    text = """
trio = provide_trio()
try:
    import trio._repl
except ModuleNotFoundError as exc:
    print(exc.name, "stands in for Trio" in str(exc))
try:
    trio._net  # a private room of ours
except AttributeError as exc:
    print("stands in for Trio" in str(exc), hasattr(trio, "_core"))
try:
    from trio import no_such_name
except ImportError:
    print("no such name")
"""
    assert says(tmp_path, text) == ["trio._repl True", "True True", "no such name"]


def test_the_private_names_of_trio_that_published_tools_use_are_there(tmp_path: Path) -> None:
    text = """
trio = provide_trio()
from importlib import import_module
import random
# As the entry point "trio" of the group "hypothesis" in Trio's distribution.
import_module("trio._core._run")._hypothesis_plugin_setup()
# As pytest-trio where hypothesis is installed.
print(isinstance(trio._core._run._r, random.Random))
trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING = True
# As quart-trio.
print(trio._file_io.AsyncIOWrapper is type(trio.wrap_file(sys.stdout)))
"""
    assert says(tmp_path, text) == ["True", "True"]


def test_provide_trio_does_not_replace_a_trio_that_is_imported(tmp_path: Path) -> None:
    text = """
import types
sys.modules["trio"] = real = types.ModuleType("trio")
real.__file__ = "/somewhere/trio/__init__.py"
try:
    provide_trio()
except RuntimeError as exc:
    print(exc)
print(sys.modules["trio"] is real, len([f for f in sys.meta_path if "Finder" in repr(f)]))
"""
    lines = says(tmp_path, text)
    assert "'trio' has been imported already, from /somewhere/trio/__init__.py" in lines[0]
    assert lines[1].startswith("True")


def test_provide_trio_twice_gives_the_same_module(tmp_path: Path) -> None:
    text = """
before = len(sys.meta_path)
print(provide_trio() is provide_trio(), len(sys.meta_path) - before)
"""
    assert says(tmp_path, text) == ["True 1"]


def test_the_loop_factory_of_provide_trio_is_used_where_the_program_names_none(
    tmp_path: Path,
) -> None:
    text = """
import asyncio

class Loop(asyncio.SelectorEventLoop):
    pass

trio = provide_trio(loop_factory=Loop)

async def which():
    return type(asyncio.get_running_loop()).__name__

print(trio.run(which), trio.run(which, loop_factory=asyncio.SelectorEventLoop))
print(trio.run.__name__)
"""
    assert says(tmp_path, text) == ["Loop _UnixSelectorEventLoop", "run"]


def test_libraries_written_for_trio_run_in_any_asyncio_task(tmp_path: Path) -> None:
    (tmp_path / "for_trio.py").write_text(
        "import trio\n"
        "async def both(first, second):\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(first)\n"
        "        nursery.start_soon(second)\n",
        encoding="utf-8",
    )
    text = """
import asyncio
provide_trio()
import for_trio

async def say(what):
    await asyncio.sleep(0)
    print(what)

asyncio.run(for_trio.both(lambda: say("one"), lambda: say("two")))
"""
    assert says(tmp_path, text) == ["one", "two"]


@pytest.mark.parametrize("loop", programs.LOOPS)
def test_httpcore_does_tls_through_its_trio_backend(tmp_path: Path, loop: str) -> None:
    text = """
provide_trio()
import functools, ssl
import httpcore, trio, trustme

authority = trustme.CA()
server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
authority.issue_cert("127.0.0.1").configure_cert(server_context)
client_context = ssl.create_default_context()
authority.configure_trust(client_context)

async def answer(stream):
    await stream.receive_some()
    await stream.send_all(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello")

async def main():
    serve = functools.partial(trio.serve_ssl_over_tcp, answer, 0, server_context, host="127.0.0.1")
    backend = httpcore.TrioBackend()
    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(serve)
        port = listener.transport_listener.socket.getsockname()[1]
        async with httpcore.AsyncConnectionPool(client_context, network_backend=backend) as pool:
            response = await pool.request("GET", f"https://127.0.0.1:{port}")
            print(response.status, response.content.decode())
        nursery.cancel_scope.cancel()

trio.run(main)
"""
    assert says(tmp_path, text, loop) == ["200 hello"]


def test_provide_trio_does_not_change_another_process(tmp_path: Path) -> None:
    text = """
import subprocess
provide_trio()
program = "import nurseryio, sys; print('trio' in sys.modules)"
done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
print(done.stdout.strip())
"""
    assert says(tmp_path, text) == ["False"]


def test_importing_nurseryio_provides_no_trio() -> None:
    program = "import nurseryio, sys; print(any('as_trio' in repr(f) for f in sys.meta_path))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_sniffio_says_trio_in_a_run_of_the_stand_in_and_asyncio_elsewhere(tmp_path: Path) -> None:
    text = """
import asyncio, contextvars, threading, types
local = threading.local()
local.name = None
variable = contextvars.ContextVar("library", default=None)
sys.modules["sniffio"] = types.SimpleNamespace(
    thread_local=local, current_async_library_cvar=variable
)
trio = provide_trio()

async def main():
    token = trio.lowlevel.current_trio_token()
    name_in_callback = await trio.to_thread.run_sync(
        lambda: trio.from_thread.run_sync(lambda: local.name, trio_token=token)
    )
    return local.name, name_in_callback

print(trio.run(main), local.name, nurseryio.run(main), asyncio.run(main()))

import trio.testing, nurseryio.testing
print(trio.testing.trio_test(main)(), nurseryio.testing.trio_test(main)())
"""
    assert says(tmp_path, text) == [
        "('trio', 'trio') None (None, 'asyncio') (None, 'asyncio')",
        "('trio', 'trio') (None, 'asyncio')",
    ]


def test_provide_trio_in_two_threads_at_the_same_time_adds_one_finder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Finder:
        """Stands for the finder, and is no import hook."""

        find_spec = staticmethod(lambda *_: None)

    doorway = Doorway(Finder)
    monkeypatch.setattr(as_trio, "_refuse_to_replace", lambda: None)
    monkeypatch.setattr(as_trio, "isinstance", lambda one, _: type(one) is Finder, raising=False)
    monkeypatch.setattr(as_trio, "Finder", doorway)
    monkeypatch.setattr(as_trio.importlib, "import_module", lambda _name: types.SimpleNamespace())
    monkeypatch.setattr(as_trio.trio_private, "offer_attributes", lambda: None)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    in_threads(as_trio.provide_trio)
    assert doorway.calls == 1
    assert [type(finder) for finder in sys.meta_path].count(Finder) == 1


def test_a_trio_stand_in_that_is_imported_anew_keeps_the_loop_factory_and_the_library_name(
    tmp_path: Path,
) -> None:
    text = """
import asyncio, types
local = types.SimpleNamespace(name=None)
sys.modules["sniffio"] = types.SimpleNamespace(thread_local=local)
class Loop(asyncio.SelectorEventLoop):
    pass
provide_trio(loop_factory=Loop)
from trio import run
del sys.modules["trio"]
import trio
class Other(Loop):
    pass

async def main():
    return type(asyncio.get_running_loop()).__name__, local.name

print(trio.run is not run, trio.run(main))
provide_trio(loop_factory=Other)
print(run(main), trio.run(main))
"""
    assert says(tmp_path, text) == [
        "True ('Loop', 'trio')",
        "('Other', 'trio') ('Other', 'trio')",
    ]


def test_a_thread_that_imports_trio_while_provide_trio_runs_gets_the_stand_ins_own_run(
    tmp_path: Path,
) -> None:
    # The function is called when the import hook is in place already.
    text = """
from nurseryio._interop import as_trio
offer = as_trio.trio_private.offer_attributes
seen = []

def offer_attributes():
    import trio
    seen.append(trio.run)
    offer()

as_trio.trio_private.offer_attributes = offer_attributes
trio = provide_trio()
print(seen[0] is trio.run is not nurseryio.run)
"""
    assert says(tmp_path, text) == ["True"]
