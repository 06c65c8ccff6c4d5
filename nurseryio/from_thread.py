"""Call functions in the event loop, from a thread.

Trio: ``trio.from_thread``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base.lazy_exports import lazy_exports
from ._system.from_thread import (
    from_thread_check_cancelled as check_cancelled,
    from_thread_run as run,
    from_thread_run_sync as run_sync,
)

__all__ = ["check_cancelled", "run", "run_sync"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(globals())
