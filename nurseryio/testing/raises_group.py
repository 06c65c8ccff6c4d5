"""Trio's names for two helpers that pytest has taken over: ``RaisesGroup`` and ``Matcher``.

What lives here: finding pytest's own. What does not: any implementation.

Rule: pytest is loaded when one of the names is asked for, not before.
"""

from __future__ import annotations

import warnings
from typing import Any

from .._base import TrioDeprecationWarning

# Trio's name -> pytest's, which came with pytest 8.4.
NAMES = {"RaisesGroup": "RaisesGroup", "Matcher": "RaisesExc"}


def of_pytest(name: str) -> Any:
    """The class of pytest that stands behind one of Trio's names.

    Raises:
        AttributeError: if pytest is missing or too old to have it.
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
