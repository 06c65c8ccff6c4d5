"""The way into a loop from other threads and from signal handlers."""

# Covered below 95 %: a token in a forked child is in test_forked.py, and forked children are not
# measured.

from __future__ import annotations

import asyncio
import threading

import pytest
from harness import sniffing

import nurseryio
from nurseryio.lowlevel import LoopToken, TrioToken, checkpoint, current_trio_token, in_trio_task


async def test_a_loop_has_one_trio_token() -> None:
    token = current_trio_token()
    assert current_trio_token() is token
    assert isinstance(token, LoopToken)
    assert TrioToken is LoopToken


async def test_run_sync_soon_runs_functions_in_order_outside_any_task() -> None:
    token = current_trio_token()
    record: list[object] = []
    done = nurseryio.Event()

    def note(what: object) -> None:
        record.append((what, in_trio_task(), threading.current_thread() is here))

    here = threading.current_thread()
    for number in range(3):
        token.run_sync_soon(note, number)
    token.run_sync_soon(done.set)
    assert record == []
    await done.wait()
    assert record == [(0, False, True), (1, False, True), (2, False, True)]


async def test_run_sync_soon_drops_an_idempotent_call_that_is_queued_already() -> None:
    token = current_trio_token()
    record: list[int] = []
    done = nurseryio.Event()
    for number in (1, 2, 1, 2, 1):
        token.run_sync_soon(record.append, number, idempotent=True)
    token.run_sync_soon(record.append, 3)
    token.run_sync_soon(record.append, 3)
    token.run_sync_soon(done.set, idempotent=True)
    await done.wait()
    assert sorted(record) == [1, 2, 3, 3]
    token.run_sync_soon(record.append, 1, idempotent=True)
    await checkpoint()
    await checkpoint()
    assert sorted(record) == [1, 1, 2, 3, 3]


async def test_fairness_a_function_that_calls_run_sync_soon_with_itself_lets_others_run() -> None:
    token = current_trio_token()
    calls = 0
    stop = False

    def again() -> None:
        nonlocal calls
        calls += 1
        if not stop:
            token.run_sync_soon(again)

    token.run_sync_soon(again)
    for _ in range(20):
        await checkpoint()
    assert 10 <= calls <= 25
    stop = True
    await checkpoint()
    await checkpoint()


async def test_run_sync_soon_works_from_another_thread() -> None:
    token = current_trio_token()
    done = nurseryio.Event()
    thread = threading.Thread(target=token.run_sync_soon, args=(done.set,))
    thread.start()
    await done.wait()
    thread.join()


async def test_sniffio_answers_in_a_run_sync_soon_function_as_in_a_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sniffio = sniffing.install(monkeypatch)
    answers: list[object] = []
    done = nurseryio.Event()

    def ask() -> None:
        answers.append(sniffio.current_async_library())
        # A callback that the function schedules is its own, and not nurseryio's.
        asyncio.get_running_loop().call_soon(later)

    def later() -> None:
        answers.append(sniffio.current_async_library())
        done.set()

    current_trio_token().run_sync_soon(ask)
    await done.wait()
    assert answers == [sniffio.current_async_library(), None]


def test_run_sync_soon_after_the_run_raises_run_finished_error() -> None:
    async def main() -> LoopToken:
        return current_trio_token()

    token = nurseryio.run(main)
    with pytest.raises(nurseryio.RunFinishedError):
        token.run_sync_soon(print)


def test_functions_accepted_by_run_sync_soon_run_even_at_the_end_of_the_run() -> None:
    record = []

    async def main() -> None:
        current_trio_token().run_sync_soon(record.append, 1)

    nurseryio.run(main)
    assert record == [1]


def test_run_sync_soon_on_a_closed_asyncio_loop_raises_run_finished_error() -> None:
    async def main() -> LoopToken:
        return current_trio_token()

    token = asyncio.run(main())
    for _ in range(3):
        with pytest.raises(nurseryio.RunFinishedError):
            token.run_sync_soon(print)
        with pytest.raises(nurseryio.RunFinishedError):
            token.run_sync_soon(print, idempotent=True)
    assert token._size() == 0


def test_run_sync_soon_on_a_loop_closed_before_it_ran_raises_run_finished_error() -> None:
    async def main() -> LoopToken:
        token = current_trio_token()
        asyncio.get_running_loop().stop()
        token.run_sync_soon(print)
        return token

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    loop.run_forever()
    loop.close()
    with pytest.raises(nurseryio.RunFinishedError):
        task.result().run_sync_soon(print)


