"""``open_portal`` and ``shared_portal``: plain code calls async functions.

This module has what users see. The thread is in ``host``, context managers are in ``held``.

Rule 1: a portal that a program forgets ends. The finalizer warns and does not wait.

Rule 2: there is at most one shared portal in a process. It is opened at the first use. A forked
child, and a process whose shared portal has failed, gets a new one.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .._base.errors import EndOfChannel
from .._base.forked import in_child, process_lock
from .._base.unsupported import needs
from .._base.util import NoPublicConstructor, safe_repr
from .._nursery import Nursery, open_nursery
from .._sync.safe_channel import as_safe_channel
from .call import check_open
from .held import Entered
from .host import Host

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from typing_extensions import TypeVarTuple, Unpack

    ArgsT = TypeVarTuple("ArgsT")

__all__ = ["Portal", "PortalNursery", "open_portal", "shared_portal"]

T = TypeVar("T")
RetT = TypeVar("RetT")


class Portal(AbstractContextManager["Portal"], metaclass=NoPublicConstructor):
    """An event loop in a separate thread, which plain code calls.

    :func:`open_portal` and :func:`shared_portal` return it. Any number of threads may use it at a
    time, except the thread of the loop. A call blocks its thread. If that thread runs another
    event loop, the call blocks that loop.

    In each call the context variables of the calling thread are set. (A change of them in the call
    does not reach the thread.) An error of the function is raised in the calling thread. Its
    traceback shows both: the line that has made the call, and the lines of the async functions.

    ``KeyboardInterrupt`` in a waiting thread cancels its call, waits until the call has cleaned up,
    and is raised then. A second one does not wait.

    Leaving the ``with`` block of a portal waits for the calls that other threads are making, and
    ends the loop. After an error in the block the calls are cancelled. They raise
    :exc:`RunFinishedError` then, as calls of a closed portal do.

    Trio: none.
    """

    def __init__(self, host: Host, shared: bool = False) -> None:
        self._host = host
        self._shared = shared

    def __repr__(self) -> str:
        host = self._host
        if host.is_inherited:
            state = "of the parent process"
        elif host.over.is_set():
            state = "closed"
        else:
            state = "closing" if host.stopping else "open"
        return f"<Portal {host.name!r} at {id(self):#x}, {state}>"

    @property
    def closed(self) -> bool:
        """Whether the portal has been closed, or its loop has ended."""
        return self._host.stopping or self._host.over.is_set()

    def run(
        self, async_fn: Callable[[Unpack[ArgsT]], Awaitable[RetT]], *args: Unpack[ArgsT]
    ) -> RetT:
        """Await ``async_fn(*args)`` in a task of the portal's loop, and wait for the result.

        Args:
            async_fn: An async function.
            *args: Its positional arguments.

        Returns:
            The result of ``async_fn``.

        Raises:
            RunFinishedError: The portal is closed, or was closed with an error during the call.
            RuntimeError: The calling thread is the one of the portal's loop; or this process is a
                forked child, and the portal is its parent's.
            TypeError: ``async_fn`` is not an async function.
            KeyboardInterrupt: Ctrl-C was pressed while this waited. The call has been cancelled.
            BaseException: Any error that ``async_fn`` raised, also ``SystemExit``.

        Checkpoint: no, this blocks its thread.

        Trio: none.
        """
        result: RetT = self._host.ask(self._host.nursery, async_fn, args)
        return result

    def run_sync(self, sync_fn: Callable[[Unpack[ArgsT]], RetT], *args: Unpack[ArgsT]) -> RetT:
        """Call ``sync_fn(*args)`` in the thread of the portal's loop, and wait for the result.

        This is for functions that may only be called there, such as ``event.set``. The call is made
        in a callback of the loop, outside any task.

        Args:
            sync_fn: A function that does not block.
            *args: Its positional arguments.

        Returns:
            The result of ``sync_fn``.

        Raises:
            RunFinishedError: The portal is closed.
            RuntimeError: As for :meth:`run`.
            TypeError: ``sync_fn`` is an async function.
            BaseException: Any error that ``sync_fn`` raised.

        Checkpoint: no, this blocks its thread.

        Trio: none.
        """
        result: RetT = self._host.ask_sync(sync_fn, *args)
        return result

    def wrap_async_context_manager(
        self, manager: AbstractAsyncContextManager[T]
    ) -> AbstractContextManager[T]:
        """Make a plain context manager of an async one.

        ``with portal.wrap_async_context_manager(client) as session:`` enters and exits the manager
        in one task of the portal's loop. The manager gets the error of the block, and may suppress
        it. If the manager ends earlier than the block, its error is raised at the end of the block.

        Args:
            manager: An async context manager.

        Returns:
            A context manager with the same value. It can be entered once.

        Raises:
            TypeError: ``manager`` is not an async context manager.

        Entering and exiting raise the errors of :meth:`run`.

        Checkpoint: no, entering and exiting block their thread.

        Trio: none.
        """
        return Entered(self._host, manager)

    @contextmanager
    def open_nursery(self) -> Iterator[PortalNursery]:
        """Open a nursery on the portal's loop for the time of a ``with`` block.

        The end of the block waits for the children, and raises their errors in a group, as a
        nursery does. If the block raises, the children are cancelled.

        A child that fails cancels its siblings, and the calls of :meth:`PortalNursery.run` in the
        block. Other code of the block is plain code, so nothing can interrupt it. A block inside
        the block belongs to the portal, so it is not cancelled with this nursery.

        Raises:
            RunFinishedError: The portal is closed.
            RuntimeError: As for :meth:`run`.
            ExceptionGroup: The errors of the children and of the block.

        Checkpoint: no, entering and exiting block their thread.

        Trio: none.
        """
        with self.wrap_async_context_manager(open_nursery()) as nursery:
            opened = PortalNursery._create(self._host, nursery)
            try:
                yield opened
            finally:
                opened._is_left = True

    def iterate(self, iterable: AsyncIterable[T]) -> Iterator[T]:
        """Iterate an async iterable, such as an async generator, in a plain ``for`` loop.

        One task runs the whole iteration, so an async generator may have scopes and nurseries open
        across its yields. It works only while the loop waits for the next item. When the iterator
        is closed or dropped, the generator is closed. Its cleanup may await; the end of the portal
        cancels it.

        Args:
            iterable: The async iterable.

        Returns:
            An iterator, for one thread at a time.

        Raises:
            TypeError: ``iterable`` is not an async iterable.

        The iterator raises the errors of the iterable and those of :meth:`run`.

        Checkpoint: no, each step blocks its thread.

        Trio: none.
        """
        if not hasattr(type(iterable), "__aiter__"):
            raise TypeError(f"a portal can iterate an async iterable, not {safe_repr(iterable)}")
        return self._iterate(iterable)

    def _iterate(self, iterable: AsyncIterable[T]) -> Iterator[T]:
        with self.wrap_async_context_manager(_items(self._host, iterable)) as channel:
            while True:
                try:
                    item = self.run(channel.receive)
                except EndOfChannel:
                    return
                yield item
                del item

    def close(self) -> None:
        """Cancel the calls that are being made, wait for their cleanup, and end the loop.

        A second call only waits. Nothing happens in a forked child of the process.

        Raises:
            RuntimeError: The calling thread is the one of the portal's loop; or a task of that loop
                waits for it, by :func:`nurseryio.to_thread.run_sync`; or this is the shared portal,
                which ends with the program.
            BaseException: The error that has ended the loop: a ``SystemExit`` in a callback, for
                example.

        Checkpoint: no, this blocks its thread.

        Trio: none.
        """
        self._close(cancel=True)

    def _close(self, cancel: bool) -> None:
        if self._shared:
            raise RuntimeError("the shared portal ends with the program, and cannot be closed")
        self._host.close(cancel)

    def __enter__(self) -> Portal:
        """Return the portal."""
        if self._shared:
            raise RuntimeError(
                "the shared portal ends with the program: use it without a with block"
            )
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the calls that are being made, or cancel them after an error; end the loop."""
        self._close(cancel=exc_value is not None)

    def __reduce__(self) -> NoReturn:
        # The finalizer of a copy would end the loop.
        raise TypeError("a portal cannot be copied or pickled: pass the portal itself")

    def __del__(self) -> None:
        host = getattr(self, "_host", None)
        if host is None or host.stopping or host.over.is_set() or host.is_inherited:
            return
        shown = repr(self)
        host.stop_soon(cancel=True)
        warnings.warn(
            f"unclosed {shown}: its loop ends now, because nothing refers to the portal any more",
            ResourceWarning,
            source=self,
            stacklevel=2,
        )


