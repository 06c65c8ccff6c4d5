"""One run of a program in a separate process, and the verdict on it.

This file holds :class:`Trial`, which runs a program on one of the cases ("host-loop") with an
:class:`Injector`, and :func:`run_each`, which forks. Which lines are tried is decided in
``injection``.

The verdict, for a run in which an exception was raised at a line of the engine:

1. *hangs, late, spins*: the program ends within its virtual time, its iterations and a limit of
   real time.
2. *lost, twice*: the injected error is reported exactly once. One that the engine itself catches,
   as it does RuntimeError at some lines, may be absorbed if the run is the same in all else.
   *original lost, original twice*: the same for errors that the program raised before.
3. *bystander*: tasks that have nothing to do with the program do what they always do. When
   ``run`` fails as a whole (TrioInternalError, or an exit raised in a callback), they are
   cancelled.
4. *invalid*: ``_validate`` holds. *scope open, cancel count, stray cancel*: the program's own
   task is as it was before.
5. *child runs, task left, record left, loop open, handler left*: nothing runs or stays.
6. *engine error*: no AssertionError or KeyError and the like comes out of the engine besides.
   *other error*: no error is reported that the program does not report otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import io
import os
import pickle
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import nurseryio
from nurseryio._base.thread_cache import ThreadCache
from nurseryio._core.delivery import _validate
from nurseryio._core.loop_state import loop_state
from nurseryio._core.task import records
from nurseryio.testing import MockClock

from .injection_lines import WHOSE, Injector, Line
from .injection_loops import THREAD_SECONDS, StockLoop, Watch, new_uvloop
from .injection_probe import Probe, leaves, marked, shape, times_in
from .injection_programs import Program, bystander

_start_thread_soon = ThreadCache.start_thread_soon

# How many trials a process makes while nothing goes wrong.
BATCH = 25

# Real seconds that a run may take.
WALL_SECONDS = 2.0

# How much later (virtual seconds) than without an injected error a program may end.
MORE_SECONDS = 5.0

# Times (virtual seconds) of the bystander may differ by this.
SLACK = 0.05

# Turns of the loop that tasks on their way out are given.
TURNS = 15

# Errors by which the engine shows that its own state has confused it.
CONFUSED = (AssertionError, AttributeError, KeyError, asyncio.InvalidStateError, UnboundLocalError)


@dataclass
class Result:
    """The result of one run."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    bystander: list[str] = field(default_factory=list)
    outcome: str = ""
    # The types of all errors that were reported.
    errors: set[str] = field(default_factory=set)
    ticks: int = 0
    end: float = 0.0
    # Recording only: how often each line was executed.
    counts: dict[Line, int] = field(default_factory=dict)
    # Whose code was hit, None if the line was not reached.
    fired: str | None = None
    stack: list[str] = field(default_factory=list)


