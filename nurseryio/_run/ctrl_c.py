"""The effect of Ctrl-C on a run, the first time and again.

==============================  ===============================  ===============================
Ctrl-C is pressed               before the main task has ended   after that
==============================  ===============================  ===============================
where it may be raised (``ki``) ``KeyboardInterrupt``, on the    the same
                                spot
elsewhere, for the first time   the main task is interrupted at  stderr shows what the run waits
                                its next opportunity             for
again                           all tasks are cancelled          the run gives up and ends
once more                       the run gives up and ends
==============================  ===============================  ===============================

Rule 1: the count. Ctrl-C is pressed "again" while the previous interruption has not been raised in
the main task as a ``KeyboardInterrupt``. A program may catch that error and continue. Then the next
Ctrl-C is a first one.

Rule 2: from the second time on, a ``KeyboardInterrupt`` leaves the loop. It is raised in the user
code that is running, or else in a callback. Code of the engine and of asyncio may be interrupted
half-way in one case: a run that has given up does not end within ``LATE`` seconds of real time.

Rule 3: the ``KeyboardInterrupt`` has a note that shows the tasks of that moment. The tree of tasks
is drawn where the error is raised, not in a signal handler that interrupted the loop. Drawing takes
a while and runs code of other libraries. If the error was not raised in the program, its traceback
shows where the main task was.

Rule 4: another error may replace the ``KeyboardInterrupt``: the error of a time limit, which also
comes from a signal handler (:meth:`CtrlC.interrupt`).

Rule 5: a signal may arrive while another one is being handled. Signals are put in a queue, so that
none is lost. Nothing is raised while a signal is being counted.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from .._asyncio import compat
from .._base.errors import Cancelled, CancelReason, RequestReason
from .._base.exc_fields import add_note
from .._base.outcome import Error
from .._base.util import safe_repr
from .._core.delivery import abort_wait
from .._core.ki import is_protected, may_be_torn, place_of
from .driving import LATE
from .leftovers import TURNS

if TYPE_CHECKING:
    import types
    from collections.abc import Callable
    from typing import NoReturn

    from .._core.task import Task
    from .driving import Driver
    from .leftovers import Leftovers

# The reason for cancelling the main task where no KeyboardInterrupt can be raised in it.
KI_REASON = RequestReason("KeyboardInterrupt")


class CtrlC:
    """Ctrl-C in one run.

    Attributes:
        pending: an interruption has arrived and its error has not been raised yet.
        ever: Ctrl-C was pressed at least once.
        main: the main task, once it exists.
        main_over: the main task has ended.
    """

    def __init__(
        self, loop: compat.Loop, driver: Driver, leftovers: Leftovers, at_checkpoints: bool
    ) -> None:
        self._loop = loop
        self._driver = driver
        self._leftovers = leftovers
        self._at_checkpoints = at_checkpoints
        self.pending: bool = False
        self.ever: bool = False
        self.main_over = False
        self.main: Task | None = None
        # The number of interruptions in a row, see rule 1.
        self._times = 0
        # Interruptions that are not counted yet: an error to raise, or None for Ctrl-C.
        self._arrived: deque[BaseException | None] = deque()
        self._counting = False
        # The error of the latest interruption, whether it lacks its note, and the place of the main
        # task at that time.
        self._error: BaseException = KeyboardInterrupt()
        self._without_note = False
        self._place: types.TracebackType | None = None
        # When the run gave up because of Ctrl-C (real seconds).
        self._given_up = inf
        # Whether the error is still to be raised out of the loop.
        self._leaving = False
        # The wait of the main task whose abort function kept the interruption for later.
        self._kept_in: Any = None
        # The thread in which an abort function is being called.
        self._asking: int | None = None

    # -- in the signal handler --------------------------------------------------

    def press(self, frame: types.FrameType | None) -> None:
        """Handle Ctrl-C, which was pressed while ``frame`` was running."""
        self.ever = True
        self.interrupt(frame, None)

    def interrupt(self, frame: types.FrameType | None, error: BaseException | None) -> None:
        """Interrupt the main task with ``error``, or end the run if it is not the first one.

        Args:
            frame: the frame that was running. If there is an ``error``, the caller has found that
                this frame must not be interrupted on the spot.
            error: the error to raise; None for the ``KeyboardInterrupt`` of Ctrl-C.
        """
        leaving: BaseException | None = None
        self._arrived.append(error)
        try:
            while self._arrived and not self._counting:
                self._counting = True
                try:
                    raised = self._count(frame, self._arrived.popleft(), leaving is None)
                    leaving = raised or leaving
                finally:
                    self._counting = False
            if leaving is not None:
                if isinstance(leaving, KeyboardInterrupt):
                    self._add_note(leaving)
                raise leaving
        finally:
            del error, leaving  # no reference cycle: the traceback refers to this frame

    def _count(
        self, frame: types.FrameType | None, error: BaseException | None, first: bool
    ) -> BaseException | None:
        """Count one interruption. Returns the error to raise on the spot, if any.

        Args:
            frame: the frame that was running.
            error: as for :meth:`interrupt`.
            first: no earlier one in the queue is to be raised on the spot.
        """
        if error is None and first and not self._at_checkpoints and not is_protected(frame):
            return KeyboardInterrupt()
        if not self.pending and not self._is_kept():
            self._times = 0
        self._times += 1
        self.pending = True
        self._error = KeyboardInterrupt() if error is None else error
        self._without_note = error is None
        if self._times == 1:
            self._soon(self._say if self.main_over else self.interrupt_main)
            return None
        now = time.monotonic()
        hopeless = now - self._given_up > LATE
        if self.main_over or self._times > 2:
            self._driver.given_up = True
            self._given_up = min(now, self._given_up)
        self._leaving = True
        self._soon(self._leave)
        self._soon(partial(self._say_later, TURNS))
        return self._error if hopeless or not may_be_torn(frame) else None

    def _soon(self, callback: Callable[[], object]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback)

    def _add_note(self, error: BaseException) -> None:
        """Add a note that shows the tasks of this moment."""
        if error is self._error:
            self._without_note = False
        add_note(error, f"When Ctrl-C was pressed, there were {self._leftovers.describe()}")

    def _is_kept(self) -> bool:
        """Whether the main task is still in the wait that kept the last interruption for later."""
        main = self.main
        return self._kept_in is not None and main is not None and main._park is self._kept_in

    # -- on the loop ------------------------------------------------------------

    def _say_later(self, turns: int) -> None:
        """Show what the run waits for if it does not end in ``turns`` iterations of the loop."""
        if turns:
            self._loop.call_soon(self._say_later, turns - 1)
        elif not self._leftovers.over:
            self._show()

    def _say(self) -> None:
        if self._times == 1:
            self._show()

    def _show(self) -> None:
        """Show what the run waits for."""
        with contextlib.suppress(Exception):  # stderr may be closed, or not there
            sys.stderr.write(
                f"Ctrl-C: run() waits for {self._leftovers.describe()}\n"
                "Press Ctrl-C again to end at once.\n"
            )
            sys.stderr.flush()

    def _leave(self) -> None:
        if self._leaving:
            if self._without_note:
                self._add_note(self._error)
            raise self._error.with_traceback(self._find_main())

    def has_left(self) -> None:
        """Note that an error has left the loop, so :meth:`_leave` must not raise any more."""
        self._leaving = False

    def interrupt_main(self) -> None:
        """Raise ``KeyboardInterrupt`` where the main task waits, or cancel the task."""
        if not self.pending:
            return
        if self._without_note:
            self._add_note(self._error)
        task = self.main
        if task is None or self.main_over:
            return
        self._place = self._find_main()
        error = self._error
        park = task._park
        if park is not None and not park.done() and task._abort is not None:
            self._asking = threading.get_ident()
            try:
                agreed = abort_wait(task, self._raise_ki)
            except BaseException as exc:
                if not park.done():
                    park.set_result(Error(exc))
                return
            finally:
                self._asking = None
            if agreed and not park.done():
                park.set_result(Error(error))
                self.pending = False
            elif not self.pending:
                self._kept_in = park
            if not self.pending:
                self.forget()
        if self.pending:
            # The task is at a checkpoint, in an await of asyncio code, or in a wait that cannot be
            # aborted. Cancel the task there or at its next await. run() raises KeyboardInterrupt.
            task.asyncio_task.cancel(self._reason())

    def _reason(self) -> CancelReason:
        if isinstance(self._error, KeyboardInterrupt):
            return KI_REASON
        return RequestReason("native", reason=safe_repr(self._error))

    def _raise_ki(self) -> NoReturn:
        if self._asking == threading.get_ident():
            self.pending = False
            raise self._error
        # Called later, after the abort function returned FAILED: by a worker thread, for example.
        raise Cancelled(self._reason())

    def _find_main(self) -> types.TracebackType | None:
        if self.main is None:
            return None
        with contextlib.suppress(Exception):
            return place_of(self.main)
        return None

    # -- at the end -------------------------------------------------------------

    def take(self, error: BaseException | None) -> BaseException:
        """Return the pending ``KeyboardInterrupt`` or other error, for the caller to raise.

        Args:
            error: the error that the main task raised, if any.
        """
        self.pending = False
        place = error.__traceback__ if isinstance(error, Cancelled) else self._place
        interrupt = self._error.with_traceback(place)
        self.forget()
        return interrupt

    def forget(self) -> None:
        """Drop the latest error. Its traceback refers to this object: avoid a reference cycle."""
        self._error = KeyboardInterrupt()
        self._place = None
