"""Running a child process under supervision: :func:`run_process`; ending a process group.

anyio's ``run_process`` is not used. It does not have ``deliver_cancel``, and cannot be started by
``nursery.start``. And it kills the child at once when it is cancelled.

Rule 1: when ``run_process`` ends, in any way, the child has exited and is reaped. The pipes for
given input and captured output are closed. Pipes that the caller has asked for by ``PIPE`` are for
the caller to close, because they may have data to read. There is one exception: a child that
survives SIGKILL is left behind, with a warning.

Rule 2: two separate tasks end the child. One asks it to exit, the other waits until it has. Both
are shielded, so a second cancellation, even a native one, does not reach them.

Rule 3: after the child has exited, :func:`terminate_process_group` polls the process group. It
does so at growing intervals, at most for the time of grace. The reason is that no operating system
reports when a group has become empty.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._base import BrokenResourceError, coroutine_or_error
from .._base.unsupported import needs
from .._base.util import bytes_view, reject_non_functions, safe_repr
from .._nursery import TASK_STATUS_IGNORED, CancelScope, move_on_after, open_nursery, sleep
from .._sync import Event
from .process import has_pipes, start_process
from .threads import to_thread_run_sync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from typing_extensions import Buffer, Unpack

    from .._base import ReceiveStream, SendStream
    from .._nursery import Nursery, TaskStatus
    from .process import Command, Process
    from .process_options import HasFileno, RunOptions

    Input: TypeAlias = bytes | bytearray | memoryview | Buffer | int | HasFileno | None
    DeliverCancel: TypeAlias = Callable[[Process], Awaitable[object]]

__all__ = ["run_process", "terminate_process_group"]

# Options of ``subprocess.run`` for which ``run_process`` has something else.
_INSTEAD = {
    "input": "give the bytes as stdin",
    "capture_output": "say capture_stdout=True, capture_stderr=True",
    "timeout": "put 'with nurseryio.fail_after(seconds):' around the call",
}

# The time of grace: how long (seconds) a child has between SIGTERM and SIGKILL.
GRACE_SECONDS = 5.0

# How long (seconds) to wait for the exit of a child once nothing more can be done to end it.
KILLED_SECONDS = 5.0

# Seconds between the first two polls of a process group. Each further pause is twice as long as
# the one before, up to MOST_GROUP_LOOK.
GROUP_LOOK = 0.01
MOST_GROUP_LOOK = 0.3


@needs("processes")
async def run_process(
    command: Command,
    *,
    stdin: Input = b"",
    capture_stdout: bool = False,
    capture_stderr: bool = False,
    check: bool = True,
    deliver_cancel: DeliverCancel | None = None,
    task_status: TaskStatus[Process] = TASK_STATUS_IGNORED,
    **options: Unpack[RunOptions],
) -> subprocess.CompletedProcess[bytes]:
    """Run a child process and wait until it has exited.

    Called directly, it returns the result of the child, like a function call. Started by
    ``process = await nursery.start(run_process, ...)``, it lets the child run in the background.
    Use the :class:`Process` to communicate with it. Either way the child is ended if the task is
    cancelled, and has exited when this function ends.

    **Input** is empty unless given, so that a child that unexpectedly asks a question gets an end
    of file. **Output** is written where this program's output is written. ``capture_stdout`` and
    ``capture_stderr`` collect it in memory instead. ``capture_stdout=True,
    stderr=subprocess.STDOUT`` collects both in the order in which they were written. With
    ``nursery.start`` you may also pass ``subprocess.PIPE``, and read and write ``process.stdout``
    and the other streams yourself. They stay open until you close them, or until they are garbage
    collected.

    **Cancellation** asks the child to exit, then waits until it has. It sends ``SIGTERM``, and 5
    seconds later ``SIGKILL``, with a ``RuntimeWarning``. (On Windows it calls
    ``TerminateProcess``.) ``deliver_cancel`` may do something else. It is cancelled when the child
    has exited, and if it fails the child is killed. The system may refuse to kill a child, or keep
    it alive. A child that has not exited 5 seconds after ``SIGKILL`` is left behind, with a
    ``RuntimeWarning``.

    Children of the child are not ended with it. To end them too, put the child into a new process
    group, and let ``deliver_cancel`` be :func:`nurseryio.terminate_process_group`::

        await run_process(command, process_group=0, deliver_cancel=terminate_process_group)

    Args:
        command: The program and its arguments, each a string, bytes or path; or with
            ``shell=True`` one string for the shell.
        stdin: The bytes, or any other buffer, that the child gets as input. Or a value as for
            :func:`nurseryio.lowlevel.open_process`; None stands for the input of this program.
        capture_stdout: Whether to collect the child's output.
        capture_stderr: Whether to collect the child's error output.
        check: Whether an exit status other than 0 raises an error.
        deliver_cancel: Async function that is called with the process and makes it exit.
        task_status: Set by ``nursery.start``.
        **options: Options of :class:`subprocess.Popen`, ``stdout`` and ``stderr`` included.

    Returns:
        A ``subprocess.CompletedProcess``: ``args``, ``returncode``, and ``stdout`` and ``stderr``
        if they were captured, else None.

    Raises:
        Cancelled: The call was cancelled; the child has exited.
        subprocess.CalledProcessError: The child's exit status is not 0, and ``check`` is true. It
            has the captured output. The status is 255 if it cannot be known any more, see
            :attr:`Process.returncode`.
        OSError: The child cannot be started.
        UnicodeError: ``stdin`` is a string.
        ValueError: ``PIPE`` is given without ``nursery.start``, or a stream is given two
            destinations, or ``command`` is empty. Or ``deliver_cancel`` is
            :func:`nurseryio.terminate_process_group` and no option puts the child into another
            process group.
        TypeError: See :func:`nurseryio.lowlevel.open_process`.
        NotImplementedError: A pipe is needed, on Windows or a loop that cannot watch descriptors.
        ExceptionGroup: An error in ``deliver_cancel``, or in reading from or writing to the
            child.

    Checkpoint: yes.

    Trio: ``trio.run_process``.
    """
    if deliver_cancel is not None:
        reject_non_functions((deliver_cancel,))
        _check_group(deliver_cancel, options)
    given = _data_of(stdin)
    where = stdin if given is None else subprocess.PIPE
    if given is not None and not given and not has_pipes():
        where = subprocess.DEVNULL
    streams = _standard_streams(where, capture_stdout, capture_stderr, dict(options))
    if task_status is TASK_STATUS_IGNORED:
        _refuse_pipes(stdin, options)
    output: list[bytes] = []
    error_output: list[bytes] = []
    # Not in the nursery, so that an error of this call is not raised in a group.
    process = await start_process(
        command,
        streams.pop("stdin"),
        streams.pop("stdout", None),
        streams.pop("stderr", None),
        streams,
    )
    ends: list[Event] = []
    async with open_nursery() as nursery:
        try:
            if given is not None and process.stdin is not None:
                nursery.start_soon(_feed, process.stdin, given, _one_more(ends))
                process.stdin = process.stdio = None
            if capture_stdout and process.stdout is not None:
                nursery.start_soon(_collect, process.stdout, output, _one_more(ends))
                process.stdout = process.stdio = None
            if capture_stderr and process.stderr is not None:
                nursery.start_soon(_collect, process.stderr, error_output, _one_more(ends))
                process.stderr = None
            task_status.started(process)
            await process.wait()
            # Other processes, such as children of the child, may hold the pipes open.
            for end in ends:
                await end.wait()
        except BaseException:
            _make_end(process, deliver_cancel or _deliver_cancel, nursery)
            raise
    stdout = b"".join(output) if capture_stdout else None
    stderr = b"".join(error_output) if capture_stderr else None
    status = process.returncode
    assert status is not None
    if check and status:
        raise subprocess.CalledProcessError(status, process.args, output=stdout, stderr=stderr)
    return subprocess.CompletedProcess(process.args, status, stdout, stderr)


def _data_of(stdin: Input) -> memoryview | None:
    """The bytes for the child's input; None if ``stdin`` is not bytes.

    Raises:
        UnicodeError: ``stdin`` is text.
        TypeError: ``stdin`` is a buffer that is not contiguous.
    """
    if isinstance(stdin, str):
        raise UnicodeError("process stdin must be bytes, not str")
    if stdin is None or isinstance(stdin, int) or hasattr(stdin, "fileno"):
        return None
    return bytes_view(stdin)


def _standard_streams(
    stdin: Any, capture_stdout: bool, capture_stderr: bool, options: dict[str, Any]
) -> dict[str, Any]:
    """The options for the child, with the destinations of its three standard streams."""
    for name in _INSTEAD.keys() & options.keys():
        raise TypeError(f"run_process() has no option {name!r}: {_INSTEAD[name]}")
    options["stdin"] = stdin
    for name, capture in (("stdout", capture_stdout), ("stderr", capture_stderr)):
        if capture:
            if name in options:
                raise ValueError(f"can't specify both {name} and capture_{name}")
            options[name] = subprocess.PIPE
    return options


def _refuse_pipes(stdin: Input, options: Any) -> None:
    for name, where in (
        ("stdin", stdin),
        ("stdout", options.get("stdout")),
        ("stderr", options.get("stderr")),
    ):
        if isinstance(where, int) and where == subprocess.PIPE:
            raise ValueError(
                f"{name}=subprocess.PIPE is only valid with nursery.start, "
                "since that's the only way to access the pipe"
                + (
                    "; use nursery.start or pass the data you want to write directly"
                    if name == "stdin"
                    else ""
                )
            )


# -- while it runs --------------------------------------------------------------


def _one_more(ends: list[Event]) -> Event:
    ends.append(Event())
    return ends[-1]


async def _feed(stream: SendStream, data: memoryview, end: Event) -> None:
    async with stream:
        try:
            await stream.send_all(data)
        except BrokenResourceError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno not in (errno.EPIPE, errno.ECONNRESET):
                raise
            # A child may exit, or close its input, before it has read all of it.
    end.set()


async def _collect(stream: ReceiveStream, chunks: list[bytes], end: Event) -> None:
    async with stream:
        async for chunk in stream:
            chunks.append(bytes(chunk))
    end.set()


# -- when it must end -----------------------------------------------------------


def _make_end(process: Process, deliver_cancel: DeliverCancel, nursery: Nursery) -> None:
    """Start the two tasks that end the child or its group. The nursery waits for both."""
    if process.returncode is not None and not _is_for_groups(deliver_cancel):
        return
    asking = CancelScope(shield=True)
    waiting = CancelScope(shield=True)
    exited = threading.Event()

    async def ask() -> None:
        try:
            with asking:
                await coroutine_or_error(deliver_cancel, process)
        except BaseException:
            with suppress(OSError):
                process.kill()
            raise
        finally:
            no_more = process._killed or deliver_cancel is _deliver_cancel
            if no_more and process.returncode is None:
                nursery.start_soon(limit)

    async def limit() -> None:
        # In a thread: the system needs real time, and the tasks may have another clock.
        with CancelScope(shield=True):
            if not await to_thread_run_sync(exited.wait, KILLED_SECONDS):
                waiting.cancel(reason="the process cannot be ended")

    async def wait() -> None:
        try:
            with waiting:
                await process.wait()
        finally:
            exited.set()
        asking.cancel(reason="the process has exited")
        if waiting.cancelled_caught:
            warnings.warn(
                f"{safe_repr(process)} cannot be ended and is left behind",
                RuntimeWarning,
                stacklevel=1,
            )

    nursery.start_soon(ask, name=deliver_cancel)
    nursery.start_soon(wait, name=process.wait)


async def _deliver_cancel(process: Process) -> None:
    """Ask the child to exit, and kill it if it has not exited after the time of grace."""
    ignored = False
    shown = safe_repr(process)
    try:
        process.terminate()
        if os.name == "posix":
            await sleep(GRACE_SECONDS)
            ignored = True
            process.kill()
    except OSError as error:
        _warn_of_failure(shown, error)
    # After the kill, because a filter may turn this warning into an error.
    if ignored:
        warnings.warn(
            f"process {shown} ignored SIGTERM for {GRACE_SECONDS:g} seconds and got SIGKILL; "
            "pass deliver_cancel to end it in another way",
            RuntimeWarning,
            stacklevel=1,
        )


def _warn_of_failure(shown: str, error: OSError) -> None:
    warnings.warn(f"tried to end {shown}, but failed with: {error!r}", RuntimeWarning, stacklevel=1)


# -- process groups -------------------------------------------------------------


async def terminate_process_group(
    process: Process, *, grace_seconds: float = GRACE_SECONDS
) -> None:
    """End a child together with its descendants: all processes of its process group.

    Use it in ``run_process(..., process_group=0, deliver_cancel=terminate_process_group)``. Then
    the child gets a new process group. Its descendants belong to that group too, unless they leave
    it. Each process gets ``SIGTERM``. Processes that are left after the time of grace get
    ``SIGKILL``. If the child itself exits, the others still have the full time.

    Windows does not have such groups. There only the child is terminated.

    Args:
        process: The child, started with ``process_group`` or ``start_new_session=True``. (A
            ``process_group`` other than 0 is an existing group. The child is put into it, and all
            of that group is ended.)
        grace_seconds: The time of grace in seconds, between ``SIGTERM`` and ``SIGKILL``. Use
            ``functools.partial`` to pass it.

    Raises:
        ValueError: The child is in the process group of this program.
        Cancelled: The call was cancelled before it sent the first signal. After that it is
            shielded.
        asyncio.CancelledError: The task was cancelled natively in the time of grace. That ends it:
            the processes that are left get ``SIGKILL`` at once.

    Checkpoint: yes.

    Trio: none.
    """
    if os.name != "posix":
        await _deliver_cancel(process)
        return
    group = process._group
    if group is None:
        raise ValueError(_NO_GROUP)
    if _signal_group(process, group, signal.SIGTERM):
        try:
            # The exit of the child cancels this call, but the other processes need their time.
            with CancelScope(shield=True), move_on_after(grace_seconds):
                await process.wait()
                pause = GROUP_LOOK
                while _is_there(group):
                    await sleep(pause)
                    pause = min(2 * pause, MOST_GROUP_LOOK)
        finally:
            process._killed = True
            _signal_group(process, group, signal.SIGKILL)


def _signal_group(process: Process, group: int, sig: int) -> bool:
    """Send a signal to a process group. Returns whether any process has got it."""
    try:
        os.killpg(group, sig)
    except ProcessLookupError:
        return False  # no process is left
    except OSError as error:
        _warn_of_failure(safe_repr(process), error)
        return False
    return True


_NO_GROUP = (
    "terminate_process_group() would end this program too: give the child a process group of its "
    "own by process_group=0 (or start_new_session=True)"
)


def _is_there(group: int) -> bool:
    """Whether a process group has members that have not exited."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    # Many containers have no process that reaps orphans: they stay in their group for ever.
    return not _is_of_zombies(group)


def _is_of_zombies(group: int) -> bool:
    """Whether all members of a process group have exited. False if the system does not show it.

    Only Linux shows it, in ``/proc``.
    """
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return False
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # After the name of the program: state, parent, group.
                state, _parent, its_group = file.read().rpartition(b")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just been reaped
        except (OSError, ValueError):
            return False
        if int(its_group) == group and state not in b"ZX":
            return False
    return bool(pids)


def _is_for_groups(deliver_cancel: object) -> bool:
    return getattr(deliver_cancel, "func", deliver_cancel) is terminate_process_group


def _check_group(deliver_cancel: object, options: Any) -> None:
    has_group = options.get("start_new_session") or options.get("process_group") is not None
    if _is_for_groups(deliver_cancel) and not has_group and os.name == "posix":
        raise ValueError(_NO_GROUP)
