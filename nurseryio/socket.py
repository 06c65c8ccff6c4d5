"""Sockets with async methods, beside the constants and the small functions of the standard library.

Trio: ``trio.socket``.
"""

from __future__ import annotations

import contextlib as _contextlib
import socket as _stdlib
import sys as _sys
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

# Every constant that this Python has on this system. SO_REUSEADDR means something else on Windows,
# and is dangerous there.
if TYPE_CHECKING:
    from socket import *
else:
    globals().update(
        {
            name: getattr(_stdlib, name)
            for name in _stdlib.__all__
            if name.isupper() and not (name == "SO_REUSEADDR" and _sys.platform == "win32")
        }
    )

from ._core.lazy import lazy_door
from ._net.resolver import (
    getaddrinfo as getaddrinfo,
    getnameinfo as getnameinfo,
    getprotobyname as getprotobyname,
    set_custom_hostname_resolver as set_custom_hostname_resolver,
)
from ._net.socket_makers import (
    from_stdlib_socket as from_stdlib_socket,
    fromfd as fromfd,
    set_custom_socket_factory as set_custom_socket_factory,
    socket as socket,
    socketpair as socketpair,
)
from ._net.sockettype import SocketType as SocketType

# What only some systems have.
if not TYPE_CHECKING:
    with _contextlib.suppress(ImportError):
        from socket import sethostname as sethostname
    with _contextlib.suppress(ImportError):
        from socket import (
            if_indextoname as if_indextoname,
            if_nameindex as if_nameindex,
            if_nametoindex as if_nametoindex,
        )

if _sys.platform == "win32":
    from ._net.socket_makers import fromshare as fromshare

# Python has it from 3.12 on, Linux since long before.
if _sys.platform == "linux":
    IP_BIND_ADDRESS_NO_PORT = 24

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_door(globals())
