"""Lazy exports of the public modules: names loaded on first use, and their ``__module__``."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import pytest

import nurseryio
from nurseryio._base.lazy_exports import lazy_exports, show_public_module


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_a_lazy_export_is_loaded_when_it_is_used() -> None:
    output = run_python(
        "import sys, nurseryio\n"
        "print('nurseryio._net.tcp_connect' in sys.modules)\n"
        "print(nurseryio.open_tcp_stream.__name__)\n"
        "print('nurseryio._net.tcp_connect' in sys.modules)\n"
    )
    assert output.split() == ["False", "open_tcp_stream", "True"]


def test_an_import_does_not_load_what_an_asyncio_program_may_never_use() -> None:
    output = run_python(
        "import sys, nurseryio\n"
        "rooms = {name.split('.')[1] for name in sys.modules if name.startswith('nurseryio.')}\n"
        "print(*sorted(rooms - {'_speedups'}))\n"
    )
    # Neither run() nor anything of the network, of threads and of processes.
    assert output.split() == ["_asyncio", "_base", "_core", "_nursery", "_sync"]


def test_a_class_that_other_modules_have_loaded_has_its_public_module() -> None:
    output = run_python(
        "import nurseryio\n"
        "async def main():\n"
        "    return type(nurseryio.to_thread.current_default_thread_limiter())\n"
        "print(nurseryio.run(main).__module__)\n"
    )
    assert output == "nurseryio\n"


def test_a_listener_loads_what_handlers_need_when_no_descriptor_is_left() -> None:
    output = run_python(
        "import sys, nurseryio\n"
        "async def main():\n"
        "    async with (await nurseryio.open_tcp_listeners(0, host='127.0.0.1'))[0]:\n"
        "        return 'nurseryio._sync.results' in sys.modules\n"
        "print('nurseryio._sync.results' in sys.modules, nurseryio.run(main))\n"
    )
    assert output.split() == ["False", "True"]


@pytest.mark.parametrize("names", ["SocketStream socket", "SSLStream socket lowlevel run"])
def test_lazy_names_can_be_used_for_the_first_time_in_several_threads_at_once(names: str) -> None:
    program = (
        "import sys, threading, nurseryio\n"
        "sys.setswitchinterval(1e-6)\n"
        f"names = {names.split()}\n"
        "ready = threading.Barrier(len(names))\n"
        "def load(name):\n"
        "    ready.wait()\n"
        "    found.append(getattr(nurseryio, name))\n"
        "found = []\n"
        "threads = [threading.Thread(target=load, args=(name,)) for name in names]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "print(len(found))\n"
    )
    for _ in range(3):
        assert run_python(program) == f"{len(names.split())}\n"


def test_submodules_are_attributes_without_their_own_import() -> None:
    assert run_python("import nurseryio; print(nurseryio.lowlevel.checkpoint.__name__)") == (
        "checkpoint\n"
    )


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'nurseryio' has no attribute 'typo'"):
        getattr(nurseryio, "typo")  # noqa: B009


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("TaskGroup", "open_nursery()"),
        ("create_task", "nursery.start_soon(f, x)"),
        ("wait_for", "fail_after(seconds)"),
        ("Queue", "open_memory_channel(size)"),
        ("as_completed", "amap("),
    ],
)
def test_a_name_of_asyncio_is_an_attribute_error_with_the_name_to_use(
    name: str, instead: str
) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(nurseryio, name)
    text = str(caught.value)
    assert text.startswith(f"module 'nurseryio' has no attribute {name!r}: ")
    assert instead in text
    assert not hasattr(nurseryio, name)
    with pytest.raises(AttributeError, match=f"has no attribute {name!r}$"):
        getattr(nurseryio.lowlevel, name)


def test_only_modules_with_lazy_names_have_a_getattr() -> None:
    """An attribute of a module with a ``__getattr__`` is read by a slower instruction."""
    lines = run_python(
        "import dis, sys, nurseryio\n"
        "from nurseryio import lowlevel\n"
        "for name in nurseryio._LAZY[''].split():\n"
        "    if '__getattr__' in vars(getattr(nurseryio, name)):\n"
        "        print(name)\n"
        "for name in ('typo', '_typo'):\n"
        "    try:\n"
        "        getattr(lowlevel, name)\n"
        "    except AttributeError as error:\n"
        "        print(error)\n"
        "def use():\n"
        "    for _ in range(10000):\n"
        "        lowlevel.checkpoint\n"
        "use()\n"
        "adaptive = {} if sys.version_info < (3, 11) else {'adaptive': True}\n"
        "print({i.opname for i in dis.get_instructions(use, **adaptive)\n"
        "       if i.argval == 'checkpoint'})\n"
    ).splitlines()
    assert lines[:4] == ["aio", "from_thread", "instruments", "testing"]
    assert lines[4:6] == [
        f"module 'nurseryio.lowlevel' has no attribute '{name}'" for name in ("typo", "_typo")
    ]
    if sys.implementation.name == "cpython" and sys.version_info >= (3, 12):
        assert lines[6] == "{'LOAD_ATTR_MODULE'}"


def test_dir_lists_lazy_names_before_they_are_loaded() -> None:
    assert "open_tcp_stream" in run_python("import nurseryio; print(dir(nurseryio))")


def test_the_module_of_a_class_is_its_public_module() -> None:
    assert repr(nurseryio.CancelScope) == "<class 'nurseryio.CancelScope'>"
    assert nurseryio.CancelScope.cancel.__module__ == "nurseryio"
    assert pickle.loads(pickle.dumps(nurseryio.BrokenResourceError)) is (
        nurseryio.BrokenResourceError
    )


def test_re_exports_of_other_libraries_keep_their_module() -> None:
    assert nurseryio.Cancelled.__module__ == "asyncio.exceptions"


def test_dir_of_a_public_module_lists_only_public_names() -> None:
    def given() -> None:
        """Public."""

    given.__module__ = "nurseryio._core.somewhere"
    namespace: dict[str, Any] = {
        "__name__": "nurseryio.some_door",
        "given": given,
        "_hidden": given,
        "sys": sys,
    }
    getter, lister = lazy_exports(namespace, {"_base.errors": "WouldBlock", "": "abc"})
    assert namespace["__all__"] == ["WouldBlock", "given"]
    assert given.__module__ == "nurseryio.some_door"
    assert {"abc", "given", "WouldBlock"} <= set(lister())
    assert getter("abc") is nurseryio.abc
    with pytest.raises(AttributeError):
        getter("more")


def test_setting_the_module_attribute_of_exports_leaves_plain_values_alone() -> None:
    show_public_module(5, "five", "nurseryio")
    show_public_module(sys.exit, "exit", "nurseryio")
    assert sys.exit.__module__ == "sys"


# -- when nothing can be loaded any more ----------------------------------------

# Operations that a program may use: each line is the body of an async function.
USES = """
import os, signal, sys
import nurseryio as lib

