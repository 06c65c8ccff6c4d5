"""What a forked child must not take over from its parent: one place where it is let go of.

This module has the only hook of :func:`os.register_at_fork`. Each reset is beside the thing that
it resets.

Rule 1: a child has copies of the parent's objects, but shares its open files: epoll objects, the
pipes that wake loops. So a reset makes the objects forget, and makes no call on what is shared.
Closing the child's own copy of a descriptor is harmless.

Rule 2: a reset drops no task of the parent. That would run the parent's ``finally`` blocks.

Rule 3: a reset that fails keeps no other from running.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from .util import call_each

if TYPE_CHECKING:
    from collections.abc import Callable

    F = TypeVar("F", bound="Callable[[], object]")

_resets: list[Callable[[], object]] = []

# How many forks lie between this process and the one that imported the library.
_generation = 0


def in_child(reset: F) -> F:
    """Decorator: have ``reset()`` called in each forked child, before anything else runs there.

    Resets are called in the order in which they were registered.
    """
    _resets.append(reset)
    return reset


def generation() -> int:
    """A number that is another one in each forked child. (A process id may be used again.)"""
    return _generation


def _begin() -> None:
    global _generation
    _generation += 1
    call_each(*_resets)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)
