"""Every example runs alone and prints what it promises, on the stock loop and on uvloop.

The echo client and server, which need each other, have ``test_tutorial_echo.py``.
"""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest
from harness import programs
from harness.programs import EXAMPLES, LOOPS, assert_same_but_for_order_inside_ticks

TUTORIAL = EXAMPLES / "tutorial"

TASKS_INTRO = """\
parent: opening a nursery
parent: starting child1
parent: starting child2
parent: at the end of the block, where it waits for both

  child1: here, going to sleep
  child2: here, going to sleep

  child1: awake, and done
  child2: awake, and done

parent: both are gone
"""

FLOW_CONTROL = """\
one task: sending 10000000 bytes, and then receiving

one task: deadlock, still sending when the time was up

echo: the client has gone in the middle of it all
two tasks: sending 10000000 bytes, and receiving meanwhile

two tasks: everything has come back
"""

# From after the counting, the length of which depends on the machine.
TIMEOUTS = """\
move_on_after: out of time is True

Cancelled is an exception: cancelled due to deadline

and it comes again at the next await

unless that stands in a shield, for a cleanup that has to wait

and it ends where its scope ends

  failing: raising ValueError('no such value')

  patient: cancelled, since a sibling has failed

a group, even around one error:

  ExceptionGroup: Exceptions from nurseryio nursery (1 sub-exception)

    ValueError: no such value

  failing: raising ValueError('no such value')
  failing: raising KeyError('no such key')
  failing: raising KeyError('nor that one')

  patient: cancelled, since a sibling has failed

groups in groups, as the nurseries were:

  ExceptionGroup: Exceptions from nurseryio nursery (3 sub-exceptions)

    KeyError: 'no such key'
    KeyError: 'nor that one'
    ExceptionGroup: Exceptions from nurseryio nursery (1 sub-exception)
      ValueError: no such value

  failing: raising ValueError('no such value')
  failing: raising KeyError('no such key')
  failing: raising KeyError('nor that one')

  patient: cancelled, since a sibling has failed

handled: 2 KeyErrors

left over, and handled outside: (ExceptionGroup('Exceptions from nurseryio nursery', \
[ValueError('no such value')]),)
"""

INTERRUPTED = """
pressing Ctrl-C

  patient: cancelled, since a sibling has failed

KeyboardInterrupt came out of run(), bare, when all tasks had ended
"""

MISSING_AWAIT = r"""going to sleep for 3 seconds
slept for 0\.\d seconds
TypeError: unsupported operand type\(s\) for \+: 'coroutine' and 'int'
with await it is 7
TypeError: .* instead it got a coroutine object .*
"""

BLOCKING_CALL = """\
  child1: going to sleep
  child2: going to sleep

  child1: awake
  child2: awake

polite children: both awake after N nap(s)

  child1: going to sleep

  child1: awake

  child2: going to sleep

  child2: awake

rude children: both awake after N nap(s)

  child1: going to sleep
  child2: going to sleep

  child1: awake
  child2: awake

polite children: both awake after N nap(s)

  child1: going to sleep

  child1: awake

slow step: rude child1 ran for more than 0.2 seconds without an await

  child2: going to sleep

  child2: awake

slow step: rude child2 ran for more than 0.2 seconds without an await

rude children: both awake after N nap(s)
"""


# -- what each program prints ---------------------------------------------------


def check_tasks_intro(lines: list[str]) -> None:
    assert_same_but_for_order_inside_ticks(lines, TASKS_INTRO)


def check_tasks_with_trace(lines: list[str]) -> None:
    of_the_tracer = [line for line in lines if line.startswith(("!!!", "###", ">>>", "<<<"))]
    check_tasks_intro([line for line in lines if line not in of_the_tracer])
    assert (lines[0], lines[-1]) == ("!!! run started", "!!! run finished")
    for child in ("tasks_intro.child1", "tasks_intro.child2"):
        assert [line for line in of_the_tracer if line.endswith(child)] == [
            f"### new task spawned: {child}",
            f"### task scheduled: {child}",
            f">>> about to run one step of task: {child}",
            f"<<< task step finished: {child}",
            f"### task scheduled: {child}",
            f">>> about to run one step of task: {child}",
            f"### task exited: {child}",
            f"<<< task step finished: {child}",
        ]


def check_flow_control(lines: list[str]) -> None:
    assert_same_but_for_order_inside_ticks(lines, FLOW_CONTROL)


def check_timeouts(lines: list[str], *, expected: str = TIMEOUTS) -> None:
    counted, after = split_at("move_on_after: out of time is True", lines)
    assert_same_but_for_order_inside_ticks(after, expected)
    alone, together = split_at("fail_after: too slow", counted)
    assert alone[0] == "  count: 1"
    assert len(alone) <= 3
    assert sorted(together[1:3]) == ["  left: 1", "  right: 1"]
    assert len(together[1:]) <= 6


def check_timeouts_alone(lines: list[str]) -> None:
    check_timeouts(lines, expected=TIMEOUTS + INTERRUPTED)


def check_missing_await(lines: list[str]) -> None:
    assert re.fullmatch(MISSING_AWAIT, "".join(f"{line}\n" for line in lines)), lines


def check_blocking_call(lines: list[str]) -> None:
    naps = [int(number) for line in lines for number in re.findall(r"(\d+) nap\(s\)", line)]
    assert min(naps[0], naps[2]) >= 1
    assert min(naps[1], naps[3]) >= 2
    text = [re.sub(r"\d+ nap", "N nap", line) for line in lines]
    assert_same_but_for_order_inside_ticks(text, BLOCKING_CALL)


