"""Ctrl-C: where KeyboardInterrupt is raised, where it is not, and how it ends a program."""

from __future__ import annotations

import _thread
import asyncio
import gc
import signal
import ssl
import sys
import tempfile
import threading
import types
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from harness import matrix, pypy

import nurseryio
import nurseryio.aio
import nurseryio.instruments
import nurseryio.testing
from nurseryio._base.outcome import Value
from nurseryio._core.ki import KIHandler, is_protected, user_code_boundary
from nurseryio.lowlevel import (
    Abort,
    checkpoint,
    currently_ki_protected,
    disable_ki_protection,
    enable_ki_protection,
    wait_task_rescheduled,
)
from nurseryio.testing.step_runner import StepRunner


def press() -> None:
    signal.raise_signal(signal.SIGINT)


# -- marks ----------------------------------------------------------------------


async def test_ki_protection_is_off_in_a_child_and_the_innermost_decorator_decides() -> None:
    seen = []

    @enable_ki_protection
    def protected() -> None:
        seen.append(currently_ki_protected())
        opened()

    @disable_ki_protection
    def opened() -> None:
        seen.append(currently_ki_protected())

    @enable_ki_protection
    async def protected_child() -> None:
        seen.append(currently_ki_protected())
        await checkpoint()
        seen.append(currently_ki_protected())

    async def child() -> None:
        seen.append(currently_ki_protected())
        protected()
        await checkpoint()
        seen.append(currently_ki_protected())

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert seen == [False, True, False, False]
    seen.clear()
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(protected_child)
    assert seen == [True, True]


@pytest.mark.app_only
async def test_a_task_started_by_asyncio_has_ki_protection() -> None:
    # A KeyboardInterrupt raised in its step would tear the loop down.
    assert currently_ki_protected()


def test_code_outside_any_task_counts_as_ki_protected() -> None:
    assert currently_ki_protected()


async def test_generators_have_their_own_ki_protection() -> None:
    seen = []

    @enable_ki_protection
    def generator() -> Iterator[None]:
        seen.append(currently_ki_protected())
        yield

    @enable_ki_protection
    async def async_generator() -> AsyncIterator[None]:
        seen.append(currently_ki_protected())
        yield

    async def child() -> None:
        for _ in generator():
            seen.append(currently_ki_protected())
        async for _ in async_generator():
            seen.append(currently_ki_protected())

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert seen == [True, False, True, False]


@pypy.needs_reference_counting
async def test_keyboard_interrupt_is_not_raised_in_finalizers() -> None:
    seen = []

    class Finalized:
        def __del__(self) -> None:
            seen.append(currently_ki_protected())

    async def child() -> None:
        Finalized()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert seen == [True]


class Resource:
    """Something that is referred to weakly."""


@pypy.needs_reference_counting
async def test_keyboard_interrupt_is_not_raised_in_weakref_and_gc_callbacks() -> None:
    seen: list[bool] = []

    class Watcher:
        def gone(self, *_: object) -> None:
            seen.append(currently_ki_protected())

    def gone(_reference: object) -> None:
        seen.append(currently_ki_protected())

    def call_back(*_: object, **_also: object) -> None:
        seen.append(currently_ki_protected())

    def collected(_phase: str, _info: dict[str, int]) -> None:
        seen.append(currently_ki_protected())

    async def child() -> None:
        for callback in (gone, call_back, Watcher().gone, lambda _, _more=1: gone(None)):
            resource = Resource()
            reference = weakref.ref(resource, callback)
            del resource
            assert reference() is None
        resource = Resource()
        weakref.finalize(resource, call_back)
        del resource
        assert seen == [True] * 5
        gc.callbacks.append(collected)
        try:
            gc.collect()
        finally:
            gc.callbacks.remove(collected)
        assert seen == [True] * 7
        # The same functions, called by the user.
        gone(None)
        weakref.finalize(Watcher, call_back)()
        assert seen[7:] == [False, False]

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)


