"""Cookies of DTLS: the proof that a peer can receive at the address that it sends from.

This module has :class:`CookieJar`, which makes and checks cookies. The messages that carry cookies
are in :mod:`codec`.

A datagram can have a false sender address. If a server answered each ClientHello with its
certificates, it would flood the owner of that address. If it remembered each sender, it would run
out of memory. So the first answer to a client is small, and the server does not remember it. It
asks for the same message again with a cookie, which only a receiver at that address can know.

Rule 1: a cookie is made and checked from the message, its address and a secret. Nothing else is
kept.

Rule 2: a cookie is valid for one address and one message, for 30 to 60 seconds. The secret is
replaced every 30 seconds, and the one before it still counts.
"""

from __future__ import annotations

import hashlib
import hmac
import os

from .codec import ClientHello

__all__ = ["CookieJar"]

# Seconds until a new secret is made for new cookies.
TURNOVER = 30.0
SECRET_BYTES = 32
# The longest cookie that DTLS 1.0 allows; more than enough.
COOKIE_BYTES = 32


class CookieJar:
    """Makes and checks cookies.

    Args:
        now: The time in seconds, of the same clock as in later calls.
    """

    __slots__ = ("_current", "_previous", "_since")

    def __init__(self, now: float) -> None:
        self._since = now
        self._current = os.urandom(SECRET_BYTES)
        self._previous = os.urandom(SECRET_BYTES)

    def make(self, address: object, hello: ClientHello, now: float) -> bytes:
        """Return the cookie for a message from an address."""
        self._turn_over(now)
        return _sign(self._current, address, hello)

    def check(self, address: object, hello: ClientHello, now: float) -> bool:
        """Whether the message has the cookie that was made for it."""
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
    # An address is a tuple of strings and numbers. Its repr has all of it, and a clear end.
    text = repr(address).encode() + b"\n" + hello.rest
    return hmac.new(secret, text, hashlib.sha256).digest()[:COOKIE_BYTES]
