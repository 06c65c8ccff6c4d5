"""The programs of the injection harness, and the bystander that runs beside each of them.

Rule 1: a program is an async function that is given a :class:`Probe`. It takes a few virtual
seconds, and its times coincide with those of the bystander where the engine treats both at once.

Rule 2: an error of any of its tasks reaches a nursery, a group or an ``await`` of the program, so
that a sleep of ``LONG`` is always cut short. A program that sleeps on is late.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import nurseryio
from nurseryio import (
    CancelScope,
    SocketStream,
    TooSlowError,
    fail_after,
    from_thread,
    lowlevel,
    move_on_after,
    open_memory_channel,
    open_tcp_stream,
    serve_tcp,
    sleep,
    sleep_forever,
    socket,
    to_thread,
)

from .injection_probe import Block, Probe

LONG = 60.0

# The case that every program is run on: "host-loop".
CASES = tuple(
    f"{host}-{loop}"
    for loop in ("stock", "uvloop")
    if loop == "stock" or importlib.util.find_spec(loop)
    for host in ("run", "app")
)


@dataclass(frozen=True)
class Program:
    """One program, and the cases that it is for."""

    run: Callable[[Probe], Awaitable[object]]
    cases: tuple[str, ...] = CASES
    # Each run needs a separate process: worker threads stay.
    fresh: bool = False

    @property
    def name(self) -> str:
        """The function's name."""
        return self.run.__name__


PROGRAMS: dict[str, Program] = {}


def program(
    *cases: str, since: tuple[int, int] = (3, 10), fresh: bool = False
) -> Callable[[Callable[[Probe], Awaitable[object]]], Callable[[Probe], Awaitable[object]]]:
    """Decorator: a program, for all cases or for some."""

    def add(run: Callable[[Probe], Awaitable[object]]) -> Callable[[Probe], Awaitable[object]]:
        if sys.version_info >= since:
            possible = tuple(case for case in cases or CASES if case in CASES)
            PROGRAMS[run.__name__] = Program(run, possible, fresh)
        return run

    return add


async def bystander(log: list[str]) -> None:
    """Tasks that have nothing to do with the program: deadlines, an event, a channel, a lock."""
    loop = asyncio.get_running_loop()

    def note(*what: object) -> None:
        log.append(f"{loop.time():.2f} " + " ".join(map(str, what)))

    send, receive = open_memory_channel[int](1)
    event = nurseryio.Event()
    lock = nurseryio.Lock()

    async def produce() -> None:
        async with send:
            for number in range(3):
                await sleep(0.5)
                await send.send(number)

    async def timed() -> None:
        with move_on_after(1.0) as scope:
            await sleep_forever()
        note("deadline", scope.cancelled_caught)
        with move_on_after(1.0) as scope:
            await asyncio.sleep(LONG)
        note("native deadline", scope.cancelled_caught)
        event.set()

    async def consume() -> None:
        async for number in receive:
            async with lock:
                note("item", number)
        with fail_after(LONG):
            await event.wait()
        note("event")

    async def turn() -> None:
        for _ in range(10):
            async with lock:
                await lowlevel.checkpoint()
        note("turned")

    async with nurseryio.open_nursery() as nursery:
        for child in (produce, timed, consume, turn):
            nursery.start_soon(child)
    note("end")


# -- nurseries ------------------------------------------------------------------


@program()
async def children_end(p: Probe) -> str:
    """Children end one after another, in one iteration of the loop and later."""
    async with p.nursery() as block:
        block.spawn(p.nap, 0)
        block.spawn(p.nap, 0.5)
    async with p.nursery() as block:
        block.spawn(lowlevel.checkpoint)
    async with p.nursery():
        p.note("empty")
    return "done"


@program()
async def child_fails(p: Probe) -> None:
    """One child fails, its siblings are cancelled in waits of either kind."""
    async with p.nursery() as block:
        block.spawn(p.fail, 0.5)
        block.spawn(p.nap, LONG)
        block.spawn(p.native_nap, LONG)
        await sleep(LONG)