async def test_a_signal_handler_has_the_ki_protection_of_the_code_that_it_interrupted() -> None:
    seen = []

    def note() -> None:
        seen.append(currently_ki_protected())

    def handle(_number: int, _frame: types.FrameType | None) -> None:
        note()

    def profile(frame: types.FrameType, event: str, _arg: object) -> None:
        if event == "call" and frame.f_code is asyncio.Semaphore.release.__code__:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGUSR1)

    async def child() -> None:
        signal.raise_signal(signal.SIGUSR1)
        semaphore = asyncio.Semaphore()
        sys.setprofile(profile)
        semaphore.release()

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [False, True]


def test_functions_that_compare_equal_have_their_own_ki_protection() -> None:
    def make() -> object:
        return lambda: currently_ki_protected()

    marked, unmarked = make(), make()
    disable_ki_protection(marked)
    assert marked.__code__ is unmarked.__code__  # type: ignore[attr-defined]
    assert marked() is False  # type: ignore[operator]


# -- user code that the library calls -------------------------------------------


@user_code_boundary
async def wrapper(seen: list[bool]) -> None:
    seen.append(is_protected(sys._getframe()))
    await checkpoint()
    seen.append(is_protected(sys._getframe()))


async def test_the_wrapper_coroutine_of_a_task_has_ki_protection() -> None:
    seen: list[bool] = []
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wrapper, seen)
    assert seen == [True, True]


Seen = list[bool]


class Program:
    """User code of all kinds that notes whether Ctrl-C would be raised in it."""

    def __init__(self) -> None:
        self.seen: Seen = []

    def note(self, *_: object) -> None:
        self.seen.append(currently_ki_protected())

    async def function(self, *_: object, **_also: object) -> None:
        self.note()
        await checkpoint()
        self.note()

    def sync_function(self, *_: object, **_also: object) -> Awaitable[None]:
        self.note()
        return self.function()

    async def started(self, *, task_status: nurseryio.TaskStatus[None]) -> None:
        self.note()
        task_status.started()
        await self.function()

    async def serving(self, stream: nurseryio.abc.AsyncResource) -> None:
        await self.function()
        self.served.set()

    async def generator(self) -> AsyncIterator[int]:
        self.note()
        yield 1
        await self.function()

    def iterator(self) -> Iterator[int]:
        self.note()
        yield 1
        self.note()

    @asynccontextmanager
    async def manager(self) -> AsyncIterator[None]:
        await self.function()
        yield
        await self.function()

    async def serve(self, serve: Callable[..., Awaitable[object]], connect: Any) -> None:
        self.served = nurseryio.Event()
        async with nurseryio.open_nursery() as nursery:
            listeners = await nursery.start(partial(serve, self.serving))
            async with await connect(listeners[0]):
                await self.served.wait()
            nursery.cancel_scope.cancel()


async def connect_tcp(listener: nurseryio.SocketListener) -> nurseryio.SocketStream:
    return await nurseryio.testing.open_stream_to_socket_listener(listener)


async def by_start_soon(program: Program) -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(program.function)
        nursery.start_soon(program.sync_function)  # type: ignore[arg-type]


async def by_start(program: Program) -> None:
    async with nurseryio.open_nursery() as nursery:
        await nursery.start(program.started)


async def by_service_nursery(program: Program) -> None:
    async with nurseryio.open_service_nursery() as services:
        services.start_soon(program.function)
        services.start_soon(program.sync_function)  # type: ignore[arg-type]
        await checkpoint()
        await checkpoint()


async def by_start_of_a_service(program: Program) -> None:
    async with nurseryio.open_service_nursery() as services:
        await services.start(program.started)


async def by_task_handle(program: Program) -> None:
    async with nurseryio.open_nursery() as nursery:
        nurseryio.TaskHandle.start_soon(nursery, program.function)


async def by_supervisor(program: Program) -> None:
    async with nurseryio.open_supervisor() as supervisor:
        supervisor.start_soon(program.function)


async def by_open_supervisor(program: Program) -> None:
    def drop(failure: object) -> Any:
        program.note()
        return "drop"

    async def fail() -> None:
        raise ValueError

    async with nurseryio.open_supervisor(drop) as supervisor:
        supervisor.start_soon(fail)


