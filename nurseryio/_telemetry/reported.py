"""The tasks that instruments report, and the errors that end them.

Rule: reading the error of a task does not count as retrieving it. So asyncio still reports an error
that no code has retrieved.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .._asyncio import display
from .._base.errors import Cancelled
from .._base.exc_fields import class_name, is_a
from .._base.exception_groups import leaves

if TYPE_CHECKING:
    from .._core.task import Task

_ROOM_OF_RUN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_run", "")


def is_of_run(task: Task) -> bool:
    """Whether ``run()`` has made the task for itself. Such tasks are not reported."""
    code = getattr(task.coro, "cr_code", None)
    return (
        task._parent_nursery is None
        and task._state.run is not None
        and code is not None
        and code.co_filename.startswith(_ROOM_OF_RUN)
    )


def error_of(task: Task) -> BaseException | None:
    """The error of a task that has ended. To be called in a ``task_exited`` hook only."""
    if task._parent_nursery is None:
        return display.error_of(task.asyncio_task)
    run = task._state.run
    if run is not None and task is run.main_task:
        return run.main_error
    hooks = task._state.step_hooks
    return None if hooks is None else hooks.exit_error


def is_cancellation(error: BaseException) -> bool:
    """Whether an error is nothing but cancellations."""
    return all(is_a(leaf, Cancelled) for leaf in leaves(error))


def error_line(error: BaseException) -> str:
    """The class of an error and its text, as in the last line of a traceback."""
    name = class_name(type(error))
    try:
        text = str(error)
    except Exception:  # of the error's __str__
        text = ""
    return f"{name}: {text}" if text else name
