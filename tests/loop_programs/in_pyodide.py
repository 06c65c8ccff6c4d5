"""The cross-section of nurseryio in Pyodide, where the event loop is that of the web page.

``in_pyodide.mjs`` runs this program by ``pyodide.runPythonAsync``. It sets the variable ``asked``,
which chooses the steps. Each step prints a line: its name, a colon, and a JSON list of the things
that it said. ``tests/test_pyodide.py`` has the lists that are expected.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import io
import json
import signal
import sys
import traceback
import unittest
from collections.abc import Awaitable, Callable
from typing import Any

import nurseryio
from nurseryio import lowlevel, open_nursery, testing
from nurseryio.abc import Instrument
from nurseryio.instruments import TraceFile, Tracer, write_timeline

Say = Callable[[object], None]


# -- what works ------------------------------------------------------------------


async def nurseries(say: Say) -> None:
    """Children, an error, ``start``, cancellation of a nursery."""
    log: list[int] = []

    async def child(number: int) -> None:
        await lowlevel.checkpoint()
        log.append(number)

    async def fails() -> None:
        await lowlevel.checkpoint()
        raise KeyError("one")

    async def service(task_status: Any) -> None:
        await asyncio.sleep(0)
        task_status.started("value")
        await nurseryio.sleep_forever()

    async with open_nursery() as outer:
        for number in range(100):
            outer.start_soon(child, number)
        async with open_nursery() as inner:
            say(await inner.start(service))
            inner.start_soon(asyncio.sleep, 3600)
            inner.cancel_scope.cancel()
    say(sorted(log) == list(range(100)))
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(fails)
            nursery.start_soon(nurseryio.sleep_forever)
    except ExceptionGroup as group:  # noqa: F821
        say([repr(error) for error in group.exceptions])


async def scopes(say: Say) -> None:
    """Deadlines, levels, shields, and a native cancel."""
    with nurseryio.move_on_after(0.01) as scope:
        try:
            await nurseryio.sleep_forever()
        finally:
            with nurseryio.CancelScope(shield=True):
                await asyncio.sleep(0.001)
                say("shielded")
            try:
                await asyncio.sleep(3600)
            except nurseryio.Cancelled:
                say("cancelled still")
    say(scope.cancelled_caught)
    with nurseryio.move_on_after(3600) as outer, nurseryio.move_on_after(0.01) as inner:
        await nurseryio.sleep(3600)
    say([inner.cancelled_caught, outer.cancel_called])
    try:
        with nurseryio.fail_after(0.01):
            await asyncio.Event().wait()
    except nurseryio.TooSlowError as error:
        say(type(error).__name__)
    task = asyncio.ensure_future(nurseryio.sleep_forever())
    await asyncio.sleep(0.001)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        say("native cancel")


async def distant_deadlines(say: Say) -> None:
    """A deadline in 30 days is beyond the timers of JavaScript. It neither passes nor spins."""
    loop = asyncio.get_running_loop()
    timers: list[float] = []

    class Counting(type(loop)):  # type: ignore[misc]
        def call_later(self, delay: float, callback: Any, *args: Any, **kwargs: Any) -> Any:
            if getattr(callback, "__name__", "") == "fire":  # the library's
                timers.append(delay)
            return super().call_later(delay, callback, *args, **kwargs)

    before = type(loop)
    loop.__class__ = Counting
    try:
        with nurseryio.move_on_after(30 * 24 * 3600) as scope:
            await asyncio.sleep(0.05)
    finally:
        loop.__class__ = before
    say(scope.cancel_called)
    say(len(timers))
    say(all(delay * 1000 < 2**31 for delay in timers))


async def channels(say: Say) -> None:
    """Back-pressure, clones, the end of the channel, a peer that is closed."""
    send, receive = nurseryio.open_memory_channel[int](3)

    async def produce(sender: Any) -> None:
        async with sender:
            for number in range(20):
                await sender.send(number)

    async with open_nursery() as nursery:
        async with send:
            for _ in range(5):
                nursery.start_soon(produce, send.clone())
        received = [number async for number in receive]
    say(sorted(received) == sorted(list(range(20)) * 5))
    send, receive = nurseryio.open_memory_channel[int](1)
    send.send_nowait(1)
    for attempt in (lambda: send.send_nowait(2), receive.close, lambda: send.send_nowait(3)):
        try:
            attempt()
        except Exception as error:
            say(type(error).__name__)


async def synchronization(say: Say) -> None:
    """Event, Lock, Semaphore, CapacityLimiter and Condition."""
    event, lock, semaphore = nurseryio.Event(), nurseryio.Lock(), nurseryio.Semaphore(2)
    limiter, condition = nurseryio.CapacityLimiter(3), nurseryio.Condition()
    most = dict.fromkeys(("lock", "semaphore", "limiter"), 0)
    inside = dict(most)

    async def enter(name: str, manager: Any) -> None:
        await event.wait()
        async with manager:
            inside[name] += 1
            most[name] = max(most[name], inside[name])
            await nurseryio.sleep(0.001)
            inside[name] -= 1

    async def wait_for_notice() -> None:
        async with condition:
            await condition.wait()
            say("notified")

    async with open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(enter, "lock", lock)
            nursery.start_soon(enter, "semaphore", semaphore)
            nursery.start_soon(enter, "limiter", limiter)
        nursery.start_soon(wait_for_notice)
        await testing.wait_all_tasks_blocked()
        say(dict(most))
        event.set()
        async with condition:
            condition.notify_all()
    say(most)


async def results(say: Say) -> None:
    """``gather``, ``race`` and ``amap``."""

    async def after(seconds: float, value: int) -> int:
        await nurseryio.sleep(seconds)
        return value

    one, two = functools.partial(after, 0.002, 1), functools.partial(after, 0.001, 2)
    say(await nurseryio.gather(one, two))
    say(await nurseryio.race(functools.partial(after, 3600, 1), two))
    double = functools.partial(after, 0.001)
    async with nurseryio.amap(double, range(5), limit=2) as values:
        say([value async for value in values])


async def memory_streams(say: Say) -> None:
    """Streams in memory: both directions, the end, a receive that is cancelled."""
    here, there = testing.memory_stream_pair()

    async def echo() -> None:
        async for data in there:
            await there.send_all(data.upper())
        await there.aclose()

    async with open_nursery() as nursery:
        nursery.start_soon(echo)
        with nurseryio.move_on_after(0.005) as scope:
            await here.receive_some()
        say(scope.cancelled_caught)
        await here.send_all(b"abc")
        say(bytes(await here.receive_some()).decode())
        await here.send_eof()
        say(len(await here.receive_some()))
    left, right = testing.lockstep_stream_pair()
    async with open_nursery() as nursery:
        nursery.start_soon(left.send_all, b"lockstep")
        say(bytes(await right.receive_some()).decode())


async def all_tasks_blocked(say: Say) -> None:
    """``wait_all_tasks_blocked`` with and without a cushion."""

    async def busy() -> None:
        for _ in range(20):
            await lowlevel.checkpoint()
        say("busy no more")
        await nurseryio.sleep_forever()

    async with open_nursery() as nursery:
        nursery.start_soon(busy)
        await testing.wait_all_tasks_blocked()
        say("blocked")
        await testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()


async def task_tree(say: Say) -> None:
    """The drawing shows the nursery of this task and the children."""

    async def waits() -> None:
        await nurseryio.sleep_forever()

    async with open_nursery() as nursery:
        nursery.start_soon(waits, name="first")
        nursery.start_soon(waits, name="second")
        await testing.wait_all_tasks_blocked()
        drawn = testing.task_tree().splitlines()
        say([line.split(" at ")[0].strip(" ├└│─") for line in drawn if " at " in line])
        nursery.cancel_scope.cancel()


async def tracer(say: Say) -> None:
    """A tracer sees each step of a child, and leaves the loop as it was."""
    lines: list[str] = []
    loop = asyncio.get_running_loop()
    before = vars(loop).get("call_soon")
    instrument = Tracer(lines.append)
    lowlevel.add_instrument(instrument)
    async with open_nursery() as nursery:
        nursery.start_soon(asyncio.sleep, 0, name="child")
    await asyncio.create_task(asyncio.sleep(0), name="asyncio's")
    lowlevel.remove_instrument(instrument)
    say([line for line in lines if line.endswith("child")])
    say([line for line in lines if "spawned" in line and "child" not in line])
    say(vars(loop).get("call_soon") is before)


async def foreign_awaits(say: Say) -> None:
    """A scope interrupts waits of asyncio code, and for JavaScript's promises."""
    from pyodide.code import run_js  # type: ignore[import-not-found]

    loop = asyncio.get_running_loop()
    waits: dict[str, Callable[[], Awaitable[object]]] = {
        "future": loop.create_future,
        "queue": asyncio.Queue[int]().get,
        "event": asyncio.Event().wait,
        "sleep": lambda: asyncio.sleep(3600),
        "wait_for": lambda: asyncio.wait_for(asyncio.sleep(3600), 3600),
        "gather": lambda: asyncio.gather(asyncio.sleep(3600), asyncio.sleep(3600)),
        "promise": lambda: run_js("new Promise(() => {})"),
    }
    for name, wait in waits.items():
        with nurseryio.move_on_after(0.005) as scope:
            await wait()
        say([name, scope.cancelled_caught])
    say(await run_js("new Promise((resolve) => setTimeout(() => resolve(7), 5))"))
    say(await asyncio.gather(asyncio.sleep(0.001, 1), nurseryio.sleep(0)))
    async with asyncio.TaskGroup() as group:
        with nurseryio.move_on_after(0.005) as scope:
            await group.create_task(asyncio.sleep(3600))
    say(scope.cancelled_caught)


