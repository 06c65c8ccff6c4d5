"""The thread cache: threads are used again, end when idle, and never hold the process."""

# Covered below 95 %: names of threads are set in other ways on macOS, Windows and Python 3.14.

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NoReturn

import pytest
from harness import pypy
from harness.resisting import KINDS, Text, make

from nurseryio._base import Error, Outcome, thread_cache
from nurseryio._base.exc_fields import traceback_of
from nurseryio._base.thread_cache import ThreadCache, start_thread_soon

TIMEOUT = 10.0


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> ThreadCache:
    """A cache of the test's own, whose threads end soon after the test."""
    monkeypatch.setattr(thread_cache, "IDLE_SECONDS", 0.05)
    return ThreadCache()


def call(cache: ThreadCache, fn: Callable[[], Any], name: str | None = None) -> Outcome[Any]:
    """Have the cache run a function, and wait for the outcome."""
    outcomes: SimpleQueue[Outcome[Any]] = SimpleQueue()
    cache.start_thread_soon(fn, outcomes.put, name)
    return outcomes.get(timeout=TIMEOUT)


def run_program(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_return_value_of_a_job_is_delivered() -> None:
    outcomes: SimpleQueue[Outcome[int]] = SimpleQueue()
    start_thread_soon(lambda: 5, outcomes.put)
    assert outcomes.get(timeout=TIMEOUT).unwrap() == 5


def test_the_error_of_a_job_is_delivered(cache: ThreadCache) -> None:
    error = KeyError("x")

    def fail() -> NoReturn:
        raise error

    with pytest.raises(KeyError) as caught:
        call(cache, fail).unwrap()
    assert caught.value is error


def test_the_thread_cache_reuses_the_thread_that_became_idle_last(cache: ThreadCache) -> None:
    gates = [threading.Event() for _ in range(3)]
    done: SimpleQueue[threading.Thread] = SimpleQueue()
    for gate in gates:
        cache.start_thread_soon(gate.wait, lambda _outcome: done.put(threading.current_thread()))
    for gate in gates:
        gate.set()
        last = done.get(timeout=TIMEOUT)
    assert call(cache, threading.current_thread).unwrap() is last


def test_a_job_started_in_the_delivery_callback_gets_the_same_thread(cache: ThreadCache) -> None:
    threads: SimpleQueue[threading.Thread] = SimpleQueue()

    def deliver(left: int) -> None:
        threads.put(threading.current_thread())
        if left:
            cache.start_thread_soon(int, lambda _outcome: deliver(left - 1))

    cache.start_thread_soon(int, lambda _outcome: deliver(4))
    assert len({threads.get(timeout=TIMEOUT) for _ in range(5)}) == 1


@pytest.mark.parametrize("busy", [False, True])
def test_a_thread_ends_at_once_when_the_interpreter_ends_and_refuses_daemons(
    cache: ThreadCache, monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    monkeypatch.setattr(thread_cache, "DAEMONS", False)
    monkeypatch.setattr(thread_cache, "IDLE_SECONDS", 3600.0)
    gate = threading.Event()
    threads: SimpleQueue[threading.Thread] = SimpleQueue()

    def work() -> None:
        threads.put(threading.current_thread())
        gate.wait(TIMEOUT)

    done = threading.Event()
    cache.start_thread_soon(work, lambda _outcome: done.set())
    thread = threads.get(timeout=TIMEOUT)
    assert not thread.daemon
    if not busy:
        gate.set()
        assert done.wait(TIMEOUT)
    cache.end_idle()
    gate.set()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert not cache._idle


def test_an_idle_thread_of_the_cache_ends_after_its_timeout(cache: ThreadCache) -> None:
    thread = call(cache, threading.current_thread).unwrap()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert call(cache, threading.current_thread).unwrap() is not thread


def test_an_idle_thread_that_times_out_still_does_a_job_already_assigned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, refused = threading.Event(), threading.Event()

    class Cache(ThreadCache):
        def withdraw(self, worker: Any) -> bool:
            assert taken.wait(TIMEOUT)
            may_end = super().withdraw(worker)
            if not may_end:
                refused.set()
            return may_end

    monkeypatch.setattr(thread_cache, "IDLE_SECONDS", 0.01)
    cache = Cache()
    first = call(cache, threading.current_thread).unwrap()
    # Begin as start_thread_soon does, and stop in the middle until the thread has timed out.
    worker, _ = cache._idle.popitem()
    taken.set()
    assert refused.wait(TIMEOUT)
    outcomes: SimpleQueue[Outcome[Any]] = SimpleQueue()
    worker.given.append((threading.current_thread, outcomes.put, None))
    worker.ready.release()
    assert outcomes.get(timeout=TIMEOUT).unwrap() is first


def test_cached_threads_are_daemons_with_a_nurseryio_name(cache: ThreadCache) -> None:
    thread = call(cache, threading.current_thread).unwrap()
    assert thread.daemon
    assert re.fullmatch(r"nurseryio thread \d+", thread.name)


def test_a_thread_has_the_name_of_its_job_while_it_works(cache: ThreadCache) -> None:
    name = call(cache, lambda: threading.current_thread().name, "digging").unwrap()
    assert name == "digging"
    assert call(cache, lambda: threading.current_thread().name).unwrap().startswith("nurseryio")


@pytest.mark.skipif(sys.platform != "linux", reason="reads the name from /proc")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("digging", "digging"),
        ("a name of more than 15 bytes", "a name of more "),
        ("bœuf", "b?uf"),
        ("\U0001f499", "?"),
        ("é" * 20, "?" * 15),
        ("", ""),
    ],
)
def test_the_thread_name_is_set_in_the_system_too(
    cache: ThreadCache, name: str, shown: str
) -> None:
    def name_in_system() -> str:
        with open(f"/proc/self/task/{threading.get_native_id()}/comm", encoding="utf-8") as file:
            return file.read().rstrip("\n")

    assert call(cache, name_in_system, name).unwrap() == shown
    assert call(cache, name_in_system).unwrap() == "nurseryio threa"


