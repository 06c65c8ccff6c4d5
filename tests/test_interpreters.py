"""nurseryio in subinterpreters, ``concurrent.interpreters`` (Python 3.14 and later).

A subinterpreter refuses daemon threads and signal handlers, and has its own copy of every module.
"""

from __future__ import annotations

import importlib
import signal
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import source

pytestmark = [
    pytest.mark.skipif(
        sys.version_info < (3, 14), reason="concurrent.interpreters is new in Python 3.14"
    ),
    pytest.mark.limit(60),
]

BEGIN = """
import asyncio
import sys
import threading

sys.path.insert(0, root)

import nurseryio
from nurseryio import from_thread, open_nursery, to_thread
"""


class Interpreter:
    """A subinterpreter in which nurseryio is imported."""

    def __init__(self) -> None:
        # Missing before Python 3.14.
        interpreters: Any = importlib.import_module("concurrent.interpreters")
        self.create_queue = interpreters.create_queue
        self.made = interpreters.create()
        self.made.prepare_main(root=str(source.ROOT))
        self.made.exec(BEGIN)

    def run(self, code: str, **names: Any) -> list[Any]:
        """Run code there, which may put results into ``queue``. Returns the results."""
        queue = self.create_queue()
        self.made.prepare_main(queue=queue, **names)
        self.made.exec(textwrap.dedent(code))
        return [queue.get() for _ in range(queue.qsize())]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[Interpreter]:
    made = Interpreter()
    yield made
    made.made.close()


HOSTS = pytest.mark.parametrize("run", ["nurseryio.run(main)", "asyncio.run(main())"])


@HOSTS
def test_nurseries_scopes_and_channels_work_in_a_subinterpreter(
    interpreter: Interpreter, run: str
) -> None:
    code = """
    async def child(number, channel):
        await nurseryio.sleep(0.001)
        await channel.send(number)

    async def fail():
        raise KeyError("one")

    async def main():
        send, receive = nurseryio.open_memory_channel(0)
        async with open_nursery() as nursery:
            for number in range(3):
                nursery.start_soon(child, number, send)
            queue.put(sorted([await receive.receive() for _ in range(3)]))
        with nurseryio.move_on_after(0.001) as scope:
            await asyncio.sleep(3600)
        queue.put(scope.cancelled_caught)
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(fail)
                nursery.start_soon(nurseryio.sleep_forever)
        except* KeyError as group:
            queue.put(len(group.exceptions))
        queue.put(asyncio.current_task().cancelling())
    """
    assert interpreter.run(code + f"\n    {run}") == [[0, 1, 2], True, 1, 0]


@HOSTS
def test_threads_files_and_name_lookup_work_where_daemon_threads_are_refused(
    interpreter: Interpreter, run: str
) -> None:
    code = """
    def work():
        thread = threading.current_thread()
        return from_thread.run_sync(len, "four"), from_thread.run(double, 2), thread.daemon

    async def double(number):
        await nurseryio.sleep(0)
        return 2 * number

    async def main():
        queue.put(await to_thread.run_sync(work))
        queue.put(await to_thread.run_sync(len, "abc", abandon_on_cancel=True))
        queue.put(await nurseryio.Path(root).is_dir())
        found = await nurseryio.socket.getaddrinfo("127.0.0.1", 80)
        queue.put(bool(found))
    """
    assert interpreter.run(code + f"\n    {run}") == [(4, 4, False), 3, True, True]


def test_other_loops_in_threads_of_a_subinterpreter_are_reached_by_their_tokens(
    interpreter: Interpreter,
) -> None:
    code = """
    async def main():
        token = nurseryio.lowlevel.current_trio_token()
        called = nurseryio.Event()

        async def other():
            token.run_sync_soon(called.set)

        await to_thread.run_sync(nurseryio.run, other)
        await called.wait()
        queue.put(called.is_set())

    nurseryio.run(main)
    """
    assert interpreter.run(code) == [True]


def test_a_signal_receiver_in_a_subinterpreter_says_where_signals_can_be_received(
    interpreter: Interpreter,
) -> None:
    code = """
    async def main():
        try:
            with nurseryio.open_signal_receiver(signum):
                pass
        except RuntimeError as error:
            queue.put(str(error))

    nurseryio.run(main)
    """
    (message,) = interpreter.run(code, signum=int(signal.SIGTERM))
    assert "main interpreter only" in message


