"""A program whose output must be the same on both builds: each ordinary and each unusual case.

``python -m harness.both_builds`` prints one line for each scenario. A scenario is an async function
that is run in a loop of its own, on the stock loop and on uvloop. The line has what the function
returned or raised. The compiled functions (``nurseryio._speedups``) leave every case that is not
ordinary to the Python functions, so there is a scenario for each test that they make.
"""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import gc
import importlib
import re
import sys
import threading
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from math import inf, nan
from types import SimpleNamespace
from typing import Any

import nurseryio
from harness import matrix
from nurseryio import CancelScope, fail_after, move_on_after, open_nursery, sleep_forever
from nurseryio._base import watchers
from nurseryio.lowlevel import Abort, checkpoint, current_task, wait_task_rescheduled

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

SCENARIOS: list[Callable[[], Any]] = []


def scenario(function: Callable[[], Any]) -> Callable[[], Any]:
    SCENARIOS.append(function)
    return function


def shown(value: object) -> str:
    """A value or error without addresses, clocks and line numbers."""
    if isinstance(value, BaseExceptionGroup):
        members = ", ".join(map(shown, value.exceptions))
        return f"{type(value).__name__}({value.message!r}, [{members}])"
    if isinstance(value, BaseException):
        context = f" from {shown(value.__context__)}" if value.__context__ else ""
        text = f"{type(value).__name__}({', '.join(map(shown, value.args))}){context}"
    elif isinstance(value, (list, tuple)):
        text = f"[{', '.join(map(shown, value))}]"
    else:
        text = str(value)
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    return re.sub(r"\d+\.\d\d seconds", "some seconds", text).partition("\n")[0]


def tried(function: Callable[[], Any]) -> str:
    try:
        return shown(function())
    except Exception as error:
        return shown(error)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def names(frames: list[Any], without: tuple[str, ...] = ()) -> list[str]:
    found = [frame.f_code.co_name for frame in frames]
    return [name for name in found if name not in without]


def state_of(scope: CancelScope) -> list[Any]:
    """All that a scope shows, and all slots that do not depend on time."""
    slots = ("_called", "_effective", "_abandoned", "_entered", "_shielded", "_relative", "_reason")
    public = (scope.cancel_called, scope.cancelled_caught, scope.shield, scope.is_relative)
    missing = [
        name for name in ("_parent", "_native_requests_at_entry") if not hasattr(scope, name)
    ]
    extra = [getattr(scope, "_native_requests_at_entry", None), scope._entry is None, scope._task]
    return [*public, *(getattr(scope, name) for name in slots), *missing, *extra]


# -- scopes -------------------------------------------------------------------------


@scenario
async def arguments_of_a_scope() -> Any:
    wrong: Any = CancelScope
    made = [
        tried(lambda given=given: state_of(wrong(**given)))  # type: ignore[misc]
        for given in (
            *({}, {"shield": True}, {"shield": 1}, {"deadline": 5}, {"deadline": nan}),
            *({"relative_deadline": 5}, {"relative_deadline": -1}, {"deadline": inf}),
            *({"deadline": 1, "relative_deadline": 1}, {"deadline": "x"}, {"unknown": 1}),
        )
    ]
    made.append(tried(lambda: wrong(1)))
    made.append(tried(lambda: wrong(1, shield=True)))
    made.append(tried(lambda: type("Sub", (wrong,), {})))
    return made


@scenario
async def time_limits() -> Any:
    made: list[Any] = []
    for limit in (move_on_after, fail_after):
        for seconds in (0, 0.0, 1, 2.5, True, -1, nan, inf, 10**400, 10**30, Decimal(3), "x", None):
            for given in ({}, {"shield": True}, {"shield": False}, {"shield": 1}):

                def enter(
                    limit: Any = limit, seconds: Any = seconds, given: Any = given
                ) -> list[Any]:
                    with limit(seconds, **given) as scope:
                        inside = state_of(scope)
                        due = scope.deadline - nurseryio.current_time()
                        inside.append(due if due == inf else round(due))
                    return [*inside, *state_of(scope), limit.__name__]

                made.append(tried(enter))
    return made


@scenario
async def a_scope_is_entered_and_left() -> Any:
    with CancelScope() as outer:
        with CancelScope() as inner:
            inside = [inner._parent is outer, current_task().scope is inner]
            await checkpoint()
        inside.append(current_task().scope is outer)
    return [inside, state_of(inner), state_of(outer), inner._parent is outer]


