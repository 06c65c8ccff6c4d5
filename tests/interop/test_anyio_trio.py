"""anyio's Trio back end on nurseryio: runs, threads, portals, and the test runner of its plugin.

Most tests run their own program, because ``provide_trio`` is for a whole process. The two packages
that the back end imports are requirements of Trio. Stubs take their places. The parts for older
releases are tested in this process, with stubs of anyio's classes.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import programs, source

import nurseryio
from nurseryio import from_thread, to_thread
from nurseryio._interop import anyio_trio
from nurseryio.lowlevel import LoopToken, current_trio_token

OUTCOME = "from nurseryio._base.outcome import *"

SNIFFIO = """
import asyncio, contextvars, threading

class ThreadLocal(threading.local):
    name = None

class AsyncLibraryNotFoundError(RuntimeError):
    pass

thread_local = ThreadLocal()
current_async_library_cvar = contextvars.ContextVar("library", default=None)

def current_async_library():
    name = thread_local.name or current_async_library_cvar.get()
    try:
        if name is None and asyncio.current_task() is not None:
            name = "asyncio"
    except RuntimeError:
        pass
    if name is None:
        raise AsyncLibraryNotFoundError
    return name
"""

PROVIDE = """
import nurseryio.aio
trio = nurseryio.aio.provide_trio()
import anyio
from anyio import from_thread, to_thread
from anyio.from_thread import start_blocking_portal

def side():  # which back end makes anyio's objects here
    return type(anyio.Event()).__module__.rpartition("_")[2]

async def aside():
    return side()
"""

Says = Callable[..., list[str]]


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """A folder with the stubs."""
    (tmp_path / "outcome.py").write_text(OUTCOME, encoding="utf-8")
    (tmp_path / "sniffio.py").write_text(SNIFFIO, encoding="utf-8")
    return tmp_path


@pytest.fixture
def says(stubs: Path) -> Says:
    """The output of a program that uses anyio, which must end well and without a warning."""

    def run(text: str, loop: str = "stock") -> list[str]:
        file = stubs / "program.py"
        file.write_text(PROVIDE + text, encoding="utf-8")
        program = programs.run(file, loop=loop)
        assert program.returncode == 0, program.errors
        return program.lines

    return run


@pytest.mark.parametrize("loop", programs.LOOPS)
def test_anyios_trio_backend_runs_beside_its_asyncio_backend(says: Says, loop: str) -> None:
    text = """
async def group():  # every task of the group is cancelled: one Cancelled has to leave it
    with anyio.move_on_after(0.01) as scope:
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyio.sleep, 60)
            await anyio.sleep(60)
    return scope.cancelled_caught

async def memory():
    send, receive = anyio.create_memory_object_stream(0)
    async with send, receive, anyio.create_task_group() as tg:
        async def take():
            print(await receive.receive())
        tg.start_soon(take)
        await anyio.wait_all_tasks_blocked()
        await send.send("item")
    with anyio.CancelScope() as scope:
        scope.cancel()
        print(anyio.get_current_task().has_pending_cancellation())

async def main():
    await memory()
    print(await group(), side())

for backend in ("trio", "asyncio"):
    anyio.run(main, backend=backend)
"""
    lines = ["item", "True"]
    assert says(text, loop) == [*lines, "True trio", *lines, "True asyncio"]


@pytest.mark.parametrize("loop", programs.LOOPS)
def test_calls_from_threads_stay_on_anyios_trio_backend(says: Says, loop: str) -> None:
    text = """
async def from_worker():
    return await to_thread.run_sync(lambda: [from_thread.run(aside), from_thread.run_sync(side)])

for backend in ("trio", "asyncio"):
    with start_blocking_portal(backend) as portal:
        print(portal.call(aside), portal.call(side))
    print(anyio.run(from_worker, backend=backend))
"""
    assert says(text, loop) == [
        "trio trio",
        "['trio', 'trio']",
        "asyncio asyncio",
        "['asyncio', 'asyncio']",
    ]


def test_a_future_of_a_portal_to_anyios_trio_backend_is_cancelled_and_fails(says: Says) -> None:
    text = """
