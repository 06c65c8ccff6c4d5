"""Trio's names for two helpers that are part of pytest today: ``RaisesGroup`` and ``Matcher``.

This module looks up pytest's classes, and has no implementation.

Rule: pytest is imported when one of the names is used, not before.
"""

from __future__ import annotations

import warnings
from typing import Any

from .._base import TrioDeprecationWarning

# Trio's name -> pytest's name, which exists since pytest 8.4.
NAMES = {"RaisesGroup": "RaisesGroup", "Matcher": "RaisesExc"}


def of_pytest(name: str) -> Any:
    """Return the class of pytest that has one of Trio's names here.

    Raises:
        AttributeError: if pytest is missing, or too old to have the class.
    """
    theirs = NAMES[name]
    try:
        import pytest
    except ImportError:
        found = None
    else:
        found = getattr(pytest, theirs, None)
    if found is None:
        raise AttributeError(f"nurseryio.testing.{name} is pytest.{theirs}: it needs pytest >= 8.4")
    warnings.warn(
        f"nurseryio.testing.{name} is deprecated; use pytest.{theirs}",
        TrioDeprecationWarning,
        stacklevel=3,
    )
    return found
