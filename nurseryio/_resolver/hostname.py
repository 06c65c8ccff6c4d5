"""Host names: which ones there cannot be, and how those with letters beyond ASCII are encoded.

What lives here: :func:`encode_hostname`, which name look-up and TLS share, so that the name that is
looked up is the name that a certificate must be valid for.
"""

from __future__ import annotations

import socket as stdlib

__all__ = ["HostnameError", "encode_hostname"]

# Of the system of names (RFC 1035): bytes of a whole name, without a dot at its end, and of one
# label of it.
LONGEST_NAME = 253
LONGEST_LABEL = 63


class HostnameError(stdlib.gaierror, UnicodeError):
    """The name cannot be that of a host, whatever the name servers say.

    An ``OSError``, like every other failure to find a host, and what the codecs of Python raise.
    """


def _refused(name: str | bytes, why: str) -> HostnameError:
    return HostnameError(stdlib.EAI_NONAME, f"not a host name: {_shown(name)} {why}")


def _shown(name: str | bytes) -> str:
    shown = repr(name)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def encode_hostname(hostname: str | bytes) -> bytes:
    """Encode a host name as it is looked up: IDNA 2008, with the mapping of UTS 46.

    Python's own ``"idna"`` codec follows the standard of 2003, which gives some names (with ß for
    example) to somebody else.

    Args:
        hostname: A name or a numeric address. Plain ASCII is passed on as it is, and so are bytes.

    Returns:
        The encoded name.

    Raises:
        TypeError: It is neither text nor bytes.
        HostnameError: There cannot be a host of that name: a label of it is empty, too long, or
            has letters that the standard excludes; or it has a NUL, where the C library would
            end it. Both an ``OSError`` and a ``UnicodeError``.
    """
    if not isinstance(hostname, (str, bytes)):
        raise TypeError(f"a host name must be str or bytes, not {hostname!r}")
    if len(hostname) > LONGEST_NAME + 1:
        # Before it is encoded, which takes time.
        raise _refused(hostname, f"has more than {LONGEST_NAME} characters")
    encoded = _to_bytes(hostname)
    if b"\0" in encoded:
        raise _refused(hostname, "has a NUL character in it")
    name = encoded.removesuffix(b".")
    for label in name.split(b".") if encoded else ():
        if not label:
            raise _refused(hostname, "has a dot too many: a label of it is empty")
        if len(label) > LONGEST_LABEL:
            raise _refused(hostname, f"has a label of more than {LONGEST_LABEL} bytes")
    if len(name) > LONGEST_NAME:
        raise _refused(hostname, f"has more than {LONGEST_NAME} characters")
    return encoded


def _to_bytes(hostname: str | bytes) -> bytes:
    if not isinstance(hostname, str):
        return hostname
    try:
        return hostname.encode("ascii")
    except UnicodeEncodeError:
        # Here, not at the top: hardly any program needs its tables.
        import idna

        try:
            encoded: bytes = idna.encode(hostname, uts46=True)
        except UnicodeError as error:
            raise _refused(hostname, f"cannot be encoded: {error}") from None
        return encoded
