"""``run`` in a web page, where the only loop runs already: a task on it, waited for by blocking.

Rule 1: the loop belongs to the page. A run does not close it, and cancels nothing that it has not
started. So async generators and tasks that asyncio code left behind go on after the run, and a
system task of the run is one of the page.

Rule 2: options that need a loop of the run's own are refused before anything happens.

Rule 3: inside a run there is no other one, as everywhere else. Beside it there may be: JavaScript
can start a second program while the first one waits.
"""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any

from .._asyncio import browser, compat
from .._base.exc_fields import explained, without_own_frame
from .._base.exception_groups import bare_exit
from .._base.outcome import Error, Value
from .._base.util import coroutine_or_error, name_of
from .._core.loop_state import loop_state
from .._loop import step_hooks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._base.abcs import Instrument
    from .._base.outcome import Outcome
    from .._core.loop_state import LoopState

CANNOT_WAIT = (
    "run() cannot wait here: the event loop of the page runs already, and this JavaScript engine "
    "cannot switch stacks (JSPI), or Python was entered by a synchronous call such as "
    "pyodide.runPython(). Write `await main()` in place of `nurseryio.run(main)`, at the top level "
    "of a program that pyodide.runPythonAsync() or PyScript starts"
)

# Whether the code runs inside run(). Tasks inherit this.
_inside: ContextVar[bool] = ContextVar("nurseryio_inside_run", default=False)


def inside_run() -> BaseException:
    """The error of ``run`` where an event loop is running that it may not wait for."""
    return explained(
        RuntimeError("Attempted to call run() from inside a run()"),
        "an event loop is running in this thread, and nurseryio works on the loop that is there, "
        "so just await the function",
    )


def run_in_page(
    loop: compat.Loop,
    async_fn: Any,
    args: tuple[Any, ...],
    instruments: Sequence[Instrument],
    **own_loop: object,
) -> Any:
    """Run ``await async_fn(*args)`` on the loop of the page. For the arguments see ``run``.

    Args:
        loop: the loop of the page, running.
        async_fn: an async function.
        args: its positional arguments.
        instruments: instruments, installed for the time of the run.
        own_loop: the arguments of ``run`` that no shared loop can have, if they are given.

    Raises:
        NotImplementedError: one of these arguments was given.
        RuntimeError: the caller cannot wait, or is inside a run.
        BaseException: the error of ``async_fn``.
    """
    if _inside.get():
        raise inside_run()
    refused = [name for name, given in own_loop.items() if given]
    if refused:
        raise NotImplementedError(
            f"run() cannot take {' and '.join(refused)} here, because that needs an event loop of "
            "its own, and a page has one loop, which all its programs share: leave it out"
        )
    if not browser.can_wait():
        raise RuntimeError(CANNOT_WAIT)
    state = loop_state(loop)
    outcome: Outcome[Any] = Error(RuntimeError("the task of run() has ended without an outcome"))

    async def keep_result(coro: Any) -> None:
        # A SystemExit must not leave the task, because it would pass through the page's loop.
        nonlocal outcome
        try:
            outcome = Value(await coro)
        except BaseException as exc:
            outcome = Error(bare_exit(without_own_frame(exc)))

    with ExitStack() as undo:
        for instrument in instruments:
            undo.callback(_remove, state, instrument)
            step_hooks.install(state, instrument)
        _call(state, "before_run")
        coro = coroutine_or_error(async_fn, *args)
        runner = keep_result(coro)
        context = copy_context()
        context.run(_inside.set, True)
        try:
            task = compat.make_task(state.making, runner, name_of(async_fn), context)
        except BaseException:
            runner.close()
            coro.close()
            raise
        browser.wait(task)
        _call(state, "after_run")
    try:
        return outcome.unwrap()
    finally:
        del outcome  # no reference cycle


def _remove(state: LoopState, instrument: Instrument) -> None:
    """Remove an instrument, unless the program has done so."""
    if state.instruments is not None and instrument in list(state.instruments):
        step_hooks.uninstall(state, instrument)


def _call(state: LoopState, hook: str) -> None:
    if state.instruments is not None:
        state.instruments.call(hook)
