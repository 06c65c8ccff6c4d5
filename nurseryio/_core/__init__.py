"""The engine: which code is cancelled, how a cancellation reaches a task, and how tasks wait.

``scope_tree``: the tree of scopes, and how a cancel or a shield spreads in it.
``deadlines``: the heap of deadlines, and how dropped ones are pruned.
``anyio_hook``: the slot for the bridge to anyio's scopes. ``task_extra``: rarely used task fields.
``loop_state``: data of one loop, its timer, retry of failed calls. ``task``: the record of a task.
``cancel_ledger``: which cancel requests belong to a scope, which are native (``task.cancel()``).
``swallowing``: where tasks swallow cancellations. ``delivery``: how a cancellation reaches a task.
``traps``: checkpoints, reschedule. ``wait_queue``: fast waiting for locks, channels and the like.
``ki``: where Ctrl-C may raise ``KeyboardInterrupt``.
Not here: cancel scopes and nurseries (``_nursery``), virtual time (``_loop``), the effect of Ctrl-C
on a run (``_run``), private parts of asyncio (``_asyncio``).
"""

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