@program()
async def body_and_children_fail(p: Probe) -> None:
    """The body and two children raise; nurseries are nested."""

    async def inner() -> None:
        async with p.nursery() as block:
            block.spawn(p.fail, 1.0, "inner child")
            block.spawn(p.nap, LONG)
            try:
                await sleep(LONG)
            finally:
                p.raise_error("inner body")

    async with p.nursery() as block:
        block.spawn(inner)
        block.spawn(p.nap, LONG)
        block.spawn(p.fail, 1.0, "outer child")
        await sleep(0.5)


@program()
async def nested_cancelled(p: Probe) -> str:
    """The outer of three nurseries is cancelled by a child of the innermost."""
    async with p.nursery() as outer:
        async with p.nursery() as middle:
            middle.spawn(p.nap, LONG)
            async with p.nursery() as inner:

                async def cancel() -> None:
                    await sleep(0.5)
                    outer.scope.cancel("enough")

                inner.spawn(cancel)
                inner.spawn(p.native_nap, LONG)
    return f"{outer.scope.cancelled_caught} {middle.scope.cancel_called}"


# -- start ----------------------------------------------------------------------


@program()
async def start_works(p: Probe) -> object:
    """A service starts, says so, and is cancelled later."""

    async def service(task_status: Any) -> None:
        await sleep(0.5)
        task_status.started("ready")
        await p.nap(LONG, "service")

    async with p.nursery() as block:
        value = await block.start(service)
        p.note(value)
        await sleep(0.5)
        block.scope.cancel()
    return value


@program()
async def start_fails(p: Probe) -> None:
    """A service fails before it is ready, and another one afterwards."""

    async def early(task_status: Any) -> None:
        await p.fail(0.5, "early")

    async def late(task_status: Any) -> None:
        task_status.started()
        await p.fail(0.5, "late")

    async with p.nursery() as block:
        try:
            await block.start(early)
        except Exception as error:
            p.caught(error)
        await block.start(late)
        await sleep(LONG)


@program()
async def start_never_ready(p: Probe) -> None:
    """A service ends without being ready, another one is cancelled first."""

    async def never(task_status: Any) -> None:
        await sleep(0.5)

    async def long(task_status: Any) -> None:
        await p.nap(LONG, "service")

    async with p.nursery() as block:
        with move_on_after(0.5) as scope:
            await block.start(long)
        p.note(scope.cancelled_caught)
        await block.start(never)


# -- scopes ---------------------------------------------------------------------


@program()
async def deadlines(p: Probe) -> str:
    """Nested scopes: the inner deadline fires, the outer does not; and the other way round."""
    with move_on_after(2.5) as outer:
        with move_on_after(1.0) as inner:
            await sleep(LONG)
        p.note(inner.cancelled_caught)
        with CancelScope(deadline=nurseryio.current_time() + 0.5) as inner:
            await asyncio.sleep(LONG)
        p.note(inner.cancelled_caught)
        with move_on_after(LONG) as inner:
            await sleep(LONG)
        p.note("not reached")
    p.note(outer.cancelled_caught, inner.cancelled_caught)
    with move_on_after(0) as outer:
        await sleep(LONG)
    return f"{outer.cancelled_caught}"


@program()
async def limits(p: Probe) -> None:
    """``fail_after`` and ``move_on_after``, fired and not."""
    with fail_after(1.0):
        await sleep(0.5)
    with move_on_after(1.0) as scope:
        await sleep(0.5)
    p.note(scope.cancelled_caught)
    try:
        with fail_after(0.5):
            await sleep(LONG)
    except TooSlowError as error:
        p.caught(error)
    with fail_after(0.5):
        await asyncio.sleep(LONG)


@program()
async def deadline_changes(p: Probe) -> str:
    """Deadlines are set, put off and put forward while the scope is open."""
    with CancelScope() as scope:
        scope.deadline = nurseryio.current_time() + 5
        await sleep(0.5)
        scope.deadline = nurseryio.current_time() + 10
        scope.relative_deadline = 0.5
        await sleep(LONG)
    p.note(scope.cancelled_caught)
    with CancelScope() as scope:
        scope.deadline = nurseryio.current_time() - 1
        await asyncio.sleep(LONG)
    before = CancelScope()
    before.cancel()
    with before:
        await sleep(LONG)
    return f"{scope.cancelled_caught} {before.cancelled_caught} {scope!r}"[:10]


