"""``serve_monitor()``: a Unix socket through which others look at this process; read only.

The socket is served by a thread. So it answers while the loop is blocked, and takes nothing of the
loop's time while nobody asks. The program that asks is in ``remote``.

Rule 1: the socket belongs to this user alone, from the moment at which it exists. On Linux the
user of the other side is checked too.

Rule 2: a request can ask for the state of the program, and cannot change it. ``top`` installs an
instrument for as long as it measures.

Rule 3: one request is a line of JSON, the answer is a JSON object, and then the connection is
closed. A client that is slow, or sends something else, delays or ends nothing but its connection.
So each connection has a thread. The oldest one is cut off if there are too many.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import stat
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._asyncio.interpreter import BackgroundThread
from .._base.forked import generation
from .._base.unsupported import needs
from .._observe.dump import all_trees, as_text
from .._observe.task_tree import running_loops, tree_of
from .step_times import measure

if TYPE_CHECKING:
    from types import FrameType

    from typing_extensions import Self

# How long a client may take to send its request, and to take the answer (seconds).
PATIENCE = 5.0
# The most connections at a time.
MOST_CLIENTS = 16
LONGEST_REQUEST = 1000
# How long to wait (seconds) if no connection can be accepted.
PAUSE = 0.1
# How long ``top`` measures at most (seconds).
LONGEST_TOP = 60.0


def default_path(pid: int) -> Path:
    """The path of the socket of a process that has given none to :func:`serve_monitor`."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base, f"nurseryio-{os.getuid()}", f"{pid}.sock")


class Monitor:
    """A socket through which others look at this process; made by :func:`serve_monitor`.

    Attributes:
        path: The path of the socket.

    Trio: none.
    """

    path: str

    def __init__(self, path: str) -> None:
        self.path = path
        self._generation = generation()
        self._socket = _listen(path)
        self._file = _file_at(path)
        # The connections that are open, in the order in which they were opened.
        self._clients: dict[socket.socket, None] = {}
        # Written to when the thread is to end.
        self._wake, self._woken = socket.socketpair()
        self._thread = BackgroundThread(self._serve, "nurseryio monitor", end=self._end)
        try:
            self._thread.start()
        except BaseException:  # no thread can be started
            self._remove()
            raise

    def __repr__(self) -> str:
        return f"<nurseryio.instruments.Monitor at {self.path!r}>"

    def close(self) -> None:
        """Stop serving, and remove the socket. A second call does nothing.

        A forked child has no monitor: there the call only closes the child's copies.
        """
        if self._socket.fileno() == -1:
            return
        if self._generation == generation():
            self._end()
            self._thread.join(PATIENCE)
        self._remove()

    def _end(self) -> None:
        self._wake.send(b"x")

    def _remove(self) -> None:
        # Another monitor may have its socket at this path by now.
        if self._generation == generation() and _file_at(self.path) == self._file:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        for each in (self._socket, self._wake, self._woken):
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def _serve(self) -> None:
        ended = _selector_of(self._woken)
        either = _selector_of(self._woken, self._socket)
        while True:
            either.select()
            if ended.select(0):
                break
            try:
                connection, _ = self._socket.accept()
            except OSError:
                # Without a free descriptor the client still waits, and would be seen at once again.
                ended.select(PAUSE)
                continue
            self._clients[connection] = None
            client = BackgroundThread(self._serve_one, "nurseryio monitor", (connection,))
            try:
                client.start()
            except Exception:  # no thread can be started
                self._drop(connection)
            clients = list(self._clients)
            for oldest in clients[: len(clients) - MOST_CLIENTS]:
                _cut_off(oldest)
        for connection in self._clients.copy():
            _cut_off(connection)

    def _drop(self, connection: socket.socket) -> None:
        self._clients.pop(connection, None)
        _cut_off(connection)  # a child that was forked meanwhile has a copy of the descriptor
        connection.close()

    def _serve_one(self, connection: socket.socket) -> None:
        try:
            _serve_client(connection)
        except Exception:  # of the connection
            pass
        finally:
            self._drop(connection)


