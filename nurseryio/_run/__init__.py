"""``nurseryio.run`` and a whole run: its loop, Ctrl-C, system tasks, its end, and its error.

``driving``: runs the loop until a future is done, and again if ``SystemExit`` has stopped it.
``leftovers``: cancels the tasks that asyncio code left, and logs that a run does not end.
``ctrl_c``: Ctrl-C, the first time and again. ``final_error``: which error leaves the run.
``asyncgens``: closes unfinished async generators. ``runvar``: variables of one loop.
``token``: calls into a loop from other threads and signal handlers (``run_sync_soon``).
``system_tasks``: ``spawn_system_task``. ``introspection``: statistics, ``in_trio_run``.
``page_run``: a run in a web page, on the loop that is there.
``run``: the public function, and the order of a run's beginning and end.

Not here: which frames Ctrl-C may interrupt (``_core.ki``); clocks and idleness (``_loop``).
"""

from __future__ import annotations

# Nothing is imported here. While one thread loads the room and waits for a module of it, another
# one may load that module, and wait for the room.
