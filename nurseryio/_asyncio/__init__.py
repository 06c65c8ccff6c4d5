"""The border with asyncio: everything that is private there or differs between Python versions."""

from __future__ import annotations
