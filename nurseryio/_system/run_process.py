"""Running a child process under supervision: :func:`run_process`.

Ours, not anyio's: anyio's has neither ``deliver_cancel`` nor a form for ``nursery.start``, and it
kills at once.

Rule 1: when ``run_process`` ends, however it ends, the child has exited and is reaped, and the
pipes for given input and captured output are closed. What the caller has asked for by ``PIPE`` is
the caller's to close: there may be something left to read. The exception is a child that survives
SIGKILL: it is left behind, with a warning.

Rule 2: ending the child is the work of two shielded tasks of their own, one that asks it to go and
one that waits until it has. A second cancellation, native ones included, does not reach them.

Rule 3: after the child has exited, the end of its process group is looked for at growing intervals,
for its time of grace at most. No system tells when a group is empty.
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

# What is called otherwise in ``subprocess.run``.
_INSTEAD = {
    "input": "give the bytes as stdin",
    "capture_output": "say capture_stdout=True, capture_stderr=True",
    "timeout": "put 'with nurseryio.fail_after(seconds):' around the call",
}

# How long (seconds) a child has between SIGTERM and SIGKILL.
GRACE_SECONDS = 5.0

# How long (seconds) the end of a child is waited for when no more can be done.
KILLED_SECONDS = 5.0

# Seconds between the first two looks at a process group; then twice as many, up to the second.
GROUP_LOOK = 0.01
MOST_GROUP_LOOK = 0.3


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

    Called directly, it is like a function call: it returns what the child returned. Started by
    ``process = await nursery.start(run_process, ...)``, the child runs in the background and the
    :class:`Process` is there to talk to it. Either way the child is ended if the task is
    cancelled, and has exited when this function ends.

    **Input** is empty unless given, so that a child that unexpectedly asks a question gets an end
    of file. **Output** goes where this program's goes; ``capture_stdout`` and ``capture_stderr``
    collect it in memory instead, and ``capture_stdout=True, stderr=subprocess.STDOUT`` collects
    both in the order in which they were written. With ``nursery.start`` you may also pass
    ``subprocess.PIPE`` and read and write ``process.stdout`` and the others yourself. They stay
    open until you close them, or forget them.

    **Cancellation** asks the child to end, then waits until it has. It asks by ``SIGTERM``, and 5
    seconds later by ``SIGKILL``, with a ``RuntimeWarning`` (on Windows by ``TerminateProcess``).
    ``deliver_cancel`` may do something else; it is cancelled when the child has exited, and if it
    fails the child is killed. A child that is still there 5 seconds after ``SIGKILL``, because the
    system does not let it go or does not let us end it, is left behind, with a ``RuntimeWarning``.

    Children of the child are not touched, unless it has a process group of its own and
    ``deliver_cancel`` is :func:`nurseryio.terminate_process_group`::

        await run_process(command, process_group=0, deliver_cancel=terminate_process_group)

    Args:
        command: The program and its arguments, each a string, bytes or path; or with
            ``shell=True`` one string for the shell.
        stdin: The bytes, or any other buffer, that the child gets as input; or as for
            :func:`nurseryio.lowlevel.open_process`; None means the input of this program.
        capture_stdout: Whether to collect the child's output.
        capture_stderr: Whether to collect the child's error output.
        check: Whether an exit status other than 0 raises an error.
        deliver_cancel: Async function that is given the process and makes it end.
        task_status: Set by ``nursery.start``.
        **options: Options of :class:`subprocess.Popen`, ``stdout`` and ``stderr`` included.

    Returns:
        ``args``, ``returncode``, and ``stdout`` and ``stderr`` as far as they were captured.

    Raises:
        Cancelled: The call was cancelled; the child has exited.
        subprocess.CalledProcessError: The child's exit status is not 0, and ``check`` is true. It
            has what was captured. A status that nobody can know any more is 255, see
            :attr:`Process.returncode`.
        OSError: The child cannot be started.
        UnicodeError: ``stdin`` is a string.
        ValueError: ``PIPE`` is asked for without ``nursery.start``, or a stream is given two
            destinations, or ``command`` is empty, or a process group is to be terminated and the
            child has none of its own.
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
    # Not in the nursery: what goes wrong here should not come in a group.
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
            # Others of its process group may hold the pipes open.
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
    """The bytes for the child's input; None if something else was given.

    Raises:
        UnicodeError: It is text.
        TypeError: It is a buffer that is not contiguous.
    """
    if isinstance(stdin, str):
        raise UnicodeError("process stdin must be bytes, not str; encode it first")
    if stdin is None or isinstance(stdin, int) or hasattr(stdin, "fileno"):
        return None
    return bytes_view(stdin)


def _standard_streams(
    stdin: Any, capture_stdout: bool, capture_stderr: bool, options: dict[str, Any]
) -> dict[str, Any]:
    """The options for the child, with where its three standard streams go."""
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
            # A child may exit, or close its input, without having read it all.
    end.set()


async def _collect(stream: ReceiveStream, chunks: list[bytes], end: Event) -> None:
    async with stream:
        async for chunk in stream:
            chunks.append(bytes(chunk))
    end.set()


# -- when it must end -----------------------------------------------------------


def _make_end(process: Process, deliver_cancel: DeliverCancel, nursery: Nursery) -> None:
    """Have the nursery wait until the child has been made to exit."""
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
        # In a thread: the system goes by real time, whatever clock the tasks go by.
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
    """Ask the child to end, and insist."""
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
    # After the kill: this may be turned into an error.
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
    """End a child together with its children, and theirs: all of its process group.

    For ``run_process(..., process_group=0, deliver_cancel=terminate_process_group)``: the child
    gets a process group of its own, and its descendants belong to it too, unless they leave it.
    Each gets ``SIGTERM``, and whatever is left after the time of grace ``SIGKILL``. The child's own
    exit does not cut the time of the others short.

    On Windows, which has no such groups, the child alone is terminated.

    Args:
        process: The child, started with ``process_group`` or ``start_new_session=True``. (With
            another number than 0, ``process_group`` puts it into a group that is there already:
            all of that one is ended.)
        grace_seconds: How long the processes have to end by themselves. Use
            ``functools.partial`` to pass it.

    Raises:
        ValueError: The child is in the process group of this program.
        Cancelled: The call was cancelled. Once the first signal has been sent it is not.

    Checkpoint: yes.

    Trio: none.
    """
    if os.name != "posix":
        await _deliver_cancel(process)
        return
    group = process._group
    if group is None:
        raise ValueError(_NO_GROUP)
    try:
        os.killpg(group, signal.SIGTERM)
        # The exit of the child cancels us, but the others need their time.
        with CancelScope(shield=True):
            with move_on_after(grace_seconds):
                await process.wait()
                pause = GROUP_LOOK
                while _is_there(group):
                    await sleep(pause)
                    pause = min(2 * pause, MOST_GROUP_LOOK)
            process._killed = True
            os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nobody is left
    except OSError as error:
        _warn_of_failure(safe_repr(process), error)


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
    # In many containers there is nobody who reaps orphans: they stay in their group for ever.
    return not _is_of_zombies(group)


def _is_of_zombies(group: int) -> bool:
    """Whether all members of a process group have exited, as far as the system tells (Linux)."""
    try:
        pids = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return False
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # Behind the name of the program: state, parent, group.
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
