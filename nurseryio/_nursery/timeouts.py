"""The clock, sleeping, and time limits: ``move_on_after``, ``fail_after`` and the like.

Rule 1: times are seconds on the loop's own clock, ``loop.time()``. Under ``run(clock=...)``
``loop.time()`` returns the time of that clock, so asyncio's timers and nurseryio's always agree.

Rule 2: a sleep is one coroutine, one future and one entry in the loop's heap of deadlines. It needs
neither a scope nor a ``TimerHandle``. A sleep without an end needs no entry: the table of records
keeps its task, so the garbage collector does not take a task that only waits.
"""

from __future__ import annotations

from functools import partial
from math import inf, isnan
from typing import TYPE_CHECKING, Any, NoReturn

from .._asyncio.compat import current_task as current_asyncio_task, new_future
from .._base.call_stack import place_of
from .._base.errors import Cancelled, TooSlowError
from .._base.exc_fields import is_a
from .._base.util import (
    CLOCK_TIME,
    NO_LIMIT,
    SECONDS,
    OnlyWith,
    as_float,
    is_library,
    not_a_number,
    position,
)
from .._core.cancel_ledger import defer_native_cancel
from .._core.task import (
    adopt_current,
    current_state,
    current_task,
    not_in_a_task,
    records,
    wake_future,
)
from .._core.traps import checkpoint
from .scope import CancelScope, new_scope

if TYPE_CHECKING:
    import asyncio
    from contextlib import AbstractContextManager
    from types import TracebackType

    from .._base.errors import CancelReason
    from .._core.deadlines import Entry
    from .._core.task import Task


def current_time() -> float:
    """The time on the clock that deadlines are measured by.

    Returns:
        Seconds; only differences between two times have a meaning.

    Raises:
        RuntimeError: outside a running loop.

    Checkpoint: no.

    Trio: ``trio.current_time``.
    """
    return current_state().loop.time()


def current_effective_deadline() -> float:
    """When the current task will be cancelled, as far as its deadlines say now.

    Returns:
        The earliest deadline of the scopes around the caller, up to the innermost shield, in
        seconds on :func:`current_time`'s clock; ``inf`` if there is none, ``-inf`` if the task
        is cancelled already.

    Raises:
        RuntimeError: outside a task.

    Checkpoint: no.

    Trio: ``trio.current_effective_deadline``.
    """
    node: Any = current_task().scope
    if node._effective:
        return -inf
    deadline = inf
    while node is not None:
        deadline = min(deadline, getattr(node, "_deadline", inf))
        if node._shielded:
            break
        node = node._parent
    return deadline


# -- sleeping -------------------------------------------------------------------

FOR_EVER = "to sleep until cancelled call sleep_forever()"


async def sleep(seconds: float) -> None:
    """Do nothing for a while.

    Args:
        seconds: how long, not negative. 0 only lets other tasks run.

    Raises:
        TypeError: ``seconds`` is not a number.
        ValueError: ``seconds`` is negative or NaN.
        Cancelled: if the task is cancelled while it sleeps.

    Checkpoint: yes.

    Trio: ``trio.sleep``.
    """
    try:
        positive = seconds > 0
    except TypeError:
        raise not_a_number(seconds, "seconds", SECONDS, FOR_EVER) from None
    if positive:
        # inlined: _nursery.timeouts._sleep, the ordinary case
        # inlined: _core.task.current_task
        try:
            task = records[current_asyncio_task()]  # type: ignore[index]
        except KeyError:
            task = adopt_current()
        except RuntimeError as error:
            not_in_a_task(error)
        if task.scope._effective:
            await checkpoint()
        state = task._state
        future = state.loop.create_future()
        if type(seconds) is not float and type(seconds) is not int:
            seconds = as_float(seconds, "seconds", SECONDS, FOR_EVER)
        now = state.loop.time()
        entry = state.add_deadline(now + seconds, wake_future, future, now)
        try:
            await future
        except BaseException as exc:
            if _is_cut_short(task, entry, future, exc):
                raise
    elif seconds == 0:
        await checkpoint()
    else:
        raise ValueError(
            "deadline must not be NaN" if isnan(seconds) else "`seconds` must be non-negative"
        )


