"""Cancel scopes, timeouts and nurseries: how they are entered and left.

``origins``: which line has set a deadline, while that is wanted. ``stop_requests``: asking the code
in a scope to stop. ``scope``: ``CancelScope``, its deadline, shield, ``cancel()``, and which errors
it catches. ``task_exit``: bookkeeping after a task's last step. ``child_notes``: names of children
in notes on their errors. ``nursery_exit``: waiting for the children, native cancels of the host
task, and the error or group that the end of a nursery raises. ``task_status``: ``started()``, which
moves a child of ``start()``. ``nursery``: ``open_nursery()``, ``start_soon()``, ``start()``, the
wrapper around a child. ``timeouts``: the clock, ``sleep()``, ``move_on_after()`` and the like.
``stopping``: how code notices a stop request. ``services``: ``open_service_nursery()``.
``compiled`` puts C functions into their place. Deliveries and deadlines are in ``_core``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .compiled import PURE_BECAUSE as PURE_BECAUSE, __compiled__ as __compiled__
from .nursery import Nursery as Nursery, open_nursery as open_nursery
from .scope import CancelScope as CancelScope
from .stopping import (
    move_on_at_stop as move_on_at_stop,
    stop_requested as stop_requested,
    wait_stop_requested as wait_stop_requested,
)
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

# For type checkers only: not every program needs these, so they are loaded on first use.
if TYPE_CHECKING:
    from .services import (
        ServiceNursery as ServiceNursery,
        open_service_nursery as open_service_nursery,
    )
