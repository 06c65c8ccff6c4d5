"""Cancel scopes: entering and leaving ``CancelScope``, its deadline, its shield and ``cancel()``.

Rule 1: a scope is a node of the scope tree with a deadline. It also records whether it caught a
cancellation (``cancelled_caught``). On the ordinary path, entering and leaving a scope only move
the task's pointer to its innermost scope.

Rule 2: a cancelled scope that is left catches its own ``Cancelled``. If the block raised a group,
the scope takes ``Cancelled`` out of the group and lets the rest pass. It catches nothing while the
cancellation of an outer scope or a native request is in flight too. That cancellation has to reach
code further out. For a native request a group is replaced by its other errors, or by one bare
``Cancelled``, because asyncio does not recognise a ``Cancelled`` in a group.

Rule 3: a scope is for one ``with`` block. Scopes must be left in the reverse order of entry; any
other order raises a ``RuntimeError``. Inner scopes that are then still open stay cancelled. They
are cut off, so that the rest of the tree is not affected.
"""

from __future__ import annotations

import sys
from heapq import heappush
from math import inf
from sys import modules
from typing import TYPE_CHECKING, Any, final

from .._asyncio.compat import (
    HAS_CANCEL_COUNTS,
    current_task as current_asyncio_task,
    running_loop_or_none,
)
from .._base.call_stack import stack_if_wanted
from .._base.errors import Cancelled, CancelReason, misnested, not_entered
from .._base.exc_fields import is_a
from .._base.exception_groups import (
    bare_cancelled,
    is_cancelled,
    is_own_cancelled,
    raise_keeping_context,
    split_out,
)
from .._base.util import SECONDS, OnlyWith, as_float, blank, ensure_stack
from .._core import anyio_hook
from .._core.anyio_hook import BACKEND
from .._core.cancel_ledger import delivered_native_requests, is_native, release_cancel_request
from .._core.delivery import deliver_changes, push_later, recheck
from .._core.loop_state import check_home, is_swept
from .._core.scope_tree import ROOT, Node, abandon, encloses, recalculate
from .._core.task import Task, adopt_current, current_state, current_task, not_in_a_task, records
from . import origins
from .origins import DEADLINE, noted, reason_now, reason_of

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from .._core.deadlines import Entry
    from .._core.loop_state import LoopState