@program()
async def shields(p: Probe) -> str:
    """A shielded clean-up in a cancelled scope."""
    with move_on_after(0.5) as outer:
        try:
            await sleep(LONG)
        except asyncio.CancelledError:
            with CancelScope(shield=True):
                await p.nap(0.5, "shielded")
                with move_on_after(0.5):
                    await p.native_nap(LONG, "shielded native")
            p.note("clean")
            await sleep(LONG)
    return f"{outer.cancelled_caught}"


@program()
async def shield_changes(p: Probe) -> str:
    """Another task raises and lowers the shield of a scope inside a cancelled one."""
    inside: dict[str, CancelScope] = {}

    async def sleeper(name: str, wait: Callable[[float], Awaitable[None]]) -> None:
        with CancelScope() as scope:
            inside[name] = scope
            try:
                await wait(LONG)
            finally:
                p.note(name)

    def lower(scopes: list[CancelScope]) -> None:
        # Once more for each if one fails: with a shield that stays up the program must be late.
        try:
            for scope in scopes:
                scope.shield = False
        except BaseException:
            for scope in scopes:
                scope.shield = False
            raise

    async with p.nursery() as outer:
        with CancelScope(shield=True):
            async with p.nursery() as block:
                block.spawn(sleeper, "one", sleep)
                block.spawn(sleeper, "two", asyncio.sleep)
                await sleep(0.5)
                try:
                    for scope in inside.values():
                        scope.shield = True
                    block.scope.cancel()
                    await lowlevel.cancel_shielded_checkpoint()
                    p.note("still there")
                finally:
                    lower(list(inside.values()))
        outer.spawn(p.nap, 0.5)
    return f"{block.scope.cancelled_caught}"


@program()
async def cancel_each_other(p: Probe) -> str:
    """Tasks cancel each other's scopes, in waits, in yields and before the first step."""
    scopes: list[CancelScope] = []

    async def cancelled(wait: Callable[[], Awaitable[object]]) -> None:
        with CancelScope() as scope:
            scopes.append(scope)
            await wait()
        p.note(scope.cancelled_caught)

    async def turns() -> None:
        while True:
            await asyncio.sleep(0)

    async def checkpoints() -> None:
        while True:
            await lowlevel.checkpoint()

    async with p.nursery() as block:
        await sleep(0.5)
        for wait in (sleep_forever, asyncio.Event().wait, turns, checkpoints):
            block.spawn(cancelled, wait)
        for _ in range(4):
            await lowlevel.checkpoint()
        for scope in scopes:
            scope.cancel("by another task")
        await sleep(0.5)
    async with p.nursery() as block:
        block.scope.cancel()
        block.spawn(p.nap, LONG)
        block.spawn(p.native_nap, LONG)
    return f"{len(scopes)} {block.scope.cancelled_caught}"


@program()
async def misnested(p: Probe) -> None:
    """Scopes are left in the wrong order."""
    outer, inner = CancelScope(), CancelScope()
    outer.__enter__()
    entered = [outer]
    try:
        inner.__enter__()
        entered.append(inner)
        await sleep(0.5)
        entered.remove(outer)
        outer.__exit__(None, None, None)
    except RuntimeError as error:
        p.caught(error)
    finally:
        for scope in reversed(entered):
            scope.__exit__(*sys.exc_info())


@program()
async def swallows(p: Probe) -> str:
    """Code swallows cancellations, and a future refuses."""

    class Refusing(asyncio.Future[None]):
        def cancel(self, msg: Any = None) -> bool:
            return False

    refusing = Refusing()
    asyncio.get_running_loop().call_later(1.0, refusing.set_result, None)
    with move_on_after(0.5) as scope:
        for _ in range(3):
            try:
                await asyncio.sleep(LONG)
            except asyncio.CancelledError:
                p.note("swallowed")
        await refusing
        p.note("refused")
        await asyncio.sleep(LONG)
    return f"{scope.cancelled_caught}"


# -- synchronization ------------------------------------------------------------


@program()
async def channel_hand_over(p: Probe) -> list[int]:
    """Values pass through a channel without a buffer, to two receivers."""
    send, receive = open_memory_channel[int](0)
    got: list[int] = []

    async def produce(first: int) -> None:
        for number in range(first, first + 3):
            await send.send(number)
            await sleep(0.25)

    async def consume() -> None:
        with move_on_after(1.0):
            while True:
                got.append(await receive.receive())

    async with p.nursery() as block:
        block.spawn(consume)
        block.spawn(consume)
        block.spawn(produce, 10)
        block.spawn(produce, 20)
    return sorted(got)


