"""A stub of sniffio: tests look at its answers whether or not sniffio is installed."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import types

import pytest


class _ThreadLocal(threading.local):
    name: str | None = None


class Sniffio(types.ModuleType):
    """The two variables that sniffio 1.3 documents, and the function that reads them."""

    def __init__(self) -> None:
        super().__init__("sniffio")
        self.thread_local = _ThreadLocal()
        self.current_async_library_cvar: contextvars.ContextVar[str | None]
        self.current_async_library_cvar = contextvars.ContextVar("library", default=None)

    def current_async_library(self) -> str | None:
        """The library that runs; None where the real function raises an error."""
        name = self.thread_local.name or self.current_async_library_cvar.get()
        if name is None:
            try:
                return None if asyncio.current_task() is None else "asyncio"
            except RuntimeError:
                return None
        return name


def install(monkeypatch: pytest.MonkeyPatch) -> Sniffio:
    """Make ``import sniffio`` give a stub until the end of the test."""
    module = Sniffio()
    monkeypatch.setitem(sys.modules, "sniffio", module)
    return module
