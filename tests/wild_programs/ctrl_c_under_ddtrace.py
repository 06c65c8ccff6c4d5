"""Ctrl-C while ddtrace watches each change of the context, which it does on Python 3.14 and later.

Its callback runs when a signal wakes uvloop. Python ignores an exception that a signal handler
raises in that callback.
"""

from __future__ import annotations

import os

os.environ["DD_INSTRUMENTATION_TELEMETRY_ENABLED"] = "false"
os.environ["DD_REMOTE_CONFIGURATION_ENABLED"] = "false"
os.environ["DD_TRACE_STARTUP_LOGS"] = "false"

import ddtrace.trace

import nurseryio


async def main() -> None:
    with ddtrace.trace.tracer.trace("waits"):
        print("waits", flush=True)
        await nurseryio.sleep_forever()


try:
    nurseryio.run(main)
except KeyboardInterrupt:
    print("interrupted", flush=True)