async def by_gather(program: Program) -> None:
    await nurseryio.gather(program.function, program.sync_function)


async def by_race(program: Program) -> None:
    await nurseryio.race(program.function, program.sync_function)


async def by_amap(program: Program) -> None:
    async with nurseryio.amap(program.sync_function, program.iterator(), limit=1) as results:
        assert [result async for result in results] == [None]
    async with nurseryio.amap(program.function, program.generator(), limit=1) as results:
        assert [result async for result in results] == [None]


async def by_as_safe_channel(program: Program) -> None:
    async with nurseryio.as_safe_channel(program.generator)() as channel:
        assert [item async for item in channel] == [1]


async def by_serve_listeners(program: Program) -> None:
    async def serve(handler: Any, *, task_status: Any) -> None:
        listeners = await nurseryio.open_tcp_listeners(0, host="127.0.0.1")
        await nurseryio.serve_listeners(handler, listeners, task_status=task_status)

    await program.serve(serve, connect_tcp)


async def by_serve_tcp(program: Program) -> None:
    await program.serve(partial(nurseryio.serve_tcp, port=0, host="127.0.0.1"), connect_tcp)


async def by_serve_unix(program: Program) -> None:
    async def connect(listener: nurseryio.SocketListener) -> nurseryio.SocketStream:
        return await nurseryio.open_unix_socket(listener.socket.getsockname())

    with tempfile.TemporaryDirectory() as directory:

        async def serve(handler: Any, *, task_status: Any) -> None:
            await nurseryio.serve_unix(handler, f"{directory}/socket", task_status=task_status)

        await program.serve(serve, connect)


async def by_serve_ssl_over_tcp(program: Program) -> None:
    async def connect(listener: nurseryio.SSLListener[Any]) -> nurseryio.SocketStream:
        return await connect_tcp(listener.transport_listener)

    serve = partial(
        nurseryio.serve_ssl_over_tcp,
        port=0,
        ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        host="127.0.0.1",
    )
    await program.serve(serve, connect)


async def by_host(program: Program) -> None:
    async with nurseryio.open_nursery() as nursery:
        await (await nurseryio.aio.enter_in_task(nursery, program.manager())).aclose()


async def by_from_thread_run(program: Program) -> None:
    await nurseryio.to_thread.run_sync(nurseryio.from_thread.run, program.function)
    token = nurseryio.lowlevel.current_trio_token()
    call = partial(nurseryio.from_thread.run, program.function, trio_token=token)
    await nurseryio.to_thread.run_sync(call)


async def by_from_thread_run_sync(program: Program) -> None:
    await nurseryio.to_thread.run_sync(nurseryio.from_thread.run_sync, program.note)


async def by_channels_of_the_users(program: Program) -> None:
    class Numbers(nurseryio.abc.ReceiveChannel[int]):
        async def receive(self) -> int:
            await program.function()
            raise nurseryio.EndOfChannel

        async def aclose(self) -> None:
            await program.function()

    async with Numbers() as numbers:
        assert [item async for item in numbers] == []


async def by_streams_of_the_users(program: Program) -> None:
    class Sink(nurseryio.abc.SendStream):
        async def send_all(self, data: object) -> None:
            await program.function()

        async def wait_send_all_might_not_block(self) -> None:
            await program.function()

        async def aclose(self) -> None:
            await program.function()

    source = nurseryio.testing.MemoryReceiveStream()
    stream = nurseryio.StapledStream(Sink(), source)
    await stream.send_all(b"x")
    await stream.aclose()


