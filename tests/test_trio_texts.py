"""The texts of errors that a program for Trio may compare are Trio's, for the same mistake.

Where Trio's text names Trio, nurseryio's has its own name. A longer explanation is a note of the
error. Where Trio's error has no text, nurseryio's may have one.
"""

from __future__ import annotations

import math
import os
import signal
import socket as stdlib_socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

import nurseryio as trio
from nurseryio import from_thread, lowlevel, socket, testing, to_thread

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

Mistake = Callable[[], Awaitable[Any]]
MISTAKES: dict[str, Mistake] = {}

wrong: Any = 1.5


def text(expected: str) -> Callable[[Mistake], Mistake]:
    """Mark a function whose error must have this text."""

    def add(mistake: Mistake) -> Mistake:
        MISTAKES[expected] = mistake
        return mistake

    return add


async def nothing() -> None:
    """An async function."""


def sync() -> None:
    """A sync function."""


@text("max_buffer_size must be an integer or math.inf")
async def _() -> None:
    trio.open_memory_channel[int](wrong)


@text("Each CancelScope may only be used for a single 'with' block")
async def _() -> None:
    scope = trio.CancelScope()
    for _again in range(2):
        with scope:
            pass


@text("nurseryio expected an async function, but 'sync' appears to be synchronous")
async def _() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sync)  # type: ignore[arg-type]


@text("Nursery is closed to new arrivals")
async def _() -> None:
    async with trio.open_nursery() as nursery:
        pass
    nursery.start_soon(nothing)


@text("tests.test_trio_texts.Sub does not support subclassing")
async def _() -> None:
    type("Sub", (trio.Event,), {"__module__": "tests.test_trio_texts"})


@text("Attempted to call run() from inside a run()")
async def _() -> None:
    trio.run(nothing)


@text("nurseryio events cannot be treated as bools; consider using `event.is_set()` instead.")
async def _() -> None:
    bool(trio.Event())


@text("deadline must not be NaN")
async def _() -> None:
    await trio.sleep(math.nan)


@text("total_tokens must be an int or math.inf")
async def _() -> None:
    trio.CapacityLimiter(wrong)


@text("initial_value must be an int")
async def _() -> None:
    trio.Semaphore(wrong)


@text("max_value must be None or an int")
async def _() -> None:
    trio.Semaphore(1, max_value=wrong)


@text("attempt to re-acquire an already held Lock")
async def _() -> None:
    lock = trio.Lock()
    await lock.acquire()
    await lock.acquire()


@text("lock must be a nurseryio.Lock")
async def _() -> None:
    trio.Condition(wrong)


@text("new_lot must be a ParkingLot")
async def _() -> None:
    lowlevel.ParkingLot().repark(new_lot=wrong)


@text("token must not be none")
async def _() -> None:
    lowlevel.RunVar[int]("variable").reset(None)  # type: ignore[arg-type]


@text("nurseryio expected a sync function, but 'nothing' appears to be asynchronous")
async def _() -> None:
    await to_thread.run_sync(nothing)


@text("nurseryio expected a synchronous function, but 'nothing' appears to be asynchronous")
async def _() -> None:
    await to_thread.run_sync(from_thread.run_sync, nothing)


@text("this is a blocking function; call it from a thread")
async def _() -> None:
    from_thread.run(nothing, trio_token=lowlevel.current_trio_token())


@text("this thread wasn't created by Trio, pass kwarg trio_token=...")
async def _() -> None:
    from_thread.run(nothing)


@text("Passed kwarg trio_token is not of type TrioToken")
async def _() -> None:
    with pytest.raises(RuntimeError, match=r"^Passed kwarg trio_token is not of type TrioToken$"):
        from_thread.run_sync(sync, trio_token=wrong)
    await to_thread.run_sync(lambda: from_thread.run(nothing, trio_token=wrong))


@text("this thread wasn't created by Trio, can't check for cancellation")
async def _() -> None:
    from_thread.check_cancelled()


@text("No signals were provided")
async def _() -> None:
    with trio.open_signal_receiver():
        pass


@text(
    "Sorry, open_signal_receiver is only possible when running in Python interpreter's main thread"
)
async def _() -> None:
    await to_thread.run_sync(trio.open_signal_receiver(signal.SIGUSR1).__enter__)


@text("open_signal_receiver block already exited")
async def _() -> None:
    with trio.open_signal_receiver(signal.SIGUSR1) as receiver:
        signals: AsyncIterator[int] = receiver
    await signals.__anext__()


@text("port must be an int not 1.5")
async def _() -> None:
    await trio.open_tcp_listeners(wrong)


@text("port must be int, not 1.5")
async def _() -> None:
    await trio.open_tcp_stream("127.0.0.1", wrong)


@text("SocketStream requires a nurseryio socket object")
async def _() -> None:
    with stdlib_socket.socket() as sock:
        trio.SocketStream(sock)  # type: ignore[arg-type]


@text("SocketListener requires a nurseryio socket object")
async def _() -> None:
    with stdlib_socket.socket() as sock:
        trio.SocketListener(sock)  # type: ignore[arg-type]


@text("SocketType is an abstract class; use nurseryio.socket.socket if you want to construct a "
      "socket object")  # fmt: skip
