"""Buffered reading: exact numbers of bytes, delimiters, lines."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
from harness.core import cut_short
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio import (
    BrokenResourceError,
    BufferedReceiveStream,
    BusyResourceError,
    CancelScope,
    ClosedResourceError,
    StapledStream,
    abc,
)
from nurseryio._bytes.buffered import FIRST_STEP, MAX_CREDIT, SMALL
from nurseryio._checks.schedules import Schedule
from nurseryio.lowlevel import checkpoint
from nurseryio.testing import (
    assert_checkpoints,
    memory_stream_one_way_pair,
    wait_all_tasks_blocked,
)


class Pieces(abc.ReceiveStream):
    """A stream that returns the given pieces, then the end, or waits, or raises."""

    def __init__(self, *pieces: bytes, then: Any = b"") -> None:
        self.pieces = list(pieces)
        self.then = then
        self.closed = False
        self.calls = 0

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next piece."""
        self.calls += 1
        await checkpoint()
        if self.pieces:
            return self.pieces.pop(0)
        if self.then is None:
            await nurseryio.sleep_forever()
        if isinstance(self.then, Exception):
            raise self.then
        return b""

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True
        await checkpoint()


def reader(*pieces: bytes, then: Any = b"") -> BufferedReceiveStream[Pieces]:
    return BufferedReceiveStream(Pieces(*pieces, then=then))


def cut(data: bytes, *places: int) -> list[bytes]:
    """The data in pieces that end at these places."""
    ends = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(ends) if a < b]


def each_cut(data: bytes) -> list[list[bytes]]:
    """The data in one piece, in all possible two pieces, and byte by byte."""
    return [
        [data],
        *(cut(data, place) for place in range(1, len(data))),
        [bytes([byte]) for byte in data],
    ]


async def anext_of(lines: Any) -> Any:
    return await lines.__anext__()


async def collect(lines: Any) -> list[Any]:
    return [line async for line in lines]


# -- exact numbers --------------------------------------------------------------


async def test_receive_exactly_returns_so_many_bytes_from_pieces_of_any_size() -> None:
    for pieces in each_cut(b"abcdefgh"):
        stream = reader(*pieces)
        assert await stream.receive_exactly(3) == b"abc"
        assert await stream.receive_exactly(0) == b""
        assert await stream.receive_exactly(5) == b"defgh"
        assert await stream.receive_some() == b""


async def test_receive_exactly_at_the_end_raises_incomplete_read_error_and_keeps_the_rest() -> None:
    stream = reader(b"ab", b"c")
    with pytest.raises(asyncio.IncompleteReadError, match="3 bytes read on a total of 5") as caught:
        await stream.receive_exactly(5)
    assert (caught.value.partial, caught.value.expected) == (b"abc", 5)
    assert stream.buffer == b"abc"
    assert await stream.receive_exactly(3) == b"abc"


async def test_receive_exactly_of_a_large_number_extends_the_buffer_in_place() -> None:
    piece = bytes(range(256)) * 100
    stream = reader(*[piece] * 20)
    data = await stream.receive_exactly(len(piece) * 20 - 7)
    assert len(data) > SMALL
    assert type(data) is bytes
    assert data == (piece * 20)[:-7]
    assert stream.buffer == piece[-7:]
    assert type(await stream.receive_some()) is bytes


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (1.0, TypeError), (True, TypeError), ("1", TypeError)]
)
async def test_numbers_that_are_not_counts_are_refused(value: Any, error: type) -> None:
    stream = reader(b"abc\n")
    with pytest.raises(error, match="nbytes must"):
        await stream.receive_exactly(value)
    with pytest.raises(error, match="max_bytes must"):
        await stream.receive_until(b"\n", max_bytes=value)
    with pytest.raises(error, match="max_bytes must"):
        stream.lines(max_bytes=value)
    assert await stream.receive_some() == b"abc\n"


# -- delimiters -----------------------------------------------------------------


