"""``TraceFile``: an instrument that writes a trace which Perfetto and chrome://tracing open.

The file is in the Trace Event Format, as a JSON array with one event in a line. The closing bracket
is optional in that format, so a file whose program was killed can be opened too.

Each task is a track. On it are slices, nested by time:

* a *step* is a time in which the task runs;
* a *wait* is a time between two steps; its name is the kind of the wait;
* a *scope* or *nursery* lasts from the end of the step that has entered it to the end of the step
  that has left it. Scopes that are entered and left in one step are not seen.

Arrows lead from a task that spawns another one to the first step of that task, and from a task that
wakes or cancels another one to that task's next step.

Rule 1: memory is bounded: it holds data of the tasks that have not ended, and a buffer.

Rule 2: the times of a track's slices never overlap without one containing the other. So scopes
begin and end only at the ends of steps.

Rule 3: an error in a hook removes the instrument, as with every instrument. So a full disk ends the
trace and not the program.
"""

from __future__ import annotations

import json
import os
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._asyncio.compat import current_task_or_none
from .._base.abcs import Instrument
from .._core.task import await_frames, records
from .._observe.drawing import scope_line
from .._observe.open_scopes import OpenScopes
from .._observe.places import places_of, program_place
from .._observe.task_tree import scope_info, sentence_of
from .._observe.wait_parts import name_of_task
from .._observe.waits import wait_of

if TYPE_CHECKING:
    from typing import TextIO

    from typing_extensions import Self

    from .._core.task import Task

# The events are written to the file when the buffer has this many characters.
BUFFER = 1 << 16


