"""The services of the operating system: threads, files, paths, processes, signals.

The modules, in reading order:

* ``thread_call``: the record of one call in a worker thread, used by both sides.
* ``threads``: ``to_thread.run_sync``; ``from_thread``: ``from_thread.run`` and its relatives.
* ``file_types``: types for ``files``, which has files with async methods.
* ``path_methods``: the decorators that make the methods of ``path``, which has async paths.
* ``process_options``: types of the options; ``process_exit``: waiting for a child's exit.
* ``process``: child processes; ``run_process``: the same under supervision, and process groups.
* ``signals``: receiving signals in a task; ``stop_signals``: signals that stop a block.

Idle threads and their reuse are in ``_base.thread_cache``, Ctrl-C is in ``_run.ctrl_c``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .files import (
        AsyncIOWrapper as AsyncIOWrapper,
        open_file as open_file,
        wrap_file as wrap_file,
    )
    from .from_thread import (
        from_thread_check_cancelled as from_thread_check_cancelled,
        from_thread_run as from_thread_run,
        from_thread_run_sync as from_thread_run_sync,
    )
    from .path import Path as Path, PosixPath as PosixPath, WindowsPath as WindowsPath
    from .process import Process as Process, open_process as open_process
    from .run_process import (
        run_process as run_process,
        terminate_process_group as terminate_process_group,
    )
    from .signals import open_signal_receiver as open_signal_receiver
    from .stop_signals import stop_on_signals as stop_on_signals
    from .threads import (
        active_thread_count as active_thread_count,
        current_default_thread_limiter as current_default_thread_limiter,
        to_thread_run_sync as to_thread_run_sync,
        wait_all_threads_completed as wait_all_threads_completed,
    )
