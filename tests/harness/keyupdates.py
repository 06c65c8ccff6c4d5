"""A TLS 1.3 client that asks for new keys again and again, which Python's ``ssl`` cannot do.

Its handshake is done by ``ssl``. Then its records are made here, from the secret that ``ssl`` has
written into its key log (RFC 8446, 4.6.3, 5.2 and 7).
"""

from __future__ import annotations

import hmac
import ssl
import struct
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from harness import certs

__all__ = ["KeyUpdater", "logging_context"]

# The cipher that both sides prefer. The numbers below belong to it.
SUITE = "TLS_AES_256_GCM_SHA384"
HASH = "sha384"
HASH_BYTES, KEY_BYTES, NONCE_BYTES, TAG_BYTES = 48, 32, 12, 16

DATA, HANDSHAKE = 23, 22
# Message 24 (key_update), 1 byte long: update_requested.
REQUEST = b"\x18\x00\x00\x01\x01"


def logging_context(keylog: Path) -> ssl.SSLContext:
    """A client's context that writes a key log."""
    context = ssl.create_default_context()
    certs.authority().configure_trust(context)
    context.keylog_filename = str(keylog)
    return context


class KeyUpdater:
    """Makes a client's records.

    Args:
        keylog: The key log of its handshake.
        number: How many records it has sent since.
    """

    def __init__(self, keylog: Path, number: int) -> None:
        lines = [line.split() for line in keylog.read_text().splitlines()]
        (secret,) = (line[2] for line in lines if line[0] == "CLIENT_TRAFFIC_SECRET_0")
        self._secret = bytes.fromhex(secret)
        self._number = number
        assert len(self._secret) == HASH_BYTES, f"{ssl.OPENSSL_VERSION} did not choose {SUITE}"

    def data(self, data: bytes) -> bytes:
        """A record with data."""
        return self._record(DATA, data)

    def request(self) -> bytes:
        """A record that asks for new keys; the next one has new ones, too."""
        record = self._record(HANDSHAKE, REQUEST)
        self._secret, self._number = self._expand("traffic upd", HASH_BYTES), 0
        return record

    def _record(self, kind: int, body: bytes) -> bytes:
        plain = body + bytes([kind])
        header = struct.pack("!BHH", DATA, 0x0303, len(plain) + TAG_BYTES)
        nonce = int.from_bytes(self._expand("iv", NONCE_BYTES), "big") ^ self._number
        self._number += 1
        cipher = AESGCM(self._expand("key", KEY_BYTES))
        return header + cipher.encrypt(nonce.to_bytes(NONCE_BYTES, "big"), plain, header)

    def _expand(self, label: str, size: int) -> bytes:
        """HKDF-Expand-Label with an empty context, of at most one block."""
        name = b"tls13 " + label.encode()
        info = struct.pack("!HB", size, len(name)) + name + b"\0" + b"\x01"
        return hmac.new(self._secret, info, HASH).digest()[:size]
