"""Child processes: :class:`Process` and :func:`open_process`.

asyncio's and anyio's processes are not used. asyncio's subprocess transports read without a limit,
and anyio's streams are built on them. Neither library has Trio's streams. This module uses the
standard library's ``Popen`` to start a child, streams over the parent's ends of the pipes, and
``process_exit`` to wait for the exit.

Rule 1: a child is started in a worker thread, because starting may block (a slow disk, a huge
parent).

Rule 2: of each pipe the parent has one end, and the child has the only copy of the other. So the
end of file arrives when the child exits. If the start fails, no end of any pipe stays open.

Supervision of a child is in ``run_process``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from .._base.exc_fields import explained
from .._base.unsupported import Elsewhere, needs
from .._base.util import NoPublicConstructor, safe_repr
from .._core.task import current_state
from .._loop.watching import can_watch, check_can_watch
from .._net.fd_stream import FdStream
from .._net.generic import StapledStream
from .._net.sockets import Socket
from .._sync import Lock
from .process_exit import ExitWatch
from .threads import to_thread_run_sync

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, TypeAlias

    from _typeshed import StrOrBytesPath
    from typing_extensions import Unpack

    from .._base import ReceiveStream, SendStream
    from .process_options import HasFileno, ProcessOptions

    Command: TypeAlias = StrOrBytesPath | Sequence[StrOrBytesPath]

__all__ = ["Process", "open_process"]


# The parent's ends of pipes are streams over descriptors. On Windows a loop cannot wait for those.
_HAS_PIPES = os.name == "posix"

# On Windows SIGTERM has the same effect.
_SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)

# With these options subprocess would make its pipes into text files, or set buffers.
_NOT_FOR_BYTE_STREAMS = ("universal_newlines", "text", "encoding", "errors", "bufsize")


class Process(metaclass=NoPublicConstructor):
    """A child process, like :class:`subprocess.Popen` with async streams and an async ``wait``.

    Made by ``await nursery.start(run_process, ...)``, which supervises the child, or by
    :func:`nurseryio.lowlevel.open_process`, which does not.

    Attributes:
        args: The command, as it was given.
        pid: The process id.
        stdin: The stream for the child's standard input, if it was started with ``stdin=PIPE``;
            else None.
        stdout: The stream of the child's standard output, if it was started with
            ``stdout=PIPE``; else None.
        stderr: The stream of the child's standard error, if it was started with ``stderr=PIPE``;
            else None.
        stdio: ``stdin`` and ``stdout`` in one stream, if both are streams; else None.
        encoding, errors, universal_newlines: None, None and False, because all streams are of
            bytes. They are there for code that was written for ``Popen``.

    Trio: ``trio.Process``.
    """

    # For code that was written for Popen. All streams are of bytes.
    universal_newlines: Final = False
    encoding: Final = None
    errors: Final = None

    args: Command
    pid: int
    stdin: SendStream | None
    stdout: ReceiveStream | None
    stderr: ReceiveStream | None
    stdio: StapledStream[SendStream, ReceiveStream] | None

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        stdin: SendStream | None,
        stdout: ReceiveStream | None,
        stderr: ReceiveStream | None,
        group: int | None = None,
    ) -> None:
        self._popen = popen
        self._exit = ExitWatch(popen)
        # The id of the process group that the child was put into; None if it is in the parent's.
        self._group = group
        # Whether SIGKILL was sent, or refused: nothing more can be done to end the child.
        self._killed = False
        # One task waits for the exit; the others wait for that task.
        self._wait_lock = Lock()
        self.args = popen.args
        self.pid = popen.pid
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.stdio = None
        if stdin is not None and stdout is not None:
            self.stdio = StapledStream(stdin, stdout)

    if not TYPE_CHECKING:
        communicate = Elsewhere("use run_process(..., stdin=data, capture_stdout=True)")

    def __repr__(self) -> str:
        status = self.returncode
        if status is None:
            state = f"running with PID {self.pid}"
        elif status < 0:
            state = f"exited with signal {-status}"
        else:
            state = f"exited with status {status}"
        return f"<nurseryio.Process {self.args!r}: {state}>"

    @property
    def returncode(self) -> int | None:
        """The exit status: 0 for success, the negative number of the signal that ended the
        child, or None while it runs.

        It is always up to date, without any other call. It is 255, with a warning in the log
        ``nurseryio.Process``, if the status cannot be known: because ``SIGCHLD`` is ignored, or
        because other code of this program has waited for the child.

        Trio: ``trio.Process.returncode``.
        """
        return self._exit.poll()

    async def wait(self) -> int:
        """Wait until the child has exited, and reap it.

        Any number of tasks may wait. A cancelled wait has no effect on the child. If ``stdout``
        and ``stderr`` are pipes, read from them meanwhile: a child that cannot write does not
        exit.

        Returns:
            The exit status, see :attr:`returncode`.

        Raises:
            Cancelled: The wait was cancelled.
            RuntimeError: This process was forked from the process that started the child.

        Checkpoint: yes.

        Trio: ``trio.Process.wait``.
        """
        self._exit.check_parent()
        async with self._wait_lock:
            while (status := self._exit.poll()) is None:
                await self._exit.wait()
        return status

    def poll(self) -> int | None:
        """The same as :attr:`returncode`, for code that was written for ``Popen``.

        Trio: ``trio.Process.poll``.
        """
        return self.returncode

    def send_signal(self, sig: signal.Signals | int) -> None:
        """Send a signal to the child. Does nothing once it has exited.

        Args:
            sig: A signal of the :mod:`signal` module. On Windows, one that ``Popen.send_signal``
                accepts.

        Raises:
            OSError: The system reports an error, for example because the child runs as another
                user.

        Trio: ``trio.Process.send_signal``.
        """
        if os.name != "posix":
            self._popen.send_signal(sig)
        elif self.returncode is None:
            # Not Popen's method, which would reap the child.
            self._killed = self._killed or sig == _SIGKILL
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        """Ask the child to end: ``SIGTERM``, which it may ignore. On Windows, :meth:`kill` it.

        Raises:
            OSError: The system reports an error.

        Trio: ``trio.Process.terminate``.
        """
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child: ``SIGKILL``, which it cannot ignore; on Windows ``TerminateProcess``.

        The child exits a moment later; :meth:`wait` returns then.

        Raises:
            OSError: The system reports an error.

        Trio: ``trio.Process.kill``.
        """
        self.send_signal(_SIGKILL)


