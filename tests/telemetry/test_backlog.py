"""Channels whose items nobody takes."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from harness.core import forever, settle

import nurseryio
from nurseryio._base.watchers import unwatch, watch
from nurseryio._telemetry import backlog as module
from nurseryio._telemetry.backlog import Backlogs, Report, _held_by
from nurseryio.testing import wait_all_tasks_blocked

needs_gil = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="the tasks that have the ends are not looked at without the GIL",
)


class Looks:
    """The backlogs of the running loop, on a clock that the test sets; as a watcher."""

    def __init__(self, big_buffer: float = inf, stuck_channel: float = inf) -> None:
        self.now = 0.0
        loop = asyncio.get_running_loop()
        self.backlogs = Backlogs(loop, big_buffer, stuck_channel, lambda: self.now)
        self.made = self.backlogs.made

    def __enter__(self) -> Looks:
        watch(self)
        return self

    def __exit__(self, *_details: object) -> None:
        unwatch(self)

    def look(self, now: float) -> list[Report]:
        self.now = now
        return list(self.backlogs.look())

    def between(self, start: float, end: float) -> list[Report]:
        """The reports of a look each second."""
        return [each for now in range(int(start), int(end)) for each in self.look(float(now))]


# -- senders that wait -----------------------------------------------------------------------


async def test_a_channel_is_stuck_when_no_task_has_received_from_it_for_long() -> None:
    with Looks(stuck_channel=30) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](2)

        async def produce() -> None:
            for number in range(5):
                await sender.send(number)

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(produce, name="producer")
            await wait_all_tasks_blocked()
            (report,) = looks.between(0, 40)
            assert report.event == "stuck channel"
            assert report.lines[0] == (
                "a memory channel is stuck: for at least 30.0 s no task has received, "
                "1 task waits to send, 2 items wait in its buffer"
            )
            details = report.details
            assert (details["tasks_waiting_send"], details["items"]) == (1, 2)
            assert (details["open_receive_channels"], details["dropped"]) == (1, False)
            nursery.cancel_scope.cancel()
        receiver.close()


@needs_gil
async def test_the_report_of_a_stuck_channel_names_the_tasks_at_its_ends() -> None:
    async def produce(sender: nurseryio.MemorySendChannel[int]) -> None:
        await sender.send(1)  # too many

    async def consume(receiver: nurseryio.MemoryReceiveChannel[int]) -> None:
        assert await receiver.receive() == 0
        await forever()

    with Looks(stuck_channel=30) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](0)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(consume, receiver, name="consumer")
            await wait_all_tasks_blocked()
            assert looks.look(0.0) == []
            await sender.send(0)
            nursery.start_soon(produce, sender, name="producer")
            await wait_all_tasks_blocked()
            (report,) = looks.between(1, 40)
            assert report.lines[0].endswith(" no task has received, 1 task waits to send")
            (sends,) = (line for line in report.lines if "producer at " in line)
            assert sends.startswith("   sends: producer at ")
            assert sends.endswith("await sender.send(1)  # too many")
            (could,) = (line for line in report.lines if "consumer at " in line)
            assert could.startswith("   could receive: consumer at ")
            assert "   received last: consumer" in report.lines
            nursery.cancel_scope.cancel()


async def test_a_channel_is_not_stuck_while_items_are_received() -> None:
    with Looks(stuck_channel=30) as looks:
        sender, receiver = nurseryio.open_memory_channel[None](1)

        async def produce() -> None:
            while True:
                await sender.send(None)

        async with nurseryio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(produce)
            await wait_all_tasks_blocked()
            for start in range(0, 200, 20):
                assert looks.between(start, start + 20) == []
                await receiver.receive()
                await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()


async def test_a_channel_is_not_stuck_while_a_task_receives_or_nothing_waits() -> None:
    with Looks(stuck_channel=30) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](1)
        assert looks.between(0, 100) == []
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(receiver.receive)
            await wait_all_tasks_blocked()
            assert looks.between(100, 200) == []
            nursery.cancel_scope.cancel()
        sender.send_nowait(1)
        receiver.close()
        assert looks.between(200, 300) == []


async def test_a_stuck_channel_is_looked_at_again_only_after_the_same_time() -> None:
    with Looks(stuck_channel=30) as looks:
        sender, _receiver = nurseryio.open_memory_channel[int](0)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(sender.send, 1)
            await wait_all_tasks_blocked()
            assert len(looks.between(0, 100)) == 3
            nursery.cancel_scope.cancel()


async def test_an_older_channel_is_found_when_a_task_waits_in_it() -> None:
    sender, receiver = nurseryio.open_memory_channel[int](0)
    with Looks(stuck_channel=30) as looks:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(sender.send, 1, name="producer")
            await wait_all_tasks_blocked()
            (report,) = looks.between(0, 40)
            assert not report.details["dropped"]
            nursery.cancel_scope.cancel()
    receiver.close()


# -- items in a buffer -------------------------------------------------------------------------


async def test_a_channel_is_stuck_whose_receiving_end_was_dropped_without_a_close() -> None:
    with Looks(stuck_channel=30) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](10)
        clone = receiver.clone()
        sender.send_nowait(1)
        clone.close()
        assert looks.between(0, 20) == []
        del receiver, clone
        gc.collect()
        (report,) = looks.between(20, 40)
        assert report.lines[:2] == [
            "a memory channel is stuck: for at least 30.0 s 1 item waits in its buffer",
            "   each receiving end was dropped without a close()",
        ]
        assert report.details["dropped"]
        sender.close()


@needs_gil
async def test_a_channel_is_stuck_whose_consumer_has_ended_while_others_wait_for_it() -> None:
    async def consume(receiver: nurseryio.MemoryReceiveChannel[int]) -> None:
        await receiver.receive()  # should have been in a loop

    async def produce(sender: nurseryio.MemorySendChannel[int]) -> None:
        await go.wait()
        for number in range(3):
            await sender.send(number)
        await forever()

    async def main() -> None:
        sender, receiver = nurseryio.open_memory_channel[int](10)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(consume, receiver, name="consumer")
            nursery.start_soon(produce, sender, name="producer")

    go = nurseryio.Event()
    with Looks(stuck_channel=30) as looks:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(main, name="main")
            await wait_all_tasks_blocked()
            assert looks.look(0.0) == []
            go.set()
            await wait_all_tasks_blocked()
            (report,) = looks.between(1, 40)
            assert report.lines[0].endswith("s 2 items wait in its buffer")
            assert report.lines[1].startswith("   could receive: main at ")
            assert "   received last: consumer, which has ended" in report.lines
            assert report.lines[-1].startswith("   sends: producer at ")
            nursery.cancel_scope.cancel()


@needs_gil
async def test_a_channel_is_not_stuck_while_a_task_that_has_its_end_is_busy() -> None:
    async def consume(receiver: nurseryio.MemoryReceiveChannel[int]) -> None:
        async for _ in receiver:
            await forever()

    with Looks(stuck_channel=30) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](10)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(consume, receiver, name="consumer")
            await wait_all_tasks_blocked()
            del receiver
            for number in range(3):
                sender.send_nowait(number)
            await wait_all_tasks_blocked()
            assert looks.between(0, 100) == []
            nursery.cancel_scope.cancel()


async def test_a_channel_is_stuck_whose_receiving_end_was_never_kept() -> None:
    with Looks(stuck_channel=30) as looks:
        sender = nurseryio.open_memory_channel[int](10)[0]
        gc.collect()
        sender.send_nowait(1)
        (report,) = looks.between(0, 40)
        assert report.details["dropped"]


# -- big buffers ---------------------------------------------------------------------------------


async def test_a_big_buffer_is_reported_and_again_when_it_has_doubled() -> None:
    with Looks(big_buffer=100) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](inf)
        found = []
        for number in range(500):
            sender.send_nowait(number)
            found += looks.look(float(number))
        assert [report.details["items"] for report in found] == [100, 200, 400]
        assert found[0].event == "big buffer"
        assert found[0].lines[0] == "a memory channel without a limit holds 100 items"
        for _ in range(500):
            receiver.receive_nowait()
        assert looks.look(500.0) == []
        for number in range(100):
            sender.send_nowait(number)
        assert len(looks.look(501.0)) == 1
        receiver.close()


async def test_a_big_buffer_with_a_limit_is_not_reported() -> None:
    with Looks(big_buffer=100) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](1000)
        for number in range(1000):
            sender.send_nowait(number)
        assert looks.look(0.0) == []
        receiver.close()


@needs_gil
async def test_the_report_of_a_big_buffer_names_senders_and_receivers() -> None:
    class Worker:
        def __init__(self, receiver: nurseryio.MemoryReceiveChannel[int]) -> None:
            self.inputs = [receiver]

        async def work(self) -> None:
            await forever()

    async def produce(sender: nurseryio.MemorySendChannel[int]) -> None:
        for number in range(200):
            sender.send_nowait(number)
        await forever()

    with Looks(big_buffer=100) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](inf)
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(produce, sender.clone(), name="producer")
            nursery.start_soon(Worker(receiver.clone()).work, name="worker")
            await settle()
            (report,) = looks.look(0.0)
            assert any(line.startswith("   sends: producer at ") for line in report.lines)
            assert any(line.startswith("   receives: worker at ") for line in report.lines)
            nursery.cancel_scope.cancel()
        receiver.close()


@needs_gil
async def test_a_big_unbounded_queue_is_reported_with_the_tasks_that_use_it() -> None:
    async def use(queue: Any) -> None:
        queue.put_nowait(1)
        await forever()

    with Looks(big_buffer=10) as looks:
        with pytest.warns(FutureWarning, match="UnboundedQueue is deprecated"):
            queue = nurseryio.lowlevel.UnboundedQueue[int]()
        async with nurseryio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(use, queue, name=f"user {number}")
            await settle()
            (report,) = looks.look(0.0)
            assert report.lines[0] == "an UnboundedQueue holds 20 items"
            assert report.lines[1].startswith("   uses it: ")
            assert report.lines[-1].endswith(" more")
            nursery.cancel_scope.cancel()


# -- what is known ---------------------------------------------------------------------------


async def test_backlogs_keep_no_channel_alive() -> None:
    with Looks(big_buffer=1, stuck_channel=1) as looks:
        for _ in range(10):
            sender, receiver = nurseryio.open_memory_channel[int](1)
            sender.send_nowait(1)
        looks.look(0.0)
        del sender, receiver
        gc.collect()
        looks.look(0.5)
        assert looks.backlogs._known == {}
        assert not looks.backlogs._new


async def test_backlogs_that_are_off_note_nothing() -> None:
    with Looks() as looks:
        sender, _receiver = nurseryio.open_memory_channel[int](inf)
        for number in range(1000):
            sender.send_nowait(number)
        assert not looks.backlogs._new
        assert looks.between(0, 100) == []


async def test_backlogs_note_the_channels_of_their_own_loop_alone() -> None:
    async def elsewhere() -> None:
        channels.append(nurseryio.open_memory_channel[int](1))

    channels: list[Any] = []
    with Looks(stuck_channel=30) as looks:
        await nurseryio.to_thread.run_sync(asyncio.run, elsewhere())
        assert not looks.backlogs._new
        await nurseryio.to_thread.run_sync(
            lambda: channels.append(nurseryio.open_memory_channel[int](1))
        )
        assert len(looks.backlogs._new) == 1  # made outside of any loop


class Holder:
    def __init__(self, held: object) -> None:
        self.held = held


@needs_gil
@pytest.mark.parametrize(
    "wrap",
    [
        lambda end: end,
        lambda end: [end],
        lambda end: {"key": end},
        Holder,
        lambda end: Holder([end]),
        lambda end: Holder(Holder(end)),
    ],
    ids=["variable", "list", "dict", "attribute", "list in attribute", "attribute of attribute"],
)
async def test_ends_are_found_in_variables_containers_and_attributes(
    wrap: Callable[[object], object],
) -> None:
    async def inner(held: object) -> object:
        await forever()
        return held

    async def outer(held: object) -> None:
        await inner(held)

    sender, receiver = nurseryio.open_memory_channel[int](0)
    coro: Any = outer(wrap(receiver))
    coro.send(None)
    assert receiver in list(_held_by(coro))
    assert sender not in list(_held_by(coro))
    coro.close()


@needs_gil
async def test_ends_of_other_tasks_are_not_found_through_their_nursery() -> None:
    async def child(receiver: object) -> object:
        await forever()
        return receiver

    async def parent(nursery: nurseryio.Nursery) -> object:
        await forever()
        return nursery

    _sender, receiver = nurseryio.open_memory_channel[int](0)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, receiver)
        coro: Any = parent(nursery)
        coro.send(None)
        await settle()
        assert list(_held_by(coro)) == []
        coro.close()
        nursery.cancel_scope.cancel()


@needs_gil
async def test_ends_are_found_in_a_closure_and_under_an_async_generator() -> None:
    _sender, receiver = nurseryio.open_memory_channel[int](0)

    async def closure() -> object:
        await forever()
        return receiver

    async def generate(held: object) -> Any:
        await forever()
        yield held

    async def iterate() -> None:
        async for _ in generate(receiver):
            raise AssertionError("waits for ever")

    for function in (closure, iterate):
        task = asyncio.ensure_future(function())
        await settle()
        assert receiver in list(_held_by(task.get_coro()))
        task.cancel()
        await asyncio.wait([task])


async def test_tasks_are_not_looked_at_without_the_gil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with Looks(big_buffer=1, stuck_channel=30) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](inf)
        sender.send_nowait(1)
        (report,) = looks.between(0, 40)
        assert report.event == "big buffer"
        assert report.details["senders"] is report.details["receivers"] is None
        receiver.close()


@needs_gil
async def test_receivers_are_unknown_if_there_are_more_tasks_than_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_HOLDERS", 1)
    with Looks(big_buffer=1) as looks:
        sender, receiver = nurseryio.open_memory_channel[int](inf)
        sender.send_nowait(1)
        async with nurseryio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(forever)
            await settle()
            (report,) = looks.look(0.0)
            assert report.details["receivers"] is None
            nursery.cancel_scope.cancel()
        receiver.close()
