"""The cross-section: one step for each part of nurseryio that depends on the event loop.

Run as ``python cross_section.py LOOP HOST [STEP...]``. LOOP is a name from
``harness/foreign_loops.py``, or "stock" or "uvloop"; HOST is "run" or "app" as in the matrix. Each
step runs on a fresh loop, and a line is printed for it: ``STEP: ok``, or ``STEP: `` and the error.
The exit code is 0 if all steps passed. A step that takes longer than ``LIMIT`` ends the program.
"""

from __future__ import annotations

import asyncio
import faulthandler
import functools
import gc
import os
import signal
import socket as stdlib
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from harness import certs, fake_loops, foreign_loops, matrix

import nurseryio
from nurseryio import from_thread, open_nursery, to_thread
from nurseryio.abc import Instrument
from nurseryio.lowlevel import add_instrument, checkpoint, remove_instrument
from nurseryio.testing import MockClock, wait_all_tasks_blocked

# Real seconds that a step may take; the longest takes one.
LIMIT = 10

# How long everything waits in ``idle``, and the share of one core that this may use. The best of
# some attempts counts, because the machine may be busy; a loop that spins fails in each.
IDLE_SECONDS, IDLE_SHARE, IDLE_ATTEMPTS = 0.2, 0.1, 5

Step = Callable[[], Awaitable[None]]


async def nursery() -> None:
    """Children, an error, ``start``, cancellation of a nursery, nurseries inside."""
    log: list[str] = []

    async def child(tag: str) -> None:
        await checkpoint()
        await asyncio.sleep(0.001)
        log.append(tag)

    async def fails() -> None:
        await checkpoint()
        raise KeyError("one")

    async def service(task_status: Any) -> None:
        await asyncio.sleep(0)
        task_status.started("value")
        await nurseryio.sleep_forever()

    async with open_nursery() as outer:
        for number in range(100):
            outer.start_soon(child, f"{number}")
        async with open_nursery() as inner:
            assert await inner.start(service) == "value"
            inner.start_soon(asyncio.sleep, 3600)
            inner.cancel_scope.cancel()
    assert sorted(log, key=int) == [f"{number}" for number in range(100)]
    try:
        async with open_nursery() as failing:
            failing.start_soon(fails)
            failing.start_soon(nurseryio.sleep_forever)
    except BaseException as error:
        assert [repr(e) for e in error.exceptions] == ["KeyError('one')"]  # type: ignore[attr-defined]
    else:
        raise AssertionError("no error came out")


async def cancel_scopes() -> None:
    """Deadlines, levels, shields; the cancel count of the task is right afterwards."""
    with nurseryio.move_on_after(0.01) as scope:
        while True:
            try:
                await nurseryio.sleep_forever()
            finally:
                with nurseryio.CancelScope(shield=True):
                    await asyncio.sleep(0.001)
                try:
                    await asyncio.sleep(3600)  # cancelled still
                except nurseryio.Cancelled:
                    pass
    assert scope.cancelled_caught
    with nurseryio.move_on_after(3600) as outer, nurseryio.move_on_after(0.01) as inner:
        await nurseryio.sleep(3600)
    assert inner.cancelled_caught and not outer.cancel_called
    try:
        with nurseryio.fail_after(0.01):
            await asyncio.Event().wait()
    except nurseryio.TooSlowError:
        pass
    else:
        raise AssertionError("fail_after() did not raise")
    check_cancel_count()


def check_cancel_count() -> None:
    """No cancel request of a scope is left in the running task."""
    count = getattr(asyncio.current_task(), "cancelling", lambda: 0)()
    assert count == 0, f"{count} cancel requests are left"


async def foreign_awaits() -> None:
    """What asyncio code waits for is interrupted: futures, queues, gather, executors, streams."""
    loop = asyncio.get_running_loop()
    left, right = stdlib.socketpair()
    left.setblocking(False)
    with left, right:
        reader, writer = await asyncio.open_connection(sock=left)
        released = threading.Event()
        waits: list[Callable[[], Awaitable[object]]] = [
            loop.create_future,
            asyncio.Queue[int]().get,
            asyncio.Event().wait,
            functools.partial(asyncio.sleep, 3600),
            lambda: asyncio.wait_for(asyncio.sleep(3600), 3600),
            lambda: asyncio.gather(asyncio.sleep(3600), asyncio.sleep(3600)),
            lambda: reader.read(1),
            lambda: loop.run_in_executor(None, released.wait),
        ]
        for wait in waits:
            with nurseryio.move_on_after(0.005) as scope:
                await wait()
            assert scope.cancelled_caught
        released.set()
        right.send(b"x")
        assert await reader.read(1) == b"x"
        writer.close()
        await writer.wait_closed()

    async def canceled_natively() -> None:
        with nurseryio.CancelScope():
            await nurseryio.sleep_forever()

    task = asyncio.ensure_future(canceled_natively())
    await asyncio.sleep(0.001)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    else:
        raise AssertionError("a native cancel was lost")
    check_cancel_count()


