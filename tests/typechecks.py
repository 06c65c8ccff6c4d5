"""The types of the generic parts: mypy and pyright check this file, nothing runs it.

Each ``assert_type`` fails the check if the type is any other, ``Any`` included. Each line with
``type: ignore`` is a mistake that must be found: a comment that is not needed fails the check as
well, in both checkers.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true
# pyright: reportUnusedExpression=false, reportUnusedCoroutine=false

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import nurseryio
from nurseryio import (
    TASK_STATUS_IGNORED,
    MemoryReceiveChannel,
    MemorySendChannel,
    SocketListener,
    SocketStream,
    SSLListener,
    SSLStream,
    StapledStream,
    TaskHandle,
    TaskStatus,
    abc,
    aio,
    from_thread,
    lowlevel,
    testing,
    to_interpreter,
    to_process,
    to_thread,
)

if TYPE_CHECKING:
    import io
    import ssl

    from typing_extensions import assert_type


class Animal:
    pass


class Dog(Animal):
    pass


# -- channels -------------------------------------------------------------------


async def ends_know_what_they_carry() -> None:
    sending, receiving = nurseryio.open_memory_channel[int](0)
    assert_type(sending, MemorySendChannel[int])
    assert_type(receiving, MemoryReceiveChannel[int])
    assert_type(sending.clone(), MemorySendChannel[int])
    assert_type(receiving.clone(), MemoryReceiveChannel[int])
    assert_type(await receiving.receive(), int)
    assert_type(receiving.receive_nowait(), int)
    await sending.send(True)
    await sending.send("one")  # type: ignore[arg-type]
    sending.send_nowait("one")  # type: ignore[arg-type]
    async with receiving as same, sending as other:
        assert_type(same, MemoryReceiveChannel[int])
        assert_type(other, MemorySendChannel[int])
        async for number in same:
            assert_type(number, int)


def an_end_for_more_will_do_for_less(
    animals_in: MemorySendChannel[Animal],
    animals_out: MemoryReceiveChannel[Animal],
    dogs_in: MemorySendChannel[Dog],
    dogs_out: MemoryReceiveChannel[Dog],
) -> None:
    send_dogs: MemorySendChannel[Dog] = animals_in
    get_animals: MemoryReceiveChannel[Animal] = dogs_out
    send_animals: MemorySendChannel[Animal] = dogs_in  # type: ignore[assignment]
    get_dogs: MemoryReceiveChannel[Dog] = animals_out  # type: ignore[assignment]
    abstract: tuple[abc.SendChannel[Dog], abc.ReceiveChannel[Animal]] = (send_dogs, get_animals)
    wrong: tuple[abc.SendChannel[Animal], abc.ReceiveChannel[Dog]] = (
        dogs_in,  # type: ignore[assignment]
        animals_out,
    )
    print(send_dogs, get_animals, send_animals, get_dogs, abstract, wrong)


class Doubler(abc.Channel[int]):
    async def send(self, value: int) -> None: ...
    async def receive(self) -> int:
        return 2

    async def aclose(self) -> None: ...


async def channels_of_ones_own() -> None:
    async with Doubler() as doubler:
        assert_type(doubler, Doubler)
        assert_type(await doubler.receive(), int)
        async for number in doubler:
            assert_type(number, int)


@nurseryio.as_safe_channel
async def lines(path: str, *, most: int = 3) -> AsyncGenerator[bytes, None]:
    yield path.encode()[:most]


async def safe_channels_keep_parameters_and_items() -> None:
    assert_type(lines("a"), AbstractAsyncContextManager[abc.ReceiveChannel[bytes]])
    async with lines("a", most=2) as channel:
        assert_type(channel, abc.ReceiveChannel[bytes])
        async for line in channel:
            assert_type(line, bytes)
    lines(3)  # type: ignore[arg-type]
    lines("a", least=3)  # type: ignore[call-arg]


async def queues() -> None:
    queue = lowlevel.UnboundedQueue[str]()
    queue.put_nowait("a")
    queue.put_nowait(1)  # type: ignore[arg-type]
    assert_type(await queue.get_batch(), list[str])
    async for batch in queue:
        assert_type(batch, list[str])


# -- nurseries and run ----------------------------------------------------------


async def server(port: int, *, task_status: TaskStatus[str] = TASK_STATUS_IGNORED) -> None:
    task_status.started("ready")
    task_status.started(port)  # type: ignore[arg-type]


async def many(
    port: int,
    host: str = "",
    quick: bool = False,
    backlog: int = 0,
    task_status: TaskStatus[int] = TASK_STATUS_IGNORED,
) -> None:
    task_status.started(backlog)


async def without_a_value(*, task_status: TaskStatus = TASK_STATUS_IGNORED) -> None:
    assert_type(task_status, TaskStatus[None])


async def ready(*, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
    task_status.started()


async def an_annotation_for_files(file: nurseryio.AsyncIOWrapper[io.TextIOWrapper]) -> None:
    assert_type(await file.read(), str)
    async with nurseryio.open_file("name") as opened:
        assert_type(opened, nurseryio.AsyncIOWrapper[io.TextIOWrapper])
    await an_annotation_for_files(opened)
    async with nurseryio.open_file("name", "rb") as other:
        await an_annotation_for_files(other)  # type: ignore[arg-type]


async def children() -> None:
    async with nurseryio.open_nursery() as nursery:
        assert_type(nursery, nurseryio.Nursery)
        nursery.start_soon(server, 80)
        nursery.start_soon(server, 80, name="server")
        nursery.start_soon(server)  # type: ignore[arg-type]
        nursery.start_soon(server, "80")  # type: ignore[arg-type]
        nursery.start_soon(server(80))  # type: ignore[arg-type]
        assert_type(await nursery.start(server, 80), str)
        assert_type(await nursery.start(server, 80, name="server"), str)
        assert_type(await nursery.start(many, 80), int)
        assert_type(await nursery.start(many, 80, "host"), int)
        assert_type(await nursery.start(many, 80, "host", True), int)
        await nursery.start(ready)
        process: nurseryio.Process = await nursery.start(nurseryio.run_process, ["ls"])
        process.kill()
        # More than three arguments, or others than the function takes: as in Trio.
        assert_type(await nursery.start(many, 80, "host", True, 0), Any)
        assert_type(await nursery.start(server, "80"), Any)
        # Functions of any arguments. (Such a result once had the type T_co@Starts1 in pyright.)
        unknown: Any = server
        assert_type(await nursery.start(partial(unknown, 80)), Any)
        assert_type(await nursery.start(partial(unknown, 80), "host"), Any)
        assert_type(await nursery.start(partial(unknown), 80, "host"), Any)
        assert_type(await nursery.start(unknown, 80), Any)
        assert_type(nursery.child_tasks, "frozenset[lowlevel.Task]")


async def answer(question: str) -> int:
    return len(question)


def runs() -> None:
    assert_type(nurseryio.run(answer, "what?"), int)
    nurseryio.run(answer)  # type: ignore[arg-type]
    nurseryio.run(answer, 42)  # type: ignore[arg-type]
    nurseryio.run(answer("what?"))  # type: ignore[arg-type]


async def scopes() -> None:
    with nurseryio.move_on_after(1) as scope:
        assert_type(scope, nurseryio.CancelScope)
    with nurseryio.fail_after(1) as scope:
        assert_type(scope, nurseryio.CancelScope)
    with nurseryio.fail_at(1) as scope:
        assert_type(scope, nurseryio.CancelScope)
    # A checker must see that code behind a scope may be reached although the body returns.
    with nurseryio.move_on_after(1):
        return
    print("reached when the time was over")


async def limited() -> int:
    # Nothing is behind the block: it raises an error when the time is over.
    with nurseryio.fail_after(1):
        return 1


# -- results --------------------------------------------------------------------


async def number() -> int:
    return 1


async def text() -> str:
    return "a"


async def results() -> None:
    assert_type(await nurseryio.gather(number), tuple[int])
    assert_type(await nurseryio.gather(number, text), tuple[int, str])
    assert_type(await nurseryio.gather(number, text, number), tuple[int, str, int])
    assert_type(await nurseryio.gather(partial(answer, "a"), text), tuple[int, str])
    assert_type(await nurseryio.gather(*[number, number]), tuple[int, ...])
    assert_type(await nurseryio.race(number, text), "int | str")
    assert_type(await nurseryio.race(*[number, number]), int)
    await nurseryio.gather(number())  # type: ignore[call-overload]
    await nurseryio.gather(answer)  # type: ignore[arg-type]


async def maps(questions: AsyncIterable[str]) -> None:
    async with nurseryio.amap(answer, ["a", "b"], limit=2) as answers:
        assert_type(answers, MemoryReceiveChannel[int])
    async with nurseryio.amap(answer, questions, limit=2, ordered=False) as answers:
        assert_type(await answers.receive(), int)
    nurseryio.amap(answer, [1, 2], limit=2)  # type: ignore[arg-type]
    nurseryio.amap(answer, ["a"])  # type: ignore[call-arg]


# -- variables, waiting, threads ------------------------------------------------


async def run_vars() -> None:
    var = lowlevel.RunVar("var", 1)
    assert_type(var, lowlevel.RunVar[int])
    assert_type(var.get(), int)
    token = var.set(2)
    assert_type(token, lowlevel.RunVarToken[int])
    var.reset(token)
    var.set("a")  # type: ignore[arg-type]
    named: lowlevel.RunVar[str] = lowlevel.RunVar("named")
    assert_type(named.get(), str)
    named.reset(token)  # type: ignore[arg-type]


async def tasks() -> None:
    task = lowlevel.current_task()
    assert_type(task.parent_nursery, "nurseryio.Nursery | None")
    assert_type(lowlevel.current_root_task(), "lowlevel.Task | None")
    assert_type(nurseryio.Lock().statistics().owner, "lowlevel.Task | None")
    assert_type(lowlevel.spawn_system_task(answer, "a"), lowlevel.Task)
    lowlevel.spawn_system_task(answer, 1)  # type: ignore[arg-type]

    def abort(raise_cancel: lowlevel.RaiseCancelT) -> lowlevel.Abort:
        return lowlevel.Abort.SUCCEEDED

    assert_type(await lowlevel.wait_task_rescheduled(abort), Any)


def length(text: str) -> int:
    return len(text)


async def threads() -> None:
    assert_type(await to_thread.run_sync(length, "a"), int)
    await to_thread.run_sync(length, 1)  # type: ignore[arg-type]
    assert_type(await to_process.run_sync(length, "a"), int)
    await to_process.run_sync(length, 1)  # type: ignore[arg-type]
    assert_type(await to_interpreter.run_sync(length, "a"), int)
    assert_type(from_thread.run_sync(length, "a"), int)
    assert_type(from_thread.run(answer, "a"), int)
    from_thread.run(answer, 1)  # type: ignore[arg-type]
    with from_thread.open_portal() as portal:
        assert_type(portal, from_thread.Portal)
        assert_type(portal.run(answer, "a"), int)
        portal.run(answer, 1)  # type: ignore[arg-type]
        assert_type(portal.run_sync(length, "a"), int)
        with portal.open_nursery() as portal_nursery:
            assert_type(portal_nursery, from_thread.PortalNursery)
            assert_type(portal_nursery.run(answer, "a"), int)
            portal_nursery.start_soon(answer, 1)  # type: ignore[arg-type]
    assert_type(from_thread.shared_portal(), from_thread.Portal)


# -- streams --------------------------------------------------------------------


async def stapled(sender: testing.MemorySendStream, receiver: SocketStream) -> None:
    both = StapledStream(sender, receiver)
    assert_type(both, StapledStream[testing.MemorySendStream, SocketStream])
    assert_type(both.send_stream, testing.MemorySendStream)
    assert_type(both.receive_stream, SocketStream)
    StapledStream(receiver, sender)  # type: ignore[type-var]


async def secured(context: ssl.SSLContext) -> None:
    tcp = await nurseryio.open_tcp_stream("host", 80)
    assert_type(tcp, SocketStream)
    secure = SSLStream(tcp, context)
    assert_type(secure, SSLStream[SocketStream])
    assert_type(secure.transport_stream, SocketStream)
    assert_type(await secure.unwrap(), tuple[SocketStream, bytes])
    # TLS in TLS.
    assert_type(SSLStream(secure, context), SSLStream[SSLStream[SocketStream]])
    assert_type(await nurseryio.open_ssl_over_tcp_stream("host", 443), SSLStream[SocketStream])


async def listeners(context: ssl.SSLContext) -> None:
    tcp = await nurseryio.open_tcp_listeners(80)
    assert_type(tcp, list[SocketListener])
    assert_type(await tcp[0].accept(), SocketStream)
    secure = SSLListener(tcp[0], context)
    assert_type(secure, SSLListener[SocketStream])
    assert_type(await secure.accept(), SSLStream[SocketStream])


def a_listener_of_special_streams_will_do(
    tcp: SocketListener, general: abc.Listener[abc.Stream]
) -> None:
    fits: abc.Listener[abc.Stream] = tcp
    does_not: abc.Listener[SocketStream] = general  # type: ignore[assignment]
    print(fits, does_not)


async def handle_tcp(stream: SocketStream) -> None: ...
async def handle_any(stream: abc.Stream) -> None: ...
async def handle_tls(stream: SSLStream[SocketStream]) -> None: ...


# serve_listeners() never returns, so checkers look at nothing behind a call.
def serving(tcp: list[SocketListener], tls: list[SSLListener[SocketStream]]) -> None:
    for each in (
        partial(nurseryio.serve_listeners, handle_tcp, tcp),
        partial(nurseryio.serve_listeners, handle_any, tcp),
        partial(nurseryio.serve_listeners, handle_tls, tls),
        partial(nurseryio.serve_listeners, handle_any, tls),
    ):
        nurseryio.run(each)
    print(nurseryio.serve_listeners(handle_tls, tcp[0]))  # type: ignore[arg-type]
    print(nurseryio.serve_listeners(handle_tcp, [tcp]))  # type: ignore[type-var]


# -- files, testing, asyncio ----------------------------------------------------


async def opened_without_inner_await() -> None:
    async with nurseryio.open_file("a") as file:
        assert_type(await file.read(), str)
    async with nurseryio.open_file("a", "rb") as binary:
        assert_type(await binary.read(), bytes)
    async with nurseryio.Path("a").open("wb", buffering=0) as raw:
        assert_type(await raw.write(b"x"), int)
    assert_type(await nurseryio.sendfile(nurseryio.open_stdout(), binary, 3), int)
    await nurseryio.sendfile(nurseryio.open_stdout(), file)  # type: ignore[arg-type]


async def temporary() -> None:
    async with nurseryio.TemporaryDirectory() as path:
        assert_type(path, nurseryio.Path)
    async with nurseryio.TemporaryFile() as binary:
        assert_type(await binary.read(), bytes)
    async with nurseryio.NamedTemporaryFile("w+") as text:
        assert_type(await text.read(), str)


async def buffered(tcp: SocketStream) -> None:
    reader = nurseryio.BufferedReceiveStream(tcp)
    assert_type(reader, nurseryio.BufferedReceiveStream[SocketStream])
    assert_type(reader.receive_stream, SocketStream)
    assert_type(await reader.receive_exactly(3), bytes)
    async for line in reader.lines():
        assert_type(line, bytes)
    async for text in reader.lines("utf-8", max_bytes=100):
        assert_type(text, str)
    nurseryio.BufferedReceiveStream(3)  # type: ignore[type-var]


async def files() -> None:
    async with await nurseryio.open_file("a") as file:
        assert_type(await file.read(), str)
    async with await nurseryio.open_file("a", "rb") as binary:
        assert_type(await binary.read(), bytes)
    assert_type(await nurseryio.Path("a").read_bytes(), bytes)


@testing.nurseryio_test
async def a_test(clock: testing.MockClock) -> None: ...


def tests() -> None:
    assert_type(testing.MockClock(rate=1).rate, float)
    a_test(testing.MockClock())
    a_test(1)  # type: ignore[arg-type]


async def hosted(open_it: Callable[[], AbstractAsyncContextManager[int]]) -> None:
    async with nurseryio.open_nursery() as nursery:
        held = await aio.enter_in_task(nursery, open_it())
        assert_type(held, aio.EnteredContext[int])
        assert_type(held.value, int)


# -- stopping, services, handles, supervision -------------------------------------


async def parse(text: str, base: int = 10) -> int:
    return int(text, base)


async def handles_know_their_result() -> None:
    async with nurseryio.open_nursery() as nursery:
        handle = TaskHandle.start_soon(nursery, parse, "7")
        assert_type(handle, TaskHandle[int])
        assert_type(handle.result(), int)
        assert_type(handle.exception(), "BaseException | None")
        TaskHandle.start_soon(nursery, parse, 7)  # type: ignore[arg-type]
        await nurseryio.wait_children(nursery)
        await nurseryio.wait_children(handle)  # type: ignore[arg-type]


async def blocks_that_stop_give_scopes() -> None:
    with nurseryio.stop_on_signals(grace_period=3) as scope:
        assert_type(scope, nurseryio.CancelScope)
        scope.request_stop(3)
        assert_type(scope.stop_requested, bool)
    with nurseryio.move_on_at_stop() as waiting:
        assert_type(waiting, nurseryio.CancelScope)
    assert_type(nurseryio.stop_requested(), bool)


async def services_are_a_nursery() -> None:
    async with nurseryio.open_service_nursery() as services:
        assert_type(services, nurseryio.ServiceNursery)
        services.start_soon(parse, "7")
        services.start_soon(parse, 7)  # type: ignore[arg-type]
        await nurseryio.wait_children(services)


def decide(failure: nurseryio.ChildFailure) -> Literal["restart", "drop"]:
    assert_type(failure.error, Exception)
    return "restart" if failure.restarts < 3 else "drop"


def decide_wrongly(failure: nurseryio.ChildFailure) -> str:
    return "again"


async def supervisors_take_a_handler_that_decides() -> None:
    async with nurseryio.open_supervisor(decide) as group:
        assert_type(group, nurseryio.Supervisor)
        group.start_soon(parse, "7")
        assert_type(group.statistics().running, int)
    nurseryio.open_supervisor(decide_wrongly)  # type: ignore[arg-type]


async def servers_that_stop_return(stream: SocketStream) -> None:
    async def handler(stream: SocketStream) -> None: ...

    await nurseryio.serve_tcp(handler, 0)
    print("this line is reached")
