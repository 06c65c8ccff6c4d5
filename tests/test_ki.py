"""Ctrl-C: where it strikes, what it spares, and how a program ends because of it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from harness import matrix

import nurseryio
from nurseryio._core.ki import KIHandler
from nurseryio._core.outcome import Value
from nurseryio.lowlevel import (
    Abort,
    checkpoint,
    currently_ki_protected,
    disable_ki_protection,
    enable_ki_protection,
    wait_task_rescheduled,
)


def press() -> None:
    signal.raise_signal(signal.SIGINT)


# -- marks ----------------------------------------------------------------------


async def test_user_code_of_a_child_is_open_and_the_innermost_mark_decides() -> None:
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
async def test_a_task_that_asyncio_started_is_protected() -> None:
    # A KeyboardInterrupt raised in its step would tear the loop down.
    assert currently_ki_protected()


def test_outside_any_task_code_counts_as_protected() -> None:
    assert currently_ki_protected()


async def test_generators_have_marks_of_their_own() -> None:
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


async def test_finalizers_are_spared() -> None:
    seen = []

    class Finalized:
        def __del__(self) -> None:
            seen.append(currently_ki_protected())

    async def child() -> None:
        Finalized()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert seen == [True]


def test_equal_functions_have_marks_of_their_own() -> None:
    def make() -> object:
        return lambda: currently_ki_protected()

    marked, unmarked = make(), make()
    disable_ki_protection(marked)
    assert marked.__code__ is unmarked.__code__  # type: ignore[attr-defined]
    assert marked() is False  # type: ignore[operator]


# -- the key --------------------------------------------------------------------


def test_it_is_raised_in_user_code_of_a_child_and_cancels_the_siblings() -> None:
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


def test_groups_may_be_asked_for() -> None:
    async def main() -> None:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(asyncio.to_thread, lambda: None)
            press()

    with pytest.raises(BaseException) as caught:
        nurseryio.run(main, strict_exception_groups=True)
    assert type(caught.value).__name__ == "BaseExceptionGroup"


def test_protected_code_has_it_delivered_to_the_main_task() -> None:
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


def test_a_main_task_at_the_end_of_a_nursery_keeps_it_and_cancels_the_children() -> None:
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


def test_a_main_task_in_a_foreign_await_is_cancelled_and_run_raises_it() -> None:
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


def test_a_main_task_that_waits_for_a_thread_gets_it_at_the_next_checkpoint() -> None:
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


def test_a_thread_that_the_main_task_waits_for_can_ask_for_it() -> None:
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


def test_a_main_task_that_has_just_been_woken_keeps_its_result_and_gets_it_then() -> None:
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
def test_it_wakes_a_loop_that_sleeps_when_it_interrupts_another_thread(kind: str) -> None:
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


def test_it_may_be_kept_for_checkpoints() -> None:
    record = []

    async def main() -> None:
        press()
        record.append("still here")
        await nurseryio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        nurseryio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)
    assert record == ["still here"]


def test_the_handler_is_given_back_and_not_taken_from_others() -> None:
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


def test_in_other_threads_signals_are_left_alone() -> None:
    seen = []

    async def main() -> None:
        seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=nurseryio.run, args=(main,))
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
