"""Abstract base classes: the interfaces of clocks, instruments, streams, channels and others.

Trio: ``trio.abc``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base import (
    AsyncResource as AsyncResource,
    Channel as Channel,
    Clock as Clock,
    HalfCloseableStream as HalfCloseableStream,
    HostnameResolver as HostnameResolver,
    Instrument as Instrument,
    Listener as Listener,
    ReceiveChannel as ReceiveChannel,
    ReceiveStream as ReceiveStream,
    SendChannel as SendChannel,
    SendStream as SendStream,
    SocketFactory as SocketFactory,
    Stream as Stream,
)
from ._base.lazy_exports import exports

if not TYPE_CHECKING:
    __dir__ = exports(globals())
