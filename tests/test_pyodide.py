"""nurseryio in Pyodide: Python in a web page, where the event loop belongs to the page.

``loop_programs/in_pyodide.py`` runs a cross-section of the library, in two processes of node. The
second one can switch stacks, so ``run`` can wait for the loop. Here are the things that each step
must say. Without node or the npm package ``pyodide`` all tests are skipped.
``harness/in_pyodide.py`` says where the package is looked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import in_pyodide

from nurseryio.testing.step_runner import LOOP_RUNS

pytestmark = [
    pytest.mark.skipif(bool(in_pyodide.why_not()), reason=in_pyodide.why_not()),
    pytest.mark.limit(120),
]

TRACED = [
    "### new task spawned: child",
    "### task scheduled: child",
    ">>> about to run one step of task: child",
    "### task scheduled: child",
    "<<< task step finished: child",
    ">>> about to run one step of task: child",
    "### task exited: child",
    "<<< task step finished: child",
]
MOST = {"lock": 1, "semaphore": 2, "limiter": 3}
INSIDE = "Attempted to call run() from inside a run()"
RUNNER = (
    "a Runner is for code without an event loop, and one is running in this thread: await the "
    "function instead"
)
CANNOT_WAIT = (
    "run() cannot wait here: the event loop of the page runs already, and this JavaScript engine "
    "cannot switch stacks (JSPI), or Python was entered by a synchronous call such as "
    "pyodide.runPython(). Write `await main()` in place of `nurseryio.run(main)`, at the top level "
    "of a program that pyodide.runPythonAsync() or PyScript starts"
)

# What each step says.
CROSS_SECTION: dict[str, list[Any]] = {
    "nurseries": ["value", True, ["KeyError('one')"]],
    "scopes": [
        *("shielded", "cancelled still", True, [True, False], "TooSlowError", "native cancel"),
    ],
    # A deadline in 30 days: whether it has passed, the number of timers, whether JavaScript can
    # keep these.
    "distant_deadlines": [False, 1, True],
    "channels": [True, "WouldBlock", "BrokenResourceError"],
    "synchronization": [dict.fromkeys(MOST, 0), "notified", MOST],
    "results": [[1, 2], 2, [0, 1, 2, 3, 4]],
    "memory_streams": [True, "ABC", 0, "lockstep"],
    "all_tasks_blocked": ["busy no more", "blocked"],
    "task_tree": [["Task-1", "first", "second"]],
    "tracer": [TRACED, ["### new task spawned: asyncio's"], True],
    "foreign_awaits": [
        *([name, True] for name in ("future", "queue", "event", "sleep", "wait_for", "gather")),
        *(["promise", True], 7, [1, None], True),
    ],
    "system_tasks": ["both"],
    "services": ["ready", [False, False], "closed"],
    "trace_file": [True, True],
    "test_frameworks": [[f"RuntimeError: {LOOP_RUNS}"], ["RuntimeError", RUNNER]],
    "preloading": [True],
    "run_that_cannot_wait": [CANNOT_WAIT],
    "clean": [[], 0, []],
}


def own_loop(names: str) -> list[str]:
    """The error for options of ``run`` that need a loop of its own."""
    return [
        "NotImplementedError",
        f"run() cannot take {names} here, because that needs an event loop of its own, and a page "
        "has one loop, which all its programs share: leave it out",
    ]


WITH_SWITCHING: dict[str, list[Any]] = {
    "run_returns": [1, 2, [True, False]],
    "run_nursery": ["moved on", "goes on"],
    "run_raises": [
        ["ValueError", "bad"],
        ["ExceptionGroup", "Exceptions from nurseryio nursery (1 sub-exception)"],
        ["SystemExit", "3"],
        ["SystemExit", "3"],
        [
            "TypeError",
            "nurseryio expected an async function, but 'print' appears to be synchronous",
        ],
    ],
    "run_in_run": [["RuntimeError", INSIDE], 3],
    "run_options": [
        *("before_run", "spawned __main__.run_options.<locals>.main", "spawned child", "after_run"),
        own_loop("clock"),
        own_loop("clock and loop_factory"),
        own_loop("restrict_keyboard_interrupt_to_checkpoints"),
        own_loop("strict_exception_groups"),
    ],
    "clean": [[], 0, []],
}

# The parts that a page lacks, each with the advice of the error, and the functions that need it.
THREADS = ("threads", "call the function directly, or await an async one")
FILES = (
    "threads",
    "use open() and pathlib.Path, because files are in memory there and do not block",
)
SOCKETS = (
    "sockets",
    "use the means of the page, such as fetch() or a WebSocket; streams in memory work",
)
PROCESSES = ("processes", "call the code in this process, or start a Web Worker")
SIGNALS = ("signals", "set an Event or send to a channel in an event listener of the page")
OBSERVERS = (
    "threads, sockets and signals",
    "print task_tree() in the program or in an event listener of the page",
)
DESCRIPTORS = (
    "file descriptors that can be waited for",
    "await a future or an Event that an event listener of the page sets",
)
SSL = (
    "module ssl",
    "in Pyodide, await pyodide_js.loadPackage('ssl') before nurseryio is imported, for streams in "
    "memory",
)
PATHS = "the methods of nurseryio.Path that use the file system"
REFUSED = {
    "to_thread.run_sync": THREADS,
    "start_thread_soon": THREADS,
    "from_thread.run": THREADS,
    "from_thread.run_sync": THREADS,
    "from_thread.check_cancelled": THREADS,
    "open_file": FILES,
    "wrap_file": FILES,
    "Path.exists": FILES,
    "Path.open": FILES,
    "Path.cwd": FILES,
    "Path.home": FILES,
    "run_process": PROCESSES,
    "open_process": PROCESSES,
    "open_signal_receiver": SIGNALS,
    "Watchdog": OBSERVERS,
    "serve_monitor": OBSERVERS,
    "dump_on_signal": OBSERVERS,
    "to_process.run_sync": PROCESSES,
    "to_interpreter.run_sync": THREADS,
    "open_portal": THREADS,
    "shared_portal": THREADS,
    "stop_on_signals": SIGNALS,
    **dict.fromkeys(
        ("sendfile", "TemporaryFile", "NamedTemporaryFile", "TemporaryDirectory"), FILES
    ),
    **dict.fromkeys(("open_stdin", "open_stdout", "open_stderr"), FILES),
    "open_tcp_stream": SOCKETS,
    "open_tcp_listeners": SOCKETS,
    "serve_tcp": SOCKETS,
    "open_unix_socket": SOCKETS,
    "open_unix_listeners": SOCKETS,
    "serve_unix": SOCKETS,
    "open_ssl_over_tcp_stream": SOCKETS,
    "open_ssl_over_tcp_listeners": SOCKETS,
    "serve_ssl_over_tcp": SOCKETS,
    "socket": SOCKETS,
    "socketpair": SOCKETS,
    "fromfd": SOCKETS,
    "from_stdlib_socket": SOCKETS,
    "getaddrinfo": SOCKETS,
    "getnameinfo": SOCKETS,
    "getprotobyname": SOCKETS,
    "wait_readable": DESCRIPTORS,
    "wait_writable": DESCRIPTORS,
    "FdStream": DESCRIPTORS,
}
SHOWN = {
    "Watchdog": "Watchdog",
    **dict.fromkeys(("Path.exists", "Path.open"), PATHS),
    **dict.fromkeys(("wait_readable", "wait_writable"), "wait_readable() and wait_writable()"),
    "FdStream": "streams over bare descriptors",
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return in_pyodide.pack(tmp_path_factory.mktemp("pyodide") / "packages.zip")


@pytest.fixture(scope="module")
def said(archive: Path) -> dict[str, Any]:
    """The values that each step of the cross-section has printed."""
    steps = in_pyodide.run(archive, "cross-section")
    assert steps is not None
    return steps


@pytest.fixture(scope="module")
def said_with_switching(archive: Path) -> dict[str, Any]:
    """The same of the steps in which ``run`` waits."""
    steps = in_pyodide.run(archive, "run", switching=True)
    if steps is None:
        pytest.skip("needs a node that can switch the stacks of WebAssembly (JSPI)")
    return steps


@pytest.mark.parametrize("step", CROSS_SECTION)
def test_the_cross_section_passes_in_pyodide(step: str, said: dict[str, Any]) -> None:
    """Nurseries, cancel scopes, channels, locks, gather, streams, instruments, asyncio code."""
    assert said[step] == CROSS_SECTION[step]


@pytest.mark.parametrize("step", WITH_SWITCHING)
def test_run_waits_in_pyodide_where_stacks_can_be_switched(
    step: str, said_with_switching: dict[str, Any]
) -> None:
    assert said_with_switching[step] == WITH_SWITCHING[step]


def test_no_step_in_pyodide_is_left_out(
    said: dict[str, Any], said_with_switching: dict[str, Any]
) -> None:
    assert said.keys() == CROSS_SECTION.keys() | {"refusals"}
    assert said_with_switching.keys() == WITH_SWITCHING.keys()


def refusal(name: str, part: tuple[str, str]) -> list[str]:
    """The error for a function in Pyodide."""
    lacks, advice = part
    return [
        "NotImplementedError",
        f"this platform (emscripten) has no {lacks}, so {SHOWN.get(name, f'{name}()')} cannot "
        f"work: {advice}",
    ]


def test_each_function_that_needs_threads_sockets_processes_or_signals_is_refused_in_pyodide(
    said: dict[str, Any],
) -> None:
    """One clear error at the call, in place of a hang or an error of a lower layer."""
    got = {name: rest for name, *rest in said["refusals"]}
    tls = {name: got.pop(name) for name in ("SSLStream", "SSLListener")}
    if got["open_ssl_over_tcp_stream"] == refusal("open_ssl_over_tcp_stream", SSL):
        # A Pyodide whose module ssl is a package of its own, which is not loaded here.
        without = ("open_ssl_over_tcp_stream", "open_ssl_over_tcp_listeners", "serve_ssl_over_tcp")
        expected = REFUSED | dict.fromkeys(without, SSL)
        assert tls == {name: refusal(name, SSL) for name in tls}
    else:
        expected = REFUSED
        assert {error for error, _ in tls.values()} == {"TypeError"}  # of the arguments: they work
    assert got == {name: refusal(name, part) for name, part in expected.items()}
