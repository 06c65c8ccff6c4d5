"""Connecting by TCP with Happy Eyeballs: :func:`open_tcp_stream`.

The algorithm is "Happy Eyeballs" (RFC 6555). A name may stand for several addresses, some of which
may be unreachable, and it takes long to find that out. So the addresses are tried in order, each
attempt in a separate task. The next attempt starts when the one before has failed, or after a delay
that users do not yet notice. The first connection wins, and the other attempts are cancelled.

Rule 1: the order is that of the system, with one exception. The second address is of another family
than the first one, if there is such an address. A whole family fails more often than a single
address.

Rule 2: every socket except the winner's is closed, also after an error or a cancellation.

Rule 3: a host that has one address is connected to in the caller's task, without a nursery.

Rule 4: the algorithm uses this library's sockets and nurseries, not methods of the loop: uvloop
does not have the algorithm.
"""

from __future__ import annotations

import os
import socket as stdlib
import sys
from contextlib import suppress
from math import isnan
from typing import TYPE_CHECKING

from .._base.unsupported import needs
from .._nursery import CancelScope, move_on_after, open_nursery
from .._resolver.hostname import encode_hostname
from .._resolver.resolver import find_addresses, is_numeric
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

# Seconds until the next attempt begins beside an undecided one. Browsers found this value to work.
DEFAULT_DELAY = 0.25

# The constant of Linux; Python has it from 3.12 on.
IP_BIND_ADDRESS_NO_PORT = 24


@needs("sockets")
async def open_tcp_stream(
    host: str | bytes,
    port: int,
    *,
    happy_eyeballs_delay: float | None = DEFAULT_DELAY,
    local_address: str | None = None,
) -> SocketStream:
    """Connect to a host by TCP.

    If the name has several addresses, they are tried in order. The next attempt begins when an
    attempt has failed, or is still undecided after ``happy_eyeballs_delay`` seconds. The undecided
    attempt then continues beside the next one. The first attempt that succeeds is used, and the
    others are cancelled. The time is not limited; use :func:`fail_after`.

    Args:
        host: A name or a numeric address.
        port: The port number.
        happy_eyeballs_delay: Seconds, not negative; None stands for the default of 0.25. With
            ``inf`` one address is tried at a time.
        local_address: The address of this machine, numeric or a name, that the connection comes
            from. If None, the system chooses it. Only addresses of the same family can then be
            connected to, so ``"0.0.0.0"`` means IPv4 and ``"::"`` means IPv6.

    Returns:
        A stream over the connection.

    Raises:
        TypeError: ``port`` is not an integer, or ``local_address`` is neither str nor bytes.
        ValueError: ``host`` is neither str nor bytes, or a number is out of range.
        OSError: The name cannot be resolved. Or the name is not possible: it has a NUL, or a label
            that is empty or too long; then the error is a ``UnicodeError`` as well. Or each attempt
            to connect failed: then the message lists the addresses, and ``__cause__`` is an
            ``ExceptionGroup`` of the errors.
        Cancelled: if the task is cancelled meanwhile.

    Checkpoint: yes.

    Trio: ``trio.open_tcp_stream``.
    """
    if not isinstance(host, (str, bytes)):
        raise ValueError(f"host must be str or bytes, not {host!r}")
    check_port(port, "int,")  # Trio has two texts
    delay = DEFAULT_DELAY if happy_eyeballs_delay is None else happy_eyeballs_delay
    if isnan(delay) or delay < 0:
        raise ValueError(f"happy_eyeballs_delay must be seconds, not negative, not {delay!r}")
    if local_address is not None:
        encode_hostname(local_address)
    targets = numeric_target(host, port)
    if targets is None:
        found = await find_addresses(host, port, type=stdlib.SOCK_STREAM, always_yield=False)
        targets = in_order(found)
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