@pytest.mark.parametrize("delimiter", [b"\n", b"\r\n", b"--end--", b"aab"])
async def test_receive_until_finds_a_delimiter_across_pieces(delimiter: bytes) -> None:
    data = b"aaaaa" + delimiter + b"xyz" + delimiter + b"rest"
    first, *_ = data.split(delimiter, 1)
    for pieces in each_cut(data):
        stream = reader(*pieces)
        assert await stream.receive_until(delimiter) == first
        assert await stream.receive_until(bytearray(delimiter)) == data.split(delimiter)[1]
        assert await stream.receive_exactly(4) == b"rest"


async def test_receive_until_at_the_end_raises_incomplete_read_error_and_keeps_the_rest() -> None:
    stream = reader(b"ab", b"c")
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await stream.receive_until(b"\n")
    assert (caught.value.partial, caught.value.expected) == (b"abc", None)
    assert await stream.receive_some() == b"abc"
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await stream.receive_until(b"\n")
    assert caught.value.partial == b""


async def test_receive_until_has_a_limit_to_the_byte() -> None:
    for pieces in each_cut(b"12345\r\nnext"):
        assert await reader(*pieces).receive_until(b"\r\n", max_bytes=5) == b"12345"
        stream = reader(*pieces)
        with pytest.raises(asyncio.LimitOverrunError, match="not within max_bytes"):
            await stream.receive_until(b"\r\n", max_bytes=4)
        # Nothing is lost, and a larger limit works.
        assert b"12345\r\nnext".startswith(stream.buffer)
        assert await stream.receive_until(b"\r\n", max_bytes=5) == b"12345"


async def test_receive_until_a_peer_that_never_ends_a_message_is_not_read_for_ever() -> None:
    stream = reader(*[b"x" * 1000] * 100)
    with pytest.raises(asyncio.LimitOverrunError):
        await stream.receive_until(b"\n", max_bytes=5000)
    assert len(stream.buffer) == 6000
    assert stream.receive_stream.calls == 6
    with pytest.raises(asyncio.LimitOverrunError):
        await stream.receive_until(b"\n", max_bytes=5000)
    assert stream.receive_stream.calls == 6


@pytest.mark.parametrize(
    ("delimiter", "error"), [("\n", TypeError), (10, TypeError), (b"", ValueError)]
)
async def test_receive_until_refuses_what_is_not_a_delimiter(delimiter: Any, error: type) -> None:
    with pytest.raises(error, match="delimiter must"):
        await reader(b"abc\n").receive_until(delimiter)


# -- lines ----------------------------------------------------------------------


async def test_lines_of_bytes_end_with_newline_or_return_and_newline() -> None:
    data = b"first\n\r\nsec\rond\r\n\n\rlast\r"
    for pieces in each_cut(data):
        assert await collect(reader(*pieces).lines()) == [
            b"first",
            b"",
            b"sec\rond",
            b"",
            b"\rlast\r",
        ]


async def test_lines_of_text_have_universal_newlines_whatever_the_pieces() -> None:
    data = "ä\n\r\nb\rc\r\r\n\n\u20acd".encode()
    for pieces in each_cut(data):
        assert await collect(reader(*pieces).lines("utf-8")) == [
            "ä",
            "",
            "b",
            "c",
            "",
            "",
            "\u20acd",
        ]


async def test_lines_of_text_are_those_of_a_text_file(tmp_path: Any) -> None:
    choose = random.Random(3)
    for number in range(100):
        data = bytes(choose.choices(b"ab\r\n", k=40))
        file = tmp_path / str(number)
        file.write_bytes(data)
        with file.open(encoding="ascii") as lines:
            expected = [line.removesuffix("\n") for line in lines]
        pieces = cut(data, *choose.sample(range(len(data)), 5))
        assert await collect(reader(*pieces).lines("ascii")) == expected


