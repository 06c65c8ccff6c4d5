"""Programs written for Trio run with one changed line, and print what they print on Trio.

The programs are in ``trio_programs/``, where beside each stands what Trio 0.35 printed, its ticks
apart by empty lines. Inside a tick Trio chooses the order by chance. Of the trace it is what
``of_own_tasks`` leaves.
"""

from __future__ import annotations

import re
import signal

import pytest
from harness import net, programs, source

PROGRAMS = source.ROOT / "tests/trio_programs"


def trio_printed(name: str) -> str:
    return (PROGRAMS / f"{name}.txt").read_text(encoding="utf-8")


def test_trio_programs_differ_from_the_originals_in_the_import_only() -> None:
    for path in PROGRAMS.glob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        naming_us = [line for line in lines if "nurseryio" in line]
        assert naming_us == ["import nurseryio as trio"], path


@pytest.mark.parametrize("loop", programs.LOOPS)
@pytest.mark.parametrize("name", ["async_double", "tasks_intro"])
def test_a_trio_program_prints_what_it_prints_on_trio(name: str, loop: str) -> None:
    program = programs.run(PROGRAMS / f"{name}.py", loop=loop)
    assert (program.returncode, program.errors) == (0, "")
    programs.assert_same_but_for_order_inside_ticks(program.lines, trio_printed(name))


def of_own_tasks(lines: list[str]) -> list[str]:
    """The trace of the program's own tasks, and the output of these tasks.

    Left out: I/O, system tasks, and steps in which a task only yields first; how often these come
    is a matter of the scheduler.
    """
    text = "".join(f"{line}\n" for line in lines)
    text = re.sub(r"^### [^:\n]* I/O.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^[#<>]{3} [^:\n]*: <.*>\n", "", text, flags=re.MULTILINE)
    silent = r">>> begins a step: (\S+)\n<<< has made a step: \1\n"
    for task in re.findall(silent, text):
        text = re.sub(silent, "", text)
        # It was scheduled for that at the end of the step before.
        text = re.sub(rf"### scheduled: {task}\n(?=<<< has made a step: {task}\n)", "", text)
    return text.splitlines()


def test_an_instrument_of_a_trio_program_sees_what_it_sees_on_trio() -> None:
    program = programs.run(PROGRAMS / "tasks_with_trace.py")
    assert (program.returncode, program.errors) == (0, "")
    programs.assert_same_but_for_order_inside_ticks(
        of_own_tasks(program.lines), trio_printed("tasks_with_trace")
    )
    limits = re.findall("### waits for I/O, (.*) seconds at most", "\n".join(program.lines))
    assert 0.9 < max(map(float, limits)) <= 1


@pytest.mark.parametrize("loop", programs.LOOPS)
def test_the_trio_echo_programs_print_what_they_print_on_trio(loop: str) -> None:
    port = net.free_port()
    message = "b'be kind to your event loop'"
    with programs.started(PROGRAMS / "echo_server.py", port, loop=loop) as server:
        with programs.connect(port) as probe:
            server.read_until("0: has started")
            probe.close()
            server.read_until("0: the connection is closed")
        with programs.started(PROGRAMS / "echo_client.py", port, loop=loop) as client:
            client.read_until(f"receiver: got {message}")
            client.read_until(f"receiver: got {message}")
            server.interrupt()
            client.end()
        server.end()
    client_lines = [line.replace(str(port), "PORT") for line in client.lines]
    # On a slow machine there may be time for more than two messages before the server ends.
    sends, got = f"sender: sends {message}", f"receiver: got {message}"
    end = client_lines.pop()
    while client_lines.count(sends) > 2:
        del client_lines[-2 if client_lines[-1] == got else -1 :]
    client_lines.append(end)
    programs.assert_same_but_for_order_inside_ticks(client_lines, trio_printed("echo_client"))
    assert server.lines[2:5] == trio_printed("echo_server").splitlines()
    # Here nurseryio does better than Trio 0.35: sys.exit() and Ctrl-C keep their meaning.
    assert (client.returncode, client.errors) == (0, "")
    assert server.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    assert "\nKeyboardInterrupt\n" in server.errors  # the tasks follow as a note
