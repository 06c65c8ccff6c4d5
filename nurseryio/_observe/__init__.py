"""Observing a running program: a trace of its tasks, and a drawing of the task tree.

``tracer`` has ``Tracer``, an instrument that prints or logs each task's start, steps and end.
``task_tree`` draws the tasks of a loop with their nurseries, and where each task waits.

Not here: the hooks of instruments. They are declared in ``_base.abcs``, collected in
``_base.instruments``, and called by ``_loop.step_hooks``, ``_loop.selector_idle`` and ``_run.run``.
"""

from __future__ import annotations