@scenario
async def a_scope_is_entered_twice() -> Any:
    with CancelScope() as scope:
        pass
    return [tried(scope.__enter__), tried(lambda: scope.__exit__(None, None, None))]


@scenario
async def a_scope_is_left_that_was_not_entered() -> Any:
    return tried(lambda: CancelScope().__exit__(None, None, None))


@scenario
async def the_wrong_number_of_arguments() -> Any:
    scope: Any = CancelScope()
    counts = [tried(partial(scope.__exit__, *range(number)))[:9] for number in (0, 1, 2, 4, 5)]
    return [counts, tried(lambda: scope.__enter__(1))[:9]]


@scenario
async def the_methods_of_a_scope_on_another_object() -> Any:
    enter: Any = CancelScope.__enter__
    start: Any = nurseryio.Nursery.start_soon
    found = []
    for call in (lambda: enter(object()), lambda: start(object(), checkpoint)):
        try:
            call()
        except (TypeError, AttributeError):
            found.append("refused")
    return found


@scenario
async def a_scope_in_a_callback() -> Any:
    found: list[str] = []
    asyncio.get_running_loop().call_soon(lambda: found.append(tried(CancelScope().__enter__)))
    await turns()
    return found


@scenario
async def a_scope_in_a_thread_without_a_loop() -> Any:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.append(tried(CancelScope().__enter__)))
    thread.start()
    thread.join()
    return found


@scenario
async def a_cancelled_scope_is_entered() -> Any:
    scope = CancelScope()
    scope.cancel("early")
    with scope:
        inside = state_of(scope)
        await checkpoint()
    return [inside, state_of(scope)]


@scenario
async def scopes_in_a_cancelled_scope() -> Any:
    states = []
    with CancelScope() as outer:
        outer.cancel()
        for scope in (CancelScope(), CancelScope(shield=True), move_on_after(5)):
            with scope:
                states.append(state_of(scope))
                with contextlib.suppress(nurseryio.Cancelled):
                    await checkpoint()
            states.append(state_of(scope))
    return [states, state_of(outer)]


@scenario
async def a_scope_fires() -> Any:
    with move_on_after(0.01) as scope:
        await sleep_forever()
    with move_on_after(0) as other:
        await sleep_forever()
    return [state_of(scope), state_of(other)]


@scenario
async def scopes_that_are_due_as_they_are_entered() -> Any:
    class Watcher:
        def made(self, _thing: Any) -> None: ...

    task: Any = current_task()
    found: list[Any] = []

    async def enters(made: Any) -> None:
        with made as scope:
            found.append([task.scope is scope, scope._effective, scope._called, scope._entry])
            found.append([task._recheck_queued, shown(scope._reason), scope.deadline < inf])
            found.append(await ended(checkpoint()))
            found.append(await ended(asyncio.sleep(0.001)))
            await checkpoint()
        found.append([state_of(scope), task._recheck_queued, task._owns_cancel_request])

    async def ended(awaitable: Any) -> str:
        try:
            return shown(await awaitable)
        except BaseException as error:
            return shown(error)

    for seconds in (0, 0.0, -0.0, False):
        await enters(move_on_after(seconds))
        await enters(move_on_after(seconds, shield=True))
    for deadline in (-inf, 0.0):
        await enters(nurseryio.move_on_at(deadline))
    fraction: Any = Decimal(0)
    await enters(move_on_after(fraction))
    with CancelScope() as outer:
        outer.cancel("outer")
        await enters(move_on_after(0))
    watcher = Watcher()
    watchers.watch(watcher)
    try:
        await enters(move_on_after(0))
    finally:
        watchers.unwatch(watcher)
    return found


@scenario
async def timeouts_are_left_out_of_their_order_in_the_heap() -> Any:
    heap = current_task()._state.deadlines
    before = len(heap)
    with move_on_after(5) as outer, move_on_after(6) as inner:
        inside = [len(heap) - before, outer._entry is not None]
        inner.deadline += 1
        inside.append(len(heap) - before)
    with move_on_after(6), move_on_after(5):
        inside.append(len(heap) - before)
    heap._validate()
    return [inside, len(heap) - before, state_of(outer), state_of(inner)]


