"""Resets in a forked child process: ``in_child()`` registers a function to call after a fork.

This module has the only hook of :func:`os.register_at_fork`. Each reset is defined in the module
whose state it resets. Those of the room below, ``_asyncio``, are registered here.

Rule 1: a child has copies of the parent's objects, but shares the parent's open files, such as
epoll objects and the pipes that wake loops. So a reset clears references in the objects, and makes
no call on a shared file. Closing the child's copy of a descriptor is harmless.

Rule 2: a reset does not drop any task of the parent. That would run the parent's ``finally``
blocks.

Rule 3: all resets run, even if one of them fails.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from .._asyncio.closing import renew_lock
from .util import call_each

if TYPE_CHECKING:
    from collections.abc import Callable

    F = TypeVar("F", bound="Callable[[], object]")

_resets: list[Callable[[], object]] = []

# The number of forks from the process that imported the library to this process.
_generation = 0


def in_child(reset: F) -> F:
    """Decorator: ``reset()`` is called in each forked child, before any other code runs there.

    Resets are called in the order in which they were registered.
    """
    _resets.append(reset)
    return reset


def process_lock(module: dict[str, Any], name: str) -> Any:
    """A reentrant lock of the process. In a forked child the variable gets a new one.

    Another thread of the parent may hold the old one, which the child would wait for for ever. It
    is reentrant because a finalizer or a signal handler may interrupt the code that holds it.

    Args:
        module: the ``globals()`` of a module.
        name: its variable for the lock.
    """

    @in_child
    def renew() -> None:
        module[name] = threading.RLock()

    return threading.RLock()


def generation() -> int:
    """A number that differs between a process and its children. (Process ids may be reused.)"""
    return _generation


def _begin() -> None:
    global _generation
    _generation += 1
    call_each(*_resets)


in_child(renew_lock)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)