@program()
async def channel_buffered(p: Probe) -> list[int]:
    """Values pass through a buffer; the channel is closed under waiting tasks."""
    send, receive = open_memory_channel[int](2)
    got: list[int] = []

    async def produce() -> None:
        async with send:
            for number in range(5):
                await send.send(number)

    async def consume() -> None:
        async with receive.clone() as own:
            async for number in own:
                got.append(number)

    async with p.nursery() as block:
        block.spawn(produce)
        block.spawn(consume)
        block.spawn(consume)
    receive.close()
    send, receive = open_memory_channel[int](0)

    async def wait_to_receive() -> None:
        try:
            await receive.receive()
        except nurseryio.ClosedResourceError as error:
            p.caught(error)

    async with p.nursery() as block:
        block.spawn(wait_to_receive)
        await sleep(0.5)
        receive.close()
    try:
        await send.send(1)
    except nurseryio.BrokenResourceError as error:
        p.caught(error)
    return sorted(got)


@program()
async def locks(p: Probe) -> str:
    """A lock and a semaphore are handed over, to a waiter that is cancelled too."""
    lock, semaphore = nurseryio.Lock(), nurseryio.Semaphore(1)
    holders = 0

    async def use(number: int) -> None:
        nonlocal holders
        with move_on_after(1.0 if number != 2 else 0.25):
            async with lock, semaphore:
                holders += 1
                if holders != 1:
                    p.fault("lock", "held twice")
                try:
                    await sleep(0.3)
                finally:
                    holders -= 1

    async with p.nursery() as block:
        for number in range(5):
            block.spawn(use, number)
    if lock.locked() or semaphore.value != 1:
        p.fault("lock", "still held")
    return "free"


@program()
async def condition_and_limiter(p: Probe) -> str:
    """A condition wakes one task and then all; a limiter hands a token over."""
    condition, limiter = nurseryio.Condition(), nurseryio.CapacityLimiter(1)

    async def wait(number: int) -> None:
        async with condition:
            await condition.wait()
        async with limiter:
            await sleep(0.1)
            p.note("woken")

    async with p.nursery() as block:
        for number in range(3):
            block.spawn(wait, number)
        await sleep(0.5)
        async with condition:
            condition.notify()
        await sleep(0.5)
        async with condition:
            condition.notify_all()
    if limiter.borrowed_tokens:
        p.fault("limiter", "a token is still borrowed")
    return "woken"


@program()
async def events_and_lot(p: Probe) -> str:
    """An event wakes all waiters but one that is cancelled; tasks park in a lot."""
    event, lot = nurseryio.Event(), lowlevel.ParkingLot()

    async def wait(seconds: float) -> None:
        with move_on_after(seconds) as scope:
            await event.wait()
        p.note(scope.cancelled_caught)
        with move_on_after(1.0) as scope:
            await lot.park()
        p.note("parked", scope.cancelled_caught)

    async with p.nursery() as block:
        for seconds in (LONG, 0.5, LONG):
            block.spawn(wait, seconds)
        await sleep(0.75)
        event.set()
        await sleep(0)
        lot.unpark(count=1)
        await event.wait()
    if len(lot):
        p.fault("lot", "a task is still parked")
    return "over"


@program()
async def traps(p: Probe) -> object:
    """Each function in which a task stops running."""
    await lowlevel.checkpoint()
    await lowlevel.checkpoint_if_cancelled()
    await lowlevel.cancel_shielded_checkpoint()
    task = lowlevel.current_task()

    def wake() -> None:
        try:
            lowlevel.reschedule(task, None)
        except BaseException:
            with contextlib.suppress(RuntimeError):  # woken already
                lowlevel.reschedule(task, None)
            raise

    asyncio.get_running_loop().call_later(0.5, wake)
    await lowlevel.wait_task_rescheduled(lambda _raise: lowlevel.Abort.FAILED)
    with move_on_after(0.5) as scope:
        await lowlevel.wait_task_rescheduled(lambda _raise: lowlevel.Abort.SUCCEEDED)
    with CancelScope() as cancelled:
        cancelled.cancel()
        await lowlevel.cancel_shielded_checkpoint()
        await lowlevel.checkpoint_if_cancelled()
    with CancelScope() as cancelled:
        cancelled.cancel()
        await lowlevel.wait_task_rescheduled(lambda _raise: lowlevel.Abort.SUCCEEDED)

    def fail(_raise: object) -> lowlevel.Abort:
        p.raise_error("abort function")
        raise AssertionError

    with move_on_after(0.5):
        await lowlevel.wait_task_rescheduled(fail)
    return scope.cancelled_caught


