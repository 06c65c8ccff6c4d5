"""Host names: which names are impossible, and how names beyond ASCII are encoded (IDNA 2008).

This module has :func:`encode_hostname`. Both name look-up and TLS use it. So the name that is
looked up is also the name that the certificate must be valid for.
"""

from __future__ import annotations

import socket as stdlib

__all__ = ["HostnameError", "encode_hostname"]

# Limits of RFC 1035: bytes of a whole name, without the dot at the end, and of one label.
LONGEST_NAME = 253
LONGEST_LABEL = 63


class HostnameError(stdlib.gaierror, UnicodeError):
    """The name cannot be that of a host, so no name server is asked.

    It is an ``OSError``, like every other failure to find a host. It is also a ``UnicodeError``,
    like the errors of Python's codecs.
    """


def _refused(name: str | bytes, why: str) -> HostnameError:
    return HostnameError(stdlib.EAI_NONAME, f"not a host name: {_shown(name)} {why}")


def _shown(name: str | bytes) -> str:
    shown = repr(name)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def encode_hostname(hostname: str | bytes) -> bytes:
    """Encode a host name for a look-up: IDNA 2008, with the mapping of UTS 46.

    Python's ``"idna"`` codec follows the standard of 2003. It encodes some names differently (those
    with ß for example), so that they lead to a host of another owner.

    Args:
        hostname: A name or a numeric address. Plain ASCII text and bytes are not changed.

    Returns:
        The encoded name.

    Raises:
        TypeError: ``hostname`` is neither str nor bytes.
        HostnameError: A host cannot have this name. The name or a label is too long, a label is
            empty, or a label has letters that the standard excludes. Or the name has a NUL, which
            would end it in the C library. This is an ``OSError`` and a ``UnicodeError``.
    """
    if not isinstance(hostname, (str, bytes)):
        raise TypeError(f"a host name must be str or bytes, not {hostname!r}")
    if len(hostname) > LONGEST_NAME + 1:
        # Checked before encoding, which would take long for such a name.
        raise _refused(hostname, f"has more than {LONGEST_NAME} characters")
    encoded = _to_bytes(hostname)
    if 0 in encoded:
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
        # Imported here, not at the top, because hardly any program needs the tables of idna.
        import idna

        try:
            encoded: bytes = idna.encode(hostname, uts46=True)
        except UnicodeError as error:
            raise _refused(hostname, f"cannot be encoded: {error}") from None
        return encoded