async def system_tasks(say: Say) -> None:
    """``run_sync_soon`` and ``spawn_system_task``."""
    event, other = nurseryio.Event(), nurseryio.Event()
    lowlevel.current_trio_token().run_sync_soon(event.set)
    await event.wait()

    async def sets() -> None:
        other.set()

    lowlevel.spawn_system_task(sets)
    await other.wait()
    say("both")


async def services(say: Say) -> None:
    """A service nursery, and a scope that ends at a stop, without signals."""

    async def service(task_status: Any) -> None:
        task_status.started("ready")
        try:
            await nurseryio.sleep_forever()
        finally:
            say("closed")

    async with nurseryio.open_service_nursery() as nursery:
        say(await nursery.start(service))
        with nurseryio.move_on_at_stop() as scope:
            await nurseryio.sleep(0)
        say([scope.cancelled_caught, nurseryio.stop_requested()])


async def trace_file(say: Say) -> None:
    """A trace is written to a file in memory, and a page is made from it."""
    with TraceFile("/tmp/trace.json") as trace:
        lowlevel.add_instrument(trace)
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="traced")
        lowlevel.remove_instrument(trace)
    write_timeline("/tmp/trace.json", "/tmp/trace.html")
    for path in ("/tmp/trace.json", "/tmp/trace.html"):
        with open(path, encoding="utf-8") as file:
            say("traced" in file.read())


