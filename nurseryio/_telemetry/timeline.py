"""``write_timeline()``: a trace as one HTML file that draws it, without a network.

The page is in ``timeline.html``. It gets the events in place of a marker.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

# The text in the page that the events replace.
MARKER = "/*EVENTS*/"


def write_timeline(trace: str | os.PathLike[str], page: str | os.PathLike[str]) -> None:
    """Make an HTML page that draws a trace: the tracks of the tasks, with zoom and details.

    The page is one file, needs no network, and can be sent to others.

    Args:
        trace: A file that :class:`TraceFile` has written. It may be incomplete, because its
            program was killed.
        page: The HTML file; one that exists is overwritten.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: ``trace`` is not a trace.

    Checkpoint: no, this is not an async function.

    Trio: none.
    """
    events = read_trace(trace)
    template = Path(__file__).with_name("timeline.html").read_text(encoding="utf-8")
    # In a script element, "</" would end the element, and "<!--" change how it is read.
    data = json.dumps(events, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    Path(page).write_text(template.replace(MARKER, data), encoding="utf-8")


def read_trace(trace: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The events of a trace file, which may be incomplete.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a trace.
    """
    lines = Path(trace).read_text(encoding="utf-8").splitlines()
    if not lines or lines[0] != "[":
        raise ValueError(f"{os.fspath(trace)!r} is not a trace file")
    events = []
    for line in lines[1:]:
        try:
            events.append(json.loads(line.rstrip(",")))
        except ValueError:
            break  # the closing bracket, or the end of a file that was cut off
    return events
