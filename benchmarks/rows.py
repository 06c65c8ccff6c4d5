"""The micro rows as data: title, target, size, which clock counts, and what is and is not equal
between the sides.

Targets are ratios to the asyncio idiom on the same loop; smaller is faster. `n` is the number of
work units in a round of about 30 to 60 ms for asyncio.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One micro row.

    Attributes:
        name: The name of the function that does it in `benchmarks.micro`.
        title: What the table calls it.
        target: The ratio to asyncio that nurseryio has to reach, or None where none is set.
        n: Work units in a full round.
        fairness: What is equal and what is not equal between the libraries.
        clock: "cpu" for work of one process, "wall" where waiting is part of the work.
        tiny: Work units that are enough to see that the row works.
        fixed: True if n is part of the row's meaning and is not scaled down by --quick.
    """

    name: str
    title: str
    target: float | None
    n: int
    fairness: str
    clock: str = "cpu"
    tiny: int = 20
    fixed: bool = False

    def target_on(self, loop: str) -> float | None:
        """Return the ratio to reach on a loop, or None: the same on all."""
        return self.target


ROWS: tuple[Row, ...] = (
    Row(
        "nursery_one",
        "nursery, 1 no-op child",
        0.85,
        5000,
        "Equal: one task is made, runs and is joined. Not equal: a nursery is also a cancel "
        "scope with its own deadline; a TaskGroup is not.",
    ),
    Row(
        "nursery_hundred",
        "nursery, 100 children",
        0.90,
        10_000,
        "Equal: a hundred tasks are made, run and joined, time per child. Not equal: as above.",
        tiny=200,
    ),
    Row(
        "children_checkpoint",
        "10,000 children, one checkpoint each",
        0.95,
        10_000,
        "Equal: all tasks alive at once, two steps each. Not equal: our checkpoint looks for a"
        " cancelled scope, asyncio's sleep(0) does not.",
        fixed=True,
    ),
    Row(
        "nested",
        "nurseries nested 100 deep",
        0.85,
        5000,
        "Equal: each nursery is opened by the only child of the one above, a chain of 100 "
        "tasks, time per nursery.",
        tiny=200,
    ),
    Row(
        "child_raises",
        "child raises, group caught",
        1.1,
        3000,
        "Equal: one child raises, an exception group leaves and except* catches it. Not equal:"
        " the nursery cancels a scope, the TaskGroup cancels tasks (here none is left).",
    ),
    Row(
        "child_raises_among",
        "child raises among 9 siblings that sleep",
        1.1,
        5000,
        "Equal: ten tasks, one lets others run and raises, the rest sleep an hour and are "
        "cancelled; a group leaves and except* catches it. Time per task. Not equal: as above.",
        tiny=20,
    ),
    Row(
        "cancel_sleepers",
        "cancel 10,000 sleeping tasks and join",
        1.0,
        10_000,
        "Equal: each child sleeps an hour and counts its end in a finally; only cancelling,"
        " joining and freeing the tasks is timed. Not equal: asyncio cancels task by task "
        "(TaskGroup has no cancel), the others cancel one scope.",
        fixed=True,
    ),
    Row(
        "cancel_forever",
        "cancel 10,000 tasks in `sleep_forever` and join",
        1.1,
        10_000,
        "Equal: as the sleepers, without a timer on either side. Not equal: asyncio has no "
        "sleep_forever; each task awaits a new future.",
        fixed=True,
    ),
    Row(
        "cancel_waiters",
        "cancel 10,000 tasks in `Event.wait` and join",
        1.1,
        10_000,
        "Equal: as the sleepers, and all wait for one event. Not equal: as for the sleepers.",
        fixed=True,
    ),
    Row(
        "cancel_on_futures",
        "cancel 10,000 tasks on `create_future()` and join",
        1.1,
        10_000,
        "Equal: as the sleepers, and each awaits a new future of the loop, so that none of them "
        "is in an operation of nurseryio. Not equal: as for the sleepers. Trio has no such wait.",
        fixed=True,
    ),
    Row(
        "scope",
        "enter and leave a scope (`timeout(None)`)",
        0.6,
        20_000,
        "Equal: no deadline, nothing awaited inside. Not equal: asyncio's is an async context "
        "manager, the others' are plain ones; asyncio's cannot be cancelled by hand except "
        "through reschedule.",
    ),
    Row(
        "move_on_idle",
        "`move_on_after`, not fired, body does not block",
        0.65,
        10_000,
        "Equal: a deadline an hour away is set and taken back. Not equal: asyncio's raises and"
        " is caught outside, ours ends quietly; asyncio makes a timer each time.",
    ),
    Row(
        "move_on_blocks",
        "`move_on_after`, not fired, body blocks once",
        0.85,
        8000,
        "Equal: as above, and the body lets others run once (one round of the loop).",
    ),
    Row(
        "move_on_fired",
        "`move_on_after`, fired",
        0.9,
        4000,
        "Equal: a timeout of zero around an hour's sleep. Not equal: asyncio parks the task "
        "and cancels it in the next round; level-triggered scopes raise at the first "
        "checkpoint.",
    ),
    Row(
        "move_on_fired_late",
        "`move_on_after`, fired while parked",
        0.9,
        200,
        "Equal: a timeout of two milliseconds fires while the task is parked in an hour's sleep."
        " CPU time, so the waiting itself does not count.",
    ),
    Row(
        "fail_after_fired",
        "`fail_after`, fired",
        1.0,
        4000,
        "Equal: as `move_on_after`, fired, and an error is raised and caught outside. Not "
        "equal: as there.",
    ),
    Row(
        "checkpoint",
        "checkpoint (`sleep(0)`)",
        1.05,
        20_000,
        "Equal: one round of the loop each. Not equal: ours also looks for a cancelled scope. "
        "Trio and anyio: lowlevel.checkpoint().",
    ),
    Row(
        "checkpoint_deep",
        "checkpoint under 100 nested scopes",
        1.05,
        20_000,
        "Equal: as the checkpoint, inside 100 scopes (asyncio: timeouts) that are never left "
        "by a cancellation.",
    ),
    Row(
        "sleep_zero",
        "`sleep(0)` by that name",
        None,
        20_000,
        "Equal: as the checkpoint, through each library's sleep(0).",
    ),
    Row(
        "timers",
        "10,000 timers",
        0.95,
        10_000,
        "Equal: 10,000 tasks asleep at once, each for its own time within 20 ms, in no sorted "
        "order; CPU time.",
        fixed=True,
    ),
    Row(
        "event_ping_pong",
        "event ping-pong",
        1.0,
        5000,
        "Equal: two tasks park and wake each other once per turn. Not equal: asyncio clears an"
        " event and uses it again, the others have one-shot events and make a new one.",
    ),
    Row(
        "lock_free",
        "lock, uncontended",
        5.0,
        10_000,
        "Equal: acquire and release. Not equal: asyncio's does not let others run; the others'"
        " acquire is a checkpoint, a round of the loop each time, and records the owner.",
    ),
    Row(
        "lock_contended",
        "lock, contended",
        1.0,
        5000,
        "Equal: ten tasks, the holder lets others run once. Not equal: the others' hand the "
        "lock over fairly and know its owner; asyncio's wakes the next waiter, who then takes "
        "it.",
    ),
    Row(
        "semaphore",
        "semaphore",
        1.0,
        5000,
        "Equal: ten tasks, three permits, the holder lets others run once. Not equal: as for "
        "the lock.",
    ),
    Row(
        "limiter",
        "capacity limiter, against asyncio.Semaphore",
        1.0,
        5000,
        "Equal: as the semaphore. Not equal: a limiter also knows its borrowers; asyncio has "
        "nothing of the kind.",
    ),
    Row(
        "channel_direct",
        "memory channel 0, against Queue(1)",
        1.0,
        5000,
        "Equal: one sender, one receiver, time per item. Not equal: asyncio has no rendezvous,"
        " its queue holds one item; the channel ends by being closed, the queue by a count.",
    ),
    Row(
        "channel_buffered",
        "memory channel 100, against Queue(100)",
        3.5,
        10_000,
        "Equal: one sender, one receiver, a hundred places. Not equal: the channel's send and "
        "receive are checkpoints (a round of the loop each; with ours, every eighth of them); "
        "Queue's put and get let others run only when full or empty.",
    ),
    Row(
        "channel_fan_in",
        "memory channel fan-in, 100 producers",
        1.2,
        10_000,
        "Equal: a hundred senders, one receiver, ten places. Not equal: as above.",
        tiny=200,
    ),
    Row(
        "thread_hop",
        "worker-thread hop",
        1.0,
        1000,
        "Equal: a function that does nothing runs in a warm worker thread with the caller's "
        "context variables. Not equal: the others count threads with a limiter. CPU time of "
        "all threads.",
        tiny=5,
    ),
    Row(
        "read_lines",
        "lines from a socket",
        0.9,
        20_000,
        "Equal: a thousand lines of 42 bytes are in the socket's buffer, and are received one by "
        "one, each as bytes. asyncio: StreamReader.readline(). anyio: BufferedByteReceiveStream."
        "receive_until(). Trio: by hand, as in its documentation. Not equal: ours looks for a "
        "cancelled scope at each line, and lets others run at every 128th; asyncio's and anyio's "
        "do neither for lines that are there.",
        tiny=2000,
    ),
)

BY_NAME: dict[str, Row] = {row.name: row for row in ROWS}