# -- asyncio's own --------------------------------------------------------------


@program()
async def adopted_task(p: Probe) -> object:
    """Tasks that asyncio code starts use scopes and nurseries."""

    async def native() -> str:
        with move_on_after(0.5) as scope:
            await sleep(LONG)
        async with p.nursery() as block:
            block.spawn(p.nap, 0.5)
        return f"{scope.cancelled_caught}"

    async def failing() -> None:
        async with p.nursery() as block:
            block.spawn(p.fail, 0.5)

    return shape_of(await p.catch_all([p.task(native()), p.task(failing())]))


@program()
async def native_cancel_of_host(p: Probe) -> str:
    """A task in a nursery's block is cancelled natively, in the body and in the wait."""

    async def host(seconds: float) -> None:
        try:
            async with p.nursery() as block:
                block.spawn(p.nap, LONG)
                block.spawn(p.native_nap, LONG)
                await sleep(seconds)
        finally:
            p.note("left")

    tasks = [p.task(host(LONG)), p.task(host(0))]
    try:
        await sleep(0.5)
    finally:
        for task in tasks:
            task.cancel()
        await p.catch_all(tasks)
    return "done"


@program()
async def native_cancel_of_child(p: Probe) -> str:
    """Children are cancelled natively: in a wait, before the first step, holding a lock."""
    lock = nurseryio.Lock()

    async def hold() -> None:
        async with lock:
            await sleep(LONG)

    async with p.nursery() as block:
        block.spawn(hold)
        block.spawn(p.nap, LONG)
        await sleep(0.5)
        block.spawn(hold)
        block.spawn(p.nap, 0.5)
        for task in block.nursery.child_tasks:
            if "nap" in task.name or "hold" in task.name:
                task.asyncio_task.cancel()
    if lock.locked():
        p.fault("lock", "still held")
    return "done"


@program(since=(3, 11))
async def taskgroup_inside(p: Probe) -> object:
    """asyncio's TaskGroup and timeout inside scopes and a nursery."""
    try:
        with move_on_after(0.5) as scope:
            async with asyncio.TaskGroup() as group:
                group.create_task(p.nap(LONG))
                group.create_task(p.native_nap(LONG))
    except BaseException as error:
        # TaskGroup may leave its own request to the parent counted: after a KeyboardInterrupt in a
        # child, and before 3.13 after any error.
        if sys.version_info < (3, 13) or isinstance(error, KeyboardInterrupt):
            p.requests = asyncio.current_task().cancelling()  # type: ignore[union-attr]
        raise
    p.note(scope.cancelled_caught)
    async with p.nursery() as block:
        block.spawn(p.nap, LONG)
        try:
            async with asyncio.timeout(0.5):
                await sleep(LONG)
        except TimeoutError as error:
            p.caught(error)
        block.scope.cancel()
    return scope.cancelled_caught


@program(since=(3, 11))
async def taskgroup_around(p: Probe) -> str:
    """asyncio's TaskGroup and timeout around nurseries, one of which fails."""

    async def failing() -> None:
        async with p.nursery() as block:
            block.spawn(p.fail, 0.5)
            block.spawn(p.nap, LONG)

    async def waiting() -> None:
        async with p.nursery() as block:
            block.spawn(p.nap, LONG, "beside")
            await sleep(LONG)

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(failing())
            group.create_task(waiting())

    # A separate task: before 3.13 a TaskGroup leaves a cancel request behind.
    await p.catch_all([p.task(both())])
    try:
        async with asyncio.timeout(0.5):
            async with p.nursery() as block:
                block.spawn(p.nap, LONG)
    except TimeoutError as error:
        p.caught(error)
    return "done"


def shape_of(results: list[object]) -> str:
    """Results without errors."""
    return " ".join(str(result) for result in results if not isinstance(result, BaseException))


