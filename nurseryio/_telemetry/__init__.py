"""What a running program reports: warnings, traces, spans, and answers to other processes.

``backlog``: channels that are stuck. ``watchdog``: logs what stands still. ``reported``: which
tasks and errors the next ones report. ``trace_file``: a trace for Perfetto. ``timeline``: a trace
as an HTML page. ``step_times``: how long tasks run. ``monitor``: a socket for others to look.
``remote``: looking at another process. ``otel``: for OpenTelemetry.

How a program is looked at is in ``_observe``.
"""

from __future__ import annotations
