"""The commands ``tree``, ``top`` and ``trace``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import source

from nurseryio._interop import cli, commands
from nurseryio.instruments import serve_monitor
from nurseryio.lowlevel import current_task

PROGRAM = """
import sys
import nurseryio
async def main():
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(nurseryio.sleep, 0.01, name="a child")
    print("arguments", *sys.argv[1:])
nurseryio.run(main)
"""


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nurseryio", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(source.ROOT)},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


def ends_with(status: int, *arguments: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == status


# -- tree and top ---------------------------------------------------------------------


async def test_tree_prints_the_task_trees_as_text_and_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    current_task()  # the loop uses nurseryio
    with serve_monitor(tmp_path / "m") as monitor:
        cli.main(["tree", "--socket", monitor.path])
        assert f"process {os.getpid()}: 1 running loop" in capsys.readouterr().out
        cli.main(["tree", "--socket", monitor.path, "--json"])
        data = json.loads(capsys.readouterr().out)
    assert data["pid"] == os.getpid()
    assert data["loops"][0]["tasks"]


async def test_top_prints_a_table_of_the_tasks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    current_task()
    with serve_monitor(tmp_path / "m") as monitor:
        options = ["--socket", monitor.path, "--once", "--seconds", "0.01"]
        cli.main(["top", *options])
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"process {os.getpid()}: ")
        assert lines[1].split() == ["RUNNING", "WAITING", "TASK"]
        assert "100.0%" in lines[2]
        cli.main(["top", *options, "--json", "--sort", "waiting"])
        rows = json.loads(capsys.readouterr().out)["tasks"]
    assert {"running", "waiting", "text", "name"} <= rows[0].keys()


def test_top_adds_up_how_long_a_task_waits_at_one_line() -> None:
    waits = commands._Waits()
    task = {"id": 1, "name": "t", "place": "a:1", "running": 0.0, "waited": 0.0}

    def note(task: dict[str, Any], now: float) -> float:
        waiting: float = waits.note([{"tasks": [task]}], now)[0]["waiting"]
        return waiting

    assert [note(task, now) for now in (0.0, 2.0, 5.0)] == [0.0, 2.0, 5.0]
    assert note({**task, "running": 0.5}, 6.0) == 0.0
    assert note(task, 7.0) == 0.0
    assert note({**task, "place": "a:2"}, 8.0) == 0.0
    assert note({**task, "place": "a:2", "waited": 3.0}, 9.0) == 3.0
    assert note({**task, "place": "a:2"}, 10.0) == 4.0


ROW = {"loop": 0, "id": 1, "running": 0.0, "waiting": 1.0, "kind": "lock", "text": "t waits"}


def test_top_shows_only_so_many_lines() -> None:
    rows = [{**ROW, "place": f"a:{number}"} for number in range(commands.ROWS + 5)]
    lines = commands._table(1, rows, 0.0).splitlines()
    assert lines[-1] == "... 5 more"
    assert lines[2].endswith("  t waits")


def test_top_folds_waiting_tasks_that_do_the_same_and_shows_the_longest_time() -> None:
    rows = [{**ROW, "id": number, "place": "a:1", "waiting": number} for number in range(4)]
    rows.append({**ROW, "id": 5, "place": "a:1", "running": 0.25, "waiting": 0.0})
    lines = commands._table(1, rows, 0.5).splitlines()
    assert lines[0] == "process 1: 5 tasks, in steps for 75.0% of the time"
    assert lines[2].split() == ["50.0%", *"tasks that have ended meanwhile".split()]
    assert lines[3].split() == ["0.0%", "3", "s", *"t waits (and 3 more like this)".split()]
    assert lines[4].split() == ["25.0%", "0", "s", "t", "waits"]


def test_top_counts_one_task_as_one() -> None:
    assert commands._table(1, [{**ROW, "place": ""}], 0.0).startswith("process 1: 1 task, ")


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["tree"], 2, "give a PID, or --socket with a path"),
        (["tree", "1", "--socket", "x"], 2, "give a PID, or --socket with a path"),
        (["tree", "x"], 2, "invalid int value: 'x'"),
        (["tree", "--socket", "/no/such"], 1, "there is no socket '/no/such'"),
        (["top", "--socket", "/no/such", "--seconds", "0"], 2, "--seconds must be more than 0"),
        (["trace"], 2, "name the program to trace"),
        (["trace", "-o", "/no/such/file", "x.py"], 2, "No such file or directory"),
        (["trace", "--max-bytes", "1", "x.py"], 2, "at least 100,000"),
    ],
)
def test_a_wrong_command_ends_with_a_status_and_says_what_to_do(
    arguments: list[str],
    status: int,
    text: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    ends_with(status, *arguments)
    assert text in capsys.readouterr().err


# -- trace ------------------------------------------------------------------------------


def test_trace_runs_a_program_and_writes_its_trace_and_page(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run("trace", "-o", "t.json", "--html", "t.html", "program.py", "-o", "x", cwd=tmp_path)
    assert done.stdout == "arguments -o x\n"
    assert done.stderr == "written: t.json, t.html\n"
    assert done.returncode == 0
    events = json.loads((tmp_path / "t.json").read_text())
    assert {"name": "a child"} in [event["args"] for event in events if event["ph"] == "M"]
    assert "a child" in (tmp_path / "t.html").read_text()


def test_trace_has_a_default_file_and_keeps_the_exit_status(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM + "sys.exit(3)\n")
    done = run("trace", "--no-waits", "program.py", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (3, "written: trace.json\n")
    assert json.loads((tmp_path / "trace.json").read_text())


def test_trace_writes_a_file_for_each_loop_of_a_program(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM + PROGRAM)
    done = run("trace", "-o", "t.json", "program.py", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("t.json", "t-2.json"):
        assert "a child" in (tmp_path / name).read_text()


def test_trace_with_a_page_alone_leaves_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run("trace", "--html", "t.html", "program.py", cwd=tmp_path)
    assert done.stderr == "written: t.html\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program.py", "t.html"]


def test_trace_of_a_program_without_nurseryio_says_so(tmp_path: Path) -> None:
    done = run("trace", "-c", "print(1)", cwd=tmp_path)
    assert done.stdout == "1\n"
    assert "has not used nurseryio, so the trace is empty: call " in done.stderr
    assert json.loads((tmp_path / "trace.json").read_text())


def test_trace_sees_a_program_of_asyncio_that_opens_a_nursery(tmp_path: Path) -> None:
    program = PROGRAM.replace("nurseryio.run(main)", "import asyncio; asyncio.run(main())")
    (tmp_path / "program.py").write_text(program)
    run("trace", "program.py", cwd=tmp_path)
    assert "a child" in (tmp_path / "trace.json").read_text()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_child_of_a_traced_program_leaves_the_files_to_its_parent(tmp_path: Path) -> None:
    text = """
import os, sys
import nurseryio
async def main(): pass
nurseryio.run(main)
pid = os.fork()
if pid == 0:
    nurseryio.run(main)
    sys.exit(7)
print(os.waitpid(pid, 0)[1] >> 8, *os.listdir())
"""
    ended = run("trace", "--html", "page.html", "-c", text, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "7\n"
    assert ended.stderr == "written: page.html\n"
    (tmp_path / "page.html").unlink()
    ended = run("trace", "-o", "trace.json", "-c", text, cwd=tmp_path)
    assert ended.stdout == "7 trace.json\n"
    assert json.loads((tmp_path / "trace.json").read_text())
