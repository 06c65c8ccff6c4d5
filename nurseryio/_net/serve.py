"""Serving: accept connections, and run a handler task for each: :func:`serve_listeners`.

It takes listeners of every kind. Listeners over sockets are in :mod:`listener`, listeners over TLS
in ``_tls``.

Rule 1: a connection is closed when its handler returns or raises.

Rule 2: the server does not catch an error of a handler. So the error ends the server, unless the
handlers run in a nursery that the caller passed. Running out of file descriptors or memory is not
an error of the handler or of the server. It is logged, and the server tries again soon.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .._base import AsyncResource
from .._base.lazy_exports import load_for_server
from .._base.util import in_the_name_of, reject_non_functions
from .._nursery import TASK_STATUS_IGNORED, CancelScope, Nursery, open_nursery, sleep
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
) -> NoReturn:
    """For each connection that comes in at ``listeners``, run ``handler(stream)`` in a task.

    If the system does not have room for one more connection (``EMFILE``, ``ENFILE``, ``ENOBUFS``,
    ``ENOMEM``), the server waits 100 ms and tries again. It also logs an error to the logger
    ``nurseryio.serve_listeners``.

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
        Cancelled: if the task is cancelled. There is no other way to stop a server.

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
    raise AssertionError("a server ends by an error or by being cancelled")


async def _serve_one(
    listener: Listener[StreamT],
    handler_nursery: Nursery,
    handler: Callable[[StreamT], Awaitable[object]],
) -> None:
    handle = in_the_name_of(handler, _handle)
    try:
        while True:
            try:
                stream = await listener.accept()
            except OSError as exc:
                if exc.errno not in _NO_ROOM:
                    raise
                logger.error(
                    "accept returned %s (%s); retrying in %s seconds",
                    errno.errorcode[exc.errno],
                    os.strerror(exc.errno),
                    PAUSE,
                    exc_info=True,
                )
                await sleep(PAUSE)
            else:
                try:
                    if isinstance(handler_nursery, Nursery):
                        handler_nursery.start_soon(handle, stream, handler, name=handler)
                    else:
                        handler_nursery.start_soon(handle, stream, handler)
                except BaseException:
                    # The nursery of the caller may be closed already.
                    await aclose_forcefully(stream)
                    raise
                del stream  # do not keep the stream alive until the next one comes
    except BaseException:
        # Shielded: a cancellation of the server must not take the place of the error.
        with CancelScope(shield=True):
            await aclose_forcefully(listener)
        raise


async def _handle(stream: StreamT, handler: Callable[[StreamT], Awaitable[object]]) -> None:
    try:
        await handler(stream)
    finally:
        if isinstance(stream, SocketStream):
            # close() is enough: this stream does not send a goodbye that would have to be cut
            # short. A checkpoint is not needed, because the task ends here anyway.
            stream.socket.close()
        else:
            await aclose_forcefully(stream)
