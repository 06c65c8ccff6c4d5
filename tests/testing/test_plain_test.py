"""The decorator for async test functions, and the runner for plain code."""

from __future__ import annotations

import asyncio
import inspect
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

import nurseryio
from nurseryio.testing import (
    MockClock,
    Runner,
    nurseryio_test,
    open_stream_to_socket_listener,
    trio_test,
)


def test_nurseryio_test_makes_an_async_function_a_plain_one() -> None:
    @nurseryio_test
    async def test_it(x: int, *, y: int) -> int:
        """Adds."""
        await nurseryio.sleep(0)
        assert nurseryio.lowlevel.current_root_task() is not None
        return x + y

    assert not inspect.iscoroutinefunction(test_it)
    assert test_it.__name__ == "test_it"
    assert test_it.__doc__ == "Adds."
    assert test_it(1, y=2) == 3


def test_nurseryio_test_uses_a_clock_and_instruments_among_the_keyword_arguments() -> None:
    class Counter(nurseryio.abc.Instrument):
        runs = 0

        def before_run(self) -> None:
            self.runs += 1

    @nurseryio_test
    async def test_it(*, clock: MockClock, counter: Counter, other: object) -> None:
        assert nurseryio.lowlevel.current_clock() is clock
        await nurseryio.sleep(100)
        assert nurseryio.current_time() == 100

    counter = Counter()
    test_it(clock=MockClock(autojump_threshold=0), counter=counter, other=None)
    assert counter.runs == 1


def test_nurseryio_test_refuses_two_clocks() -> None:
    @nurseryio_test
    async def test_it(*, one: MockClock, two: MockClock) -> None:
        raise AssertionError("not reached")

    with pytest.raises(ValueError, match=r"^too many clocks spoil the broth!$"):
        test_it(one=MockClock(), two=MockClock())


def test_trio_test_is_an_alias() -> None:
    assert trio_test is nurseryio_test


# -- Runner ----------------------------------------------------------------------


class Noted:
    """An async context manager that notes its task and what it gets."""

    def __init__(self, name: str, log: list[object]) -> None:
        self.name = name
        self.log = log

    async def __aenter__(self) -> str:
        self.log.append(("enter", self.name, nurseryio.lowlevel.current_task()))
        return self.name

    async def __aexit__(self, _type: object, error: object, _tb: object) -> None:
        await nurseryio.lowlevel.checkpoint()
        self.log.append(("exit", self.name, nurseryio.lowlevel.current_task(), error))


async def double(number: int) -> int:
    await nurseryio.sleep(0)
    return 2 * number


def test_the_calls_of_a_runner_run_in_one_task_and_leave_managers_in_reverse_order() -> None:
    log: list[Any] = []
    with Runner() as runner:
        assert runner.enter(Noted("outer", log)) == "outer"
        assert runner.enter(Noted("inner", log)) == "inner"
        assert runner.run(double, 21) == 42
    assert [entry[:2] for entry in log] == [
        ("enter", "outer"),
        ("enter", "inner"),
        ("exit", "inner"),
        ("exit", "outer"),
    ]
    assert len({entry[2] for entry in log}) == 1
    assert [entry[3:] for entry in log[2:]] == [(None,), (None,)]


def test_a_nursery_that_a_runner_has_entered_stays_open_between_calls() -> None:
    seen: list[int] = []

    async def note(number: int) -> None:
        await nurseryio.sleep(0)
        seen.append(number)

    async def spawn(nursery: nurseryio.Nursery, number: int) -> None:
        nursery.start_soon(note, number)

    with Runner() as runner:
        nursery = runner.enter(nurseryio.open_nursery())
        for number in range(3):
            runner.run(spawn, nursery, number)
    assert sorted(seen) == [0, 1, 2]  # the end of the runner has waited for them


def test_a_scope_that_a_runner_has_entered_cancels_its_calls_at_its_deadline() -> None:
    @asynccontextmanager
    async def limited() -> AsyncIterator[None]:
        with nurseryio.fail_after(10):
            yield

    clock = MockClock(autojump_threshold=0)
    with pytest.raises(nurseryio.TooSlowError), Runner(clock=clock) as runner:
        runner.enter(limited())
        runner.run(nurseryio.sleep, 9)
        runner.run(nurseryio.sleep, 9)
        raise AssertionError("never reached")
    assert clock.current_time() == 10


def test_the_error_of_a_runners_block_reaches_the_managers() -> None:
    log: list[Any] = []
    error = KeyError("body")
    with pytest.raises(KeyError) as caught, Runner() as runner:
        runner.enter(Noted("manager", log))
        raise error
    assert caught.value is error
    assert log[-1][3] is error


def test_a_manager_that_suppresses_the_error_of_a_runners_block_ends_it() -> None:
    @asynccontextmanager
    async def suppressing() -> AsyncIterator[None]:
        with suppress(KeyError):
            yield

    with Runner() as runner:
        runner.enter(suppressing())
        raise KeyError
    with pytest.raises(RuntimeError, match="the Runner is closed"):
        runner.run(double, 1)


