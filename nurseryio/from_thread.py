"""From a thread back into the event loop.

Trio: ``trio.from_thread``.
"""

from __future__ import annotations

from ._core.lazy import lazy_door
from ._system.from_thread import (
    from_thread_check_cancelled as check_cancelled,
    from_thread_run as run,
    from_thread_run_sync as run_sync,
)

__all__ = ["check_cancelled", "run", "run_sync"]

__getattr__, __dir__ = lazy_door(globals())