@final
class CancelScope(Node, OnlyWith):
    """A piece of work that can be cancelled as a whole: ``with CancelScope() as scope: ...``.

    The scope is cancelled by :meth:`cancel`, or when its deadline passes. From then on every
    await inside that would block raises :exc:`Cancelled`, until the ``with`` block is left. The
    end of the block catches the exception. A scope may be cancelled before it is entered. It can
    be used for one ``with`` block only.

    Args:
        deadline: when to cancel, in seconds on :func:`current_time`'s clock; ``inf`` for never.
        relative_deadline: the same in seconds after entry; not together with ``deadline``.
        shield: whether cancellation from outside this scope is kept out.

    Attributes:
        cancelled_caught: whether the scope's block was cut short: the scope caught ``Cancelled``.

    Raises:
        ValueError: a deadline is NaN, ``relative_deadline`` is negative, or both are given.
        TypeError: ``shield`` is not a bool, or a deadline is not a number.

    Trio: ``trio.CancelScope``.
    """

    __slots__ = (
        "__weakref__",
        "_anyio_pairing",
        "_deadline",
        "_entered",
        "_entry",
        "_native_requests_at_entry",
        "_relative",
        "cancelled_caught",
    )

    cancelled_caught: bool
    _task: Task | None
    # True from __enter__ on.
    _entered: bool
    # At most one of the two differs from inf; _relative only before entry.
    _deadline: float
    _relative: float
    # The entry in the loop's heap while entered, not cancelled, and the deadline is finite.
    _entry: Entry | None
    # How many native cancel requests had been raised in the task at entry. -1 if other code had
    # already taken back the request that the task's scopes own.
    _native_requests_at_entry: int
    # The AnyioPairing that the anyio bridge makes at entry in an anyio scope; else None.
    _anyio_pairing: Any

    def __init__(
        self, *, deadline: float = inf, relative_deadline: float = inf, shield: bool = False
    ) -> None:
        if deadline != inf or relative_deadline != inf:
            deadline = as_float(deadline, "deadline")
            relative_deadline = as_float(relative_deadline, "relative_deadline", SECONDS)
            if relative_deadline < 0:
                raise ValueError("timeout must be non-negative")
            if deadline != inf and relative_deadline != inf:
                raise ValueError("Cannot specify both a deadline and a relative deadline")
        if shield is not False and shield is not True:
            raise TypeError("shield must be a bool")
        self._deadline = deadline
        self._relative = relative_deadline
        self._shielded = shield
        self._task = self._nursery = self._reason = self._entry = self._anyio_pairing = None
        self._called = self._effective = self._abandoned = self._entered = self.cancelled_caught = (
            False
        )

    def __init_subclass__(cls) -> None:  # a metaclass would make each call slower
        raise TypeError(f"{cls.__module__}.{cls.__qualname__} does not support subclassing")

    # -- entering and leaving ---------------------------------------------------

    def __enter__(self) -> Self:
        # inlined: _core.task.current_task
        try:
            task = records[current_asyncio_task()]  # type: ignore[index]
        except KeyError:
            task = adopt_current()
        except RuntimeError as error:
            not_in_a_task(error)
        if self._entered:
            raise RuntimeError("Each CancelScope may only be used for a single 'with' block")
        try:
            before = 0
            if HAS_CANCEL_COUNTS:
                # inlined: _core.cancel_ledger.native_requests, the ordinary case
                before = task.asyncio_task.cancelling() - task._owns_cancel_request  # type: ignore[attr-defined,unused-ignore]
            self._native_requests_at_entry = (
                delivered_native_requests(task, before) if before > 0 else before
            )
            self._parent = parent = task.scope
            relative = self._relative
            if relative != inf:
                state = task._state
                now = state.loop.time()
                deadline = now + relative
                if not self._called:
                    if relative > 0:
                        # inlined: _core.loop_state.LoopState.add_deadline, unguarded
                        deadlines = state.deadlines
                        deadlines._sequence = sequence = deadlines._sequence + 1
                        self._entry = entry = [deadline, sequence, _expire, self]
                        heappush(deadlines._heap, entry)
                        if deadline < state.armed_at or (
                            state.armed_at < now and state.may_have_lost_timer(now)
                        ):
                            state._arm(min(deadline, deadlines.next()))
                    else:
                        self._called = True
                        self._reason = reason_now() if origins.kept else DEADLINE
                self._deadline = deadline
                self._relative = inf
            elif self._deadline != inf and not self._called:
                self._enter_timed(task)
            self._task = task
            self._entered = True
            if BACKEND in modules:
                anyio_hook.enter(self, task)
            if self._called or parent._effective:
                self._enter_cancelled(task, parent)
            task.scope = self
            return self
        except BaseException:
            self._force_out(task)
            raise

    def _enter_timed(self, task: Task) -> None:
        """Entry with an absolute deadline, which may have passed already."""
        if task._state.loop.time() >= self._deadline:
            self._called = True
            self._reason = reason_now()
        else:
            self._entry = noted(task._state.add_deadline(self._deadline, _expire, self))

    def _enter_cancelled(self, task: Task, parent: Node) -> None:
        """Entry while this scope or its parent is cancelled: set the flag and act on the task."""
        self._effective = self._called or not self._shielded
        if self._effective:
            if self._reason is None:
                self._reason = parent._reason
            recheck(task)  # for awaits of asyncio code; traps check the scope themselves
        else:
            release_cancel_request(task)

    def __exit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        task = self._task
        try:
            if (
                task is not None
                and task.scope is self
                and self._anyio_pairing is None
                and self._nursery is None
                and current_asyncio_task() is task.asyncio_task
            ):
                if not self._effective and not self._shielded:
                    task.scope = self._parent  # type: ignore[assignment]
                    if self._entry is not None:
                        task._state.deadlines.drop(self._entry)
                        self._entry = None
                    self._task = None
                    return False
                swept = type(exc) is GeneratorExit and self._is_swept(exc)
                remaining = exc if swept else self._leave(task, exc, True)
            else:
                remaining = self._close(exc)
        except BaseException:
            # The task's pointer is set first: there may be no stack left to call _force_out().
            if task is not None:
                if self._is_swept(exc):
                    return False
                if task.scope is self:
                    task.scope = ROOT if self._parent is None else self._parent
                try:
                    self._force_out(task)
                except BaseException:
                    task._state.unfinished.append((self._force_out, (task,)))
                    task._state.run_soon()
            raise
        if remaining is exc:
            return False
        if remaining is None:
            return True
        try:
            raise_keeping_context(remaining)
        finally:
            del remaining, exc, tb  # no reference cycle: the traceback holds this frame

    def _is_swept(self, exc: BaseException | None) -> bool:
        """Leave the scope if its coroutine is being closed on a closed loop; return whether so."""
        task = self._task
        if task is not None and is_swept(exc, task._state):
            self._task = None
            return True
        return False

    def _force_out(self, task: Task) -> None:
        """Entering or leaving has failed half-way: put the task outside the scope in any case."""
        outside = ROOT if self._parent is None else self._parent
        if task.scope is self:
            task.scope = outside
        elif self._task is not None and encloses(self, task.scope):
            deliver_changes(abandon(self))  # scopes inside are still open
            task.scope = outside
        self._task = None
        if self._entry is not None:
            task._state.deadlines.drop(self._entry)
            self._entry = None
        if self._anyio_pairing is not None:
            anyio_hook.leave(self)
        if task.asyncio_task is None:
            return
        if not task.scope._effective:
            release_cancel_request(task)
        else:
            recheck(task)

    def _close(self, exc: BaseException | None, maybe_native: bool = True) -> BaseException | None:
        """Leave the scope, whose block raised ``exc``.

        Returns the exception that leaves the scope: ``exc``, the part of it that was not caught,
        an error about scopes left out of order, or None. ``maybe_native`` is false if the
        caller knows that ``exc`` does not come from a native cancel.
        """
        if not self._entered:
            return not_entered(self, exc)
        if self._task is None and not self._abandoned:
            return misnested(f"attempted to exit {self!r} which had already been exited", exc)
        if self._is_swept(exc):
            return exc
        task = current_task()
        if task.scope is self and self._nursery is None:
            return self._leave(task, exc, maybe_native)
        return self._leave_misnested(task, exc)

    def _leave(
        self, task: Task, exc: BaseException | None, maybe_native: bool
    ) -> BaseException | None:
        parent = self._parent
        if parent is None:  # cut off from the tree, because an outer scope was left before this one
            self._release(task)
            return self._take_own(exc)
        was_effective = self._effective
        before = self._native_requests_at_entry
        native = maybe_native and was_effective and exc is not None and is_native(task, before, exc)
        task.scope = parent
        if not parent._effective:
            release_cancel_request(task)
        elif not was_effective or self._shielded:
            recheck(task)  # a shield is gone: awaits of asyncio code are to be interrupted again
        self._release(task)
        visible_from_outside = parent._effective and not self._shielded
        if visible_from_outside and self._called:
            visible_from_outside = not anyio_hook.protects(task)
        if exc is None or not was_effective or visible_from_outside:
            return exc
        if not HAS_CANCEL_COUNTS:
            return self._take_own(exc, marked_only=True)
        if native:
            return bare_cancelled(exc)
        return self._take_own(exc)

    def _take_own(
        self, exc: BaseException | None, marked_only: bool = False
    ) -> BaseException | None:
        """Take ``Cancelled`` out of ``exc``, set ``cancelled_caught`` if there was one.

        Returns the rest, None for nothing. ``marked_only``: take only those that are marked.
        """
        if type(exc) is Cancelled or is_a(exc, Cancelled):
            if not marked_only or is_own_cancelled(exc):
                self.cancelled_caught = True
                return None
        elif is_a(exc, BaseExceptionGroup):
            found, rest = split_out(exc, is_own_cancelled if marked_only else is_cancelled)
            if found:
                self.cancelled_caught = True
                return rest
        return exc

    def _release(self, task: Task) -> None:
        if self._anyio_pairing is not None:
            anyio_hook.leave(self)
        if self._entry is not None:
            task._state.deadlines.drop(self._entry)
            self._entry = None
        self._task = None

    def _leave_misnested(self, task: Task, exc: BaseException | None) -> BaseException | None:
        owner = self._task
        if self._abandoned:
            # An outer scope was left before this one, and that has already raised the error.
            self._task = None
            return self._take_own(exc)
        assert owner is not None
        if not encloses(self, task.scope):
            return misnested(
                f"attempted to exit {self!r}, entered in {owner!r}, from unrelated {task!r}", exc
            )
        if task.scope is self:
            what = f"attempted to exit the cancel scope of {self._nursery!r} before its block"
        else:
            what = (
                f"attempted to exit {self!r} in {task!r} that's still within its child "
                f"{task.scope!r}"
            )
        error = misnested(what + ("" if owner is task else f"; it was entered in {owner!r}"), exc)
        parent = self._parent
        affected = abandon(self)
        if owner.scope is self:
            owner.scope = parent  # type: ignore[assignment]
        task.scope = parent  # type: ignore[assignment]
        self._release(owner)
        deliver_changes(affected)
        if not parent._effective:  # type: ignore[union-attr]
            release_cancel_request(task)
        return self._take_own(error)

    # -- cancelling -------------------------------------------------------------

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the work in this scope now. A second call changes nothing.

        Args:
            reason: a text for people; every :exc:`Cancelled` that this call causes carries it.

        Raises:
            TypeError: ``reason`` is not a string.
            RuntimeError: called from another thread, or on another event loop, while a task is
                in the scope.

        Checkpoint: no. May be called from any code running on the same loop.

        Trio: ``trio.CancelScope.cancel``.
        """
        if self._called:
            return
        if reason is not None and not isinstance(reason, str):
            raise TypeError(f"reason must be a string or None, not {type(reason).__name__}")
        self._check_caller()
        running = running_loop_or_none() is not None and current_asyncio_task() is not None
        source_task = current_task()._repr_later() if running else None
        self._cancel(CancelReason("explicit", reason, source_task, stack_if_wanted()))

    def _check_caller(self) -> None:
        """Raise an error if a change of this scope could not be passed to the tasks inside."""
        if self._task is not None:
            check_home(self._task._state)
            ensure_stack()

    def _cancel(self, reason: CancelReason | None) -> None:
        if self._called:
            return
        if self._reason is None:
            self._reason = reason
        task = self._task
        if task is None:
            self._called = True
            return
        try:
            self._called = True
            if self._entry is not None:
                task._state.deadlines.drop(self._entry)
                self._entry = None
            deliver_changes(recalculate(self))
            if task._extra.edge is not None:
                recheck(task)  # the edge block may be keeping out a cancellation already in effect
        except BaseException:
            push_later(self)
            raise

    def _cancel_alone(self, reason: CancelReason) -> None:
        """Cancel a scope that has no other task inside than its own, which is about to leave it.

        No task's state changes, so nothing has to be delivered.
        """
        self._called = self._effective = True
        if self._reason is None:
            self._reason = reason
        if self._entry is not None:
            self._task._state.deadlines.drop(self._entry)  # type: ignore[union-attr]
            self._entry = None

    @property
    def cancel_called(self) -> bool:
        """Whether the scope has been cancelled, by :meth:`cancel` or by its deadline.

        The block may have ended nevertheless before the cancellation was raised in it. Whether
        the scope caught a cancellation is in ``cancelled_caught``.
        """
        # The deadline may have passed before the loop has called _expire().
        if self._task is not None or not self._entered:
            if not self._called and self._is_due():
                self._check_caller()
                self._cancel(reason_of(self._entry))
        return self._called

    def _is_due(self) -> bool:
        return self._deadline != inf and self._state().loop.time() >= self._deadline

    def _state(self) -> LoopState:
        """The state of the loop whose clock the scope's deadline is measured by."""
        return current_state() if self._task is None else self._task._state

    def _is_called(self) -> bool:
        if not self._called and self._is_due():
            self._called = True
            if self._reason is None:
                self._reason = reason_of(self._entry)
        return self._called

    # -- attributes that may change at any time ---------------------------------

    @property
    def shield(self) -> bool:
        """Whether cancellation from outside is kept out; may be changed at any time.

        A shield does not keep out a native ``Task.cancel()``, because asyncio does not record
        which code called it.

        Raises:
            TypeError: on assigning anything but a bool.
            RuntimeError: on assigning from another thread or event loop, while a task is inside.
        """
        pairing = self._anyio_pairing
        return self._shielded if pairing is None or pairing.requested is None else pairing.requested

    @shield.setter
    def shield(self, shield: bool) -> None:
        if not isinstance(shield, bool):
            raise TypeError("shield must be a bool")
        self._check_caller()
        if self._anyio_pairing is not None:
            shield = anyio_hook.set_shield(self, self._task, shield)
        if self._task is None:
            self._shielded = shield
            return
        try:
            self._shielded = shield
            deliver_changes(recalculate(self))
        except BaseException:
            push_later(self)
            raise

    @property
    def deadline(self) -> float:
        """When the scope cancels itself, in seconds on :func:`current_time`'s clock.

        ``inf`` means never. May be changed at any time; a time in the past cancels.

        Raises:
            TypeError: on assigning something that is not a number.
            ValueError: on assigning NaN.
            RuntimeError: while the scope has a relative deadline and is not entered yet; on
                assigning from another thread or event loop, while a task is inside.
        """
        self._must_not_be_relative()
        return self._deadline

    @deadline.setter
    def deadline(self, deadline: float) -> None:
        deadline = as_float(deadline, "deadline")
        self._must_not_be_relative()
        self._set_deadline(deadline)

    def _must_not_be_relative(self) -> None:
        if self._relative != inf:
            raise RuntimeError(
                "Unentered relative cancel scope does not have an absolute deadline."
            )

    def _set_deadline(self, deadline: float) -> None:
        task = self._task
        if task is None or self._called:
            self._deadline = deadline
            return
        self._check_caller()
        state = task._state
        entry = None if deadline == inf else noted(state.add_deadline(deadline, _expire, self))
        before, self._entry = self._entry, entry
        self._deadline = deadline
        if before is not None:
            state.deadlines.drop(before)

    @property
    def relative_deadline(self) -> float:
        """Seconds until the deadline: from entering the scope, and once entered from now.

        Raises:
            TypeError: on assigning something that is not a number.
            ValueError: on assigning NaN or a negative number.
            RuntimeError: before entry, if the scope has an absolute deadline; on assigning from
                another thread or event loop, while a task is inside.
        """
        if self._entered:
            return self._deadline - self._state().loop.time()
        self._must_not_be_absolute()
        return self._relative

    @relative_deadline.setter
    def relative_deadline(self, seconds: float) -> None:
        seconds = as_float(seconds, "relative_deadline", SECONDS)
        if seconds < 0:
            raise ValueError("relative deadline must be non-negative")
        if self._entered:
            self._check_caller()
            self._set_deadline(self._state().loop.time() + seconds)
        else:
            self._must_not_be_absolute()
            self._relative = seconds

    def _must_not_be_absolute(self) -> None:
        if self._deadline != inf:
            raise RuntimeError(
                "Unentered non-relative cancel scope does not have a relative deadline"
            )

    @property
    def is_relative(self) -> bool | None:
        """Whether the deadline is relative; None once the scope has been entered."""
        return None if self._entered else self._relative != inf

    def __repr__(self) -> str:
        if self._task is not None:
            state = "active"
        else:
            state = "exited" if self._entered else "unbound"
        if self._called:
            state += ", cancelled"
        elif self._relative != inf:
            state += f", deadline is {self._relative:.2f} seconds after entry"
        elif self._deadline != inf:
            try:
                left = self._deadline - current_state().loop.time()
            except RuntimeError:
                pass
            else:
                when = "from now" if left >= 0 else "ago"
                state += f", deadline is {abs(left):.2f} seconds {when}"
        return f"<nurseryio.CancelScope at {id(self):#x}, {state}>"


def new_scope(relative: float = inf) -> CancelScope:
    """``CancelScope(relative_deadline=relative)`` without calling the class and its checks."""
    self: CancelScope = blank(CancelScope)
    # inlined: _nursery.scope.CancelScope.__init__[2:]
    self._deadline = inf
    self._relative = relative
    self._shielded = False
    self._task = self._nursery = self._reason = self._entry = self._anyio_pairing = None
    self._called = self._effective = self._abandoned = self._entered = self.cancelled_caught = False
    return self


def _expire(scope: CancelScope) -> None:
    reason = reason_of(scope._entry) if origins.kept else DEADLINE
    scope._entry = None
    scope._cancel(reason)


origins.note_in(globals())  # replaces heappush while the lines that set deadlines are kept
