"""The asyncio boundary: everything that is private in asyncio, or differs between Python versions.

``required``: the private names that ``compat`` uses, and the error if one is missing.
``compat``: task state, cancel counts and task making, for all Pythons.
``browser``: the event loop of a web page.
``loop_parts``: a loop's queue, selector, timers and executor, for all loops.
``epoll``: one epoll object between a loop and the descriptors that stay registered with it.
``closing``: functions to call once a loop has been closed.
``interpreter``: which threads and signal handlers a subinterpreter allows.
``display``: what asyncio shows of waiting tasks, for the task tree.
Not here: virtual time, and which task waits for a descriptor (``_loop``); which cancel requests
belong to a scope (``_core``).
"""

from __future__ import annotations