def _check_command(command: Command, shell: object) -> None:
    if os.name != "posix":
        return
    if isinstance(command, (list, tuple)) and not command:
        raise ValueError("command is empty: it must at least name the program")
    is_text = isinstance(command, (str, bytes))
    if is_text and not shell:
        raise explained(
            TypeError(
                "command must be a sequence (not a string or bytes) if shell=False on UNIX systems"
            ),
            f"write {safe_repr(command)}.split() or shlex.split(), or pass shell=True",
        )
    if not is_text and shell:
        raise TypeError(
            "command must be a string or bytes (not a sequence) if shell=True on UNIX systems"
        )


def has_pipes() -> bool:
    """Whether pipes to children work: not on Windows, or if the loop cannot watch them."""
    return _HAS_PIPES and can_watch(current_state())


class _Pipes:
    """The pipes between this process and a child that is about to be started."""

    def __init__(self) -> None:
        # Closes the child's ends in this process, in any case.
        self.childs = ExitStack()
        # Closes the parent's ends, if the child was not started.
        self.ours = ExitStack()
        # Streams of this library that are given to the child. If the child was not started, they
        # stay usable here.
        self.handed_on = ExitStack()
        self._given: list[FdStream | Socket] = []

    def to_child(self) -> tuple[FdStream, int]:
        """Make a pipe to the child. Return the parent's end and the child's."""
        childs_fd, our_fd = os.pipe()
        return self._keep(our_fd, childs_fd)

    def from_child(self) -> tuple[FdStream, int]:
        """Make a pipe from the child. Return the parent's end and the child's."""
        our_fd, childs_fd = os.pipe()
        return self._keep(our_fd, childs_fd)

    def given(self, where: Any) -> Any:
        """Return an argument ``stdin``, ``stdout`` or ``stderr`` in a form that Popen accepts.

        A stream of this library is handed on to the child.
        """
        if not isinstance(where, (FdStream, Socket)):
            return where
        if all(where is not other for other in self._given):
            self.handed_on.enter_context(where._handed_on())
            self._given.append(where)
        # A copy: if the stream is closed meanwhile, its number may refer to another file.
        childs_fd = os.dup(where.fileno())
        self.childs.callback(os.close, childs_fd)
        return childs_fd

    def _keep(self, our_fd: int, childs_fd: int) -> tuple[FdStream, int]:
        self.childs.callback(os.close, childs_fd)
        try:
            stream = FdStream(our_fd)
        except BaseException:
            os.close(our_fd)
            raise
        self.ours.callback(stream.close)
        return stream, childs_fd


