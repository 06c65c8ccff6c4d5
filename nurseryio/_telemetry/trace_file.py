"""``TraceFile``: an instrument that writes a trace which Perfetto and chrome://tracing open.

The file is in the Trace Event Format, as a JSON array with one event in a line. The closing bracket
is optional in that format, so a file whose program was killed can be opened too.

Each task is a track. On it are slices, nested by time:

* a *step* is a time in which the task runs;
* a *wait* is a time between two steps; its name is the kind of the wait;
* a *scope* or *nursery* lasts from the end of the step that has entered it to the end of the step
  that has left it. Scopes that are entered and left in one step are not seen.

A mark stands where a scope is cancelled, and where a task ends with an error. Arrows lead from a
task that spawns another one to the first step of that task, and from a task that wakes or cancels
another one to that task's next step.

Rule 1: memory is bounded: it holds data of the tasks that have not ended, and a buffer.

Rule 2: the times of a track's slices never overlap without one containing the other. So scopes
begin and end only at the ends of steps. Times are integers (nanoseconds) that JSON's exponent turns
into microseconds, so no rounding makes two slices overlap.

Rule 3: waits and scopes are written as they begin and as they end. So the file of a program that
was killed shows what each task was waiting for. A step and its arrows are written together, as the
step ends: the format draws an arrow only between slices that stand before it.

Rule 4: each file of a rotation is complete: the slices that are open end in the old file and begin
again in the new one.

Rule 5: an error in a hook removes the instrument, as with every instrument. So a full disk ends the
trace and not the program. The file then ends with a whole line.

Rule 6: only the process that has made the file writes to it. The descriptor has no buffer besides
this module's, because a forked child would write such a buffer at its end.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from contextlib import suppress
from itertools import count
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING

from .._asyncio import compat
from .._base.abcs import Instrument
from .._core.task import await_frames, records
from .._observe.drawing import scope_line
from .._observe.open_scopes import OpenScopes
from .._observe.places import Place, rank_of_place
from .._observe.task_tree import scope_info, sentence_of
from .._observe.wait_parts import name_of_task
from .._observe.waits import wait_of
from .reported import error_line, error_of, is_cancellation, is_of_run

if TYPE_CHECKING:
    import types
    from collections.abc import Callable

    from typing_extensions import Self

    from .._core.task import Task

# The events are written to the file when the buffer has this many characters,
BUFFER = 1 << 16
# when the loop is about to sleep for this long (seconds),
LONG_SLEEP = 0.05
# and when this time has passed since the last time (nanoseconds).
PATIENCE = 500_000_000
# The most characters of a name or text.
LONGEST = 1000

# The most lines of the program whose texts are kept.
MOST_LINES = 10_000

# All traces of a process have the same zero, and small numbers.
_ZERO = time.perf_counter_ns()


class TraceFile(Instrument):
    """Writes what the tasks of a loop do to a file that Perfetto and chrome://tracing open.

    Give it to ``run(..., instruments=[TraceFile("run.json")])``, or to
    ``lowlevel.add_instrument()`` on a loop that is running already. Then open the file at
    https://ui.perfetto.dev or in chrome://tracing. Each task is a track with its steps, waits,
    scopes and nurseries. Marks show cancellations and errors. Arrows show which task has spawned,
    woken or cancelled which.

    The trace is written while the program runs, and needs little memory. Times are real time, also
    under a virtual clock. If the process is killed, the file can be opened all the same. It then
    ends at the moment at which the loop last went to sleep, or half a second earlier at most.

    If writing fails, because the disk is full for example, the trace ends and the program goes on.
    A forked child does not write to the file.

    Args:
        path: The file. One that exists is overwritten.
        waits: Whether a wait is named after what the task waits for, and has the line at which it
            waits. That takes about half of the time that the instrument takes.
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
        # Absolute, because the program may change its directory before the file is renamed.
        self._path = os.path.abspath(os.fspath(path))
        self._names_waits = waits
        self._max_bytes = max_bytes
        self._pid = os.getpid()
        self._numbers = count(1)
        self._arrows = count(1)
        self._tracks: dict[Task, _Track] = {}
        # The track of the task whose step it is.
        self._running: _Track | None = None
        # Whether the tasks that were there before the instrument have been seen.
        self._looked = False
        # By the id of the code, which is kept alive, and the line: rank and text of a place.
        self._lines: dict[tuple[int, int], tuple[int, str, types.CodeType]] = {}
        self._descriptor: int | None = None
        self._buffer: list[str] = []
        self._buffered = self._written = 0
        self._flushed = _now()
        self._open()

    def __repr__(self) -> str:
        state = "closed" if self._descriptor is None else f"{self._written} bytes"
        return f"<nurseryio.instruments.TraceFile {self._path!r}, {state}>"

    # -- the file ------------------------------------------------------------------

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(self._path, flags | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._written = 0
        self._put(
            f'[\n{{"ph":"M","name":"process_name","pid":{self._pid},"tid":0,'
            '"args":{"name":"nurseryio"}},\n'
        )

    def close(self) -> None:
        """Complete the file. Events that come later are lost. A second call does nothing.

        Raises:
            OSError: The file cannot be written.
        """
        if self._descriptor is None or os.getpid() != self._pid:
            return
        self._end_file()
        self._tracks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self.close()

    def _end_file(self) -> None:
        """End all slices that are open, write everything and close the file."""
        now = _now()
        for track in self._tracks.values():
            if track.step_since is not None:
                self._put_unflushed(self._step(track, now))
                track.step_since = now  # of the rest, which is in the next file
            track.end_all(now, self._put_unflushed)
        # The last event has no comma behind it.
        self._put_unflushed(
            f'{{"ph":"M","name":"process_sort_index","pid":{self._pid},"tid":0,'
            '"args":{"sort_index":0}}\n]\n'
        )
        self._write()
        self._close_descriptor()

    def _close_descriptor(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _put_unflushed(self, text: str) -> None:
        self._buffer.append(text)
        self._buffered += len(text)

    def _put(self, text: str) -> None:
        self._buffer.append(text)
        self._buffered += len(text)
        if self._buffered >= BUFFER:
            self._flush(_now())

    def _flush(self, now: int) -> None:
        """Write the buffer, and begin a new file if this one is long enough."""
        self._flushed = now
        self._write()
        if self._max_bytes is not None and self._written >= self._max_bytes:
            self._rotate(now)

    def _write(self) -> None:
        text = "".join(self._buffer)
        self._buffer.clear()
        self._buffered = 0
        if self._descriptor is None or os.getpid() != self._pid:  # a forked child
            return
        data = memoryview(text.encode("ascii"))
        try:
            while data:
                done = os.write(self._descriptor, data)
                if not done:
                    raise OSError(errno.EIO, "nothing was written", self._path)
                self._written += done
                data = data[done:]
        except BaseException:
            self._give_up(text, len(data))
            raise

    def _give_up(self, text: str, left: int) -> None:
        """Close a file that cannot be written, after its last whole line."""
        written = text[: len(text) - left]
        part = len(written) - (written.rfind("\n") + 1)
        with suppress(OSError):  # a pipe cannot be cut
            if self._descriptor is not None and part:
                os.ftruncate(self._descriptor, self._written - part)
        with suppress(OSError):
            self._close_descriptor()
        self._tracks.clear()

    def _rotate(self, now: int) -> None:
        if self._descriptor is None:
            return
        self._end_file()
        os.replace(self._path, f"{self._path}.1")
        self._open()
        for track in self._tracks.values():
            self._put_unflushed(track.named() + track.begin_again(now))

    # -- hooks -----------------------------------------------------------------------

    def after_run(self) -> None:
        """The run is over: complete the file."""
        self.close()

    def before_io_wait(self, timeout: float) -> None:
        """The loop is about to wait: write what there is if that may take long."""
        if self._buffer and timeout >= LONG_SLEEP:
            self._flush(_now())

    def task_spawned(self, task: Task) -> None:
        """A task has been made."""
        track = self._tracks.get(task) or self._new_track(task)
        if track is not None:
            self._begin_arrow(track, "spawn")

    def task_scheduled(self, task: Task) -> None:
        """A task has become ready."""
        track = self._tracks.get(task) or self._new_track(task)
        if track is None or track.arrow_from:
            return
        if not _is_interrupted(task):
            self._begin_arrow(track, "wake")
            return
        self._begin_arrow(track, "cancel")
        # The deadline of a scope, for example, is over outside of any step.
        now = _now()
        if track is not self._running:
            self._put_unflushed(track.cancelled(now))
        self._note_cancelled(task, now)

    def before_task_step(self, task: Task) -> None:
        """A task is about to run."""
        track = self._tracks.get(task) or self._new_track(task)
        self._running = track
        if track is not None:
            track.step_since = _now()

    def task_exited(self, task: Task) -> None:
        """A task has ended."""
        track = self._tracks.get(task)
        error = error_of(task)
        try:
            if track is not None and error is not None and not is_cancellation(error):
                track.error = _text(error_line(error))
        finally:
            del error

    def after_task_step(self, task: Task) -> None:
        """A task has run, up to its next suspension or its end."""
        now = _now()
        self._running = None
        track = self._tracks.get(task)
        if track is None or self._descriptor is None:
            return
        text = "" if track.step_since is None else self._step(track, now)
        if not track.settled:
            # asyncio and programs name a task after it was made: look once more.
            track.settled = True
            if name_of_task(task) != track.name:
                track.name = name_of_task(task)
                text += track.named()
        if compat.is_over(task.asyncio_task):
            text += track.cancelled(now)
            if track.error:
                text += _mark("error", track.error, now, track.ids)
                self._note_cancelled(task, now)
            self._put(text)
            track.end_all(now, self._put)
            self._tracks.pop(task, None)
            return
        if track.scopes.changed(task) or track.scopes.known:
            text += self._follow_scopes(task, track, now)
        text += self._begin_wait(task, track, now)
        self._put(text)
        if now - self._flushed > PATIENCE and self._buffer:
            self._flush(now)

    # -- tracks ------------------------------------------------------------------------

    def _new_track(self, task: Task) -> _Track | None:
        """The track of a task that has none yet; None for the tasks of ``run()`` itself."""
        if not self._looked:
            self._looked = True
            self._look_at_all(task)
        if self._descriptor is None or is_of_run(task):
            return None
        track = self._tracks.get(task)  # the task that runs now has one since the look at all
        if track is None:
            track = self._tracks[task] = self._next_track(task)
            self._put_unflushed(track.named())
        return track

    def _next_track(self, task: Task) -> _Track:
        return _Track(next(self._numbers), name_of_task(task), self._pid)

    def _look_at_all(self, first: Task) -> None:
        """Begin the tracks of the tasks that wait already. Called before the first event."""
        now = _now()
        asyncio_task = asyncio.current_task(first._state.loop)
        running = None if asyncio_task is None else records.get(asyncio_task)
        if running is not None and running is not first and not is_of_run(running):
            # It may be the first task of all, so its track comes first.
            track = self._tracks[running] = self._next_track(running)
            self._put_unflushed(track.named())
        for task in records.copy().values():
            if task._state is not first._state or task is first or is_of_run(task):
                continue
            asyncio_task = task.asyncio_task
            if (
                task in self._tracks
                or compat.is_over(asyncio_task)
                or compat.waiter(asyncio_task) is None
            ):
                continue
            track = self._tracks[task] = self._next_track(task)
            text = track.named() + self._follow_scopes(task, track, now)
            self._put_unflushed(text + self._begin_wait(task, track, now))

    def _begin_arrow(self, track: _Track, kind: str) -> None:
        source = self._running
        if source is None or source is track:
            return
        track.arrow_kind, track.arrow_since, track.arrow_from = kind, _now(), source.ids

    def _step(self, track: _Track, now: int) -> str:
        """The end of the wait, the step, and the arrow that leads to it."""
        since, ids = track.step_since, track.ids
        track.step_since = None
        text = f'{{"ph":"X","cat":"step","name":"step","ts":{since}e-3,"dur":{now - since}e-3{ids}'  # type: ignore[operator]
        if track.waits:
            track.waits = False
            text = f'{{"ph":"E","ts":{since}e-3{ids}{text}'
        if track.arrow_from:
            number, kind = next(self._arrows), track.arrow_kind
            text += (
                f'{{"ph":"s","cat":"{kind}","name":"{kind}","id":{number},'
                f'"ts":{track.arrow_since}e-3{track.arrow_from}'
                f'{{"ph":"f","bp":"e","cat":"{kind}","name":"{kind}","id":{number},'
                f'"ts":{since}e-3{ids}'
            )
            track.arrow_from = ""
        return text

    def _begin_wait(self, task: Task, track: _Track, now: int) -> str:
        track.waits = True
        track.wait, track.wait_details = '"wait"', ""
        if self._names_waits:
            try:
                self._describe_wait(task, track)
            except Exception:  # of an awaitable of another library
                pass
        return track.begin_wait(now)

    def _describe_wait(self, task: Task, track: _Track) -> None:
        """Note the kind of the wait of a task that was just suspended, its text and its line."""
        frames = list(await_frames(task.coro))
        at = self._line_of(frames)
        if compat.waiter(task.asyncio_task) is None:
            track.wait_details = f',"args":{{{at[1:]}}}' if at else ""
            track.wait = '"yield"'
            return
        wait = wait_of(task.asyncio_task, task, frames)
        track.wait = _text(wait.kind)
        track.wait_details = f',"args":{{"text":{_text(wait.text)}{at}}}'

    def _line_of(self, frames: list[tuple[types.FrameType, int]]) -> str:
        """The innermost line of the program, as a part of a JSON object; empty if there is none."""
        lines = self._lines
        second = ""
        for frame, line in reversed(frames):
            code = frame.f_code
            key = (id(code), line)  # a code object computes its hash every time
            found = lines.get(key)
            if found is None:
                if len(lines) >= MOST_LINES:
                    lines.clear()
                rank = rank_of_place(code)
                text = _text(str(Place.of(code, line))) if rank else ""
                found = lines[key] = (rank, f',"at":{text}', code)
            if found[0] == 2:
                return found[1]
            if found[0] == 1 and not second:
                second = found[1]
        return second

    def _follow_scopes(self, task: Task, track: _Track, now: int) -> str:
        """The scopes that the task was cancelled in, has left, and has entered."""
        scopes = track.scopes
        text = track.cancelled(now)
        if not scopes.changed(task):
            return text
        for _, scope in scopes.left(task):
            text += scope.end(now, track.ids)
        for node in scopes.entered(task):
            info = scope_info(node, task._state.loop.time())
            scopes.known[node] = scope = _Scope("nursery" if info.nursery else "scope")
            scope.name = _text(scope_line(info))
            text += scope.begin(now, track.ids)
        return text + track.cancelled(now)

    def _note_cancelled(self, task: Task, now: int) -> None:
        """Mark the nurseries around a task that are cancelled. Their tasks may not run soon."""
        nursery = task._parent_nursery
        while nursery is not None and nursery.cancel_scope._effective:
            host = nursery._parent_task
            track = self._tracks.get(host)
            # The events of a running task are written as its step ends.
            if track is not None and track is not self._running:
                scope = track.scopes.known.get(nursery.cancel_scope)
                if scope is not None and scope.cancelled:
                    return
                self._put_unflushed(track.cancelled(now))
            nursery = host._parent_nursery


class _Track:
    """What is known of one task.

    Attributes:
        number: The number of the track in the file.
        name: The task's name.
        ids: The end of each event on this track.
        scopes: The scopes that the task has open.
        settled: Whether the task has made a step, so that it has its final name.
        step_since: When its step has begun; None between two steps.
        waits: Whether a wait is open in the file.
        wait: The name of the wait, as JSON.
        wait_details: The rest of the event of the wait, as JSON.
        error: The error with which the task has ended, as JSON; empty if there is none.
        arrow_from: The end of an event on the track from which an arrow leads to the next step;
            empty if there is none.
        arrow_kind: What the arrow means.
        arrow_since: When it begins.
    """

    __slots__ = (
        "arrow_from",
        "arrow_kind",
        "arrow_since",
        "error",
        "ids",
        "name",
        "number",
        "scopes",
        "settled",
        "step_since",
        "wait",
        "wait_details",
        "waits",
    )

    def __init__(self, number: int, name: str, pid: int) -> None:
        self.number = number
        self.name = name
        self.ids = f',"pid":{pid},"tid":{number}}},\n'
        self.scopes: OpenScopes[_Scope] = OpenScopes()
        self.settled = self.waits = False
        self.step_since: int | None = None
        self.wait = self.wait_details = self.error = ""
        self.arrow_from = self.arrow_kind = ""
        self.arrow_since = 0

    def named(self) -> str:
        """The events that name the track and put it in its place."""
        return (
            f'{{"ph":"M","name":"thread_name","args":{{"name":{_text(self.name)}}}{self.ids}'
            f'{{"ph":"M","name":"thread_sort_index","args":{{"sort_index":{self.number}}}{self.ids}'
        )

    def cancelled(self, now: int) -> str:
        """Marks for the open scopes that are cancelled and have none yet: one for each reason."""
        marks = ""
        for node, scope in self.scopes.known.items():
            # A scope that was left is not effective any more.
            if (node._effective or node._called) and not scope.cancelled:
                scope.cancelled = _text(sentence_of(node))
                mark = _mark("cancel", scope.cancelled, now, self.ids)
                if mark not in marks:
                    marks += mark
        return marks

    def begin_wait(self, now: int) -> str:
        """The beginning of the wait."""
        return (
            f'{{"ph":"B","cat":"wait","name":{self.wait}{self.wait_details},"ts":{now}e-3{self.ids}'
        )

    def begin_again(self, now: int) -> str:
        """The beginnings of all slices that are open, for a new file."""
        text = "".join(scope.begin(now, self.ids) for scope in self.scopes.known.values())
        return text + self.begin_wait(now) if self.waits else text

    def end_all(self, now: int, put: Callable[[str], None]) -> None:
        """The ends of all slices that are open."""
        if self.waits:
            put(f'{{"ph":"E","ts":{now}e-3{self.ids}')
        for scope in reversed(self.scopes.known.values()):
            put(scope.end(now, self.ids))


class _Scope:
    """What is known of one open scope: its kind, its name and the reason of its cancellation."""

    __slots__ = ("cancelled", "kind", "name")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.name = self.cancelled = ""

    def begin(self, now: int, ids: str) -> str:
        """The beginning of its slice."""
        return f'{{"ph":"B","cat":"{self.kind}","name":{self.name},"ts":{now}e-3{ids}'

    def end(self, now: int, ids: str) -> str:
        """The end of its slice."""
        args = f'"args":{{"cancelled":{self.cancelled}}},' if self.cancelled else ""
        return f'{{"ph":"E",{args}"ts":{now}e-3{ids}'


def _is_interrupted(task: Task) -> bool:
    """Whether a task that has just become ready has lost its wait to a cancellation."""
    future = compat.waiter(task.asyncio_task)
    try:
        return future is not None and future.cancelled()
    except Exception:  # of a future of another library
        return False


def _now() -> int:
    """The time in nanoseconds."""
    return time.perf_counter_ns() - _ZERO


def _mark(kind: str, name: str, now: int, ids: str) -> str:
    return f'{{"ph":"i","s":"t","cat":"{kind}","name":{name},"ts":{now}e-3{ids}'


def _text(text: str) -> str:
    """A text as JSON, in ASCII."""
    return encode_basestring_ascii(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")