# -- the rest -------------------------------------------------------------------


class _Instrument(nurseryio.abc.Instrument):
    def __init__(self) -> None:
        self.calls = 0

    def task_spawned(self, task: Any) -> None:
        self.calls += 1

    task_scheduled = before_task_step = after_task_step = task_exited = task_spawned


@program()
async def instrument(p: Probe) -> bool:
    """An instrument is installed for a while."""
    instrument = _Instrument()
    lowlevel.add_instrument(instrument)
    try:
        async with p.nursery() as block:
            block.spawn(p.nap, 0.5)
            with move_on_after(0.5):
                await sleep(LONG)
    finally:
        try:
            lowlevel.remove_instrument(instrument)
        except KeyError:
            p.note("removed")
    return instrument.calls > 0


@program("run-stock", "app-stock", fresh=True)
async def thread_hop(p: Probe) -> object:
    """Worker threads: a result, an error, a cancelled call, calls back into the loop."""

    def fail() -> None:
        p.raise_error("thread")

    def back() -> list[object]:
        found = [from_thread.run_sync(lambda: 1), from_thread.run(two)]
        from_thread.check_cancelled()
        return found

    async def two() -> int:
        await lowlevel.checkpoint()
        return 2

    first = await to_thread.run_sync(lambda: 0)
    try:
        await to_thread.run_sync(fail)
    except Exception as error:
        p.caught(error)
    second = await to_thread.run_sync(back)
    with move_on_after(0):
        await to_thread.run_sync(lambda: 3)
    with CancelScope() as scope:
        scope.cancel()
        await to_thread.run_sync(lambda: 3, abandon_on_cancel=True)
    return [first, second]


@program()
async def stream_echo(p: Probe) -> list[int]:
    """Two streams: messages, a wait that is cut short, a message that waits for room, the end."""
    found: list[int] = []
    one, two = (SocketStream(each) for each in socket.socketpair())

    async def echo() -> None:
        while data := await two.receive_some():
            await two.send_all(data)
        await two.send_all(bytes(1_000_000))
        await two.aclose()

    async def receive() -> None:
        found.append(len(await one.receive_some()))

    try:
        async with p.nursery() as block:
            block.spawn(echo)
            for _ in range(3):
                await one.send_all(b"x")
                await receive()
            with move_on_after(0.5):
                await one.receive_some()
            await one.send_eof()
            number = 0
            while data := await one.receive_some():
                number += len(data)
            found.append(number)
    except OSError as error:
        p.caught(error)
    finally:
        one.socket.close()
        two.socket.close()
    return found


@program()
async def tcp_server(p: Probe) -> int:
    """A server, a few connections, and one that is cancelled while it waits."""
    received = 0

    async def answer(stream: SocketStream) -> None:
        async with stream:
            while data := await stream.receive_some():
                await stream.send_all(data)

    async def ask(port: int) -> None:
        nonlocal received
        async with await open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"question")
            received += len(await stream.receive_some())
            with move_on_after(0.5):
                await stream.receive_some()

    try:
        async with p.nursery() as block:
            listeners = await block.nursery.start(partial(serve_tcp, answer, 0, host="127.0.0.1"))
            port = listeners[0].socket.getsockname()[1]
            for _ in range(2):
                await ask(port)
            block.scope.cancel()
    except OSError as error:
        p.caught(error)
    return received


@program("run-stock", "run-uvloop")
async def system_tasks(p: Probe) -> str:
    """A token schedules a function, a system task runs beside the program."""
    event = nurseryio.Event()
    token = lowlevel.current_trio_token()
    token.run_sync_soon(event.set)
    await event.wait()
    done = nurseryio.Event()

    async def system() -> None:
        await sleep(0.5)
        done.set()
        await sleep(LONG)

    lowlevel.spawn_system_task(system)
    with fail_after(1.0):
        await done.wait()
    return "done"


@program()
async def gathered(p: Probe) -> object:
    """``gather``, ``race`` and ``amap``, with an error too."""

    async def give(value: int) -> int:
        await sleep(0.25)
        return value

    async def fail() -> int:
        await p.fail(0.25)
        return 0

    found = await nurseryio.gather(lambda: give(1), lambda: give(2))
    p.note(found)
    try:
        await nurseryio.gather(lambda: give(1), fail)
    except BaseException as error:
        p.caught(error)
    return list(found)


