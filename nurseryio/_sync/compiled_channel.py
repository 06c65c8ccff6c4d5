"""The compiled form of the channels' ``send`` and ``receive``.

Both stay coroutine functions in Python, whose frames show readers of a stack what a task waits for.
On the compiled build they first ask the C module to do the work at once, which it does if the task
need not wait or yield. Otherwise they await a ``Wait`` of the C module, which does the work of the
Python functions in the ordinary case. In any other case it steps a coroutine of the Python
function, so that these are the only source of truth. See ``_nursery.compiled``.

Rule: :func:`put_in_place` either puts both in place, or changes nothing.
"""

from __future__ import annotations

from collections import deque
from typing import Any, NoReturn

from .._base import EndOfChannel
from .._base.exc_fields import is_a
from .._nursery import __compiled__
from .._nursery.compiled import bound_module, copy_of, give_code
from .channel import ChannelEnd, ChannelState, MemoryReceiveChannel, MemorySendChannel

__all__ = ["put_in_place"]


async def _send(self: Any, value: Any) -> None:
    if not send_at_once(self, value):  # type: ignore[name-defined]  # noqa: F821
        await send_wait(self, value)  # type: ignore[name-defined]  # noqa: F821


async def _receive(self: Any, at_end: type[Exception]) -> Any:
    item = received[self]  # type: ignore[name-defined]  # noqa: F821
    if item is received:  # type: ignore[name-defined]  # noqa: F821
        return await receive_wait(self, at_end)  # type: ignore[name-defined]  # noqa: F821
    return item


def _raise_at_end(at_end: type[Exception], error: BaseException) -> NoReturn:
    """The except clause of ``_receive``, for an error that a receiver was woken with."""
    try:
        if is_a(error, EndOfChannel):
            raise at_end(*error.args) from None
        raise error
    finally:
        del error  # no reference cycle: the error holds this frame


def put_in_place() -> bool:
    """Let the channels use the C module, if the build is compiled and the classes fit.

    Returns:
        Whether they use it.
    """
    if not __compiled__:
        return False
    given = {
        "ChannelEnd": ChannelEnd,
        "ChannelState": ChannelState,
        "MemoryReceiveChannel": MemoryReceiveChannel,
        "MemorySendChannel": MemorySendChannel,
        "deque": deque,
        "original_receive": copy_of(MemoryReceiveChannel._receive),
        "original_send": copy_of(MemorySendChannel.send),
        "raise_at_end": _raise_at_end,
    }
    c_module = bound_module("bind_channels", given)
    if c_module is None:
        return False
    give_code(
        MemorySendChannel.send,
        _send,
        {"send_at_once": c_module.send_at_once, "send_wait": c_module.send},
    )
    give_code(
        MemoryReceiveChannel._receive,
        _receive,
        {"received": c_module.received, "receive_wait": c_module.receive},
    )
    return True


put_in_place()
