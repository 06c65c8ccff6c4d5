"""Which library answers to the name `trio` in this process.

The rows for Trio and for nurseryio are one and the same text: a Trio program whose `import trio`
gives one or the other. A benchmark process serves exactly one library, so the choice is made once,
at import, from the environment.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

VARIABLE = "NURSERYIO_BENCH_TRIO"

trio: Any = importlib.import_module(os.environ.get(VARIABLE, "nurseryio"))