async def sleep_until(deadline: float) -> None:
    """Do nothing until a certain time.

    Args:
        deadline: when to return, in seconds on :func:`current_time`'s clock; may be in the past.

    Raises:
        TypeError: ``deadline`` is not a number.
        ValueError: ``deadline`` is NaN.
        Cancelled: if the task is cancelled while it sleeps.

    Checkpoint: yes, also if the time has passed.

    Trio: ``trio.sleep_until``.
    """
    deadline = as_float(deadline, "deadline", CLOCK_TIME, FOR_EVER)
    task = current_task()
    if deadline <= task._state.loop.time():
        await checkpoint()
    else:
        await _sleep(task, deadline)


async def sleep_forever() -> None:
    """Do nothing until cancelled.

    Raises:
        Cancelled: when the task is cancelled.

    Checkpoint: yes.

    Trio: ``trio.sleep_forever``.
    """
    task = current_task()
    if task.scope._effective:
        await checkpoint()  # raises, unless something protects the task
    await new_future(loop=task._state.loop)


async def _sleep(task: Task, when: float) -> None:
    if task.scope._effective:
        await checkpoint()  # raises, unless something protects the task
    state = task._state
    future = state.loop.create_future()
    entry = state.add_deadline(when, wake_future, future)
    try:
        await future
    except BaseException as exc:
        if _is_cut_short(task, entry, future, exc):
            raise


def _is_cut_short(
    task: Task, entry: Entry, future: asyncio.Future[None], exc: BaseException
) -> bool:
    """Whether a sleep that raised ends before its time. If not, a native cancel is deferred."""
    if future.done() and not future.cancelled() and is_a(exc, Cancelled):
        defer_native_cancel(task, exc)
        return False
    task._state.deadlines.drop(entry)
    return True


# -- time limits ----------------------------------------------------------------


def move_on_at(deadline: float, *, shield: bool = False) -> CancelScope:
    """A scope that is cancelled at a certain time: ``with move_on_at(t): ...``.

    Args:
        deadline: seconds on :func:`current_time`'s clock.
        shield: the scope's initial ``shield``.

    Returns:
        A new :class:`CancelScope`.

    Raises:
        TypeError: ``deadline`` is not a number.
        ValueError: ``deadline`` is NaN.

    Checkpoint: no.

    Trio: ``trio.move_on_at``.
    """
    return CancelScope(deadline=deadline, shield=shield)


def move_on_after(seconds: float, *, shield: bool = False) -> CancelScope:
    """A scope that is cancelled some time after it is entered: ``with move_on_after(3): ...``.

    Args:
        seconds: the time that the block gets, not negative; counted from entering.
        shield: the scope's initial ``shield``.

    Returns:
        A new :class:`CancelScope`. After the block, ``cancelled_caught`` is true if it was cut
        short.

    Raises:
        TypeError: ``seconds`` is not a number.
        ValueError: ``seconds`` is negative or NaN.

    Checkpoint: no.

    Trio: ``trio.move_on_after``.
    """
    return _limited(seconds, shield)


def fail_at(deadline: float, *, shield: bool = False) -> AbstractContextManager[CancelScope]:
    """Like :func:`move_on_at`, but the end of the block raises an error if it was cut short.

    Args:
        deadline: seconds on :func:`current_time`'s clock.
        shield: the scope's initial ``shield``.

    Returns:
        A context manager for ``with``, which gives the :class:`CancelScope`.

    Raises:
        TooSlowError: at the end of the block, if the scope was cancelled and caught it.
        TypeError: ``deadline`` is not a number.
        ValueError: ``deadline`` is NaN.

    Checkpoint: no.

    Trio: ``trio.fail_at``.
    """
    return _Fail(CancelScope(deadline=deadline, shield=shield), "fail_at()")


