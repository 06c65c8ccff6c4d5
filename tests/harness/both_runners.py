"""Scenarios as in ``both_builds``, for the wrapper of a child: a coroutine, or a ``Runner`` in C.

``python -m harness.both_runners`` prints one line for each scenario. There is one for each method
of a coroutine in each of its states, and for each way in which a child ends.
"""

from __future__ import annotations

import asyncio
import collections.abc
import gc
import inspect
import sys
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import nurseryio
from harness import matrix
from harness.both_builds import SCENARIOS, Held, main, names, scenario, shown, turns
from nurseryio import CancelScope, open_nursery, sleep_forever
from nurseryio.lowlevel import checkpoint, current_task, currently_ki_protected

SCENARIOS.clear()


def wrapper_of(task: Any) -> Any:
    """The coroutine that the asyncio task of a child steps. The task shows another one."""
    return asyncio.Task.get_coro(task.asyncio_task)


def tried(function: Callable[..., Any], *args: Any) -> str:
    try:
        return shown(function(*args))
    except BaseException as error:
        return shown(error)


class Waits:
    """A child that waits for a future, and does what it is told with the errors raised there."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.seen: list[str] = []
        self.future = asyncio.get_running_loop().create_future()

    async def run(self) -> Any:
        try:
            await self.future
            self.seen.append("woken")
        except BaseException as error:
            self.seen.append(shown(error))
            if self.kind == "returns":
                return ("a", "tuple")
            if self.kind == "waits on":
                await asyncio.sleep(0)
            if self.kind == "fails":
                raise ZeroDivisionError from None
            raise
        return None


KINDS = ("raises", "returns", "waits on", "fails")


async def in_a_nursery(kind: str, act: Callable[[Any], Any]) -> list[Any]:
    """Start a child that waits, act on its wrapper, wake the child, and show what comes of it."""
    child = Waits(kind)
    loop = asyncio.get_running_loop()
    found: list[Any] = [kind]
    asyncio_task: Any = None
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(child.run)
            (task,) = nursery.child_tasks
            asyncio_task = task.asyncio_task
            wrapper = wrapper_of(task)
            await turns()
            found += [tried(act, wrapper), len(nursery.child_tasks), wrapper.cr_running]
            found += [wrapper.cr_suspended, wrapper.cr_frame is None, wrapper.cr_await is None]
            if not child.future.done():
                loop.call_soon(child.future.set_result, None)
            await turns()
    except BaseException as error:
        found.append(error)
    await turns()
    found += [child.seen, asyncio_task.done() and not asyncio_task.cancelled()]
    if asyncio_task.done():
        found.append(asyncio_task.exception())
    return found


def twice(act: Callable[[Any], Any], wrapper: Any) -> list[str]:
    return [tried(act, wrapper), tried(act, wrapper)]


ACTS: dict[str, Callable[[Any], Any]] = {
    "close": lambda wrapper: wrapper.close(),
    "throw": lambda wrapper: wrapper.throw(KeyError("x")),
    "throw_of_a_class": lambda wrapper: wrapper.throw(KeyError),
    "throw_of_a_class_with_a_value": lambda wrapper: wrapper.throw(KeyError, "x"),
    "throw_of_a_tuple": lambda wrapper: wrapper.throw(KeyError, ("x", "y"), None),
    "throw_of_an_exit": lambda wrapper: wrapper.throw(GeneratorExit("x")),
    "throw_of_an_exit_class": lambda wrapper: wrapper.throw(GeneratorExit),
    "throw_of_a_stop": lambda wrapper: wrapper.throw(StopIteration(5)),
    "throw_of_a_cancellation": lambda wrapper: wrapper.throw(asyncio.CancelledError("x")),
    "throw_of_a_system_exit": lambda wrapper: wrapper.throw(SystemExit(3)),
}


def acts(name: str, act: Callable[[Any], Any], kind: str) -> Callable[[], Any]:
    async def run() -> Any:
        return await in_a_nursery(kind, act)

    run.__name__ = f"{name}_of_a_child_that_{kind}"
    return run


for _name, _act in ACTS.items():
    for _kind in KINDS:
        scenario(acts(_name, _act, _kind))
    if _name in ("close", "throw"):
        scenario(acts(f"{_name}_twice", partial(twice, _act), "raises"))


@scenario
async def a_wrapper_that_has_not_begun() -> Any:
    async with open_nursery() as nursery:
        nursery.start_soon(checkpoint)
        (task,) = nursery.child_tasks
        wrapper = wrapper_of(task)
        found = [tried(wrapper.send, 5), task._started, wrapper.cr_running, wrapper.cr_suspended]
        found += [wrapper.cr_frame is None, wrapper.cr_await is None]
        await turns()
    return [*found, task.asyncio_task.exception()]


@scenario
async def methods_of_a_wrapper_that_runs() -> Any:
    found: list[Any] = []

    async def child() -> None:
        wrapper = wrapper_of(current_task())
        found.extend([tried(wrapper.send, None), tried(wrapper.throw, KeyError())])
        found.extend([tried(wrapper.close), wrapper.cr_running, wrapper.cr_suspended])
        await checkpoint()
        found.append(wrapper.cr_await is None)

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        (task,) = nursery.child_tasks
    wrapper = wrapper_of(task)
    found.extend(
        [tried(wrapper.send, None), tried(wrapper.throw, KeyError()), tried(wrapper.close)]
    )
    found.extend([wrapper.cr_running, wrapper.cr_suspended, wrapper.cr_frame, wrapper.cr_await])
    return found


@scenario
async def a_wrapper_is_a_coroutine_for_asyncio_and_the_standard_library() -> Any:
    async with open_nursery() as nursery:
        nursery.start_soon(checkpoint)
        (task,) = nursery.child_tasks
        wrapper = wrapper_of(task)
        found = [asyncio.iscoroutine(wrapper), inspect.isawaitable(wrapper)]
        found.append(isinstance(wrapper, collections.abc.Coroutine))
        found.append(isinstance(wrapper.__await__(), collections.abc.Iterator))
    return found


@scenario
async def children_of_every_kind_of_coroutine_and_result() -> Any:
    results: list[Any] = [(1, 2), StopIteration(3), KeyError(4), None, {}]

    async def returning(result: Any) -> Any:
        await checkpoint()
        return result

    async def raises_stop() -> None:
        raise StopIteration(5)

    found = []
    functions: list[Any] = [partial(returning, result) for result in results]
    functions += [raises_stop, lambda: Held(returning(5))]
    for function in functions:
        try:
            async with open_nursery() as nursery:
                nursery.start_soon(function)
                (task,) = nursery.child_tasks
            found.append(task.asyncio_task.exception())
        except BaseException as error:
            found.append(error)
    return found


@scenario
async def what_readers_see_of_a_child() -> Any:
    found: list[Any] = []

    def look(task: Any) -> None:
        asyncio_task = task.asyncio_task
        coro = asyncio_task.get_coro()
        found.extend([coro is task.coro, coro.__qualname__, inspect.getcoroutinestate(coro)])
        found.append(names([frame for frame, _ in task.iter_await_frames()]))
        found.append(asyncio_task in asyncio.all_tasks())
        found.append("child" in repr(asyncio_task) and "_run_child" not in repr(asyncio_task))
        if coro.cr_frame is not None and not coro.cr_running:
            found.append(names(asyncio_task.get_stack()))
        found.append(nurseryio.lowlevel.current_task() is task)

    async def child() -> None:
        look(current_task())
        found.append(currently_ki_protected())
        await inner()

    async def inner() -> None:
        await checkpoint()
        look(task)

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        (task,) = nursery.child_tasks
        look(task)
        await asyncio.sleep(0)
        look(task)
    look(task)
    return found


@scenario
async def the_traceback_of_an_error_begins_in_the_function() -> Any:
    async def fails() -> None:
        await checkpoint()
        raise KeyError("x")

    try:
        async with open_nursery() as nursery:
            nursery.start_soon(fails)
    except BaseException as group:
        (error,) = group.exceptions  # type: ignore[attr-defined]
        return [error.__traceback__.tb_frame.f_code.co_name, error.__context__]
    return None


@scenario
async def recording_the_error_of_a_child_fails() -> Any:
    cls: Any = nurseryio.Nursery
    before = cls._fail
    calls: list[Any] = []

    def fail(nursery: Any, error: BaseException, task: Any) -> None:
        calls.append(shown(error))
        if len(calls) == 1:
            raise ZeroDivisionError
        before(nursery, error, task)

    async def child() -> None:
        await checkpoint()
        raise KeyError("x")

    cls._fail = fail
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            (task,) = nursery.child_tasks
    except BaseException as error:
        return [calls, error, task.asyncio_task.exception()]
    finally:
        cls._fail = before
    return calls


@scenario
async def native_cancellation_before_the_first_step() -> Any:
    found: list[Any] = []
    for message in ((), ("why",)):
        async with open_nursery() as nursery:
            nursery.start_soon(checkpoint)
            (task,) = nursery.child_tasks
            wrapper = wrapper_of(task)
            task.asyncio_task.cancel(*message)
        found += [task.asyncio_task.cancelled(), wrapper.cr_frame, task.coro.cr_frame]
        found += [task._started, tried(wrapper.send, None)]
    return found


async def waits_for(future: Any, found: list[Any]) -> None:
    try:
        await future
    except BaseException as error:
        found.append(type(error).__name__)
        raise
    finally:
        found.append("end")


async def host_of(found: list[Any]) -> None:
    async with open_nursery() as nursery:
        nursery.start_soon(waits_for, asyncio.get_running_loop().create_future(), found)


def drop_a_loop(kind: str, close: bool, steps: int) -> list[Any]:
    """Let the collector find a child that waits, on a loop that was stopped for good."""
    found: list[Any] = []
    loop = matrix.new_loop(kind)

    def unraisable(report: Any) -> None:
        found.append(shown(report.exc_value))

    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.set_exception_handler(lambda _loop, report: found.append(shown(report["message"])))
        task: Any = loop.create_task(host_of(found))
        for _ in range(steps):
            loop.call_soon(loop.stop)
            loop.run_forever()
        if close:
            loop.close()
        else:
            nurseryio._core.task.records.clear()
        del task, loop
        gc.collect()
        gc.collect()
    sys.unraisablehook = hook
    # The wrapper in Python has a warning of its own.
    texts = {str(warning.message) for warning in caught if "_run_child" not in str(warning.message)}
    return [*sorted(found), *sorted(texts)]


def dropped(kind: str, close: bool, steps: int) -> Callable[[], Any]:
    async def run() -> Any:
        return await asyncio.to_thread(drop_a_loop, kind, close, steps)

    run.__name__ = f"the_collector_finds_a_child_on_a_{kind}_loop_{close}_{steps}"
    return run


for _close in (True, False):
    for _steps in (1, 2, 4):
        scenario(dropped("stock", _close, _steps))


@scenario
async def a_scope_is_left_open_by_a_child_that_is_closed() -> Any:
    async def child() -> None:
        CancelScope().__enter__()
        await sleep_forever()

    try:
        async with open_nursery() as nursery:
            nursery.start_soon(child)
            (task,) = nursery.child_tasks
            await turns()
            wrapper_of(task).close()
    except BaseException as error:
        return error
    return None


if __name__ == "__main__":
    print(nurseryio.__compiled__, file=sys.stderr)
    main()
