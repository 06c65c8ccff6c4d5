"""The constants that ``nurseryio.socket`` passes on."""

from __future__ import annotations

import re
import socket as stdlib
import sys
from pathlib import Path

from nurseryio import socket
from nurseryio._net import constants


def test_socket_has_every_constant_of_this_python() -> None:
    for name in stdlib.__all__:
        if name.isupper():
            assert getattr(socket, name) == getattr(stdlib, name)
            assert name in constants.__all__
    if sys.platform == "linux":
        assert socket.IP_BIND_ADDRESS_NO_PORT == 24


def test_type_checkers_know_the_socket_constants_that_programs_use() -> None:
    told = set(re.findall(r'"(\w+)"', Path(constants.__file__ + "i").read_text()))
    assert all(name.isupper() for name in told - {"linux", "darwin", "win32"})
    used = (
        "AF_INET AF_INET6 AF_UNIX SOCK_STREAM SOCK_DGRAM SOL_SOCKET SO_REUSEADDR SO_KEEPALIVE "
        "SO_LINGER IPPROTO_TCP IPPROTO_IPV6 IPV6_V6ONLY TCP_NODELAY TCP_NOTSENT_LOWAT MSG_PEEK "
        "SHUT_RD SHUT_WR SHUT_RDWR AI_PASSIVE NI_NUMERICHOST EAI_NONAME SCM_RIGHTS SOMAXCONN"
    )
    assert told >= set(used.split())