def test_background_tasks_of_a_runner_run_during_calls_and_are_cancelled_at_its_end() -> None:
    ends: list[str] = []
    beats: list[float] = []

    async def heartbeat() -> None:
        try:
            while True:
                await nurseryio.sleep(60)
                beats.append(nurseryio.current_time())
        finally:
            ends.append("heartbeat")

    log: list[Any] = []
    with Runner(clock=MockClock(autojump_threshold=0)) as runner:
        runner.enter(Noted("database", log))
        runner.start_soon(heartbeat, name="heart")
        runner.run(nurseryio.sleep, 150)
        assert beats == [60, 120]
        ends.append("body")
    assert ends == ["body", "heartbeat"]
    assert log[-1][:2] == ("exit", "database")


def test_start_of_a_runner_returns_the_value_of_a_server_that_serves_further_calls() -> None:
    async def echo(stream: nurseryio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async def ask(listener: nurseryio.SocketListener) -> bytes:
        async with await open_stream_to_socket_listener(listener) as client:
            await client.send_all(b"hello")
            return bytes(await client.receive_some())

    with Runner() as runner:
        listeners = runner.start(nurseryio.serve_tcp, echo, 0, name="server")
        assert runner.run(ask, listeners[0]) == b"hello"
        assert runner.run(ask, listeners[0]) == b"hello"


def test_an_error_of_a_background_task_cancels_calls_and_is_raised_at_the_end() -> None:
    async def fail() -> None:
        raise KeyError("background")

    with pytest.raises(BaseException) as caught, Runner() as runner:
        runner.start_soon(fail)
        runner.run(nurseryio.sleep_forever)
        raise AssertionError("never reached")
    (error,) = caught.value.exceptions  # type: ignore[attr-defined]
    assert error.args == ("background",)


def test_close_of_a_runner_can_be_a_cleanup_and_be_called_again() -> None:
    log: list[Any] = []
    runner = Runner()
    assert repr(runner).endswith(", new>")
    runner.enter(Noted("manager", log))
    assert repr(runner).endswith(", open>")
    runner.close()
    runner.close()
    assert repr(runner).endswith(", closed>")
    assert len(log) == 2
    with pytest.raises(RuntimeError, match="the Runner is closed"), runner:
        pass
    unused = Runner()
    unused.close()
    with pytest.raises(RuntimeError, match="the Runner is closed"):
        unused.enter(Noted("manager", log))


def test_a_call_of_a_runner_inside_another_one_is_refused_and_changes_nothing() -> None:
    async def inner() -> None:
        with pytest.raises(RuntimeError, match="this Runner is in a call"):
            runner.run(double, 1)
        with pytest.raises(RuntimeError, match="this Runner is in a call"):
            runner.close()

    with Runner() as runner:
        runner.run(inner)
        assert runner.run(double, 1) == 2


def test_an_error_of_entering_leaves_what_a_runner_has_entered_before() -> None:
    log: list[Any] = []
    with Runner() as runner:
        runner.enter(Noted("manager", log))
        with pytest.raises(TypeError, match=r"builtins\.list is not an async context manager"):
            runner.enter(log)  # type: ignore[arg-type]
        assert runner.run(double, 2) == 4
    assert log[-1][:2] == ("exit", "manager")


def test_an_error_of_leaving_a_manager_is_raised_and_the_loop_of_the_runner_is_closed() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[asyncio.AbstractEventLoop]:
        yield asyncio.get_running_loop()
        raise KeyError("leaving")

    runner = Runner()
    loop = runner.enter(broken())
    with pytest.raises(KeyError, match="leaving"):
        runner.close()
    assert loop.is_closed()


async def test_a_runner_in_a_running_loop_is_refused() -> None:
    runner = Runner()
    with pytest.raises(RuntimeError, match="a Runner is for code without an event loop"):
        runner.run(double, 1)
    runner.close()


def test_a_runner_that_was_used_and_never_closed_gives_a_resource_warning() -> None:
    runner = Runner()
    loop = runner.run(_loop)
    with pytest.warns(ResourceWarning, match=r"unclosed <.*Runner at .*, open>: call close\(\)"):
        runner.__del__()
    runner.close()
    assert loop.is_closed()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runner.__del__()
        Runner().__del__()  # new: there is nothing to be closed


async def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_close_of_a_runner_from_another_thread_during_a_call_is_refused() -> None:
    errors: list[BaseException] = []

    def close() -> None:
        try:
            runner.close()
        except RuntimeError as error:
            errors.append(error)

    with Runner() as runner:
        runner.run(nurseryio.to_thread.run_sync, close)
        assert runner.run(double, 1) == 2
    assert [str(error)[:24] for error in errors] == ["this Runner is in a call"]