async def test_run_sync_soon_that_the_loop_refuses_is_not_taken_as_scheduled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = current_trio_token()
    state = token._state
    record: list[int] = []
    done = nurseryio.Event()

    class Refusing:
        def call_soon_threadsafe(self, *_args: object, **_options: object) -> None:
            raise RecursionError

        def is_closed(self) -> bool:
            return False

    loop = state.loop
    state.loop = Refusing()  # type: ignore[assignment]
    try:
        with pytest.raises(RecursionError):
            token.run_sync_soon(record.append, 1)
    finally:
        state.loop = loop
    token.run_sync_soon(record.append, 2)
    token.run_sync_soon(done.set)
    await done.wait()
    assert record == [2]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_system_exit_in_run_sync_soon_ends_a_plain_loop_and_later_functions_still_run(
    error: BaseException,
) -> None:
    record: list[int] = []

    def leave() -> None:
        raise error

    async def main() -> None:
        token = current_trio_token()
        token.run_sync_soon(leave)
        token.run_sync_soon(record.append, 1)
        token.run_sync_soon(record.append, 2)

    loop = asyncio.new_event_loop()
    task = loop.create_task(main())
    with pytest.raises(type(error)):
        loop.run_forever()
    assert task.done()
    loop.call_soon(loop.call_soon, loop.stop)
    loop.run_forever()
    loop.close()
    assert record == [1, 2]


@pytest.mark.parametrize("error", [KeyError("function"), asyncio.CancelledError(), SystemExit(3)])
def test_a_run_sync_soon_function_that_fails_does_not_stop_the_others(error: BaseException) -> None:
    record: list[int] = []

    def fail() -> None:
        raise error

    async def main() -> None:
        token = current_trio_token()
        token.run_sync_soon(fail)
        token.run_sync_soon(record.append, 1)
        token.run_sync_soon(fail, idempotent=True)
        token.run_sync_soon(record.append, 2)
        await nurseryio.sleep_forever()

    with pytest.raises((nurseryio.TrioInternalError, SystemExit)):
        nurseryio.run(main)
    assert record == [1, 2]


def test_an_error_in_a_run_sync_soon_function_ends_a_run() -> None:
    def fail() -> None:
        raise KeyError("in the function")

    async def main() -> None:
        current_trio_token().run_sync_soon(fail)
        await nurseryio.sleep_forever()

    with pytest.raises(nurseryio.TrioInternalError) as caught:
        nurseryio.run(main)
    assert repr(caught.value.__cause__) == "KeyError('in the function')"


@pytest.mark.app_only
async def test_an_error_in_a_run_sync_soon_function_goes_to_a_plain_loops_exception_handler(
    loop_errors: list[str],
) -> None:
    def fail() -> None:
        raise KeyError("in the function")

    current_trio_token().run_sync_soon(fail)
    await checkpoint()
    await checkpoint()
    assert len(loop_errors) == 1
    assert "run_sync_soon" in loop_errors[0]


def test_current_trio_token_without_a_loop_raises() -> None:
    with pytest.raises(RuntimeError, match="must be called from async context"):
        current_trio_token()
    with pytest.raises(TypeError, match="no public constructor"):
        LoopToken()  # type: ignore[call-arg]


@pytest.mark.run_only
async def test_repr_of_a_trio_token_shows_the_queued_calls_and_the_loop() -> None:
    token = current_trio_token()
    assert ", 0 calls waiting, of <" in repr(token)
    token.run_sync_soon(int)
    assert ", 1 calls waiting, of <" in repr(token)
    assert repr(asyncio.get_running_loop()) in repr(token)
    while ", 0 calls waiting" not in repr(token):
        await checkpoint()


def test_repr_of_a_trio_token_shows_that_its_run_is_over() -> None:
    async def main() -> TrioToken:
        return current_trio_token()

    assert ", closed, of <" in repr(nurseryio.run(main))


class FailsOnce:
    """A lock that cannot be taken at the first attempt."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error

    def __enter__(self) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def __exit__(self, *_exc: object) -> None:
        """Nothing to release."""


async def test_run_sync_soon_calls_of_an_iteration_that_fails_run_in_the_next_one(
    loop_errors: list[str],
) -> None:
    token = current_trio_token()
    record: list[int] = []
    done = nurseryio.Event()
    for number in range(3):
        token.run_sync_soon(record.append, number)
    token.run_sync_soon(done.set)
    lock = token._lock
    token._lock = FailsOnce(MemoryError())  # type: ignore[assignment]
    await done.wait()
    token._lock = lock
    assert record == [0, 1, 2]
    (report,) = loop_errors
    assert "MemoryError" in report