@program()
async def stop_requested(p: Probe) -> str:
    """A stop request: seen, waited for, ending a wait, at the end of the grace period."""

    async def worker() -> None:
        with nurseryio.move_on_at_stop() as waiting:
            await sleep(LONG)
        p.note("worker", waiting.cancelled_caught)
        await p.nap(0.25, "finishing")

    async def lingers() -> None:
        with nurseryio.move_on_at_stop(delay=0.25):
            await sleep(LONG)
        p.note("lingered")

    async def waits() -> None:
        await nurseryio.wait_stop_requested()
        p.note("asked", nurseryio.stop_requested())

    async with p.nursery() as block:
        for child in (worker, lingers, waits):
            block.spawn(child)
        block.spawn(p.nap, LONG, "cut short")
        await sleep(0.5)
        block.scope.request_stop(1.0)
    return f"{block.scope.cancelled_caught}"


@program()
async def services(p: Probe) -> str:
    """Services end after the work, with a grace period; one is started late."""

    async def pool(task_status: Any) -> None:
        task_status.started("pool")
        await p.nap(LONG, "pool")

    async def log() -> None:
        await nurseryio.wait_stop_requested()
        group.start_soon(p.nap, LONG, "late")
        await p.nap(0.25, "log")

    with move_on_after(0.5):
        async with nurseryio.open_service_nursery(grace_period=0.5) as group:
            p.note(await group.start(pool))
            group.start_soon(log)
            async with p.nursery() as block:
                block.spawn(p.nap, LONG, "work")
    return "done"


@program()
async def handles(p: Probe) -> list[bool]:
    """Handles of children: a result, a child that is cancelled alone, one that fails."""

    async def give() -> int:
        await sleep(0.25)
        return 3

    found = []
    try:
        async with nurseryio.open_nursery() as nursery:
            given = nurseryio.TaskHandle.start_soon(nursery, give)
            slept = nurseryio.TaskHandle.start_soon(nursery, p.nap, LONG)
            await given.wait()
            p.note(given.result())
            slept.cancel()
            await slept.wait()
            found = [given.cancelled(), slept.cancelled()]
            nursery.start_soon(p.nap, 0.25)
            await nurseryio.wait_children(nursery)
            failed = nurseryio.TaskHandle.start_soon(nursery, p.fail, 0.25)
            await failed.wait()
            await sleep(LONG)
    except BaseException as error:
        p.caught(error)
    return found


@program()
async def supervised(p: Probe) -> str:
    """A child that fails and is restarted, beside a sibling."""
    failures = 0

    async def child() -> None:
        nonlocal failures
        failures += 1
        await p.nap(0.25, "again")
        if failures == 1:
            raise OSError("handled")

    def decide(failure: nurseryio.ChildFailure) -> Any:
        p.note("failed", type(failure.error).__name__)
        return "restart" if isinstance(failure.error, OSError) else "raise"

    async with nurseryio.open_supervisor(decide, pause=0.25) as group:
        group.start_soon(child)
        group.start_soon(p.nap, 0.75)
    return f"{group.statistics().restarts}"


@program()
async def safe_channel(p: Probe) -> list[int]:
    """An async generator behind a channel, left before its end."""

    @nurseryio.as_safe_channel
    async def numbers() -> Any:
        for number in range(10):
            await sleep(0.25)
            yield number

    got = []
    async with numbers() as channel:
        async for number in channel:
            got.append(number)
            if number == 2:
                break
    return got


@program("run-stock", "app-stock")
async def anyio_mixture(p: Probe) -> str:
    """anyio's scopes and task groups with nurseryio's inside and around."""
    import anyio

    with anyio.move_on_after(0.5) as outer:
        async with p.nursery() as block:
            block.spawn(p.nap, LONG)
            await sleep(LONG)
    p.note(outer.cancelled_caught)
    with move_on_after(0.5) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(p.nap, LONG)
            with anyio.CancelScope(shield=True):
                await p.nap(0.75, "shielded")
            await anyio.sleep(LONG)
    return f"{scope.cancelled_caught}"


__all__ = ["CASES", "LONG", "PROGRAMS", "Block", "Program", "bystander"]
