"""Of all that went wrong in a run, the one error that leaves it.

Rule 1: this is the order: an error that was to end the run (a deadlock); an exit of asyncio code;
an internal error; Ctrl-C; the error of the main task; trouble at the start or end of the loop.

Rule 2: the others are not lost. They are put into the context of the one that leaves. If that is a
``SystemExit``, for which Python prints nothing, the loop's exception handler gets them as well.
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
    """What went wrong in one run, the main task's own error aside.

    Attributes:
        failure: an error that was to end the run.
        exits: what has left the loop, and what is to leave the run likewise, in order.
        internal: the error of a system task or a ``run_sync_soon`` function.
        troubles: what could not be done at the start or end, and further internal errors.
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
        """The error that leaves the run, if any.

        Args:
            error: what the main task has raised.
            presses: Ctrl-C.
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
            leaving, error = error, None  # it knows best where the program was
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
        # The traceback of what leaves leads here: nothing here may lead to it.
        self.failure = self.internal = None
        self.exits, self.troubles = [], []
        ctrl_c.forget()
        try:
            return leaving
        finally:
            del leaving, rest, internal, error

    def _keep(self, errors: Iterable[BaseException], leaving: BaseException) -> None:
        """Rule 2."""
        for error in errors:
            found = [leaf for leaf in leaves(error) if not is_cancelled(leaf)]
            if all(any(leaf is known for known in self.exits) for leaf in found):
                continue
            attached = attach(error, leaving)
            if all(is_a(leaf, EXITS) for leaf in found):
                continue  # there is nothing in them to be seen
            if not attached or is_a(leaving, SystemExit):
                self._loop.call_exception_handler(
                    {
                        "message": f"another error while {type(leaving).__name__} ended the run",
                        "exception": error,
                    }
                )


def attach(error: BaseException, leaving: BaseException) -> bool:
    """Make an error part of the context of another one that is raised. False: it cannot be."""
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
        return False  # it leads back to itself
    set_context(last, error)
    return True
