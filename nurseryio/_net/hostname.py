"""Host names with letters beyond ASCII.

What lives here: :func:`encode_hostname`, which name look-up and TLS share, so that the name that is
looked up is the name that a certificate must be valid for.
"""

from __future__ import annotations

__all__ = ["encode_hostname"]


def encode_hostname(hostname: str) -> bytes:
    """Encode a host name as it is looked up: IDNA 2008, with the mapping of UTS 46.

    Python's own ``"idna"`` codec follows the standard of 2003, which gives some names (with ß for
    example) to somebody else.

    Args:
        hostname: A name or a numeric address. Plain ASCII is passed on as it is.

    Returns:
        The encoded name.

    Raises:
        UnicodeError: It is no valid host name.
    """
    try:
        return hostname.encode("ascii")
    except UnicodeEncodeError:
        # Here, not at the top: hardly any program needs its tables.
        import idna

        return idna.encode(hostname, uts46=True)