@scenario
async def a_watcher_notes_deadlines_and_swallowed_cancels() -> Any:
    class Watcher:
        def made(self, _thing: Any) -> None: ...

    watcher = Watcher()
    watchers.watch(watcher)
    try:
        found: list[Any] = []
        with move_on_after(5) as limit:
            found.append(len(limit._entry or ()))
        with move_on_after(0.001) as fired:
            await sleep_forever()
        found.append([fired._reason is not None, state_of(fired)[:4], limit._entry])
        async with open_nursery() as nursery:
            nursery.start_soon(swallows)
            nursery.start_soon(swallows)
            (task, _) = nursery._children
            await turns()
            nursery.cancel_scope.cancel()
            with CancelScope(shield=True):
                await turns()
                found.append(task._extra.swallowed is not None)
    finally:
        watchers.unwatch(watcher)
    with move_on_after(5) as limit:
        found.append(len(limit._entry or ()))
    return found


@scenario
async def the_clock_fails() -> Any:
    state = current_task()._state

    class Loop:
        def time(self) -> float:
            raise ZeroDivisionError

    loop, scope = state.loop, move_on_after(1)
    state.loop = Loop()  # type: ignore[assignment]
    try:
        raised = tried(scope.__enter__)
    finally:
        state.loop = loop
    return [raised, state_of(scope), len(state.deadlines)]


@scenario
async def arming_the_timer_fails() -> Any:
    state = current_task()._state
    cls: Any = type(state)
    arm, scope = cls._arm, move_on_after(1e-9)

    def fail(_self: Any, _when: float) -> None:
        raise ZeroDivisionError

    cls._arm = fail
    try:
        raised = tried(scope.__enter__)
    finally:
        cls._arm = arm
    return [raised, state_of(scope), current_task().scope is scope._parent, len(state.deadlines)]


@scenario
async def a_native_cancel_is_pending() -> Any:
    async def child() -> Any:
        asyncio.current_task().cancel("native")  # type: ignore[union-attr]
        scope = CancelScope()
        with scope:
            states = state_of(scope)
            try:
                await checkpoint()
            except nurseryio.Cancelled as error:
                states.append(shown(error))
        with move_on_after(1) as later:
            pass
        return [states, state_of(scope), state_of(later)]

    return await asyncio.create_task(child())


@scenario
async def scopes_are_left_in_the_wrong_order_and_by_others() -> Any:
    outer, inner, other = CancelScope(), CancelScope(), CancelScope()
    outer.__enter__()
    inner.__enter__()
    found = [tried(lambda: outer.__exit__(None, None, None))]
    found.append(tried(lambda: inner.__exit__(None, None, None)))
    other.__enter__()

    async def leave() -> str:
        return tried(lambda: other.__exit__(None, None, None))

    found.append(await asyncio.create_task(leave()))
    other.__exit__(None, None, None)
    return [found, *map(state_of, (outer, inner, other))]


@scenario
async def the_scope_of_a_nursery_is_left_by_hand() -> Any:
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(sleep_forever)
            nursery.cancel_scope.__exit__(None, None, None)
    except BaseExceptionGroup as group:
        return shown(group)


@scenario
async def an_error_leaves_a_scope() -> Any:
    errors = []
    for cancelled in (False, True):
        try:
            with CancelScope() as scope:
                if cancelled:
                    scope.cancel()
                raise KeyError("x")
        except KeyError as error:
            errors.append((error, *state_of(scope)))
    return errors


@scenario
async def scopes_while_the_backend_of_anyio_is_loaded() -> Any:
    anyio = importlib.import_module("anyio")
    importlib.import_module("anyio._backends._asyncio")
    found = []
    with anyio.CancelScope() as theirs:
        with CancelScope() as ours, move_on_after(3) as limit:
            found += [*state_of(ours), *state_of(limit)]
            theirs.cancel()
            with contextlib.suppress(nurseryio.Cancelled):
                await checkpoint()
    async with open_nursery() as nursery:
        nursery.start_soon(anyio.sleep, 5)
        await turns()
        nursery.cancel_scope.cancel()
    return [found, theirs.cancelled_caught, state_of(nursery.cancel_scope)]


# -- children -----------------------------------------------------------------------


async def returns(*args: Any) -> Any:
    return args


