"""Whether the running loop can watch file descriptors, and the error if it cannot.

Most loops can. The Proactor loop, which is Windows' default, only has transports.

Rule: an operation that needs to watch a descriptor checks this before it opens, binds or starts
anything.
"""

from __future__ import annotations

from .._asyncio import compat
from .._base.errors import ENGINE_ERRORS
from .._base.unsupported import LACKING, impossible
from .._core.loop_state import PerLoop
from .._core.task import current_state

__all__ = ["ask", "can_watch", "cannot_watch", "check_can_watch"]


def ask(loop: compat.Loop) -> bool:
    """Whether a loop can watch descriptors: it gets an invalid number, and its error shows that."""
    try:
        loop.add_reader(-1, list)
    except NotImplementedError:
        return False
    except ENGINE_ERRORS:
        raise
    except Exception:
        return True
    loop.remove_reader(-1)
    return True


# Whether a loop can watch file descriptors. Found out once for each loop.
can_watch: PerLoop[bool] = PerLoop(lambda state: ask(state.loop))


def check_can_watch(what: str) -> None:
    """Raise NotImplementedError if the running loop cannot watch file descriptors.

    Args:
        what: The operations that need it, in the plural; the error message begins with it.
    """
    if compat.running_loop_or_none() is not None:
        state = current_state()
        if not can_watch(state):
            raise cannot_watch(state.loop, what)


def cannot_watch(loop: compat.Loop, what: str) -> NotImplementedError:
    """Return the error for operations that are not possible on a loop."""
    if "descriptors" in LACKING:
        return impossible("descriptors", what)
    return NotImplementedError(
        f"{what} need an event loop that can watch file descriptors, which {type(loop).__name__} "
        "cannot: use another loop, for example by nurseryio.run(main, "
        "loop_factory=asyncio.SelectorEventLoop)"
    )
