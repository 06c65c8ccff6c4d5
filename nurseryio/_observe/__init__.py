"""Observing a running program: a trace of its tasks, and the task tree with reasons.

``tracer``: ``Tracer``, which prints or logs each step. ``places``: lines of the program.
``waits``: what a task waits for. ``drawing``: the task tree as text. ``tree_data``: as data.
``open_scopes``: a task's scopes, also compared. ``task_tree``: looking at the tasks of a loop.
``dump``: on a signal. ``explain``: why a nursery or scope does not end. ``watchdog``: logs what
stands still. ``trace_file``: a trace for Perfetto. ``timeline``: a trace as an HTML page.
``monitor``: a socket for others to look. ``remote``: looking at another process. ``otel``: for
OpenTelemetry.

The hooks of instruments are declared in ``_base.abcs``, collected in ``_base.instruments``, and
called by ``_loop.step_hooks``, ``_loop.selector_idle`` and ``_run.run``.
"""

from __future__ import annotations