class Held:
    """A coroutine that is not one of Python's functions."""

    def __init__(self, coro: Any) -> None:
        self.coro = coro

    def send(self, value: Any) -> Any:
        return self.coro.send(value)

    def throw(self, *args: Any) -> Any:
        return self.coro.throw(*args)

    def close(self) -> None:
        self.coro.close()

    def __await__(self) -> Any:
        return self.coro.__await__()


collections.abc.Coroutine.register(Held)


def held(*args: Any) -> Any:
    return Held(returns(*args))


async def fails(*args: Any) -> None:
    raise ValueError(*args)


class Awaitable:
    def __await__(self) -> Any:
        yield from asyncio.sleep(0).__await__()


@scenario
async def functions_that_are_not_async() -> Any:
    found: list[str] = []

    def raises(error: Exception) -> Any:
        raise error

    async with open_nursery() as nursery:
        start: Any = nursery.start_soon
        coro = returns()
        for args in (
            *((None,), (3, 4), (coro,), (print,), (lambda: None,), (lambda: 3,), (returns, 1, 2)),
            *((raises, TypeError("own")), (raises, KeyError("own")), (partial(returns, 1), 2)),
            *((Awaitable,), (returns,), (asyncio.sleep, 0)),
        ):
            found.append(tried(lambda args=args: start(*args)))  # type: ignore[misc]
        coro.close()
        found.append(tried(start)[:9])
        found.append(tried(lambda: start(returns, wrong=1))[:9])
        found.append(tried(lambda: start(returns, name="a name")))
        found.append(tried(lambda: start(returns, name=returns)))
        found.append(str(sorted(task.name for task in nursery.child_tasks)))
    found.append(tried(lambda: start(returns)))
    found.append(tried(lambda: open_nursery().start_soon(returns)))
    return found


@scenario
async def the_record_of_a_child() -> Any:
    found: list[Any] = []

    async def child() -> None:
        task = current_task()
        found.append([task.name, task.coro.__name__, task.asyncio_task.get_name()])
        found.append([task.parent_nursery is nursery, task._started, task._yield_credit])
        found.append([type(task.asyncio_task).__name__, task.asyncio_task.get_coro() is task.coro])
        stack: Any = asyncio.current_task().get_stack()  # type: ignore[union-attr]
        # That of a running task has all its callers. The wrapper has no frame if it is in C.
        found.append(names(stack, without=("_run_child",)))

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        (task,) = nursery.child_tasks
        found.append([task._started, task._abort if hasattr(task, "_abort") else "unset"])
    found.append([task.scope._parent, task.asyncio_task.done(), nursery._children])
    return found


@scenario
async def a_function_that_changes_its_nursery_while_it_is_started() -> Any:
    found: list[Any] = []

    def cancels() -> Any:
        nursery.cancel_scope.cancel()
        return child()

    async def child() -> None:
        try:
            await checkpoint()
        except nurseryio.Cancelled:
            found.append("cancelled")
            raise

    async with open_nursery() as nursery:
        nursery.start_soon(cancels)
    return [found, state_of(nursery.cancel_scope)]


@scenario
async def tasks_made_by_a_factory() -> Any:
    loop = asyncio.get_running_loop()
    made = []

    def factory(loop: Any, coro: Any, **options: Any) -> Any:
        made.append(coro.__name__)
        return asyncio.Task(coro, loop=loop, **options)

    loop.set_task_factory(factory)
    try:
        async with open_nursery() as nursery:
            nursery.start_soon(returns, 1)
            nursery.start_soon(sleep_forever)
            await turns()
            nursery.cancel_scope.cancel()
    finally:
        loop.set_task_factory(None)
    return [made, state_of(nursery.cancel_scope)]


@scenario
async def instruments() -> Any:
    events: list[str] = []

    class Instrument(nurseryio.abc.Instrument):
        def task_spawned(self, task: Any) -> None:
            events.append(f"spawned {task.name}")

        def task_exited(self, task: Any) -> None:
            events.append(f"exited {task.name}")

    instrument = Instrument()
    nurseryio.lowlevel.add_instrument(instrument)
    async with open_nursery() as nursery:
        nursery.start_soon(returns)
    nurseryio.lowlevel.remove_instrument(instrument)
    return events


@scenario
async def starting_from_a_thread() -> Any:
    found: list[str] = []
    async with open_nursery() as nursery:
        thread = threading.Thread(
            target=lambda: found.append(tried(lambda: nursery.start_soon(returns)))
        )
        thread.start()
        thread.join()
    return found


