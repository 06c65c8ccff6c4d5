"""What a program wants of its operating system: threads, processes, files, paths, signals.

===================  ============================================================
``hop``              one call in a worker thread, as both sides see it
``threads``          ``to_thread.run_sync``
``from_thread``      the way back: ``from_thread.run`` and its like
``file_types``       types for ``files``
``files``            files with async methods
``path_methods``     how the methods of paths are made
``path``             paths with async methods
``process_options``  types for ``process``
``process_exit``     learning that a child has exited
``process``          child processes
``run_process``      child processes under supervision
``signals``          waiting for signals
===================  ============================================================

Each imports only those above it, ``_core``, ``_sync`` and ``_net``. The threads themselves are kept
by ``_base.thread_cache``. Nothing is loaded before a door asks for it; the names below are for type
checkers.
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
    from .threads import (
        active_thread_count as active_thread_count,
        current_default_thread_limiter as current_default_thread_limiter,
        to_thread_run_sync as to_thread_run_sync,
        wait_all_threads_completed as wait_all_threads_completed,
    )
