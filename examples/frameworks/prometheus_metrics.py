"""Metrics of tasks for Prometheus: how many there are, how long the loop keeps them waiting.

    python examples/frameworks/prometheus_metrics.py

The metrics are served on a free port for as long as the program runs. Here the program asks for
them itself, as Prometheus does every few seconds, and prints some of them.
"""

import asyncio
import urllib.request

from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

import nurseryio
from nurseryio.instruments import OpenTelemetry

SHOWN = ("nurseryio_tasks_active", "nurseryio_scopes_timed_out", "nurseryio_scopes_cancelled")


async def job(number):
    """A job in ten takes too long."""
    with nurseryio.move_on_after(0.05):
        await asyncio.sleep(3600 if number % 10 == 0 else 0.01)


def scrape(port):
    with urllib.request.urlopen(f"http://localhost:{port}/metrics") as answer:
        return answer.read().decode()


async def show_metrics(port):
    text = await nurseryio.to_thread.run_sync(scrape, port)
    for line in text.splitlines():
        if line.startswith(SHOWN):
            name, _, value = line.rpartition(" ")
            print(name.partition("{")[0], value)


async def main(port):
    async with nurseryio.open_nursery() as nursery:
        for number in range(40):
            nursery.start_soon(job, number, name=f"job {number}")
    async with nurseryio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(nurseryio.sleep_forever)
        await nurseryio.sleep(0)
        await show_metrics(port)
        nursery.cancel_scope.cancel(reason="the metrics were shown")


if __name__ == "__main__":
    metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()]))
    server, thread = start_http_server(0, addr="localhost")
    nurseryio.run(main, server.server_port, instruments=[OpenTelemetry()])
    server.shutdown()
    server.server_close()
    thread.join()