async def echo(stream: Any) -> None:
    """A server's handler."""
    async with stream:
        async for data in stream:
            await stream.send_all(data)


async def talk(stream: Any, size: int = 1_000_000) -> None:
    """Send more than the buffers hold while an echo comes back; then cancel a receive."""
    payload = bytes(range(256)) * (size // 256)
    async with stream:
        async with open_nursery() as both:
            both.start_soon(stream.send_all, payload)
            received = bytearray()
            while len(received) < len(payload):
                data = await stream.receive_some()
                assert data, "the connection ended early"
                received += data
        assert received == payload
        with nurseryio.move_on_after(0.005) as scope:
            await stream.receive_some()
        assert scope.cancelled_caught
        await stream.send_all(b"again")
        assert await stream.receive_some() == b"again"


def port_of(listener: Any) -> int:
    """The port of a TCP listener."""
    number: int = listener.socket.getsockname()[1]
    return number


async def tcp() -> None:
    """A server and some clients; the server is cancelled while it accepts."""
    async with open_nursery() as server:
        serve = functools.partial(nurseryio.serve_tcp, echo, 0, host="127.0.0.1")
        (listener,) = await server.start(serve)
        async with open_nursery() as clients:
            for _ in range(5):
                stream = await nurseryio.open_tcp_stream("127.0.0.1", port_of(listener))
                clients.start_soon(talk, stream)
        server.cancel_scope.cancel()
    try:
        await nurseryio.open_tcp_stream("127.0.0.1", port_of_closed())
    except OSError:
        pass
    else:
        raise AssertionError("connected to a port that nothing listens on")


def port_of_closed() -> int:
    """A port that nothing listens on."""
    with stdlib.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        number: int = sock.getsockname()[1]
        return number


async def tls() -> None:
    """The same over TLS."""
    context = certs.server_context_for("127.0.0.1")
    async with open_nursery() as server:
        serve = functools.partial(
            nurseryio.serve_ssl_over_tcp, echo, 0, context, host="127.0.0.1", https_compatible=True
        )
        (listener,) = await server.start(serve)
        stream = await nurseryio.open_ssl_over_tcp_stream(
            "127.0.0.1",
            port_of(listener.transport_listener),
            ssl_context=certs.client_context(),
            https_compatible=True,
        )
        await talk(stream, 300_000)
        server.cancel_scope.cancel()


async def unix_sockets() -> None:
    """The same over a Unix socket."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/socket"
        async with open_nursery() as server:
            await server.start(nurseryio.serve_unix, echo, path)
            await talk(await nurseryio.open_unix_socket(path))
            server.cancel_scope.cancel()


async def udp() -> None:
    """Datagrams there and back; a receive is cancelled."""
    from nurseryio import socket

    with socket.socket(type=socket.SOCK_DGRAM) as one, socket.socket(type=socket.SOCK_DGRAM) as two:
        await one.bind(("127.0.0.1", 0))
        await two.bind(("127.0.0.1", 0))
        with nurseryio.move_on_after(0.005) as scope:
            await one.recvfrom(100)
        assert scope.cancelled_caught
        async with open_nursery() as nursery:

            async def answer() -> None:
                for _ in range(20):
                    data, sender = await two.recvfrom(100)
                    await two.sendto(data[::-1], sender)

            nursery.start_soon(answer)
            for number in range(20):
                question = f"question {number}".encode()
                await one.sendto(question, two.getsockname())
                assert (await one.recvfrom(100))[0] == question[::-1]


async def threads() -> None:
    """Out and back, many at once, called into from a thread, one abandoned, a foreign one."""

    def nested() -> int:
        from_thread.run(nurseryio.sleep, 0.001)
        return from_thread.run_sync(threading.get_ident)

    here = threading.get_ident()
    assert await to_thread.run_sync(nested) == here
    assert await to_thread.run_sync(threading.get_ident) != here
    async with open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(to_thread.run_sync, nested)
    released = threading.Event()
    with nurseryio.move_on_after(0.01) as scope:
        await to_thread.run_sync(released.wait, abandon_on_cancel=True)
    released.set()
    assert scope.cancelled_caught
    event, token = nurseryio.Event(), nurseryio.lowlevel.current_trio_token()
    thread = threading.Thread(target=token.run_sync_soon, args=(event.set,))
    thread.start()
    await event.wait()
    thread.join()


async def processes() -> None:
    """Output and exit code; input; one that is killed by a deadline."""
    code = "import sys; print(sys.stdin.read()[::-1], end=''); sys.exit(3)"
    done = await nurseryio.run_process(
        [sys.executable, "-c", code], stdin=b"abc", capture_stdout=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, b"cba")
    with nurseryio.move_on_after(0.05) as scope:
        await nurseryio.run_process(["sleep", "3600"])
    assert scope.cancelled_caught


async def signals() -> None:
    """Signals arrive while the loop sleeps, sent by this thread and by another one."""
    with nurseryio.open_signal_receiver(signal.SIGUSR1, signal.SIGUSR2) as arriving:
        os.kill(os.getpid(), signal.SIGUSR1)
        async for number in arriving:
            assert number == signal.SIGUSR1
            break
        timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGUSR2))
        timer.start()
        async for number in arriving:
            assert number == signal.SIGUSR2
            break
        timer.join()


async def channels() -> None:
    """Back-pressure, many producers, the end of the channel; a checkpoint lets others run."""
    send, receive = nurseryio.open_memory_channel[int](3)

    async def produce(sender: Any) -> None:
        async with sender:
            for number in range(50):
                await sender.send(number)

    async with open_nursery() as nursery:
        async with send:
            for _ in range(10):
                nursery.start_soon(produce, send.clone())
        received = [number async for number in receive]
    assert sorted(received) == sorted(list(range(50)) * 10)
    steps: list[str] = []
    waiting_send, waiting_receive = nurseryio.open_memory_channel[int](10)
    with waiting_send, waiting_receive:
        asyncio.get_running_loop().call_soon(steps.append, "callback")
        for _ in range(9):  # of eight in a row one yields
            await waiting_send.send(1)
        steps.append("sent")
    assert steps == ["callback", "sent"]


async def all_tasks_blocked() -> None:
    """``wait_all_tasks_blocked`` with and without a cushion."""
    log: list[str] = []
    left, right = stdlib.socketpair()
    left.setblocking(False)
    with left, right:

        async def busy() -> None:
            for _ in range(20):
                await checkpoint()
            log.append("busy no more")
            await nurseryio.lowlevel.wait_readable(left)
            log.append(left.recv(1).decode())

        async with open_nursery() as nursery:
            nursery.start_soon(busy)
            await wait_all_tasks_blocked()
            assert log == ["busy no more"], log
            right.send(b"x")
            await wait_all_tasks_blocked(0.01)
            assert log == ["busy no more", "x"], log


async def instruments() -> None:
    """An instrument sees each step, and leaves the loop as it was."""

    class Recorder(Instrument):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def task_spawned(self, task: Any) -> None:
            self.note("spawned", task)

        def before_task_step(self, task: Any) -> None:
            self.note("before", task)

        def after_task_step(self, task: Any) -> None:
            self.note("after", task)

        def task_exited(self, task: Any) -> None:
            self.note("exited", task)

        def note(self, what: str, task: Any) -> None:
            if task.name == "child":
                self.seen.append(what)

    loop = asyncio.get_running_loop()
    before = vars(loop).get("call_soon")
    recorder = Recorder()
    add_instrument(recorder)
    async with open_nursery() as nursery:
        nursery.start_soon(asyncio.sleep, 0, name="child")
    remove_instrument(recorder)
    assert recorder.seen == ["spawned", "before", "after", "before", "exited", "after"]
    assert vars(loop).get("call_soon") is before
    try:
        remove_instrument(recorder)
    except KeyError:
        pass
    else:
        raise AssertionError("it was still installed")


async def idle() -> None:
    """While everything waits, the process uses nearly no CPU time."""
    left, right = stdlib.socketpair()
    left.setblocking(False)
    released = threading.Event()
    send, receive = nurseryio.open_memory_channel[int](0)

    async def refuses() -> None:
        with nurseryio.CancelScope() as scope:
            scope.cancel()
            with nurseryio.CancelScope(shield=True):
                await to_thread.run_sync(released.wait)

    with left, right, send, receive:
        async with open_nursery() as nursery:
            serve = functools.partial(nurseryio.serve_tcp, echo, 0, host="127.0.0.1")
            (listener,) = await nursery.start(serve)
            stream = await nurseryio.open_tcp_stream("127.0.0.1", port_of(listener))
            nursery.start_soon(refuses)
            nursery.start_soon(stream.receive_some)
            nursery.start_soon(receive.receive)
            nursery.start_soon(nurseryio.sleep_forever)
            nursery.start_soon(nurseryio.sleep, 3600)
            nursery.start_soon(nurseryio.lowlevel.wait_readable, left)
            nursery.start_soon(nurseryio.run_process, ["sleep", "3600"])
            await to_thread.run_sync(time.sleep, 0.2)  # all of them have begun to wait
            used = [await cpu_time_of_a_wait()]
            while min(used) > IDLE_SECONDS * IDLE_SHARE and len(used) < IDLE_ATTEMPTS:
                used.append(await cpu_time_of_a_wait())
            released.set()
            nursery.cancel_scope.cancel()
        await stream.aclose()
    assert min(used) <= IDLE_SECONDS * IDLE_SHARE, f"CPU time in {IDLE_SECONDS} s each: {used}"


async def cpu_time_of_a_wait() -> float:
    """The seconds of CPU time that the process uses while its tasks wait."""
    before = time.process_time()
    await to_thread.run_sync(time.sleep, IDLE_SECONDS)
    return time.process_time() - before


async def virtual_time() -> None:
    """Under a clock that jumps, hours pass at once. Only ``run`` takes a clock."""
    before = nurseryio.current_time()
    await nurseryio.sleep(3600)
    await asyncio.sleep(3600)
    with nurseryio.move_on_after(3600):
        await asyncio.Event().wait()
    assert nurseryio.current_time() - before == 3 * 3600


async def resting_clock() -> None:
    """The same under a clock that jumps after some idle real time, while a thread works."""
    released = threading.Event()
    async with open_nursery() as nursery:
        nursery.start_soon(to_thread.run_sync, released.wait)
        await wait_all_tasks_blocked(0.02)
        released.set()
    await virtual_time()


async def ctrl_c() -> None:
    """``run`` raises KeyboardInterrupt when the user presses Ctrl-C while all tasks wait."""
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT)).start()
    async with open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep_forever)
        nursery.start_soon(asyncio.sleep, 3600)


STEPS: tuple[Step, ...] = (
    nursery,
    cancel_scopes,
    foreign_awaits,
    tcp,
    tls,
    unix_sockets,
    udp,
    threads,
    processes,
    signals,
    channels,
    all_tasks_blocked,
    instruments,
    idle,
    virtual_time,
    resting_clock,
    ctrl_c,
)

# The steps that need ``nurseryio.run``.
RUN_ONLY = (virtual_time, resting_clock, ctrl_c)

# The idle real time after which the clock of a step jumps.
THRESHOLDS = {virtual_time: 0.0, resting_clock: 0.01}


# -- running them ---------------------------------------------------------------


def make_loop(name: str) -> asyncio.AbstractEventLoop:
    """A fresh loop of that name."""
    if name in foreign_loops.LOOPS:
        return foreign_loops.LOOPS[name].make()
    if hasattr(fake_loops, name):
        return getattr(fake_loops, name)()  # type: ignore[no-any-return]
    return matrix.new_loop(name)


def run_step(step: Step, name: str, host: str) -> None:
    """Run a step on a fresh loop; nothing may be reported to its exception handler."""
    reports: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reports.append(repr(context)))
        await step()

    make = functools.partial(make_loop, name)
    if step in THRESHOLDS:
        clock = MockClock(autojump_threshold=THRESHOLDS[step])
        nurseryio.run(main, loop_factory=make, clock=clock)
    elif step is ctrl_c:
        with interrupted():
            nurseryio.run(main, loop_factory=make)
    elif host == "run":
        nurseryio.run(main, loop_factory=make)
    else:
        matrix.run_app(make, main)
    gc.collect()
    assert not reports, reports


@contextmanager
def interrupted() -> Iterator[None]:
    """The body raises KeyboardInterrupt."""
    try:
        yield
    except KeyboardInterrupt:
        return
    raise AssertionError("run() did not raise KeyboardInterrupt")


def give_up(_signum: int, _frame: object) -> None:
    """The step hangs: end the program."""
    print(f"did not end within {LIMIT} s", flush=True)
    faulthandler.dump_traceback()
    os._exit(3)


def main() -> None:
    """Run the steps as the command line says, and exit."""
    name, host, *asked = sys.argv[1:]
    steps = [step for step in STEPS if host == "run" or step not in RUN_ONLY]
    failed = False
    signal.signal(signal.SIGALRM, give_up)
    for step in steps:
        if asked and step.__name__ not in asked:
            continue
        print(f"{step.__name__}: ", end="", flush=True)
        signal.alarm(LIMIT)
        faulthandler.dump_traceback_later(LIMIT + 2, exit=True)
        try:
            run_step(step, name, host)
        except BaseException as error:
            failed = True
            print(f"{type(error).__name__}: {error}".replace("\n", " "), flush=True)
            traceback.print_exc()
        else:
            print("ok", flush=True)
    signal.alarm(0)
    faulthandler.cancel_dump_traceback_later()
    sys.stderr.flush()
    # Not sys.exit(), because some toolkits crash when the interpreter ends.
    os._exit(failed)


if __name__ == "__main__":
    main()
