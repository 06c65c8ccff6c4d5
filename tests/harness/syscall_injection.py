"""Failing system calls: each error at each call of the library in turn, and a verdict on each run.

``python -m harness.syscall_injection`` in ``tests``, or ``make syscalls``, makes all runs;
``--sample`` a bounded part, as the ordinary tests do. Runs are made in forked processes, so one
that hangs does not affect the next.

The verdict on a run:

1. *hangs, spins*: the program ends within ``LIMIT``, with little CPU time.
2. *lost*: the error is reported: the program catches it, or it leaves the program, or a logger
   gets it. If it is not, then it is one that may be absorbed (``ABSORBED``), and the program has
   received all its data. ``ClosedResourceError`` reports EBADF and ENOTSOCK. *twice*: once is
   enough.
3. *wrong data*: what was received is a prefix of what was sent.
4. *loop handler, unraisable, warning*: nothing is reported where it is not expected, no descriptor
   is left to the garbage collector.
5. *confused*: no AssertionError, KeyError and the like comes besides.
6. *descriptor left, registration left, file left*.
7. *clean program*: afterwards everything works on the same loop.

Which runs are made depends on the seed and on how often a program makes each call.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import functools
import gc
import logging
import os
import pickle
import random
import select
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

import nurseryio
from harness import clean
from harness.injection_probe import leaves, shape, times_in
from harness.limit import stacks_of_tasks
from harness.syscall_programs import DATA, PROGRAMS, clients, echo, served
from harness.syscalls import ERRORS, SHORT, Aim, Faults, watched_uvloop
from nurseryio import ClosedResourceError
from nurseryio._core.loop_state import loop_state
from nurseryio._loop.readiness import waits

SEED = 1
LOOPS = ("stock", "uvloop")

# Real seconds that a run may take, and seconds of CPU time.
LIMIT = 5.0
BUSY = 1.5

# Runs of each program on each loop with ``--sample``.
SAMPLE = 12

# How many runs a process makes while nothing goes wrong.
BATCH = 40

# Of the calls that a program makes often, so many are tried.
MOST_OCCURRENCES = 6

# Errors that do not have to be reported, because the library has another way, by call, or by call
# and program. "*" stands for all errors.
ABSORBED = {
    # A second call of connect() returns the state of the attempt.
    "connect": "EALREADY EISCONN",
    # Try again when the kernel says so; or the error was one connection's.
    "accept": "EAGAIN ECONNABORTED ECONNRESET EPERM EPROTO ENOPROTOOPT EHOSTDOWN ENONET "
    "EHOSTUNREACH ENETUNREACH ENETDOWN ETIMEDOUT EOPNOTSUPP",
    "recv": "EAGAIN",
    "send": "EAGAIN EALREADY",
    "read": "EAGAIN",
    "write": "EAGAIN",
    # A child may go, or close its input, without having read it all.
    "write in process": "EPIPE",
    # The loop gets the error, and tries again in its next iteration.
    "epoll_wait": "*",
    # Another address answers.
    "connect in happy_eyeballs": "*",
    "socket in happy_eyeballs": "*",
    "ioctl in happy_eyeballs": "*",
    "epoll_add in happy_eyeballs": "*",
    "getsockopt in happy_eyeballs": "*",
    # The loop watches the descriptors itself.
    "epoll_create": "*",
    # A new epoll object is made; or what was to be taken out is gone; or it was a mere question.
    "epoll_add": "EEXIST",
    "epoll_mod": "*",
    "epoll_del": "*",
    # Options that make things faster.
    "setsockopt": "*",
    # Systems that do not report whether a socket listens.
    "getsockopt": "*",
    # A thread waits instead.
    "pidfd_open": "*",
    "epoll_add in process": "*",
    "epoll_add in talking_process": "*",
    # Whether a socket file is stale, or the listener's own.
    "stat in unix_server": "*",
    "unlink in unix_server": "*",
    # The host was not a numeric address, and is then looked up.
    "getaddrinfo": "EAI_NONAME",
    # Somebody who closes says nothing of what comes after.
    "recv in tls_server": "*",
    "send in tls_server": "*",
    "recv in transports": "*",
    # The descriptor is closed, and was one that only waits.
    "close in process": "*",
    "close in talking_process": "*",
    # It warns, and waits until the child ends by itself.
    "kill": "*",
}

CONFUSED = (AssertionError, AttributeError, KeyError, asyncio.InvalidStateError, UnboundLocalError)


@dataclass
class Result:
    """The result of one run."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    raised: int = 0
    where: str = ""
    seconds: float = 0.0