OPEN: dict[str, Callable[[Program], Awaitable[None]]] = {
    "Nursery.start_soon": by_start_soon,
    "Nursery.start": by_start,
    "ServiceNursery.start_soon": by_service_nursery,
    "ServiceNursery.start": by_start_of_a_service,
    "TaskHandle.start_soon": by_task_handle,
    "Supervisor.start_soon": by_supervisor,
    "open_supervisor": by_open_supervisor,
    "gather": by_gather,
    "race": by_race,
    "amap": by_amap,
    "as_safe_channel": by_as_safe_channel,
    "serve_listeners": by_serve_listeners,
    "serve_tcp": by_serve_tcp,
    "serve_unix": by_serve_unix,
    "serve_ssl_over_tcp": by_serve_ssl_over_tcp,
    "host": by_host,
    "run": by_from_thread_run,
    "run_sync": by_from_thread_run_sync,
    "ReceiveChannel": by_channels_of_the_users,
    "StapledStream": by_streams_of_the_users,
}


async def by_run_sync_soon(program: Program) -> None:
    nurseryio.lowlevel.current_trio_token().run_sync_soon(program.note)
    await checkpoint()
    await checkpoint()


async def by_spawn_system_task(program: Program) -> None:
    done = nurseryio.Event()

    async def system() -> None:
        await program.function()
        done.set()

    nurseryio.lowlevel.spawn_system_task(system)
    await done.wait()


async def by_wait_task_rescheduled(program: Program) -> None:
    def abort(_raise_cancel: object) -> Abort:
        program.note()
        return Abort.SUCCEEDED

    with nurseryio.CancelScope() as scope:
        asyncio.get_running_loop().call_soon(scope.cancel)
        await wait_task_rescheduled(abort)
    with nurseryio.CancelScope() as scope:
        scope.cancel()
        await wait_task_rescheduled(abort)


async def by_add_instrument(program: Program) -> None:
    class Noting(nurseryio.abc.Instrument):
        def task_spawned(self, task: nurseryio.lowlevel.Task) -> None:
            program.note()

    instrument = Noting()
    nurseryio.lowlevel.add_instrument(instrument)
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(checkpoint)
    nurseryio.lowlevel.remove_instrument(instrument)


async def by_create_task(program: Program) -> None:
    await asyncio.create_task(program.function())


async def by_call_soon(program: Program) -> None:
    asyncio.get_running_loop().call_soon(program.note)
    await checkpoint()
    await checkpoint()


PROTECTED: dict[str, Callable[[Program], Awaitable[None]]] = {
    "LoopToken.run_sync_soon": by_run_sync_soon,
    "TrioToken.run_sync_soon": by_run_sync_soon,
    "spawn_system_task": by_spawn_system_task,
    "wait_task_rescheduled": by_wait_task_rescheduled,
    "add_instrument": by_add_instrument,
    "asyncio.create_task": by_create_task,
    "call_soon": by_call_soon,
}

# Functions with a callable among their parameters that is not called on the loop of a run, or
# that is run by one of the functions above.
ELSEWHERE = {
    "DTLSEndpoint.serve",
    "Path.walk",
    "Tracer.__init__",
    "run_process",
    "start_thread_soon",
    "provide_trio",
    # In the thread of a portal, where no signal handler is called.
    "Portal.run",
    "Portal.run_sync",
    "PortalNursery.run",
    "PortalNursery.start",
    "PortalNursery.start_soon",
    "open_portal",
}


@pytest.mark.parametrize("name", OPEN)
def test_user_code_called_through_an_api_has_no_ki_protection(name: str) -> None:
    program = Program()
    nurseryio.run(OPEN[name], program)
    assert set(program.seen) == {False}


@pytest.mark.parametrize("name", PROTECTED)
def test_user_code_called_by_an_api_as_a_callback_has_ki_protection(name: str) -> None:
    program = Program()
    nurseryio.run(PROTECTED[name], program)
    assert set(program.seen) == {True}


def test_user_code_below_the_pytest_plugin_and_the_main_function_has_no_ki_protection() -> None:
    program = Program()
    nurseryio.run(program.sync_function)
    steps = StepRunner(name="steps")
    try:
        steps.do(program.function)
    finally:
        steps.close()
    assert set(program.seen) == {False}