async def serve():
    async with lib.open_nursery() as nursery:
        (listener,) = await nursery.start(
            lambda task_status: lib.serve_tcp(echo, 0, host="127.0.0.1", task_status=task_status)
        )
        port = listener.socket.getsockname()[1]
        async with await lib.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"x")
            assert await stream.receive_some() == b"x"
        nursery.cancel_scope.cancel()

async def echo(stream):
    async for data in stream:
        await stream.send_all(data)

async def thread():
    assert await lib.to_thread.run_sync(lib.from_thread.run_sync, lambda: 5) == 5

async def names():
    for name in ("b\u00fccher.invalid", "a..b"):
        try:
            await lib.socket.getaddrinfo(name, 80)
        except OSError:
            pass
    try:
        await lib.open_tcp_stream("127.0.0.1", 1)
    except OSError:
        pass

async def signals():
    with lib.open_signal_receiver(signal.SIGUSR1) as received:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert await received.__anext__() == signal.SIGUSR1

async def files():
    assert await lib.Path("/").exists()
    lib.open_file, lib.wrap_file

async def process():
    try:
        await lib.run_process(["/no/such/program"], capture_stdout=True)
    except FileNotFoundError:
        pass

async def failure():
    try:
        async with lib.open_nursery() as nursery:
            nursery.start_soon(lib.sleep, "x")
    except BaseException as error:
        import traceback
        assert "must be a number" in "".join(traceback.format_exception(error))

async def rest():
    lib.SSLStream, lib.SSLListener, lib.DTLSEndpoint, lib.lowlevel.FdStream
    lib.aio.stream_from_asyncio, lib.aio.asyncio_from_stream, lib.aio.stream_from_anyio
    lib.lowlevel.current_statistics()

async def main():
    for use in (serve, thread, names, signals, files, process, failure, rest):
        try:
            await use()
        except BaseException as error:
            print(use.__name__, repr(error))
    print("done")