class Trial:
    """One run.

    Args:
        program: what to run.
        case: "host-loop".
        injector: records lines, or raises at one.
        expected: the run without an injected error; None while that is recorded.
        send: called with the result when the run must end at once.
    """

    def __init__(
        self,
        program: Program,
        case: str,
        injector: Injector,
        expected: Result | None,
        send: Callable[[Result], NoReturn],
    ) -> None:
        self.program = program
        self.host, _, self.kind = case.partition("-")
        self.injector = injector
        self.expected = expected
        self.send = send
        self.probe = Probe(self.host)
        self.watch = Watch(self.abort)
        if expected is not None:
            self.watch.most_ticks = 10 * expected.ticks + 500
            self.watch.latest = expected.end + MORE_SECONDS
        self.loop: Any = None
        self.result = Result()
        self.bystander: asyncio.Task[None] | None = None
        self.began = self.ended = False
        self.value: object = None
        # The error that left the program (host "app") or run() (host "run").
        self.error: BaseException | None = None

    def run(self) -> Result:
        """Run the program. To be called once, in a separate process."""
        self.probe.install()
        stderr, sys.stderr = sys.stderr, io.StringIO()
        self._watch_threads()
        with self.injector:
            if self.host == "run":
                self._run_own()
            else:
                self._run_app()
        self.injector.active = False
        if self.injector.fired is not None and not self.injector.in_main_thread:
            self._await_thread()
        gc.collect(0)  # everything that the run has made is young
        if "injected at" in sys.stderr.getvalue():
            self.probe.reports.append(("stderr", self.injector.error))
        sys.stderr = stderr
        ThreadCache.start_thread_soon = _start_thread_soon  # type: ignore[method-assign]
        self.probe.remove()
        self._look_after_run()
        self._judge()
        return self._filled()

    def _await_thread(self) -> None:
        """An idle thread may still be about to report the injected error."""
        error, stderr = self.injector.error, sys.stderr
        assert isinstance(stderr, io.StringIO)
        end = time.monotonic() + THREAD_SECONDS
        while "injected at" not in stderr.getvalue() and time.monotonic() < end:
            reports = [report for _, report in self.probe.reports] + [self.error]
            if any(times_in(report, error) for report in reports if report is not None):
                break
            time.sleep(0.001)

    def abort(self, kind: str, detail: str) -> NoReturn:
        """A limit was passed: send what is known, and end the process."""
        self.injector.active = False
        self.probe.fault(kind, f"{detail}; {self._where_tasks_stand()}")
        self.send(self._filled())

    def _filled(self) -> Result:
        result, probe = self.result, self.probe
        result.faults, result.remarks, result.log = probe.faults, probe.remarks, probe.log
        result.ticks = self.watch.ticks
        result.counts = dict(self.injector.counts)
        result.fired, result.stack = self.injector.fired, self.injector.stack
        result.errors = {
            type(leaf).__name__ for _, error in probe.reports for leaf in leaves(error)
        }
        error = self.error
        result.outcome = repr(self.value) if error is None else shape(error)
        return result

    def _watch_threads(self) -> None:
        """Have the loop know when worker threads are at work."""
        watch = self.watch

        def start_thread_soon(cache: Any, fn: Any, deliver: Any, name: Any = None) -> None:
            def delivered(outcome: Any) -> None:
                try:
                    deliver(outcome)
                finally:
                    watch.done()

            watch.given()
            _start_thread_soon(cache, fn, delivered, name)

        ThreadCache.start_thread_soon = start_thread_soon  # type: ignore[method-assign]

    # -- the two hosts --

    def _new_loop(self) -> Any:
        loop = StockLoop(self.watch) if self.kind == "stock" else new_uvloop(self.watch)
        loop.set_exception_handler(self.probe.loop_error)
        self.loop = self.probe.loop = loop
        return loop

    def _run_own(self) -> None:
        clock = MockClock(autojump_threshold=0) if self.kind == "stock" else None
        self.injector.active = True
        try:
            self.value = nurseryio.run(self._main, clock=clock, loop_factory=self._new_loop)
        except BaseException as error:
            self.error = error
        if self.began and not self.ended:
            self.probe.fault("abandoned", "run() was left before the main task had ended")

    async def _main(self) -> object:
        self.began = True
        WHOSE.set("victim")
        self._start_bystander()
        scope_before = self._scope()
        try:
            return await self.program.run(self.probe)
        finally:
            # Off for the look at the end, on again for the end of the run.
            self.injector.active = False
            try:
                await self._look_at_victim(scope_before)
                await self._look_at_end()
            except Exception:
                self.probe.fault("harness", traceback.format_exc()[-300:])
            self.ended = True
            self.injector.active = self.injector.fired is None

    def _run_app(self) -> None:
        self.injector.active = True
        loop = self._new_loop()
        victim = marked("victim", loop.create_task, self._victim())
        self._start_bystander()
        ended = loop.create_future()
        left = {victim, self.bystander}

        def end(task: asyncio.Task[None]) -> None:
            left.discard(task)
            if not left and not ended.done():
                ended.set_result(None)

        for task in list(left):
            task.add_done_callback(end)
        for _ in range(5):
            try:
                loop.run_until_complete(ended)
                break
            except BaseException as error:
                # As it would leave asyncio.run. Here the loop goes on.
                self.probe.reports.append(("loop", error))
        else:
            self.abort("loop", "was left again and again")
        loop.run_until_complete(self._look_at_end())
        loop.close()

    async def _victim(self) -> None:
        scope_before = self._scope()
        try:
            self.value = await self.program.run(self.probe)
        except BaseException as error:
            self.error = error
        self.injector.active = False
        await self._look_at_victim(scope_before)

    def _start_bystander(self) -> None:
        assert self.loop is not None
        self.bystander = marked(
            "bystander", self.loop.create_task, bystander(self.result.bystander)
        )

    # -- looks at the end, in the loop --

    def _scope(self) -> Any:
        record = records.get(asyncio.current_task())  # type: ignore[arg-type]
        return None if record is None else record.scope

    async def _look_at_victim(self, scope_before: Any) -> None:
        """In the program's own task, when the program has been left."""
        probe = self.probe
        record = records.get(asyncio.current_task())  # type: ignore[arg-type]
        scope = self._scope()
        if record is not None and scope is not scope_before:
            if not (scope_before is None and scope._parent is None):
                # Whatever else is wrong with the task follows from it.
                probe.fault("scope open", f"{scope!r}")
                return
        count = getattr(asyncio.current_task(), "cancelling", lambda: 0)()
        if count != probe.requests and not self._failing:
            probe.fault("cancel count", f"{count} instead of {probe.requests}")
        for _ in range(3):
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as error:
                if not self._failing:
                    probe.fault("stray cancel", str(error)[:100])

    @property
    def _failing(self) -> bool:
        """Whether ``run`` fails as a whole: everything is cancelled then."""
        run = loop_state(self.loop).run
        if run is None:
            return False
        if any(getattr(run, name, None) for name in ("internal_error", "final_error", "exits")):
            return True
        record = records.get(asyncio.current_task())  # type: ignore[arg-type]
        nursery = None if record is None else record.parent_nursery
        return nursery is not None and nursery.cancel_scope._effective

    async def _look_at_end(self) -> None:
        """When the program has been left; the bystander may still run."""
        probe, before = self.probe, self.result
        while self.bystander is not None and not self.bystander.done():
            try:
                await asyncio.wait([self.bystander])
            except asyncio.CancelledError as error:
                if not self._failing and not probe.faults:
                    probe.fault("stray cancel", str(error)[:100])
                break
        before.end = self.loop.time()
        for _ in range(TURNS):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task() and not _is_of_run(task) and not self._failing:
                probe.fault("task left", f"{task.get_name()} {_where(task)}")
        try:
            _validate(loop_state(self.loop))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            probe.fault("invalid", f"{where.line}")

    # -- looks after the run --

    def _look_after_run(self) -> None:
        probe = self.probe
        if self.loop is not None:
            if not self.loop.is_closed():
                probe.fault("loop open", "after the run")
            for task in asyncio.all_tasks(self.loop):
                probe.fault("task left", f"{task.get_name()} {_where(task)} after the run")
            left = [record for record in records.values() if record._state.loop is self.loop]
            if left:
                probe.fault("record left", f"{left[0]!r}"[:80])
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            probe.fault("handler left", "of SIGINT")
        if sys.get_asyncgen_hooks() != (None, None):
            probe.fault("handler left", "of async generators")
        with contextlib.suppress(ValueError):
            if signal.set_wakeup_fd(-1) != -1:
                probe.fault("handler left", "signal wake-up descriptor")

    def _judge(self) -> None:
        expected = self.expected
        if self.error is not None:
            self.probe.reports.append((self.host, self.error))
        if expected is not None:
            if self.injector.fired is not None:
                self._judge_injected(expected)
            self._judge_bystander(expected)
        self._judge_originals()

    def _judge_injected(self, expected: Result) -> None:
        probe, wanted = self.probe, self.injector.error
        found = [
            (channel, times_in(error, wanted))
            for channel, error in probe.reports
            if times_in(error, wanted)
        ]
        if isinstance(wanted, KeyboardInterrupt) and len(found) > 1:
            # It leaves asyncio's task twice: through the loop, and to the code that awaits the
            # task.
            through = [item for item in found if item[0] in ("loop", "run")]
            found = through[:1] or found
        total = sum(times for _, times in found)
        if total > 1:
            probe.fault("twice", " and ".join(channel for channel, _ in found))
        elif total == 0 and not self._absorbed(expected):
            probe.fault("lost", f"{self.error!r}"[:120] + " came out")
        for channel, error in probe.reports:
            for leaf in leaves(error):
                if times_in(leaf, wanted) or any(times_in(leaf, own) for own in probe.originals):
                    continue
                if isinstance(leaf, CONFUSED):
                    probe.fault("engine error", f"{leaf!r}"[:80])
                elif not isinstance(leaf, asyncio.CancelledError):
                    if type(leaf).__name__ not in expected.errors:
                        probe.fault("other error", f"{channel}: {leaf!r}"[:150])

    def _absorbed(self, expected: Result) -> bool:
        if not self.injector.may_be_absorbed:
            return False
        outcome = repr(self.value) if self.error is None else shape(self.error)
        same_log = sorted(self.probe.log) == sorted(expected.log)  # order in a moment is free
        return outcome == expected.outcome and same_log

    def _judge_originals(self) -> None:
        escaped = isinstance(self.injector.error, KeyboardInterrupt) and self.injector.fired
        for error in self.probe.originals:
            channels = [
                name
                for name, report in self.probe.reports
                for _ in range(times_in(report, error))
                # It may be the context of an exit that leaves an asyncio task.
                if not (escaped and name in ("loop", "run"))
            ]
            lost = not any(times_in(report, error) for _, report in self.probe.reports)
            if lost:
                self.probe.fault("original lost", str(error))
            elif len(channels) > 1:
                self.probe.fault("original twice", f"{error}: {' and '.join(channels)}")

    def _judge_bystander(self, expected: Result) -> None:
        if self.bystander is None or self._is_excused():
            return
        got = self.result.bystander
        if not _alike(got, expected.bystander):
            missing = [line for line in expected.bystander if line not in got]
            error = None
            if self.bystander.done() and not self.bystander.cancelled():
                error = self.bystander.exception()
            what = "" if error is None else f", raised {shape(error)}"
            self.probe.fault("bystander", f"without {missing[:2]}{what}")

    def _is_excused(self) -> bool:
        """Whether ``run`` has failed as a whole, and said so."""
        if self.host != "run" or self.error is None:
            return False
        if isinstance(self.error, nurseryio.TrioInternalError):
            return True
        injected = self.injector.error
        if self.injector.fired != "victim":
            return times_in(self.error, injected) > 0
        # An exit in a task that asyncio started ends the run at once.
        return self.error is injected and isinstance(injected, KeyboardInterrupt)

    def _where_tasks_stand(self) -> str:
        if self.loop is None:
            return "no loop"
        found = [f"{task.get_name()}: {_where(task)}" for task in asyncio.all_tasks(self.loop)]
        return "; ".join(sorted(found)[:6]) or "no task"


