"""Service nurseries: background tasks that end after the work that uses them."""

from __future__ import annotations

import asyncio
from math import inf, nan

import pytest

import nurseryio
from nurseryio import (
    CancelScope,
    Event,
    current_time,
    move_on_after,
    open_nursery,
    open_service_nursery,
    sleep,
    sleep_forever,
    wait_stop_requested,
)
from nurseryio.testing import (
    MockClock,
    Schedule,
    cancel_at_every_await,
    wait_all_tasks_blocked,
)


class Log(list[str]):
    """Notes in which order things end."""

    async def run(self, name: str) -> None:
        try:
            await sleep_forever()
        finally:
            self.append(name)

    async def started(
        self, name: str, task_status: nurseryio.TaskStatus[str] = nurseryio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started(name)
        await self.run(name)


async def test_a_service_is_cancelled_when_the_body_has_ended() -> None:
    log = Log()
    async with open_service_nursery() as services:
        services.start_soon(log.run, "one")
        assert await services.start(log.started, "two") == "two"
        await wait_all_tasks_blocked()
        assert len(services.child_tasks) == 2
        log.append("body")
    assert log[0] == "body"
    assert sorted(log[1:]) == ["one", "two"]
    assert not services.cancel_scope.cancel_called


@pytest.mark.parametrize("cause", ["outside", "inside", "native", "deadline"])
async def test_a_cancellation_reaches_the_body_first_and_its_children(cause: str) -> None:
    log = Log()

    async def work() -> None:
        with CancelScope() as scope:
            async with open_service_nursery() as services:
                services.start_soon(log.run, "service")
                await services.start(log.started, "service")
                async with open_nursery() as nursery:
                    nursery.start_soon(log.run, "child")
                    await wait_all_tasks_blocked()
                    if cause == "outside":
                        scope.cancel()
                    elif cause == "inside":
                        services.cancel_scope.cancel()
                    elif cause == "deadline":
                        scope.deadline = nurseryio.current_time()
                    else:
                        task = asyncio.current_task()
                        assert task is not None
                        task.cancel()
                    try:
                        await sleep_forever()
                    finally:
                        with CancelScope(shield=True):
                            await wait_all_tasks_blocked()
                        log.append("body")

    task = asyncio.ensure_future(work())
    await asyncio.wait([task])
    assert task.cancelled() == (cause == "native")
    # A native cancel reaches the host task alone, and the nursery cancels the child at its end.
    first = ["body", "child"] if cause == "native" else ["child", "body"]
    assert log == [*first, "service", "service"]


async def test_an_error_of_a_service_cancels_the_body_and_then_the_other_services() -> None:
    log = Log()
    go = Event()

    async def fails() -> None:
        await go.wait()
        raise KeyError("service")

    with pytest.RaisesGroup(KeyError):
        async with open_service_nursery() as services:
            services.start_soon(log.run, "other")
            services.start_soon(fails)
            await wait_all_tasks_blocked()
            go.set()
            await log.run("body")
    assert log == ["body", "other"]


async def test_an_error_of_the_body_is_raised_in_a_group_after_the_services_have_ended() -> None:
    log = Log()
    with pytest.RaisesGroup(ZeroDivisionError):
        async with open_service_nursery() as services:
            services.start_soon(log.run, "service")
            await wait_all_tasks_blocked()
            raise ZeroDivisionError
    assert log == ["service"]


async def test_a_service_that_has_not_begun_when_the_nursery_is_cancelled_still_serves() -> None:
    log = Log()
    async with open_service_nursery() as services:
        services.cancel_scope.cancel()
        services.start_soon(log.run, "service")
        with CancelScope(shield=True):
            await wait_all_tasks_blocked()
            assert len(services.child_tasks) == 1
        log.append("body")
    assert log == ["body", "service"]


async def test_a_service_that_is_starting_is_cancelled_with_the_call_of_start() -> None:
    async def never_ready(task_status: nurseryio.TaskStatus[None]) -> None:
        await sleep_forever()

    async with open_service_nursery() as services:
        with CancelScope() as scope:
            async with open_nursery() as nursery:
                nursery.start_soon(services.start, never_ready)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught
        assert not services.child_tasks


async def test_a_service_that_ends_before_started_is_an_error_of_start() -> None:
    async def ends(task_status: nurseryio.TaskStatus[None]) -> None:
        pass

    async with open_service_nursery() as services:
        with pytest.raises(RuntimeError, match="without calling task_status"):
            await services.start(ends)


async def test_services_get_a_grace_period_when_the_body_has_ended(
    autojump_clock: MockClock,
) -> None:
    log = Log()

    async def flushes(seconds: float) -> None:
        await wait_stop_requested()
        log.append("asked")
        await sleep(seconds)
        log.append("flushed")

    began = nurseryio.current_time()
    async with open_service_nursery(grace_period=5) as services:
        services.start_soon(flushes, 1)
        services.start_soon(flushes, 99)
        with CancelScope() as scope:
            scope.request_stop()
            await wait_all_tasks_blocked()
        log.append("body")
    assert log == ["body", "asked", "asked", "flushed"]
    assert nurseryio.current_time() == began + 5


async def test_a_stop_request_from_outside_reaches_services_after_the_body(
    autojump_clock: MockClock,
) -> None:
    log = Log()

    async def serves() -> None:
        await wait_stop_requested()
        log.append("service")

    async with open_nursery() as nursery:
        nursery.cancel_scope.request_stop()
        async with open_service_nursery(grace_period=5) as services:
            services.start_soon(serves)
            await wait_stop_requested()
            await wait_all_tasks_blocked()
            log.append("body")
    assert log == ["body", "service"]


async def test_a_service_may_start_another_one_while_the_services_end(
    autojump_clock: MockClock,
) -> None:
    log = Log()
    async with open_service_nursery(grace_period=1) as services:

        async def starts_another() -> None:
            await wait_stop_requested()
            services.start_soon(log.run, "another")

        services.start_soon(starts_another)
    assert log == ["another"]


async def test_services_that_start_each_other_end_with_the_grace_period_of_the_nursery(
    autojump_clock: MockClock,
) -> None:
    began = []

    async def starts_another() -> None:
        began.append(current_time())
        with move_on_after(0.75):
            await sleep_forever()
        if len(began) < 9:
            services.start_soon(starts_another)
        await sleep_forever()

    async with open_service_nursery(grace_period=1) as services:
        services.start_soon(starts_another)
        await wait_all_tasks_blocked()
        ended = current_time()
    assert current_time() == ended + 1
    assert len(began) == 2


async def test_a_service_that_is_started_after_the_grace_period_is_cancelled_at_once(
    autojump_clock: MockClock,
) -> None:
    log = Log()

    async def starts_another() -> None:
        try:
            await sleep_forever()
        finally:
            services.start_soon(log.run, "another")

    async with open_service_nursery(grace_period=1) as services:
        services.start_soon(starts_another)
        await wait_all_tasks_blocked()
        ended = current_time()
    assert current_time() == ended + 1
    assert log == ["another"]


async def test_a_closed_service_nursery_refuses_services() -> None:
    async with open_service_nursery() as services:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        services.start_soon(sleep_forever)
    with pytest.raises(RuntimeError, match="closed"):
        await services.start(sleep_forever)
    with pytest.raises(RuntimeError, match="enter the nursery first"):
        open_service_nursery().start_soon(sleep_forever)


async def test_what_is_not_a_function_is_refused_by_the_call() -> None:
    async with open_service_nursery() as services:
        with pytest.raises(TypeError):
            services.start_soon(3)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await services.start(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("grace", [-1, inf, nan, "1", None])
async def test_the_grace_period_of_services_must_be_a_finite_number(grace: float) -> None:
    with pytest.raises((ValueError, TypeError), match="grace"):
        open_service_nursery(grace_period=grace)


async def test_tasks_of_services_have_the_name_of_the_function() -> None:
    names: list[str] = []

    async def serves() -> None:
        names.append(nurseryio.lowlevel.current_task().name)

    async with open_service_nursery() as services:
        assert services.parent_task is nurseryio.lowlevel.current_task()
        services.start_soon(serves)
        services.start_soon(serves, name="mine")
        await wait_all_tasks_blocked()
        assert "ServiceNursery" in repr(services)
    assert names[0].endswith("serves")
    assert names[1] == "mine"


async def test_leaving_a_service_nursery_lets_other_tasks_run() -> None:
    ran: list[int] = []
    async with open_service_nursery():
        asyncio.get_running_loop().call_soon(ran.append, 1)
    assert ran == [1]


async def test_services_end_although_asking_them_has_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    real = CancelScope.request_stop
    failures = [MemoryError()]

    def fails_once(scope: CancelScope, grace_period: float = inf) -> None:
        if failures:
            raise failures.pop()
        real(scope, grace_period)

    monkeypatch.setattr(CancelScope, "request_stop", fails_once)
    with pytest.RaisesGroup(MemoryError):
        async with open_service_nursery() as services:
            services.start_soon(log.run, "service")
            await wait_all_tasks_blocked()
    assert log == ["service"]


async def test_an_exit_that_is_raised_while_services_are_asked_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log()
    real = CancelScope.request_stop
    failures = [KeyboardInterrupt()]

    def fails_once(scope: CancelScope, grace_period: float = inf) -> None:
        if failures:
            raise failures.pop()
        real(scope, grace_period)

    async def work() -> None:
        with pytest.raises(KeyboardInterrupt), CancelScope() as scope:
            async with open_service_nursery() as services:
                services.start_soon(log.run, "service")
                await wait_all_tasks_blocked()
                scope.cancel()
                await sleep_forever()

    monkeypatch.setattr(CancelScope, "request_stop", fails_once)
    # In a task of asyncio, where it leaves the outermost nursery without a group.
    await asyncio.create_task(work())
    assert log == ["service"]


async def test_a_service_nursery_can_be_cancelled_at_every_await() -> None:
    async def scenario(schedule: Schedule) -> None:
        log = Log()

        async def work() -> None:
            async with open_service_nursery() as services:
                services.start_soon(log.run, "service")
                await services.start(log.started, "service")
                async with open_nursery() as nursery:
                    nursery.start_soon(schedule.pause)
                    await nurseryio.lowlevel.checkpoint()
                log.append("body")

        await schedule.run(work)
        if "body" in log:
            assert log == ["body", "service", "service"]

    await cancel_at_every_await(scenario)
