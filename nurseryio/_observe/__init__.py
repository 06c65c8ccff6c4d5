"""Observing a running program: a trace of its tasks, and the task tree with reasons.

``tracer``: ``Tracer``, an instrument that prints or logs each task's start, steps and end.
``places``: lines of the program. ``waits``: what a task waits for. ``drawing``: the tree as lines
of text. ``tree_data``: the tree as data. ``task_tree``: looking at the tasks of a loop. ``dump``:
writing the tree on a signal. ``explain``: why a nursery or a scope does not end. ``watchdog``: a
thread that logs what stands still. ``trace_file``: a trace for Perfetto.
``timeline``: a trace as an HTML page.

The hooks of instruments are declared in ``_base.abcs``, collected in ``_base.instruments``, and
called by ``_loop.step_hooks``, ``_loop.selector_idle`` and ``_run.run``.
"""

from __future__ import annotations
