"""Many event loops in many threads, which call each other while they begin and end.

``python -m harness.thread_stress --seconds N --seed S`` in ``tests`` runs rounds until the time is
over. ``tests/test_many_threads.py`` runs a few seconds. Threads are switched after each few
bytecodes (``sys.setswitchinterval``). Which thread runs when is not reproducible; the seed decides
what each loop does.

A *round* starts some threads. Each of them runs one loop after the other. The life of a loop is a
:class:`Life`: it publishes its token, does some random steps (:data:`STEPS`), and ends. Meanwhile
the others send to the token, call in by ``from_thread``, and wait for its signals and sockets. The
main thread has a loop of its own, which receives signals.

The invariants:

1. Every loop, thread and call ends.
2. A function that a token of a ``run`` has accepted is called once, also at the end of the run. On
   a plain loop that is closed in the middle it is called at most once.
3. A ``from_thread`` call is answered. It returns if its function has been called, and otherwise
   raises ``RunFinishedError`` or, if it was async, ``Cancelled``.
4. Errors, timeouts, items and results of the steps are those that were expected, each once.
5. Async generators that other threads collect are closed.
6. At the end of a life no task is left, the exception handler was not called, and the invariants of
   the engine hold. At the end of a round no thread, record, loop state or descriptor is left.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import faulthandler
import functools
import gc
import importlib
import math
import os
import random
import signal
import socket as stdlib
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import nurseryio
from harness import clean, matrix
from harness.net import LOCALHOST
from nurseryio import (
    Cancelled,
    CancelScope,
    ClosedResourceError,
    RunFinishedError,
    TooSlowError,
    from_thread,
    open_nursery,
    to_thread,
)
from nurseryio._base import thread_cache
from nurseryio._core import anyio_hook
from nurseryio._core.delivery import _validate
from nurseryio._core.loop_state import all_states, loop_state, sweep_closed_loops
from nurseryio._core.task import records
from nurseryio.abc import Instrument
from nurseryio.lowlevel import RunVar, TrioToken, checkpoint, current_trio_token

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

# Real seconds after which a round hangs. It takes less than one.
LIMIT = 60.0

THREADS = 6
LIVES = 4  # of each thread in a round
STEPS_OF_A_LIFE = 8

# Each loop sets its own value.
VARIABLE: RunVar[object] = RunVar("stress")


class Round:
    """The lives that run at the same time.

    Attributes:
        counts: what has happened, for the report.
        errors: what went wrong, a text each.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self._lives: list[Life] = []
        self._lock = threading.Lock()
        # Held while garbage is collected, and while a run ends.
        self.collecting = threading.Lock()
        # One signal is sent at a time, and the main thread acknowledges it.
        self.signalling = threading.Lock()
        self.signalled = threading.Event()

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def enter(self, life: Life) -> None:
        with self._lock:
            self._lives.append(life)

    def leave(self, life: Life) -> None:
        with self._lock:
            self._lives.remove(life)

    def any_life(self, rng: random.Random) -> Life | None:
        with self._lock:
            return rng.choice(self._lives) if self._lives else None

    # -- threads --

    def run(self) -> None:
        """Run the round. To be called in the main thread."""
        done = threading.Event()
        threads = [
            threading.Thread(target=self._live, args=(number,), name=f"stress {number}")
            for number in range(THREADS)
        ]

        def join() -> None:
            for thread in threads:
                thread.join()
            done.set()

        joiner = threading.Thread(target=join, name="stress joiner")
        try:
            nurseryio.run(self._main, [*threads, joiner], done)
        except BaseException as error:
            self._note(error, "the main thread")
        joiner.join()
        self._look_at_the_end()

    async def _main(self, threads: list[threading.Thread], done: threading.Event) -> None:
        """The loop of the main thread: receive signals until all threads have ended."""

        async def receive(task_status: Any) -> None:
            with nurseryio.open_signal_receiver(signal.SIGUSR1) as received:
                task_status.started()
                async for _ in received:
                    self.count("signals received")
                    self.signalled.set()

        async with open_nursery() as nursery:
            await nursery.start(receive)
            for thread in threads:
                thread.start()
            await to_thread.run_sync(done.wait)
            nursery.cancel_scope.cancel()

    def _live(self, number: int) -> None:
        for index in range(LIVES):
            life = Life(self, random.Random(f"{self.seed} {number} {index}"))
            try:
                life.run()
                life.check()
            except BaseException as error:
                self._note(error, f"{life}")
            self.count("lives")

    def _note(self, error: BaseException, where: str) -> None:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        self.errors.append(f"{where}, seed {self.seed}:\n{text}")

    def _look_at_the_end(self) -> None:
        gc.collect()
        sweep_closed_loops()
        deadline = time.monotonic() + clean.GRACE
        while time.monotonic() < deadline and (
            len(threading.enumerate()) - 1 > len(thread_cache.idle_threads())
        ):
            time.sleep(0.002)
        left = {*threading.enumerate()} - thread_cache.idle_threads() - {threading.current_thread()}
        for what, found in {
            "threads": left,
            "records": records,
            "loop states": all_states(),
            "lives": self._lives,
        }.items():
            if found:
                self.errors.append(f"seed {self.seed}: {what} are left: {found!r}")
        if self.counts["signals received"] != self.counts["signals sent"]:
            self.errors.append(f"seed {self.seed}: signals were lost: {self.counts}")


