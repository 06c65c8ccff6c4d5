"""The asyncio boundary: everything that is private in asyncio, or differs between Python versions.

``required``: the private names that ``compat`` uses, and the error if one is missing.
``compat``: task state, cancel counts, task making, and loop internals, for all Pythons and loops.
``browser``: the event loop of a web page.
``epoll``: one epoll object between a loop and the descriptors that stay registered with it.
Not here: virtual time, and which task waits for a descriptor (``_loop``); which cancel requests
belong to a scope (``_core``).
"""

from __future__ import annotations
