"""Call functions that compute for long, in worker processes.

Trio: none. anyio: ``anyio.to_process``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base.errors import BrokenWorkerProcess as BrokenWorkerProcess
from ._base.lazy_exports import exports
from ._workers.processes import (
    current_default_process_limiter as current_default_process_limiter,
    to_process_run_sync as run_sync,
)

__all__ = ["BrokenWorkerProcess", "current_default_process_limiter", "run_sync"]

if not TYPE_CHECKING:
    __dir__ = exports(globals())