class Life:
    """One loop, from its making to its end, and what other threads do with its token."""

    def __init__(self, home: Round, rng: random.Random) -> None:
        self.home = home
        self.rng = rng
        self.kind = rng.choice(list(matrix.KINDS))
        self.host = rng.choice(("run", "app", "rude"))
        self.token: TrioToken | None = None
        self._lock = threading.Lock()
        # Changed by other threads, under the lock: functions that the token accepted, from_thread
        # calls that returned.
        self.accepted = 0
        self.returned = 0
        # Changed on the loop alone.
        self.called = 0
        self.served = 0
        self.generators_begun = 0
        self.generators_closed = 0
        self.reports: list[str] = []
        self._collects_none = False
        self.done: list[str] = []

    def __repr__(self) -> str:
        return f"<{self.host} on {self.kind}, did {self.done}>"

    # -- called in other threads --

    def send(self) -> None:
        """Have a function called on this loop, which may be ending."""
        assert self.token is not None
        with self._lock:
            try:
                self.token.run_sync_soon(self._called)
            except RunFinishedError:
                self.home.count("sends refused")
            else:
                self.accepted += 1

    def call(self, sync: bool) -> None:
        """Call in by ``from_thread``. For a thread without a loop."""
        try:
            if sync:
                from_thread.run_sync(self._served, trio_token=self.token)
            else:
                from_thread.run(self._served_later, trio_token=self.token)
        except (RunFinishedError, Cancelled):
            self.home.count("calls refused")
        else:
            with self._lock:
                self.returned += 1

    # -- called on the loop --

    def _called(self) -> None:
        self.called += 1

    def _served(self) -> None:
        self.served += 1

    async def _served_later(self) -> None:
        await checkpoint()
        self.served += 1

    def _report(self, _loop: object, context: dict[str, Any]) -> None:
        # A plain loop may be closed when a task for another thread has just been made.
        if self.host == "run" or "was destroyed" not in context["message"]:
            self.reports.append(repr(context))

    def run(self) -> None:
        if self.host == "run":
            factory = functools.partial(matrix.new_loop, self.kind)
            try:
                nurseryio.run(self._main, loop_factory=factory)
            finally:
                if self._collects_none:
                    self.home.collecting.release()
            return
        loop = matrix.new_loop(self.kind)
        try:
            loop.run_until_complete(self._main())
            if self.host == "app":
                loop.run_until_complete(self._catch_up())
            _finish_tasks(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._report)
        loop.slow_callback_duration = math.inf  # the machine may be busy
        self.token = current_trio_token()
        assert VARIABLE.get(None) is None
        VARIABLE.set(self)
        self.home.enter(self)
        try:
            for _ in range(STEPS_OF_A_LIFE):
                step = self.rng.choice(STEPS)
                self.done.append(step.__name__)
                with nurseryio.fail_after(LIMIT / 2):
                    await step(self)
                self.home.count(step.__name__)
            assert VARIABLE.get() is self
        finally:
            self.home.leave(self)
        if self.host == "run":
            # A generator that another thread is collecting while the run ends may be lost.
            self._collects_none = self.home.collecting.acquire()
        _validate(loop_state(loop))
        if sys.version_info >= (3, 11):
            task = asyncio.current_task()
            assert task is not None and task.cancelling() == 0

    async def _catch_up(self) -> None:
        """Let the functions be called that the token has accepted; nothing else is lost."""
        with self._lock:
            expected = self.accepted
        with nurseryio.fail_after(LIMIT / 2):
            while self.called < expected:
                await asyncio.sleep(0)

    def check(self) -> None:
        """Look at what must hold once the loop is closed."""
        # A thread may be between its call and the lock.
        with self._lock:
            accepted = self.accepted
        if self.host == "run":
            assert self.called == accepted, f"{self.called} of {accepted} were called"
            assert self.generators_closed == self.generators_begun
        assert self.called <= accepted
        assert not self.reports, self.reports
        self.home.count("functions accepted", accepted)