@scenario
async def making_the_asyncio_task_fails() -> Any:
    loop: Any = asyncio.get_running_loop()
    found: list[Any] = []

    def fail(*_args: Any, **_options: Any) -> Any:
        raise ZeroDivisionError

    async with open_nursery() as nursery:
        loop.call_soon = fail
        try:
            for function in (returns, held):
                found.append(tried(lambda function=function: nursery.start_soon(function)))
        finally:
            del loop.call_soon
        found.append(len(nursery.child_tasks))
    gc.collect()
    return found


@scenario
async def making_the_wrapper_fails() -> Any:
    cls: Any = nurseryio.Nursery
    run_child = cls._run_child
    found: list[Any] = []

    def fail(*_args: Any) -> Any:
        raise ZeroDivisionError

    async with open_nursery() as nursery:
        cls._run_child = fail
        try:
            found.append(tried(lambda: nursery.start_soon(held)))
            cls._run_child = lambda *_args: 5  # not a coroutine
            found.append(tried(lambda: nursery.start_soon(held)))
        finally:
            cls._run_child = run_child
        found.append(len(nursery.child_tasks))
    gc.collect()
    return found


@scenario
async def a_child_fails() -> Any:
    found = []
    for number in (0, 1, 10):
        try:
            async with open_nursery() as nursery:
                for _ in range(number):
                    nursery.start_soon(sleep_forever)
                nursery.start_soon(fails, "x", number)
        except BaseExceptionGroup as group:
            found.append((group, *state_of(nursery.cancel_scope)))
    return found


@scenario
async def children_are_cancelled_natively() -> Any:
    async with open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(sleep_forever)
        first, second, third = nursery._children
        first.asyncio_task.cancel()  # before its first step
        await turns()
        second.asyncio_task.cancel("why")
        await turns()
        third.asyncio_task.cancel()
    return state_of(nursery.cancel_scope)


@scenario
async def a_child_leaves_a_scope_open() -> Any:
    async def child() -> None:
        CancelScope().__enter__()
        move_on_after(5).__enter__()

    async def holds_a_lock() -> None:
        await nurseryio.Lock().acquire()

    async with open_nursery() as nursery:
        nursery.start_soon(child)
        nursery.start_soon(holds_a_lock)
    return [state_of(nursery.cancel_scope), len(current_task()._state.deadlines)]


def awaiting(asyncio_task: Any) -> list[str] | None:
    """The names of the tasks that asyncio knows to wait for this one; None before 3.14."""
    capture = getattr(asyncio, "capture_call_graph", None)
    if capture is None:
        return None
    return [graph.future.get_name() for graph in capture(asyncio_task).awaited_by]


@scenario
async def asyncio_is_told_who_awaits_a_child() -> Any:
    found: list[Any] = []
    asyncio.current_task().set_name("parent")  # type: ignore[union-attr]
    for stand_in in (False, True):
        with contextlib.suppress(BaseExceptionGroup):
            async with open_nursery() as nursery:
                holder: Any = nursery
                parent = nursery._parent_task
                if stand_in:
                    holder._parent_task = SimpleNamespace(asyncio_task=parent.asyncio_task)
                for function in (returns, sleep_forever, sleep_forever):
                    nursery.start_soon(function)
                made = [task.asyncio_task for task in nursery._children]
                found += map(awaiting, made)
                made[-1].cancel()
                await turns()
                found += map(awaiting, made)
                holder._parent_task = parent
                nursery.start_soon(fails, "x")
        found += map(awaiting, made)
    return found


@scenario
async def a_child_of_a_nursery_without_a_parent() -> Any:
    async with open_nursery() as nursery:
        holder: Any = nursery
        parent = nursery._parent_task
        del holder._parent_task
        found = tried(lambda: nursery.start_soon(returns))
        await turns()
        holder._parent_task = parent
    return [found, len(nursery.child_tasks)]


# -- delivery -----------------------------------------------------------------------


async def refuses(error: Exception | None = None) -> None:
    class Refusing(asyncio.Future[None]):
        def cancel(self, msg: Any = None) -> bool:
            if error is not None:
                raise error
            return False

    future: Any = Refusing()
    asyncio.get_running_loop().call_later(0.1, future.set_result, None)
    await future


async def swallows() -> str:
    for _ in range(3):
        try:
            await asyncio.Event().wait()
        except nurseryio.Cancelled:
            pass
    return "done"


