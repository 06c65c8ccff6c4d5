"""Cancel scopes, timeouts and nurseries: how they are entered and left."""

from __future__ import annotations

from .nursery import Nursery as Nursery, open_nursery as open_nursery
from .scope import CancelScope as CancelScope
from .task_status import TASK_STATUS_IGNORED as TASK_STATUS_IGNORED, TaskStatus as TaskStatus
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
