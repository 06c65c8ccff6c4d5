"""Unix sockets: connecting to one by its path, and listening on one.

What lives here: paths, and the socket files behind them. What does not: the streams and the
listeners themselves, which are those of every other kind of socket.

Rule 1: a socket file outlives the process that made it. One that nobody listens on any more is
replaced; one that somebody listens on is in use, and any other kind of file is not ours to touch.

Rule 2: a listener removes its file when it is closed, if the file is still its own. A forked
child that closes its copy of the listener leaves the file to the parent.

Rule 3: a symbolic link is not a socket file, whatever it leads to.
"""

from __future__ import annotations

import errno
import os
import socket as stdlib
import stat
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from .._base.forked import generation
from .._base.util import reject_non_functions
from .._core import checkpoint
from .._nursery import TASK_STATUS_IGNORED
from .._resolver.resolver import check_path
from .listener import SocketListener
from .serve import serve_listeners
from .socket_makers import socket
from .stream import SocketStream
from .tcp_listen import check_backlog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import TypeAlias

    from .._nursery import Nursery, TaskStatus

    AnyPath: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"

__all__ = ["has_unix", "open_unix_listeners", "open_unix_socket", "serve_unix"]

# Whether this system has Unix sockets.
has_unix = hasattr(stdlib, "AF_UNIX")


def _check_available() -> None:
    if not has_unix:
        raise RuntimeError("Unix sockets are not supported on this platform")


async def open_unix_socket(filename: AnyPath) -> SocketStream:
    """Connect to a Unix socket.

    Args:
        filename: The path of the socket file, or the name of an abstract socket (Linux), which
            begins with a null byte.

    Returns:
        A stream over the connection.

    Raises:
        TypeError: ``filename`` is no path.
        ValueError: There is a NUL character in the path.
        OSError: There is no such socket, nobody listens on it, or it is not permitted.
        RuntimeError: The system has no Unix sockets.
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: ``trio.open_unix_socket``.
    """
    _check_available()
    path = check_path(os.fspath(filename))
    sock = socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM)
    try:
        with _naming(path):
            await sock.connect(path)
    except BaseException:
        sock.close()
        raise
    return SocketStream(sock)


async def open_unix_listeners(
    filename: AnyPath, *, mode: int | None = None, backlog: int | None = None
) -> list[SocketListener]:
    """Listen on a Unix socket.

    A socket file that is there already is replaced if nobody listens on it any more. A symbolic
    link is not. The file is removed when the listener is closed by the process that opened it.

    Args:
        filename: The path of the socket file to make, or the name of an abstract socket (Linux),
            which begins with a null byte.
        mode: Permission bits of the file, such as ``0o600``; None leaves them to the umask. They
            are in effect before anybody can connect.
        backlog: How many connections the system may queue before they are accepted; None for as
            many as it allows.

    Returns:
        A list of one listener, so that it can be used where :func:`open_tcp_listeners` is.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is a NUL character in the path.
        OSError: The path is in use or cannot be made.
        RuntimeError: The system has no Unix sockets.
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: none.
    """
    _check_available()
    path = check_path(os.fspath(filename))
    backlog = check_backlog(backlog)
    await checkpoint()
    is_file = path[:1] not in ("\0", b"\0")
    if is_file:
        _remove_stale(path)
    made: os.stat_result | None = None
    sock = socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM)
    try:
        with _naming(path):
            await sock.bind(path)
        if is_file:
            made = os.lstat(path)
            if mode is not None:
                os.chmod(path, mode)
        sock.listen(backlog)
        listener = SocketListener(sock)
    except BaseException:
        sock.close()
        if made is not None:
            _remove(path, made, generation())
        raise
    if made is not None:
        listener._when_closed = partial(_remove, os.path.abspath(path), made, generation())
    return [listener]


@contextmanager
def _naming(path: str | bytes) -> Iterator[None]:
    """Have errors of the system say which path they are about, which those of sockets do not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = path
        raise


def _remove_stale(path: str | bytes) -> None:
    """Remove the file of a socket that nobody listens on. Never touches anything else."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # bind() will refuse
    except OSError:
        return
    with stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM) as probe:
        # A listener whose queue is full would have us wait.
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _remove(path: str | bytes, made: os.stat_result, made_in: int) -> None:
    """Remove a socket file, if it is still the same, and this process has made it."""
    if made_in == generation():
        with suppress(OSError):
            if os.path.samestat(os.lstat(path), made):
                os.unlink(path)


async def serve_unix(
    handler: Callable[[SocketStream], Awaitable[object]],
    filename: AnyPath,
    *,
    mode: int | None = None,
    backlog: int | None = None,
    handler_nursery: Nursery | None = None,
    task_status: TaskStatus[list[SocketListener]] = TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve a Unix socket: for each connection, run ``handler(stream)`` in a task of its own.

    :func:`open_unix_listeners` and :func:`serve_listeners` in one; they say the rest.

    Args:
        handler: An async function of one argument, the connection as a :class:`SocketStream`, which
            is closed when the function ends. An error that it lets out ends the server.
        filename: As for :func:`open_unix_listeners`.
        mode: As for :func:`open_unix_listeners`.
        backlog: As for :func:`open_unix_listeners`.
        handler_nursery: Where the handlers run, if not in a nursery of the server's own.
        task_status: For ``nursery.start``, which returns the listeners.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is a NUL character in the path.
        OSError: The path is in use or cannot be made.
        RuntimeError: The system has no Unix sockets.
        ExceptionGroup: The server failed, or a handler of its own nursery did.
        Cancelled: if the task is cancelled; there is no other way to stop a server.

    Checkpoint: yes.

    Trio: none.
    """
    reject_non_functions((handler,))
    listeners = await open_unix_listeners(filename, mode=mode, backlog=backlog)
    await serve_listeners(
        handler, listeners, handler_nursery=handler_nursery, task_status=task_status
    )