def numeric_target(host: str | bytes, port: int) -> list[AddressInfo] | None:
    """What the system would return for a numeric IPv4 address; None for other hosts."""
    if not is_numeric(stdlib.AF_INET, host):
        return None
    assert isinstance(host, str)
    return [(stdlib.AF_INET, stdlib.SOCK_STREAM, stdlib.IPPROTO_TCP, "", (host, port))]


def in_order(found: list[AddressInfo]) -> list[AddressInfo]:
    """Return the addresses in the order in which to try them; see rule 1."""
    for place, target in enumerate(found):
        if target[0] != found[0][0]:
            return [found[0], target, *found[1:place], *found[place + 1 :]]
    return found


def spelled(host: str | bytes, port: int | str) -> str:
    """Return host and port as people write them."""
    if isinstance(host, bytes):
        host = host.decode("ascii", "backslashreplace")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _spelled_address(address: AddressFormat) -> str:
    """Return a numeric address as people write it, with the zone if it is link-local."""
    host, port, *further = address
    zone = further[1] if len(further) == 2 else 0
    if zone and "%" not in host:
        try:
            host = f"{host}%{stdlib.if_indextoname(zone)}"
        except OSError:
            host = f"{host}%{zone}"
    return spelled(host, port)


def _failure(asked_for: str, attempts: Attempts) -> OSError:
    """Return the error for the case that all attempts failed."""
    # Removed from the attempts, because the frames of these errors hold the attempts (a cycle).
    failed, attempts.failed = attempts.failed, []
    text = f"all attempts to connect to {asked_for} failed"
    error = OSError(text + _details(asked_for, failed))
    error.__cause__ = ExceptionGroup(text, [error for _address, error in failed])
    return error


def _details(asked_for: str, failed: list[tuple[AddressFormat, OSError]]) -> str:
    """Return a list of addresses and errors as text; empty if the host was the only address."""
    tried = [(_spelled_address(address), error) for address, error in failed]
    if [address for address, _error in tried] == [asked_for]:
        return ""
    return ": " + ", ".join(
        f"{address} ({os.strerror(error.errno) if error.errno else error})"
        for address, error in tried
    )


class Attempts:
    """The attempts of one :func:`open_tcp_stream`, several of them at the same time."""

    def __init__(self, local_address: str | None) -> None:
        self._local_address = local_address
        self._winner: SocketType | None = None
        # The addresses of the attempts that failed with their errors, in the order of failing.
        self.failed: list[tuple[AddressFormat, OSError]] = []

    async def run(self, targets: list[AddressInfo], delay: float) -> SocketType | None:
        """Make the attempts, and return the first connected socket, or None if all failed."""
        if len(targets) == 1:
            return await self._attempt(targets[0])
        try:
            async with open_nursery() as nursery:
                for target in targets:
                    failed = Event()
                    nursery.start_soon(self._try, nursery.cancel_scope, target, failed)
                    with move_on_after(delay):
                        await failed.wait()
        except BaseException:
            if self._winner is not None:
                self._winner.close()
            raise
        return self._winner

    async def _try(self, all_attempts: CancelScope, target: AddressInfo, failed: Event) -> None:
        sock = await self._attempt(target)
        if sock is None:
            failed.set()
        elif self._winner is not None:
            # Another attempt succeeded in the same iteration of the loop.
            sock.close()
        else:
            self._winner = sock
            all_attempts.cancel(reason="another address answered first")

    async def _attempt(self, target: AddressInfo) -> SocketType | None:
        """Make one attempt, and return the connected socket, or None if it failed."""
        try:
            return await self._connect(target)
        except OSError as exc:
            self.failed.append((target[4], exc))
            return None

    async def _connect(self, target: AddressInfo) -> SocketType:
        family, kind, proto, _name, address = target
        sock = socket(family, kind, proto)
        try:
            if self._local_address is not None:
                await self._bind(sock, address)
            await sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def _bind(self, sock: SocketType, address: AddressFormat) -> None:
        # Without this option bind() takes a port for this socket alone, because the system does not
        # know the remote address yet. With it, connections to different addresses can share a port.
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
