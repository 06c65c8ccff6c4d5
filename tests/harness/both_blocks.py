"""Scenarios as in ``both_builds``, for the block of a nursery: entering it, and its end.

``python -m harness.both_blocks`` prints one line for each scenario. There is one for each test by
which the C module finds that the case is not ordinary, and for each way in which the end of a block
is interrupted: in its yield, and in its wait for the children.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import nurseryio
from harness.both_builds import SCENARIOS, main, names, scenario, shown, state_of, tried, turns
from nurseryio import CancelScope, open_nursery, sleep_forever
from nurseryio._core.task import await_frames
from nurseryio._observe.waits import wait_of
from nurseryio.lowlevel import checkpoint, current_task

SCENARIOS.clear()


async def ended(awaitable: Awaitable[Any]) -> str:
    """The result or error of an awaitable, and the fields of the task that the wait writes."""
    try:
        text = shown(await awaitable)
    except BaseException as error:
        text = shown(error)
    task: Any = current_task()
    fields = [task._park, getattr(task, "_abort", None), task._shielded_step]
    return f"{text} {shown(fields)} {task.scope._parent is None}"


def prediction() -> int:
    task: Any = current_task()
    return int(task._state.slow_exit_prediction)


def left(nursery: Any) -> list[Any]:
    """All that a nursery shows after its block."""
    fields = [nursery._body_running, nursery._closed, nursery._errors, nursery._waiter]
    return [*fields, len(nursery._children), nursery._strict, *state_of(nursery.cancel_scope)]


async def child(steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


async def fails(steps: int, error: type[BaseException] = ValueError) -> None:
    await child(steps)
    raise error("child")


# -- entering ------------------------------------------------------------------------


@scenario
async def a_block_is_entered() -> Any:
    nursery: Any = open_nursery()
    entering = nursery.__aenter__()
    found: list[Any] = [inspect.iscoroutine(entering), nursery.cancel_scope._entered]
    found.append(await entering is nursery)
    found += [nursery._parent_task is current_task(), nursery._closed, nursery._body_running]
    found.append(nursery.cancel_scope._nursery is nursery)
    found.append(await ended(entering))
    found.append(await ended(nursery.__aenter__()))
    found += [await nursery.__aexit__(None, None, None), *left(nursery)]
    found.append(await ended(nursery.__aenter__()))
    return found


@scenario
async def a_block_is_entered_where_it_must_not_be() -> Any:
    found: list[Any] = []
    loop = asyncio.get_running_loop()
    for strict in (None, True):
        nursery: Any = open_nursery(strict)
        entering = nursery.__aenter__()
        done = loop.create_future()
        loop.call_soon(lambda e=entering, d=done: d.set_result(tried(lambda: e.send(None))))
        found += [await done, *left(nursery)]
    with CancelScope() as scope:
        scope.cancel("outer")
        async with open_nursery() as nursery:
            found.append(nursery.cancel_scope._effective)
            found.append(await ended(checkpoint()))
    found += left(nursery)
    unused = open_nursery().__aenter__()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del unused
        gc.collect()
    return [*found, *(str(each.message) for each in caught)]


@scenario
async def a_native_cancel_is_pending_when_a_block_is_entered() -> Any:
    async def run() -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("native")
        async with open_nursery() as nursery:
            found = [await ended(asyncio.sleep(0))]
        return [*found, *left(nursery)]

    return await asyncio.ensure_future(run())


# -- the end of a block ----------------------------------------------------------------


@scenario
async def blocks_end_with_children_that_take_more_or_less_time() -> Any:
    found: list[Any] = []
    for steps in (0, 3, 0, None, 1, *(2,) * 10, None, 0, 0):
        async with open_nursery() as nursery:
            if steps is not None:
                nursery.start_soon(child, steps)
        found.append([prediction(), *left(nursery)])
    return found


@scenario
async def the_result_of_leaving() -> Any:
    found: list[Any] = []
    for error in (None, ValueError("body")):
        for steps in (None, 0, 3):
            nursery: Any = open_nursery()
            await nursery.__aenter__()
            if steps is not None:
                nursery.start_soon(child, steps)
            leaving = nursery.__aexit__(type(error), error, None)
            found.append([inspect.iscoroutine(leaving), await ended(leaving), *left(nursery)])
            found.append(await ended(leaving))
            found.append(await ended(nursery.__aexit__(None, None, None)))
            found.append(tried(lambda nursery=nursery: nursery.start_soon(child, 0)))
    never: Any = open_nursery()
    found.append(await ended(never.__aexit__(None, None, None)))
    other = await open_nursery().__aenter__()
    found.append(await ended(asyncio.ensure_future(in_other_task(other))))
    return [*found, *left(other)]


async def in_other_task(nursery: Any) -> Any:
    return await ended(nursery.__aexit__(None, None, None))


@scenario
async def errors_of_children_at_the_end() -> Any:
    found: list[Any] = []
    for first, second in ((0, 0), (0, 2), (2, 0), (2, 3)):
        for error in (ValueError, KeyboardInterrupt, SystemExit):
            for strict in (None, True):
                nursery: Any = open_nursery(strict)
                try:
                    async with nursery:
                        nursery.start_soon(fails, first, error)
                        nursery.start_soon(fails, second)
                        nursery.start_soon(sleep_forever)
                except BaseException as group:
                    found.append(group)
                    trace = group.__traceback__
                    assert trace is not None
                    found.append(trace.tb_frame.f_code.co_name)
                found.append(left(nursery))
    return found


@scenario
async def notes_of_named_children() -> Any:
    found: list[Any] = []
    for steps in (0, 2):
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(fails, steps, name="number one")
        except BaseException as group:
            (error,) = group.exceptions  # type: ignore[attr-defined]
            found += [note.rpartition("/")[2] for note in error.__notes__]
    return found


@scenario
async def the_scope_of_a_block_at_its_end() -> Any:
    found: list[Any] = []
    for steps in (0, 2):
        async with open_nursery() as nursery:
            nursery.cancel_scope.deadline = nurseryio.current_time() + 100
            nursery.start_soon(child, steps)
        task: Any = current_task()
        found += [left(nursery), len(task._state.deadlines._heap)]
        async with open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            nursery.start_soon(child, steps)
        found.append(left(nursery))
        with CancelScope() as outer:
            async with open_nursery() as nursery:
                nursery.start_soon(child, steps)
                outer.cancel()
        found += [outer.cancelled_caught, left(nursery)]
        async with open_nursery() as nursery:
            nursery.start_soon(child, steps)
            nursery.cancel_scope.cancel()
        found.append(left(nursery))
        async with open_nursery() as nursery:
            nursery.start_soon(sleep_forever)
            nursery.cancel_scope.deadline = nurseryio.current_time()
        found.append(left(nursery))
        nursery = await open_nursery().__aenter__()
        nursery.start_soon(child, steps)
        found.append(tried(lambda nursery=nursery: nursery.cancel_scope.__exit__(None, None, None)))
        found += [await ended(nursery.__aexit__(None, None, None)), left(nursery)]
        outer = CancelScope()
        outer.__enter__()
        nursery = await open_nursery().__aenter__()
        nursery.start_soon(child, steps)
        found.append(tried(lambda outer=outer: outer.__exit__(None, None, None)))
        found += [await ended(nursery.__aexit__(None, None, None)), left(nursery)]
        nursery = await open_nursery().__aenter__()
        inner = CancelScope()
        inner.__enter__()
        nursery.start_soon(child, steps)
        found += [await ended(nursery.__aexit__(None, None, None)), left(nursery)]
        found.append(tried(lambda inner=inner: inner.__exit__(None, None, None)))
    return found


@scenario
async def start_is_called_while_the_block_ends() -> Any:
    found: list[Any] = []

    async def starts(nursery: Any, steps: int) -> None:
        await child(steps)
        found.append(await ended(nursery.start(service, steps)))

    async def service(steps: int, task_status: Any = nurseryio.TASK_STATUS_IGNORED) -> None:
        await child(steps)
        task_status.started("value")
        await child(steps)

    for steps in (0, 1, 3):
        async with open_nursery() as nursery:
            await nursery.start(service, 0)
            nursery.start_soon(starts, nursery, steps)
        found.append(left(nursery))
        async with open_nursery() as outer, open_nursery() as nursery:
            outer.start_soon(starts, nursery, steps)
            await child(steps + 1)
        found.append(left(nursery))
    return found


# -- an end that is interrupted -----------------------------------------------------------


class Raises:
    """An abort function's outcome."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def interruptions() -> list[Callable[[Any, Any], object]]:
    """What happens to the host task while its block ends; called with it and the nursery."""

    def native(task: Any, _nursery: Any) -> None:
        task.asyncio_task.cancel("native")

    def native_twice(task: Any, _nursery: Any) -> None:
        task.asyncio_task.cancel("native")
        asyncio.get_running_loop().call_soon(task.asyncio_task.cancel, "again")

    def cancel(_task: Any, nursery: Any) -> None:
        nursery.cancel_scope.cancel("inner")

    def cancel_outer(_task: Any, nursery: Any) -> None:
        nursery.cancel_scope._parent.cancel("outer")

    def both(task: Any, nursery: Any) -> None:
        nursery.cancel_scope.cancel("inner")
        task.asyncio_task.cancel("native")

    def interrupt(task: Any, nursery: Any) -> None:
        def raise_cancel() -> Any:
            raise KeyboardInterrupt

        if task._park is not None:
            nurseryio._core.delivery.abort_wait(task, raise_cancel)

    def woken_early(_task: Any, nursery: Any) -> None:
        if nursery._waiter is not None:
            nursery._waiter.set_result(None)

    def woken_with_an_error(_task: Any, nursery: Any) -> None:
        if nursery._waiter is not None:
            nursery._waiter.set_result(Raises(ZeroDivisionError("outcome")))

    def woken_wrongly(_task: Any, nursery: Any) -> None:
        if nursery._waiter is not None:
            nursery._waiter.set_result("no outcome")

    def cancelled_future(_task: Any, nursery: Any) -> None:
        if nursery._waiter is not None:
            nursery._waiter.cancel("future")

    def failed_future(_task: Any, nursery: Any) -> None:
        if nursery._waiter is not None:
            nursery._waiter.set_exception(OSError("future"))

    def look(task: Any, nursery: Any) -> list[Any]:
        coro = task.asyncio_task.get_coro()
        wait = wait_of(task)
        return [
            names([frame for frame, _ in await_frames(coro)], ("join_children",)),
            None if wait is None else wait.text,
            nursery._body_running,
            nursery._closed,
        ]

    return [
        *(native, native_twice, cancel, cancel_outer, both, interrupt, woken_early),
        *(woken_with_an_error, woken_wrongly, cancelled_future, failed_future, look),
    ]