# -- what does not ---------------------------------------------------------------


async def test_frameworks(say: Say) -> None:
    """Test frameworks need a loop of their own. They leave that of the page alone."""

    class Case(testing.AsyncTestCase):
        async def test(self) -> None:
            await nurseryio.sleep(0)

    result = unittest.TestResult()
    Case("test").run(result)
    say([text.splitlines()[-1] for _, text in result.errors])
    with testing.Runner() as runner:
        say_error(say, lambda: runner.run(nurseryio.sleep, 0))
    await nurseryio.sleep(0)


async def refusals(say: Say) -> None:
    """Each function that needs a part which a page lacks: the error, or "works"."""
    from nurseryio import from_thread, instruments, socket, to_interpreter, to_process, to_thread

    async def receive_signals() -> None:
        with nurseryio.open_signal_receiver(signal.SIGINT):
            pass

    calls: dict[str, Callable[[], Any]] = {
        "to_thread.run_sync": lambda: to_thread.run_sync(print),
        "start_thread_soon": lambda: lowlevel.start_thread_soon(print, print),
        "from_thread.run": lambda: from_thread.run(nurseryio.sleep, 0),
        "from_thread.run_sync": lambda: from_thread.run_sync(print),
        "from_thread.check_cancelled": from_thread.check_cancelled,
        "open_file": lambda: nurseryio.open_file("/tmp/file", "w"),
        "wrap_file": lambda: nurseryio.wrap_file(sys.stdout),
        "Path.exists": lambda: nurseryio.Path("/").exists(),
        "Path.open": lambda: nurseryio.Path("/tmp/file").open(),
        "Path.cwd": nurseryio.Path.cwd,
        "Path.home": nurseryio.Path.home,
        "run_process": lambda: nurseryio.run_process(["ls"]),
        "open_process": lambda: lowlevel.open_process(["ls"]),
        "open_signal_receiver": receive_signals,
        "Watchdog": lambda: instruments.Watchdog().start(),
        "serve_monitor": lambda: instruments.serve_monitor("path"),
        "dump_on_signal": lambda: instruments.dump_on_signal(signal.SIGINT),
        "to_process.run_sync": lambda: to_process.run_sync(len, ""),
        "to_interpreter.run_sync": lambda: to_interpreter.run_sync(len, ""),
        "open_portal": from_thread.open_portal,
        "shared_portal": from_thread.shared_portal,
        "stop_on_signals": nurseryio.stop_on_signals,
        "sendfile": lambda: nurseryio.sendfile(testing.memory_stream_pair()[0], io.BytesIO(b"x")),
        "TemporaryFile": nurseryio.TemporaryFile,
        "NamedTemporaryFile": nurseryio.NamedTemporaryFile,
        "TemporaryDirectory": nurseryio.TemporaryDirectory,
        "open_stdin": nurseryio.open_stdin,
        "open_stdout": nurseryio.open_stdout,
        "open_stderr": nurseryio.open_stderr,
        "open_tcp_stream": lambda: nurseryio.open_tcp_stream("127.0.0.1", 80),
        "open_tcp_listeners": lambda: nurseryio.open_tcp_listeners(0),
        "serve_tcp": lambda: nurseryio.serve_tcp(nurseryio.sleep, 0),
        "open_unix_socket": lambda: nurseryio.open_unix_socket("/tmp/socket"),
        "open_unix_listeners": lambda: nurseryio.open_unix_listeners("/tmp/socket"),
        "serve_unix": lambda: nurseryio.serve_unix(nurseryio.sleep, "/tmp/socket"),
        "open_ssl_over_tcp_stream": lambda: nurseryio.open_ssl_over_tcp_stream("localhost", 443),
        "open_ssl_over_tcp_listeners": lambda: nurseryio.open_ssl_over_tcp_listeners(443, None),
        "serve_ssl_over_tcp": lambda: nurseryio.serve_ssl_over_tcp(nurseryio.sleep, 443, None),
        "SSLStream": lambda: nurseryio.SSLStream(None, None),
        "SSLListener": lambda: nurseryio.SSLListener(None, None),
        "socket": socket.socket,
        "socketpair": socket.socketpair,
        "fromfd": lambda: socket.fromfd(0, 2, 1),
        "from_stdlib_socket": lambda: socket.from_stdlib_socket(None),
        "getaddrinfo": lambda: socket.getaddrinfo("localhost", 80),
        "getnameinfo": lambda: socket.getnameinfo(("127.0.0.1", 80), 0),
        "getprotobyname": lambda: socket.getprotobyname("tcp"),
        "wait_readable": lambda: lowlevel.wait_readable(0),
        "wait_writable": lambda: lowlevel.wait_writable(1),
        "FdStream": lambda: lowlevel.FdStream(1),
    }
    for name, call in calls.items():
        with nurseryio.move_on_after(1) as scope:
            try:
                result = call()
                if hasattr(result, "__await__"):
                    await result
            except Exception as error:
                say([name, type(error).__name__, str(error)])
            else:
                say([name, "hangs" if scope.cancel_called else "works"])


