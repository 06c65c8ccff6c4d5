"""The engine. Inside, each module imports only those before it; see the architecture page."""

from __future__ import annotations

from .delivery import Abort as Abort
from .ki import (
    currently_ki_protected as currently_ki_protected,
    disable_ki_protection as disable_ki_protection,
    enable_ki_protection as enable_ki_protection,
)
from .task import Task as Task, current_task as current_task
from .traps import (
    cancel_shielded_checkpoint as cancel_shielded_checkpoint,
    checkpoint as checkpoint,
    checkpoint_if_cancelled as checkpoint_if_cancelled,
    reschedule as reschedule,
    wait_future as wait_future,
    wait_task_rescheduled as wait_task_rescheduled,
)
