"""Low-level tools for libraries: checkpoints, tasks, parking lots, tokens, waiting for descriptors.

Trio: ``trio.lowlevel``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base.lazy_exports import exports
from ._base.thread_cache import start_thread_soon as start_thread_soon
from ._base.unsupported import (
    permanently_detach_coroutine_object as permanently_detach_coroutine_object,
    reattach_detached_coroutine_object as reattach_detached_coroutine_object,
    start_guest_run as start_guest_run,
    temporarily_detach_coroutine_object as temporarily_detach_coroutine_object,
)
from ._core import (
    Abort as Abort,
    Task as Task,
    cancel_shielded_checkpoint as cancel_shielded_checkpoint,
    checkpoint as checkpoint,
    checkpoint_if_cancelled as checkpoint_if_cancelled,
    current_task as current_task,
    currently_ki_protected as currently_ki_protected,
    disable_ki_protection as disable_ki_protection,
    enable_ki_protection as enable_ki_protection,
    reschedule as reschedule,
    wait_task_rescheduled as wait_task_rescheduled,
)
from ._core.traps import RaiseCancelT as RaiseCancelT
from ._loop.selector_idle import current_clock as current_clock
from ._loop.step_hooks import (
    add_instrument as add_instrument,
    remove_instrument as remove_instrument,
)
from ._loop.wait_io import (
    notify_closing as notify_closing,
    wait_readable as wait_readable,
    wait_writable as wait_writable,
)
from ._net.fd_stream import FdStream as FdStream
from ._resolver.hostname import encode_hostname as encode_hostname
from ._run.introspection import (
    RunStatistics as RunStatistics,
    current_statistics as current_statistics,
    in_trio_run as in_trio_run,
    in_trio_task as in_trio_task,
)
from ._run.run import current_root_task as current_root_task
from ._run.runvar import RunVar as RunVar, RunVarToken as RunVarToken
from ._run.system_tasks import spawn_system_task as spawn_system_task
from ._run.token import (
    LoopToken as LoopToken,
    TrioToken as TrioToken,
    current_trio_token as current_trio_token,
)
from ._sync import (
    ParkingLot as ParkingLot,
    ParkingLotStatistics as ParkingLotStatistics,
    add_parking_lot_breaker as add_parking_lot_breaker,
    remove_parking_lot_breaker as remove_parking_lot_breaker,
)
from ._sync.unbounded_queue import (
    UnboundedQueue as UnboundedQueue,
    UnboundedQueueStatistics as UnboundedQueueStatistics,
)
from ._system.process import open_process as open_process

if not TYPE_CHECKING:
    # Nothing is loaded on first use, because checkpoints are read from here in the hottest loops:
    # see ``lazy_exports``.
    __dir__ = exports(globals())
