"""The console of ``python -m nurseryio``: Python's, with ``await`` and a nursery.

The event loop is in the thread of a portal. The main thread reads the inputs, so background tasks
continue meanwhile, and Ctrl-C reaches the reading of the input as in Python's own console.

Rule 1: an input with ``await`` is a call of the portal. Ctrl-C cancels it and waits for its
cleanup. A second Ctrl-C does not wait. The input stays in the background then, still cancelled.

Rule 2: an input without ``await`` runs in the main thread, while the loop is stopped and asyncio
takes the main thread for the loop's. So such code may call ``nursery.start_soon()`` and the like,
and Ctrl-C interrupts it wherever it is. In asyncio's debug mode, loops refuse such a thread. There
the input runs in a callback of the loop.

Rule 3: context variables that an input sets are seen by later inputs.

Rule 4: tracebacks begin in the input, or in the function of a background task.

Rule 5: an input that follows the end of the nursery, by ``nursery.cancel_scope.cancel()`` or by a
background task that exits, gets another one. The end of the loop ends the console.

Rule 6: the end of the console cancels everything, and waits for the cleanup. Ctrl-C ends the wait.
"""

from __future__ import annotations

import ast
import code
import contextvars
import inspect
import sys
import threading
import tokenize
import types
from contextlib import asynccontextmanager
from queue import SimpleQueue
from traceback import format_exception
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._base import Value
from .._base.exc_fields import context_of, is_a, set_context, set_traceback, traceback_of
from .._base.exception_groups import is_cancelled, leaves
from .._base.util import is_library
from .._core.task import current_task
from .._sync.supervisor import open_supervisor
from .._system.from_thread import answered_at_close
from . import line_input
from .held import Entered
from .host import Host

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable

    from .._base import Outcome
    from .._sync.supervisor import ChildFailure, Supervisor

LIBRARY = __name__.partition(".")[0]

FILENAME = "<console>"
BANNER = """\
{library} {version} on Python {python}
Use await, async with and async for directly. Background tasks: nursery.start_soon(async_fn, ...)
Ctrl-C cancels the input, exit() or Ctrl-D ends the console."""

# The status of a program that Ctrl-C has ended.
INTERRUPTED = 130

LOOP_ENDED = "The event loop has ended. So the console ends."
GOES_ON = (
    "KeyboardInterrupt: the input has not ended yet. It was cancelled, and is in the background"
)


def run_console(
    interactive: bool, loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
) -> None:
    """Run the inputs of standard input, until it ends.

    Args:
        interactive: Show prompts, and continue after an error. Otherwise the input is one program.
        loop_factory: As for :func:`nurseryio.run`.

    Raises:
        SystemExit: An input has raised it, or the program has failed.
        KeyboardInterrupt: Ctrl-C was pressed in the program, or at the end of the console.
    """
    sys.audit("cpython.run_stdin")
    if sys.stdin is None:
        return  # it is closed
    host = Host("console", loop_factory)
    host.start()
    try:
        console = _make(host, interactive)
        (_interact if interactive else _run_program)(console)
    finally:
        try:
            host.close(cancel=True)
        except KeyboardInterrupt:
            raise SystemExit(INTERRUPTED) from None


def _make(host: Host, interactive: bool) -> Inputs:
    """The console, of Python's class with colours if there is one."""
    found = line_input.editor() if interactive else None
    base, interact = (code.InteractiveConsole, _read_lines) if found is None else found
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    vars(main)[LIBRARY] = sys.modules[LIBRARY]
    made: Inputs = types.new_class("Console", (Inputs, base))(vars(main), FILENAME)
    made.begin(host, interact, is_raw=found is not None)
    return made


def _read_lines(console: code.InteractiveConsole) -> None:
    """Read the inputs by ``input()``."""
    console.interact(banner="", exitmsg="")


