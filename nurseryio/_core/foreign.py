"""Where the engine meets cancel scopes of another library (anyio's) in the same tasks.

What lives here: the slot for the bridge to that library, and looking whether it is needed. The
bridge itself is an upper floor, ``_interop.anyio_bridge``; this library works without it.

Rule: a program that does not use anyio pays one test for None. The bridge is loaded when anyio's
asyncio backend is seen among the loaded modules: when a task is adopted, and at a cancel.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

# The other library's part that, once loaded, may have scopes in any task.
BACKEND = "anyio._backends._asyncio"

# An object with the methods of ``_interop.anyio_bridge.Bridge``; None while there is no need.
bridge: Any = None
_refused = False


def look() -> None:
    """Load the bridge if there is somebody on the other side."""
    global bridge, _refused
    if bridge is None and BACKEND in sys.modules and not _refused:
        module = importlib.import_module("nurseryio._interop.anyio_bridge")
        bridge = module.make(sys.modules[BACKEND])
        _refused = bridge is None


def protects(task: Any) -> bool:
    """Whether something inside the task's innermost scope keeps our cancellation out now.

    That is a foreign shield, or an island (``_interop.island``) whose time is not over.
    """
    island = task._island
    if island is not None and island.protects(task):
        return True
    return bridge is not None and bridge.protects(task)
