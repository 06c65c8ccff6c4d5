"""The proof that a peer can receive at the address that it sends from.

What lives here: :class:`CookieJar`, which makes such proofs and checks them. What does not: how
they travel (:mod:`dtls_codec`).

Anybody can send a datagram under a false address. A server that answered each with its certificates
would flood whoever really has that address, and one that remembered each would run out of memory.
So the first answer to a client is small and is forgotten: it asks for the same message again
together with a cookie, which only somebody at that address can know.

Rule 1: a cookie can be made and checked from what comes with the message and from a secret,
nothing else is kept.

Rule 2: a cookie is good for this address and this message, for 30 seconds at least and 60 at most.
The secret is replaced every 30 seconds, and the one before it still counts.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from .codec import ClientHello

__all__ = ["CookieJar"]

# Seconds that a secret is used for new cookies.
TURNOVER = 30.0
SECRET_BYTES = 32
# As long as DTLS 1.0 allows it; more than enough.
COOKIE_BYTES = 32


class CookieJar:
    """Makes and checks cookies.

    Args:
        now: The time, in seconds; of the same clock as in later calls.
    """

    __slots__ = ("_current", "_previous", "_since")

    def __init__(self, now: float) -> None:
        self._since = now
        self._current = os.urandom(SECRET_BYTES)
        self._previous = os.urandom(SECRET_BYTES)

    def make(self, address: object, hello: ClientHello, now: float) -> bytes:
        """Make the cookie for a message from an address."""
        self._turn_over(now)
        return _sign(self._current, address, hello)

    def check(self, address: object, hello: ClientHello, now: float) -> bool:
        """Whether the message brings the cookie that was made for it."""
        self._turn_over(now)
        good = [
            hmac.compare_digest(hello.cookie, _sign(secret, address, hello))
            for secret in (self._current, self._previous)
        ]
        return any(good)

    def _turn_over(self, now: float) -> None:
        age = now - self._since
        if age < TURNOVER:
            return
        self._previous = self._current if age < 2 * TURNOVER else os.urandom(SECRET_BYTES)
        self._current = os.urandom(SECRET_BYTES)
        self._since = now


def _sign(secret: bytes, address: object, hello: ClientHello) -> bytes:
    # An address is a tuple of strings and numbers: its repr tells all of it, and where it ends.
    text = repr(address).encode() + b"\n" + hello.rest
    return hmac.new(secret, text, hashlib.sha256).digest()[:COOKIE_BYTES]
