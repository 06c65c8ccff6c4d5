"""The words that people search for, and the sections that answer them.

Sphinx's search ranks an entry of the index above all else. For the rest it counts words alone, so
a word that is on many pages finds any of them. Each entry here is one of the index as well.
A section that is not there any more is a warning, and fails the build.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

logger = logging.getLogger(__name__)

# Page and section: the words, divided by commas.
WORDS = {
    "aio": "asyncio, legacy code, mix with asyncio",
    "benchmarks": "performance, speed, overhead, benchmark, fast",
    "browser": "browser, pyodide, webassembly, pyscript, emscripten",
    "channels": "queue, channel, producer consumer, pub sub, broadcast",
    "channels#the-buffer-and-back-pressure": "backpressure, back-pressure, flow control, buffer",
    "files-and-signals": "file, open_file, path, aiofiles",
    "files-and-signals#signals": "signal, signal handler, sigterm, graceful shutdown",
    "frameworks": "web framework, framework, django, starlette",
    "frameworks#fastapi-and-uvicorn": "fastapi, uvicorn",
    "frameworks#aiohttp": "aiohttp",
    "hangs": "hang, hangs, deadlock, stuck, freeze, debug, task tree, stack trace",
    "hangs#much-cpu-time": "spin, busy loop, 100% cpu, cpu",
    "hangs#the-loop-stands-still": "blocking, blocked loop, slow callback",
    "loops": "uvloop, event loop, winloop, windows",
    "lowlevel#ctrl-c": "ctrl-c, ctrl c, keyboardinterrupt, sigint, interrupt",
    "migration/anyio": "anyio",
    "migration/asyncio#cancelling-a-task": "cancel task, cancel a task, task.cancel",
    "migration/asyncio#create-task-and-forget": "create_task, ensure_future, background task",
    "migration/asyncio#shield": "asyncio.shield",
    "migration/asyncio#wait-for-and-timeout": "wait_for, asyncio.wait_for, asyncio.timeout",
    "migration/trio": "trio",
    "notebooks": "jupyter, notebook, ipython, nest_asyncio",
    "nurseries": "structured concurrency",
    "nurseries#a-nursery": "nursery, open_nursery, spawn, start_soon",
    "nurseries#cancel-scopes": "cancel scope, cancelscope, cancelled, cancellation",
    "nurseries#errors-come-in-groups": "exception group, exceptiongroup, except*",
    "nurseries#shields": "shield, cleanup",
    "nurseries#start-and-taskstatus": "task_status, taskstatus, started",
    "nurseries#timeouts": "timeout, deadline, move_on_after, fail_after, time limit",
    "nurseries#what-a-checkpoint-is": "checkpoint",
    "playground": "playground, try it, online",
    "processes": "subprocess, process, run_process, popen",
    "results#gather-all-results": "gather, asyncio.gather, return value, result",
    "results#race-the-first-result": "race, first completed, asyncio.wait",
    "results#amap-one-result-for-each-item": "as_completed, map, amap",
    "streams": "stream, connection",
    "streams#a-server": "server, start_server, serve",
    "streams#connecting": "client, connect, open_connection, happy eyeballs",
    "streams#sockets": "socket, udp",
    "synchronization#capacitylimiter": "limit, rate limit, concurrency limit, limiter",
    "synchronization#condition": "condition",
    "synchronization#event": "event",
    "synchronization#lock": "lock, mutex",
    "synchronization#semaphore": "semaphore",
    "testing#virtual-time": "virtual time, mock clock, fake time, time travel",
    "testing#options-of-the-marker": "pytest marker, test timeout, flaky test",
    "testing#plain-code-without-a-framework": "asyncio.runner, doctest, script, plain code",
    "testing#tasks-in-a-random-order": "race condition, shuffle, random order, scheduling, replay",
    "testing#fixtures-around-the-test": "pytest fixture, async fixture, fixture",
    "testing#with-pytest": "pytest, pytest-asyncio, test, testing",
    "testing#with-unittest": "unittest",
    "computing": (
        "process pool, processpoolexecutor, multiprocessing, cpu-bound, cpu bound, compute, gil, "
        "subinterpreter, to_process, to_interpreter, parallel"
    ),
    "threads": "thread, run_in_executor, to_thread, executor, blocking function",
    "tls": "tls, ssl, https, certificate, dtls, starttls",
    "tools": "sentry, ddtrace, debugger, task factory",
    "tutorial": "tutorial, getting started, install",
    "tutorial#a-forgotten-await": "never awaited, was never awaited, forgotten await",
    "tutorial#what-a-cancellation-is": "cancellederror, asyncio.cancellederror",
    "why#why-asyncio-taskgroup-is-not-enough": "taskgroup, task group, asyncio.taskgroup",
}


class SearchWords(SphinxTransform):
    """Adds the entries to the page that is read."""

    default_priority = 500

    def apply(self, **_options: Any) -> None:
        page = self.env.docname
        for place, words in WORDS.items():
            name, _, anchor = place.partition("#")
            if name != page:
                continue
            section = next(
                (
                    section
                    for section in self.document.findall(nodes.section)
                    if not anchor or anchor in section["ids"]
                ),
                None,
            )
            if section is None:
                logger.warning("search_words.py: %s is not there", place, location=page)
                continue
            target = section["ids"][0] if anchor else ""
            entries = [("single", word.strip(), target, "main", None) for word in words.split(",")]
            section.insert(1, addnodes.index(entries=entries))


def setup(app: Any) -> dict[str, bool]:
    app.add_transform(SearchWords)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
