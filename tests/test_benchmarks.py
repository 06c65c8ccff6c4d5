"""The benchmarks run, and both sides of each row do the same work. Nothing here looks at a time."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import source

import nurseryio

if sys.version_info < (3, 11):
    pytest.skip("the asyncio side needs TaskGroup and timeout", allow_module_level=True)
if str(source.ROOT) not in sys.path:
    sys.path.insert(0, str(source.ROOT))

from benchmarks import figures, instruments, plot, reasons, report, run, watchdog, workers
from benchmarks.harness import Samples
from benchmarks.micro import asyncio_idiom, floor, trio_idiom
from benchmarks.network import client
from benchmarks.network.rows import BY_NAME as NETWORK_ROWS
from benchmarks.network.servers import protocol, streams, trio_streams
from benchmarks.published import Page
from benchmarks.rows import BY_NAME, ROWS, Row
from benchmarks.scale import asyncio_probes, trio_probes
from benchmarks.stopwatch import Stopwatch

each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
KINDS = ("echo", "sink", "source")


@each_row
def test_both_sides_of_a_row_do_the_same_work(row: Row) -> None:
    ours, theirs = Stopwatch(), Stopwatch()
    mine = nurseryio.run(getattr(trio_idiom, row.name), row.tiny, ours)
    base = asyncio.run(getattr(asyncio_idiom, row.name)(row.tiny, theirs))
    assert mine == base == row.tiny
    assert ours.wall > 0
    assert theirs.wall > 0


@pytest.mark.parametrize("row", [r for r in ROWS if hasattr(floor, r.name)], ids=lambda r: r.name)
def test_the_plain_asyncio_floor_does_the_same_work(row: Row) -> None:
    assert asyncio.run(getattr(floor, row.name)(row.tiny, Stopwatch())) == row.tiny


@each_row
def test_a_row_says_what_is_equal(row: Row) -> None:
    assert row.fairness.startswith("Equal: ")
    assert "  " not in row.fairness


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["asyncio protocol", "asyncio streams", "nurseryio"])
def test_every_server_gives_the_same_service(side: str, kind: str) -> None:
    def talk(port: int) -> int:
        if kind == "echo":
            connections = client.EchoClient(port, 3, 64)
            try:
                return connections.wave(2)
            finally:
                connections.close()
        return (client.pour if kind == "sink" else client.draw)(port, 1 << 20)

    async def with_asyncio() -> int:
        module: Any = protocol if side == "asyncio protocol" else streams
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        server = asyncio.create_task(module.serve(kind, None, port.set_result))
        answer = await asyncio.to_thread(talk, await port)
        server.cancel()
        await asyncio.wait([server])
        return answer

    async def with_nurseryio() -> int:
        ports: list[int] = []
        listening = nurseryio.Event()

        def announce(port: int) -> None:
            ports.append(port)
            listening.set()

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(trio_streams.serve, kind, None, announce)
            await listening.wait()
            answer = await nurseryio.to_thread.run_sync(talk, ports[0])
            nursery.cancel_scope.cancel()
        return answer

    work = nurseryio.run(with_nurseryio) if side == "nurseryio" else asyncio.run(with_asyncio())
    assert work == (6 if kind == "echo" else 1 << 20)


@pytest.mark.parametrize(
    ("probe", "amount", "key"),
    [
        ("sleeping_tasks", 10, "bytes"),
        ("idle_shield", 0.001, "percent"),
        ("idle_thread", 0.001, "percent"),
        ("idle_swallow", 0.001, "cancels"),
        ("idle_refuse", 0.001, "cancels"),
        ("depth", 3, "seconds"),
        ("growth", 200, "bytes"),
    ],
)
def test_probes_have_the_same_answers_on_both_sides(probe: str, amount: Any, key: str) -> None:
    mine = nurseryio.run(getattr(trio_probes, probe), amount)
    base = asyncio.run(getattr(asyncio_probes, probe)(amount))
    assert mine.keys() == base.keys()
    assert key in mine


def test_a_ratio_is_the_median_of_neighbouring_rounds() -> None:
    assert figures.paired_ratio([2.0, 30.0, 3.0], [1.0, 10.0, 1.0]) == 3.0
    assert math.isnan(figures.paired_ratio([], [1.0]))
    assert figures.met(0.854, 0.85) == "met"
    assert figures.met(0.86, 0.85) == "not met"
    assert figures.met(0.86, None) == ""


def sample_data() -> dict[str, Any]:
    samples = {
        "asyncio": Samples(cpu=[1.0] * 5, wall=[1.0] * 5),
        "nurseryio": Samples(cpu=[0.5] * 5, wall=[0.5] * 5),
        "anyio": Samples(note="failed: it fell over"),
    }
    servers = {"protocol": samples["asyncio"], "nurseryio": samples["nurseryio"]}
    network = {"echo_64": {"samples": run.plain(servers), "times": 10}}
    data = {
        "micro": {"stock": {"nursery_one": {"samples": run.plain(samples)}}},
        "network": {"stock": network},
    }
    return dict(json.loads(json.dumps(data)))


def test_the_page_shows_ratio_target_and_verdict() -> None:
    page = report.page(sample_data())
    title = BY_NAME["nursery_one"].title
    assert f"| {title} | – | 0.50 | 0.00 | ≤ 0.85 | met |" in page
    assert f"| {NETWORK_ROWS['echo_64'].title} | 100000.0 | 0.50 | 0.00 | ≤ 1.25 | met |" in page
    assert "nursery_one on stock, anyio: failed: it fell over" in page
    assert f"**{title}.**" in page


def test_the_page_lists_rows_above_their_goal_under_their_reason() -> None:
    data = sample_data()
    assert "## Rows above their goal" not in report.page(data)
    for part, row in (("micro", "nursery_one"), ("network", "echo_64")):
        data[part]["stock"][row]["samples"]["nurseryio"]["cpu"] = [2.0] * 5
    page = report.page(data)
    assert "## Rows above their goal" in page
    title = BY_NAME["nursery_one"].title
    reason = reasons.MICRO["nursery_one", "stock"]
    assert f"| {title} | 2.00 |  | ≤ 0.85 |" in page
    assert f"* **{title}.** {reason}" in page
    assert reasons.NETWORK["echo_64", "stock"] in page


def test_a_page_is_read_back_from_its_tables() -> None:
    page = Page(report.page(sample_data()))
    title = BY_NAME["nursery_one"].title
    assert page.row(title).met is True
    assert page.ratio(title, "nurseryio") == 0.5
    assert page.ratio(title, "asyncio") == 1.0
    assert math.isnan(page.ratio(title, "anyio"))
    assert page.ratio(NETWORK_ROWS["echo_64"].title, "nurseryio", part="network") == 0.5
    with pytest.raises(LookupError, match="no such row"):
        page.row("no such row")
    assert math.isnan(page.memory("one of 100,000 sleeping tasks", "nurseryio"))


WRITTEN = (source.ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")


def test_the_words_of_the_written_page_are_those_of_its_tables() -> None:
    assert report.again(WRITTEN) == WRITTEN, "run `python -m benchmarks --again`"


def test_the_written_page_opens_with_what_to_expect() -> None:
    headings = [line for line in WRITTEN.splitlines() if line.startswith("## ")]
    assert headings[0] == "## What to expect"
    assert WRITTEN.index("{picture}") < WRITTEN.index(report.FIGURES)


def test_the_pictures_of_the_written_page_are_those_of_its_tables(tmp_path: Path) -> None:
    drawn = plot.draw(WRITTEN, tmp_path)
    assert len(drawn) == 6
    for path in drawn:
        kept = source.ROOT / "docs/pictures" / path.name
        assert kept.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")


def test_reasons_are_given_for_rows_that_exist() -> None:
    for known, rows in ((reasons.MICRO, BY_NAME), (reasons.NETWORK, NETWORK_ROWS)):
        for name, loop in known:
            assert rows[name].target_on(loop) is not None  # type: ignore[index]


def test_the_command_line_refuses_an_unknown_row(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["--rows", "nothing_of_the_kind"])
    assert "'nothing_of_the_kind' is none of" in capsys.readouterr().err


def test_calls_in_worker_processes_are_measured_beside_those_of_anyio_and_an_executor() -> None:
    # In a process of its own, because multiprocessing leaves one behind.
    command = [sys.executable, "-m", "benchmarks.workers", "--calls", "2", "--rounds", "4"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=source.ROOT, check=True)
    assert len(done.stdout.splitlines()) == 3 * len(workers.SIZES)
    assert "small  nurseryio" in done.stdout


def test_the_cost_of_a_watchdog_is_measured_in_turns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["watchdog", "--tiny", "--rounds", "4", "nursery_one"])
    watchdog.main()
    words = capsys.readouterr().out.split()
    assert words[:3] == ["nursery_one", "stock", "watchdog"]
    assert words[5:7] == ["a", "thread"]
    for ratio, half in (words[3:5], words[7:]):
        assert float(ratio) > 0
        assert half.startswith("±")


@pytest.mark.parametrize("load", instruments.LOADS)
@pytest.mark.parametrize("name", instruments.INSTRUMENTS)
def test_each_load_runs_with_each_instrument(load: str, name: str) -> None:
    if name == "OpenTelemetry":
        pytest.importorskip("opentelemetry.sdk", reason="comes with the extra dev")
    assert instruments.one_round(name, load, instruments.CONNECTIONS) > 0


def test_the_table_of_instruments_has_a_row_for_each_load(
    capsys: pytest.CaptureFixture[str],
) -> None:
    instruments.main(
        ["--instruments", "hooks,TraceFile", "--rounds", "2", "--share", "0.01", "spawn", "echo"]
    )
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| load | `hooks` | `TraceFile` |"
    assert [row.split("|")[1].strip() for row in rows] == [
        instruments.LOADS[name][0] for name in ("spawn", "echo")
    ]
    assert all(row.count("µs") == 2 for row in rows)
