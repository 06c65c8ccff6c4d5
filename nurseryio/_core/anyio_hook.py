"""Where the engine meets cancel scopes of another library (anyio's) in the same tasks.

What lives here: the slot for the bridge to that library, and looking whether it is needed. The
bridge itself is an upper floor, ``_interop.anyio_bridge``; this library works without it.

Rule: a program that does not use anyio pays one look at the table of loaded modules for each scope
that it enters. It cannot be less: what is between our scopes and anyio's is known from what ours
find at entry, so the bridge has to be there before the first scope that is entered inside one of
anyio's.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import MutableSet

    from .task import Task

# The other library's part that, once loaded, may have scopes in any task.
BACKEND = "anyio._backends._asyncio"


class BridgeProtocol(Protocol):
    """What the engine uses of ``_interop.anyio_bridge.Bridge``."""

    # Tasks whose cancellation is kept out by a shield of the other library.
    shielded: MutableSet[Any]

    def enter(self, scope: Any, task: Task) -> None: ...
    def leave(self, scope: Any) -> None: ...
    def set_shield(self, scope: Any, task: Any, shield: bool) -> bool: ...
    def repeats(self, error: BaseException) -> bool: ...
    def protects(self, task: Task) -> bool: ...
    def has_cancelled(self, task: Task) -> bool: ...
    def shield(self, task: Task) -> Any: ...


# None while there is no need for it.
bridge: BridgeProtocol | None = None
_refused = False


def look() -> None:
    """Load the bridge if there is somebody on the other side."""
    global bridge, _refused
    if bridge is None and not _refused:
        backend = sys.modules.get(BACKEND)
        # The last thing that it defines: another thread may be importing it.
        if hasattr(backend, "backend_class"):
            module = importlib.import_module("nurseryio._interop.anyio_bridge")
            bridge = module.make(backend)
            _refused = bridge is None


def note_shielded(task: Any) -> None:
    """A cancellation of a waiting task is kept out by a foreign shield, which may be lowered."""
    if bridge is not None:
        bridge.shielded.add(task)


def enter(scope: Any, task: Any) -> None:
    """A scope of ours is being entered while there may be somebody on the other side."""
    if bridge is None:
        look()
    if bridge is not None:
        bridge.enter(scope, task)


def leave(scope: Any) -> None:
    """A scope that :func:`enter` has paired with one of the other library is being left."""
    if bridge is not None:
        bridge.leave(scope)


def set_shield(scope: Any, task: Any, shield: bool) -> bool:
    """The shield of a paired scope is being set: what to set in this library's scope."""
    return shield if bridge is None else bridge.set_shield(scope, task, shield)


def repeats(error: BaseException) -> bool:
    """Whether a native cancel comes from the other side, which cancels anew by itself."""
    look()
    return bridge is not None and bridge.repeats(error)


def protects(task: Any) -> bool:
    """Whether something inside the task's innermost scope keeps our cancellation out now.

    That is a foreign shield, or an island (``_interop.edge_cancellation``) whose time is not over.
    """
    edge = task._extra.edge
    if edge is not None and edge.protects(task):
        return True
    return bridge is not None and bridge.protects(task)
