"""Waiting for the children of a nursery inside its block: :func:`wait_children`.

Rule: this waits for the children's asyncio tasks, and needs no help from the nursery. So a nursery
whose children nobody waits for does nothing for it.
"""

from __future__ import annotations

import asyncio

from .._base.util import safe_repr
from .._core import checkpoint, current_task
from .._core.loop_state import check_home
from .._nursery import Nursery
from .._nursery.services import ServiceNursery

__all__ = ["wait_children"]


async def wait_children(nursery: Nursery | ServiceNursery) -> None:
    """Wait until all children of a nursery have ended, without leaving its block.

    Children that are started meanwhile are waited for, too. If the caller is one of the children,
    it waits for all others. The nursery stays open, so more children can be started afterwards.

    An error in a child is raised at the end of the block, as always. The nursery is cancelled, and
    so is this wait if it is inside the nursery.

    Args:
        nursery: The nursery, which has been entered.

    Raises:
        TypeError: The argument is not a nursery.
        RuntimeError: The caller is in another thread or event loop than the nursery, or the nursery
            has not been entered.
        Cancelled: if the task is cancelled.

    Checkpoint: yes.

    Trio: none.
    """
    if not isinstance(nursery, (Nursery, ServiceNursery)):
        raise TypeError(f"wait_children() needs a nursery, not {safe_repr(nursery)}")
    caller = current_task()
    check_home(nursery.parent_task._state)
    await checkpoint()
    while others := [task for task in nursery.child_tasks if task is not caller]:
        await asyncio.wait([task.asyncio_task for task in others])
        # A task that has just ended leaves its nursery in this iteration of the loop at the latest.
        await checkpoint()