class TraceFile(Instrument):
    """Writes what the tasks of a loop do to a file that Perfetto and chrome://tracing open.

    Give it to ``run(..., instruments=[TraceFile("run.json")])``, or to
    ``lowlevel.add_instrument()`` on a loop that is running already. Then open the file at
    https://ui.perfetto.dev or in chrome://tracing. Each task is a track with its steps, waits,
    scopes and nurseries. Arrows show which task has spawned, woken or cancelled which.

    The trace is written while the program runs, and needs little memory. Times are real time, also
    under a virtual clock.

    Args:
        path: The file. One that exists is overwritten.
        waits: Whether a wait is named after what the task waits for, and has the line at which it
            waits. That takes most of the time that the instrument takes.
        max_bytes: The size at which a file is complete: it is renamed to ``path`` with ``.1`` at
            the end, in place of an older one, and a new file is begun. None for one file of any
            size.

    Raises:
        OSError: The file cannot be opened.
        ValueError: ``max_bytes`` is less than 100,000.

    Trio: none.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, waits: bool = True, max_bytes: int | None = None
    ) -> None:
        if max_bytes is not None and max_bytes < 100_000:
            raise ValueError("max_bytes must be at least 100,000, or None")
        self._path = os.fspath(path)
        self._names_waits = waits
        self._max_bytes = max_bytes
        self._pid = os.getpid()
        self._numbers = count(1)
        self._arrows = count(1)
        self._tracks: dict[Task, _Track] = {}
        self._file: TextIO | None = None
        self._buffer: list[str] = []
        self._buffered = self._written = 0
        self._open()

    def __repr__(self) -> str:
        state = "closed" if self._file is None else f"{self._written} characters"
        return f"<nurseryio.instruments.TraceFile {self._path!r}, {state}>"

    # -- the file ------------------------------------------------------------------

    def _open(self) -> None:
        self._file = open(self._path, "w", encoding="utf-8")
        self._written = 0
        self._put_text("[\n")
        self._put({"ph": "M", "name": "process_name", "args": {"name": "nurseryio"}})
        for track in self._tracks.values():
            self._name(track)

    def close(self) -> None:
        """Complete the file. Events that come later are lost. A second call does nothing."""
        if self._file is not None and os.getpid() == self._pid:
            for task, track in list(self._tracks.items()):
                self._end_track(task, track, _now())
            self._put_text('{"ph": "M", "name": "end", "pid": 0, "tid": 0, "args": {}}\n]\n')
            self._flush()
            file, self._file = self._file, None
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def _put(self, event: dict[str, Any]) -> None:
        event.setdefault("tid", 0)
        event["pid"] = self._pid
        self._put_text(json.dumps(event, ensure_ascii=False, default=str) + ",\n")

    def _put_text(self, text: str) -> None:
        self._buffer.append(text)
        self._buffered += len(text)
        if self._buffered >= BUFFER:
            self._flush()

    def _flush(self) -> None:
        text = "".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        if self._file is None or os.getpid() != self._pid:  # a forked child
            return
        self._file.write(text)
        self._file.flush()
        self._written += len(text)
        if self._max_bytes is not None and self._written >= self._max_bytes:
            self._file.close()
            os.replace(self._path, f"{self._path}.1")
            self._open()

    # -- hooks -----------------------------------------------------------------------

    def after_run(self) -> None:
        """The run is over: complete the file."""
        self.close()

    def task_spawned(self, task: Task) -> None:
        """A task has been made."""
        track = self._track(task)
        self._begin_arrow(track, "spawn")

    def task_scheduled(self, task: Task) -> None:
        """A task has become ready."""
        track = self._track(task)
        if not track.arrow:
            self._begin_arrow(track, "cancel" if task.scope._effective else "wake")

    def before_task_step(self, task: Task) -> None:
        """A task is about to run."""
        now = _now()
        track = self._track(task)
        if track.waits_since is not None:
            event = {"ph": "X", "cat": "wait", "name": track.wait, "ts": track.waits_since}
            event |= {"dur": now - track.waits_since, "tid": track.number}
            self._put(event | {"args": track.wait_details})
            track.waits_since = None
        if track.arrow:
            event = {"ph": "f", "bp": "e", "cat": track.arrow_kind, "name": track.arrow_kind}
            self._put(event | {"id": track.arrow, "ts": now, "tid": track.number})
            track.arrow = 0
        track.step_since = now

    def after_task_step(self, task: Task) -> None:
        """A task has run, up to its next suspension or its end."""
        now = _now()
        track = self._tracks.get(task)
        if track is None:
            return
        if track.step_since is not None:
            event = {"ph": "X", "cat": "step", "name": "step", "ts": track.step_since}
            self._put(event | {"dur": now - track.step_since, "tid": track.number})
            track.step_since = None
        if compat.is_over(task.asyncio_task):
            self._end_track(task, track, now)
            return
        self._follow_scopes(task, track, now)
        track.waits_since, track.wait, track.wait_details = now, "wait", {}
        if self._names_waits:
            track.wait, track.wait_details = _describe_wait(task)

    # -- tracks ------------------------------------------------------------------------

    def _track(self, task: Task) -> _Track:
        track = self._tracks.get(task)
        if track is None:
            track = self._tracks[task] = _Track(next(self._numbers), name_of_task(task))
            self._name(track)
        return track

    def _name(self, track: _Track) -> None:
        for kind, value in (("thread_name", track.name), ("thread_sort_index", track.number)):
            key = "name" if kind == "thread_name" else "sort_index"
            self._put({"ph": "M", "name": kind, "tid": track.number, "args": {key: value}})

    def _end_track(self, task: Task, track: _Track, now: float) -> None:
        for _, (name, since, details) in track.scopes.all_left():
            self._slice_of_scope(track, name, since, now, details)
        self._tracks.pop(task, None)

    def _begin_arrow(self, track: _Track, kind: str) -> None:
        running: Any = current_task_or_none()
        source = self._tracks.get(records.get(running)) if running is not None else None  # type: ignore[arg-type]
        if source is None or source is track or source.step_since is None:
            return
        track.arrow, track.arrow_kind = next(self._arrows), kind
        event = {"ph": "s", "cat": kind, "name": kind, "id": track.arrow}
        self._put(event | {"ts": _now(), "tid": source.number})

    def _follow_scopes(self, task: Task, track: _Track, now: float) -> None:
        """Note the scopes that the task has entered, and write those that it has left."""
        for _, (name, since, details) in track.scopes.left(task):
            self._slice_of_scope(track, name, since, now, details)
        for node, (_, _, details) in track.scopes.known.items():
            if node._effective and not details:
                details["cancelled"] = reason = sentence_of(node)
                event = {"ph": "i", "s": "t", "cat": "cancel", "name": reason}
                self._put(event | {"ts": now, "tid": track.number})
        for node in track.scopes.entered(task):
            info = scope_info(node, task._state.loop.time())
            track.scopes.known[node] = (scope_line(info), now, {})

    def _slice_of_scope(
        self, track: _Track, name: str, since: float, now: float, details: dict[str, Any]
    ) -> None:
        kind = "nursery" if name.startswith("nursery") else "scope"
        event = {"ph": "X", "cat": kind, "name": name, "ts": since, "dur": now - since}
        self._put(event | {"tid": track.number, "args": details})


class _Track:
    """What is known of one task."""

    __slots__ = (
        "arrow",
        "arrow_kind",
        "name",
        "number",
        "scopes",
        "step_since",
        "wait",
        "wait_details",
        "waits_since",
    )

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        # The open scopes: name, beginning, details.
        self.scopes: OpenScopes[tuple[str, float, dict[str, Any]]] = OpenScopes()
        self.step_since: float | None = None
        self.waits_since: float | None = None
        self.wait = ""
        self.wait_details: dict[str, str] = {}
        # The number of the arrow that leads to the next step, 0 for none.
        self.arrow = 0
        self.arrow_kind = ""


def _now() -> float:
    """The time in microseconds, as the format has it."""
    return time.perf_counter_ns() / 1000


def _describe_wait(task: Task) -> tuple[str, dict[str, str]]:
    """The kind of the wait of a task that was just suspended, and what there is to say about it."""
    frames = list(await_frames(task.coro))
    place = program_place(places_of(frames))
    details = {} if place is None else {"at": str(place)}
    if compat.waiter(task.asyncio_task) is None:
        return "yield", details
    wait = wait_of(task.asyncio_task, task, frames)
    return wait.kind, {"text": wait.text, **details}