def split_at(text: str, lines: list[str]) -> tuple[list[str], list[str]]:
    """The lines before the one that is this text, and the rest."""
    place = lines.index(text)
    return lines[:place], lines[place:]


ALONE = {
    "tasks_intro": check_tasks_intro,
    "tasks_with_trace": check_tasks_with_trace,
    "flow_control": check_flow_control,
    "timeouts": check_timeouts_alone,
    "missing_await": check_missing_await,
    "blocking_call": check_blocking_call,
}

# Tested elsewhere, or parts of others.
OTHERS = {"echo_client", "echo_server", "groups_with_star", "groups_with_catch"}


def test_each_program_of_the_tutorial_is_run() -> None:
    assert {path.stem for path in TUTORIAL.glob("*.py")} == ALONE.keys() | OTHERS
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "demo.py",
        "graceful_server.py",  # see test_graceful_server
        "inside_asyncio.py",
    }


FORGOTTEN = "RuntimeWarning: coroutine 'sleep' was never awaited\n"


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("name", ALONE)
def test_a_program_of_the_tutorial_runs_alone(name: str, loop: str) -> None:
    forgets = name == "missing_await"
    program = programs.run(
        TUTORIAL / f"{name}.py", loop=loop, warnings="always" if forgets else "error"
    )
    assert program.returncode == 0, program.errors
    assert (FORGOTTEN in program.errors) if forgets else not program.errors
    ALONE[name](program.lines)


# -- inside asyncio -------------------------------------------------------------


@pytest.fixture(scope="module", params=LOOPS)
def parts(request: pytest.FixtureRequest) -> dict[str, list[str]]:
    """The output of examples/inside_asyncio.py, by its headings, and "tick" for the ticks."""
    program = programs.run(EXAMPLES / "inside_asyncio.py", loop=request.param, warnings="always")
    assert program.returncode == 0, program.errors
    assert program.errors.count("Warning: coroutine") == program.errors.count(FORGOTTEN) == 1
    parts: dict[str, list[str]] = {"tick": []}
    for line in program.lines:
        if line.startswith("--- "):
            heading = line[4:]
            parts[heading] = []
        else:
            ticked = line == "asyncio task: still at work"
            parts["tick" if ticked else heading].append(line)
    return parts


@pytest.mark.parametrize(
    ("heading", "check"),
    [
        ("tasks_intro.parent", check_tasks_intro),
        ("flow_control.main", check_flow_control),
        ("timeouts.main", check_timeouts),
        ("missing_await.main", check_missing_await),
        ("blocking_call.main", check_blocking_call),
    ],
)
def test_a_program_prints_the_same_inside_asyncio(
    parts: dict[str, list[str]], heading: str, check: object
) -> None:
    assert callable(check)
    check(parts[heading])


def test_an_instrument_sees_the_tasks_of_asyncio_and_of_nurseries(
    parts: dict[str, list[str]],
) -> None:
    lines = parts["__main__.tasks_with_trace"]
    assert "### new task spawned: tasks_intro.child1" in lines
    assert "### task exited: tasks_intro.child2" in lines
    # The main task, and the one that ticks.
    assert {"### task scheduled: Task-1", "### task scheduled: Task-2"} <= set(lines)
    check_tasks_intro([line for line in lines if not line.startswith("###")])


def test_sys_exit_in_the_client_raises_system_exit_bare_in_the_asyncio_application(
    parts: dict[str, list[str]],
) -> None:
    lines = parts["__main__.echo_client_and_server"]
    message = "b'concurrency is easier with fewer surprises'"
    assert f"receiver: received {message}" in lines
    assert "echo_server 0: received 42 bytes, sending them back" in lines
    ends = ["receiver: connection closed", "the echo server has ended"]
    assert sorted(lines[-3:-1]) == ends
    assert lines[-1] == "the echo client has called sys.exit()"


def test_an_asyncio_task_runs_beside_nurseryio_all_the_time(parts: dict[str, list[str]]) -> None:
    assert len(parts["tick"]) >= 5
    assert "tasks left: 0" in parts


# -- the demonstration ----------------------------------------------------------

WITH_TASK_GROUP = "asyncio jobs: the TaskGroup is complete"
WITHOUT = "asyncio jobs: this Python has no asyncio.TaskGroup, so asyncio.gather runs them"

DEMO = {
    "server: listening",
    "client 1: 3 messages sent and received",
    "client 2: 5 messages sent and received",
    "client 3: stopped by its timeout: True",
    "client 4: stopped by its scope: True",
    "asyncio job 1: done",
    "asyncio job 2: done",
    "asyncio job 3: done",
    WITH_TASK_GROUP if sys.version_info >= (3, 11) else WITHOUT,
    "all clients and jobs have ended; one more client, and the server shuts down",
    f"server: gone; its connections were {'left by its client, ' * 4}cancelled",
    "server: its port is free",
    "asyncio heartbeat",
    "tasks left: 0",
}


def test_the_demonstration_shows_everything_on_both_loops() -> None:
    program = programs.run(EXAMPLES / "demo.py")
    assert (program.returncode, program.errors) == (0, "")
    lines = [re.sub(r"^ *\d+\.\d\d s  ", "", line) for line in program.lines]
    lines = [re.sub(r"(?<=^asyncio heartbeat).*", "", line) for line in lines]
    assert lines.pop(0) == "On asyncio's own event loop"
    if importlib.util.find_spec("uvloop"):
        stock, uvloop = split_at("On uvloop", lines)
        assert set(uvloop[1:]) == DEMO
    else:
        stock = lines[:-1]
        assert lines[-1].startswith("uvloop is not installed")
    assert set(stock) == DEMO