def _finish_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that are left, as ``asyncio.run`` does: those that serve other threads."""
    while tasks := asyncio.all_tasks(loop):
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


# -- the steps --------------------------------------------------------------------


class Failure(Exception):
    """Raised by a child, and expected."""


async def children(life: Life) -> None:
    """Children of a nursery, some of which fail."""
    ended, failures = [], []

    async def child(number: int, fails: bool) -> None:
        await checkpoint()
        ended.append(number)
        if fails:
            failures.append(number)
            raise Failure(number)

    number = life.rng.randrange(1, 20)
    failing = {n for n in range(number) if life.rng.random() < 0.1}
    try:
        async with open_nursery() as nursery:
            for n in range(number):
                nursery.start_soon(child, n, n in failing)
    except BaseExceptionGroup as group:
        assert all(type(error) is Failure for error in group.exceptions)
        assert sorted(error.args[0] for error in group.exceptions) == sorted(failures)
    else:
        assert not failing
        assert sorted(ended) == list(range(number))


async def timeouts(life: Life) -> None:
    """Deadlines, shields and levels."""
    with nurseryio.move_on_after(life.rng.choice((0, 0.0005))) as scope:
        try:
            await nurseryio.sleep_forever()
        finally:
            with CancelScope(shield=True):
                await asyncio.sleep(0)
    assert scope.cancelled_caught
    try:
        with nurseryio.fail_after(0.0005):
            async with open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(asyncio.sleep, 3600)
    except TooSlowError:
        return
    raise AssertionError("no TooSlowError was raised")


async def channels(life: Life) -> None:
    """Each item of a memory channel arrives once."""
    send, receive = nurseryio.open_memory_channel[int](life.rng.randrange(3))
    received: list[int] = []

    async def produce(first: int, channel: Any) -> None:
        async with channel:
            for item in range(first, first + 10):
                await channel.send(item)

    async def consume(channel: Any) -> None:
        async with channel:
            async for item in channel:
                received.append(item)

    async with open_nursery() as nursery:
        for first in (0, 10):
            nursery.start_soon(produce, first, send.clone())
            nursery.start_soon(consume, receive.clone())
        send.close()
        receive.close()
    assert sorted(received) == list(range(20))


async def threads(life: Life) -> None:
    """Worker threads that call back into the waiting task, and abandoned ones."""

    async def in_the_task(number: int) -> int:
        await checkpoint()
        return number

    def work(number: int) -> int:
        assert from_thread.run_sync(VARIABLE.get) is life
        return from_thread.run(in_the_task, number)

    results = await nurseryio.gather(
        *(functools.partial(to_thread.run_sync, work, n) for n in range(4))
    )
    assert list(results) == [0, 1, 2, 3]
    gate = threading.Event()
    with nurseryio.move_on_after(0) as scope:
        await to_thread.run_sync(gate.wait, abandon_on_cancel=True)
    gate.set()
    assert scope.cancelled_caught
    assert await to_thread.run_sync(len, "abc", abandon_on_cancel=True) == 3


async def sends(life: Life) -> None:
    """Functions for other loops, by their tokens."""
    for _ in range(10):
        other = life.home.any_life(life.rng)
        if other is not None:
            other.send()
            await asyncio.sleep(0)


async def calls(life: Life) -> None:
    """Calls into other loops from worker threads."""

    def call(other: Life, sync: bool) -> None:
        other.call(sync)

    async with open_nursery() as nursery:
        for _ in range(4):
            other = life.home.any_life(life.rng)
            if other is not None:
                nursery.start_soon(to_thread.run_sync, call, other, life.rng.random() < 0.5)


async def instruments(life: Life) -> None:
    """An instrument sees each child."""
    spawned: list[str] = []

    class Watch(Instrument):
        def task_spawned(self, task: Any) -> None:
            spawned.append(task.name)

    watch = Watch()
    nurseryio.lowlevel.add_instrument(watch)
    async with open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(checkpoint, name=f"watched {number}")
    nurseryio.lowlevel.remove_instrument(watch)
    expected = [f"watched {number}" for number in range(3)]
    assert [name for name in spawned if name in expected] == expected, spawned


async def anyio_shields(life: Life) -> None:
    """Scopes in an anyio shield, which is lowered by another task."""
    try:
        anyio: Any = importlib.import_module("anyio")
    except ImportError:
        return
    inside: list[Any] = []
    ready = asyncio.Event()

    async def child() -> None:
        with anyio.CancelScope(shield=True) as shield:
            with CancelScope():
                inside.append(shield)
                ready.set()
                await nurseryio.sleep_forever()

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        await ready.wait()
        nursery.cancel_scope.cancel()
        with CancelScope(shield=True):
            await asyncio.sleep(0)
        inside[0].shield = False
    assert nursery.cancel_scope.cancelled_caught


async def resolver(life: Life) -> None:
    """Name look-up in worker threads."""
    found = await nurseryio.socket.getaddrinfo(LOCALHOST, 80, type=stdlib.SOCK_STREAM)
    assert found
    assert (await nurseryio.socket.getaddrinfo("127.0.0.1", 80))[0][4][0] == "127.0.0.1"


async def signals(life: Life) -> None:
    """A signal to the main thread."""
    home = life.home

    def send() -> None:
        with home.signalling:
            home.signalled.clear()
            home.count("signals sent")
            os.kill(os.getpid(), signal.SIGUSR1)
            assert home.signalled.wait(LIMIT / 2)

    await to_thread.run_sync(send)


async def sockets(life: Life) -> None:
    """A socket that another thread closes while a task waits for it."""
    left, right = nurseryio.socket.socketpair()
    with right:
        await right.send(b"one")
        assert await left.recv(3) == b"one"

        async def close() -> None:
            with left:
                await checkpoint()

        closed = asyncio.Event()

        async def receive() -> None:
            try:
                await left.recv(1)
            except ClosedResourceError:
                closed.set()
            except OSError as error:  # it was closed before the wait began
                assert error.errno == errno.EBADF
                closed.set()

        async with open_nursery() as nursery:
            nursery.start_soon(receive)
            await asyncio.sleep(0)
            await to_thread.run_sync(nurseryio.run, close)
        assert closed.is_set()
        # The other end sees that the descriptor has been closed.
        assert await right.recv(1) == b""


async def generators(life: Life) -> None:
    """Async generators in reference cycles, which any thread may collect."""
    if life.host != "run":
        return  # asyncio closes them, in tasks that a loop may be closed under

    async def numbers() -> Any:
        try:
            yield 1
        finally:
            life.generators_closed += 1

    for _ in range(3):
        generator = numbers()
        life.generators_begun += 1
        await generator.__anext__()
        cycle: list[Any] = [generator]
        cycle.append(cycle)
        del generator, cycle
    if life.rng.random() < 0.3:
        with life.home.collecting:
            gc.collect()


async def trio_programs(life: Life) -> None:
    """``import trio`` gives this library, whichever thread asks first."""
    trio: Any = importlib.import_module("nurseryio.aio").provide_trio()
    assert trio.CancelScope is CancelScope
    assert importlib.import_module("trio.lowlevel").checkpoint is checkpoint


STEPS: list[Callable[[Life], Awaitable[None]]] = [
    *(children, timeouts, channels, threads, sends, sends, calls, calls, instruments),
    *(anyio_shields, resolver, signals, sockets, generators, trio_programs),
]


# -- the command line -------------------------------------------------------------


def run(seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """Run rounds for some seconds, at least one. Ends at the first fault.

    Returns:
        How often each thing happened, and the faults.
    """
    counts: Counter[str] = Counter()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    gc.disable()
    for kind in matrix.KINDS:
        # libuv opens a pipe for the whole process.
        loop = matrix.new_loop(kind)
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    begun = time.monotonic()
    try:
        while True:
            forget_first_uses()
            descriptors = clean.open_descriptors()
            faulthandler.dump_traceback_later(LIMIT, exit=True)
            one = Round(seed)
            one.run()
            faulthandler.cancel_dump_traceback_later()
            counts += one.counts
            counts["rounds"] += 1
            new = clean.open_descriptors() - descriptors
            if new:
                one.errors.append(f"seed {seed}: descriptors are left: {sorted(new)}")
            if one.errors or time.monotonic() - begun > seconds:
                return counts, one.errors
            seed += 1
    finally:
        gc.enable()
        sys.setswitchinterval(interval)


def forget_first_uses() -> None:
    """Have the next round make the bridge to anyio again, in several threads."""
    backend = sys.modules.get("anyio._backends._asyncio")
    if backend is not None and anyio_hook.bridge is not None:
        setter = backend.CancelScope.shield.fset
        original = [cell.cell_contents for cell in setter.__closure__ or ()]
        assign = next(found for found in original if callable(found) and hasattr(found, "__code__"))
        shield = backend.CancelScope.shield
        backend.CancelScope.shield = property(shield.fget, assign, shield.fdel, shield.__doc__)
        anyio_hook.bridge = None


def main() -> int:
    """Run as a program. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args()
    # Generators are collected on purpose.
    warnings.filterwarnings("ignore", "Async generator", ResourceWarning)
    warnings.filterwarnings("ignore", "asynchronous generator", ResourceWarning)
    # A plain loop may be closed before a task for another thread has begun.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    counts, errors = run(options.seconds, options.seed)
    for what, number in sorted(counts.items()):
        print(f"{what}: {number}")
    for error in errors:
        print(error)
    print(f"{len(errors)} faults, first seed {options.seed}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
