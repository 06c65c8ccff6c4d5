"""Cancel scopes, timeouts and nurseries: how they are entered and left.

``origins`` keeps which line has set a deadline, while that is wanted. ``scope`` has
``CancelScope``: its deadline, shield, ``cancel()``, and which errors it catches. ``task_exit`` does
the bookkeeping after a task's last step. ``child_notes`` writes the names of children into notes on
their errors. ``nursery_exit`` waits for the children, recognises a native cancel of the host task,
and decides which error or group the end of a nursery raises. ``task_status`` has ``started()``,
which moves a child of ``start()`` to its nursery. ``nursery`` has ``open_nursery()``,
``start_soon()``, ``start()``, and the wrapper around a child. ``timeouts`` has the clock,
``sleep()``, ``move_on_after()`` and the like. ``compiled`` puts C functions into their place.

Not here: how a cancellation reaches a task (``_core.delivery``), the heap of deadlines
(``_core.deadlines``), and operations on exception groups (``_base.exception_groups``).
"""

from __future__ import annotations

from .compiled import PURE_BECAUSE as PURE_BECAUSE, __compiled__ as __compiled__
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