async def fail():
    raise ValueError("mine")

async def wait():
    try:
        await anyio.sleep_forever()
    finally:
        print("cancelled", side())

with start_blocking_portal("trio") as portal:
    try:
        portal.call(fail)
    except ValueError as exc:
        print(exc)
    future, begun = portal.start_task_soon(wait), portal.call(aside)
    future.cancel()
"""
    assert says(text) == ["mine", "cancelled trio"]


def test_a_portal_to_anyios_trio_backend_blocks_the_loop_that_calls_it_and_does_not_hang(
    says: Says,
) -> None:
    text = """
import asyncio

async def main():
    with start_blocking_portal("trio") as portal:
        try:
            portal.call(int, "x")
        except ValueError:
            print("error")
        return portal.call(aside)

print(asyncio.run(main()))
"""
    assert says(text) == ["error", "trio"]


def test_the_loop_factory_of_provide_trio_is_used_by_anyios_trio_backend(says: Says) -> None:
    text = """
import asyncio
class Loop(asyncio.SelectorEventLoop):
    pass
nurseryio.aio.provide_trio(loop_factory=Loop)
async def which():
    return type(asyncio.get_running_loop()).__name__
print(anyio.run(which, backend="trio"))
from anyio._core._eventloop import get_async_backend
with get_async_backend("trio").create_test_runner({}) as runner:
    print(runner.run_fixture(which, {}))
"""
    assert says(text) == ["Loop", "Loop"]


def test_a_trio_guest_run_for_anything_but_anyios_test_runner_is_refused(says: Says) -> None:
    text = """
async def main():
    pass
import anyio._backends._trio
try:
    trio.lowlevel.start_guest_run(main, run_sync_soon_threadsafe=print, done_callback=print)
except NotImplementedError as exc:
    print(str(exc).partition(";")[0])
"""
    assert says(text) == ["start_guest_run() makes Trio a guest of a foreign loop"]


def test_anyios_trio_test_runner_keeps_one_task_and_takes_errors_and_options(says: Says) -> None:
    text = """
from anyio._core._eventloop import get_async_backend
from trio.testing import MockClock

async def task():
    return trio.lowlevel.current_task()

async def fail():
    raise ValueError("mine")

async def exit():
    raise SystemExit(3)

async def sleep():
    await anyio.sleep(1000)
    return "slept"

async def resource():
    async with trio.open_nursery() as nursery:  # it stays open between two calls
        nursery.start_soon(trio.sleep_forever)
        yield "resource"
        nursery.cancel_scope.cancel()

async def endless():
    yield
    yield

options = {"clock": MockClock(autojump_threshold=0), "strict_exception_groups": True}
with get_async_backend("trio").create_test_runner(options) as runner:
    fixture = iter(runner.run_asyncgen_fixture(resource, {}))
    print(next(fixture), runner.run_fixture(task, {}) is runner.run_fixture(task, {}))
    for failing in (fail, exit):
        try:
            runner.run_test(failing, {})
        except BaseException as exc:
            print(repr(exc))
    print(runner.run_fixture(sleep, {}), list(fixture))
    second = runner.run_asyncgen_fixture(endless, {})
    try:
        list(second)
    except RuntimeError as exc:
        print(exc)
try:
    get_async_backend("trio").create_test_runner({"no_such_option": 1}).run_test(task, {})
except TypeError as exc:
    print("no_such_option" in str(exc))
"""
    assert says(text) == [
        "resource True",
        "ValueError('mine')",
        "SystemExit(3)",
        "slept []",
        "Async generator fixture did not stop",
        "True",
    ]


def test_anyios_pytest_plugin_runs_tests_and_fixtures_on_its_trio_backend(stubs: Path) -> None:
    (stubs / "test_it.py").write_text(
        """
import anyio, pytest

pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module", params=["trio", "asyncio"])
def anyio_backend(request):
    return request.param

@pytest.fixture(scope="module")
async def stream(anyio_backend):
    send, receive = anyio.create_memory_object_stream(1)
    async with anyio.create_task_group() as tg, send, receive:
        tg.start_soon(send.send, anyio_backend)
        yield receive
        tg.cancel_scope.cancel()