class PortalNursery(metaclass=NoPublicConstructor):
    """A nursery on the loop of a portal, for plain code. :meth:`Portal.open_nursery` gives it.

    All methods raise ``RunFinishedError`` if the portal is closed, and ``RuntimeError`` if the
    block was left, the calling thread is the one of the portal's loop, or the process is a forked
    child. If a child has failed, or the nursery was cancelled, the nursery may end while its block
    still runs. From then on ``start_soon``, ``start`` and ``run`` raise ``Cancelled``, which leaves
    the block. Do not catch it.

    Trio: none.
    """

    def __init__(self, host: Host, nursery: Nursery) -> None:
        self._host = host
        self._nursery = nursery
        self._is_left = False

    def _inside(self) -> Host:
        """The host. Raises an error after the end of the block."""
        if self._is_left:
            raise RuntimeError("the block of this portal's nursery was left: open another nursery")
        return self._host

    def __repr__(self) -> str:
        return f"<PortalNursery of {self._host.name!r} at {id(self):#x}>"

    def start_soon(
        self,
        async_fn: Callable[[Unpack[ArgsT]], Awaitable[object]],
        *args: Unpack[ArgsT],
        name: object = None,
    ) -> None:
        """Start a child task that runs ``await async_fn(*args)``.

        Args:
            async_fn: An async function.
            *args: Its positional arguments.
            name: The name of the task in debugging output.

        Raises:
            TypeError: ``async_fn`` is not an async function.

        Checkpoint: no. This blocks its thread for a moment, until the task exists.

        Trio: none.
        """
        self._inside().ask_sync(_start_soon, self._nursery, async_fn, args, name)

    def start(
        self, async_fn: Callable[..., Awaitable[object]], *args: object, name: object = None
    ) -> Any:
        """Start a child task, and wait until it calls ``task_status.started()``.

        Args:
            async_fn: An async function with a keyword argument ``task_status``.
            *args: Its positional arguments.
            name: The name of the task in debugging output.

        Returns:
            The value that was given to ``started()``.

        Raises:
            BaseException: The error of the child, if it fails before that.

        Checkpoint: no, this blocks its thread.

        Trio: none.
        """
        return self._inside().ask(self._host.nursery, _start, (self._nursery, async_fn, args, name))

    def run(
        self, async_fn: Callable[[Unpack[ArgsT]], Awaitable[RetT]], *args: Unpack[ArgsT]
    ) -> RetT:
        """Await ``async_fn(*args)`` inside the nursery, and wait for the result.

        The call is as :meth:`Portal.run`, and ends with the nursery: if another child fails, the
        call is cancelled, and ``Cancelled`` is raised here.

        Args:
            async_fn: An async function.
            *args: Its positional arguments.

        Returns:
            The result of ``async_fn``.

        Raises:
            Cancelled: The nursery was cancelled.
            BaseException: Any error that ``async_fn`` raised.

        Checkpoint: no, this blocks its thread.

        Trio: none.
        """
        result: RetT = self._inside().ask(self._nursery, async_fn, args)
        return result

    def cancel(self, *, reason: str | None = None) -> None:
        """Cancel all children of the nursery.

        Args:
            reason: Why, for the text of the ``Cancelled``.

        Checkpoint: no. This blocks its thread for a moment.

        Trio: none.
        """
        self._inside().ask_sync(_cancel, self._nursery, reason)