async def aborts(answer: Any) -> None:
    def abort(_raise_cancel: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        if answer is Abort.FAILED:
            asyncio.get_running_loop().call_soon(nurseryio.lowlevel.reschedule, task)
        return answer

    task = current_task()
    await wait_task_rescheduled(abort)
    await checkpoint()


async def waits_for_done_future() -> None:
    future = asyncio.get_running_loop().create_future()
    future.set_result(None)
    await future
    await asyncio.sleep(0)


async def shielded() -> None:
    with CancelScope(shield=True):
        await turns()
    await checkpoint()


async def in_scopes() -> None:
    with CancelScope(), move_on_after(5):
        async with open_nursery() as inner:
            inner.start_soon(sleep_forever)
            with CancelScope():
                await sleep_forever()


async def waits_for_task() -> None:
    await asyncio.ensure_future(asyncio.sleep(5))


async def edge() -> None:
    async with nurseryio.aio.edge_cancellation(1):
        try:
            await asyncio.sleep(5)
        finally:
            await asyncio.sleep(0)


def waits() -> list[Callable[[], Any]]:
    event, lock, limiter = nurseryio.Event(), nurseryio.Lock(), nurseryio.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("another")
    semaphore, condition = nurseryio.Semaphore(0), nurseryio.Condition()
    full, empty = nurseryio.open_memory_channel[int](0)

    async def wait_for_condition() -> None:
        async with condition:
            await condition.wait()

    async def hold_lock() -> None:
        async with lock:
            await sleep_forever()

    return [
        *(event.wait, hold_lock, lock.acquire, limiter.acquire, semaphore.acquire),
        *(wait_for_condition, partial(full.send, 1), empty.receive, sleep_forever),
        *(partial(nurseryio.sleep, 5), partial(asyncio.sleep, 5), asyncio.Event().wait, checkpoint),
        *(refuses, partial(refuses, ValueError("cancel")), swallows, waits_for_done_future),
        *(partial(aborts, Abort.SUCCEEDED), partial(aborts, Abort.FAILED)),
        *(partial(aborts, "wrong"), partial(aborts, ZeroDivisionError())),
        *(shielded, in_scopes, waits_for_task, edge),
    ]


async def cancel_while(wait: Callable[[], Any], before: int, again: bool) -> list[Any]:
    ends: list[Any] = []

    async def child() -> None:
        task: Any = current_task()
        try:
            ends.append(await wait())
        except BaseException as error:
            ends.append(shown(error))
            raise
        finally:
            ends.append(asyncio.current_task().cancelling())  # type: ignore[union-attr]
            ends.append([task._owns_cancel_request, getattr(task, "_abort", None), task._park])

    try:
        async with open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(child)
            await turns(before)
            nursery.cancel_scope.cancel("why")
            if again:
                for task in list(nursery._children):
                    task.asyncio_task.cancel("native")
    except BaseException as error:
        ends.append(shown(error))
    return [*ends, *state_of(nursery.cancel_scope)]


def every_wait_is_cancelled(number: int, before: int, again: bool) -> Callable[[], Any]:
    async def cancelled() -> Any:
        return await cancel_while(waits()[number], before, again)

    cancelled.__name__ = f"wait_{number}_cancelled_after_{before}_turns{'_twice' if again else ''}"
    return cancelled


for _number in range(25):
    for _before in (0, 1, 5):
        for _again in (False, True):
            scenario(every_wait_is_cancelled(_number, _before, _again))


def main() -> None:
    for kind in [kind for kind in matrix.KINDS if kind in ("stock", "uvloop")]:
        # The scenario with anyio comes last, because its backend stays loaded.
        ordered = sorted(SCENARIOS, key=lambda function: "anyio" in function.__name__)
        for function in ordered:
            reports: list[str] = []

            async def run(function: Any = function, reports: list[str] = reports) -> Any:
                asyncio.get_running_loop().set_exception_handler(
                    lambda _loop, context: reports.append(shown(context["message"]))
                )
                return await function()

            loop = matrix.new_loop(kind)
            try:
                result = shown(loop.run_until_complete(run()))
            except BaseException as error:
                result = shown(error)
            finally:
                loop.close()
            print(f"{kind} {function.__name__}: {result} {reports}")


if __name__ == "__main__":
    print(nurseryio.__compiled__, file=sys.stderr)
    main()
