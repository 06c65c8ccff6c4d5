"""A self-signed certificate for the TLS rows, made once per run.

Needs `trustme`, which the `bench` extra names.
"""

from __future__ import annotations

import ssl
import tempfile
from functools import cache
from pathlib import Path


@cache
def files() -> tuple[str, str]:
    """Make a certificate authority and a server certificate.

    Return the paths (server chain, authority).
    """
    import trustme

    folder = Path(tempfile.mkdtemp(prefix="nurseryio-bench-"))
    authority = trustme.CA()
    server, root = folder / "server.pem", folder / "root.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(server))
    authority.cert_pem.write_to_path(str(root))
    return str(server), str(root)


def server_context(chain: str) -> ssl.SSLContext:
    """Return the context that a server uses."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    return context


def client_context(root: str) -> ssl.SSLContext:
    """Return the context that the client uses."""
    return ssl.create_default_context(cafile=root)
