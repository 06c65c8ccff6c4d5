"""Async functions for plain code: an event loop in a separate thread, and the console on it.

``call``: a call that a thread makes in a nursery of the loop, and may cancel.
``host``: the thread and its run: the start, the end, forks, the end of the program.
``held``: an async context manager that a plain ``with`` block keeps open.
``portal``: what users call: ``open_portal``, ``shared_portal``, ``Portal``, ``PortalNursery``.
``line_input``: reading lines from a terminal with history, completion and colours.
``console``: the console of ``python -m nurseryio``, whose inputs are calls of a portal.

Not here: calls from a worker thread into the loop that started it (``_system.from_thread``).
"""

from __future__ import annotations