async def test_lines_of_any_length_end_at_the_first_line_end() -> None:
    lengths = [FIRST_STEP + more for more in (-1, 0, 1, 2 * FIRST_STEP - 1, 2 * FIRST_STEP, 20000)]
    for end in (b"\n", b"\r\n", b"\r"):
        data = b"".join(bytes([97]) * length + end for length in lengths)
        for pieces in ([data], cut(data, *range(0, len(data), 1000))):
            lines = await collect(reader(*pieces).lines("ascii"))
            assert [len(line) for line in lines] == lengths


class CountingBytes(bytes):
    """Counts how many bytes are searched."""

    searched = 0

    def find(self, what: Any, start: Any = 0, end: Any = None, /) -> int:
        CountingBytes.searched += (len(self) if end is None else min(end, len(self))) - start
        return super().find(what, start, end)


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
async def test_many_lines_in_one_piece_take_linear_time_whatever_their_line_end(end: bytes) -> None:
    stream = reader(b"", then=b"")
    CountingBytes.searched = 0
    stream._data = CountingBytes((b"a" + end) * 5000)
    assert await collect(stream.lines("ascii")) == ["a"] * 5000
    assert CountingBytes.searched < 5000 * 3 * FIRST_STEP


async def test_a_line_that_ends_with_a_lone_return_is_returned_at_once() -> None:
    stream = reader(b"50 %\r", then=None)
    lines = stream.lines("ascii")
    assert await lines.__anext__() == "50 %"


async def test_a_newline_that_comes_after_its_return_is_not_seen_by_other_methods() -> None:
    stream = reader(b"head\r", b"\n", b"body")
    lines = stream.lines("ascii")
    assert await lines.__anext__() == "head"
    assert await stream.receive_exactly(4) == b"body"
    stream = reader(b"head\r", b"\nbody")
    assert await stream.lines("ascii").__anext__() == "head"
    assert await stream.receive_some() == b"body"
    stream = reader(b"head\r", b"\n")
    assert await collect(stream.lines("ascii")) == ["head"]
    assert await stream.receive_some() == b""


async def test_lines_take_whole_lines_only_so_that_other_methods_can_follow() -> None:
    stream = reader(b"one\r\ntwo\n\nbody")
    async for line in stream.lines():
        if not line:
            break
    assert stream.buffer == b"body"
    assert await stream.receive_exactly(4) == b"body"


async def test_lines_have_a_limit_to_the_byte() -> None:
    for end in (b"\n", b"\r\n", b""):
        for pieces in each_cut(b"12345" + end):
            assert await collect(reader(*pieces).lines(max_bytes=5)) == [b"12345"]
            assert await collect(reader(*pieces).lines("ascii", max_bytes=5)) == ["12345"]
            for options in ({}, {"encoding": "ascii"}):
                stream = reader(*pieces)
                with pytest.raises(asyncio.LimitOverrunError, match="not within max_bytes"):
                    await collect(stream.lines(max_bytes=4, **options))  # type: ignore[call-overload]
                assert await collect(stream.lines(max_bytes=5)) == [b"12345"]


async def test_lines_that_are_not_in_the_encoding_stay_in_the_buffer() -> None:
    stream = reader(b"good\nb\xe4d\nnext\n")
    lines = stream.lines("utf-8")
    assert await lines.__anext__() == "good"
    with pytest.raises(UnicodeDecodeError):
        await lines.__anext__()
    assert await stream.lines("utf-8", "replace").__anext__() == "b\ufffdd"
    assert await lines.__anext__() == "next"


async def test_lines_refuse_an_encoding_that_does_not_exist_or_has_other_line_ends() -> None:
    stream = reader(b"")
    with pytest.raises(LookupError):
        stream.lines("no-such")
    with pytest.raises(LookupError):
        stream.lines("utf-8", "no-such")
    for encoding in ("utf-16", "utf-16-le", "utf-32", "cp037"):
        with pytest.raises(ValueError, match="cannot be found by the bytes of their line ends"):
            stream.lines(encoding)
    for encoding in ("utf-8", "utf-8-sig", "latin-1", "cp1252", "shift_jis", "gb18030", "euc-jp"):
        text = "a\u00e9" if encoding in ("utf-8", "latin-1", "cp1252") else "a"
        lines = reader(f"{text}\n{text}".encode(encoding)).lines(encoding)
        assert await collect(lines) == [text, text]


