"""The examples with web frameworks, queues and clusters do what they say, as real processes.

Each is started as its reader would start it, on asyncio's loop and on uvloop, and driven over
loopback. Its output shows how the inside saw it.
"""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from harness import programs, servers
from harness.programs import EXAMPLES, LOOPS, PATIENCE, Program

FRAMEWORKS = EXAMPLES / "frameworks"

each_loop = pytest.mark.parametrize("loop", LOOPS)


def test_each_example_has_its_tests() -> None:
    tested = {
        "fastapi_service",
        "hypercorn_service",
        "aiohttp_pages",
        "redis_worker",
        "dask_cluster",
        "textual_prices",
        "prometheus_metrics",
        "http_errors",
    }
    assert {path.stem for path in FRAMEWORKS.glob("*.py")} == tested


def assert_quiet(program: Program) -> None:
    """Nothing on stderr, but for what third parties find out of fashion."""
    fashion = r"\S+: (Pending)?DeprecationWarning: .*\n(  .*\n)?"
    assert not re.sub(fashion, "", program.errors)


# -- FastAPI and uvicorn --------------------------------------------------------

needs_fastapi = servers.needs_packages("fastapi", "uvicorn")


class Service:
    """A client of examples/frameworks/fastapi_service.py.

    Attributes:
        port: where it listens.
        http: an HTTP client for it.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.port = int(program.read_until("listening on port").split()[-1])
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            timeout=PATIENCE,
            trust_env=False,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def health(self) -> dict[str, Any]:
        return self.http.get("/health").raise_for_status().json()

    def wait_until_asked(self, count: int) -> None:
        """Wait until so many suppliers are being asked, in all requests together."""
        give_up = time.monotonic() + PATIENCE
        while (health := self.health())["being asked"] != count:
            assert time.monotonic() < give_up, health

    def ask_for_quotes(self, patience: float) -> socket.socket:
        """Begin a request by hand."""
        client = programs.connect(self.port)
        client.sendall(b"GET /quotes?patience=%g HTTP/1.1\r\nHost: test\r\n\r\n" % patience)
        return client


@contextlib.contextmanager
def serving(loop: str) -> Iterator[Service]:
    example = FRAMEWORKS / "fastapi_service.py"
    with programs.started(example, loop=loop, warnings="default") as program:
        service = Service(program)
        with service.http:
            # uvicorn has its own ways to choose a loop.
            assert service.health()["loop"].startswith("uvloop" if loop == "uvloop" else "asyncio")
            yield service


@pytest.fixture(scope="module", params=LOOPS)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with serving(request.param) as service:
        yield service


@needs_fastapi
def test_a_request_answers_with_what_has_come_in_time(service: Service) -> None:
    quotes = service.http.get("/quotes", params={"patience": 0.06}).json()
    assert quotes == {"near": 4}
    quotes = service.http.get("/quotes", params={"patience": 0.5}).json()
    assert quotes == {"near": 4, "far": 3}
    assert service.health()["being asked"] == 0


@needs_fastapi
def test_all_work_of_a_request_ends_when_its_client_goes(service: Service) -> None:
    before = service.health()
    clients = [service.ask_for_quotes(patience=3600) for _ in range(5)]
    # Two of the three suppliers have answered.
    service.wait_until_asked(5)
    clients.pop().close()
    service.wait_until_asked(4)
    for client in clients:
        client.close()
    service.wait_until_asked(0)
    assert service.health() == before


@needs_fastapi
def test_work_that_outlives_its_request_is_done_in_the_background(service: Service) -> None:
    assert service.http.post("/orders", params={"item": "tea"}).status_code == 202
    assert service.program.read_until("packed") == "packed: tea\n"


@needs_fastapi
@each_loop
def test_ctrl_c_ends_requests_first_and_then_background_work_with_its_cleanup(loop: str) -> None:
    with serving(loop) as service:
        assert service.http.post("/orders", params={"item": "tea"}).status_code == 202
        service.program.read_until("packed")
        with service.ask_for_quotes(patience=3600) as client:
            service.wait_until_asked(1)
            service.program.interrupt()
            # It is given its second, and cancelled.
            assert programs.receive_exactly(client, 12) == b"HTTP/1.1 500"
        lines = service.program.end()
    assert lines[-2:] == ["packing: tidied up", "the service has ended"]
    assert service.program.returncode == 0
    # The one error is uvicorn's, about the request that it cancelled.
    errors = service.program.errors
    assert errors.count("Cancel 1 running task(s), timeout graceful shutdown exceeded") == 1
    assert errors.count("Traceback") == errors.count("\nasyncio.exceptions.CancelledError: ") == 1


@needs_fastapi
@each_loop
def test_a_service_does_not_outlive_its_background_work(loop: str) -> None:
    with serving(loop) as service:
        assert service.http.post("/orders", params={"item": "a bug"}).status_code == 202
        lines = service.program.end()
    assert lines[-2:] == ["packing: tidied up", "the service has ended"]
    assert service.program.returncode == 1
    assert service.program.errors.count("RuntimeError: the packing machine is stuck") == 1


# -- Hypercorn ------------------------------------------------------------------


@servers.needs_packages("hypercorn")
@each_loop
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)
def test_hypercorn_ends_requests_background_work_and_itself_in_order(
    loop: str, stop: signal.Signals
) -> None:
    example = FRAMEWORKS / "hypercorn_service.py"
    with programs.started(example, loop=loop, warnings="default") as program:
        port = int(program.read_until("listening on port").split()[-1])

        def ask(path: str) -> socket.socket:
            client = programs.connect(port)
            client.sendall(b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n" % path.encode())
            return client

        with ask("/") as client:
            assert programs.receive_exactly(client, 12) == b"HTTP/1.1 200"
        with ask("/slow"):
            pass
        assert program.read_until("cancelled") == "/slow was cancelled\n"
        with ask("/slow") as client:
            program.read_until("asked: /slow")
            program.send_signal(stop)
            assert programs.receive_exactly(client, 12) == b"HTTP/1.1 500"
            lines = program.end()
    end = ["/slow was cancelled", "background work: tidied up", "the service has ended"]
    assert lines[-3:] == end
    assert program.returncode == 0
    assert_quiet(program)


# -- Textual --------------------------------------------------------------------

PRICES = [
    "shown: far 0, far 1, far 2, near 0, near 1, near 2",
    "failed: lost (far|near) 2",
    "out of time: True",
    "tasks left: 0",
]


# On the stock loop only: it sets asyncio's eager task factory, which uvloop 0.23 calls with an
# argument that the one of Python 3.13.0 does not take.
@servers.needs_packages("textual")
def test_a_textual_application_ends_cleanly_with_its_nurseries() -> None:
    example = FRAMEWORKS / "textual_prices.py"
    program = programs.run(example, "--headless", warnings="default")
    assert program.returncode == 0, program.errors
    assert len(program.lines) == len(PRICES)
    for line, expected in zip(program.lines, PRICES, strict=True):
        assert re.fullmatch(expected, line)
    assert_quiet(program)


# -- aiohttp --------------------------------------------------------------------

PAGES = [
    "all: 12 pages",
    "failed: 404",
    "out of time: True",
    "found: head of page 3, body of page 3",
    "tasks left: 0",
]


@servers.needs_packages("aiohttp")
@each_loop
def test_requests_that_are_cancelled_end_on_both_sides(loop: str) -> None:
    program = programs.run(FRAMEWORKS / "aiohttp_pages.py", loop=loop, warnings="default")
    assert (program.returncode, program.lines) == (0, PAGES)
    assert_quiet(program)


# -- errors that a framework answers ----------------------------------------------

ANSWERS = [
    f"{framework} {parts} {status}"
    for framework in ("FastAPI", "aiohttp")
    for parts, status in (("head,body", 200), ("head,missing", 404), ("missing,broken", 500))
]


@servers.needs_packages("aiohttp", "fastapi")
@each_loop
def test_an_http_exception_in_a_nursery_is_answered_and_a_bug_beside_it_is_not_hidden(
    loop: str,
) -> None:
    program = programs.run(FRAMEWORKS / "http_errors.py", loop=loop, warnings="default")
    assert (program.returncode, program.lines) == (0, ANSWERS)
    assert program.errors.count("ZeroDivisionError: a bug") == 1  # aiohttp logs it


# -- Redis ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    with servers.redis() as url:
        yield url


@servers.needs_packages("redis")
@each_loop
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda stop: stop.name)
def test_a_worker_stops_without_losing_a_job(
    redis_url: str, loop: str, stop: signal.Signals
) -> None:
    import redis

    jobs = ["3600", "0.01", "soup", "0.02", "0.2", "1800", "1900", "2000"]
    example = FRAMEWORKS / "redis_worker.py"
    with contextlib.closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
        client.flushall()
        client.rpush("jobs", *jobs)
        with programs.started(example, redis_url, loop=loop, warnings="default") as worker:
            # The one before it is still under way, and so is the first one.
            worker.read_until("took 1800")
            worker.send_signal(stop)
            worker.end()
        left = {name: set(client.lrange(name, 0, -1)) for name in ("jobs", "done", "failed")}
        assert not client.exists("taken")
    assert worker.returncode == 0
    assert_quiet(worker)
    assert left["failed"] == {"soup"}
    assert left["done"] == {"0.01", "0.02", "0.2"}
    # Put back, and never taken.
    assert left["jobs"] == {"3600", "1800", "1900", "2000"}
    assert worker.lines[-1] == "tasks left: 0"
    assert at_most_under_way(worker.lines) == 3


def at_most_under_way(lines: list[str]) -> int:
    """How many jobs were under way at the same time, at most."""
    most = now = 0
    for line in lines:
        now += line.startswith("took") - line.startswith("put")
        most = max(most, now)
    return most


# -- Dask -----------------------------------------------------------------------

CLUSTER = [
    "squares: [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]",
    "out of time: True",
    "left on the cluster: 0",
    "failed: bad input",
    "left on the cluster: 0",
    "tasks left: 0",
]


@servers.needs_packages("distributed")
@each_loop
def test_tasks_of_a_cluster_end_with_the_scope_and_with_their_siblings(loop: str) -> None:
    program = programs.run(FRAMEWORKS / "dask_cluster.py", loop=loop, warnings="default")
    assert (program.returncode, program.lines) == (0, CLUSTER), program.errors
    # The cluster itself logs the error of the task that failed, and may log that its connections
    # close while something is under way on them.
    logged = [line for line in program.errors.splitlines() if "ERROR" in line]
    assert [line for line in logged if " - distributed." not in line] == []
    assert program.errors.count("ERROR - Compute Failed") == 1


# -- Prometheus -----------------------------------------------------------------


@servers.needs_packages("opentelemetry.exporter.prometheus", "prometheus_client")
@each_loop
def test_opentelemetry_metrics_are_served_to_prometheus(loop: str) -> None:
    program = programs.run(FRAMEWORKS / "prometheus_metrics.py", loop=loop, warnings="default")
    assert (program.returncode, sorted(program.lines)) == (
        0,
        ["nurseryio_scopes_timed_out_total 4.0", "nurseryio_tasks_active 6.0"],
    ), program.errors
    assert_quiet(program)
