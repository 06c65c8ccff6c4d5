"""The loop matrix: the event loops and hosts that each async test runs on.

This module has the kinds of loop, the two hosts, the choice of cases for a test by its markers and
its module, and the running of one case. Pytest's hooks are in conftest.py, the checks at a test's
end in clean.py.

A *kind* is an event loop in some state; a *host* makes the task that the test runs in: ``run`` is
``nurseryio.run``, ``app`` is an asyncio program that knows nothing of nurseryio.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import inspect
import sys
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nurseryio

from . import source

AsyncFn = Callable[[], Awaitable[None]]

KINDS: dict[str, str] = {"stock": "asyncio's own loop"}
if importlib.util.find_spec("uvloop"):
    KINDS["uvloop"] = "uvloop's loop"
if sys.version_info >= (3, 12):
    KINDS["eager"] = "asyncio's own loop with asyncio.eager_task_factory"
KINDS["debug"] = "asyncio's own loop in debug mode"
KINDS["wrapping"] = "asyncio's own loop with a task factory that wraps each coroutine"

HOSTS = ("run", "app")

# A loop that cannot watch file descriptors: for the tests of streams, which work there.
BLIND = "blind"

# The modules whose tests run on it too, once each.
ALSO_BLIND = {
    "bytes/test_file_sending",
    "net/test_listener",
    "net/test_serve",
    "net/test_stream",
    "net/test_tcp_connect",
    "net/test_tcp_listen",
    "tls/test_listener",
    "tls/test_over_tcp",
    "net/test_unix",
}


# What --brief leaves out: the documentation, its programs and the examples, tests of the harness,
# failure injection, random programs, and what is cancelled anywhere. CI runs these files on one
# Python, that of the compiled build on its own Pythons, `make full` all of them on all.
LONG = {
    "docs/test_api_links",
    "docs/test_comparison",
    "docs/test_faq",
    "docs/test_picture_directive",
    "docs/test_pictures",
    "docs/test_reference",
    "nursery/test_compiled",
    "test_architecture",
    "test_benchmarks",
    "test_call_injection",
    "test_conftest",
    "test_coverage_report",
    "test_docs",
    "test_examples",
    "test_examples_frameworks",
    "test_foreign_loops",
    "test_garbage",
    "test_graceful_server",
    "test_injection",
    "test_run_in_page",
    "test_site",
    "test_stream_stress",
    "test_syscall_injection",
    "test_trio_programs",
    "test_tutorial_echo",
    "test_worker_programs",
    "testing/test_pytest_plugin",
    "tls/test_tls_cancel",
    "tls/test_tls_floods",
    "tls/test_tls_peers",
}


def is_long(path: Path) -> bool:
    """Whether a file of tests takes long and hardly depends on the version of Python."""
    tests = Path(__file__).parents[1]
    inside = path.is_relative_to(tests)
    return inside and path.relative_to(tests).with_suffix("").as_posix() in LONG


@dataclass(frozen=True)
class Case:
    """One cell of the matrix."""

    kind: str
    host: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.host}"


FULL = tuple(Case(kind, host) for kind in KINDS for host in HOSTS)
# Each host once, and both of the loops that users have.
QUICK = (Case("stock", "run"), Case("uvloop" if "uvloop" in KINDS else "stock", "app"))
# For the tests of the engine also a loop on which no child is made the fast way.
QUICK_FOR_ENGINE = (*QUICK, Case("wrapping", "app"))

# The rooms of the engine, by the names of their folders of tests.
_ENGINE = {"asyncio", "base", "core", "loop", "nursery", "observe", "run"}


def place(file: Path) -> str:
    """Where a test file is, such as "core/test_task"."""
    tests = source.ROOT / "tests"
    file = file.with_suffix("")
    return file.relative_to(tests).as_posix() if file.is_relative_to(tests) else file.name


def is_about_the_engine(place: str) -> bool:
    """Whether a test file is about a module of the engine."""
    return place.partition("/")[0] in _ENGINE


def is_async_test(function: Any) -> bool:
    """Whether a test function is a coroutine function, also below hypothesis's ``@given``."""
    return inspect.iscoroutinefunction(inner_test(function))


def inner_test(function: Any) -> Any:
    """The function that the author wrote, below hypothesis's ``@given``."""
    return getattr(getattr(function, "hypothesis", None), "inner_test", function)