def _is_of_run(task: asyncio.Task[Any]) -> bool:
    record = records.get(task)
    return task.get_name().startswith("<") or (record is not None and record._extra.is_system)


def _where(task: asyncio.Task[Any]) -> str:
    """The innermost two functions that a task waits in."""
    awaitable: Any = task.get_coro()
    frames = []
    while awaitable is not None:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if frame is not None:
            name = os.path.basename(frame.f_code.co_filename)
            frames.append(f"{name}:{frame.f_lineno} {frame.f_code.co_name}")
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
    return " > ".join(frames[-2:])


def _alike(one: list[str], other: list[str]) -> bool:
    """Whether two logs hold the same lines at about the same times; order in a moment is free."""
    if len(one) != len(other):
        return False

    def split(lines: list[str]) -> list[tuple[str, float]]:
        pairs = [line.partition(" ") for line in lines]
        return sorted((what, float(when)) for when, _, what in pairs)

    return all(
        a[0] == b[0] and abs(a[1] - b[1]) <= SLACK
        for a, b in zip(split(one), split(other), strict=True)
    )


# -- processes ------------------------------------------------------------------


def run_each(
    program: Program,
    case: str,
    make_injectors: list[Callable[[], Injector]],
    expected: Result | None = None,
) -> Iterator[Result]:
    """Run trials in forked processes, each for at most ``WALL_SECONDS``.

    A process goes on with the next trial as long as nothing goes wrong. A fault that is not the
    first trial of its process is looked at again in a new one.
    """
    todo = list(make_injectors)
    size = 1 if program.fresh else BATCH
    while todo:
        results = _in_child(program, case, todo[:size], expected)
        if len(results) > 1 and results[-1].faults:
            del results[-1]
        yield from results
        del todo[: len(results)]