def _start_soon(nursery: Nursery, async_fn: Any, args: tuple[Any, ...], name: object) -> None:
    check_open(nursery)
    nursery.start_soon(async_fn, *args, name=name)


async def _start(nursery: Nursery, async_fn: Any, args: tuple[Any, ...], name: object) -> Any:
    check_open(nursery)
    return await nursery.start(async_fn, *args, name=name)


def _cancel(nursery: Nursery, reason: str | None) -> None:
    nursery.cancel_scope.cancel(reason=reason)


@as_safe_channel
async def _items(host: Host, iterable: AsyncIterable[T]) -> AsyncGenerator[T, None]:
    iterator = aiter(iterable)
    try:
        async for item in iterator:
            yield item
    finally:
        close = getattr(iterator, "aclose", None)
        if close is not None:
            # The channel is cancelled when the plain loop is left.
            with host.cleanup():
                await close()


@needs("threads", "open_portal()")
def open_portal(
    *,
    name: str = "portal",
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> Portal:
    """Start an event loop in a separate thread, and return the portal to it.

    Use it in a ``with`` block, or call :meth:`Portal.close` in the end. A portal that is dropped
    without that ends too, with a ``ResourceWarning``. At the end of the program all portals are
    closed.

    Args:
        name: The name of the thread and of the loop's main task.
        loop_factory: Makes the event loop, ``uvloop.new_event_loop`` for example.

    Returns:
        The portal, whose loop is running.

    Raises:
        RuntimeError: The system cannot start one more thread.
        BaseException: The error of ``loop_factory``.

    Checkpoint: no. This blocks its thread for a moment, until the loop runs.

    Trio: none.
    """
    return _open(name, loop_factory)


def _open(
    name: str,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    shared: bool = False,
) -> Portal:
    # In this order: if Ctrl-C comes between two lines, the finalizer of the portal ends the loop.
    portal: Portal = Portal._create(Host(name, loop_factory), shared)
    portal._host.start()
    return portal


_shared: Portal | None = None

# Two threads may be the first ones that need the shared portal.
_opening = process_lock(globals(), "_opening")


@in_child
def _forget_shared() -> None:
    global _shared
    _shared = None


@needs("threads", "shared_portal()")
def shared_portal() -> Portal:
    """Return the portal that all parts of the program share, and start its loop if necessary.

    It ends with the program, and cannot be closed. This is for libraries with a plain interface
    over async code: their objects can share it, whichever thread calls them.

    Returns:
        The same portal at each call. A forked child gets a new one, and so does a process
        whose shared portal has failed.

    Raises:
        RuntimeError: The system cannot start one more thread.

    Checkpoint: no. The first call blocks its thread for a moment, until the loop runs.

    Trio: none.
    """
    global _shared
    with _opening:
        if _shared is None or _shared.closed:
            opened = _open("shared portal", shared=True)
            # A signal handler may have called this meanwhile.
            if _shared is None or _shared.closed:
                _shared = opened
            else:
                opened._host.stop_soon(cancel=True)
        return _shared
