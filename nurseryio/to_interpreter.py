"""Call functions that compute for long, in subinterpreters (Python 3.14 and later).

Trio: none. anyio: ``anyio.to_interpreter``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base.errors import BrokenWorkerInterpreter as BrokenWorkerInterpreter
from ._base.lazy_exports import exports
from ._workers.interpreters import (
    current_default_interpreter_limiter as current_default_interpreter_limiter,
    to_interpreter_run_sync as run_sync,
)

__all__ = ["BrokenWorkerInterpreter", "current_default_interpreter_limiter", "run_sync"]

if not TYPE_CHECKING:
    __dir__ = exports(globals())
