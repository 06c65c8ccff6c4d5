"""The state of a TLS stream: how far its handshake is, whether it can be used, and why not.

This module has :class:`TLSState`, which keeps that state. ``stream`` decides when it changes, and
what each method may do in which state.

Rule 1: :class:`Life` changes in one direction: usable, then perhaps broken, then closing, then
closed. ``unwrap`` leads from usable to closed at once.

Rule 2: the first reason for which a stream broke is kept. Every later use of the stream raises it
again.
"""

from __future__ import annotations

import copy
import ssl
from enum import Enum

from .._base import BrokenResourceError, ClosedResourceError
from .engine import explain

__all__ = ["Handshake", "Life", "TLSState"]


class Life(Enum):
    """Whether a stream can be used."""

    USABLE = "usable"
    BROKEN = "broken"
    # A task is closing the stream, and may still be sending a ``close_notify``. Other tasks cannot
    # use the stream any more.
    CLOSING = "closing"
    CLOSED = "closed"


class Handshake(Enum):
    """How far the handshake is. After a failed handshake the stream is not usable any more."""

    NOT_STARTED = "handshake not started"
    RUNNING = "handshake running"
    DONE = "handshake done"
    FAILED = "handshake failed"


class TLSState:
    """The state of one stream."""

    __slots__ = ("_cause", "_reason", "handshake", "life")

    def __init__(self) -> None:
        self.life = Life.USABLE
        self.handshake = Handshake.NOT_STARTED
        # Why the stream broke: in words, and the error of the ssl module if there was one.
        self._reason = ""
        self._cause: ssl.SSLError | None = None

    def __str__(self) -> str:
        text: str = self.handshake.value if self.life is Life.USABLE else self.life.value
        return text

    def lose(self, reason: str, error: BaseException | None = None) -> None:
        """Mark the stream as broken, unless it is broken already, closing or closed."""
        if self.life is not Life.USABLE:
            return
        self.life = Life.BROKEN
        self._reason = reason
        if isinstance(error, ssl.SSLError):
            self._reason += f": {explain(error)}"
            # A copy, because the frames of the error itself refer to the stream and this state.
            self._cause = copy.copy(error)
        elif error is not None:
            self._reason += f" ({type(error).__name__})"

    def check(self) -> None:
        """Raise an error if the stream cannot be used.

        Raises:
            BrokenResourceError: The stream is broken. ``__cause__`` is the error of the ``ssl``
                module, if there was one.
            ClosedResourceError: The stream is closed, or is being closed.
        """
        if self.life is Life.BROKEN:
            raise BrokenResourceError(f"this TLS stream is broken: {self._reason}") from self._cause
        if self.life is not Life.USABLE:
            raise ClosedResourceError("this TLS stream was closed")