@pytest.fixture
async def item(stream):
    return await stream.receive()

async def test_both(item, anyio_backend, anyio_backend_name):
    assert item == anyio_backend == type(anyio.Event()).__module__.rpartition("_")[2]

async def test_failing():
    with anyio.fail_after(0.01):
        await anyio.sleep(60)
""",
        encoding="utf-8",
    )
    program = f"""
import sys
sys.path.insert(0, {str(stubs)!r})
import nurseryio.aio, pytest
nurseryio.aio.provide_trio()
sys.exit(pytest.main(["-q", "-p", "anyio", "-p", "no:cacheprovider", "test_it.py"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=stubs,
        env={
            **os.environ,
            "PYTHONPATH": str(source.ROOT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "",
        },
    )
    assert "2 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    for backend in ("trio", "asyncio"):
        assert f"test_it.py::test_failing[{backend}] - TimeoutError" in done.stdout


# -- in this process: parts for older releases -----------------------------------


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A portal as before anyio 4.13, which starts its tasks itself."""
    portal_class = type("BlockingPortal", (), {"_spawn_task_from_thread": None})
    backend_class = type("Backend", (), {"run_sync_from_thread": None})
    backend = SimpleNamespace(backend_class=backend_class, BlockingPortal=portal_class)
    monkeypatch.setitem(sys.modules, anyio_trio.BACKEND, backend)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "trio.from_thread", from_thread)
    monkeypatch.setattr(anyio_trio, "_extended", None)
    anyio_trio.extend_calls()
    started: list[Any] = []

    def start_soon(*args: object, name: object) -> None:
        started.append((*args, name))

    group = SimpleNamespace(start_soon=start_soon)
    spawn = portal_class.__dict__["_spawn_task_from_thread"]
    return SimpleNamespace(spawn=spawn, started=started, _task_group=group, _call_func="call")


async def test_a_portal_of_an_older_anyio_starts_its_tasks_in_its_own_loop(
    portal: SimpleNamespace,
) -> None:
    portal._token = current_trio_token()
    arguments = ("function", ("argument",), {}, "name", "future")
    await to_thread.run_sync(portal.spawn, portal, *arguments)

    async def in_another_loop() -> None:
        portal.spawn(portal, *arguments)

    await to_thread.run_sync(asyncio.run, in_another_loop())
    assert portal.started == [("call", "function", ("argument",), {}, "future", "name")] * 2


def test_a_blocking_call_into_a_loop_that_has_ended_raises_run_finished_error() -> None:
    async def token() -> LoopToken:
        return current_trio_token()

    ended = nurseryio.run(token)

    async def call() -> None:
        with pytest.raises(RuntimeError) as info:
            anyio_trio._block(ended, print, ())
        assert type(info.value).__name__ == "RunFinishedError"

    asyncio.run(call())


def test_a_blocking_call_into_a_loop_that_is_closed_meanwhile_raises_run_finished_error() -> None:
    async def token() -> LoopToken:
        return current_trio_token()

    loop = asyncio.new_event_loop()
    its_token = loop.run_until_complete(token())
    schedule = loop.call_soon_threadsafe

    def schedule_and_close(*args: Any, **options: Any) -> Any:
        handle = schedule(*args, **options)
        loop.close()
        return handle

    loop.call_soon_threadsafe = schedule_and_close  # type: ignore[method-assign]

    async def call() -> None:
        with pytest.raises(RuntimeError) as info:
            anyio_trio._block(its_token, print, ())
        assert type(info.value).__name__ == "RunFinishedError"

    asyncio.run(call())


@pytest.mark.parametrize("runner", [None, "wrong"])
def test_a_trio_guest_run_is_refused_without_anyios_runner(
    monkeypatch: pytest.MonkeyPatch, runner: str | None
) -> None:
    module = None if runner is None else SimpleNamespace(backend_class=int, TestRunner=str)
    monkeypatch.setitem(sys.modules, anyio_trio.BACKEND, module)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError, match="guest"):
        anyio_trio.guest_run("text".upper)  # a method of an object without a stream
