"""Sockets with async methods, with the constants and small functions of the standard library.

Trio: ``trio.socket``.
"""

from __future__ import annotations

import contextlib
import sys
from socket import (
    gaierror as gaierror,
    gethostname as gethostname,
    herror as herror,
    htonl as htonl,
    htons as htons,
    inet_aton as inet_aton,
    inet_ntoa as inet_ntoa,
    inet_ntop as inet_ntop,
    inet_pton as inet_pton,
    ntohl as ntohl,
    ntohs as ntohs,
)
from typing import TYPE_CHECKING

from ._base.lazy_exports import exports
from ._net.constants import *  # noqa: F403
from ._net.socket_makers import (
    from_stdlib_socket as from_stdlib_socket,
    fromfd as fromfd,
    set_custom_socket_factory as set_custom_socket_factory,
    socket as socket,
    socketpair as socketpair,
)
from ._net.sockettype import SocketType as SocketType
from ._resolver.resolver import (
    getaddrinfo as getaddrinfo,
    getnameinfo as getnameinfo,
    getprotobyname as getprotobyname,
    set_custom_hostname_resolver as set_custom_hostname_resolver,
)

# Functions that only some systems have.
with contextlib.suppress(ImportError):
    from socket import sethostname as sethostname
with contextlib.suppress(ImportError):
    from socket import (
        if_indextoname as if_indextoname,
        if_nameindex as if_nameindex,
        if_nametoindex as if_nametoindex,
    )
if sys.platform == "win32":
    from ._net.socket_makers import fromshare as fromshare

if not TYPE_CHECKING:
    __dir__ = exports(globals())