def fail_after(seconds: float, *, shield: bool = False) -> AbstractContextManager[CancelScope]:
    """Limit the time of a block: ``with fail_after(5): ...`` raises an error if it takes longer.

    The block is cancelled, and its end raises the error. :func:`move_on_after` raises none.

    Args:
        seconds: the time that the block gets, not negative; counted from entering.
        shield: the scope's initial ``shield``.

    Returns:
        A context manager for ``with``, which gives the :class:`CancelScope`.

    Raises:
        TooSlowError: at the end of the block, if the scope was cancelled and caught it.
        TypeError: ``seconds`` is not a number.
        ValueError: ``seconds`` is negative or NaN.

    Checkpoint: no.

    Trio: ``trio.fail_after``.
    """
    return _Fail(_limited(seconds, shield), seconds)


def _limited(seconds: float, shield: bool) -> CancelScope:
    try:
        valid = seconds >= 0
    except TypeError:
        # Most often None, which asyncio and anyio take for "no limit".
        raise not_a_number(seconds, "seconds", SECONDS, NO_LIMIT) from None
    if not valid:
        raise ValueError(
            "`seconds` must not be NaN" if isnan(seconds) else "`seconds` must be non-negative"
        )
    if type(seconds) is not float and type(seconds) is not int:
        seconds = as_float(seconds, "seconds", SECONDS)
    scope = new_scope(seconds)
    if shield is not False:
        scope.shield = shield
    return scope


class _Fail(OnlyWith):
    """``fail_at`` and ``fail_after``: raise ``TooSlowError`` if the scope caught a cancellation.

    Args:
        scope: the scope.
        limit: the seconds given to ``fail_after``, or the call of another function as a text.
    """

    __slots__ = ("_limit", "_scope")

    def __init__(self, scope: CancelScope, limit: object) -> None:
        self._scope = scope
        self._limit = limit

    if not TYPE_CHECKING:

        def __await__(self) -> NoReturn:
            raise RuntimeError("a time limit is not awaited: use 'with fail_after(...):'")

    def __enter__(self) -> CancelScope:
        return self._scope.__enter__()

    def __exit__(
        self,
        etype: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> bool:
        scope = self._scope
        swallowed = scope.__exit__(etype, exc, tb)
        if scope.cancelled_caught:
            # Not in a variable, which would make a reference cycle: the traceback has this frame.
            raise _too_slow(self._limit, scope._reason, tb) from exc
        return swallowed


def _too_slow(limit: object, reason: CancelReason | None, tb: TracebackType | None) -> TooSlowError:
    error = TooSlowError()
    if tb is not None:
        error._text = partial(_text, limit, reason, tb, tb.tb_frame.f_lasti)
    return error


def _text(limit: object, reason: CancelReason | None, tb: TracebackType, lasti: int) -> str:
    """The text of a ``TooSlowError``: which limit, in which block, and where that was waiting.

    Args:
        limit: the seconds given to ``fail_after``, or the call of another function as a text.
        reason: the reason of the cancellation.
        tb: the traceback of the ``Cancelled`` that the scope has caught.
        lasti: the instruction of the block's function that has called ``__exit__``.
    """
    called = limit if isinstance(limit, str) else f"fail_after({limit})"
    due = reason is None or reason.source == "deadline"
    what = "ran out of time" if due or reason is None else f"was {reason._sentence()}"
    block = tb.tb_frame.f_code
    while (inner := tb.tb_next) is not None and not is_library(inner.tb_frame.f_code):
        tb = inner
    began = place_of(((block, lasti),))
    code = tb.tb_frame.f_code
    waited = position(code.co_filename, tb.tb_lineno, code.co_name)
    return f"{called} at {began} {what}; it was waiting at {waited}"
