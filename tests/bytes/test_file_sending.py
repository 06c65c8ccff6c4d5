"""Files over streams: by the system, and in pieces."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import socket as stdlib
import threading
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from harness import net, tlspairs
from harness.core import cut_short, settle
from harness.matrix import Case
from harness.stress import stress

import nurseryio
from nurseryio import (
    BrokenResourceError,
    BusyResourceError,
    CancelScope,
    ClosedResourceError,
    SocketStream,
    open_file,
    sendfile,
)
from nurseryio._bytes import file_sending
from nurseryio._bytes.file_sending import KERNEL_PIECE, READ_PIECE
from nurseryio._checks.schedules import Schedule
from nurseryio.testing import assert_checkpoints, memory_stream_pair, wait_all_tasks_blocked

own_sockets = pytest.mark.watching_only("the system copies to its own sockets only")

SIZE = 3 * KERNEL_PIECE + 12_345

by_kernel = pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this system has no sendfile()")


@pytest.fixture(scope="module")
def data() -> bytes:
    return os.urandom(SIZE)


@pytest.fixture
def path(tmp_path: Path, data: bytes) -> Path:
    (tmp_path / "file").write_bytes(data)
    return tmp_path / "file"


@contextlib.asynccontextmanager
async def pair(kind: str) -> AsyncIterator[tuple[Any, Any]]:
    """Connected streams."""
    if kind == "memory":
        one, other = memory_stream_pair()
        yield one, other
    elif kind == "tls":
        async with net.unix_pair() as (left, right):
            client, server = await tlspairs.connect(tlspairs.wrap(left, right))
            yield client, server
            await nurseryio.aclose_forcefully(client)
            await nurseryio.aclose_forcefully(server)
    else:
        async with {"tcp": net.tcp_pair, "unix": net.unix_pair}[kind]() as streams:
            yield streams


async def transfer(source: Any, target: Any, file: Any, *args: Any) -> tuple[int, bytes]:
    """Send a file, and receive all of it."""
    got = bytearray()
    sent = 0

    async with nurseryio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            while True:
                got.extend(await target.receive_some())

        sent = await sendfile(source, file, *args)
        while len(got) < sent:
            await nurseryio.lowlevel.checkpoint()
        await settle()
        nursery.cancel_scope.cancel()
    return sent, bytes(got)


@pytest.mark.parametrize("kind", ["tcp", "unix", "tls", "memory"])
async def test_sendfile_sends_a_file_or_a_part_of_it_over_each_kind_of_stream(
    kind: str, path: Path, data: bytes
) -> None:
    async with pair(kind) as (left, right), open_file(path, "rb") as file:
        for args, part in (
            ((), data),
            ((100,), data[100:]),
            ((SIZE - 50, 1000), data[-50:]),
            ((7, 2 * READ_PIECE + 1), data[7 : 2 * READ_PIECE + 8]),
            ((SIZE + 10,), b""),
            ((5, 0), b""),
        ):
            sent, got = await transfer(left, right, file, *args)
            assert sent == len(part)
            assert got == part
            # The position shows how far it came.
            assert await file.tell() == (args[0] if args else 0) + sent


@by_kernel
@own_sockets
async def test_sendfile_over_a_socket_lets_the_system_copy_in_a_thread(
    path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = os.sendfile

    def noted(target: int, source: int, offset: int, count: int) -> int:
        calls.append((threading.current_thread(), target, source, count))
        return real(target, source, offset, count)

    monkeypatch.setattr(os, "sendfile", noted)
    async with net.unix_pair() as (left, right):
        with path.open("rb") as file:
            assert await transfer(left, right, file) == (SIZE, data)
            assert calls
            for thread, target, source, count in calls:
                assert thread is not threading.current_thread()
                # Not the numbers of the stream and the file, which other tasks may close.
                assert target != left.socket.fileno()
                assert source != file.fileno()
                assert count <= KERNEL_PIECE


async def test_sendfile_takes_files_in_memory_compressed_files_and_temporary_files(
    tmp_path: Path, data: bytes
) -> None:
    with gzip.open(tmp_path / "packed", "wb", compresslevel=1) as packed:
        packed.write(data)
    async with net.unix_pair() as (left, right):
        assert await transfer(left, right, io.BytesIO(data), 3) == (SIZE - 3, data[3:])
        with gzip.open(tmp_path / "packed") as unpacked:
            assert await transfer(left, right, unpacked) == (SIZE, data)
        for make in (nurseryio.TemporaryFile, nurseryio.NamedTemporaryFile):
            async with make() as file:
                await file.write(data)
                # Including what is in the file's buffer.
                assert await transfer(left, right, file) == (SIZE, data)
        with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
            archive.writestr("name", data[:1000])
        with zipfile.ZipFile(tmp_path / "archive") as archive, archive.open("name") as member:
            assert await transfer(left, right, member, 10) == (990, data[10:1000])
        with io.FileIO(tmp_path / "packed") as raw:
            assert (await transfer(left, right, raw, 0, 2))[1] == b"\x1f\x8b"


async def test_sendfile_sends_what_was_written_into_the_buffer_of_a_file_that_was_read_before(
    path: Path, data: bytes
) -> None:
    async with net.unix_pair() as (left, right):
        with path.open("r+b") as file:
            file.read(3)
            file.seek(0)
            file.write(b"new")  # still in the buffer, which a seek() to 0 does not leave
            assert await transfer(left, right, file, 0, 6) == (6, b"new" + data[3:6])
        async with nurseryio.NamedTemporaryFile(dir=path.parent) as named:
            await named.write(b"old text")
            await named.seek(0)
            await named.read(1)
            await named.seek(0)
            await named.write(b"new")
            assert await transfer(left, right, named) == (8, b"new text")


async def test_sendfile_calls_the_read_method_of_wrappers_and_subclasses(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"lower")

    class Raw(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return (super().read(size) or b"").upper()

    class Buffered(io.BufferedReader):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(size).upper()

    class Wrapper:
        mode = "rb"

        def __init__(self, file: Any) -> None:
            self.file = file

        def read(self, size: int) -> bytes:
            data: bytes = self.file.read(size)
            return data.upper()

        def seek(self, offset: int) -> int:
            position: int = self.file.seek(offset)
            return position

    async with net.unix_pair() as (left, right):
        with io.FileIO(tmp_path / "file") as plain, Raw(tmp_path / "file") as raw:
            files = (raw, Buffered(io.FileIO(tmp_path / "file")), Wrapper(plain))
            for file in files:
                assert await transfer(left, right, file, 1) == (4, b"OWER")
            files[1].close()


async def test_a_cancelled_sendfile_of_a_compressed_file_goes_back_in_a_thread() -> None:
    class Slow(io.BytesIO):
        """Files that are decompressed read all from their start again to go back."""

        seekers: list[threading.Thread]

        def seek(self, offset: int, whence: int = 0, /) -> int:
            self.seekers.append(threading.current_thread())
            return super().seek(offset, whence)

    async with pair("unix") as (left, _right):
        file = Slow(bytes(SIZE))
        file.seekers = []
        with cut_short() as scope:
            await sendfile(left, file)
        assert scope.cancelled_caught
        assert threading.current_thread() not in file.seekers
        assert file.tell() % READ_PIECE == 0


async def test_sendfile_calls_the_methods_that_a_test_has_replaced_on_a_socket(
    path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, right = nurseryio.socket.socketpair()
    sent = bytearray()

    async def send(data: Any, flags: int = 0) -> int:
        sent.extend(data)
        return len(data)

    monkeypatch.setattr(left, "send", send)
    async with SocketStream(left) as stream, SocketStream(right):
        with path.open("rb") as file:
            assert await sendfile(stream, file) == SIZE
    assert bytes(sent) == data


@by_kernel
@own_sockets
async def test_sendfile_reads_files_that_the_system_cannot_copy(
    path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.sendfile
    calls = []

    def failing(target: int, source: int, offset: int, count: int) -> int:
        calls.append(offset)
        if len(calls) > 1:
            raise OSError(22, "Invalid argument")
        return real(target, source, offset, 1000)

    monkeypatch.setattr(os, "sendfile", failing)
    async with net.unix_pair() as (left, right):
        with path.open("rb") as file:
            assert await transfer(left, right, file) == (SIZE, data)
    assert calls == [0, 1000]


async def test_sendfile_raises_the_error_of_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(5, "Input/output error")

    async with net.unix_pair() as (left, _right):
        with pytest.raises(OSError, match="Input/output error") as caught:
            await sendfile(left, Broken(b"abc"))
        assert not isinstance(caught.value, BrokenResourceError)
        with (tmp_path / "file").open("wb") as write_only:
            with pytest.raises(OSError, match="read"):
                await sendfile(left, write_only)


@pytest.mark.parametrize(
    ("file", "args", "error", "text"),
    [
        (io.StringIO("text"), (), TypeError, "needs a file opened in binary mode"),
        ("name", (), TypeError, "needs an open file"),
        (io.BytesIO(), (-1,), ValueError, "offset must not be negative"),
        (io.BytesIO(), (0, -1), ValueError, "count must not be negative"),
        (io.BytesIO(), (1.5,), TypeError, "offset must be an integer"),
        (io.BytesIO(), (0, True), TypeError, "count must be an integer"),
    ],
)
async def test_arguments_of_sendfile_are_checked(
    file: Any, args: Any, error: type[Exception], text: str
) -> None:
    left, _right = memory_stream_pair()
    with pytest.raises(error, match=text):
        await sendfile(left, file, *args)


async def test_sendfile_of_a_text_file_is_refused(path: Path) -> None:
    left, _right = memory_stream_pair()
    for opened in (open_file(path, encoding="latin-1"), nurseryio.NamedTemporaryFile("w+")):
        async with opened as file:
            with pytest.raises(TypeError, match="binary mode"):
                await sendfile(left, file)  # type: ignore[arg-type]


# -- the connection -------------------------------------------------------------


async def test_sendfile_over_a_broken_connection_is_a_broken_resource_error(path: Path) -> None:
    async with net.unix_pair() as (left, right):
        await right.aclose()
        with path.open("rb") as file:
            with pytest.raises(BrokenResourceError):
                await sendfile(left, file)
            assert file.tell() == 0


async def test_sendfile_over_a_closed_or_ended_stream_is_a_closed_resource_error(
    path: Path,
) -> None:
    async with net.unix_pair() as (left, _right), open_file(path, "rb") as file:
        await left.send_eof()
        with pytest.raises(ClosedResourceError, match="after sending EOF"):
            await sendfile(left, file)
        await left.aclose()
        with pytest.raises(ClosedResourceError):
            await sendfile(left, file)


async def test_closing_a_stream_ends_a_sendfile_that_waits(path: Path) -> None:
    async with net.unix_pair() as (left, _right), open_file(path, "rb") as file:

        async def send() -> None:
            with pytest.raises(ClosedResourceError):
                await sendfile(left, file)

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(send)
            await waiting_for_room(left)
            await left.aclose()


async def test_another_send_during_a_sendfile_is_refused(path: Path) -> None:
    async with net.unix_pair() as (left, _right), open_file(path, "rb") as file:
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(sendfile, left, file)
            await waiting_for_room(left)
            with pytest.raises(BusyResourceError):
                await left.send_all(b"x")
            async with open_file(path, "rb") as other:
                with pytest.raises(BusyResourceError):
                    await sendfile(left, other)
            nursery.cancel_scope.cancel()


async def waiting_for_room(stream: SocketStream) -> None:
    """Wait until a sendfile has filled the socket, and waits itself."""
    while not stream._sending or nurseryio.testing.active_thread_count():
        await nurseryio.testing.wait_all_threads_completed()
        await wait_all_tasks_blocked()


# -- cancellation ---------------------------------------------------------------


@own_sockets
async def test_a_cancelled_sendfile_counts_exactly_what_was_sent(path: Path, data: bytes) -> None:
    async with net.unix_pair() as (left, right):
        left.setsockopt(stdlib.SOL_SOCKET, stdlib.SO_SNDBUF, 65536)
        with path.open("rb") as file:
            with CancelScope() as scope:
                async with nurseryio.open_nursery() as nursery:
                    nursery.start_soon(sendfile, left, file, 50)
                    await waiting_for_room(left)
                    scope.cancel()
            assert scope.cancelled_caught
            sent = file.tell() - 50
            assert 0 < sent < SIZE - 50
            # The rest can be sent later.
            rest_sent, got = await transfer(left, right, file, file.tell())
            assert rest_sent == SIZE - 50 - sent
            assert got == data[50:]


async def test_a_cancelled_sendfile_over_another_stream_counts_whole_pieces(
    path: Path, data: bytes
) -> None:
    async with pair("tls") as (left, _right), open_file(path, "rb") as file:
        with cut_short() as scope:
            await sendfile(left, file)
        assert scope.cancelled_caught
        assert await file.tell() % READ_PIECE == 0


async def test_sendfile_in_a_cancelled_scope_sends_nothing(path: Path) -> None:
    for kind in ("unix", "memory"):
        async with pair(kind) as (left, right), open_file(path, "rb") as file:
            with CancelScope() as scope:
                scope.cancel()
                await sendfile(left, file)
            assert scope.cancelled_caught
            with cut_short() as scope:
                await right.receive_some()
            assert scope.cancelled_caught


async def test_sendfile_is_a_checkpoint_also_if_there_is_nothing_to_send() -> None:
    for kind in ("unix", "memory"):
        async with pair(kind) as (left, _right):
            with assert_checkpoints():
                assert await sendfile(left, io.BytesIO()) == 0


@by_kernel
@own_sockets
async def test_descriptors_of_sendfile_are_closed_if_the_second_cannot_be_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = os.dup

    def dup(fd: int) -> int:
        if made:
            raise OSError(24, "Too many open files")
        made.append(real(fd))
        return made[0]

    async with net.unix_pair() as (left, _right):
        with path.open("rb") as file:
            monkeypatch.setattr(file_sending.os, "dup", dup)
            with pytest.raises(OSError):
                await sendfile(left, file)
        assert not net.is_open(made[0])
        assert not left._sending


@own_sockets
@pytest.mark.costly("many schedules")
async def test_cancel_at_every_await_of_sendfile_each_byte_is_sent_once(
    path: Path, data: bytes, loop_case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run_sync(fn: Any, *args: Any, **options: Any) -> Any:
        # A schedule does not wait for threads.
        await nurseryio.lowlevel.checkpoint_if_cancelled()
        await nurseryio.lowlevel.cancel_shielded_checkpoint()
        return fn(*args)

    monkeypatch.setattr(file_sending, "to_thread_run_sync", run_sync)
    # The file's position is set there after a cancellation.
    monkeypatch.setattr("nurseryio._system.files.to_thread_run_sync", run_sync)
    monkeypatch.setattr(file_sending, "KERNEL_PIECE", 3000)
    data = data[:10_000]
    path.write_bytes(data)

    async def scenario(schedule: Schedule) -> None:
        got = bytearray()
        async with net.unix_pair() as (left, right):
            with path.open("rb") as file:

                async def send() -> None:
                    while file.tell() < len(data):
                        await sendfile(left, file, file.tell(), 4000)
                        await schedule.pause()

                async def receive() -> None:
                    while len(got) < file.tell():
                        got.extend(await right.receive_some(1000))

                await schedule.run(send, receive)
                sent = file.tell()
                while len(got) < sent:
                    got.extend(await right.receive_some())
                with cut_short() as scope:
                    await right.receive_some()
                assert scope.cancelled_caught
        assert bytes(got) == data[:sent]

    await stress(scenario, loop_case)
