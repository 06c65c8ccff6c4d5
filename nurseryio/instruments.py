"""Looking at a running program: its task tree, why a block does not end, traces.

``Tracer`` is an instrument, for ``run(instruments=...)`` and ``lowlevel.add_instrument``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base.lazy_exports import lazy_exports
from ._observe.tracer import Tracer as Tracer

if TYPE_CHECKING:
    from ._observe.dump import dump_on_signal as dump_on_signal
    from ._observe.explain import (
        Blocker as Blocker,
        Explanation as Explanation,
        explain as explain,
    )
    from ._observe.places import Place as Place
    from ._observe.task_tree import task_tree as task_tree
    from ._observe.tree_data import (
        ScopeInfo as ScopeInfo,
        TaskInfo as TaskInfo,
        TaskTree as TaskTree,
    )
    from ._observe.wait_parts import Wait as Wait
    from ._telemetry.monitor import Monitor as Monitor, serve_monitor as serve_monitor
    from ._telemetry.otel import OpenTelemetry as OpenTelemetry
    from ._telemetry.timeline import write_timeline as write_timeline
    from ._telemetry.trace_file import TraceFile as TraceFile
    from ._telemetry.watchdog import Watchdog as Watchdog

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(
        globals(),
        {
            "_observe.dump": "dump_on_signal",
            "_observe.explain": "Blocker Explanation explain",
            "_telemetry.monitor": "Monitor serve_monitor",
            "_telemetry.otel": "OpenTelemetry",
            "_observe.places": "Place",
            "_observe.task_tree": "task_tree",
            "_telemetry.timeline": "write_timeline",
            "_telemetry.trace_file": "TraceFile",
            "_observe.tree_data": "ScopeInfo TaskInfo TaskTree",
            "_observe.wait_parts": "Wait",
            "_telemetry.watchdog": "Watchdog",
        },
    )
