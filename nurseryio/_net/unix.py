"""Unix sockets: connecting to a path, listening and serving, and the files of sockets.

The streams and listeners are those of all other kinds of sockets (:mod:`stream`, :mod:`listener`).

Rule 1: a socket file outlives the process that made it. A new listener replaces a file on which no
process listens any more. If a process still listens on it, the path is in use. Files of other kinds
are never removed.

Rule 2: a listener removes its file when it is closed, unless another file has replaced it. A forked
child that closes its copy of the listener does not remove the file: the parent still uses it.

Rule 3: a symbolic link does not count as a socket file, even if it leads to one.
"""

from __future__ import annotations

import errno
import os
import socket as stdlib
import stat
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from .._base.forked import generation
from .._base.unsupported import needs
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


@needs("sockets")
async def open_unix_socket(filename: AnyPath) -> SocketStream:
    """Connect to a Unix socket.

    Args:
        filename: The path of the socket file, or the name of an abstract socket (Linux), which
            begins with a null byte.

    Returns:
        A stream over the connection.

    Raises:
        TypeError: ``filename`` is not a path.
        ValueError: There is a NUL character in the path.
        OSError: There is no such socket, no process listens on it, or it is not permitted.
        RuntimeError: The system does not have Unix sockets.
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


@needs("sockets")
async def open_unix_listeners(
    filename: AnyPath, *, mode: int | None = None, backlog: int | None = None
) -> list[SocketListener]:
    """Listen on a Unix socket.

    A socket file at this path is replaced if no process listens on it any more. A symbolic link is
    not replaced. The file is removed when the process that opened the listener closes it.

    Args:
        filename: The path of the socket file to make, or the name of an abstract socket (Linux),
            which begins with a null byte.
        mode: Permission bits of the file, such as ``0o600``; None leaves them to the umask. They
            are set before a client can connect.
        backlog: How many connections the system may queue before they are accepted; None for as
            many as it allows.

    Returns:
        A list of one listener. It is a list, as with :func:`open_tcp_listeners`, so that the same
        code can use both.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is a NUL character in the path.
        OSError: The path is in use, or the file cannot be made.
        RuntimeError: The system does not have Unix sockets.
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
    """Add the path to errors of the system, because errors of sockets do not have it."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = path
        raise


def _remove_stale(path: str | bytes) -> None:
    """Remove a socket file on which no process listens. Other files are never removed."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # bind() will refuse
    except OSError:
        return
    with stdlib.socket(stdlib.AF_UNIX, stdlib.SOCK_STREAM) as probe:
        # Otherwise connect() would wait if a listener's queue is full.
        probe.setblocking(False)
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _remove(path: str | bytes, made: os.stat_result, made_in: int) -> None:
    """Remove a socket file if it is still the same file and this process made it."""
    if made_in == generation():
        with suppress(OSError):
            if os.path.samestat(os.lstat(path), made):
                os.unlink(path)


@needs("sockets")
async def serve_unix(
    handler: Callable[[SocketStream], Awaitable[object]],
    filename: AnyPath,
    *,
    mode: int | None = None,
    backlog: int | None = None,
    handler_nursery: Nursery | None = None,
    task_status: TaskStatus[list[SocketListener]] = TASK_STATUS_IGNORED,
) -> None:
    """Serve a Unix socket: for each connection, run ``handler(stream)`` in a new task.

    This calls :func:`open_unix_listeners` and :func:`serve_listeners`; see there for details.

    Args:
        handler: An async function of one argument, the connection as a :class:`SocketStream`. The
            stream is closed when the function ends. An error that the function raises ends the
            server.
        filename: As for :func:`open_unix_listeners`.
        mode: As for :func:`open_unix_listeners`.
        backlog: As for :func:`open_unix_listeners`.
        handler_nursery: The nursery in which the handlers run. If None, the server opens one.
        task_status: For ``nursery.start``, which returns the listeners.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: There is a NUL character in the path.
        OSError: The path is in use, or the file cannot be made.
        RuntimeError: The system does not have Unix sockets.
        ExceptionGroup: The server failed, or a handler in the server's nursery did.
        Cancelled: if the task is cancelled. A stop request ends the server gently.

    Checkpoint: yes.

    Trio: none.
    """
    reject_non_functions((handler,))
    listeners = await open_unix_listeners(filename, mode=mode, backlog=backlog)
    await serve_listeners(
        handler, listeners, handler_nursery=handler_nursery, task_status=task_status
    )
