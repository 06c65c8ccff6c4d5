"""Constants and trivial work that the rows of every library share: the same for all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

HOUR = 3600.0
"""Seconds: a sleep or timeout that never comes to its end in a run."""

BLINK = 0.0019
"""Seconds: a timeout that fires soon. uvloop rounds to whole milliseconds: this is two."""

FAN = 100
"""Children of a small group; producers of the fan-in; places of the buffered channel."""

FAN_PLACES = 10
"""Places of the channel that a hundred producers share."""

CHAIN = 100
"""Nurseries nested in each other in the depth row."""

DEEP = 100
"""Scopes around a checkpoint in the row about its depth."""

TOGETHER = 10
"""Tasks that want the same lock or permit."""

LINE = b"x" * 40 + b"\r\n"
"""A line of a text protocol."""

LINES = 1000
"""Lines that are in a socket's buffer at once; so many fit into the smallest one."""

_SPREAD = 0.02


def nothing() -> None:
    """What the worker thread is asked to do."""


def spread(n: int) -> list[float]:
    """Return n different delays, none zero, unsorted, all within a fiftieth of a second."""
    return [((i * 7919) % n + 1) / n * _SPREAD for i in range(n)]


def cancel_all(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and let go of them, for a library that has no scope to cancel.

    They are freed in the timed part then, as those of the others are. Otherwise the list would
    keep them until that is over.
    """
    for task in tasks:
        task.cancel()
    tasks.clear()
