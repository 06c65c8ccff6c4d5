"""Name look-up: from names of hosts and services to addresses and back, in worker threads.

``hostname``: which host names are possible, and how they are encoded (IDNA).
``offload``: ``call_in_thread``, which runs a blocking call of this library in a worker thread.
``resolver``: ``getaddrinfo`` and the like, the custom resolver, and the addresses of sockets.
The threads themselves are in ``_base.thread_cache``, Happy Eyeballs in ``_net.tcp_connect``.
"""

from __future__ import annotations
