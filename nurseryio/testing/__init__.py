"""For tests: a virtual clock, checks of checkpoints and streams, streams in memory, test cases.

Rarely used names are loaded on first use; pytest loads the plugin. The checks are in ``_checks``.

``deadlock``: the error when nothing can wake a task. ``clock``: virtual time, and its jumps.
``byte_queues``: the buffers of ``memory_streams`` and ``lockstep_streams``, which are streams in
memory.
``time_limit``: the signal of pytest-timeout. ``step_runner``: async functions as steps of one task.
``thread_limit``: the thread of pytest-timeout. ``plain_test``: ``nurseryio_test``, ``Runner``.
``unit_test``: ``AsyncTestCase``. ``raises_group``: pytest's helpers under Trio's names.
``pytest_shared``: wide async fixtures. ``pytest_task``: the steps of a test and their errors.
``pytest_plugin``: pytest's hooks, and fixtures such as ``autojump_clock``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._base.lazy_exports import lazy_exports
from .._checks.checkpoints import (
    assert_checkpoints as assert_checkpoints,
    assert_no_checkpoints as assert_no_checkpoints,
)
from .._checks.network import open_stream_to_socket_listener as open_stream_to_socket_listener
from .._checks.sequencer import Sequencer as Sequencer
from .._checks.streams import (
    check_half_closeable_stream as check_half_closeable_stream,
    check_one_way_stream as check_one_way_stream,
    check_two_way_stream as check_two_way_stream,
)
from .._loop.selector_idle import wait_all_tasks_blocked as wait_all_tasks_blocked
from .clock import MockClock as MockClock
from .deadlock import DeadlockError as DeadlockError, task_tree as task_tree
from .lockstep_streams import (
    lockstep_stream_one_way_pair as lockstep_stream_one_way_pair,
    lockstep_stream_pair as lockstep_stream_pair,
)
from .memory_streams import (
    MemoryReceiveStream as MemoryReceiveStream,
    MemorySendStream as MemorySendStream,
    memory_stream_one_way_pair as memory_stream_one_way_pair,
    memory_stream_pair as memory_stream_pair,
    memory_stream_pump as memory_stream_pump,
)
from .plain_test import Runner as Runner, nurseryio_test as nurseryio_test, trio_test as trio_test

if TYPE_CHECKING:
    from .._checks.schedules import (
        PlannedCancel as PlannedCancel,
        Schedule as Schedule,
        StuckError as StuckError,
        cancel_at_every_await as cancel_at_every_await,
        random_schedules as random_schedules,
    )
    from .._checks.task_order import TaskOrder as TaskOrder
    from .._system.threads import (
        active_thread_count as active_thread_count,
        wait_all_threads_completed as wait_all_threads_completed,
    )
    from .unit_test import AsyncTestCase as AsyncTestCase

if not TYPE_CHECKING:
    _load, __dir__ = lazy_exports(
        globals(),
        {
            "_system.threads": "active_thread_count wait_all_threads_completed",
            "_checks.schedules": (
                "PlannedCancel Schedule StuckError cancel_at_every_await random_schedules"
            ),
            "_checks.task_order": "TaskOrder",
            "testing.unit_test": "AsyncTestCase",
        },
    )

    def __getattr__(name: str) -> Any:
        # Not in __all__: a star import must neither load pytest nor warn.
        if name in ("Matcher", "RaisesGroup"):
            from .raises_group import of_pytest

            return of_pytest(name)
        return _load(name)
