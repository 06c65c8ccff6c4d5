"""Ready-made instruments, for ``run(instruments=...)`` and ``lowlevel.add_instrument``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base.lazy_exports import lazy_exports
from ._observe.tracer import Tracer as Tracer

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(globals())
