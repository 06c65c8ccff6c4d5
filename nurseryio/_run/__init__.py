"""``run``, and what belongs to a whole run: Ctrl-C, its end, system tasks, tokens."""

from __future__ import annotations

from .introspection import (
    IOStatistics as IOStatistics,
    RunStatistics as RunStatistics,
    current_statistics as current_statistics,
    in_trio_run as in_trio_run,
    in_trio_task as in_trio_task,
)
from .run import current_root_task as current_root_task, run as run
from .runvar import RunVar as RunVar, RunVarToken as RunVarToken
from .system_tasks import spawn_system_task as spawn_system_task
from .token import LoopToken as LoopToken, current_trio_token as current_trio_token

TrioToken = LoopToken
