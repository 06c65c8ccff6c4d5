"""Tests that a Python other than CPython cannot pass, each kind with its reason.

Each mark skips a test on PyPy. The reason says how PyPy differs from CPython, so the library cannot
do anything about it. ``docs/releases.md`` tells users of these differences.
"""

from __future__ import annotations

import sys

import pytest

IS_PYPY = sys.implementation.name == "pypy"

NEEDS_COUNTING = "needs reference counting"


def _skipped(reason: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(IS_PYPY, reason=reason)


# An object is freed with the last reference to it: finalizers and callbacks run at once.
needs_reference_counting = _skipped(NEEDS_COUNTING)

# An exception whose class overrides ``__traceback__`` or another field can be raised.
needs_own_exception_fields = _skipped("PyPy's raise reads fields that the class overrides")

# The traceback of an error that was thrown into a coroutine, and that the coroutine has caught.
needs_whole_tracebacks = _skipped("PyPy drops frames of an error that a coroutine has caught")

# A signal that arrives while a signal handler runs, which then raises.
needs_nested_signals = _skipped("PyPy loses a signal that arrives in a signal handler")

# signal.signal(SIGKILL, ...) is an error.
needs_refused_signals = _skipped("PyPy ignores that a signal cannot be caught")


def skip_unless_counting() -> None:
    """Skip the running test where objects are not freed with the last reference."""
    if IS_PYPY:
        pytest.skip(NEEDS_COUNTING)