async def interrupted(number: int, steps: int, before: int) -> Any:
    """The end of a block, with a child of so many steps, is interrupted before this iteration."""
    found: list[Any] = []
    made: list[Any] = []

    async def host() -> None:
        with CancelScope() as outer:
            nursery: Any = open_nursery()
            made.extend((current_task(), nursery))
            try:
                async with nursery:
                    nursery.start_soon(child, steps)
                    nursery.start_soon(child, steps + 1)
                    made.append(True)
            except BaseException as error:
                found.append(error)
                found.append(error.__context__)
            found.append(await ended(asyncio.sleep(0)))
            found.append(left(nursery))
        found.append(state_of(outer))
        found.append(await ended(asyncio.sleep(0)))
        task = asyncio.current_task()
        found.append(getattr(task, "cancelling", int)())

    if before % 2:  # the next nursery is expected to take long
        async with open_nursery() as slow:
            slow.start_soon(child, 3)
    task = asyncio.ensure_future(host())
    while len(made) < 3:
        await asyncio.sleep(0)
    await turns(before // 2)
    found.append(interruptions()[number](*made[:2]))
    await asyncio.wait([task])
    return [found, task.cancelled() or task.exception(), prediction() >= 0]


def interrupting(number: int, steps: int, before: int) -> Callable[[], Any]:
    async def run() -> Any:
        return await interrupted(number, steps, before)

    what = interruptions()[number].__name__
    run.__name__ = f"{what}_at_the_end_of_a_block_{steps}_{before}"
    return run


for _number in range(len(interruptions())):
    for _steps in (0, 1, 4):
        for _before in range(6):
            scenario(interrupting(_number, _steps, _before))


class Steps:
    """A coroutine that is stepped by hand."""

    def __init__(self, coro: Any) -> None:
        self.coro = coro

    def __await__(self) -> Any:
        sent: Any = None
        while True:
            try:
                yielded = self.coro.send(sent)
            except StopIteration as stop:
                return stop.value
            sent = yield yielded


def thrown(
    error: BaseException | type[BaseException], steps: int, again: bool
) -> Callable[[], Any]:
    async def run() -> Any:
        found: list[Any] = []
        nursery: Any = open_nursery()
        await nursery.__aenter__()
        if steps:
            nursery.start_soon(child, steps)
        leaving = nursery.__aexit__(None, None, None)
        if again:
            task: Any = current_task()
            task._state.slow_exit_prediction = 5
        found.append(tried(lambda: leaving.send(None)))
        try:
            if error is GeneratorExit:
                found.append(leaving.close())
            else:
                found.append(leaving.throw(error))
                found.append(await Steps(leaving))
        except BaseException as raised:
            found += [raised, raised.__context__]
        task = current_task()
        found += [task._park, task._shielded_step, nursery._closed, len(nursery._children)]
        if not nursery._closed:
            nursery.cancel_scope.cancel()
        await turns(8)
        return [*found, *left(nursery)]

    name = error.__name__ if isinstance(error, type) else type(error).__name__
    run.__name__ = f"{name}_is_thrown_into_the_end_of_a_block_{steps}_{again}"
    return run


for _error in (GeneratorExit, KeyboardInterrupt, ValueError, asyncio.CancelledError, SystemExit):
    for _steps in (0, 1, 3):
        for _again in (False, True):
            scenario(thrown(_error, _steps, _again))


@scenario
async def waking_the_end_of_a_block_fails() -> Any:
    loop: Any = asyncio.get_running_loop()
    found: list[Any] = []
    for after in (False, True):

        async def ends_when_call_soon_fails(after: bool = after) -> None:
            await child(3)
            call_soon = loop.call_soon

            def fail(*args: Any, **options: Any) -> Any:
                del loop.call_soon
                if after:
                    call_soon(*args, **options)
                raise MemoryError

            loop.call_soon = fail

        try:
            async with open_nursery() as nursery:
                nursery.start_soon(ends_when_call_soon_fails)
        except BaseException as error:
            found.append(error)
        found.append(left(nursery))
    return found


@scenario
async def an_unused_end_is_dropped() -> Any:
    found: list[Any] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nursery: Any = await open_nursery().__aenter__()
        unused = nursery.__aexit__(None, None, None)
        del unused
        gc.collect()
        found += [str(each.message) for each in caught]
    found.append(await ended(nursery.__aexit__(None, None, None)))
    return [*found, *left(nursery)]


if __name__ == "__main__":
    print(nurseryio.__compiled__, file=sys.stderr)
    main()