def test_each_public_function_that_takes_a_callable_is_in_a_list_of_ki_protection() -> None:
    public_modules = (nurseryio, nurseryio.lowlevel, nurseryio.aio, nurseryio.from_thread)
    workers = (nurseryio.to_thread, nurseryio.to_process, nurseryio.to_interpreter)
    found = set()
    for public_module in (*public_modules, *workers, nurseryio.instruments):
        for name in dir(public_module):
            thing = getattr(public_module, name, None)
            if name.startswith("_") or isinstance(thing, types.ModuleType):
                continue
            functions = {name: thing}
            if isinstance(thing, type):
                members = vars(thing).items()
                functions = {f"{name}.{key}": value for key, value in members if key[0] != "_"}
            found |= {key for key, function in functions.items() if takes_a_callable(function)}
    assert found <= {*OPEN, *PROTECTED, *ELSEWHERE}


def takes_a_callable(function: object) -> bool:
    hints = getattr(function, "__annotations__", {})
    hints = {name: hint for name, hint in hints.items() if name != "return"}
    return any("Callable[" in str(hint) or "AsyncFn[" in str(hint) for hint in hints.values())


# -- the key --------------------------------------------------------------------


def test_keyboard_interrupt_is_raised_in_user_code_of_a_child_and_cancels_its_siblings() -> None:
    record = []

    async def sleeper() -> None:
        try:
            await nurseryio.sleep_forever()
        except nurseryio.Cancelled:
            record.append("sibling cancelled")
            raise

    async def presser() -> None:
        await checkpoint()
        try:
            press()
        except KeyboardInterrupt:
            record.append("raised on the spot")
            raise

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(sleeper)
            nursery.start_soon(presser)

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)
    assert record == ["raised on the spot", "sibling cancelled"]


def test_keyboard_interrupt_is_raised_in_a_group_with_strict_exception_groups() -> None:
    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.to_thread, lambda: None)
            press()

    with pytest.raises(BaseException) as caught:
        nurseryio.run(main, strict_exception_groups=True)
    assert type(caught.value).__name__ == "BaseExceptionGroup"


def test_keyboard_interrupt_in_protected_code_is_delivered_to_the_main_task() -> None:
    record = []

    @enable_ki_protection
    async def presser() -> None:
        press()
        record.append("not raised here")

    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(presser)
            try:
                await wait_task_rescheduled(lambda _: Abort.SUCCEEDED)
            except KeyboardInterrupt:
                record.append("raised in main")
                raise

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)
    assert record == ["not raised here", "raised in main"]


def test_keyboard_interrupt_for_a_main_task_in_nursery_aexit_is_kept_and_cancels_children() -> None:
    record = []

    async def sleeper() -> None:
        with nurseryio.CancelScope() as scope:
            await nurseryio.sleep_forever()
        assert not scope.cancelled_caught

    @enable_ki_protection
    async def presser() -> None:
        press()

    async def main() -> None:
        try:
            async with nurseryio.open_nursery() as nursery:
                nursery.start_soon(sleeper)
                nursery.start_soon(presser)
        finally:
            record.append("nursery left")

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)
    assert record == ["nursery left"]


def test_keyboard_interrupt_cancels_a_main_task_in_an_asyncio_await_and_run_raises_it() -> None:
    record = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(press)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            record.append("cancelled")
            raise

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)
    assert record == ["cancelled"]


def in_a_thread(work: Callable[[threading.Event], None]) -> Callable[[], Awaitable[None]]:
    """An async function that works in a thread; the key is pressed and delivered meanwhile."""

    async def call() -> None:
        loop = asyncio.get_running_loop()
        delivered = threading.Event()

        def press_and_tell() -> None:
            press()
            loop.call_soon(loop.call_soon, delivered.set)

        loop.call_soon(press_and_tell)
        await nurseryio.to_thread.run_sync(work, delivered)

    return call


def test_keyboard_interrupt_for_a_main_task_in_to_thread_comes_at_the_next_checkpoint() -> None:
    record = []

    def work(delivered: threading.Event) -> None:
        assert delivered.wait(10)
        record.append("worked on")

    async def main() -> None:
        await in_a_thread(work)()
        record.append("result kept")
        # Not a wait that ends by a cancellation either, so it must not begin.
        await nurseryio.to_thread.run_sync(record.append, "a second thread")

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)
    assert record == ["worked on", "result kept"]


