"""The engine. Inside, each module imports only those before it; see the architecture page."""

from __future__ import annotations

from .delivery import Abort as Abort
from .ki import (
    currently_ki_protected as currently_ki_protected,
    disable_ki_protection as disable_ki_protection,
    enable_ki_protection as enable_ki_protection,
)
from .nursery import Nursery as Nursery, open_nursery as open_nursery
from .scope import (
    CancelScope as CancelScope,
)
from .status import TASK_STATUS_IGNORED as TASK_STATUS_IGNORED, TaskStatus as TaskStatus
from .task import Task as Task, current_task as current_task
from .timeouts import (
    current_effective_deadline as current_effective_deadline,
    current_time as current_time,
    fail_after as fail_after,
    fail_at as fail_at,
    move_on_after as move_on_after,
    move_on_at as move_on_at,
    sleep as sleep,
    sleep_forever as sleep_forever,
    sleep_until as sleep_until,
)
from .traps import (
    cancel_shielded_checkpoint as cancel_shielded_checkpoint,
    checkpoint as checkpoint,
    checkpoint_if_cancelled as checkpoint_if_cancelled,
    reschedule as reschedule,
    wait_future as wait_future,
    wait_task_rescheduled as wait_task_rescheduled,
)
