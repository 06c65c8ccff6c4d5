"""Where the life of a TLS stream has got to, and why it cannot be used any more.

What lives here: :class:`TLSState`, the one place where that changes. What does not: what a stream
does in each state (:mod:`tls`).

Rule 1: life goes one way: in use, then broken or not, then closing, then closed.

Rule 2: the first reason to be broken counts, and is told again whenever somebody tries to use the
stream.
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
    # A task is closing it: its goodbye may be under way, but nobody else can use the stream.
    CLOSING = "closing"
    CLOSED = "closed"


class Handshake(Enum):
    """How far the handshake is. When it has failed, the stream is no longer usable."""

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
        # What broke the stream: in words, and the error of the ssl module if there was one.
        self._reason = ""
        self._cause: ssl.SSLError | None = None

    def __str__(self) -> str:
        text: str = self.handshake.value if self.life is Life.USABLE else self.life.value
        return text

    def lose(self, reason: str, error: BaseException | None = None) -> None:
        """The stream is broken from now on, unless it is already, or is being closed."""
        if self.life is not Life.USABLE:
            return
        self.life = Life.BROKEN
        self._reason = reason
        if isinstance(error, ssl.SSLError):
            self._reason += f": {explain(error)}"
            # A copy: the error's frames hold the stream, and so this state.
            self._cause = copy.copy(error)
        elif error is not None:
            self._reason += f" ({type(error).__name__})"

    def check(self) -> None:
        """Do nothing for a stream that can be used.

        Raises:
            BrokenResourceError: It is broken; the cause is the error of the ``ssl`` module, if any.
            ClosedResourceError: It is closed, or about to be.
        """
        if self.life is Life.BROKEN:
            raise BrokenResourceError(f"this TLS stream is broken: {self._reason}") from self._cause
        if self.life is not Life.USABLE:
            raise ClosedResourceError("this TLS stream was closed")