def test_keyboard_interrupt_is_raised_by_from_thread_check_cancelled_for_the_main_task() -> None:
    record = []

    def work(delivered: threading.Event) -> None:
        assert delivered.wait(10)
        try:
            nurseryio.from_thread.check_cancelled()
        except nurseryio.Cancelled as error:
            record.append(error.args[0].source)
            raise

    async def main() -> None:
        try:
            await in_a_thread(work)()
        finally:
            with nurseryio.CancelScope(shield=True):
                await nurseryio.to_thread.run_sync(record.append, "cleanup is left alone")

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)
    assert record == ["KeyboardInterrupt", "cleanup is left alone"]


def test_keyboard_interrupt_for_a_just_woken_main_task_comes_after_its_result() -> None:
    record = []

    async def main() -> None:
        task = nurseryio.lowlevel.current_task()

        def wake() -> None:
            press()
            # Behind the delivery that was just asked for, there is only one tick.
            loop.call_soon_threadsafe(record.append, "delivered")
            nurseryio.lowlevel.reschedule(task, Value("result"))

        loop = asyncio.get_running_loop()
        loop.call_soon(wake)
        record.append(await wait_task_rescheduled(lambda _: Abort.FAILED))
        await nurseryio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)
    assert record == ["delivered", "result"]


@pytest.mark.parametrize("kind", matrix.KINDS)
def test_ctrl_c_in_another_thread_wakes_a_sleeping_loop(kind: str) -> None:
    asleep = threading.Event()

    def in_thread() -> None:
        assert asleep.wait(30)
        press()

    async def main() -> None:
        asyncio.get_running_loop().call_soon(asleep.set)
        await nurseryio.sleep_forever()

    thread = threading.Thread(target=in_thread)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main, loop_factory=lambda: matrix.new_loop(kind))
    thread.join()


def test_restrict_keyboard_interrupt_to_checkpoints_keeps_ctrl_c_for_the_next_checkpoint() -> None:
    record = []

    async def main() -> None:
        press()
        record.append("still here")
        await nurseryio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)
    assert record == ["still here"]


def test_the_sigint_handler_is_restored_and_a_handler_of_other_code_is_kept() -> None:
    async def handler() -> object:
        return signal.getsignal(signal.SIGINT)

    assert isinstance(nurseryio.run(handler), KIHandler)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    mine = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        own = signal.getsignal(signal.SIGINT)
        assert nurseryio.run(handler) is own
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, mine)


def test_run_in_another_thread_leaves_the_sigint_handler_alone() -> None:
    seen = []

    async def main() -> None:
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=nurseryio.run, args=(main,))
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


# -- C code ---------------------------------------------------------------------


def press_in_c_code_that_fails() -> None:
    # One call in C: the signal arrives in it, and its handler is called only after the failure.
    list(map(_thread.interrupt_main, [signal.SIGINT, "no signal"]))


async def failing() -> None:
    press_in_c_code_that_fails()


async def failing_after_a_wait() -> None:
    await checkpoint()
    press_in_c_code_that_fails()


async def failing_when_started(*, task_status: object) -> None:
    press_in_c_code_that_fails()


@pytest.mark.parametrize("how", ["main", "child", "last child", "start", "two nurseries"])
@pytest.mark.parametrize("fail", [failing, failing_after_a_wait])
def test_keyboard_interrupt_that_arrives_in_failing_c_code_is_not_lost(
    how: str, fail: Callable[[], Awaitable[None]]
) -> None:
    async def main() -> None:
        if how == "main":
            await fail()
        async with nurseryio.open_nursery() as nursery:
            if how == "start":
                await nursery.start(failing_when_started)
            elif how == "two nurseries":
                async with nurseryio.open_nursery() as inner:
                    inner.start_soon(fail)
            else:
                nursery.start_soon(fail)
            if how == "child":
                await nurseryio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main)
