"""Unix sockets: paths, and the files that stay behind."""

from __future__ import annotations

import contextlib
import errno
import os
import socket as stdlib
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness import forks

import nurseryio
from nurseryio import (
    CancelScope,
    SocketStream,
    open_unix_listeners,
    open_unix_socket,
    serve_unix,
)
from nurseryio._net import unix
from nurseryio._net.unix import has_unix
from nurseryio.testing import assert_checkpoints


@pytest.fixture
def path() -> Iterator[str]:
    # Not tmp_path: the path of a socket must be short.
    with tempfile.TemporaryDirectory() as directory:
        yield f"{directory}/socket"


async def echo(stream: SocketStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@pytest.mark.parametrize("kind", [str, os.fsencode, Path])
async def test_open_unix_socket_takes_a_path_of_any_kind(
    path: str, kind: Callable[[str], Any]
) -> None:
    with stdlib.socket(stdlib.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with assert_checkpoints():
            stream = await open_unix_socket(kind(path))
        async with stream:
            server, _address = listener.accept()
            with server:
                await stream.send_all(b"question")
                assert server.recv(100) == b"question"
                server.sendall(b"answer")
                assert await stream.receive_some() == b"answer"


async def test_addresses_of_a_unix_stream_are_paths(path: str) -> None:
    with stdlib.socket(stdlib.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        async with await open_unix_socket(path) as stream:
            assert stream.remote_address == path
            assert stream.local_address == ""


async def test_an_error_of_open_unix_socket_names_the_path(path: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await open_unix_socket(path)
    assert path in str(caught.value)


@pytest.mark.parametrize("filename", [4, 4.5, None, object()])
async def test_open_unix_socket_refuses_what_is_not_a_path(filename: Any) -> None:
    with pytest.raises(TypeError):
        await open_unix_socket(filename)
    with pytest.raises(TypeError):
        await open_unix_listeners(filename)


async def test_a_missing_or_unserved_unix_socket_is_an_error(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        await open_unix_socket(path)
    with stdlib.socket(stdlib.AF_UNIX) as gone:
        gone.bind(path)
    with pytest.raises(ConnectionRefusedError):
        await open_unix_socket(path)


async def test_serve_unix_serves_on_a_path(path: str) -> None:
    async with nurseryio.open_nursery() as nursery:
        (listener,) = await nursery.start(serve_unix, echo, path)
        assert listener.socket.getsockname() == path
        for _ in range(2):
            async with await open_unix_socket(path) as client:
                await client.send_all(b"x")
                assert await client.receive_some() == b"x"
        nursery.cancel_scope.cancel()
    assert not os.path.exists(path)


@pytest.mark.watching_only("connections wait in the queue of the system")
async def test_serve_unix_stops_at_a_stop_request_and_removes_its_file(path: str) -> None:
    async def answer_once(stream: Any) -> None:
        await stream.send_all(await stream.receive_some())

    async with nurseryio.open_nursery() as nursery:
        await nursery.start(serve_unix, answer_once, path)
        async with await open_unix_socket(path) as client:
            nursery.cancel_scope.request_stop()
            await nurseryio.testing.wait_all_tasks_blocked()
            assert not os.path.exists(path)
            await client.send_all(b"x")
            assert await client.receive_some() == b"x"


async def test_a_unix_socket_file_without_a_listener_is_replaced(path: str) -> None:
    with stdlib.socket(stdlib.AF_UNIX) as gone:
        gone.bind(path)
    assert os.path.exists(path)
    (listener,) = await open_unix_listeners(path)
    async with await open_unix_socket(path):
        await (await listener.accept()).aclose()
    await listener.aclose()
    assert not os.path.exists(path)


async def test_a_unix_socket_file_with_a_listener_is_in_use(path: str) -> None:
    (listener,) = await open_unix_listeners(path)
    with pytest.raises(OSError) as caught:
        await open_unix_listeners(path)
    assert caught.value.errno == errno.EADDRINUSE
    # Nothing has happened to it.
    async with await open_unix_socket(path):
        await (await listener.accept()).aclose()
    await listener.aclose()


async def test_a_file_that_is_not_a_unix_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(OSError) as caught:
        await open_unix_listeners(path)
    assert caught.value.errno == errno.EADDRINUSE
    assert Path(path).read_text() == "precious"


async def test_a_unix_socket_file_replaced_by_another_listener_is_not_removed(path: str) -> None:
    (first,) = await open_unix_listeners(path)
    os.unlink(path)
    (second,) = await open_unix_listeners(path)
    await first.aclose()
    async with await open_unix_socket(path):
        await (await second.accept()).aclose()
    await second.aclose()
    await second.aclose()
    assert not os.path.exists(path)


async def test_closing_removes_the_unix_socket_file_also_when_it_is_cancelled(path: str) -> None:
    (listener,) = await open_unix_listeners(path)
    with CancelScope() as scope:
        scope.cancel()
        await listener.aclose()
    assert scope.cancelled_caught
    assert not os.path.exists(path)


@pytest.mark.parametrize("mode", [0o600, 0o666])
async def test_the_mode_of_the_unix_socket_file_can_be_chosen(path: str, mode: int) -> None:
    (listener,) = await open_unix_listeners(path, mode=mode)
    assert stat.S_IMODE(os.stat(path).st_mode) == mode
    await listener.aclose()


async def test_a_unix_listener_that_cannot_be_set_up_leaves_no_file(path: str) -> None:
    with pytest.raises(TypeError):
        await open_unix_listeners(path, mode="600")  # type: ignore[arg-type]
    assert not os.path.exists(path)


async def test_a_relative_unix_socket_path_is_removed_although_the_directory_was_changed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(os.path.dirname(path))
    (listener,) = await open_unix_listeners("socket")
    monkeypatch.chdir("/")
    await listener.aclose()
    assert not os.path.exists(path)


async def test_a_unix_socket_path_that_cannot_be_bound_is_an_error_and_leaves_nothing_open(
    path: str,
) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        await open_unix_listeners(f"{path}/below/socket")
    assert caught.value.filename == f"{path}/below/socket"
    with pytest.raises(OSError, match="too long"):
        await open_unix_listeners("x" * 200)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has abstract sockets")
@pytest.mark.parametrize("kind", [str, os.fsencode])
async def test_abstract_unix_sockets_have_no_file(kind: Callable[[str], Any]) -> None:
    name = kind(f"\0nurseryio-test-{os.getpid()}")
    (listener,) = await open_unix_listeners(name)
    async with await open_unix_socket(name):
        await (await listener.accept()).aclose()
    await listener.aclose()


async def test_a_system_without_unix_sockets_is_an_error_that_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert has_unix
    monkeypatch.setattr(unix, "has_unix", False)
    for call in (open_unix_socket, open_unix_listeners):
        with pytest.raises(RuntimeError, match="Unix sockets are not supported"):
            await call("x")  # type: ignore[operator]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
async def test_a_forked_child_leaves_the_unix_socket_file_to_its_parent(path: str) -> None:
    (listener,) = await open_unix_listeners(path)

    def close() -> None:
        with contextlib.suppress(RuntimeError):  # there is not a loop for its checkpoint
            listener.aclose().send(None)
        assert listener.socket.fileno() == -1

    assert forks.in_child(close) == 0
    async with await open_unix_socket(path):
        await (await listener.accept()).aclose()
    await listener.aclose()
    assert not os.path.exists(path)


@pytest.mark.parametrize("there", [True, False])
async def test_a_symbolic_link_at_the_unix_socket_path_is_left_alone(
    path: str, there: bool
) -> None:
    target = f"{path}-target"
    if there:
        with stdlib.socket(stdlib.AF_UNIX) as gone:
            gone.bind(target)
    os.symlink(target, path)
    with pytest.raises(OSError) as caught:
        await open_unix_listeners(path)
    assert caught.value.errno == errno.EADDRINUSE
    assert os.readlink(path) == target


@pytest.mark.watching_only("it makes a socket for datagrams")
async def test_a_unix_socket_path_with_a_nul_is_refused_not_cut(path: str) -> None:
    for wrong in (f"{path}\0x", Path(f"{path}\0x"), f"{path}\0".encode()):
        with pytest.raises(ValueError, match="NUL character in the path"):
            await open_unix_socket(wrong)
        with pytest.raises(ValueError, match="NUL character in the path"):
            await open_unix_listeners(wrong)
        with pytest.raises(ValueError, match="NUL character in the path"):
            await serve_unix(echo, wrong)
        for kind in (stdlib.SOCK_STREAM, stdlib.SOCK_DGRAM):
            with nurseryio.socket.socket(stdlib.AF_UNIX, kind) as sock:
                for method in (sock.bind, sock.connect, partial(sock.sendto, b"x")):
                    with pytest.raises(ValueError, match="NUL character in the path"):
                        await method(wrong)
    assert not os.path.exists(path)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has abstract sockets")
async def test_the_name_of_an_abstract_unix_socket_may_have_nuls(path: str) -> None:
    name = f"\0{path}\0x"
    (listener,) = await open_unix_listeners(name)
    async with listener, await open_unix_socket(name), await listener.accept():
        assert listener.socket.getsockname() == name.encode()