# The values of --matrix. That of CI is the full one, but for the tests that are marked as costly.
MATRICES = ("full", "ci", "quick")


def is_quick(matrix: str, markers: Collection[str]) -> bool:
    """Whether a test with these markers runs on the small share of the matrix alone."""
    return matrix == "quick" or (matrix == "ci" and "costly" in markers)


def choose(
    markers: Collection[str], quick: bool, engine: bool = False, blind: bool = False
) -> list[Case]:
    """The cases for a test with these markers.

    Args:
        markers: names of markers; ``run_only``, ``app_only``, ``stock_only``, ``watching_only``
            and ``blind_only`` count.
        quick: whether a small share of the matrix is asked for. A test that has no case in that
            share gets the first one that it may have: it is never left out.
        engine: whether the test is about the engine; that share is larger for it.
        blind: whether a case with a loop that cannot watch file descriptors is added.

    Raises:
        ValueError: if the markers leave nothing to run.
    """
    if "blind_only" in markers:
        return [Case(BLIND, host) for host in HOSTS[: 1 if quick else None]]
    allowed = [
        case
        for case in FULL
        if not ("run_only" in markers and case.host != "run")
        and not ("app_only" in markers and case.host != "app")
        and not ("stock_only" in markers and case.kind != "stock")
    ]
    if not allowed:
        raise ValueError("run_only and app_only exclude each other")
    if quick:
        share = QUICK_FOR_ENGINE if engine else QUICK
        allowed = [case for case in allowed if case in share] or allowed[:1]
    if blind and not {"watching_only", "stock_only"}.intersection(markers):
        allowed = [*allowed, Case(BLIND, "app" if "app_only" in markers else "run")]
    return allowed


def new_loop(kind: str) -> asyncio.AbstractEventLoop:
    """A fresh event loop of that kind."""
    if kind == "uvloop":
        import uvloop

        return uvloop.new_event_loop()
    if kind == BLIND:
        return BlindLoop()
    loop = asyncio.new_event_loop()
    if kind == "debug":
        loop.set_debug(True)
    elif kind == "eager":
        loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    elif kind == "wrapping":
        loop.set_task_factory(wrapping_task_factory)
    return loop


class BlindLoop(asyncio.SelectorEventLoop):
    """Has transports, and cannot watch file descriptors, as Windows' Proactor loop cannot.

    That one has ``sock_connect`` and others like it; a loop in a browser has not.
    """

    def _cannot(self, *_args: Any) -> Any:
        raise NotImplementedError

    add_reader = remove_reader = add_writer = remove_writer = _cannot
    sock_recv = sock_recv_into = sock_recvfrom = sock_recvfrom_into = _cannot
    sock_sendall = sock_sendto = sock_connect = sock_accept = sock_sendfile = _cannot
    add_signal_handler = remove_signal_handler = _cannot


def wrapping_task_factory(
    loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any
) -> asyncio.Task[Any]:
    """Run each coroutine inside another one that has its name, as Sentry's task factory does.

    Unlike under Sentry, a task that is cancelled before its first step leaves no warning behind.
    """

    async def wrapper() -> Any:
        return await coro

    outer = wrapper()
    outer.__name__ = getattr(coro, "__name__", outer.__name__)
    outer.__qualname__ = getattr(coro, "__qualname__", outer.__qualname__)
    task = asyncio.Task(outer, loop=loop, **kwargs)
    task.add_done_callback(lambda _: coro.close())
    return task


def run_case(case: Case, main: AsyncFn, clock: Any = None) -> None:
    """Run an async function of no arguments on a fresh loop, as the case says.

    Args:
        case: the loop and the host.
        main: what to run.
        clock: a clock for ``nurseryio.run``, which then makes its own loop.
    """
    if clock is not None:
        nurseryio.run(main, clock=clock)
    elif case.host == "run":
        nurseryio.run(main, loop_factory=functools.partial(new_loop, case.kind))
    else:
        run_app(functools.partial(new_loop, case.kind), main)


def run_app(factory: Callable[[], asyncio.AbstractEventLoop], main: AsyncFn) -> None:
    """Do what ``asyncio.run(main(), loop_factory=factory)`` does, on every Python."""

    async def app() -> None:
        await main()

    if sys.version_info >= (3, 11):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(app())
        return
    loop = factory()
    try:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(app())
    finally:
        try:
            leftovers = asyncio.all_tasks(loop)
            for task in leftovers:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
