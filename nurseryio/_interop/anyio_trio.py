"""anyio's Trio back end on nurseryio: its test runner, and its calls from other threads.

``as_trio`` calls the functions here. The private names of Trio that the back end uses are in
``trio_private``. No other module uses private parts of anyio's Trio back end. They are looked up
when they are used: an import hook would be too late behind the one by which pytest rewrites anyio.

Rule 1 (test runner): anyio's pytest plugin runs tests and fixtures in one task of a *guest run* of
Trio. nurseryio does not have guest runs. Its own step runner does the same work: one task makes all
calls, and the loop does not run between two calls. So a guest run that anyio's runner asks for is a
step runner, which anyio reaches by the stream to its task. Any other guest run is refused.

Rule 2 (threads): a sync call may come from a thread that runs another loop, and blocks that loop.
On Trio an asyncio application may use a portal in this way. nurseryio itself refuses such calls.

Rule 3: anyio's back end for asyncio is not affected.
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from .._base.errors import RunFinishedError
from .._base.library_name import call_under_name
from .._base.outcome import capture
from .._base.unsupported import start_guest_run
from .._run.introspection import in_trio_run
from .._run.token import current_trio_token
from .trio_private import LIBRARY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BACKEND = "anyio._backends._trio"

# The name of the library for sniffio.
NAME = "trio"


def loaded_backend() -> Any:
    """The module of anyio's Trio back end; None if it is not loaded yet."""
    module = sys.modules.get(BACKEND)
    # The last name that it defines: another thread may be importing it.
    return module if hasattr(module, "backend_class") else None


# -- the test runner ------------------------------------------------------------


def guest_run(async_fn: Any, *args: Any, **options: Any) -> None:
    """Start a step runner for anyio's test runner; refuse any other guest run.

    This is ``trio.lowlevel.start_guest_run`` of the stand-in.

    Args:
        async_fn: the method of a test runner of anyio that waits for calls.
        args: must be empty.
        options: those of ``trio.run``, and ``start_guest_run``'s own, which are not needed.

    Raises:
        NotImplementedError: anything else than anyio's test runner has called.
    """
    theirs = getattr(async_fn, "__self__", None)
    known = getattr(loaded_backend(), "TestRunner", ())
    if args or not isinstance(theirs, known) or not hasattr(theirs, "_send_stream"):
        start_guest_run()
    for name in ("run_sync_soon_threadsafe", "done_callback", "host_uses_signal_set_wakeup_fd"):
        options.pop(name, None)
    # A later room has the class. The loop is the one that the caller of provide_trio() has chosen.
    make = importlib.import_module(f"{LIBRARY}.testing.step_runner").StepRunner
    options = {**sys.modules["trio"].run.keywords, **options, "name": "anyio.TestRunner"}
    theirs._send_stream = CallStream(theirs, make(**options))


class CallStream:
    """The end of anyio's stream to the task of its test runner: an item is a call to be made."""

    def __init__(self, runner: Any, steps: Any) -> None:
        self._runner = runner
        self._steps = steps

    def send_nowait(self, item: tuple[Awaitable[Any], list[Any]]) -> None:
        """Await the first part of the item to its end; append the outcome to the second part."""
        __tracebackhide__ = True
        awaitable, outcomes = item
        # Other parts of the loop ask for the library's name meanwhile: callbacks, and other tasks.
        outcomes.append(capture(call_under_name, NAME, self._steps.do, _await, awaitable))

    def close(self) -> None:
        """End the run. The runner starts another one for its next call, if any."""
        self._runner._send_stream = None
        call_under_name(NAME, self._steps.close)


async def _await(awaitable: Awaitable[Any]) -> Any:
    """Await any awaitable, such as that of ``asend()``."""
    __tracebackhide__ = True
    return await awaitable


# -- calls from threads ---------------------------------------------------------

# The class TrioBackend whose methods are extended.
_extended: Any = None


def extend_calls() -> None:
    """Extend the methods that send calls to the loop (rule 2), if anyio's back end is loaded.

    A second extension by another thread at the same time would do no harm.
    """
    global _extended
    module = loaded_backend()
    backend: Any = getattr(module, "backend_class", None)
    if backend is not _extended:
        portal: Any = getattr(module, "BlockingPortal", None)
        if hasattr(portal, "_spawn_task_from_thread"):  # before anyio 4.13
            portal._spawn_task_from_thread = _spawn
        _extend(backend)
        _extended = backend


def _extend(backend: Any) -> None:
    """Have the back end's method for sync calls block where nurseryio refuses to."""
    method = backend.run_sync_from_thread

    def run_sync_from_thread(_cls: Any, func: Any, args: Any, token: Any) -> Any:
        if _is_of_another_loop(token):
            return _block(token, func, args)
        return method(func, args, token)

    backend.run_sync_from_thread = classmethod(run_sync_from_thread)


def _spawn(portal: Any, func: Any, args: Any, kwargs: Any, name: object, future: Any) -> None:
    """Start a task from a thread: a method of portals in older releases of anyio."""
    call = partial(portal._task_group.start_soon, name=name)
    all_args = (portal._call_func, func, args, kwargs, future)
    if _is_of_another_loop(portal._token):
        _block(portal._token, call, all_args)
    else:
        sys.modules["trio.from_thread"].run_sync(call, *all_args, trio_token=portal._token)


def _is_of_another_loop(token: Any) -> bool:
    """Whether this thread runs a loop, and the token belongs to another one."""
    return token is not None and in_trio_run() and token is not current_trio_token()


def _block(token: Any, call: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Have a function called by another loop, and block this thread until that is done."""
    from_thread = importlib.import_module(f"{LIBRARY}._system.from_thread")
    try:
        return from_thread.run_sync_blocking(token, call, *args)
    except RunFinishedError:
        error = getattr(sys.modules["anyio"], "RunFinishedError", RunFinishedError)
        raise error from None
