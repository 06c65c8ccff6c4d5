"""The compiled form of ``Event()`` and of ``Event.wait``.

``wait`` stays a coroutine function in Python, whose body is one await on the compiled build: see
``_nursery.compiled``. ``set`` stays in Python, because its frame keeps Ctrl-C out of the loop's
functions that wake a task.

Rule: :func:`put_events_in_place` either puts both in place, or changes nothing.
"""

from __future__ import annotations

from typing import Any

from .._nursery import __compiled__
from .._nursery.compiled import bound_module, copy_of, give_code
from .event import Event

__all__ = ["put_events_in_place"]

# The slots that the C module sets in a new event.
SET_BY_C = frozenset({"__weakref__", "_happened", "_waiting"})


async def _wait(self: Any) -> None:
    await event_wait(self)  # type: ignore[name-defined]  # noqa: F821


def put_events_in_place() -> bool:
    """Let events use the C module, if the build is compiled and the class fits.

    Returns:
        Whether they use it.
    """
    if not __compiled__ or frozenset(vars(Event)["__slots__"]) != SET_BY_C:
        return False
    given = {"Event": Event, "original_wait": copy_of(Event.wait)}
    c_module = bound_module("bind_event", given)
    if c_module is None:
        return False
    give_code(Event.wait, _wait, {"event_wait": c_module.event_wait})
    return True


put_events_in_place()
