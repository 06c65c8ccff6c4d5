"""Running a child process under supervision: :func:`run_process`.

Ours, not anyio's: anyio's has neither ``deliver_cancel`` nor a form for ``nursery.start``, and it
kills at once.

Rule 1: when ``run_process`` ends, however it ends, the child has exited and is reaped, and the
pipes for given input and captured output are closed. What the caller has asked for by ``PIPE`` is
the caller's to close: there may be something left to read.

Rule 2: ending the child is the work of two shielded tasks of their own, one that asks it to go and
one that waits until it has. A second cancellation, native ones included, does not reach them.
"""

from __future__ import annotations

import os
import subprocess
import warnings
from typing import TYPE_CHECKING, Any

from .._core import (
    TASK_STATUS_IGNORED,
    BrokenResourceError,
    CancelScope,
    coroutine_or_error,
    open_nursery,
    sleep,
)
from .._core.util import reject_non_functions, safe_repr
from .process import has_pipes, start_process

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from typing_extensions import Unpack

    from .._core import Nursery, ReceiveStream, SendStream, TaskStatus
    from .process import Command, Process
    from .process_options import HasFileno, RunOptions

    Input: TypeAlias = bytes | bytearray | memoryview | int | HasFileno | None
    DeliverCancel: TypeAlias = Callable[[Process], Awaitable[object]]

__all__ = ["run_process"]

# What is called otherwise in ``subprocess.run``.
_INSTEAD = {
    "input": "give the bytes as stdin",
    "capture_output": "say capture_stdout=True, capture_stderr=True",
    "timeout": "put 'with nurseryio.fail_after(seconds):' around the call",
}

# How long (seconds) a child has between SIGTERM and SIGKILL.
GRACE_SECONDS = 5.0


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
    ``deliver_cancel`` may do something else; it is cancelled when the child has exited. Children
    of the child are not touched.

    Args:
        command: The program and its arguments, each a string, bytes or path; or with
            ``shell=True`` one string for the shell.
        stdin: The bytes that the child gets as input, or as for
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
            has what was captured.
        OSError: The child cannot be started.
        UnicodeError: ``stdin`` is a string.
        ValueError: ``PIPE`` is asked for without ``nursery.start``, or a stream is given two
            destinations, or ``command`` is empty.
        TypeError: See :func:`nurseryio.lowlevel.open_process`.
        NotImplementedError: A pipe is needed, on Windows.
        ExceptionGroup: An error in ``deliver_cancel``, or in reading from or writing to the
            child.

    Checkpoint: yes.

    Trio: ``trio.run_process``.
    """
    if deliver_cancel is not None:
        reject_non_functions((deliver_cancel,))
    streams = _standard_streams(stdin, capture_stdout, capture_stderr, dict(options))
    if task_status is TASK_STATUS_IGNORED:
        _refuse_pipes(stdin, options)
    given = stdin if isinstance(stdin, (bytes, bytearray, memoryview)) else None
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
    async with open_nursery() as nursery:
        try:
            if given is not None and process.stdin is not None:
                nursery.start_soon(_feed, process.stdin, given)
                process.stdin = process.stdio = None
            if capture_stdout and process.stdout is not None:
                nursery.start_soon(_collect, process.stdout, output)
                process.stdout = process.stdio = None
            if capture_stderr and process.stderr is not None:
                nursery.start_soon(_collect, process.stderr, error_output)
                process.stderr = None
            task_status.started(process)
            await process.wait()
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


def _standard_streams(
    stdin: Input, capture_stdout: bool, capture_stderr: bool, options: dict[str, Any]
) -> dict[str, Any]:
    """The options for the child, with where its three standard streams go."""
    for name in _INSTEAD.keys() & options.keys():
        raise TypeError(f"run_process() has no option {name!r}: {_INSTEAD[name]}")
    if isinstance(stdin, str):
        raise UnicodeError("process stdin must be bytes, not str; encode it first")
    is_data = isinstance(stdin, (bytes, bytearray, memoryview))
    options["stdin"] = subprocess.PIPE if is_data else stdin
    if is_data and not len(stdin) and not has_pipes():  # type: ignore[arg-type]
        options["stdin"] = subprocess.DEVNULL
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


async def _feed(stream: SendStream, data: bytes | bytearray | memoryview) -> None:
    async with stream:
        try:
            await stream.send_all(data)
        except BrokenResourceError:
            pass  # a child may exit, or close its input, without having read it all


async def _collect(stream: ReceiveStream, chunks: list[bytes]) -> None:
    async with stream:
        async for chunk in stream:
            chunks.append(bytes(chunk))


# -- when it must end -----------------------------------------------------------


def _make_end(process: Process, deliver_cancel: DeliverCancel, nursery: Nursery) -> None:
    """Have the nursery wait until the child has been made to exit."""
    if process.returncode is not None:
        return
    asking = CancelScope(shield=True)

    async def ask() -> None:
        with asking:
            await coroutine_or_error(deliver_cancel, process)

    async def wait() -> None:
        with CancelScope(shield=True):
            await process.wait()
        asking.cancel(reason="the process has exited")

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
        warnings.warn(
            f"tried to end {shown}, but failed with: {error!r}",
            RuntimeWarning,
            stacklevel=1,
        )
    # After the kill: this may be turned into an error.
    if ignored:
        warnings.warn(
            f"process {shown} ignored SIGTERM for {GRACE_SECONDS:g} seconds and got SIGKILL; "
            "pass deliver_cancel to end it in another way",
            RuntimeWarning,
            stacklevel=1,
        )