async def _() -> None:
    socket.SocketType()


@text("invalid value for argument 'value', must not be None when specifying optlen")
async def _() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, None)  # type: ignore[call-overload]


@text("invalid value for argument 'value': 1, must be None when specifying optlen")
async def _() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1, 2)  # type: ignore[call-overload]


@text("invalid value for argument 'value', must not be None when specifying length")
async def _() -> None:
    async with trio.SocketStream(socket.socket()) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, None)  # type: ignore[call-overload]


@text("another task is currently sending data on this SocketStream")
async def _() -> None:
    left, right = map(trio.SocketStream, socket.socketpair())
    async with left, right:
        await both_at_once(left.send_all, bytes(10_000_000))


@text("another task is already reading / writing this fd")
async def _() -> None:
    left, right = map(trio.SocketStream, socket.socketpair())
    async with left, right:
        await both_at_once(left.receive_some)


@text("another task closed this fd")
async def _() -> None:
    left, right = map(trio.SocketStream, socket.socketpair())
    async with right, trio.open_nursery() as nursery:
        nursery.start_soon(left.receive_some)
        await testing.wait_all_tasks_blocked()
        await left.aclose()


@text("max_bytes must be >= 1")
async def _() -> None:
    async with trio.SocketStream(socket.socket()) as stream:
        await stream.receive_some(0)


@text("another task is using this stream for receive")
async def _() -> None:
    reader, writer = os.pipe()
    async with lowlevel.FdStream(reader) as stream, lowlevel.FdStream(writer):
        await both_at_once(stream.receive_some)


@text("file descriptor must be an int")
async def _() -> None:
    lowlevel.FdStream(wrong)


@text("command must be a string or bytes (not a sequence) if shell=True on UNIX systems")
async def _() -> None:
    await trio.run_process(["true"], shell=True)


@text("command must be a sequence (not a string or bytes) if shell=False on UNIX systems")
async def _() -> None:
    await trio.run_process("true")


@text("process stdin must be bytes, not str")
async def _() -> None:
    await trio.run_process(["true"], stdin="text")  # type: ignore[arg-type]


@text("nurseryio.Process only supports communicating over unbuffered byte streams; the 'text' "
      "option is not supported")  # fmt: skip
async def _() -> None:
    await trio.run_process(["true"], text=True)


@text("1.5 does not implement required duck-file methods: close and (read or write)")
async def _() -> None:
    trio.wrap_file(wrong)


@text("call do_handshake() before calling 'getpeercert'")
async def _() -> None:
    stream, _other = testing.memory_stream_pair()
    trio.SSLStream(stream, ssl.create_default_context(), server_hostname="a").getpeercert()


@text("virtual connection closed")
async def _() -> None:
    _send, receive = testing.memory_stream_one_way_pair()
    receive.close()
    receive.put_data(b"x")


@text("MemoryReceiveStream was closed")
async def _() -> None:
    send, receive = testing.memory_stream_one_way_pair()
    receive.close()
    await send.send_all(b"x")


@text("another task is using this stream")
async def _() -> None:
    _send, receive = testing.memory_stream_one_way_pair()
    await both_at_once(receive.receive_some)


@text("another task is already receiving")
async def _() -> None:
    _send, receive = testing.lockstep_stream_one_way_pair()
    await both_at_once(receive.receive_some)


@text("assert_checkpoints block did not yield!")
async def _() -> None:
    with testing.assert_checkpoints():
        pass


@text("assert_no_checkpoints block yielded!")
async def _() -> None:
    with testing.assert_no_checkpoints():
        await lowlevel.checkpoint()


@text("Attempted to reuse sequence point 0")
async def _() -> None:
    sequencer = testing.Sequencer()
    for _again in range(2):
        async with sequencer(0):
            pass


@text("Sequencer wait cancelled -- sequence broken")
async def _() -> None:
    with trio.move_on_after(0):
        async with testing.Sequencer()(1):
            pass


async def both_at_once(fn: Callable[..., Awaitable[object]], *args: object) -> None:
    """Call a function in two tasks, and raise the error of the second call."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fn, *args)
        await testing.wait_all_tasks_blocked()
        try:
            await fn(*args)
        finally:
            nursery.cancel_scope.cancel()


def innermost(error: BaseException) -> BaseException:
    """The one error in a group, or the error itself."""
    while isinstance(error, BaseExceptionGroup):
        [error] = error.exceptions
    return error


@pytest.mark.stock_only("the texts do not depend on the loop")
@pytest.mark.parametrize("expected", MISTAKES)
async def test_the_text_of_an_error_is_trios(expected: str) -> None:
    with pytest.raises(BaseException) as caught:
        await MISTAKES[expected]()
    assert str(innermost(caught.value)) == expected


def test_outside_a_run_the_texts_of_errors_are_trios() -> None:
    for call, expected in {
        lowlevel.current_task: "must be called from async context",
        trio.current_time: "must be called from async context",
        lowlevel.RunVar[int]("variable").get: "Cannot be used outside of a run context",
    }.items():
        with pytest.raises(RuntimeError) as caught:
            call()
        assert str(caught.value) == expected
        assert "no event loop is running in this thread" in caught.value.__notes__[0]