def _cut_off(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is closed
        connection.shutdown(socket.SHUT_RDWR)


def _serve_client(connection: socket.socket) -> None:
    connection.settimeout(PATIENCE)
    if not _is_ours(connection):
        return
    end = time.monotonic() + PATIENCE
    line = b""
    while b"\n" not in line and len(line) <= LONGEST_REQUEST and time.monotonic() < end:
        data = connection.recv(LONGEST_REQUEST)
        if not data:
            return
        line += data
    try:
        answered = answer(json.loads(line))
    except Exception as error:
        answered = {"error": f"{type(error).__name__}: {error}"}
    connection.settimeout(PATIENCE)  # of the whole answer
    connection.sendall(json.dumps(answered).encode())


def _file_at(path: str) -> tuple[int, int] | None:
    """What identifies the file at a path; None if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _selector_of(*sockets: socket.socket) -> selectors.BaseSelector:
    # select() refuses descriptors above 1023, and a kqueue or epoll would need one more.
    selector = getattr(selectors, "PollSelector", selectors.SelectSelector)()
    for each in sockets:
        selector.register(each, selectors.EVENT_READ)
    return selector


@needs("observers")
def serve_monitor(path: str | os.PathLike[str] | None = None) -> Monitor:
    """Open a Unix socket through which ``python -m nurseryio tree PID`` looks at this process.

    Only this user can connect, and a connection can only look. It works on every Python and every
    loop, and while the loop is blocked. From Python 3.14 on, ``tree`` and ``top`` also work without
    a monitor, unless the process forbids that.

    Args:
        path: The path of the socket. None stands for one that is made of the process id in a
            folder of this user, where ``tree`` and ``top`` find it.

    Returns:
        The monitor. It serves until its ``close()`` is called, or the ``with`` block of it ends, or
        the process does. A forked child has to open its own.

    Raises:
        OSError: The socket cannot be made. Another process may be serving this path.
        RuntimeError: The system does not have Unix sockets.
        NotImplementedError: The platform is a web page.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "getuid"):
        raise RuntimeError("this system has no Unix sockets, which a monitor needs")
    if path is None:
        path = default_path(os.getpid())
        _make_private_folder(path.parent)
    return Monitor(os.path.abspath(os.fspath(path)))


def _make_private_folder(folder: Path) -> None:
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{str(folder)!r} must be a folder that only this user can enter: remove it, or give "
            "serve_monitor() another path"
        )


def _listen(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if sys.platform == "linux":
            os.fchmod(listening.fileno(), 0o600)  # the mode of the file that bind() makes
        try:
            listening.bind(path)
        except OSError:
            if not _is_stale(path):
                raise
            os.unlink(path)
            listening.bind(path)
        os.chmod(path, 0o600)
        listening.listen(MOST_CLIENTS)
    except OSError as error:
        listening.close()
        if error.errno is not None and error.filename is None:  # bind() does not name the path
            error.filename = path
        raise
    except BaseException:
        listening.close()
        raise
    return listening


def _is_stale(path: str) -> bool:
    """Whether a path is that of a socket on which no process listens any more."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            trial.settimeout(PATIENCE)
            trial.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def _is_ours(connection: socket.socket) -> bool:
    """Whether the other side is a process of this user, or of root."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", data)
    return uid in (os.getuid(), 0)


# -- answers ----------------------------------------------------------------------


def answer(request: dict[str, Any], frame: FrameType | None = None) -> dict[str, Any]:
    """The answer to a request.

    Args:
        request: ``{"command": "tree"}``, or ``{"command": "top", "seconds": 1.0}``.
        frame: The frame of this thread that was interrupted, if one was.

    Raises:
        ValueError: The request is wrong.
    """
    if not isinstance(request, dict):
        raise ValueError("a request is a JSON object")
    command = request.get("command")
    if command == "tree":
        found = all_trees(frame)
        loops = [tree.as_dict() for tree in found.values()]
        return {"pid": os.getpid(), "text": as_text(found), "loops": loops}
    if command == "top":
        seconds = float(request.get("seconds", 1.0))
        if not seconds > 0:
            raise ValueError("the seconds must be positive")
        seconds = min(seconds, LONGEST_TOP)
        return {"pid": os.getpid(), "seconds": seconds, "loops": _top(seconds)}
    raise ValueError(f"there is no command {command!r}")


def _top(seconds: float) -> list[dict[str, Any]]:
    """The result of measuring all loops, and their tasks at its end."""
    loops = running_loops()
    rows = []
    for loop, shares in zip(loops, measure(loops, seconds), strict=True):
        tasks = []
        for task in tree_of(loop).tasks:
            running = shares.running.get(task.id, 0.0)
            waited = 0.0 if task.wait is None or task.wait.waited is None else task.wait.waited
            if task.state == "waiting" and not running:
                waited = max(waited, shares.seen_for)
            tasks.append(
                {
                    "id": task.id,
                    "name": task.name,
                    "running": running,
                    "waited": waited,
                    "kind": task.state if task.wait is None else task.wait.kind,
                    "place": "" if task.place is None else str(task.place),
                    "text": str(task),
                }
            )
        rows.append({"ended": shares.ended, "tasks": tasks})
    return rows