async def test_lines_in_asian_encodings_are_not_cut_inside_of_a_character() -> None:
    for encoding in ("shift_jis", "gb18030", "euc-jp", "big5", "euc-kr"):
        text = "".join(
            char
            for char in map(chr, range(0x4E00, 0x9FA0, 7))
            if len(char.encode(encoding, "ignore")) > 1
        )
        assert await collect(reader(text.encode(encoding)).lines(encoding)) == [text]


# -- as a stream ----------------------------------------------------------------


async def test_receive_some_returns_the_buffer_first() -> None:
    stream = reader(b"ab\ncdef", b"ghi")
    assert await stream.receive_until(b"\n") == b"ab"
    assert await stream.receive_some(2) == b"cd"
    assert await stream.receive_some(100) == b"ef"
    assert await stream.receive_some(1) == b"g"
    assert [piece async for piece in stream] == [b"hi"]
    with pytest.raises(ValueError, match="max_bytes must be >= 1"):
        await stream.receive_some(0)


async def test_a_stream_that_returns_bytearrays_gives_bytes() -> None:
    send, receive = memory_stream_one_way_pair()
    await send.send_all(b"abc\ndef")
    await send.aclose()
    stream = BufferedReceiveStream(receive)
    for data in (
        await stream.receive_until(b"\n"),
        await stream.receive_exactly(1),
        await stream.receive_some(),
    ):
        assert type(data) is bytes


async def test_buffered_receive_stream_refuses_what_is_not_a_stream() -> None:
    with pytest.raises(TypeError, match="needs a stream to receive from, not 5"):
        BufferedReceiveStream(5)  # type: ignore[type-var]


async def test_repr_of_a_buffered_receive_stream_shows_its_state() -> None:
    stream = reader(b"ab\ncd")
    await stream.receive_until(b"\n")
    assert repr(stream).endswith(", 2 bytes buffered>")
    assert "ByteLines of <BufferedReceiveStream over" in repr(stream.lines())
    await stream.aclose()
    assert repr(stream).endswith(", closed>")


async def test_stapled_with_a_sending_stream_it_is_a_stream_in_both_directions() -> None:
    left, right = nurseryio.testing.memory_stream_pair()
    both = StapledStream(left, BufferedReceiveStream(left))
    await right.send_all(b"220 ready\r\nrest")
    assert await both.receive_stream.receive_until(b"\r\n") == b"220 ready"
    await both.send_all(b"STARTTLS\r\n")
    assert await right.receive_some() == b"STARTTLS\r\n"
    assert await both.receive_some() == b"rest"
    await both.aclose()
    with pytest.raises(ClosedResourceError):
        await left.receive_some()


# -- errors of the stream, closing, two tasks -----------------------------------


async def test_an_error_of_the_stream_passes_and_the_buffer_is_kept() -> None:
    for wanted in ("exactly", "until", "lines", "text"):
        stream = reader(b"partial", then=BrokenResourceError("gone"))
        with pytest.raises(BrokenResourceError, match="gone"):
            if wanted == "exactly":
                await stream.receive_exactly(10)
            elif wanted == "until":
                await stream.receive_until(b"\n")
            else:
                await collect(stream.lines("utf-8") if wanted == "text" else stream.lines())
        assert await stream.receive_some() == b"partial"


