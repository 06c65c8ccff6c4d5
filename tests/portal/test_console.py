"""The console of ``python -m nurseryio``: in a terminal, and with its input from a pipe."""

# Covered below 95 %: the consoles in terminals, whose inputs Ctrl-C interrupts, are in processes of
# their own. Some branches are for other Pythons.

from __future__ import annotations

import asyncio
import builtins
import gc
import importlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import matrix, source

from nurseryio._portal.console import run_console
from nurseryio._portal.host import Host

Run = Callable[..., tuple[str, str]]

pytestmark = pytest.mark.limit(90)

needs_terminal = pytest.mark.skipif(sys.platform == "win32", reason="no terminals of this kind")

PROMPT = ">>> "

# Python's editor, where there is one, and plain lines.
KINDS = ("editor", "lines") if sys.version_info >= (3, 13) else ("lines",)


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The variables for a console, whose home is a folder of the test."""
    paths = [str(source.ROOT), os.environ.get("PYTHONPATH", "")]
    given = {key: value for key, value in os.environ.items() if key != "PYTHONSTARTUP"}
    return {
        **given,
        "HOME": str(folder),
        "NO_COLOR": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TERM": "xterm",
        **more,
    }


def open_terminal(folder: Path, *arguments: str, **more: str) -> Any:
    from harness.terminal import Terminal

    command = [sys.executable, "-W", "error", "-m", "nurseryio", *arguments]
    return Terminal(command, environment(folder, **more), str(folder))


@pytest.fixture(scope="module", params=KINDS)
def shared_terminal(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """A console in a terminal, for several tests."""
    more = {"PYTHON_BASIC_REPL": "1"} if request.param == "lines" else {}
    with open_terminal(tmp_path_factory.mktemp("home"), **more) as opened:
        opened.wait_for(">>> import nurseryio")
        opened.wait_for(PROMPT)
        yield opened


@pytest.fixture
def terminal(shared_terminal: Any) -> Any:
    """The same, which waits for an input. The test must leave it so."""
    enter(shared_terminal, "0")
    return shared_terminal


def enter(terminal: Any, line: str) -> str:
    """Type an input, and wait for the next prompt. Returns what was shown."""
    terminal.enter(line)
    return str(terminal.wait_for("\n" + PROMPT))


def define(terminal: Any, *lines: str) -> None:
    """Run a text of several lines as one input, which needs no indentation by the editor."""
    text = "\\n".join(lines)
    enter(terminal, f'exec("{text}")')


# -- in a terminal ----------------------------------------------------------------


@needs_terminal
def test_the_console_has_await_at_its_top_level_and_completes_names(terminal: Any) -> None:
    from harness.terminal import CTRL_C, TAB

    assert "\n7\n" in enter(terminal, "await nurseryio.sleep(0) or 3 + 4")
    assert "\n8\n" in enter(terminal, "_ + 1")
    assert "seven" not in enter(terminal, "1 / 0; print('sev' + 'en')")
    terminal.press("nurseryio.open_nurs" + TAB)
    terminal.wait_for("nurseryio.open_nursery")
    terminal.press_until(CTRL_C, "KeyboardInterrupt\n")
    terminal.wait_for(PROMPT)


@needs_terminal
def test_ctrl_c_cancels_an_input_of_the_console_waits_for_its_cleanup_and_keeps_the_console(
    terminal: Any,
) -> None:
    from harness.terminal import CTRL_C

    define(
        terminal,
        "async def work():",
        " try:",
        "  print('wai' + 'ting')",
        "  await nurseryio.sleep_forever()",
        " finally:",
        "  with nurseryio.CancelScope(shield=True): await nurseryio.sleep(0.01)",
        "  print('cleaned' + ' up')",
    )
    terminal.enter("await work()")
    terminal.wait_for("waiting\n")
    terminal.press_until(CTRL_C, "cleaned up\n")
    terminal.wait_for("\nKeyboardInterrupt\n")
    terminal.wait_for(PROMPT)
    assert "\n7\n" in enter(terminal, "3 + 4")


@needs_terminal
def test_a_second_ctrl_c_in_the_console_does_not_wait_for_the_input(terminal: Any) -> None:
    from harness.terminal import CTRL_C

    define(
        terminal,
        "async def work():",
        " try:",
        "  print('wai' + 'ting')",
        "  await nurseryio.sleep_forever()",
        " finally:",
        "  print('clea' + 'ning')",
        "  with nurseryio.CancelScope(shield=True): await event.wait()",
        "  raise KeyError('la' + 'te')",
    )
    enter(terminal, "event = nurseryio.Event()")
    terminal.enter("await work()")
    terminal.wait_for("waiting\n")
    terminal.press_until(CTRL_C, "cleaning\n")
    terminal.press_until(CTRL_C, "\nKeyboardInterrupt: the input has not ended yet.")
    terminal.wait_for(PROMPT)
    # Its error is shown nevertheless.
    terminal.enter("event.set()")
    terminal.wait_for("KeyError: 'late'")


@needs_terminal
def test_ctrl_c_interrupts_an_input_of_the_console_that_blocks(terminal: Any) -> None:
    from harness.terminal import CTRL_C

    enter(terminal, "import time")
    terminal.enter("print('blo' + 'cks'); time.sleep(1000)")
    terminal.wait_for("blocks\n")
    terminal.press_until(CTRL_C, "\nKeyboardInterrupt\n")
    terminal.wait_for(PROMPT)
    assert "\n7\n" in enter(terminal, "3 + 4")


@needs_terminal
def test_background_tasks_of_the_console_go_on_while_it_waits_for_input(terminal: Any) -> None:
    from harness.terminal import CTRL_C

    define(
        terminal,
        "async def work():",
        "  await nurseryio.sleep(0.1)",
        "  print('still' + ' running')",
        "  await nurseryio.sleep_forever()",
    )
    terminal.enter("nursery.start_soon(work)")
    # No input is needed for this. Ctrl-C at the prompt does not reach the task.
    terminal.wait_for("still running")
    terminal.press_until(CTRL_C, "KeyboardInterrupt\n")
    terminal.wait_for(PROMPT)
    assert "work" in enter(terminal, "from nurseryio.instruments import task_tree; task_tree()")


@needs_terminal
def test_the_console_has_a_history_and_ends_by_exit_or_ctrl_d(tmp_path: Path) -> None:
    from harness.terminal import CTRL_D

    with open_terminal(tmp_path) as terminal:
        terminal.wait_for(">>> import nurseryio")
        terminal.wait_for(PROMPT)
        assert "\n7\n" in enter(terminal, "3 + 4")
        terminal.press(CTRL_D)
        assert terminal.wait() == 0
    with open_terminal(tmp_path) as terminal:
        terminal.wait_for(">>> import nurseryio")
        terminal.wait_for(PROMPT)
        # Only the last line is asked for: Python 3.14 keeps no more if the console ends by exit().
        terminal.press("\x10")  # Ctrl-P: the previous line
        terminal.wait_for("3 + 4")
        terminal.enter("")
        terminal.wait_for("\n7\n")
        terminal.wait_for(PROMPT)
        terminal.enter("exit(3)")
        assert terminal.wait() == 3
    with open_terminal(tmp_path) as terminal:
        terminal.wait_for(">>> import nurseryio")
        terminal.wait_for(PROMPT)
        define(
            terminal,
            "async def work():",
            " try: await nurseryio.sleep_forever()",
            " finally: print('cleaned' + ' up')",
        )
        enter(terminal, "nursery.start_soon(work)")
        terminal.press(CTRL_D)
        terminal.wait_for("cleaned up")
        assert terminal.wait() == 0


# -- from a pipe --------------------------------------------------------------------


def test_python_m_nurseryio_runs_a_program_from_a_pipe_or_the_console_with_option_i(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-W", "error", "-m", "nurseryio"]
    text = "import trio\nawait trio.sleep(0)\nprint(__name__)\n"
    for option, shown in ([], ""), (["-i"], PROMPT):
        done = subprocess.run(
            [*command, *option],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env=environment(tmp_path),
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(shown)
        assert "__main__\n" in done.stdout


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a text in this process, and returns what was written to standard output and error."""

    def run_text(text: str, interactive: bool, factory: Any = None) -> tuple[str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        run_console(interactive, factory)
        written = capsys.readouterr()
        return written.out, written.err

    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.delattr(sys, "__interactivehook__", raising=False)
    monkeypatch.delenv("PYTHONSTARTUP", raising=False)
    monkeypatch.setattr(builtins, "_", None, raising=False)
    for name in ("ps1", "ps2"):
        monkeypatch.setattr(sys, name, PROMPT, raising=False)
    last = {name: value for name, value in vars(sys).items() if name.startswith("last_")}
    yield run_text
    for name in [name for name in vars(sys) if name.startswith("last_")]:
        delattr(sys, name)
    vars(sys).update(last)
    gc.collect()


SESSION = """\
import asyncio, contextvars
variable = contextvars.ContextVar("variable")
async def change(): variable.set("by a function")

await change(); variable.set("by an input")
print(variable.get())
variable.set("by a plain input")
print(await asyncio.sleep(0, variable.get()))
async def fail(): raise KeyError("of the input")

await fail()
async with nurseryio.open_nursery() as inner:
    inner.start_soon(fail)

async def fail_behind(): raise KeyError("in the background")

nursery.start_soon(fail_behind)
for _ in range(20): await nurseryio.lowlevel.checkpoint()

print(asyncio.get_running_loop().is_running())
nurseryio.run(fail)
1 +
print("the end")
"""


def test_the_console_runs_its_inputs_one_by_one_and_shows_their_errors(run: Run) -> None:
    output, errors = run(SESSION, True)
    values = [line.rpartition(PROMPT)[2] for line in output.splitlines()]
    wanted = ["by an input", "by a plain input", "True", "the end"]
    assert [value for value in values if value in wanted] == wanted
    assert errors.startswith("nurseryio ")
    assert "KeyError: 'of the input'" in errors
    assert "fail_behind in the background has failed:\n" in errors
    assert "KeyError: 'in the background'" in errors
    assert "RuntimeError: Attempted to call run() from inside a run()" in errors
    assert "SyntaxError" in errors


def test_tracebacks_of_the_console_begin_in_the_input_or_in_the_background_function(
    run: Run,
) -> None:
    text = "async def fail(): raise KeyError\n\nawait fail()\nnursery.start_soon(fail)\n"
    more = "for _ in range(20): await nurseryio.lowlevel.checkpoint()\n\n1 / 0\n"
    _, errors = run(text + more, True)
    assert "nurseryio/" not in errors
    assert errors.count("Traceback (most recent call last):") == 3


def test_an_exit_in_the_background_is_shown_and_the_console_opens_another_nursery(
    run: Run,
) -> None:
    text = """\
import sys, nurseryio.testing
async def leave(): sys.exit(4)

async def work(): print("works", "again")

nursery.start_soon(leave)
await nurseryio.testing.wait_all_tasks_blocked()
nursery.start_soon(work)
await nurseryio.testing.wait_all_tasks_blocked()
"""
    output, errors = run(text, True)
    assert "works again\n" in output
    _, _, shown = errors.partition("The background tasks were cancelled, because one has ended so:")
    assert shown.startswith(
        '\nTraceback (most recent call last):\n  File "<console>", line 1, in leave\n'
    )
    assert shown.rstrip().endswith("SystemExit: 4")
    assert shown.count("Traceback") == 1


def test_the_console_opens_another_nursery_after_the_background_tasks_were_cancelled(
    run: Run,
) -> None:
    text = """\
import nurseryio.testing
async def work(): print("works", "again")

nursery.cancel_scope.cancel()
nursery.start_soon(work)
await nurseryio.testing.wait_all_tasks_blocked()
nursery.cancel_scope.cancel(); nursery = "the input's own"
nursery
"""
    output, errors = run(text, True)
    assert "works again\n" in output
    assert "the input's own" in output
    assert "Traceback" not in errors


@pytest.mark.parametrize("last", ["1 + 1", "await nurseryio.sleep(0)"])
def test_the_end_of_the_loop_ends_the_console(
    run: Run, last: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts: list[Host] = []
    lines = iter(["import asyncio", "asyncio.get_running_loop().stop()", last, "print(7)"])

    def make(*args: Any) -> Host:
        hosts.append(Host(*args))
        return hosts[0]

    def read(_prompt: str) -> str:
        line = next(lines)
        if line == last:
            assert hosts[0].over.wait(30)
        return line

    monkeypatch.setattr("nurseryio._portal.console.Host", make)
    monkeypatch.setattr(builtins, "input", read)
    with pytest.raises(RuntimeError, match="Event loop stopped"):
        run("", True)
    written = capsys.readouterr()
    assert "The event loop has ended. So the console ends.\n" in written.err
    assert next(lines) == "print(7)"


def test_an_input_of_the_console_without_await_does_not_wait_for_a_loop_that_ends_meanwhile(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts: list[Host] = []
    patch = pytest.MonkeyPatch()

    def make(*args: Any) -> Host:
        hosts.append(Host(*args))
        return hosts[0]

    def end(*_request: Any) -> None:
        patch.undo()
        hosts[0].close(cancel=True)

    def read(_prompt: str) -> str:
        patch.setattr(type(hosts[0].token), "run_sync_soon", end)
        return "1 + 1"

    monkeypatch.setattr("nurseryio._portal.console.Host", make)
    monkeypatch.setattr(builtins, "input", read)
    with pytest.raises(SystemExit) as caught:
        run("", True)
    assert caught.value.code == 1
    patch.undo()
    errors = capsys.readouterr().err
    assert "RunFinishedError: the event loop ended before it could make this call" in errors


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_inputs_of_the_console_after_a_fork_run_in_the_child_without_the_loop(
    run: Run,
) -> None:
    text = """\
import os
child = os.fork()
if child == 0: os._exit(3 + 4)

print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert "status 7\n" in run(text, True)[0]


def test_a_console_whose_standard_streams_are_closed_ends_quietly(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for interactive in (True, False):
        monkeypatch.setattr(sys, "stdin", None)
        run_console(interactive, None)
    monkeypatch.setattr(sys, "stderr", None)
    with pytest.raises(SystemExit) as caught:
        run("1 / 0\n", False)
    assert caught.value.code == 1


def debug_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_debug(True)
    return loop


def test_inputs_of_the_console_without_await_may_use_the_loop_in_each_kind_of_loop(
    run: Run,
) -> None:
    factories: list[Any] = [None, debug_loop]
    if "uvloop" in matrix.KINDS:
        factories.append(importlib.import_module("uvloop").new_event_loop)
    text = "async def work(): print('ran')\n\nnursery.start_soon(work)\n1 / 0\n"
    more = "for _ in range(20): await nurseryio.lowlevel.checkpoint()\n\n"
    for factory in factories:
        output, errors = run(text + more, True, factory)
        assert "ran\n" in output
        assert "ZeroDivisionError" in errors


def test_the_console_runs_the_file_of_pythonstartup(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    startup = tmp_path / "startup.py"
    monkeypatch.setenv("PYTHONSTARTUP", str(startup))
    startup.write_text("started = 'at the ' + 'start'", encoding="utf-8")
    assert "at the start" in run("print(started)\n", True)[0]
    startup.write_text("raise KeyError('in the file')", encoding="utf-8")
    output, errors = run("print(3 + 4)\n", True)
    assert "7" in output
    assert "KeyError: 'in the file'" in errors


def test_a_program_in_a_pipe_may_declare_its_encoding(run: Run, monkeypatch: Any) -> None:
    program = '# -*- coding: latin-1 -*-\nprint("\xe9")\n'.encode("latin-1")
    monkeypatch.setattr(io, "StringIO", lambda _text: io.TextIOWrapper(io.BytesIO(program)))
    assert run("", False) == ("\xe9\n", "")


PROGRAM = """\
import nurseryio
async with nurseryio.open_nursery() as inner:
    inner.start_soon(nurseryio.sleep, 0)
print("the end of", __name__)
"""


def test_a_program_in_a_pipe_is_run_as_a_whole_with_await_and_without_prompts(run: Run) -> None:
    assert run(PROGRAM, False) == ("the end of __main__\n", "")


@pytest.mark.parametrize("text", ["async def fail():\n    1 / 0\nawait fail()\n", "1 +"])
def test_an_error_ends_a_program_in_a_pipe_with_status_1(
    run: Run, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run(text + PROGRAM, False)
    assert caught.value.code == 1
    output, errors = capsys.readouterr()
    assert output == ""
    assert "Error" in errors
    assert "nurseryio/" not in errors


def test_sys_exit_in_a_program_in_a_pipe_has_its_status(run: Run) -> None:
    text = "import sys\nasync def leave():\n    sys.exit(7)\nawait leave()\n"
    with pytest.raises(SystemExit) as caught:
        run(text, False)
    assert caught.value.code == 7


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to one thread")
def test_ctrl_c_ends_a_program_in_a_pipe_after_its_cleanup(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    text = """\
import nurseryio, signal, threading
try:
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    await nurseryio.sleep_forever()
finally:
    print("cleaned up")
"""
    with pytest.raises(KeyboardInterrupt):
        run(text, False)
    assert capsys.readouterr().out == "cleaned up\n"
