"""Work for other processors: calls in worker processes and in subinterpreters.

The modules, in reading order:

* ``packing``: a call and its result as bytes; the errors about objects that cannot be sent.
* ``spawning``: private parts of ``multiprocessing``.
* ``worker_main``: the program of a worker process.
* ``worker_process``: one worker process, as its parent uses it.
* ``pool``: the idle workers of one loop, and their end. ``call``: one call, as both sides see it.
* ``processes``: ``to_process.run_sync``; ``interpreters``: ``to_interpreter.run_sync``.

Threads are in ``_system``, and so are other programs (``run_process``).
"""
