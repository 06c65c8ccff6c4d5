"""Watching an event loop: descriptors that are ready, the moment when it is idle, each task's step.

``watching``: whether a loop can watch file descriptors at all (Windows' Proactor loop cannot).
``readiness``: registrations of descriptors that sockets and streams keep between waits, and what
a forked child or a closed descriptor does to them. ``wait_io``: ``wait_readable``,
``wait_writable`` and ``notify_closing``. ``compiled_io``: waits, and methods of streams, in C.
``polled_idle``: idleness and clocks (virtual time) on a loop without a selector (uvloop).
``selector_idle``: idleness and clocks on the stock loop; ``wait_all_tasks_blocked``; the hooks of
instruments around the wait for I/O.
``step_hooks``: the hooks of instruments around each step of a task; ``Task.context``.

Not here: the epoll object (``_asyncio.epoll``), the timer for deadlines
(``_core.loop_state``), ``MockClock`` (``testing.clock``).
"""

from __future__ import annotations

# Nothing is imported here. While one thread loads the room and waits for a module of it, another
# one may load that module, and wait for the room.
