"""Programs in a page of the documentation: run them, stop them, show their tasks.

``worker.mjs`` loads this file into Pyodide, where it is the only Python code beside the program and
nurseryio. The program prints through ``post``, so its output appears at once.

Rule 1: a program sees the tasks, names and tracebacks that it has on another Python. So it does not
run inside a task of this module, unless the engine cannot switch stacks.

Rule 2: a program may leave anything behind. Its tasks are cancelled at the end, and the verdict says
that it was not clean. Then the page takes a new worker for the next program.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import json
import linecache
import sys
import time
import traceback
from types import ModuleType
from typing import Any

import nurseryio
from nurseryio.instruments import task_tree
from pyodide import webloop
from pyodide.ffi import can_run_sync, run_sync

# Characters that a program may print. The rest is dropped, because a page keeps all of it.
MOST_OUTPUT = 300_000
# Seconds that the tasks left behind by a program may take for their cleanup.
PATIENCE = 1.0
# The name under which a program finds run_here(), and that of the code after the program.
RUN = "_run_here"
CALL = "<call>"

_tasks_before: set[asyncio.Task[Any]] = set()
_stopped = False


# -- asyncio, as it is elsewhere -------------------------------------------------


async def main_of_asyncio(main: Any, debug: bool = False) -> Any:
    """Await a coroutine, and cancel the tasks that it leaves behind, as ``asyncio.run`` does."""
    before = asyncio.all_tasks()
    asyncio.get_running_loop().set_debug(bool(debug))
    try:
        return await main
    finally:
        left = asyncio.all_tasks() - before
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


def waited(coro: Any, name: str) -> Any:
    """Wait for a coroutine, which runs as a task, and return its result or raise its error.

    ``run_sync`` alone would pass the error through JavaScript, and Pyodide would report it too.
    """
    outcome: list[Any] = []

    async def keep_outcome() -> None:
        try:
            outcome[:] = await coro, None
        except BaseException as exc:
            outcome[:] = None, exc

    run_sync(asyncio.create_task(keep_outcome(), name=name))
    result, error = outcome
    if error is not None:
        raise error.with_traceback(error.__traceback__.tb_next)
    return result


def asyncio_run(main: Any, **options: Any) -> Any:
    """``asyncio.run`` on the loop of the page."""
    if not can_run_sync():
        main.close()
        raise RuntimeError("asyncio.run() cannot wait here: write it at the top level")
    return waited(main_of_asyncio(main, **options), "Task-1")


asyncio.run = asyncio_run
# Pyodide's own sleep() lets other tasks run meanwhile. That of every other Python does not.
time.sleep = webloop._orig_sleep


# -- engines that cannot switch stacks -------------------------------------------


class RunsAwait(ast.NodeTransformer):
    """Replaces calls of ``run`` at the top level of a program, for engines where it cannot wait.

    ``nurseryio.run(main)`` and ``asyncio.run(main())`` become an ``await``. Code in functions stays
    as it is.
    """

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name != "run":
            return node
        call = ast.Call(ast.Name(RUN, ast.Load()), [node.func, *node.args], node.keywords)
        return ast.copy_location(ast.Await(call), node)

    def leave(self, node: ast.AST) -> ast.AST:
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = leave
    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = leave


async def run_here(function: Any, *args: Any, **options: Any) -> Any:
    """The call of a function that is named ``run``. If the function starts a loop, an await."""
    if function is nurseryio.run and options.keys() <= {"instruments"}:
        instruments = options.get("instruments", ())
        for instrument in instruments:
            nurseryio.lowlevel.add_instrument(instrument)
        try:
            return await args[0](*args[1:])
        finally:
            for instrument in instruments:
                nurseryio.lowlevel.remove_instrument(instrument)
    if function is asyncio_run:
        return await main_of_asyncio(*args, **options)
    return function(*args, **options)


# -- output ----------------------------------------------------------------------


class Output(io.TextIOBase):
    """A text file that hands each write to the page."""

    encoding = "utf-8"
    left = MOST_OUTPUT  # for both files

    def __init__(self, post: Any, stream: str) -> None:
        self._post = post
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if Output.left > 0:
            self._post(self._stream, text[: Output.left])
            Output.left -= len(text)
            if Output.left <= 0:
                self._post("stderr", "\n(The rest of the output is left out.)\n")
        return len(text)


def show(exc: BaseException) -> None:
    """Print a traceback as Python does, without the frames of this module."""
    traced = [traceback.TracebackException.from_exception(exc)]
    for each in traced:
        kept = [frame for frame in each.stack if frame.filename != __file__]
        each.stack = traceback.StackSummary.from_list(kept)
        traced += filter(None, (each.__cause__, each.__context__, *(each.exceptions or ())))
    print("".join(traced[0].format()), end="", file=sys.stderr)


def report(_loop: Any, context: dict[str, Any]) -> None:
    """The exception handler of the loop. Pyodide's has an empty line after each line."""
    print(context.get("message") or "Unhandled exception in event loop", file=sys.stderr)
    if context.get("exception") is not None:
        show(context["exception"])


