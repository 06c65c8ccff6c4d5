"""Scenarios as in ``both_builds``, for the waits: each must have the same result on both builds.

``python -m harness.both_waits`` prints one line for each scenario. There is one for each test by
which a ``Wait`` of the C module finds that a case is not ordinary, and for each way in which the
interpreter uses an awaitable.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import itertools
import sys
import threading
import traceback
import types
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from typing import Any

import nurseryio
from harness.both_builds import SCENARIOS, main, scenario, shown, tried, turns
from nurseryio import CancelScope, Event, Lock, open_memory_channel, open_nursery
from nurseryio._core.traps import wait_task_rescheduled as wait_rescheduled
from nurseryio._core.wait_queue import maybe_yield, park, wake_first
from nurseryio._observe.waits import wait_of
from nurseryio.lowlevel import Abort, checkpoint, current_task, reschedule

SCENARIOS.clear()


async def ended(awaitable: Any) -> str:
    try:
        return f"{shown(await awaitable)} {credit()}"
    except BaseException as error:
        return f"{shown(error)} {credit()}"


def credit() -> list[Any]:
    """The fields of the running task that waits and yields write."""
    task: Any = current_task()
    abort = getattr(task, "_abort", None)
    return [task._yield_credit, task._shielded_step, task._park, abort, task._deferred_cancel]


class Unwraps:
    """An outcome that is not of this library."""

    def __init__(self, result: Any) -> None:
        self.result = result

    def unwrap(self) -> Any:
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


# Results that StopIteration(result) does not carry, and others.
RESULTS: list[Any] = [None, 5, (), (1, 2), ValueError("as a value"), StopIteration(3), [1]]


# -- current_task, reschedule -------------------------------------------------------


@scenario
async def the_running_task_is_found() -> Any:
    loop = asyncio.get_running_loop()
    found: list[Any] = [current_task() is current_task()]
    loop.call_soon(lambda: found.append(tried(current_task)))
    await turns()
    thread = threading.Thread(target=lambda: found.append(tried(current_task)))
    thread.start()
    thread.join()
    wrong: Any = current_task
    adopted: Any = await asyncio.ensure_future(ended(checkpoint()))
    return [
        found,
        tried(lambda: wrong(1)) != "",
        adopted,
        list(inspect.signature(current_task).parameters),
    ]


def outcomes() -> list[Any]:
    made = [nurseryio._base.outcome.Value(each) for each in RESULTS]
    made += [Unwraps(each) for each in RESULTS[:4]]
    return [*made, Unwraps(KeyError("k")), nurseryio._base.outcome.Error(ZeroDivisionError()), None]


@scenario
async def tasks_are_rescheduled_with_every_outcome() -> Any:
    found: list[Any] = []
    for outcome in [*outcomes(), "no outcome"]:
        queue: dict[Any, Any] = {}

        async def parked(queue: Any = queue) -> None:
            found.append(await ended(park(current_task(), queue, "entry")))

        async def waits() -> None:
            task = current_task()
            task.custom_sleep_data = "data"
            found.append(await ended(wait_rescheduled(lambda _raise: Abort.SUCCEEDED)))
            found.append(task.custom_sleep_data)

        async with open_nursery() as nursery:
            nursery.start_soon(parked)
            nursery.start_soon(waits)
            await turns()
            for task in list(nursery._children):
                found.append(queue.get(task))
                reschedule(task, outcome)
                found.append(task.custom_sleep_data)
                found.append(tried(lambda task=task: reschedule(task)))
    return found


@scenario
async def reschedule_refuses() -> Any:
    wrong: Any = reschedule
    me = current_task()
    found = [tried(lambda: wrong(me)), tried(lambda: wrong()), tried(lambda: wrong(1, 2, 3))]
    found.append(tried(lambda: wrong("no task")))
    event = Event()
    async with open_nursery() as nursery:
        nursery.start_soon(event.wait)
        await turns()
        task = next(iter(nursery._children))
        thread = threading.Thread(target=lambda: found.append(tried(lambda: reschedule(task))))
        thread.start()
        thread.join()
        thread = threading.Thread(target=lambda: found.append(tried(event.set)))
        thread.start()
        thread.join()
        wrong(task=task, next_send=None)
        event._waiting.clear()
    return [*found, list(inspect.signature(reschedule).parameters)]


@scenario
async def reschedule_of_a_task_whose_future_a_native_cancel_has_cancelled() -> Any:
    found: list[Any] = []
    for again in (False, True):
        event = Event()

        async def waits(event: Event = event) -> None:
            found.append(await ended(event.wait()))
            found.append(await ended(checkpoint()))
            found.append(asyncio.current_task().cancelling())  # type: ignore[union-attr]

        async with open_nursery() as nursery:
            nursery.start_soon(waits)
            await turns()
            task = next(iter(nursery._children))
            task.asyncio_task.cancel("native")
            event.set()
            if again:
                found.append(tried(lambda task=task: reschedule(task)))
    return found


@scenario
async def a_task_is_cancelled_natively_after_it_was_woken() -> Any:
    found: list[Any] = []

    async def waits(event: Event) -> None:
        found.append(await ended(event.wait()))
        found.append(await ended(checkpoint()))

    for first in ("set", "cancel"):
        event = Event()
        async with open_nursery() as nursery:
            nursery.start_soon(waits, event)
            await turns()
            task = next(iter(nursery._children))
            for step in (first, "cancel" if first == "set" else "set"):
                event.set() if step == "set" else nursery.cancel_scope.cancel("scope")
        event = Event()
        async with open_nursery() as nursery:
            nursery.start_soon(waits, event)
            await turns()
            task = next(iter(nursery._children))
            event.set()
            task.asyncio_task.cancel("native")
    return found


@scenario
async def waking_near_the_recursion_limit() -> Any:
    event, lock = Event(), Lock()
    woken = 0

    async def waits() -> None:
        nonlocal woken
        await event.wait()
        async with lock:
            woken += 1

    def deeper(function: Callable[[], Any]) -> None:
        try:
            deeper(function)
        except RecursionError:
            with contextlib.suppress(RecursionError):
                function()

    async with open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(waits)
        await turns()
        await lock.acquire()
        deeper(event.set)
        event.set()
        await turns()
        deeper(lock.release)
        if lock._owner is current_task():
            lock.release()
    return woken


@scenario
async def waking_the_first_task_of_a_queue() -> Any:
    found: list[Any] = [tried(lambda: wake_first(OrderedDict()))[:9]]
    plain: Any = {}
    found.append(tried(lambda: wake_first(plain))[:9])
    wrong: Any = wake_first
    found.append([tried(lambda: wrong())[:9], tried(lambda: wrong(1, 2, 3))[:9]])
    queue: OrderedDict[Any, Any] = OrderedDict()

    async def waits(number: int) -> None:
        found.append(await ended(park(current_task(), queue, number)))

    async with open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(waits, number)
        await turns()
        found.append(wake_first(queue)[1])
        found.append(list(queue.values()))
        thread = threading.Thread(target=lambda: found.append(tried(lambda: wake_first(queue))))
        thread.start()
        thread.join()
        found.append(list(queue.values()))
        found.append(wake_first(queue, nurseryio._base.outcome.Value("v"))[1])
        found.append(wake_first(queue, None)[1])
    return found


# -- park, yield, checkpoint --------------------------------------------------------


@scenario
async def the_queue_of_another_loop_is_refused() -> Any:
    event, lock = Event(), Lock()
    send, receive = open_memory_channel[int](0)
    await lock.acquire()
    found: list[Any] = []

    def other() -> None:
        async def inside() -> None:
            for awaitable in (event.wait(), lock.acquire(), receive.receive(), checkpoint()):
                found.append(await ended(awaitable))

        asyncio.run(inside())

    async with open_nursery() as nursery:
        nursery.start_soon(event.wait)
        nursery.start_soon(lock.acquire)
        nursery.start_soon(receive.receive)
        await turns()
        thread = threading.Thread(target=other)
        thread.start()
        await nurseryio.to_thread.run_sync(thread.join)
        nursery.cancel_scope.cancel()
    lock.release()
    return [found, receive._waiting, send.statistics()]


@scenario
async def operations_in_a_cancelled_scope() -> Any:
    found: list[Any] = []
    set_event = Event()
    set_event.set()
    send, receive = open_memory_channel[int](1)
    for make in (
        *(Event().wait, set_event.wait, checkpoint, Lock().acquire),
        *(nurseryio.Semaphore(1).acquire, nurseryio.CapacityLimiter(1).acquire),
        *(lambda: send.send(1), receive.receive, nurseryio.sleep_forever),
        lambda: nurseryio.sleep(0),
    ):
        with CancelScope() as scope:
            scope.cancel("why")
            found.append(await ended(make()))
        found.append(scope.cancelled_caught)
        with CancelScope() as scope, CancelScope(shield=True):
            scope.cancel()
            if make not in (nurseryio.sleep_forever, receive.receive):
                with nurseryio.move_on_after(0.01, shield=True):
                    found.append(await ended(make()))
    return [*found, send.statistics(), send._waiting, receive._waiting]  # type: ignore[attr-defined]


@scenario
async def the_scope_is_cancelled_or_left_while_a_task_yields() -> Any:
    found: list[Any] = []
    send, receive = open_memory_channel[Any](3)

    async def child(make: Callable[[], Any]) -> None:
        found.append(await ended(make()))
        found.append(await ended(checkpoint()))

    for native in (False, True):
        for make in (
            *(checkpoint, Lock().acquire, nurseryio.Semaphore(1).acquire),
            *(nurseryio.CapacityLimiter(1).acquire, lambda: send.send(1), receive.receive),
            lambda: maybe_yield(current_task()),
        ):
            async with open_nursery() as nursery:
                nursery.start_soon(child, make)
                await asyncio.sleep(0)
                for task in list(nursery._children):
                    if native:
                        task.asyncio_task.cancel("native")
                    else:
                        nursery.cancel_scope.cancel()
    return [*found, send.statistics(), list(send._state.buffer)]  # type: ignore[attr-defined]


@scenario
async def how_many_operations_do_not_yield() -> Any:
    task: Any = current_task()
    send, receive = open_memory_channel[int](inf)
    lock = Lock()
    found: list[Any] = []
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    for busy in (False, True):
        async with open_nursery() as nursery:
            if busy:
                nursery.start_soon(other)
            await checkpoint()
            for number in range(20):
                await send.send(number)
                found.append((task._yield_credit, others))
            for _ in range(20):
                await receive.receive()
                found.append((task._yield_credit, others))
            for _ in range(20):
                async with lock:
                    found.append((task._yield_credit, others))
            nursery.cancel_scope.cancel()
    return found


@scenario
async def custom_sleep_data_is_gone_after_a_checkpoint() -> Any:
    task = current_task()
    found = []
    for make in (checkpoint, lambda: nurseryio.sleep(0), Lock().acquire):
        task.custom_sleep_data = "data"
        await make()
        found.append(task.custom_sleep_data)
    return found


@scenario
async def coroutines_that_are_thrown_into_closed_and_dropped_while_they_wait() -> Any:
    found: list[Any] = []
    me = current_task()
    for make in (
        *(Event().wait, checkpoint, nurseryio.Lock().acquire, nurseryio.Semaphore(0).acquire),
        *(open_memory_channel[int](0)[0].clone, open_memory_channel[int](0)[1].receive),
        lambda: open_memory_channel[int](1)[0].send(1),
    ):
        if "clone" in str(make):
            continue
        for end in ("throw", "throw class", "close", "drop", "step"):
            await checkpoint()
            coro = make()
            first = tried(lambda coro=coro: type(coro.send(None)).__name__)
            if end == "throw":
                found.append(tried(lambda coro=coro: coro.throw(ValueError("thrown"))))
            elif end == "throw class":
                found.append(tried(lambda coro=coro: coro.throw(KeyError)))
            elif end == "close":
                found.append(tried(coro.close))
            elif end == "step" and first != "StopIteration":
                found.append(tried(lambda coro=coro: coro.send(None)))
            coro.close()
            del coro
            found.append([first, end, credit(), me.scope is None])
    return found


@scenario
async def awaitables_that_are_never_awaited_or_awaited_again() -> Any:
    found: list[Any] = []
    event, (send, receive) = Event(), open_memory_channel[int](1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for make in (event.wait, checkpoint, lambda: send.send(1), receive.receive):
            coro = make()
            found.append([inspect.iscoroutine(coro), inspect.getcoroutinestate(coro)])
            del coro
            gc.collect()
    found += sorted(str(each.message).partition("\n")[0] for each in caught)
    for function in (Event.wait, checkpoint, type(send).send, type(receive).receive):
        found.append([inspect.iscoroutinefunction(function), function.__module__])
        found.append([function.__qualname__, str(inspect.signature(function))])
    coro = checkpoint()
    await coro
    found.append(await ended(coro))
    return [*found, len(event._waiting), send.statistics()]


def functions_of(frames: Iterable[types.FrameType]) -> list[str]:
    """The functions on a stack. ``park`` has no frame in C, and an unusual case has two frames."""
    names = [getattr(frame.f_code, "co_qualname", "") for frame in frames]
    return [name for name, _ in itertools.groupby(name for name in names if name != "park")]


@scenario
async def a_waiting_task_says_what_it_waits_for() -> Any:
    found: list[Any] = []
    _send, receive = open_memory_channel[int](0)
    lock, semaphore, event, shield_ends = Lock(), nurseryio.Semaphore(0), Event(), Event()
    await lock.acquire()

    async def in_a_shield() -> None:
        with CancelScope() as scope, CancelScope(shield=True):
            scope.cancel()
            await shield_ends.wait()

    async def after_cancel() -> None:
        with CancelScope() as scope:
            scope.cancel()
            await checkpoint()

    for function in (
        *(event.wait, lock.acquire, semaphore.acquire, receive.receive, in_a_shield),
        *(nurseryio.sleep_forever, checkpoint, after_cancel),
    ):
        async with open_nursery() as nursery:
            nursery.start_soon(function)
            await asyncio.sleep(0)
            task = next(iter(nursery._children))
            found.append(functions_of(frame for frame, _ in task.iter_await_frames()))
            found.append(wait_of(task.asyncio_task, task, list(task.iter_await_frames())).text)
            if function is in_a_shield:
                shield_ends.set()
            nursery.cancel_scope.cancel()
    lock.release()
    return found


@scenario
async def tracebacks_name_the_operation() -> Any:
    found: list[Any] = []
    send, receive = open_memory_channel[int](0)
    for make in (Event().wait, checkpoint, lambda: send.send(1), receive.receive):
        with CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            try:
                await make()
            except BaseException as error:
                frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
                found.append(functions_of(frames))
                raise
    return found


# -- channels -----------------------------------------------------------------------


@scenario
async def items_of_every_kind_are_passed() -> Any:
    found: list[Any] = []
    for size in (0, 1, 3, inf):
        send, receive = open_memory_channel[Any](size)

        async def produce(send: Any = send) -> None:
            async with send:
                for item in RESULTS:
                    await send.send(item)
                    found.append(send._waiting)

        async with open_nursery() as nursery:
            nursery.start_soon(produce)
            async for item in receive:
                found.append(shown(item))
        found.append([send.statistics(), receive._waiting])  # type: ignore[attr-defined]
        found.append(await ended(receive.receive()))
        found.append(await ended(receive.__anext__()))
    return found


@scenario
async def receivers_that_wait_before_the_sender_comes() -> Any:
    found: list[Any] = []
    send, receive = open_memory_channel[Any](2)

    async def consume(number: int) -> None:
        found.append((number, await ended(receive.receive())))

    async with open_nursery() as nursery:
        for number in range(len(RESULTS)):
            nursery.start_soon(consume, number)
        await turns()
        found.append(receive._waiting)  # type: ignore[attr-defined]
        for item in RESULTS:
            await send.send(item)
        found.append(receive._waiting)  # type: ignore[attr-defined]
    return [*found, receive._waiting, send.statistics()]  # type: ignore[attr-defined]


@scenario
async def closed_and_broken_channels() -> Any:
    found: list[Any] = []
    for size in (0, 1):
        for close in ("send", "receive", "both", "clone"):
            for before in (True, False):
                send, receive = open_memory_channel[Any](size)
                ends: list[Any] = {
                    "send": [send],
                    "receive": [receive],
                    "both": [send, receive],
                    "clone": [send.clone(), receive.clone()],
                }[close]

                async def work(make: Callable[[], Any]) -> None:
                    found.append(await ended(make()))

                async with open_nursery() as nursery:
                    if before:
                        for end in ends:
                            end.close()
                    for make in (receive.receive, receive.__anext__):
                        nursery.start_soon(work, make)
                    await turns()
                    if not before:
                        for end in ends:
                            end.close()
                    await turns()
                    nursery.cancel_scope.cancel()
                async with open_nursery() as nursery:
                    for number in range(3):
                        nursery.start_soon(work, partial(send.send, number))
                    await turns()
                    for end in (send, receive):
                        end.close()
                found.append([send._waiting, receive._waiting])  # type: ignore[attr-defined]
    return found


@scenario
async def an_item_is_not_lost_when_its_receiver_is_cancelled() -> Any:
    found: list[Any] = []
    for kind in ("scope", "native"):
        for size in (0, 2):
            send, receive = open_memory_channel[int](size)

            async def consume(receive: Any = receive) -> None:
                found.append(await ended(receive.receive()))
                found.append(await ended(receive.receive()))

            async with open_nursery() as nursery:
                nursery.start_soon(consume)
                await turns()
                task = next(iter(nursery._children))
                send.send_nowait(1)
                if kind == "scope":
                    nursery.cancel_scope.cancel()
                else:
                    task.asyncio_task.cancel("native")
            found.append([send.statistics(), receive._waiting])  # type: ignore[attr-defined]
    return found


@scenario
async def channels_whose_fields_are_not_as_usual() -> Any:
    found: list[Any] = []
    for name, value in (
        *(("buffer", []), ("buffer", None), ("senders", {}), ("receivers", {})),
        *(("max_buffer_size", True), ("max_buffer_size", 1.5), ("peak", True), ("peak", None)),
        *(("open_senders", True), ("open_receivers", True)),
    ):
        for operation in ("send", "receive"):
            send, receive = open_memory_channel[int](1)
            setattr(send._state, name, value)  # type: ignore[attr-defined]
            with nurseryio.move_on_after(0.01):
                made = send.send(1) if operation == "send" else receive.receive()
                found.append((await ended(made))[:40])
    return found


@scenario
async def events_are_made_and_waited_for() -> Any:
    make: Any = Event
    found = [tried(lambda: make(1)), tried(lambda: make(happened=True)), repr(make())[-26:]]
    event = make(*())
    found += [event.is_set(), event.statistics(), event._waiting, weakref.ref(event)() is event]
    found.append(await ended(make.wait(5)))
    async with open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(event.wait)
        await turns()
        found.append(event.statistics())
        event.set()
    found += [event.is_set(), event.statistics(), await ended(event.wait())]
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        found.append(await ended(event.wait()))
    unset: Any = Event()
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        found.append([await ended(unset.wait()), unset._waiting])
    outside: list[str] = []

    def without_a_task() -> None:
        for each in (event, unset):
            coro = each.wait()
            outside.append(tried(lambda coro=coro: coro.send(None)))
            coro.close()

    asyncio.get_running_loop().call_soon(without_a_task)
    await turns()
    return [*found, outside]


@scenario
async def events_whose_fields_are_not_as_usual() -> Any:
    class Dict(dict[Any, Any]):
        pass

    found: list[Any] = []
    for name, value in (
        *(("_happened", each) for each in (1, 0, "", "x", None)),
        *(("_waiting", each) for each in ({1: 2}, OrderedDict(), Dict(), [], 5, None)),
    ):
        event: Any = Event()
        setattr(event, name, value)
        with nurseryio.move_on_after(0.01):
            result = (await ended(event.wait())).partition(" [")[0]
            found.append([name, shown(value), result, event._waiting])
    for name in ("_happened", "_waiting"):
        event = Event()
        delattr(event, name)
        found.append(await ended(event.wait()))
    return found


@scenario
async def a_subclass_of_task_and_a_task_that_was_adopted() -> Any:
    async def use() -> Any:
        send, receive = open_memory_channel[int](1)
        await send.send(1)
        event = Event()
        asyncio.get_running_loop().call_soon(event.set)
        await event.wait()
        await checkpoint()
        return await receive.receive()

    class Sub(asyncio.Task[Any]):
        pass

    made = Sub(use(), loop=asyncio.get_running_loop())
    return [await made, await asyncio.ensure_future(use())]


@scenario
async def every_form_of_the_arguments_of_throw() -> Any:
    class NoError(Exception):
        def __new__(cls) -> Any:
            return 5

    class Odd(Exception):
        def __new__(cls, *args: Any) -> Any:
            raise LookupError("no instance")

    try:
        raise ValueError
    except ValueError as error:
        trace = error.__traceback__
    forms: list[Any] = [
        *((KeyError,), (KeyError, 5), (KeyError, (1, 2)), (KeyError, ()), (KeyError, None)),
        *((KeyError, KeyError(3)), (KeyError, ValueError(3)), (LookupError, KeyError(3))),
        *((KeyError(1),), (KeyError(1), None), (KeyError(1), 5), (KeyError(1), KeyError(2))),
        *((KeyError, None, trace), (KeyError(1), None, trace), (KeyError, None, 7)),
        *((NoError,), (Odd,), (Odd, 5), (5,), ("KeyError",), (int,), (None,), (), (1, 2, 3, 4)),
    ]
    found = []
    for form in forms:
        coro = checkpoint()
        coro.send(None)
        found.append(tried(lambda coro=coro, form=form: coro.throw(*form)))
        coro.close()
    lengths = []
    again = KeyError("thrown again")
    for _ in range(3):
        coro = checkpoint()
        coro.send(None)
        with contextlib.suppress(KeyError):
            coro.throw(KeyError, again)
        lengths.append(len(traceback.extract_tb(again.__traceback__)))
    return [found, len(set(lengths))]


@scenario
async def a_coroutine_does_not_keep_the_error_that_its_caller_handles() -> Any:
    def fails() -> Any:
        raise TypeError("an argument is wrong")

    async def use(nursery: Any) -> Any:
        with contextlib.suppress(TypeError):
            nursery.start_soon(fails)
        await asyncio.sleep(0)
        try:
            raise KeyError
        except KeyError as error:
            return error.__context__

    async with open_nursery() as nursery:
        coro = use(nursery)
        try:
            raise ValueError("handled outside")
        except ValueError:
            coro.send(None)
        return tried(lambda: coro.send(None))


class Referent:
    """The collector clears it after the wait, and before the coroutine that awaits the wait."""


class Holder:
    def __init__(self, coro: Any, finalized: Callable[[Any], None]) -> None:
        self.referent = Referent()
        self.coro = coro
        self.finalized = finalized
        self.itself = self

    def __del__(self) -> None:
        self.finalized(self)


def step_while_the_collector_clears(make: Callable[[], Any], end: str) -> list[str]:
    """A coroutine that was finalized before its first step is not closed by the collector."""
    saved: list[Any] = []
    answers: list[str] = []

    def step(_gone: object) -> None:
        coro = saved[0]()
        answers.append(
            tried(partial(coro.send, None) if end == "send" else partial(coro.throw, KeyError))
        )

    def watch(holder: Holder) -> None:
        saved[:] = [weakref.ref(holder.coro), weakref.ref(holder.referent, step)]

    gc.collect()
    Holder(make(), lambda holder: saved.append(holder.coro))
    gc.collect()
    saved[0].send(None)
    Holder(saved.pop(), watch)
    del make
    gc.collect()
    return answers


@scenario
async def a_coroutine_is_stepped_while_the_collector_clears_its_cycle() -> Any:
    found: list[Any] = []
    task: Any = current_task()
    makers: list[Callable[[], Any]] = [
        *(checkpoint, lambda: Event().wait(), lambda: Lock().acquire()),
        *(lambda: open_memory_channel[int](1)[0].send(1), lambda: channel_with(1)[0].send(2)),
        *(lambda: channel_with(0)[1].receive(), lambda: channel_with(1)[1].receive()),
    ]
    for make, end in itertools.product(makers, ("send", "throw")):
        task._yield_credit = 0
        # What they say depends on the order in which the parts are cleared.
        found.append([end, len(step_while_the_collector_clears(make, end))])
    return found


def channel_with(items: int) -> tuple[Any, Any]:
    ends = open_memory_channel[int](1)
    for item in range(items):
        ends[0].send_nowait(item)
    return ends


if __name__ == "__main__":
    print(nurseryio.__compiled__, file=sys.stderr)
    main()
