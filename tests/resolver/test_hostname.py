"""Host names with letters beyond ASCII."""

from __future__ import annotations

import pickle
import socket as stdlib

import pytest

from nurseryio._resolver.hostname import encode_hostname


@pytest.mark.parametrize("name", ["example.org", "EXAMPLE.org", "127.0.0.1", "::1", "_x", ""])
def test_ascii_host_names_and_addresses_are_passed_on(name: str) -> None:
    assert encode_hostname(name) == name.encode("ascii")


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("faß.de", b"xn--fa-hia.de"),  # "fass.de" by the old standard: another host
        ("bücher.example", b"xn--bcher-kva.example"),
        ("BÜCHER.example", b"xn--bcher-kva.example"),
        ("日本語.jp", b"xn--wgv71a119e.jp"),
    ],
)
def test_other_host_names_are_encoded_by_idna_2008(name: str, encoded: bytes) -> None:
    assert encode_hostname(name) == encoded


IMPOSSIBLE = {
    "☃ and a blank": "cannot be encoded",
    "\udcff.example": "cannot be encoded",
    "ü" * 70: "cannot be encoded",
    "x\0y": "NUL",
    b"x\0y": "NUL",
    "ü\0": "cannot be encoded",
    "127.0.0.1\0": "NUL",
    "::1\0x": "NUL",
    "a..b": "label of it is empty",
    ".": "label of it is empty",
    ".a": "label of it is empty",
    b"a..": "label of it is empty",
    "a" * 64 + ".example": "a label of more than 63 bytes",
    ".".join(["a" * 49] * 6): "more than 253 characters",
    ".".join(["ü" * 20] * 12): "cannot be encoded",
    "a." * 126 + "aa": "more than 253 characters",
    "ü" * 1_000_000: "more than 253 characters",
}


@pytest.mark.parametrize("name", IMPOSSIBLE, ids=lambda name: ascii(name)[:20])
def test_what_cannot_be_a_host_name_is_refused_as_an_oserror(name: str | bytes) -> None:
    with pytest.raises(
        stdlib.gaierror, match=f"not a host name: .* .*{IMPOSSIBLE[name]}"
    ) as caught:
        encode_hostname(name)
    assert caught.value.errno == stdlib.EAI_NONAME
    # As the codecs of Python have it, and the checks of ssl.
    assert isinstance(caught.value, UnicodeError)
    assert len(str(caught.value)) < 250
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("name", ["a" * 63 + ".example.", ".".join(["a" * 49] * 5), "fe80::1%eth0"])
def test_host_names_of_the_greatest_length_and_zones_are_possible(name: str) -> None:
    assert encode_hostname(name) == encode_hostname(name.encode()) == name.encode()
