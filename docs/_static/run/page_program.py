"""Programs in a page of the documentation: run them, stop them, show their tasks.

``worker.mjs`` loads this file into Pyodide, where it is the only Python code beside the program and
nurseryio. The program prints through ``post``, so its output appears at once.

Rule 1: a program sees the tasks, names and tracebacks that it has on another Python. So it does not
run inside a task of this module, unless it awaits at its top level.

Rule 2: a program may leave anything behind. Its tasks are cancelled at the end, and the verdict
says that it was not clean. Then the page takes a new worker for the next program.
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
import types
from contextlib import ExitStack, suppress
from typing import Any

from pyodide import webloop
from pyodide.ffi import can_run_sync, run_sync

import nurseryio
from nurseryio.instruments import task_tree

# Characters that a program may print. The rest is dropped, because a page keeps all of it.
MOST_OUTPUT = 300_000
# Seconds that the tasks left behind by a program may take for their cleanup.
PATIENCE = 1.0
# The name under which a program finds run_here(), and that of the code after the program.
RUN = "_run_here"
CALL = "<call>"

_tasks_before: set[asyncio.Task[Any]] = set()
_stopped = False
_settling: asyncio.Task[None] | None = None  # asyncio itself has only a weak reference


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


class Main:
    """A coroutine that runs as a task of its own, for a caller that waits for it.

    The task does not fail: errors would pass through JavaScript, Pyodide would report them too, and
    an exit must not leave a task of the page's loop.
    """

    def __init__(self, coro: Any, name: str) -> None:
        self._coro = coro
        self._result: Any = None
        self._error: BaseException | None = None
        self.task = asyncio.create_task(self._run(), name=name)

    async def _run(self) -> None:
        try:
            self._result = await self._coro
        except BaseException as exc:
            self._error = exc

    def unwrap(self) -> Any:
        """The result of the coroutine, or its error, raised."""
        if self._error is not None:
            raise self._error.with_traceback(self._error.__traceback__.tb_next)
        return self._result


def asyncio_run(main: Any, **options: Any) -> Any:
    """``asyncio.run`` on the loop of the page."""
    if not can_run_sync():
        main.close()
        raise RuntimeError("asyncio.run() cannot wait here: write it at the top level")
    running = Main(main_of_asyncio(main, **options), "Task-1")
    run_sync(running.task)
    return running.unwrap()


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
        main, *rest = args
        instruments = list(options.get("instruments", ()))
        coro, name = main(*rest), f"{main.__module__}.{main.__qualname__}"
    elif function is asyncio_run:
        instruments, coro, name = [], main_of_asyncio(*args, **options), "Task-1"
    else:
        return function(*args, **options)
    with ExitStack() as undo:
        for instrument in instruments:
            nurseryio.lowlevel.add_instrument(instrument)
            undo.callback(removed, instrument)
        call_hook(instruments, "before_run")
        running = Main(coro, name)
        await ended(running.task)
        call_hook(instruments, "after_run")
    return running.unwrap()


def removed(instrument: Any) -> None:
    """Remove an instrument, unless the program has done so, or it was removed because it raised."""
    with suppress(KeyError):
        nurseryio.lowlevel.remove_instrument(instrument)


def call_hook(instruments: list[Any], name: str) -> None:
    """Call a hook of those instruments that have it. A hook that is switched off is None."""
    for instrument in instruments:
        hook = getattr(instrument, name, None)
        if hook is not None:
            hook()


@types.coroutine
def ended(task: asyncio.Task[Any]) -> Any:
    """Wait for a task. Outside of tasks, it is handed to Driver."""
    if asyncio.current_task() is None:
        yield task
    else:
        yield from asyncio.wait({task}).__await__()


class Driver:
    """Runs a coroutine without a task, as far as it waits by ``ended``.

    So the program has no task around it that it would not have elsewhere.
    """

    def __init__(self, coro: Any, done: Any) -> None:
        self._coro = coro
        self._done = done
        self.step()

    def step(self, _task: object = None) -> None:
        try:
            task = self._coro.send(None)
        except StopIteration as stop:
            self._done(stop.value)
        else:
            task.add_done_callback(self.step)


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
    module = types.ModuleType("program" if call else "__main__")
    module.__dict__.update({RUN: run_here, "__file__": file})
    sys.modules[module.__name__] = module
    asyncio.get_running_loop().set_exception_handler(report)
    parts = [(source, file), (call, CALL)] if call else [(source, file)]
    coro = execute(parts, module.__dict__)
    try:
        needs_task = any(is_async(text, name) for text, name in parts)
    except SyntaxError:  # execute() raises it again
        needs_task = False
    if needs_task:
        task = asyncio.create_task(coro, name=file)
        task.add_done_callback(lambda task: end(task.result(), done))
    else:
        Driver(coro, lambda error: end(error, done))


def is_async(source: str, file: str) -> bool:
    """Whether a program has an ``await`` at its top level."""
    return bool(compiled(ast.parse(source, file), file).co_flags & inspect.CO_COROUTINE)


def compiled(tree: ast.Module, file: str) -> Any:
    return compile(tree, file, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


async def execute(parts: list[tuple[str, str]], namespace: dict[str, Any]) -> BaseException | None:
    """Run code. Returns its error, because no exit may pass a loop."""
    try:
        for source, file in parts:
            tree = ast.parse(source, file)
            if not can_run_sync():
                tree = ast.fix_missing_locations(RunsAwait().visit(tree))
            result = eval(compiled(tree, file), namespace)
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
    global _settling
    _settling = asyncio.create_task(settle("stopped" if _stopped else verdict, done))


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
