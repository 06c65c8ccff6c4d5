"""Connecting by TCP: :func:`open_tcp_stream`, to whichever address of a host answers first.

The algorithm ("Happy Eyeballs", RFC 6555): a name may stand for several addresses, of which some
may lead nowhere, and to find out about a dead one takes long. So they are tried in order, each
attempt in a task of its own; the next one starts when the one before has failed, or has taken so
long that waiting for it alone would be noticed. The first connection wins and the other attempts
are cancelled.

Rule 1: the order is the system's, except that the second address tried is of the other family than
the first one, if there is any: a family fails as a whole more often than an address does.

Rule 2: every socket but the winner's is closed, whatever happens.

Rule 3: it stands on our own sockets and nurseries, not on what a loop can do: uvloop knows nothing
of the algorithm.
"""

from __future__ import annotations

import os
import socket as stdlib
import sys
from contextlib import suppress
from math import isnan
from typing import TYPE_CHECKING

from .._nursery import CancelScope, move_on_after, open_nursery
from .._resolver.hostname import encode_hostname
from .._resolver.resolver import getaddrinfo
from .._sync import Event
from .socket_makers import socket
from .stream import SocketStream
from .tcp_listen import check_port

if TYPE_CHECKING:
    from .._resolver.resolver import AddressFormat, AddressInfo
    from .sockettype import SocketType

if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup

__all__ = ["open_tcp_stream"]

# Seconds after which an attempt gets company: what browsers have found to work.
DEFAULT_DELAY = 0.25

# Linux's; Python has it from 3.12 on.
IP_BIND_ADDRESS_NO_PORT = 24


async def open_tcp_stream(
    host: str | bytes,
    port: int,
    *,
    happy_eyeballs_delay: float | None = DEFAULT_DELAY,
    local_address: str | None = None,
) -> SocketStream:
    """Connect to a host by TCP.

    If its name stands for several addresses, they are tried in turn, overlapping: an attempt that
    has not been decided after ``happy_eyeballs_delay`` seconds goes on, but the next one begins.
    The first to succeed is it. There is no time limit of its own; use :func:`fail_after`.

    Args:
        host: A name or a numeric address.
        port: The port number.
        happy_eyeballs_delay: Seconds, not negative; None stands for the default of 0.25. ``inf``
            tries one address at a time.
        local_address: The address of this machine, numeric or a name, that the connection comes
            from; None leaves it to the system. Its family is then the only one that can be
            connected to, so that ``"0.0.0.0"`` means IPv4 and ``"::"`` means IPv6.

    Returns:
        A stream over the connection.

    Raises:
        TypeError: ``port`` is no integer, or ``local_address`` is not text.
        ValueError: ``host`` is neither str nor bytes, or a number is out of range.
        OSError: The name cannot be resolved; or there cannot be such a name, because of a NUL in it
            or a label that is empty or too long (also a ``UnicodeError``); or no address could be
            connected to: then the text names the addresses, and ``__cause__`` is an
            ``ExceptionGroup`` of what went wrong with each.
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: ``trio.open_tcp_stream``.
    """
    if not isinstance(host, (str, bytes)):
        raise ValueError(f"host must be str or bytes, not {host!r}")
    check_port(port)
    delay = DEFAULT_DELAY if happy_eyeballs_delay is None else happy_eyeballs_delay
    if isnan(delay) or delay < 0:
        raise ValueError(f"happy_eyeballs_delay must be seconds, not negative, not {delay!r}")
    if local_address is not None:
        encode_hostname(local_address)
    targets = in_order(await getaddrinfo(host, port, type=stdlib.SOCK_STREAM))
    if not targets:
        raise OSError(f"no results found for hostname lookup: {spelled(host, port)}")
    attempts = Attempts(local_address)
    winner = await attempts.run(targets, delay)
    if winner is None:
        raise _failure(spelled(host, port), attempts)
    try:
        return SocketStream(winner)
    except BaseException:
        winner.close()
        raise


def in_order(found: list[AddressInfo]) -> list[AddressInfo]:
    """The addresses in the order in which to try them; see rule 1."""
    for place, target in enumerate(found):
        if target[0] != found[0][0]:
            return [found[0], target, *found[1:place], *found[place + 1 :]]
    return found


def spelled(host: str | bytes, port: int | str) -> str:
    """Host and port as people write them."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "backslashreplace")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _spelled_address(address: AddressFormat) -> str:
    """A numeric address as people write it, with the zone of a link-local one."""
    host, port, *further = address
    zone = further[1] if len(further) == 2 else 0
    if zone and "%" not in host:
        try:
            host = f"{host}%{stdlib.if_indextoname(zone)}"
        except OSError:
            host = f"{host}%{zone}"
    return spelled(host, port)


def _failure(asked_for: str, attempts: Attempts) -> OSError:
    """The error when no address could be connected to."""
    # Taken out of there: the frames of these errors hold the attempts.
    failed, attempts.failed = attempts.failed, []
    text = f"all attempts to connect to {asked_for} failed"
    error = OSError(text + _details(asked_for, failed))
    error.__cause__ = ExceptionGroup(text, [error for _address, error in failed])
    return error


def _details(asked_for: str, failed: list[tuple[AddressFormat, OSError]]) -> str:
    """Each address with what went wrong, unless the host was the one address itself."""
    tried = [(_spelled_address(address), error) for address, error in failed]
    if [address for address, _error in tried] == [asked_for]:
        return ""
    return ": " + ", ".join(
        f"{address} ({os.strerror(error.errno) if error.errno else error})"
        for address, error in tried
    )


class Attempts:
    """The attempts to connect, under way at the same time."""

    def __init__(self, local_address: str | None) -> None:
        self._local_address = local_address
        self._winner: SocketType | None = None
        # What was tried in vain, in the order of failing.
        self.failed: list[tuple[AddressFormat, OSError]] = []

    async def run(self, targets: list[AddressInfo], delay: float) -> SocketType | None:
        """Make the attempts: the first socket that is connected, None if there is none."""
        try:
            async with open_nursery() as nursery:
                for family, kind, proto, _name, address in targets:
                    failed = Event()
                    nursery.start_soon(
                        self._try, nursery.cancel_scope, (family, kind, proto), address, failed
                    )
                    with move_on_after(delay):
                        await failed.wait()
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        return self._winner

    async def _try(
        self,
        all_attempts: CancelScope,
        kind: tuple[int, int, int],
        address: AddressFormat,
        failed: Event,
    ) -> None:
        try:
            sock = await self._connect(kind, address)
        except OSError as exc:
            self.failed.append((address, exc))
            failed.set()
            return
        if self._winner is not None:
            # Another one succeeded in the same turn of the loop.
            sock.close()
            return
        self._winner = sock
        all_attempts.cancel(reason="another address answered first")

    async def _connect(self, kind: tuple[int, int, int], address: AddressFormat) -> SocketType:
        sock = socket(*kind)
        try:
            if self._local_address is not None:
                await self._bind(sock, address)
            await sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _bind(self, sock: SocketType, address: AddressFormat) -> None:
        # Otherwise bind() would take a port for itself alone, before it is known which connection
        # it is for; this way connections to different places can share one.
        if sys.platform == "linux":
            with suppress(OSError):
                sock.setsockopt(stdlib.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        try:
            await sock.bind((self._local_address, 0))
        except OSError as exc:
            raise OSError(
                f"local_address={self._local_address!r} is incompatible with remote address "
                f"{address!r}: {exc.strerror or exc}"
            ) from exc
