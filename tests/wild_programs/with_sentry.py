"""Sentry's asyncio integration: a task factory on the running loop that wraps each coroutine.

The wrapper takes over the coroutine's name, opens a span, and sends each Exception to Sentry.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sentry_sdk
from battery import Tool, asyncio_task, raises_once, run_battery
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.asyncio import AsyncioIntegration, enable_asyncio_integration
from sentry_sdk.transport import Transport

import nurseryio
from nurseryio import open_nursery


class Kept(Transport):
    """Keeps what would be sent."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.transactions: list[Any] = []
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        for item in envelope.items:
            if item.type == "transaction":
                self.transactions.append(item.payload.json)
            elif item.type == "event":
                self.events.append(item.payload.json)


class Sentry(Tool):
    """Initialized in the running loop, as Sentry's documentation says."""

    # Where the loop leaves the name to the factory: asyncio's own loop, from Python 3.13.3 on.
    names_tasks = True

    @asynccontextmanager
    async def installed(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        self.kept = Kept()
        sentry_sdk.init(
            dsn="http://key@localhost/1",
            transport=self.kept,
            traces_sample_rate=1.0,
            default_integrations=False,
            integrations=[AsyncioIntegration()],
        )
        enable_asyncio_integration()  # init() does it for the first loop only
        assert getattr(loop.get_task_factory(), "_is_sentry_task_factory", False)
        with sentry_sdk.start_transaction(name="battery"):
            yield
        loop.set_task_factory(None)

    def task_name(self, task: asyncio.Task[Any]) -> str:
        return task.get_name().removesuffix(" (Sentry-wrapped)")


def names_of_spans(sentry: Any) -> list[str]:
    """The names of all spans of the one transaction."""
    (transaction,) = sentry.kept.transactions
    return [span["description"] for span in transaction["spans"]]


async def each_child_has_a_span(sentry: Tool) -> None:
    """A span for each child, named and unnamed, bears the name of its function."""

    async def child() -> None:
        await nurseryio.sleep(0)

    async def grandchild() -> None:
        await nurseryio.sleep(0)

    async def starting(*, task_status: Any) -> None:
        task_status.started()
        async with open_nursery() as inner:
            inner.start_soon(grandchild)

    async with sentry.installed(), open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(child, name="a name")
        await nursery.start(starting)
    names = names_of_spans(sentry)
    expected = [f.__qualname__ for f in (child, child, starting, grandchild)]
    assert sorted(names) == sorted(expected), names


async def scopes_are_the_childs_own(sentry: Tool) -> None:
    """A value that one child sets on its isolation scope stays with it."""
    seen = []

    async def child(tag: str) -> None:
        sentry_sdk.set_tag("child", tag)
        await nurseryio.sleep(0)
        seen.append((tag, sentry_sdk.get_isolation_scope()._tags["child"]))

    async with sentry.installed():
        async with open_nursery() as nursery:
            for tag in ("one", "two", "three"):
                nursery.start_soon(child, tag)
        assert "child" not in sentry_sdk.get_isolation_scope()._tags
    assert sorted(seen) == [(tag, tag) for tag in ("one", "three", "two")]


async def an_error_is_not_reported_on_its_way(sentry: Any) -> None:
    """An error that the nursery raises and other code handles is not an event for Sentry."""
    error = KeyError("handled")

    async def failing() -> None:
        raise error

    async with sentry.installed():
        with raises_once(error):
            async with open_nursery() as nursery:
                nursery.start_soon(failing)
                nursery.start_soon(nurseryio.sleep_forever)
        assert sentry.kept.events == [], sentry.kept.events


async def a_task_of_sentrys_own_is_not_wrapped(sentry: Tool) -> None:
    """Inside Sentry's own tasks its factory hands the coroutine on as it is."""
    from sentry_sdk.utils import mark_sentry_task_internal

    seen = []

    async def child() -> None:
        seen.append(asyncio_task().get_coro().__qualname__)  # type: ignore[union-attr]

    async with sentry.installed():
        with mark_sentry_task_internal():
            async with open_nursery() as nursery:
                nursery.start_soon(child)
        assert names_of_tasks_contain_no_wrapper(seen, child), seen


def names_of_tasks_contain_no_wrapper(seen: list[str], child: Any) -> bool:
    """Whether the child was seen once, under its own name."""
    return seen == [child.__qualname__]


if __name__ == "__main__":
    sentry = Sentry()
    sentry.own_steps = (
        each_child_has_a_span,
        scopes_are_the_childs_own,
        an_error_is_not_reported_on_its_way,
        a_task_of_sentrys_own_is_not_wrapped,
    )
    run_battery(sentry)
