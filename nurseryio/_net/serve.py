"""Serving: accept connections, and run a handler task for each: :func:`serve_listeners`.

It takes listeners of every kind. Listeners over sockets are in :mod:`listener`, listeners over TLS
in ``_tls``.

Rule 1: a connection is closed when its handler returns or raises.

Rule 2: the server does not catch an error of a handler. So the error ends the server, unless the
handlers run in a nursery that the caller passed. Running out of file descriptors or memory is not
an error of the handler or of the server. It is logged, and the server tries again soon.

Rule 3: a stop request ends the accepting, not the handlers. The connections that the system has
queued are accepted, and the listener is closed in the same step.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Any, TypeVar

from .._base import AsyncResource
from .._base.lazy_exports import load_for_server
from .._base.util import InTheNameOf, reject_non_functions
from .._core.task import MAX_YIELD_CREDIT, current_task
from .._nursery import (
    TASK_STATUS_IGNORED,
    CancelScope,
    Nursery,
    move_on_at_stop,
    open_nursery,
    sleep,
    stop_requested,
)
from .generic import aclose_forcefully
from .stream import SocketStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .._base import Listener
    from .._nursery import Nursery, TaskStatus

__all__ = ["serve_listeners"]

StreamT = TypeVar("StreamT", bound=AsyncResource)
ListenerT = TypeVar("ListenerT", bound="Listener[Any]")

# Error numbers of accept() when the system has no room for one more connection.
_NO_ROOM = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}

# Seconds to wait for room.
PAUSE = 0.1

logger = logging.getLogger("nurseryio.serve_listeners")


async def serve_listeners(
    handler: Callable[[StreamT], Awaitable[object]],
    listeners: list[ListenerT],
    *,
    handler_nursery: Nursery | None = None,
    task_status: TaskStatus[list[ListenerT]] = TASK_STATUS_IGNORED,
) -> None:
    """For each connection that comes in at ``listeners``, run ``handler(stream)`` in a task.

    If the system does not have room for one more connection (``EMFILE``, ``ENFILE``, ``ENOBUFS``,
    ``ENOMEM``), the server waits 100 ms and tries again. It also logs an error to the logger
    ``nurseryio.serve_listeners``.

    After a stop request (:meth:`CancelScope.request_stop`) the server accepts the connections that
    the system has queued, closes the listeners, waits for handlers in its own nursery, and returns.

    Args:
        handler: An async function of one argument, the connection. The connection is closed when
            the function returns or raises. An error that the function raises ends the server. So
            catch all errors in the handler that should not do that.
        listeners: The listeners to accept from. They are closed at the end.
        handler_nursery: The nursery in which the handlers run, or any object with such a
            ``start_soon``. If None, the server opens a nursery.
        task_status: For ``nursery.start``, which returns ``listeners``.

    Raises:
        TypeError: ``handler`` is not a function.
        ExceptionGroup: ``accept`` failed, or a handler in the server's nursery did.
        Cancelled: if the task is cancelled. The handlers in the server's nursery are cancelled too.

    Checkpoint: yes.

    Trio: ``trio.serve_listeners``.
    """
    if handler is not None:  # Trio allows None, which fails only when a client connects
        reject_non_functions((handler,))
    if not isinstance(listeners, list):
        listeners = list(listeners)  # used twice
    load_for_server()
    async with open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(_serve_one, listener, handler_nursery or nursery, handler)
        # After the tasks were spawned, so that an error of start_soon() comes first. The sockets
        # already queue connections.
        task_status.started(listeners)
    # Not asked if there were listeners: a shield may be set after the stop has ended them.
    if not listeners and not stop_requested():
        raise AssertionError("a server ends by an error, a stop or by being cancelled")


async def _serve_one(
    listener: Listener[Any],
    handler_nursery: Nursery,
    handler: Callable[[StreamT], Awaitable[object]],
) -> None:
    handle = InTheNameOf(handler, _handle)
    stream: Any = None  # a connection whose handler has not been started

    def start() -> None:
        handler_nursery.start_soon(handle, stream, handler)

    try:
        with move_on_at_stop():
            while True:
                try:
                    stream = await listener.accept()
                except OSError as exc:
                    if not _log_no_room(exc, f"retrying in {PAUSE} seconds"):
                        raise
                    await sleep(PAUSE)
                else:
                    start()
                    stream = None  # do not keep it alive until the next one comes
        # Without an await. Of listeners of other libraries the system resets the queue.
        accept_queued = getattr(listener, "_accept_queued", lambda: None)
        try:
            while (stream := accept_queued()) is not None:
                start()
        except OSError as exc:
            if not _log_no_room(exc, "the server stops, and the rest of the queue is lost"):
                raise
    finally:
        # Shielded: a cancellation of the server must not take the place of an error.
        with CancelScope(shield=True):
            if stream is not None:  # the nursery of the caller may be closed already
                await aclose_forcefully(stream)
            await aclose_forcefully(listener)


def _log_no_room(exc: OSError, consequence: str) -> bool:
    """Log an error of ``accept``; return False if the reason is not that there is no room."""
    if exc.errno in _NO_ROOM:
        name, text = errno.errorcode[exc.errno], os.strerror(exc.errno)
        # In the format, because programs look for Trio's words there.
        logger.error(f"accept returned %s (%s); {consequence}", name, text, exc_info=True)
    return exc.errno in _NO_ROOM


async def _handle(stream: StreamT, handler: Callable[[StreamT], Awaitable[object]]) -> None:
    is_socket_stream = type(stream) is SocketStream
    if is_socket_stream:
        # The tasks that were ready when the connection was accepted have just run. So the handler's
        # first call does not yield.
        current_task()._yield_credit = MAX_YIELD_CREDIT
    try:
        await handler(stream)
    finally:
        if is_socket_stream:
            # close() is enough: this stream does not send a goodbye that would have to be cut
            # short. A checkpoint is not needed, because the task ends here anyway.
            stream.socket.close()  # type: ignore[attr-defined]
        else:
            await aclose_forcefully(stream)
