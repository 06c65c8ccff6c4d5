"""Looking at a running program: each step of its tasks, and the task tree with reasons.

``tracer``: ``Tracer``, which prints or logs each step. ``places``: lines of the program.
``ages``: since when tasks wait. ``holders``: what the tasks hold. ``wait_parts``,
``asyncio_waits``, ``waits``: what a task waits for. ``drawing``: the task tree as text.
``tree_data``: as data, with deadlocks. ``open_scopes``: a task's scopes, also compared.
``task_tree``: looking at the tasks of a loop. ``dump``: on a signal. ``explain``: why a nursery or
scope does not end.

The hooks of instruments are declared in ``_base.abcs``, collected in ``_base.instruments``, and
called by ``_loop.step_hooks``, ``_loop.selector_idle`` and ``_run.run``. What a program reports by
itself or to other processes is in ``_telemetry``.
"""

from __future__ import annotations