def test_a_run_in_a_subinterpreter_leaves_the_handler_of_ctrl_c_alone(
    interpreter: Interpreter,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    code = """
    async def main():
        await nurseryio.sleep(0)
        queue.put("ran")

    nurseryio.run(main)
    """
    assert interpreter.run(code) == ["ran"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("busy", [False, True])
def test_closing_a_subinterpreter_does_not_wait_for_idle_worker_threads(busy: bool) -> None:
    made = Interpreter()
    code = """
    async def main():
        gate = threading.Event()
        with nurseryio.move_on_after(0.01 if busy else 3600):
            await to_thread.run_sync(gate.wait if busy else len, *(() if busy else ("a",)),
                                     abandon_on_cancel=True)
        # A thread that was abandoned ends soon after the run.
        if busy:
            threading.Timer(0.1, gate.set).start()
        queue.put("ran")

    nurseryio.run(main)
    """
    assert made.run(code, busy=busy) == ["ran"]
    begun = time.monotonic()
    made.made.close()
    # Without work a worker thread stays for ten seconds.
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("observer", ["instruments.Watchdog()", "instruments.serve_monitor(path)"])
@pytest.mark.parametrize("closed", [True, False])
def test_observers_with_threads_of_their_own_work_where_daemon_threads_are_refused(
    observer: str, closed: bool, tmp_path: Path
) -> None:
    """One that is not closed does not keep the interpreter from ending."""
    made = Interpreter()
    code = f"""
    from nurseryio import instruments

    loop = asyncio.new_event_loop()

    async def main():
        observer = {observer}
        observer.__enter__()
        if closed:
            observer.__exit__(None, None, None)
        names = [t.name for t in threading.enumerate() if "MainThread" not in t.name]
        queue.put([names, threading.active_count()])

    loop.run_until_complete(main())
    """
    ((names, count),) = made.run(code, path=str(tmp_path / "socket"), closed=closed)
    assert count == 2 - closed
    assert len(names) == 1 - closed
    begun = time.monotonic()
    made.made.close()
    assert time.monotonic() - begun < 5


def test_dump_on_signal_in_a_subinterpreter_says_where_it_works(interpreter: Interpreter) -> None:
    code = """
    from nurseryio import instruments

    try:
        instruments.dump_on_signal(signum)
    except ValueError as error:
        queue.put(str(error))
    """
    (message,) = interpreter.run(code, signum=int(signal.SIGUSR1))
    assert message.startswith("dump_on_signal() works in Python's main interpreter only: ")


@HOSTS
def test_worker_processes_portals_and_runners_work_in_a_subinterpreter(
    interpreter: Interpreter, run: str
) -> None:
    code = """
    from nurseryio import testing, to_interpreter, to_process

    async def main():
        queue.put(await to_process.run_sync(len, "abc"))
        queue.put(await to_interpreter.run_sync(len, "abcd"))
    """
    after = """
    with from_thread.open_portal() as portal:
        queue.put(portal.run_sync(len, "abcde"))
    with testing.Runner(testing.MockClock(autojump_threshold=0)) as runner:
        queue.put(runner.run(nurseryio.sleep, 3600))

    # multiprocessing keeps a process and a pipe for each interpreter that has started a process.
    from multiprocessing import resource_tracker

    resource_tracker._resource_tracker._stop()
    """
    assert interpreter.run(code + f"\n    {run}" + after) == [3, 4, 5, None]


IN_A_POOL = (
    BEGIN.replace("root", repr(str(source.ROOT)))
    + """
ended = []

async def main():
    async with open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(to_thread.run_sync, ended.append, number)

nurseryio.run(main)
assert sorted(ended) == [0, 1, 2]
"""
)


def test_an_interpreter_pool_runs_nurseries_and_ends() -> None:
    futures: Any = importlib.import_module("concurrent.futures")
    with futures.InterpreterPoolExecutor(max_workers=1) as pool:
        for _ in range(2):
            assert pool.submit(exec, IN_A_POOL, {}).result() is None
        with pytest.raises(AssertionError):
            pool.submit(exec, IN_A_POOL.replace("[0, 1, 2]", "[]"), {}).result()
