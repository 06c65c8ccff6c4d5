"""The console of ``python -m nurseryio``: in a terminal, and with its input from a pipe."""

# Covered below 95 %: the console runs in processes of its own.

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import matrix, source

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


@pytest.fixture(params=KINDS)
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A console in a terminal that waits for its first input."""
    more = {"PYTHON_BASIC_REPL": "1"} if request.param == "lines" else {}
    with open_terminal(tmp_path, **more) as opened:
        opened.wait_for(">>> import nurseryio")
        opened.wait_for(PROMPT)
        yield opened


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
def test_the_console_has_await_at_its_top_level_and_ends_by_exit(terminal: Any) -> None:
    from harness.terminal import CTRL_C, TAB

    assert "\n7\n" in enter(terminal, "await nurseryio.sleep(0, ) or 3 + 4")
    assert "\n8\n" in enter(terminal, "_ + 1")
    # Completion.
    terminal.press("nurseryio.open_nurs" + TAB)
    terminal.wait_for("nurseryio.open_nursery")
    terminal.press_until(CTRL_C, "KeyboardInterrupt\n")
    terminal.wait_for(PROMPT)
    terminal.enter("exit(3)")
    assert terminal.wait() == 3


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
    terminal.press(CTRL_C)
    terminal.wait_for("cleaned up\n")
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
    terminal.press(CTRL_C)
    terminal.wait_for("cleaning\n")
    terminal.press(CTRL_C)
    terminal.wait_for("\nKeyboardInterrupt: the input has not ended yet.")
    terminal.wait_for(PROMPT)
    # Its error is shown nevertheless.
    terminal.enter("event.set()")
    terminal.wait_for("KeyError: 'late'")
    terminal.enter("exit()")
    assert terminal.wait() == 0


@needs_terminal
def test_ctrl_c_interrupts_an_input_of_the_console_that_blocks(terminal: Any) -> None:
    from harness.terminal import CTRL_C

    enter(terminal, "import time")
    terminal.enter("print('blo' + 'cks'); time.sleep(1000)")
    terminal.wait_for("blocks\n")
    terminal.press(CTRL_C)
    terminal.wait_for("\nKeyboardInterrupt\n")
    terminal.wait_for(PROMPT)
    assert "\n7\n" in enter(terminal, "3 + 4")


@needs_terminal
def test_background_tasks_of_the_console_go_on_while_it_waits_for_input(terminal: Any) -> None:
    from harness.terminal import CTRL_C, CTRL_D

    define(
        terminal,
        "async def work():",
        " try:",
        "  await nurseryio.sleep(0.2)",
        "  print('still' + ' running')",
        "  await nurseryio.sleep_forever()",
        " finally:",
        "  print('cleaned' + ' up')",
    )
    terminal.enter("nursery.start_soon(work)")
    # No input is needed for this. Ctrl-C at the prompt does not reach the task.
    terminal.wait_for("still running")
    terminal.press_until(CTRL_C, "KeyboardInterrupt\n")
    terminal.wait_for(PROMPT)
    assert "work" in enter(terminal, "from nurseryio.instruments import task_tree; task_tree()")
    terminal.press(CTRL_D)
    terminal.wait_for("cleaned up")
    assert terminal.wait() == 0


@needs_terminal
def test_the_console_has_the_history_of_pythons_console(tmp_path: Path) -> None:
    previous = "\x10"  # Ctrl-P
    for _ in range(2):
        with open_terminal(tmp_path) as terminal:
            terminal.wait_for(">>> import nurseryio")
            terminal.wait_for(PROMPT)
            if _ == 0:
                assert "\n7\n" in enter(terminal, "3 + 4")
            else:
                terminal.press(previous + previous)
                terminal.wait_for("3 + 4")
                terminal.enter("")
                terminal.wait_for("\n7\n")
                terminal.wait_for(PROMPT)
            terminal.enter("exit()")
            assert terminal.wait() == 0


# -- from a pipe --------------------------------------------------------------------


def run(
    folder: Path, text: str, *arguments: str, code: int = 0, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the command with a text as its input, and check how it ends."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "nurseryio", *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env=environment(folder, **more),
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


SESSION = """\
import asyncio, contextvars, trio
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
await trio.sleep(0.01)
print(asyncio.get_running_loop().is_running())
nurseryio.run(fail)
1 +
raise SystemExit(5)
"""


def test_the_console_runs_the_inputs_of_a_pipe_one_by_one_with_option_i(tmp_path: Path) -> None:
    done = run(tmp_path, SESSION, "-i", code=5)
    shown = done.stdout.replace(PROMPT, "").replace("... ", "").splitlines()
    values = [line for line in shown if line and not line.startswith("<Token")]
    assert values == ["by an input", "by a plain input", "True"]
    errors = done.stderr
    assert errors.startswith("nurseryio ")
    assert "KeyError: 'of the input'" in errors
    assert "fail_behind in the background has failed:\n" in errors
    assert "KeyError: 'in the background'" in errors
    assert "RuntimeError: Attempted to call run() from inside a run()" in errors
    assert "SyntaxError" in errors


def test_tracebacks_of_the_console_begin_in_the_input_or_in_the_background_function(
    tmp_path: Path,
) -> None:
    text = "async def fail(): raise KeyError\n\nawait fail()\nnursery.start_soon(fail)\n"
    done = run(tmp_path, text + "await nurseryio.sleep(0.01)\n1 / 0\n", "-i")
    assert "nurseryio/" not in done.stderr
    assert done.stderr.count("Traceback (most recent call last):") == 3


def test_the_console_works_in_asyncios_debug_mode(tmp_path: Path) -> None:
    text = (
        "async def work(): print('ran')\n\nnursery.start_soon(work)\nawait nurseryio.sleep(0.01)\n"
    )
    done = run(tmp_path, text, "-i", PYTHONASYNCIODEBUG="1")
    assert "ran" in done.stdout


@pytest.mark.skipif("uvloop" not in matrix.KINDS, reason="uvloop is not installed")
def test_the_console_runs_on_uvloop_if_asked_for(tmp_path: Path) -> None:
    text = "import asyncio\nprint(type(asyncio.get_running_loop()))\n"
    assert "uvloop" in run(tmp_path, text, "--loop", "uvloop", "-i").stdout


def test_the_console_runs_the_file_of_pythonstartup(tmp_path: Path) -> None:
    startup = tmp_path / "startup.py"
    startup.write_text("started = 'at the start'", encoding="utf-8")
    text = "print(started)\n"
    done = run(tmp_path, text, "-i", PYTHONSTARTUP=str(startup))
    assert "at the start" in done.stdout
    startup.write_text("raise KeyError('in the file')", encoding="utf-8")
    done = run(tmp_path, "print(3 + 4)\n", "-i", PYTHONSTARTUP=str(startup))
    assert "KeyError: 'in the file'" in done.stderr
    assert "7" in done.stdout


PROGRAM = """\
import nurseryio
await nurseryio.sleep(0)
async with nurseryio.open_nursery() as inner:
    inner.start_soon(nurseryio.sleep, 0)
print("the end of", __name__)
"""


def test_a_program_in_a_pipe_is_run_as_a_whole_with_await_and_without_prompts(
    tmp_path: Path,
) -> None:
    done = run(tmp_path, PROGRAM)
    assert (done.stdout, done.stderr) == ("the end of __main__\n", "")


def test_an_error_ends_a_program_in_a_pipe_with_status_1(tmp_path: Path) -> None:
    done = run(tmp_path, f"async def fail():\n    1 / 0\nawait fail()\n{PROGRAM}", code=1)
    assert done.stdout == ""
    assert "ZeroDivisionError" in done.stderr
    assert "nurseryio/" not in done.stderr
    assert "SyntaxError" in run(tmp_path, "1 +", code=1).stderr


def test_sys_exit_in_a_program_in_a_pipe_has_its_status(tmp_path: Path) -> None:
    text = "import sys\nasync def leave():\n    sys.exit(7)\nawait leave()\n"
    assert run(tmp_path, text, code=7).stderr == ""
