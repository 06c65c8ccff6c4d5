"""Call functions that block, in worker threads.

Trio: ``trio.to_thread``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base.lazy_exports import exports
from ._system.threads import (
    current_default_thread_limiter as current_default_thread_limiter,
    to_thread_run_sync as run_sync,
)

__all__ = ["current_default_thread_limiter", "run_sync"]

if not TYPE_CHECKING:
    __dir__ = exports(globals())
