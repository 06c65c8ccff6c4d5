"""Functions for workers, in a module that is imported quickly; and what tests of workers share.

Nothing here imports pytest, because each new worker would import it too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from harness import source
from nurseryio import CapacityLimiter, to_process, to_thread
from nurseryio._workers import worker_main

# -- jobs -----------------------------------------------------------------------


def pid() -> int:
    return os.getpid()


def fail() -> NoReturn:
    raise KeyError("of the job")


def die_by_exit(status: int) -> NoReturn:
    os._exit(status)


def die_by_signal(number: int) -> None:
    # Nothing of this process is to be written to the disk.
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(number, signal.SIG_DFL) if number != signal.SIGKILL else None
    os.kill(os.getpid(), number)


def work_for_ever(fifo: str) -> NoReturn:
    """Write the process id into a pipe, keep the pipe open, and end by force alone."""
    with open(fifo, "w") as file:
        print(os.getpid(), file=file, flush=True)
        while True:
            threading.Event().wait()


def fork_and_die(fifo: str) -> NoReturn:
    """Die while a child of this process, which has copies of all descriptors, lives on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are two threads
        pid = os.fork()
    if not pid:
        with open(fifo) as file:
            file.read()
    os._exit(7)


async def is_async() -> None:
    pass


class TwoArguments(Exception):
    """An error that can be pickled and not be unpickled."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(f"{left} and {right}")


def fail_with_two() -> NoReturn:
    raise TwoArguments("one", "two")


def interpreter() -> int:
    """The number of the interpreter that calls this. Needs Python 3.14."""
    import importlib

    interpreters: Any = importlib.import_module("concurrent.interpreters")
    number: int = interpreters.get_current().id
    return number


def wait_for(fifo: str) -> str:
    with open(fifo) as file:
        return file.read()


def let_go(fifo: str) -> None:
    with open(fifo, "w") as file:
        file.write("go")


class OwnError(Exception):
    """An error that the other side may not know."""


def fail_with_key() -> NoReturn:
    raise OwnError("text")


def leave(code: int) -> NoReturn:
    sys.exit(code)


def make_lock() -> Any:
    return threading.Lock()


def fail_with_cancelled() -> NoReturn:
    raise asyncio.CancelledError("of the job")


class Shy(Exception):
    """An error whose methods end the program."""

    def __str__(self) -> NoReturn:
        sys.exit(4)

    def __repr__(self) -> NoReturn:
        sys.exit(4)


class ShyResult(Shy):
    def __reduce__(self) -> NoReturn:
        sys.exit(5)


def fail_without_text() -> NoReturn:
    raise Shy


def make_shy() -> ShyResult:
    return ShyResult()


def start_thread_that_stays() -> int:
    """Leave a thread behind for which the end of a Python program waits."""
    worker_main.GRACE_SECONDS = 0.01  # of this process
    threading.Thread(target=threading.Event().wait).start()
    return os.getpid()


class Unloadable:
    """An object that can be pickled and fails when it is loaded."""

    def __reduce__(self) -> Any:
        return (fail, ())


def make_unloadable() -> Unloadable:
    return Unloadable()


def same(thing: Any) -> Any:
    return thing


# -- in tests -------------------------------------------------------------------


@contextmanager
def a_fifo() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "fifo")
        os.mkfifo(path)
        yield path


class Job:
    """A call of ``work_for_ever``."""

    def __init__(self, fifo: str, limiter: CapacityLimiter | None = None) -> None:
        self.fifo = fifo
        self.limiter = limiter

    async def run(self) -> None:
        await to_process.run_sync(work_for_ever, self.fifo, limiter=self.limiter)

    async def pid(self) -> int:
        """Wait until the job works. Returns the worker's process id."""
        return await to_thread.run_sync(self._read)

    def _read(self) -> int:
        with open(self.fifo) as file:
            return int(file.readline())


def is_there(pid: int) -> bool:
    """Whether there is such a process, a zombie included."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def start_program(code: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start a program whose main module is a file, in a new session."""
    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "program.py")
    with open(path, "w") as file:
        file.write(code)
    root = str(source.ROOT)
    search = os.pathsep.join((root, os.path.join(root, "tests")))
    return subprocess.Popen(
        [sys.executable, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": search},
        start_new_session=True,
        **options,
    )


def run_program(code: str, **options: Any) -> tuple[int, str, str]:
    """Run a program. Returns its exit status, output and error output."""
    process = start_program(code, **options)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output.decode(), errors.decode()


def stop_resource_tracker() -> None:
    """End the process that multiprocessing starts beside the first worker."""
    from multiprocessing import resource_tracker

    stop: Any = getattr(resource_tracker, "_resource_tracker")._stop  # noqa: B009
    stop()