@needs("processes")
async def open_process(
    command: Command,
    *,
    stdin: int | HasFileno | None = None,
    stdout: int | HasFileno | None = None,
    stderr: int | HasFileno | None = None,
    **options: Unpack[ProcessOptions],
) -> Process:
    """Start a child process and return at once, without supervising the child.

    Prefer :func:`nurseryio.run_process`, which ends the child when its task is cancelled. Use this
    function for children that are to outlive the program, or need other care.

    Args:
        command: The program and its arguments, each a string, bytes or path. With ``shell=True``
            one string that the shell parses. On Windows both forms are always allowed.
        stdin: The child's input: ``subprocess.PIPE`` for a stream (``process.stdin``),
            ``subprocess.DEVNULL``, a file descriptor, an object with a ``fileno()`` method, or
            None for the standard input of this program. A pipe or socket of this library, such as
            the ``stdout`` of another child, is handed on to the child. It is put into blocking
            mode, which programs expect, and is closed here once the child has started.
        stdout: The destination of the child's output, given in the same way.
        stderr: The destination of the child's error output, given in the same way; or
            ``subprocess.STDOUT`` for the same destination as ``stdout``.
        **options: Any other option of :class:`subprocess.Popen`, except those that turn bytes
            into text or set buffers. ``process_group`` needs Python 3.11 or later.

    Returns:
        The process, running.

    Raises:
        Cancelled: The call was cancelled before the child was started.
        OSError: The child cannot be started, for example because there is no such program.
        BusyResourceError: A task is using a stream that is to be handed on.
        ClosedResourceError: A stream that is to be handed on is closed.
        TypeError: On Unix, ``command`` is a string without ``shell=True``, or is not a string
            with it; or an option is unknown, or is not for streams of bytes.
        ValueError: ``command`` is empty, on Unix.
        NotImplementedError: ``PIPE`` on Windows, or on a loop that cannot watch descriptors.

    Checkpoint: yes.

    Trio: ``trio.lowlevel.open_process``.
    """
    return await start_process(command, stdin, stdout, stderr, dict(options))


async def start_process(
    command: Command, stdin: Any, stdout: Any, stderr: Any, options: dict[str, Any]
) -> Process:
    """:func:`open_process` with arguments of any type, which it checks."""
    for name in _NOT_FOR_BYTE_STREAMS:
        if options.get(name):
            raise TypeError(
                "nurseryio.Process only supports communicating over unbuffered byte streams; "
                f"the {name!r} option is not supported"
            )
    if options.get("process_group") is not None and sys.version_info < (3, 11):
        raise TypeError(
            "the 'process_group' option is there from Python 3.11 on; start_new_session=True also "
            "puts the child into a process group of its own"
        )
    if isinstance(command, Iterator):
        command = list(command)  # used twice: by the child, and as Process.args
    _check_command(command, options.get("shell"))
    if not _HAS_PIPES and subprocess.PIPE in (stdin, stdout, stderr):
        raise NotImplementedError(
            "pipes to child processes are not available on this system: pass files or "
            "subprocess.DEVNULL for stdin, stdout and stderr"
        )
    if subprocess.PIPE in (stdin, stdout, stderr):
        check_can_watch("pipes to child processes")
    our_stdin = our_stdout = our_stderr = None
    pipes = _Pipes()
    with pipes.handed_on, pipes.childs, pipes.ours:
        stdin, stdout, stderr = map(pipes.given, (stdin, stdout, stderr))
        if stdin == subprocess.PIPE:
            our_stdin, stdin = pipes.to_child()
        if stdout == subprocess.PIPE:
            our_stdout, stdout = pipes.from_child()
        if stderr == subprocess.PIPE:
            our_stderr, stderr = pipes.from_child()
        elif stderr == subprocess.STDOUT and stdout is not None:
            # The destination of stdout, in the form for Popen. If it is None, Popen handles STDOUT.
            stderr = stdout
        popen = await to_thread_run_sync(
            partial(
                subprocess.Popen, command, stdin=stdin, stdout=stdout, stderr=stderr, **options
            ),
            thread_name="starts a process",
        )
        pipes.ours.pop_all()
    return Process._create(popen, our_stdin, our_stdout, our_stderr, _group(popen.pid, options))


def _group(pid: int, options: dict[str, Any]) -> int | None:
    """The id of the process group that a child was put into; None if it is in this program's."""
    if options.get("start_new_session"):
        return pid
    group: int | None = options.get("process_group")
    return pid if group == 0 else group