def _interact(console: Inputs) -> None:
    library = sys.modules[LIBRARY]
    python = sys.version.split()[0]
    banner = BANNER.format(library=LIBRARY, version=library.__version__, python=python)
    console.write(f"{banner}\n>>> import {LIBRARY}\n")
    startup = line_input.variable("PYTHONSTARTUP")
    try:
        if startup:
            console.run_startup(startup)
        line_input.prepare(console.locals)
    except Exception as error:
        console.show(error)
    console.read_all()


def _run_program(console: Inputs) -> None:
    console.is_program = True
    name = "<stdin>"
    try:
        # Bytes, because a program may declare its encoding.
        text = getattr(sys.stdin, "buffer", sys.stdin).read()
        program = compile(text, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError):
        console.showsyntaxerror(name)
        raise SystemExit(1) from None
    console.runcode(program)
    if console.has_failed:
        raise SystemExit(1)


class Inputs(code.InteractiveConsole):
    """Runs the inputs. A second base class of the console reads them.

    Attributes:
        is_program: The input is one program: Ctrl-C ends it.
        has_failed: An error was shown.
    """

    locals: dict[str, Any]
    is_program = False
    has_failed = False

    def begin(
        self, host: Host, interact: Callable[[code.InteractiveConsole], None], is_raw: bool
    ) -> None:
        """Open the nursery for background tasks. This is the second half of the constructor."""
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self._host = host
        self._read = interact
        # Whether the terminal does not begin a new line by itself while an input is read.
        self._is_raw = is_raw
        self._number = 0
        # The number of the input that runs; 0 while an input is read.
        self._running = 0
        # Whether a statement of the current input has failed.
        self._is_stopped = False
        # False while an input with await has begun, and not ended.
        self._has_ended = True
        self._context = contextvars.copy_context()
        self._open_nursery()

    def _open_nursery(self) -> None:
        self._background = Entered(self._host, self._supervised())
        self.locals["nursery"] = self._nursery = self._background.__enter__()

    @asynccontextmanager
    async def _supervised(self) -> AsyncIterator[Supervisor]:
        """The nursery for background tasks. An error that ends it, such as an exit, is shown."""
        ended: list[BaseException] = []
        try:
            async with open_supervisor(self._show_failure) as nursery:
                yield nursery
        except BaseException as error:
            ended += [leaf for leaf in leaves(error) if not is_cancelled(leaf)]
            if not ended:
                raise
        if ended:
            self.write("The background tasks were cancelled, because one has ended so:\n")
        while ended:
            self.show(ended.pop(0))

    def _renew(self) -> None:
        """End the console if the loop has ended. Open another nursery if it was cancelled."""
        if self._host.is_inherited:
            return
        if self._host.over.is_set():
            self.write(f"{LOOP_ENDED}\n")
            raise SystemExit(1)
        if self._nursery.cancel_scope.cancel_called:
            kept = self.locals.get("nursery")
            was_replaced = kept is not self._nursery
            self._open_nursery()
            if was_replaced:
                self.locals["nursery"] = kept

    def read_all(self) -> None:
        """Read and run inputs until the end."""
        self._read(self)

    def run_startup(self, path: str) -> None:
        """Run the file of ``PYTHONSTARTUP``."""
        sys.audit("cpython.run_startup", path)
        with tokenize.open(path) as file:
            text = file.read()
        self.runcode(compile(text, path, "exec"))

    # -- running an input --

    def runsource(self, source: str, filename: str = FILENAME, symbol: str = "single") -> bool:
        """Run one input, if it is complete. Its last statements are not run after an error."""
        self._is_stopped = False
        return super().runsource(source, filename, symbol)

    def runcode(self, code: types.CodeType) -> None:
        """Run an input or, with Python's editor, one statement of it, and show its error."""
        if self._is_stopped:
            return
        self._number += 1
        self._running = number = self._number
        self._has_ended = True
        try:
            self._renew()
            if code.co_flags & inspect.CO_COROUTINE:
                self._context.run(self._host.ask, self._host.nursery, self._await, (code, number))
            else:
                self._call(code)
        except SystemExit:
            raise
        except KeyboardInterrupt as interrupt:
            if self.is_program:
                raise
            self._is_stopped = True
            self._show_interrupt(interrupt)
        except BaseException as error:
            self._is_stopped = True
            self.show(error)
        finally:
            self._running = 0

    def _call(self, code: types.CodeType) -> None:
        """Run an input without ``await`` (rule 2)."""
        if self._host.is_inherited:
            # An input has forked, and this is the child. The loop's thread does not exist here.
            self._context.run(exec, code, self.locals)
            return
        loop = self._host.token._state.loop
        if loop.get_debug():
            self._host.ask_sync(self._context.run, exec, code, self.locals)
            return
        reached: SimpleQueue[Outcome[None]] = SimpleQueue()
        stays = threading.Lock()

        def stop() -> None:
            reached.put(Value(None))
            with stays:
                pass

        # A lock, and not an event: Ctrl-C cannot come between the error and the release.
        with stays, answered_at_close(loop, reached) as wait:
            self._host.token.run_sync_soon(stop)
            wait().unwrap()
            try:
                compat.set_running_loop(loop)
                self._context.run(exec, code, self.locals)
            finally:
                compat.set_running_loop(None)

    async def _await(self, code: types.CodeType, number: int) -> None:
        """Run an input with ``await``, in its task."""
        current_task().name = f"input {number}"
        self._has_ended = False
        try:
            await types.FunctionType(code, self.locals)()
        except BaseException as error:
            if self._running != number and not is_cancelled(error):
                self.show(error)  # no thread waits for it any more
            raise
        finally:
            if self._running == number:
                self._context = contextvars.copy_context()
                self._has_ended = True

    # -- showing something --

    def write(self, data: str) -> None:
        """Write a text to standard error, unless that is closed."""
        if sys.stderr is None:
            return
        if (
            self._is_raw
            and not self._running
            and (threading.current_thread() is not threading.main_thread())
        ):
            data = "\n" + data
            data = data.replace("\n", "\r\n")
        super().write(data)

    def show(self, error: BaseException) -> None:
        """Show an error, with the traceback from the first line of the user's code on."""
        self.has_failed = True
        traceback = whole = traceback_of(error)
        while traceback is not None and is_library(traceback.tb_frame.f_code):
            traceback = traceback.tb_next
        set_traceback(error, traceback or whole)
        try:
            self._show(error)
        finally:
            del error, traceback, whole  # no reference cycle

    def _show(self, error: BaseException) -> None:
        if sys.version_info >= (3, 13):
            before = context_of(error)
            try:
                raise error  # the method leaves out this frame
            except BaseException:
                set_context(error, before)  # not the error that is being handled here
                self.showtraceback()
            finally:
                del before  # no reference cycle
            return
        # There the method leaves it out only if it does not call a hook.
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, traceback_of(error)
        if sys.excepthook is sys.__excepthook__ or sys.stderr is None:
            self.write("".join(format_exception(type(error), error, sys.last_traceback)))
        else:
            sys.excepthook(type(error), error, sys.last_traceback)

    def showsyntaxerror(self, filename: str | None = None, **options: Any) -> None:
        """Show the error of an input that could not be compiled. It is being handled."""
        self.has_failed = True
        error = sys.exc_info()[1]
        if sys.version_info >= (3, 13) or error is None:
            super().showsyntaxerror(filename, **options)
            return
        try:
            set_traceback(error, None)  # a hook would show the frames of the compiler's callers
            self._show(error)
        finally:
            del error  # no reference cycle

    def _show_interrupt(self, interrupt: KeyboardInterrupt) -> None:
        cleanup_error = context_of(interrupt)
        if is_a(cleanup_error, Exception):
            self.show(cleanup_error)
        self.write("\nKeyboardInterrupt\n" if self._has_ended else f"\n{GOES_ON}\n")

    def _show_failure(self, failure: ChildFailure) -> Any:
        """The error handler of the nursery."""
        self.write(f"{failure.name} in the background has failed:\n")
        self.show(failure.error)
        return "drop"
