"""The tracer: the hooks that it shows, its outputs, and the arguments that it refuses."""

from __future__ import annotations

import asyncio
import logging
import re
import sys

import pytest

import nurseryio
from nurseryio.instruments import Tracer
from nurseryio.lowlevel import add_instrument, remove_instrument

STEPS = ["task_scheduled", "before_task_step", "after_task_step"]


async def child() -> None:
    await nurseryio.sleep(0)


async def parent() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, name="the child")


def about(name: str, lines: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in lines if line.endswith(f": {name}")]


LIFE_OF_THE_CHILD = [
    "### new task spawned",
    "### task scheduled",
    ">>> about to run one step of task",
    "### task scheduled",
    "<<< task step finished",
    ">>> about to run one step of task",
    "### task exited",
    "<<< task step finished",
]


def test_tracer_shows_a_run_from_its_first_hook_to_its_last() -> None:
    lines: list[str] = []
    nurseryio.run(parent, instruments=[Tracer(lines.append)])
    assert (lines[0], lines[-1]) == ("!!! run started", "!!! run finished")
    assert about("the child", lines) == LIFE_OF_THE_CHILD


def test_tracer_shows_io_waits_with_their_timeout_and_their_length() -> None:
    lines: list[str] = []
    nurseryio.run(nurseryio.sleep, 0.05, instruments=[Tracer(lines.append)])
    text = "\n".join(lines)
    number = r"[\d.e+-]+"
    assert re.search(f"^### waiting for I/O for up to {number} seconds$", text, re.MULTILINE)
    assert "### doing a quick check for I/O\n### finished I/O check (took " in text
    durations = re.findall(rf"^### finished I/O check \(took ({number}) seconds\)$", text, re.M)
    assert sum(map(float, durations)) >= 0.005


def test_tracer_shows_an_io_wait_without_timeout() -> None:
    shown: list[str] = []

    async def main() -> None:
        done = asyncio.Event()
        wake = asyncio.get_running_loop().call_soon_threadsafe

        def note(line: str) -> None:
            shown.append(line)
            if "up to" in line:
                wake(done.set)

        tracer = Tracer(note, hooks=["before_io_wait"])
        add_instrument(tracer)
        await done.wait()
        remove_instrument(tracer)

    asyncio.run(main())
    assert "### waiting for I/O for up to 86400.0 seconds" in shown


async def test_tracer_can_be_added_to_a_running_loop_and_removed() -> None:
    lines: list[str] = []
    tracer = Tracer(lines.append)
    add_instrument(tracer)
    await parent()
    remove_instrument(tracer)
    before = list(lines)
    await parent()
    assert lines == before
    assert about("the child", lines)[0] == "### new task spawned"
    assert about("the child", lines)[-2:] == ["### task exited", "<<< task step finished"]
    assert not any(line.startswith("!!!") for line in lines)


@pytest.mark.stock_only("an eager task factory runs steps that nobody can see")
async def test_tracer_shows_asyncio_tasks_as_well() -> None:
    lines: list[str] = []
    tracer = Tracer(lines.append, hooks=["task_spawned", "task_exited"])
    add_instrument(tracer)
    native = asyncio.create_task(asyncio.sleep(0), name="native")
    await native
    remove_instrument(tracer)
    assert lines[-1] == "### task exited: native"
    assert [line.partition(":")[0] for line in lines] == ["### new task spawned", "### task exited"]
    if sys.version_info >= (3, 13):
        # Before, asyncio names a task only after it has scheduled its first step.
        assert lines[0] == "### new task spawned: native"


def test_tracer_shows_only_the_hooks_that_are_asked_for() -> None:
    lines: list[str] = []
    hooks = ["task_spawned", "task_exited"]
    nurseryio.run(parent, instruments=[Tracer(lines.append, hooks=hooks)])
    shown = {line.partition(":")[0] for line in lines}
    assert shown == {"### new task spawned", "### task exited"}


def test_tracer_installs_no_hook_that_it_does_not_show() -> None:
    from nurseryio._base.instruments import Instruments

    installed = Instruments([Tracer(hooks=["task_spawned"])])
    assert "task_spawned" in installed
    assert not [hook for hook in STEPS if hook in installed]


def test_tracer_prints_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    nurseryio.run(parent, instruments=[Tracer()])
    printed = capsys.readouterr().out.splitlines()
    assert about("the child", printed) == LIFE_OF_THE_CHILD


def test_tracer_logs_to_a_logger_at_level_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="trace")
    nurseryio.run(parent, instruments=[Tracer(logging.getLogger("trace"))])
    records = [record for record in caplog.records if record.name == "trace"]
    assert {record.levelname for record in records} == {"DEBUG"}
    assert about("the child", [record.getMessage() for record in records]) == LIFE_OF_THE_CHILD


def test_tracer_takes_a_method_of_the_logger_for_another_level(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="trace")
    tracer = Tracer(logging.getLogger("trace").info, hooks=["before_run"])
    nurseryio.run(parent, instruments=[tracer])
    assert [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "trace"] == [
        ("INFO", "!!! run started")
    ]


def test_tracer_logs_a_name_with_a_percent_sign_unchanged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child, name="100 %s")

    caplog.set_level(logging.DEBUG, logger="trace")
    tracer = Tracer(logging.getLogger("trace"), hooks=["task_exited"])
    nurseryio.run(main, instruments=[tracer])
    assert "### task exited: 100 %s" in caplog.messages


def test_tracer_refuses_an_output_that_cannot_take_lines() -> None:
    with pytest.raises(TypeError, match=r"takes a line, or a logger, not 'trace.log'"):
        Tracer("trace.log")  # type: ignore[arg-type]


def test_tracer_refuses_unknown_hooks_with_the_list_of_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no such hook: task_died; the hooks .* task_exited"):
        Tracer(hooks=["task_spawned", "task_died"])
    with pytest.raises(TypeError, match="list of names of hooks, not the string 'task_exited'"):
        Tracer(hooks="task_exited")


def test_repr_of_a_tracer_shows_its_output() -> None:
    assert repr(Tracer(len)).endswith(f", writing by {len!r}>")
