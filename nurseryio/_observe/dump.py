"""``dump_on_signal()``: a signal writes the task trees of the process to a file.

Rule 1: the handler is one of ``signal.signal``, so Python calls it between two instructions of
whatever the main thread does. A loop's own handlers are called only by a loop that is not blocked.

Rule 2: the text is written to the descriptor at once. The signal may have interrupted code that
writes to the same file object, and that object would refuse a second writer.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from .._asyncio.compat import running_loop_or_none
from .._asyncio.interpreter import SIGNAL_HANDLERS
from .._base.unsupported import needs
from .task_tree import draw, running_loops, seen_from_here

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import TextIO

    from .._asyncio.compat import Loop
    from .tree_data import TaskTree


@needs("observers")
def dump_on_signal(signum: int | None = None, file: TextIO | None = None) -> Callable[[], None]:
    """Have a signal write the task trees of this process to a file: ``kill -USR1 PID``.

    Written is the tree of each loop that runs, as :func:`task_tree` draws it. If
    the main thread's loop is blocked, its tree begins with the stack of the step. The program goes
    on. This works on every loop, in ``asyncio.run`` and under servers that own the loop; also in
    forked children of the process.

    Args:
        signum: The signal; default ``signal.SIGUSR1``. Another handler of it is replaced.
        file: The file to write to; default: ``sys.stderr`` at the time of the signal.

    Returns:
        A function that restores the handler from before.

    Raises:
        ValueError: this is not the main thread of the main interpreter, or there is no such signal.
        OSError: the signal cannot be caught.
        NotImplementedError: the platform is a web page.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    if signum is None:
        signum = getattr(signal, "SIGUSR1", None)
        if signum is None:
            raise ValueError("this system has no SIGUSR1: give another signal, such as SIGBREAK")
    if not SIGNAL_HANDLERS:
        raise ValueError(
            "dump_on_signal() works in Python's main interpreter only: in this one, print "
            "task_tree() when it receives a message through a queue"
        )
    if threading.current_thread() is not threading.main_thread():
        raise ValueError("only the main thread can set signal handlers: call this there")

    def handle(_signum: int, frame: FrameType | None) -> None:
        # An error would be raised in the line of the program that the signal has interrupted.
        with suppress(Exception):
            try:
                _write(trees(frame), file)
            except Exception:
                traceback.print_exc()

    before = signal.signal(signum, handle)

    def restore() -> None:
        if signal.getsignal(signum) is handle:
            signal.signal(signum, signal.SIG_DFL if before is None else before)

    return restore


def all_trees(frame: FrameType | None) -> dict[Loop, TaskTree]:
    """The trees of all loops that run in this process.

    Args:
        frame: The frame of this thread that was interrupted.
    """
    here = running_loop_or_none()
    return {loop: seen_from_here(loop, frame if loop is here else None) for loop in running_loops()}


def trees(frame: FrameType | None) -> str:
    """The drawings of :func:`all_trees`."""
    return as_text(all_trees(frame))


def as_text(found: dict[Loop, TaskTree]) -> str:
    """The drawings of some trees, each with its loop."""
    count = f"{len(found)} running loop{'' if len(found) == 1 else 's'}"
    lines = [f"process {os.getpid()}: {count}"]
    for tree in found.values():
        lines += [f"--- {tree.loop}", draw(tree)]
    return "\n".join([*lines, ""])


def _write(text: str, file: TextIO | None) -> None:
    target = sys.stderr if file is None else file
    if target is None:  # a program without a console
        return
    try:
        descriptor = target.fileno()
    except (AttributeError, OSError, ValueError):
        target.write(text)
        return
    data = text.encode("utf-8", "backslashreplace")
    while data:
        data = data[os.write(descriptor, data) :]