def _in_child(
    program: Program,
    case: str,
    make_injectors: list[Callable[[], Injector]],
    expected: Result | None,
) -> list[Result]:
    """The results of the first trials, up to the first fault."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(program, case, make_injectors, expected, writing)
    os.close(writing)
    results: list[Result] = []
    killed = False
    with os.fdopen(reading, "rb") as file:
        data = b""
        while True:
            ready, _, _ = select.select([file], [], [], WALL_SECONDS)
            if not ready and killed:
                break
            if not ready:
                killed = True
                os.kill(child, signal.SIGUSR1)  # says where it stands, see _child
                continue
            part = os.read(reading, 1 << 20)
            if not part:
                break
            data += part
            while not killed and len(data) >= 4 and len(data) >= (end := 4 + _size(data)):
                results.append(pickle.loads(data[4:end]))
                data = data[end:]
            if killed:
                break
    if killed:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    ended_by_fault = bool(results and results[-1].faults)
    if killed or (len(results) < len(make_injectors) and not ended_by_fault):
        results.append(Result(faults=[_how_it_ended(killed, status, data)], fired="unknown"))
    return results


def _size(data: bytes) -> int:
    return int.from_bytes(data[:4], "little")


def _how_it_ended(killed: bool, status: int, data: bytes) -> tuple[str, str]:
    """The fault of a process that has sent no result."""
    text = data.decode("utf-8", "replace")
    if not killed:
        return ("died", f"status {status}; {text[-300:]}")
    frames = re.findall(r'File "[^"]*?([^/"]*)", line (\d+) in (\w+)', text)
    where = " < ".join(":".join(frame) for frame in frames[:5])
    return ("hangs", f"{WALL_SECONDS} s of real time; {where}")


def _child(
    program: Program,
    case: str,
    make_injectors: list[Callable[[], Injector]],
    expected: Result | None,
    writing: int,
) -> NoReturn:
    file = os.fdopen(writing, "wb", closefd=False)

    def send(result: Result) -> None:
        data = pickle.dumps(result)
        file.write(len(data).to_bytes(4, "little") + data)
        file.flush()

    def send_and_end(result: Result) -> NoReturn:
        send(result)
        os._exit(0)

    try:
        faulthandler.register(signal.SIGUSR1, file, all_threads=True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.set_wakeup_fd(-1)
        gc.disable()
        if not program.fresh:
            # The first run in a process is not like the next ones.
            Trial(program, case, Injector(off=True), None, send_and_end).run()
        for make_injector in make_injectors:
            result = Trial(program, case, make_injector(), expected, send_and_end).run()
            if result.faults:
                send_and_end(result)
            send(result)
        os._exit(0)
    except BaseException:
        file.write(traceback.format_exc().encode())
        file.flush()
    os._exit(1)