async def preloading(say: Say) -> None:
    """``preload`` leaves out the modules that the platform cannot load."""
    nurseryio.preload()
    say("nurseryio._net.stream" in sys.modules)


async def run_that_cannot_wait(say: Say) -> None:
    """``run`` where the stack cannot be switched: JavaScript has called Python, and waits."""
    from pyodide.code import run_js  # type: ignore[import-not-found]

    def calls_run() -> None:
        try:
            nurseryio.run(nurseryio.sleep, 0)
        except RuntimeError as error:
            say(str(error))

    run_js("(call) => call()")(calls_run)


# -- run, by switching stacks ----------------------------------------------------


async def waits_and_returns(value: object) -> object:
    """A main function."""
    await nurseryio.sleep(0.01)
    return value


def say_error(say: Say, call: Callable[[], object]) -> None:
    """Say the error that a call raises."""
    try:
        call()
    except BaseException as error:
        say([type(error).__name__, str(error)])


async def run_returns(say: Say) -> None:
    """The result of the main function; twice; while another task of the page works."""
    ticks: list[int] = []

    async def tick() -> None:
        while True:
            await asyncio.sleep(0.001)
            ticks.append(1)

    other = asyncio.ensure_future(tick())
    say(nurseryio.run(waits_and_returns, 1))
    say(nurseryio.run(waits_and_returns, 2))
    say([bool(ticks), other.done()])
    other.cancel()


