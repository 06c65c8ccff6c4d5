"""Why a row misses its target, where that is known: from counting instructions, and from trying.

The page prints these for rows that miss their target in the run that it was written from. So a
reason may stay here when its row is met on one machine and missed on another.
"""

from __future__ import annotations

from .libraries import STOCK, UVLOOP

_COMPILED = (
    "uvloop's transports are compiled. An echo of a raw Protocol is about 4,200 instructions "
    "there, and one short method of it is Python. A task that receives and sends takes 22,000, "
    "and 18,000 with the compiled part: three coroutines are made for each message, two calls go "
    "through the module socket, and the task makes a step. asyncio's streams take about 27,000. "
    "A stream over uvloop's transports was tried. It was no faster, and gives up promises that "
    "internals/io.md lists."
)
_ONE_BY_ONE = (
    "The step of the task and the three coroutines that are made for each message. The system "
    "calls are the same, and with the compiled part the instructions hardly differ."
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
        "yields, because uvloop does not show whether other tasks are ready."
    ),
}
"""By the row's name and the loop."""

_SPAWN = (
    "Each child takes about 190 bytecodes of the library, and a TaskGroup 65. They make a record "
    "with entries in two tables, and a wrapper coroutine. The wrapper keeps errors out of the "
    "loop's own step and updates the nursery at the child's end. The compiled part takes fewer "
    "instructions than a TaskGroup on both loops. There the rest is memory: a record has 192 "
    "bytes, and is looked up in two tables."
)
_MANY = _SPAWN + (
    " With ten thousand children alive on uvloop, the garbage collector takes 1.7 of 4.5 "
    "microseconds for a child, and 1.2 of 3.7 in a TaskGroup, although it finds nothing in both. "
    "The objects are as many, and larger. Without it the ratio is 1.04 to 1.10."
)
_NESTED = (
    "As for one child. Each nursery is a cancel scope too: a nursery with its child takes about "
    "550 bytecodes, a TaskGroup 200. It needs one iteration of the loop less than a TaskGroup."
)
_CANCEL = (
    "asyncio cancels each task by one call into C. Here a cancellation is a level and not an edge. "
    "So the tree is walked, the wait of each task is looked at, and each task is looked at again "
    "after its step: 330 bytecodes for a task in all."
)
_FOR_EVER = _CANCEL + (
    " sleep_forever is a coroutine, and each error passes its frame: 5,700 instructions more than "
    "a bare future takes. In asyncio that is what a task waits for."
)
_SCOPE = (
    "A with block over an object with two empty methods takes 0.4 already. The rest sets thirteen "
    "attributes, checks three arguments, looks up the task's record and its native cancel "
    "requests, and tests for rare cases. Half of that would have to go."
)
_TIMER = (
    "A scope and an entry in a heap, both in Python, against a timer of the loop. A deadline that "
    "fires also walks the tree, and looks at the task again after its step."
)
_CHECKPOINT = (
    "The task's record is looked up, and one flag. The iteration of the loop is the same. The "
    "compiled part takes 350 of 9,000 instructions for this on Python 3.13, where asyncio finds "
    "the running task in a dict. Python 3.14 has it at hand."
)
_PARKING = (
    "Two coroutine frames, and the task's record. The record can cancel the wait without losing "
    "what was handed over. asyncio has one frame and a future."
)
_YIELDS = (
    "put() and get() of asyncio do not yield where they need not wait. send and receive are "
    "checkpoints: with two tasks that are ready, every eighth of them is a turn of the loop."
)

_MICRO = {
    "nursery_one": _SPAWN,
    "nursery_hundred": _SPAWN,
    "children_checkpoint": _MANY,
    "nested": _NESTED,
    "child_raises": "The nursery's cancellation, and a group that scopes could take apart.",
    "child_raises_among": _CANCEL,
    "cancel_sleepers": _CANCEL,
    "cancel_forever": _FOR_EVER,
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
    (row, loop): why for row, why in _MICRO.items() for loop in (STOCK, UVLOOP)
}
"""By the row's name and the loop."""

SCALE = {
    "Import time": "Fifty-five small modules. The others are loaded at their first use.",
    "Spawn and cancel, per task": "As for spawning and cancelling many children.",
}
"""By the heading of the table."""
