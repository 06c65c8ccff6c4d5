"""Call functions in the event loop, from a thread; portals to loops in separate threads.

Trio: ``trio.from_thread``. Portals are an addition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base.lazy_exports import lazy_exports
from ._system.from_thread import (
    from_thread_check_cancelled as check_cancelled,
    from_thread_run as run,
    from_thread_run_sync as run_sync,
)

if TYPE_CHECKING:
    from ._portal.portal import (
        Portal as Portal,
        PortalNursery as PortalNursery,
        open_portal as open_portal,
        shared_portal as shared_portal,
    )

__all__ = [
    "Portal",
    "PortalNursery",
    "check_cancelled",
    "open_portal",
    "run",
    "run_sync",
    "shared_portal",
]

# Where the names that are loaded on first use come from.
_LAZY = {"_portal.portal": "Portal PortalNursery open_portal shared_portal"}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(globals(), _LAZY)