# -- one program -----------------------------------------------------------------


def begin(source: str, call: str, file: str, post: Any, done: Any) -> None:
    """Run a program.

    Args:
        source: the program.
        call: code to run in place of the block under ``if __name__ == "__main__"``, if any.
        file: the name of the program, for tracebacks.
        post: is called with the name of a stream and a text.
        done: is called at the end with "ended", "failed" or "stopped". "dirty" stands before it if
            the program left something behind.
    """
    global _stopped
    _stopped = False
    _tasks_before.clear()
    _tasks_before.update(asyncio.all_tasks())
    Output.left = MOST_OUTPUT
    sys.stdout, sys.stderr = Output(post, "stdout"), Output(post, "stderr")
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    # Under its real name the block for "__main__" would run as well.
    module = ModuleType("program" if call else "__main__")
    module.__dict__.update({RUN: run_here, "__file__": file})
    sys.modules[module.__name__] = module
    asyncio.get_running_loop().set_exception_handler(report)
    error = None
    try:
        codes = [compiled(source, file), *([compiled(call, CALL)] if call else [])]
        if can_run_sync() and not any(code.co_flags & inspect.CO_COROUTINE for code in codes):
            for code in codes:
                exec(code, module.__dict__)
        else:
            task = asyncio.create_task(as_task(codes, module.__dict__), name=file)
            task.add_done_callback(lambda task: end(task.result(), done))
            return
    except BaseException as exc:
        error = exc
    end(error, done)


def compiled(source: str, file: str) -> Any:
    tree = ast.parse(source, file)
    if not can_run_sync():
        tree = ast.fix_missing_locations(RunsAwait().visit(tree))
    return compile(tree, file, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


async def as_task(codes: list[Any], namespace: dict[str, Any]) -> BaseException | None:
    """Run code that awaits at its top level. Returns its error, because no exit may pass a loop."""
    try:
        for code in codes:
            result = eval(code, namespace)
            if inspect.isawaitable(result):
                await result
    except BaseException as exc:
        return exc
    return None


def end(error: BaseException | None, done: Any) -> None:
    """The program has ended: show its error, clean up after it, and report its verdict."""
    verdict = "ended"
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    elif _stopped and isinstance(error, (asyncio.CancelledError, KeyboardInterrupt)):
        verdict = "stopped"
    elif error is not None:
        verdict = "failed"
        show(error)
    loop = asyncio.get_running_loop()
    loop.set_task_factory(None)
    loop.set_debug(False)
    asyncio.ensure_future(settle("stopped" if _stopped else verdict, done))


async def settle(verdict: str, done: Any) -> None:
    """Cancel the tasks that a program left behind, wait for them, and report its verdict."""
    left = new_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=PATIENCE)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    done(f"dirty {verdict}" if left else verdict)


# -- while a program runs --------------------------------------------------------


def new_tasks() -> set[asyncio.Task[Any]]:
    """The tasks of the program that have not ended."""
    return asyncio.all_tasks() - _tasks_before


def stop() -> None:
    """Cancel the program: each task that is not a nursery's child. Its nursery cancels a child."""
    global _stopped
    _stopped = True
    children = {task.id for task in task_tree().tasks if task.nursery is not None}
    for task in new_tasks():
        if id(task) not in children:
            task.cancel()


def tree() -> str:
    """The tasks of the program, as JSON."""
    hidden = {id(task) for task in _tasks_before}
    data = task_tree().as_dict()
    data["tasks"] = [task for task in data["tasks"] if task["id"] not in hidden]
    return json.dumps(data)