@pytest.mark.parametrize("before", [b"", b"x" * 100, b"x" * SMALL, b"x" * (SMALL + 1)])
async def test_an_error_while_the_buffer_is_extended_loses_no_bytes(before: bytes) -> None:
    class TooLarge(bytes):
        """There is no memory for it at first."""

        attempts = 0

        def __getitem__(self, key: Any) -> Any:
            TooLarge.attempts += 1
            if TooLarge.attempts == 1:
                raise MemoryError
            return super().__getitem__(key)

    # The "\n" belongs to the line end before it, and is cut off.
    stream = reader(b"line\r", TooLarge(b"\n" + before + b"end\n"))
    assert await anext_of(stream.lines("ascii")) == "line"
    with pytest.raises(MemoryError):
        await stream.receive_until(b"\n", max_bytes=10**6)
    assert await stream.receive_until(b"\n", max_bytes=10**6) == before + b"end"
    assert stream.receive_stream.calls == 2


async def test_an_error_while_a_result_is_made_takes_nothing_from_the_buffer() -> None:
    class TooLarge(bytes):
        """There is no memory for a copy at first."""

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, slice) and not failed:
                failed.append(True)
                raise MemoryError
            return super().__getitem__(key)

    receiving: list[Callable[[BufferedReceiveStream[Pieces]], Awaitable[bytes]]] = [
        lambda stream: stream.receive_until(b"\n"),
        lambda stream: stream.receive_exactly(3),
        lambda stream: stream.receive_some(3),
        lambda stream: anext_of(stream.lines()),
    ]
    await checkpoint()
    for receive in receiving:
        failed: list[bool] = []
        stream = reader()
        stream._data = TooLarge(b"abc\nd")
        with pytest.raises(MemoryError):
            await receive(stream)
        assert await receive(stream) == b"abc"


async def test_a_closed_stream_raises_closed_resource_error_also_with_data_in_the_buffer() -> None:
    stream = reader(b"one\ntwo\nthree\n")
    await stream.receive_until(b"\n")
    await stream.aclose()
    assert stream.receive_stream.closed
    assert stream.buffer == b""
    for call in (
        stream.receive_some(),
        stream.receive_exactly(1),
        stream.receive_exactly(0),
        stream.receive_until(b"\n"),
        collect(stream.lines()),
        collect(stream.lines("utf-8")),
    ):
        with pytest.raises(ClosedResourceError):
            await call


async def test_closing_wakes_a_task_that_waits_even_if_the_stream_below_only_ends() -> None:
    class Ending(Pieces):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            while not self.closed:
                await checkpoint()
            return b""

    stream = BufferedReceiveStream(Ending())

    async def wait() -> None:
        with pytest.raises(ClosedResourceError):
            await stream.receive_exactly(1)

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await checkpoint()
        await stream.aclose()


async def test_two_tasks_at_once_are_refused_with_busy_resource_error() -> None:
    send, receive = memory_stream_one_way_pair()
    stream = BufferedReceiveStream(receive)
    got = []

    async def wait() -> None:
        got.append(await stream.receive_until(b"\n"))

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        for call in (stream.receive_some(), stream.receive_exactly(0), collect(stream.lines())):
            with pytest.raises(BusyResourceError, match="on this BufferedReceiveStream"):
                await call
        await send.send_all(b"mine\n")
    assert got == [b"mine"]


# -- checkpoints and cancellation -----------------------------------------------


async def test_each_method_of_a_buffered_stream_is_a_checkpoint_also_with_data_in_the_buffer() -> (
    None
):
    stream = reader(b"first\n" * 10)
    with assert_checkpoints():
        await stream.receive_until(b"\n")
    with assert_checkpoints():
        await stream.receive_until(b"\n")
    with assert_checkpoints():
        await stream.receive_exactly(6)
    with assert_checkpoints():
        await stream.receive_exactly(0)
    with assert_checkpoints():
        await stream.receive_some(6)
    with assert_checkpoints():
        await stream.lines().__anext__()
    with assert_checkpoints():
        await stream.lines("ascii").__anext__()
    with assert_checkpoints():
        await stream.aclose()


