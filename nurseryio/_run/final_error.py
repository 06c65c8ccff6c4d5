"""Which error leaves a run, if several things went wrong in it.

Rule 1: the first of these that exists leaves the run: an error that was to end the run (a
deadlock); an exit (``SystemExit``, ``KeyboardInterrupt``) of asyncio code; an internal error;
Ctrl-C; the error of the main task; an error at the start or end of the loop.

Rule 2: the other errors are not lost. They become the context of the error that leaves. Python
prints no traceback for a ``SystemExit``. So if that leaves, the loop's exception handler gets the
others as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._base.errors import Cancelled, TrioInternalError
from .._base.exc_fields import context_of, is_a, set_cause, set_context
from .._base.exception_groups import bare_exit, is_cancelled, leaves
from .driving import EXITS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .._asyncio.compat import Loop
    from .ctrl_c import CtrlC


class FinalError:
    """The errors of one run, except the error of the main task.

    Attributes:
        failure: an error that was to end the run.
        exits: errors that left the loop, and errors that are to leave the run like them, in order.
        internal: the error of a system task or a ``run_sync_soon`` function.
        troubles: errors at the start or end of the run, and further internal errors.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self.failure: BaseException | None = None
        self.exits: list[BaseException] = []
        self.internal: BaseException | None = None
        self.troubles: list[BaseException] = []

    def __bool__(self) -> bool:
        wrong = self.failure is not None or self.internal is not None
        return wrong or bool(self.exits) or bool(self.troubles)

    def decide(
        self, error: BaseException | None, ctrl_c: CtrlC, strict: bool | None
    ) -> BaseException | None:
        """Return the error that leaves the run, if any.

        Args:
            error: the error that the main task raised, if any.
            ctrl_c: Ctrl-C in this run.
            strict: whether groups stay groups, see ``run``.
        """
        if error is not None and strict is not True:
            error = bare_exit(error)
            if ctrl_c.ever and all(is_a(leaf, KeyboardInterrupt) for leaf in leaves(error)):
                error = leaves(error)[0]  # Ctrl-C was pressed more than once
        cancelled = is_a(error, Cancelled)
        internal = [] if self.internal is None else [self.internal]
        rest = [*self.exits, *internal, *self.troubles]
        if self.failure is not None:
            leaving = self.failure
            set_cause(leaving, None if cancelled else error)
            error = None
        elif error is not None and is_a(error, KeyboardInterrupt) and ctrl_c.ever:
            leaving, error = error, None  # its traceback shows best where the program was
        elif self.exits:
            leaving = rest.pop(0)
        elif self.internal is not None:
            leaving = TrioInternalError(
                "a system task or a run_sync_soon() function failed, or nurseryio has a bug"
            )
            leaving.__cause__ = rest.pop(0)
        elif ctrl_c.pending:
            leaving = ctrl_c.take(error)
        elif error is not None:
            leaving, error = error, None
        elif rest:
            leaving = rest.pop(0)
        else:
            return None
        self._keep([] if error is None or cancelled else [error], leaving)
        self._keep(rest, leaving)
        # The traceback of the error refers to this object: avoid a reference cycle.
        self.failure = self.internal = None
        self.exits, self.troubles = [], []
        ctrl_c.forget()
        try:
            return leaving
        finally:
            del leaving, rest, internal, error

    def _keep(self, errors: Iterable[BaseException], leaving: BaseException) -> None:
        """Keep errors in the context of ``leaving`` (rule 2)."""
        for error in errors:
            found = [leaf for leaf in leaves(error) if not is_cancelled(leaf)]
            if all(any(leaf is known for known in self.exits) for leaf in found):
                continue
            attached = attach(error, leaving)
            if all(is_a(leaf, EXITS) for leaf in found):
                continue  # exits have nothing to show
            if not attached or is_a(leaving, SystemExit):
                self._loop.call_exception_handler(
                    {
                        "message": f"another error while {type(leaving).__name__} ended the run",
                        "exception": error,
                    }
                )


def attach(error: BaseException, leaving: BaseException) -> bool:
    """Put ``error`` into the context of ``leaving``. False if the contexts would form a cycle."""
    last = leaving
    seen = {id(last)}
    while (before := context_of(last)) is not None and id(before) not in seen:
        last = before
        seen.add(id(last))
    if id(error) in seen:
        return True
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        inner = context_of(inner)
    if inner is not None:
        return False  # its chain of contexts has a cycle, or meets that of ``leaving``
    set_context(last, error)
    return True
