"""What the figures were taken on: processor, system, Python and library versions."""

from __future__ import annotations

import datetime
import os
import platform
from typing import Any

from .libraries import LIBRARIES, version


def processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe() -> dict[str, Any]:
    """Return the machine and the versions as plain data."""
    packages = sorted(
        {library.package for library in LIBRARIES.values() if library.package} | {"uvloop"}
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except ImportError:
            versions[package] = "not installed"
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        # Of other programs, as far as the last quarter of an hour tells; near 0 is good.
        "load": os.getloadavg()[2],
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": versions,
    }