async def test_a_cancelled_task_takes_nothing_from_the_buffer() -> None:
    stream = reader(b"first\nsecond\nthird\n", then=None)
    assert await stream.receive_until(b"\n") == b"first"
    for call in (
        lambda: stream.receive_some(),
        lambda: stream.receive_exactly(3),
        lambda: stream.receive_until(b"\n"),
        lambda: collect(stream.lines()),
        lambda: collect(stream.lines("ascii")),
    ):
        with CancelScope() as scope:
            scope.cancel()
            await call()
        assert scope.cancelled_caught
        assert stream.buffer == b"second\nthird\n"


async def test_other_tasks_run_while_a_task_reads_lines_that_are_all_in_the_buffer() -> None:
    stream = reader(b"x\n" * (3 * MAX_CREDIT))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await checkpoint()
            turns += 1

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(other)
        await collect(stream.lines())
        assert turns >= 3
        nursery.cancel_scope.cancel()


async def test_a_timeout_in_the_middle_of_a_message_loses_nothing() -> None:
    send, receive = memory_stream_one_way_pair()
    stream = BufferedReceiveStream(receive)
    await send.send_all(b"one\ntw")
    assert await stream.receive_until(b"\n") == b"one"
    with cut_short() as scope:
        await stream.receive_until(b"\n")
    assert scope.cancelled_caught
    with cut_short() as scope:
        await stream.receive_exactly(10)
    assert scope.cancelled_caught
    await send.send_all(b"o\nthree")
    await send.aclose()
    assert await collect(stream.lines("ascii")) == ["two", "three"]


@pytest.mark.costly("many schedules")
async def test_cancel_at_every_await_of_a_buffered_stream_nothing_is_lost(
    loop_case: Case,
) -> None:
    data = b"5\nhello" + b"11\nhello\nthere" + b"0\n" + b"2\nok" + b"a line\nand one more\n"

    async def scenario(schedule: Schedule) -> None:
        send, receive = memory_stream_one_way_pair()
        stream = BufferedReceiveStream(receive)
        # What the reader has taken, as it was sent.
        taken: list[bytes] = []

        async def write() -> None:
            try:
                for piece in (data[:3], data[3:9], data[9:]):
                    await send.send_all(piece)
                    await schedule.pause()
            finally:
                send.close()

        async def read() -> None:
            with suppress(asyncio.IncompleteReadError):
                for _ in range(4):
                    size = await stream.receive_until(b"\n")
                    taken.append(size + b"\n")
                    taken.append(await stream.receive_exactly(int(size)))
                async for line in stream.lines("ascii"):
                    taken.append(line.encode() + b"\n")

        await schedule.run(write, read)
        send.close()
        while piece := await stream.receive_some():
            taken.append(piece)
        # All that a writer has sent was received once, and in order.
        assert b"".join(taken) in (b"", data[:3], data[:9], data)

    await stress(scenario, loop_case)


@asynccontextmanager
async def serving_lines(port_of: list[Any]) -> AsyncIterator[None]:
    async def shout(stream: nurseryio.SocketStream) -> None:
        async for line in BufferedReceiveStream(stream).lines("utf-8"):
            await stream.send_all(f"{line.upper()}\n".encode())

    async with nurseryio.open_nursery() as nursery:
        port_of += await nursery.start(
            lambda **options: nurseryio.serve_tcp(shout, 0, host="127.0.0.1", **options)
        )
        yield
        nursery.cancel_scope.cancel()


async def test_a_server_of_lines_over_tcp() -> None:
    listeners: list[Any] = []
    async with serving_lines(listeners):
        address = listeners[0].socket.getsockname()
        async with await nurseryio.open_tcp_stream(*address) as stream:
            lines = BufferedReceiveStream(stream).lines("utf-8")
            await stream.send_all("grüße\r\nund mehr\n".encode())
            assert await lines.__anext__() == "GRÜSSE"
            assert await lines.__anext__() == "UND MEHR"
