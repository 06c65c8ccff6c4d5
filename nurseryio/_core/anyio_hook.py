"""Hook for anyio's cancel scopes in the same tasks: it loads and calls the bridge to them.

This module has the slot for the bridge, and checks whether the bridge is needed. The bridge itself
is a later module, ``_interop.anyio_bridge``. This library works without it.

Rule: a program that does not use anyio pays one look-up in the table of loaded modules for each
scope that it enters. It cannot be less. A scope of this library notes at entry which anyio scope it
is in. So the bridge must be loaded before the first scope that is entered inside an anyio scope.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, Protocol

from .._base.forked import process_lock

if TYPE_CHECKING:
    from .task import Task

# The part of anyio that, once loaded, may have scopes in any task.
BACKEND = "anyio._backends._asyncio"


class BridgeProtocol(Protocol):
    """The part of ``_interop.anyio_bridge.Bridge`` that the engine uses."""

    def note_shielded(self, task: Any) -> None: ...
    def enter(self, scope: Any, task: Task) -> None: ...
    def leave(self, scope: Any) -> None: ...
    def set_shield(self, scope: Any, task: Any, shield: bool) -> bool: ...
    def repeats(self, error: BaseException) -> bool: ...
    def protects(self, task: Task) -> bool: ...
    def has_cancelled(self, task: Task) -> bool: ...
    def shield(self, task: Task) -> Any: ...


# None until the bridge is needed. It changes anyio's class, so only one is made.
bridge: BridgeProtocol | None = None
_refused = False

# Reentrant, because a finalizer may enter a scope while a bridge is made.
_making = process_lock(globals(), "_making")


def look() -> None:
    """Load the bridge if anyio's asyncio backend is loaded."""
    global bridge, _refused
    if bridge is None and not _refused:
        backend = sys.modules.get(BACKEND)
        # The last name that it defines: another thread may be importing it.
        if hasattr(backend, "backend_class"):
            # Imported without the lock, because a thread that holds an import lock may wait for it.
            module = importlib.import_module("nurseryio._interop.anyio_bridge")
            with _making:
                if bridge is None and not _refused:
                    bridge = module.make(backend)
                    _refused = bridge is None


def note_shielded(task: Any) -> None:
    """Note that an anyio shield, which may be lowered, keeps out a waiting task's cancellation."""
    if bridge is not None:
        bridge.note_shielded(task)


def enter(scope: Any, task: Any) -> None:
    """Enter a scope of this library while anyio's backend is loaded: pair it with anyio's."""
    if bridge is None:
        look()
    if bridge is not None:
        bridge.enter(scope, task)


def leave(scope: Any) -> None:
    """Leave a scope that :func:`enter` has paired with an anyio scope."""
    if bridge is not None:
        bridge.leave(scope)


def set_shield(scope: Any, task: Any, shield: bool) -> bool:
    """Set the shield of a paired scope. Returns the value for this library's own scope."""
    return shield if bridge is None else bridge.set_shield(scope, task, shield)


def repeats(error: BaseException) -> bool:
    """Whether a native cancel is anyio's: anyio cancels again by itself."""
    look()
    return bridge is not None and bridge.repeats(error)


def is_shielded(task: Any) -> bool:
    """Whether an anyio shield is inside the task's innermost scope of this library."""
    if BACKEND not in sys.modules:
        return False
    look()
    return bridge is not None and bridge.protects(task)


def protects(task: Any) -> bool:
    """Whether something inside the task's innermost scope keeps a scope's cancellation out now.

    That is an anyio shield, or an edge cancellation block (``_interop.edge_cancellation``) in its
    grace period.
    """
    edge = task._extra.edge
    if edge is not None and edge.protects(task):
        return True
    return bridge is not None and bridge.protects(task)