async def run_nursery(say: Say) -> None:
    """Nurseries and timeouts inside a run, and code on the same loop after it."""

    async def main() -> None:
        with nurseryio.move_on_after(0.01):
            async with open_nursery() as nursery:
                nursery.start_soon(nurseryio.sleep_forever)
                nursery.start_soon(asyncio.sleep, 3600)
        say("moved on")

    nurseryio.run(main)
    await nurseryio.sleep(0.001)
    say("goes on")


async def run_raises(say: Say) -> None:
    """Errors of the main function; an exit leaves its group and the run, and not the loop."""

    async def fails(error: BaseException) -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(raises, error)

    async def raises(error: BaseException) -> None:
        await nurseryio.sleep(0)
        raise error

    say_error(say, lambda: nurseryio.run(raises, ValueError("bad")))
    say_error(say, lambda: nurseryio.run(fails, ValueError("bad")))
    say_error(say, lambda: nurseryio.run(raises, SystemExit(3)))
    say_error(say, lambda: nurseryio.run(fails, SystemExit(3)))
    say_error(say, lambda: nurseryio.run(print))


async def run_in_run(say: Say) -> None:
    """Inside a run there is no other run."""

    async def child() -> None:
        say_error(say, lambda: nurseryio.run(waits_and_returns, 1))

    async def main() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(child)

    nurseryio.run(main)
    say(nurseryio.run(waits_and_returns, 3))


async def run_options(say: Say) -> None:
    """Options that need a loop of the run's own are refused. Instruments are used."""

    class Recorder(Instrument):
        def before_run(self) -> None:
            say("before_run")

        def task_spawned(self, task: Any) -> None:
            say("spawned " + task.name)

        def after_run(self) -> None:
            say("after_run")

    async def main() -> None:
        async with open_nursery() as nursery:
            nursery.start_soon(nurseryio.sleep, 0, name="child")

    nurseryio.run(main, instruments=[Recorder()])
    nurseryio.run(main)
    clock = testing.MockClock()
    say_error(say, lambda: nurseryio.run(main, clock=clock))
    say_error(say, lambda: nurseryio.run(main, loop_factory=asyncio.new_event_loop, clock=clock))
    say_error(say, lambda: nurseryio.run(main, restrict_keyboard_interrupt_to_checkpoints=True))
    say_error(say, lambda: nurseryio.run(main, strict_exception_groups=False))


# -- running them ------------------------------------------------------------------


CROSS_SECTION = (
    nurseries,
    scopes,
    distant_deadlines,
    channels,
    synchronization,
    results,
    memory_streams,
    all_tasks_blocked,
    task_tree,
    tracer,
    foreign_awaits,
    system_tasks,
    services,
    trace_file,
    test_frameworks,
    refusals,
    preloading,
    run_that_cannot_wait,
)
WITH_SWITCHING = (run_returns, run_nursery, run_raises, run_in_run, run_options)


async def clean(say: Say, reports: list[str]) -> None:
    """After all steps: no task is left, no cancel request, and nothing was reported."""
    await asyncio.sleep(0)
    gc.collect()
    this = asyncio.current_task()
    assert this is not None
    say([repr(task) for task in asyncio.all_tasks() if task is not this])
    say(this.cancelling())
    say(reports)


async def main(asked: str) -> None:
    """Run the steps of a list; print what each says."""
    reports: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: reports.append(repr(context)))
    steps: tuple[Any, ...] = CROSS_SECTION if asked == "cross-section" else WITH_SWITCHING
    for step in (*steps, functools.partial(clean, reports=reports)):
        said: list[object] = []
        try:
            await step(said.append)
        except BaseException as error:
            said.append(f"{type(error).__name__}: {error}")
            traceback.print_exc()
        name = getattr(step, "__name__", "clean")
        print(f"{name}: {json.dumps(said)}", flush=True)


await main(asked)  # type: ignore[name-defined] # noqa: F704, F821
