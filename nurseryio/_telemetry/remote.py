"""Looking at another process: by its monitor, or from Python 3.14 on by ``sys.remote_exec``.

Rule: each way in which this can fail has an error that says what to do.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .monitor import default_path

# How long a process that runs Python may take to answer (seconds), the time that was asked for not
# counted.
PATIENCE = 10.0

# Run in the other process, between two instructions of its main thread.
SCRIPT = """\
def answer_nurseryio(result, request, frame):
    import json, os, sys
    if "nurseryio" in sys.modules:
        try:
            from nurseryio._telemetry.monitor import answer
            answered = answer(request, frame)
        except Exception as error:
            answered = {"error": f"{type(error).__name__}: {error}"}
    else:
        answered = {"error": "it has not imported nurseryio"}
    with open(result + ".part", "w") as file:
        json.dump(answered, file)
    os.replace(result + ".part", result)
def begin_nurseryio(result, request):
    import sys, threading
    if request["command"] == "tree":
        answer_nurseryio(result, request, sys._getframe(2))
    else:  # it takes time, which the program goes on in
        arguments = (result, request, None)
        threading.Thread(target=answer_nurseryio, args=arguments, daemon=True).start()
"""


class UnreachableError(Exception):
    """A process cannot be looked at. The text says why, and what to do."""


class _NoMonitorError(UnreachableError):
    """No process serves the socket."""


def ask(request: dict[str, Any], pid: int | None, path: str | None) -> dict[str, Any]:
    """Ask another process for its state.

    Args:
        request: See :func:`monitor.answer`.
        pid: The number of the process; or
        path: the path of the socket of its monitor.

    Raises:
        UnreachableError: It cannot be asked, or has not answered.
    """
    wait = PATIENCE + float(request.get("seconds", 0))
    if path is not None:
        answered = _ask_monitor(request, path, wait)
    else:
        assert pid is not None
        _check_process(pid)
        try:
            answered = _ask_monitor(request, str(default_path(pid)), wait)
        except _NoMonitorError:
            # A socket may be left of a process that had this number before.
            answered = _ask_python(request, pid, wait)
    if "error" in answered:
        raise UnreachableError(f"the process cannot show its tasks: {answered['error']}")
    return answered


def _check_process(pid: int) -> None:
    if pid <= 0:  # os.kill() takes these numbers for groups of processes
        raise UnreachableError(f"there is no process {pid}")
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        raise UnreachableError(f"there is no process {pid}") from None
    except PermissionError:
        raise UnreachableError(
            f"process {pid} belongs to another user: run this command as that user"
        ) from None
    except OverflowError:
        raise UnreachableError(f"there is no process {pid}") from None


def _ask_monitor(request: dict[str, Any], path: str, wait: float) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(wait)
        try:
            _connect(connection, path, time.monotonic() + wait)
            connection.sendall(json.dumps(request).encode() + b"\n")
            parts = []
            while data := connection.recv(1 << 16):
                parts.append(data)
        except FileNotFoundError:
            raise _NoMonitorError(f"there is no socket {path!r}") from None
        except ConnectionRefusedError:
            if not _is_socket(path):
                raise UnreachableError(f"{path!r} is not a socket") from None
            raise _NoMonitorError(
                f"no process serves the socket {path!r} any more: it may be left of one that was "
                "killed, and can be removed"
            ) from None
        except PermissionError:
            raise UnreachableError(f"the socket {path!r} belongs to another user") from None
        except TimeoutError:
            raise UnreachableError(
                f"the monitor at {path!r} has not answered in {wait:g} s: its process may be "
                "stopped, by a debugger or SIGSTOP"
            ) from None
        except OSError as error:
            raise UnreachableError(f"the monitor at {path!r} does not answer: {error}") from None
    if not parts:
        raise UnreachableError(f"the monitor at {path!r} refuses this user")
    try:
        answered: dict[str, Any] = json.loads(b"".join(parts))
    except ValueError:
        raise UnreachableError(
            f"the answer of {path!r} is not that of a monitor, or was cut off"
        ) from None
    return answered


def _connect(connection: socket.socket, path: str, end: float) -> None:
    while True:
        try:
            connection.connect(path)
        except BlockingIOError:
            # So many others connect at the moment. Linux does not wait for its turn.
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
        else:
            return


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:  # it was removed meanwhile
        return True


def _ask_python(request: dict[str, Any], pid: int, wait: float) -> dict[str, Any]:
    remote_exec = getattr(sys, "remote_exec", None)
    advice = "call nurseryio.instruments.serve_monitor() in that program"
    if remote_exec is None:
        raise UnreachableError(
            f"process {pid} has no monitor, and looking at it without one needs Python 3.14 or "
            f"newer, here and there: {advice}"
        )
    with tempfile.TemporaryDirectory(prefix="nurseryio-") as folder:
        result = Path(folder, "answer")
        script = Path(folder, "ask.py")
        script.write_text(
            f"{SCRIPT}\nbegin_nurseryio({str(result)!r}, {request!r})\n", encoding="utf-8"
        )
        try:
            remote_exec(pid, str(script))
        except PermissionError:
            raise UnreachableError(
                f"this system does not let you debug process {pid}: run this as root, or {advice}"
            ) from None
        except (OSError, RuntimeError) as error:
            raise UnreachableError(
                f"process {pid} cannot be asked ({error}): it must run the same version of Python "
                f"as this command, {sys.version_info[0]}.{sys.version_info[1]}; or {advice}"
            ) from None
        _interrupt(pid)
        end = time.monotonic() + wait
        while not result.exists():
            if time.monotonic() > end:
                raise UnreachableError(
                    f"process {pid} has not answered in {wait:g} s: its main thread is in a call "
                    f"that does not return to Python; {advice}, which answers even then"
                )
            time.sleep(0.02)
        answered: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return answered


# Requests of ptrace(2) on Linux.
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000  # __WALL of waitpid(2)


def _interrupt(pid: int) -> None:
    """Interrupt the system call that a process waits in, so that it returns to Python.

    The loop of an idle program waits in such a call, and Python runs the script of ``remote_exec``
    only between two calls. A tracer that attaches interrupts the call. No signal is sent, so
    neither the program nor its parent sees anything. Does nothing where that is not possible.
    """
    if sys.platform != "linux":
        return
    try:
        import ctypes

        ptrace = ctypes.CDLL(None, use_errno=True).ptrace
        ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        ptrace.restype = ctypes.c_long
        if ptrace(PTRACE_SEIZE, pid, None, None) == 0:
            try:
                if ptrace(PTRACE_INTERRUPT, pid, None, None) == 0:
                    os.waitpid(pid, WALL)
            finally:
                ptrace(PTRACE_DETACH, pid, None, None)
    except (ImportError, OSError, AttributeError):
        pass
