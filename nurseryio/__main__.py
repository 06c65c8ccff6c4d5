"""``python -m nurseryio``: run a program written for Trio, on asyncio."""

from __future__ import annotations

from ._interop.cli import main

if __name__ == "__main__":
    main()
