"""Why a row misses its target, where that is known: from counting instructions, and from trying.

The page prints these for rows that miss their target in the run that it was written from. So a
reason may stay here when its row is met on one machine and missed on another.
"""

from __future__ import annotations

from .libraries import STOCK, UVLOOP

_COMPILED = (
    "uvloop's transports are compiled: a raw Protocol's echo is about 4,200 instructions there, of "
    "which one short method is Python. A task that receives and sends is about 22,000 (30,700 "
    "before streams woke their tasks in place, behind an epoll object of their own): three "
    "coroutines are made for each message, two calls go through Python's socket module, and the "
    "task makes a step. asyncio's own streams take about 27,000. A stream over uvloop's transports "
    "was tried and was no faster, and gives up what internals/io.md lists."
)
_ONE_BY_ONE = (
    "About 7,500 instructions more than a raw Protocol for each message, nearly all of them the "
    "task's step and the three coroutines that are made for it. The system calls are the same."
)

NETWORK: dict[tuple[str, str], str] = {
    ("echo_64", STOCK): _ONE_BY_ONE,
    ("echo_64_x50", STOCK): _ONE_BY_ONE,
    ("echo_64_x100", STOCK): _ONE_BY_ONE,
    ("echo_64_x500", STOCK): _ONE_BY_ONE,
    ("echo_64", UVLOOP): _COMPILED,
    ("echo_64_x50", UVLOOP): _COMPILED,
    ("echo_64_x100", UVLOOP): _COMPILED,
    ("echo_64_x500", UVLOOP): _COMPILED,
    ("echo_64k", STOCK): "As for 64 bytes.",
    ("echo_64k", UVLOOP): "As for 64 bytes.",
    ("visit", UVLOOP): (
        "uvloop accepts a connection and closes it without a Python object: about 32,000 "
        "instructions for the raw Protocol, 160,000 for a task with a stream of its own. asyncio's "
        "streams take 111,000 and close late."
    ),
    ("stream_in", UVLOOP): (
        "The bytes are read in a task, with a bytes object for each read; the times of this row "
        "scatter more than those of others."
    ),
    ("stream_in", STOCK): "The times of this row scatter more than those of others.",
    ("stream_out", STOCK): (
        "TCP_NOTSENT_LOWAT, which Trio sets and this library too, so that data does not grow old "
        "in the kernel. Without it the ratio is 1.1 to 1.2. There are hardly more system calls "
        "and there are fewer instructions than in the raw Protocol: the time is the kernel's. "
        "Limits of 64 to 256 KiB instead of 16 gain a tenth at most. A program can lift it with "
        "setsockopt()."
    ),
    ("stream_out", UVLOOP): (
        "TCP_NOTSENT_LOWAT, as on the stock loop (1.35 without it). And every second send_all "
        "gives the others a turn, because uvloop does not tell whether anybody is ready."
    ),
}
"""By the row's name and the loop."""

MICRO: dict[tuple[str, str], str] = {}
"""By the row's name and the loop."""
