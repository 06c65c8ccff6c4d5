"""Host names with letters beyond ASCII."""

from __future__ import annotations

import pytest

from nurseryio._net.hostname import encode_hostname


@pytest.mark.parametrize("name", ["example.org", "EXAMPLE.org", "127.0.0.1", "::1", "_x", ""])
def test_plain_names_and_addresses_are_passed_on(name: str) -> None:
    assert encode_hostname(name) == name.encode("ascii")


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("faß.de", b"xn--fa-hia.de"),  # "fass.de" by the old standard: somebody else's
        ("bücher.example", b"xn--bcher-kva.example"),
        ("BÜCHER.example", b"xn--bcher-kva.example"),
        ("日本語.jp", b"xn--wgv71a119e.jp"),
    ],
)
def test_other_names_are_encoded_by_the_standard_of_2008(name: str, encoded: bytes) -> None:
    assert encode_hostname(name) == encoded


def test_what_cannot_be_a_host_name_is_refused() -> None:
    with pytest.raises(UnicodeError):
        encode_hostname("☃ and a blank")