class Run(logging.Handler):
    """One run of a program on a loop.

    Args:
        name: the program.
        loop_kind: "stock" or "uvloop".
        aim: which calls fail.
    """

    def __init__(self, name: str, loop_kind: str, aim: Aim | None) -> None:
        super().__init__(logging.WARNING)
        self.name, self.loop_kind, self.aim = name, loop_kind, aim
        self.system = Faults(aim)
        self.faults: list[tuple[str, str]] = []
        self.reports: list[tuple[str, BaseException]] = []
        self.missing: list[str] = []

    # -- for programs --

    @property
    def aim_at(self) -> str:
        """The call that fails."""
        return "" if self.aim is None else self.aim.call

    def caught(self, error: BaseException) -> None:
        """The program has caught an error."""
        self.reports.append(("program", error))

    def data(self, name: str, sent: bytes, received: bytes) -> None:
        """The data that was sent to a receiver, and the data that came."""
        if not sent.startswith(received):
            self.fault("wrong data", f"{name}: {len(received)} bytes, not a prefix")
        if len(received) < len(sent):
            self.missing.append(f"{name}: {len(received)} of {len(sent)}")

    def fault(self, kind: str, detail: str) -> None:
        """Put down that something is wrong."""
        self.faults.append((kind, detail))

    # -- running --

    def emit(self, record: logging.LogRecord) -> None:
        """A record of a logger."""
        if record.exc_info and record.exc_info[1] is not None:
            self.reports.append((f"logger {record.name}", record.exc_info[1]))

    def run(self) -> Result:
        """Run it and judge it."""
        self._install()
        before = clean.open_descriptors()
        began, busy = time.monotonic(), time.process_time()
        with self.system:
            try:
                nurseryio.run(self._main, loop_factory=self._new_loop)
            except BaseException as error:
                self.reports.append(("run", error))
            gc.collect()
        if time.process_time() - busy > BUSY:
            self.fault("spins", f"{time.process_time() - busy:.1f} s of CPU time")
        if left := sorted(clean.open_descriptors() - before):
            self.fault("descriptor left", repr(left))
        self._judge()
        self._remove()
        seconds = time.monotonic() - began
        system = self.system
        hits = len(system.raised) + system.shortened
        return Result(self.faults, system.counts, hits, system.where, seconds)

    def _new_loop(self) -> Any:
        if self.loop_kind == "uvloop":
            return watched_uvloop(self.system)
        return asyncio.new_event_loop()

    async def _main(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._loop_error)
        self.system.active = True
        try:
            await PROGRAMS[self.name](self)
        except (Exception, BaseExceptionGroup) as error:
            self.reports.append(("outcome", error))
        finally:
            self.system.active = False
        # Waits that have just ended may be on their way.
        for _ in range(3):
            await asyncio.sleep(0)
        if table := dict(waits(loop_state(loop))):
            self.fault("registration left", repr(table))
        await self._run_clean_program()

    async def _run_clean_program(self) -> None:
        """Another one on the same loop, without faults."""
        other = Run(self.name, self.loop_kind, None)

        async def visit(listeners: Any) -> None:
            address = listeners[0].socket.getsockname()
            connect = functools.partial(nurseryio.open_tcp_stream, *address[:2])
            await clients(other, connect, 5, DATA[:1000])

        serve = functools.partial(
            nurseryio.serve_tcp, functools.partial(echo, other), 0, host="127.0.0.1"
        )
        with nurseryio.move_on_after(LIMIT / 2) as scope:
            await served(other, serve, visit)
        if scope.cancelled_caught or other.missing or other.reports or other.faults:
            self.fault("clean program", f"{other.missing} {other.reports} {other.faults}")

    def _loop_error(self, _loop: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        message = str(context.get("message")).partition("\n")[0]
        if error is not None and message.startswith("Fatal "):
            return  # asyncio's transports report what they also give their protocol
        if self.aim_at == "epoll_wait" and error in self.system.raised:
            return
        self.fault("loop handler", f"{message}: {error!r}")
        if error is not None:
            self.reports.append(("loop handler", error))

    def _install(self) -> None:
        logging.getLogger().addHandler(self)
        self._before = (sys.unraisablehook, warnings.showwarning)

        def unraisable(args: Any) -> None:
            self.fault("unraisable", f"{args.exc_value!r} in {args.object!r}")

        def warning(message: Any, category: Any, *_args: Any, **_options: Any) -> None:
            if self.aim_at != "kill" or category is not RuntimeWarning:
                self.fault("warning", f"{category.__name__}: {message}")

        sys.unraisablehook = unraisable
        warnings.resetwarnings()
        warnings.simplefilter("always")
        warnings.showwarning = warning

    def _remove(self) -> None:
        logging.getLogger().removeHandler(self)
        sys.unraisablehook, warnings.showwarning = self._before

    # -- the verdict --

    def _judge(self) -> None:
        for channel, report in self.reports:
            for leaf in leaves(report):
                if isinstance(leaf, CONFUSED):
                    self.fault("confused", f"{channel}: {leaf!r}")
        if not self.system.raised:
            if self.system.shortened and not (self.reports or self.missing):
                return
            if self.reports or self.missing:
                errors = [(channel, shape(error)) for channel, error in self.reports]
                self.fault("fails by itself", f"{errors} {self.missing}")
            return
        reported = 0
        for wanted in self.system.raised:
            channels = [name for name, report in self.reports if times_in(report, wanted)]
            reported += bool(channels)
            if len(channels) > 1:
                self.fault("twice", " and ".join(channels))
        if reported or self._is_reported_otherwise():
            return
        assert self.aim is not None
        call = self.aim.call
        absorbed = f"{ABSORBED.get(call, '')} {ABSORBED.get(f'{call} in {self.name}', '')}".split()
        if "*" not in absorbed and self.aim.error not in absorbed:
            errors = [(channel, shape(error)) for channel, error in self.reports]
            self.fault("lost", f"{errors} {self.missing}")
        elif self.reports or (self.missing and self.aim.error != "EPIPE"):
            errors = [(channel, repr(error)) for channel, error in self.reports]
            self.fault("absorbed with harm", f"{errors} {self.missing}")

    def _is_reported_otherwise(self) -> bool:
        """By an error for a closed stream, or by a copy, which adapters give to each call.

        ``connect_ex`` returns a number, of which the library makes its own error.
        """
        wanted = self.system.raised[0]
        if not isinstance(wanted, OSError):
            return False
        if self.aim_at == "connect":
            return any(_has_number(report, wanted.errno) for _, report in self.reports)
        for leaf in (leaf for _, report in self.reports for leaf in leaves(report)):
            if isinstance(leaf, ClosedResourceError):
                if wanted.errno in (errno.EBADF, errno.ENOTSOCK):
                    return True
            elif isinstance(leaf.__cause__, OSError) and leaf.__cause__.args == wanted.args:
                return True
        return False


def _has_number(report: BaseException | None, number: int | None) -> bool:
    """Whether an error of the system with this number is in a report, or is a cause in it."""
    if report is None:
        return False
    if isinstance(report, OSError) and report.errno == number:
        return True
    if isinstance(report, BaseExceptionGroup):
        return any(_has_number(leaf, number) for leaf in leaves(report))
    return _has_number(report.__cause__, number)


# -- processes ------------------------------------------------------------------


def run_each(name: str, loop_kind: str, aims: list[Aim | None]) -> Iterator[Result]:
    """Make runs in forked processes; a fault ends a process, and a new one goes on."""
    todo = list(aims)
    while todo:
        results = _in_child(name, loop_kind, todo[:BATCH])
        yield from results
        del todo[: len(results)]


def _in_child(name: str, loop_kind: str, aims: list[Aim | None]) -> list[Result]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _child(name, loop_kind, aims, writing)
    os.close(writing)
    results: list[Result] = []
    data = b""
    killed = False
    with os.fdopen(reading, "rb") as file:
        while True:
            ready, _, _ = select.select([file], [], [], 3 * LIMIT)
            if not ready:
                killed = True
                os.kill(child, signal.SIGKILL)
                break
            part = os.read(reading, 1 << 20)
            if not part:
                break
            data += part
            while len(data) >= 4 and len(data) >= (end := 4 + int.from_bytes(data[:4], "little")):
                results.append(pickle.loads(data[4:end]))
                data = data[end:]
    _, status = os.waitpid(child, 0)
    if killed or not (len(results) == len(aims) or (results and results[-1].faults)):
        kind = "hangs" if killed else "died"
        text = data[4:].decode("utf-8", "replace")
        results.append(Result([(kind, f"status {status}: {text}")], raised=1))
    return results


def _child(name: str, loop_kind: str, aims: list[Aim | None], writing: int) -> NoReturn:
    def send(result: Result) -> None:
        data = pickle.dumps(result)
        write_all(writing, len(data).to_bytes(4, "little") + data)

    write_all = _write_all  # not the patched one
    run: Run | None = None

    def too_long(_signum: int, _frame: Any) -> None:
        stack = "".join(traceback.format_stack(_frame)[-3:])
        assert run is not None
        text = f"{stacks_of_tasks()}\n{stack}"
        send(Result([*run.faults, ("hangs", text)], raised=1, where=run.system.where))
        os._exit(0)

    try:
        signal.signal(signal.SIGALRM, too_long)
        # The first run in a process is not like the next ones.
        run = Run(name, loop_kind, None)
        run.run()
        gc.collect()
        gc.freeze()
        for aim in aims:
            run = Run(name, loop_kind, aim)
            signal.setitimer(signal.ITIMER_REAL, LIMIT)
            result = run.run()
            signal.setitimer(signal.ITIMER_REAL, 0)
            send(result)
            if result.faults:
                break
        os._exit(0)
    except BaseException:
        write_all(writing, b"\0\0\0\0" + traceback.format_exc().encode())
    os._exit(1)


_write = os.write


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[_write(descriptor, data) :]


# -- which runs -----------------------------------------------------------------


def aims(counts: Counter[str], chosen: random.Random) -> list[Aim]:
    """All runs for a program that makes so many calls."""
    found = []
    for call, count in sorted(counts.items()):
        numbers = list(range(1, count + 1))
        if count > MOST_OCCURRENCES:
            middle = sorted(chosen.sample(numbers[3:-1], MOST_OCCURRENCES - 4))
            numbers = [*numbers[:3], *middle, count]
        for number in numbers:
            for error in ERRORS[call]:
                found.append(Aim(call, number, error))
                # A lack that lasts, and a kernel that is wrong time after time.
                if error in ("EMFILE", "ENOMEM", "EAGAIN", "ECONNABORTED", "ENOBUFS", SHORT):
                    found.append(Aim(call, number, error, times=3))
    return found


@dataclass
class Report:
    """The result of many runs."""

    runs: int = 0
    not_reached: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    errors: set[str] = field(default_factory=set)
    pairs: list[str] = field(default_factory=list)
    faults: list[tuple[str, str, Aim | None, Result]] = field(default_factory=list)
    seconds: float = 0.0

    def figures(self) -> str:
        """One line."""
        return (
            f"{self.runs} runs of {len(self.pairs)} programs on loops in {self.seconds:.0f} s: "
            f"{sum(self.calls.values())} calls of {len(self.calls)} kinds failed with "
            f"{len(self.errors)} errors, {self.not_reached} were not reached; "
            f"{len(self.faults)} runs with faults"
        )


def attempt(
    names: list[str],
    loops: list[str],
    *,
    sample: int = 0,
    seed: int = SEED,
    call: str = "",
    error: str = "",
    loud: bool = False,
) -> Report:
    """Make the runs."""
    report = Report()
    began = time.monotonic()
    for loop_kind in loops:
        for name in names:
            [first] = run_each(name, loop_kind, [None])
            report.pairs.append(f"{name} on {loop_kind}")
            if first.faults:
                report.faults.append((name, loop_kind, None, first))
                continue
            chosen = random.Random(f"{name} {loop_kind} {seed}")
            todo = [
                aim
                for aim in aims(first.counts, chosen)
                if call in ("", aim.call) and error in ("", aim.error)
            ]
            if sample:
                todo = chosen.sample(todo, min(sample, len(todo)))
            started, before = time.monotonic(), len(report.faults)
            for aim, result in zip(todo, run_each(name, loop_kind, list(todo)), strict=True):
                report.runs += 1
                report.not_reached += not result.raised
                report.calls[aim.call] += result.raised
                if result.raised:
                    report.errors.add(aim.error)
                if result.faults:
                    report.faults.append((name, loop_kind, aim, result))
            if loud:
                faults, seconds = len(report.faults) - before, time.monotonic() - started
                print(
                    f"{name} on {loop_kind}: {len(todo)} runs, {faults} with faults, "
                    f"{seconds:.1f} s",
                    file=sys.stderr,
                )
    report.seconds = time.monotonic() - began
    return report


def describe(report: Report) -> str:
    """The faults, those at one place in the library together."""
    groups: dict[tuple[Any, ...], list[tuple[str, str, Aim | None, Result]]] = {}
    for item in report.faults:
        _name, _loop, aim, result = item
        kinds = tuple(sorted({kind for kind, _ in result.faults}))
        place = result.where.partition(":")[0] + " " + result.where.rpartition(" ")[2]
        groups.setdefault((aim.call if aim else "", place, kinds), []).append(item)
    lines = []
    for (call, place, kinds), items in groups.items():
        name, loop_kind, aim, result = items[0]
        errors = sorted({item[2].error for item in items if item[2] is not None})
        programs = sorted({f"{item[0]}/{item[1]}" for item in items})
        lines.append(f"{call} in {place}: {', '.join(kinds)}: {len(items)} runs")
        lines.append(f"    {' '.join(errors)}; {' '.join(programs)}")
        lines.append(f"    {aim} in {name} on {loop_kind}, at {result.where}")
        lines += [f"    {kind}: {detail}" for kind, detail in result.faults]
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.syscall_injection", description=__doc__
    )
    parser.add_argument("--sample", action="store_true", help="a bounded part of the runs")
    parser.add_argument("--runs", type=int, default=SAMPLE, help="of each program with --sample")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--program", nargs="*", default=list(PROGRAMS), choices=list(PROGRAMS))
    parser.add_argument("--loop", nargs="*", default=list(LOOPS), choices=LOOPS)
    parser.add_argument("--call", default="", choices=["", *ERRORS])
    parser.add_argument("--error", default="")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args(arguments)
    report = attempt(
        options.program,
        options.loop,
        sample=options.runs if options.sample else 0,
        seed=options.seed,
        call=options.call,
        error=options.error,
        loud=not options.quiet,
    )
    print(describe(report))
    print(report.figures())
    return 1 if report.faults else 0


if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
