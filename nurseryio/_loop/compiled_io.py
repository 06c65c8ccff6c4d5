"""The compiled form of the waits for descriptors, and of the methods of streams that use them.

``receive_some`` and ``send_all`` of a stream stay coroutine functions in Python. On the compiled
build their body is one await: see ``_nursery.compiled``. There ``Readiness.__await__`` and
``_ready`` are methods in C, so a task is woken in place without a frame of Python in between.

Rule: :func:`put_streams_in_place` either puts all of them in place, or changes nothing.
"""

from __future__ import annotations

from typing import Any

from .._nursery import __compiled__
from .._nursery.compiled import bound_module, copy_of, give_code
from .readiness import IOWaiters, Readable, Readiness, Writable

__all__ = ["put_streams_in_place"]


async def _receive_some(self: Any, max_bytes: Any = None) -> Any:
    return await receive_some_wait(self, max_bytes)  # type: ignore[name-defined]  # noqa: F821


async def _send_all(self: Any, data: Any) -> None:
    await send_all_wait(self, data)  # type: ignore[name-defined]  # noqa: F821


def _send_rest(stream: Any, task: Any, data: bytes, sent: int) -> Any:
    """The coroutine that sends the rest of the data."""
    return stream._send_rest(task, memoryview(data), sent)


def put_streams_in_place(stream: Any, socket: Any, namespace: dict[str, Any]) -> bool:
    """Let streams use the C module, if the build is compiled and the classes fit.

    Args:
        stream: The class ``SocketStream``, which is in a later room.
        socket: The class of its sockets.
        namespace: The names of its module: ``raise_for``, ``RECEIVE_SIZE`` and ``RECEIVE_MOST``.

    Returns:
        Whether they use it.
    """
    if not __compiled__:
        return False
    given = {
        "IOWaiters": IOWaiters,
        "Readable": Readable,
        "Readiness": Readiness,
        "Socket": socket,
        "SocketStream": stream,
        "Writable": Writable,
        "RECEIVE_SIZE": namespace["RECEIVE_SIZE"],
        "RECEIVE_MOST": namespace["RECEIVE_MOST"],
        "original_await": vars(Readiness)["__await__"],
        "original_ready": vars(Readiness)["_ready"],
        "original_receive_some": copy_of(stream.receive_some),
        "original_send_all": copy_of(stream.send_all),
        "raise_for": namespace["raise_for"],
        "send_rest": _send_rest,
        "wake_later": vars(Readiness)["_wake_later"],
    }
    c_module = bound_module("bind_streams", given)
    if c_module is None:
        return False
    give_code(stream.receive_some, _receive_some, {"receive_some_wait": c_module.receive_some})
    give_code(stream.send_all, _send_all, {"send_all_wait": c_module.send_all})
    return True