def test_threads_work_where_the_system_has_no_thread_names(
    cache: ThreadCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thread_cache, "_find_os_rename", lambda: None)
    assert call(cache, lambda: threading.current_thread().name, "digging").unwrap() == "digging"


def test_an_error_in_the_delivery_callback_is_printed_and_the_thread_goes_on(
    cache: ThreadCache, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes: SimpleQueue[Outcome[threading.Thread]] = SimpleQueue()
    at_fault: list[threading.Thread] = []

    def deliver(_outcome: object) -> NoReturn:
        at_fault.append(threading.current_thread())
        # Given from here, it goes to this same thread.
        cache.start_thread_soon(threading.current_thread, outcomes.put)
        raise ValueError("no such address")

    cache.start_thread_soon(int, deliver)
    assert [outcomes.get(timeout=TIMEOUT).unwrap()] == at_fault
    printed = capfd.readouterr().err
    assert "exception while delivering result of a thread" in printed
    assert "no such address" in printed


@pypy.needs_reference_counting
def test_an_idle_thread_holds_no_reference_to_its_last_job(cache: ThreadCache) -> None:
    class Job:
        def __call__(self) -> Job:
            return self

    job = Job()
    gone = weakref.ref(job)
    outcome = call(cache, job)
    thread_is_idle = threading.Event()
    # The delivery of the next job of the same thread comes after all traces of the first.
    cache.start_thread_soon(int, lambda _outcome: thread_is_idle.set())
    assert thread_is_idle.wait(TIMEOUT)
    assert outcome.unwrap() is job
    del job, outcome
    assert gone() is None


@pypy.needs_reference_counting
def test_a_job_function_is_released_when_its_result_is_delivered(cache: ThreadCache) -> None:
    class Job:
        def __call__(self) -> None:
            pass

    seen: SimpleQueue[object] = SimpleQueue()
    job = Job()
    gone = weakref.ref(job)
    go = threading.Event()

    def deliver(_outcome: object) -> None:
        go.wait(TIMEOUT)
        seen.put(gone())

    cache.start_thread_soon(job, deliver)
    del job
    go.set()
    assert seen.get(timeout=TIMEOUT) is None


def test_start_thread_soon_may_be_called_from_many_threads_at_once(cache: ThreadCache) -> None:
    outcomes: SimpleQueue[Outcome[int]] = SimpleQueue()

    def give(start: int) -> None:
        for number in range(start, start + 50):
            cache.start_thread_soon(lambda number=number: number, outcomes.put)  # type: ignore[misc]

    givers = [threading.Thread(target=give, args=(start,)) for start in range(0, 200, 50)]
    for giver in givers:
        giver.start()
    got = {outcomes.get(timeout=TIMEOUT).unwrap() for _ in range(200)}
    for giver in givers:
        giver.join()
    assert got == set(range(200))


def test_a_cached_thread_that_never_ends_does_not_stop_process_exit() -> None:
    done = run_program(
        "import threading\n"
        "from nurseryio.lowlevel import start_thread_soon\n"
        "at_work = threading.Event()\n"
        "def stuck():\n"
        "    at_work.set()\n"
        "    threading.Event().wait()\n"
        "start_thread_soon(stuck, print)\n"
        "at_work.wait()\n"
        "print('end of program')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end of program\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_does_not_use_the_thread_cache_of_its_parent() -> None:
    done = run_program(
        "import os, queue, warnings\n"
        "from nurseryio.lowlevel import start_thread_soon\n"
        "def answer():\n"
        "    answers = queue.SimpleQueue()\n"
        "    start_thread_soon(lambda: 7, answers.put)\n"
        "    return answers.get(timeout=10).unwrap()\n"
        "assert answer() == 7\n"
        "warnings.simplefilter('ignore')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(answer())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert (done.stdout, done.stderr) == ("7\n", "")


def test_a_thread_counts_as_idle_when_it_has_delivered_its_result(cache: ThreadCache) -> None:
    delivering, go_on, delivered = (threading.Event() for _ in range(3))

    def deliver(_outcome: Outcome[int]) -> None:
        delivering.set()
        go_on.wait(TIMEOUT)

    cache.start_thread_soon(int, deliver)
    assert delivering.wait(TIMEOUT)
    assert not cache.idle_threads()
    go_on.set()
    # The same thread delivers this one, so the one before has been delivered.
    cache.start_thread_soon(int, lambda _outcome: delivered.set())
    assert delivered.wait(TIMEOUT)
    deadline = time.monotonic() + TIMEOUT
    while not cache.idle_threads() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert len(cache.idle_threads()) == 1


# -- each job gets its answer -----------------------------------------------------


@pypy.needs_own_exception_fields
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_error_of_a_job_that_overrides_its_fields_is_delivered(
    cache: ThreadCache, kind: Any
) -> None:
    error = make(kind)

    def fail() -> NoReturn:
        raise error

    outcome = call(cache, fail)
    assert isinstance(outcome, Error)
    assert outcome.error is error
    traceback = traceback_of(error)
    assert traceback is not None
    assert traceback.tb_frame.f_code is fail.__code__


def test_thread_names_are_left_out_where_they_cannot_be_set(
    cache: ThreadCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(cache, "_os_rename", fail)
    monkeypatch.setattr(cache, "_os_rename_known", True)
    assert call(cache, lambda: 1, "a name").unwrap() == 1
    assert call(cache, lambda: 2, Text("a name")).unwrap() == 2


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="3.14 does not need ctypes")
def test_threads_work_without_ctypes(cache: ThreadCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    assert thread_cache._find_os_rename() is None
    assert call(cache, lambda: 1, "a name").unwrap() == 1
    monkeypatch.undo()

    def fail(*_args: object) -> NoReturn:
        raise ValueError("a sandbox")

    for name in ("PyDLL", "CDLL"):  # PyPy has only the second
        monkeypatch.setattr(ctypes, name, fail, raising=False)
    assert thread_cache._find_os_rename() is None


@pytest.mark.parametrize("place", ["capture", "offer"])
def test_an_error_in_the_thread_around_a_job_is_delivered_as_the_jobs_error(
    cache: ThreadCache, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*_args: object) -> NoReturn:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(thread_cache if place == "capture" else cache, place, fail)
        with pytest.raises(MemoryError):
            call(cache, lambda: 1).unwrap()
    assert call(cache, lambda: 2).unwrap() == 2


def test_a_thread_goes_on_when_sys_stderr_is_none(
    cache: ThreadCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered = threading.Event()

    class Closed:
        def write(self, _text: str) -> NoReturn:
            delivered.set()
            raise ValueError("I/O operation on closed file")

    def fail(_outcome: object) -> NoReturn:
        raise KeyError

    first = call(cache, threading.current_thread).unwrap()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", Closed())
        cache.start_thread_soon(lambda: 1, fail)
        assert delivered.wait(TIMEOUT)
    assert call(cache, threading.current_thread).unwrap() is first


def test_a_thread_that_fails_while_idle_ends_and_gets_no_job(
    cache: ThreadCache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    withdraw, calls = cache.withdraw, []

    def fail_once(worker: Any) -> bool:
        calls.append(worker)
        if len(calls) == 1:
            raise MemoryError
        return withdraw(worker)

    monkeypatch.setattr(cache, "withdraw", fail_once)
    first = call(cache, threading.current_thread).unwrap()
    first.join(TIMEOUT)
    assert not first.is_alive()
    assert not cache._idle
    assert "exception in an idle worker thread" in capsys.readouterr().err
    assert call(cache, lambda: 5).unwrap() == 5


def test_a_thread_that_fails_before_its_job_begins_delivers_the_error(
    cache: ThreadCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_worker: object) -> bool:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(thread_cache._Worker, "_do_job", fail)
        with pytest.raises(MemoryError):
            call(cache, lambda: 1).unwrap()
    assert call(cache, lambda: 2).unwrap() == 2


def test_a_thread_to_which_a_job_cannot_be_assigned_stays_idle(cache: ThreadCache) -> None:
    first = call(cache, threading.current_thread).unwrap()
    (worker,) = cache._idle
    ready = worker.ready

    class Broken:
        def release(self) -> None:
            raise MemoryError

    worker.ready = Broken()  # type: ignore[assignment]
    with pytest.raises(MemoryError):
        cache.start_thread_soon(int, print)
    worker.ready = ready
    assert list(cache._idle) == [worker]
    assert not worker.given
    assert call(cache, threading.current_thread).unwrap() is first


class Interrupted:
    """The lock of a worker. A signal handler raises an error when it has just been released."""

    def __init__(self, worker: Any, meanwhile: Callable[[], object]) -> None:
        self._worker = worker
        self._lock = worker.ready
        self._meanwhile = meanwhile

    def release(self) -> None:
        self._worker.ready = self._lock
        self._meanwhile()
        raise KeyboardInterrupt


def test_a_job_whose_start_was_interrupted_takes_no_thread_from_the_next_job() -> None:
    cache = ThreadCache()
    first = call(cache, threading.current_thread).unwrap()
    (worker,) = cache._idle
    woken, waits = threading.Event(), worker.ready
    worker.ready = Interrupted(worker, lambda: None)  # the thread waits for the lock inside
    with pytest.raises(KeyboardInterrupt):
        cache.start_thread_soon(int, print)
    waits.release()  # the thread wakes, and finds no job
    cache.start_thread_soon(threading.current_thread, lambda _: woken.set())
    assert woken.wait(TIMEOUT)
    assert call(cache, threading.current_thread).unwrap() is first
    cache.end_idle()


def test_a_job_that_has_begun_when_its_start_is_interrupted_is_done_once() -> None:
    cache = ThreadCache()
    first = call(cache, threading.current_thread).unwrap()
    (worker,) = cache._idle
    waits, outcomes = worker.ready, SimpleQueue[Outcome[Any]]()
    others: list[Any] = []

    def until_done() -> None:
        waits.release()
        assert outcomes.get(timeout=TIMEOUT).unwrap() == 0
        # The next job is given to the same thread before the first call fails.
        others.append(call(cache, threading.current_thread).unwrap())

    worker.ready = Interrupted(worker, until_done)
    with pytest.raises(KeyboardInterrupt):
        cache.start_thread_soon(int, outcomes.put)
    assert others == [first]
    assert call(cache, threading.current_thread).unwrap() is first
    assert outcomes.empty()
    cache.end_idle()


def test_an_interrupted_start_leaves_the_next_job_of_its_thread_in_place() -> None:
    cache = ThreadCache()
    first = call(cache, threading.current_thread).unwrap()
    (worker,) = cache._idle
    waits, outcomes = worker.ready, SimpleQueue[Outcome[Any]]()

    class Held:
        """A lock that does not wake the thread yet."""

        def release(self) -> None:
            pass

    def until_next() -> None:
        waits.release()
        assert outcomes.get(timeout=TIMEOUT).unwrap() == 0
        worker.ready = Held()
        cache.start_thread_soon(threading.current_thread, outcomes.put)
        worker.ready = waits

    worker.ready = Interrupted(worker, until_next)
    with pytest.raises(KeyboardInterrupt):
        cache.start_thread_soon(int, outcomes.put)
    assert outcomes.get(timeout=TIMEOUT).unwrap() is first
    cache.end_idle()
