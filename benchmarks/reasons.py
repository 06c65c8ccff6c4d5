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

_SPAWN = (
    "For each child about 190 bytecodes are ours: a record with its entries in two tables, and a "
    "wrapper coroutine that lets no error into the loop's own step and keeps the books at its end. "
    "TaskGroup has 65, and a callback of the loop more."
)
_NESTED = (
    "As for one child; and each nursery is a cancel scope too: some 550 bytecodes for a nursery "
    "with its child, 200 with TaskGroup. The turns of the loop are one less than there."
)
_CANCEL = (
    "asyncio cancels each task by one call into C. Here the tree is walked, each task is looked at "
    "for what it waits in, and looked at once more after its step, because cancellation is a level "
    "and not an edge: 330 bytecodes for a task, all told."
)
_SCOPE = (
    "A with block over an object with two empty methods is 0.4 already. On top come thirteen "
    "attributes, three arguments that are checked, and the task's record, its native cancel "
    "requests and the tests for what is rare: half of that would have to go."
)
_TIMER = (
    "A scope and an entry in a heap that is Python's, against a timer of the loop; a deadline that "
    "fires also walks the tree and looks at the task once more after its step."
)
_CHECKPOINT = "The look-up of the task's record and of one flag, and the same turn of the loop."
_PARKING = (
    "Two coroutine frames and the task's record, which knows how to cancel the wait without losing "
    "what was handed over, where asyncio has one frame and a future."
)
_YIELDS = (
    "put() and get() of asyncio do not yield where they need not wait. send and receive are "
    "checkpoints: with two tasks that are ready, every eighth of them is a turn of the loop."
)

_MICRO = {
    "nursery_one": _SPAWN,
    "nursery_hundred": _SPAWN,
    "children_checkpoint": _SPAWN,
    "nested": _NESTED,
    "child_raises": "The nursery's cancellation, and a group that scopes could take apart.",
    "child_raises_among": _CANCEL,
    "cancel_sleepers": _CANCEL,
    "cancel_forever": _CANCEL,
    "cancel_waiters": _CANCEL,
    "cancel_on_futures": _CANCEL,
    "scope": _SCOPE,
    "move_on_idle": _TIMER,
    "move_on_blocks": _TIMER,
    "move_on_fired": _TIMER,
    "move_on_fired_late": _TIMER,
    "fail_after_fired": _TIMER,
    "checkpoint": _CHECKPOINT,
    "checkpoint_deep": _CHECKPOINT,
    "timers": _TIMER,
    "event_ping_pong": _PARKING,
    "lock_free": "An uncontended acquire is a checkpoint.",
    "lock_contended": _PARKING,
    "semaphore": _PARKING,
    "limiter": _PARKING,
    "channel_direct": _PARKING,
    "channel_buffered": _YIELDS,
    "channel_fan_in": _YIELDS,
}

MICRO: dict[tuple[str, str], str] = {
    **{(row, STOCK): why for row, why in _MICRO.items()},
    **{
        (row, UVLOOP): f"{why} uvloop itself is compiled, so the same Python weighs more."
        for row, why in _MICRO.items()
    },
}
"""By the row's name and the loop."""