class Locked:
    def find_spec(self, name, path=None, target=None):
        raise ModuleNotFoundError(f"{name} is asked for too late", name=name)
"""


def test_preload_loads_all_that_would_be_loaded_on_first_use() -> None:
    output = run_python(
        "import asyncio, traceback\n" + USES + "lib.preload()\n"
        "sys.meta_path.insert(0, Locked())\n"
        "before = set(sys.modules)\n"
        "lib.run(main)\n"
        "print(set(sys.modules) - before, 'nurseryio.testing' in sys.modules)\n"
    )
    assert output == "done\nset() False\n"


def test_a_program_that_imports_without_a_free_descriptor_gets_an_error_naming_preload() -> None:
    output = run_python(
        USES + "import asyncio\nsys.meta_path.insert(0, Locked())\n"
        "for name in ('to_thread', 'open_tcp_stream'):\n"
        "    try:\n"
        "        getattr(lib, name)\n"
        "    except ImportError as error:\n"
        "        print('nurseryio.preload() early' in str(error), repr(error.__cause__)[:23])\n"
    )
    assert output == "True ModuleNotFoundError('nu\n" * 2


@pytest.mark.skipif(sys.platform == "win32", reason="uses the limits of Unix")
def test_a_server_has_preloaded_all_that_handlers_need_when_no_descriptor_is_left() -> None:
    output = run_python(
        "import resource\n"
        + USES
        + """
async def handler(stream):
    taken = []
    try:
        while True:
            taken.append(os.dup(0))
    except OSError:
        pass
    try:
        await thread()
        lib.lowlevel.current_statistics(), lib.socket.socket, lib.open_tcp_stream, lib.Path
        try:
            await lib.open_tcp_stream("127.0.0.1", 1)
        except OSError as error:
            print(error)
        await stream.send_all(b"fine")
    finally:
        for fd in taken:
            os.close(fd)

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    async with lib.open_nursery() as nursery:
        (listener,) = await nursery.start(
            lambda task_status: lib.serve_tcp(handler, 0, host="127.0.0.1", task_status=task_status)
        )
        async with await lib.testing.open_stream_to_socket_listener(listener) as stream:
            print(await stream.receive_some())
        nursery.cancel_scope.cancel()

lib.run(main)
"""
    )
    assert output.endswith("b'fine'\n")


def test_setting_a_threads_name_never_fails_an_operation() -> None:
    output = run_python(
        "import asyncio\n" + USES + "lib.to_thread, lib.from_thread, lib.run\n"
        "import nurseryio._system.threads, nurseryio._system.from_thread\n"
        "sys.modules.pop('ctypes', None)\n"
        "sys.meta_path.insert(0, Locked())\n"
        "lib.run(thread)\n"
        "print('ctypes' in sys.modules)\n"
    )
    assert output == "False\n"


def test_serve_starts_although_preload_fails() -> None:
    output = run_python(
        "import asyncio\n" + USES + "lib.serve_tcp, lib.open_tcp_stream, lib.run\n"
        "from nurseryio._net import tcp_listen, tcp_connect\n"
        "sys.meta_path.insert(0, Locked())\n"
        "lib.run(serve)\n"
        "print('served')\n"
    )
    assert output == "served\n"


# In a process of its own, because the functions of modules that it loads may be replaced.
WITHOUT_SSL = """
import sys
sys.modules["ssl"] = None
import nurseryio
from nurseryio._base import unsupported

def say(call):
    try:
        print(type(call()).__name__)
    except Exception as error:
        print(type(error).__name__, str(error).partition(",")[0])

"""


def test_a_lazy_export_that_the_platform_lacks_can_be_imported() -> None:
    program = WITHOUT_SSL + (
        "unsupported.LACKING = frozenset({'sockets'})\n"
        "from nurseryio import SSLStream\n"
        "print(SSLStream is nurseryio.SSLStream)\n"
        "say(lambda: SSLStream(None))\n"
        "say(nurseryio.preload)\n"
    )
    assert run_python(program).splitlines() == [
        "True",
        f"NotImplementedError this platform ({sys.platform}) has no module ssl",
        "NoneType",
    ]


def test_a_lazy_export_that_is_missing_by_mistake_is_an_import_error() -> None:
    program = WITHOUT_SSL + "say(lambda: nurseryio.SSLStream)\nsay(nurseryio.preload)\n"
    lines = run_python(program).splitlines()
    assert lines[0] == "ImportError nurseryio._tls.stream is loaded on first use"
    assert lines[1].startswith("ModuleNotFoundError ")
