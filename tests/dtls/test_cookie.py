"""Cookies prove that a peer is where it says, for this message and for a while."""

from __future__ import annotations

import pytest

from nurseryio._dtls.codec import ClientHello
from nurseryio._dtls.cookie import CookieJar

HERE = ("127.0.0.1", 5000)
HELLO = ClientHello(0, b"", b"what a client says")


def baked(jar: CookieJar, now: float) -> ClientHello:
    """The message, sent again with its cookie."""
    return HELLO._replace(record_number=1, cookie=jar.make(HERE, HELLO, now))


def test_a_cookie_is_valid_for_the_address_and_client_hello_that_it_was_made_for() -> None:
    jar = CookieJar(0)
    hello = baked(jar, 0)
    assert jar.check(HERE, hello, 0)
    assert not jar.check(("127.0.0.1", 5001), hello, 0)
    assert not jar.check(("127.0.0.2", 5000), hello, 0)
    assert not jar.check(HERE, hello._replace(rest=b"something else"), 0)


@pytest.mark.parametrize("cookie", [b"", b"x", bytes(32)])
def test_an_invented_cookie_is_not_valid(cookie: bytes) -> None:
    assert not CookieJar(0).check(HERE, HELLO._replace(cookie=cookie), 0)


def test_a_cookie_with_a_changed_bit_or_a_missing_byte_is_not_valid() -> None:
    jar = CookieJar(0)
    hello = baked(jar, 0)
    assert len(hello.cookie) <= 32
    for at in range(len(hello.cookie)):
        cookie = bytearray(hello.cookie)
        cookie[at] ^= 1
        assert not jar.check(HERE, hello._replace(cookie=bytes(cookie)), 0)
    assert not jar.check(HERE, hello._replace(cookie=hello.cookie[:-1]), 0)


@pytest.mark.parametrize("start", [0, 5, 29, 30, 59, 1000])
def test_a_cookie_is_valid_for_half_a_minute_at_least_and_a_minute_at_most(start: float) -> None:
    jar = CookieJar(0)
    hello = baked(jar, start)
    assert jar.check(HERE, hello, start + 29.9)
    assert not jar.check(HERE, hello, start + 60)


def test_a_cookie_that_is_still_used_expires_although_others_are_made() -> None:
    jar = CookieJar(0)
    hello = baked(jar, 0)
    for now in range(0, 60, 5):
        assert jar.check(HERE, hello, now)
        assert jar.check(HERE, baked(jar, now), now)
    assert not jar.check(HERE, hello, 60)


def test_the_cookies_of_one_jar_are_not_valid_in_another() -> None:
    assert not CookieJar(0).check(HERE, baked(CookieJar(0), 0), 0)
