"""A TLS 1.2 server inside the process that echoes and can ask for renegotiations.

Python's ``ssl`` cannot start one, so it is made with pyOpenSSL. It is a stream by itself: data that
the client sends on it goes straight into the server, and data that it receives comes from there. It
raises if two tasks send or two receive at once, as a real stream would.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL

from harness import certs
from nurseryio import Event
from nurseryio.abc import Stream
from nurseryio.lowlevel import checkpoint

CHECKPOINTS_WHEN_SLOW = 20


class RenegotiatingPeer(Stream):
    """The stream to such a server.

    Args:
        slow: Name of the method that takes its time.

    Attributes:
        in_use: "send" and "receive", as far as a task is doing that.
    """

    def __init__(self, slow: str = "") -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        certs.certificate().configure_cert(context)
        self._connection = SSL.Connection(context, None)
        self._connection.set_accept_state()
        self._echo = b""
        self._slow = slow
        self.in_use: set[str] = set()
        self._something_new = Event()

    def renegotiate(self) -> None:
        """Ask the client for a renegotiation."""
        assert self._connection.renegotiate()

    @property
    def is_renegotiating(self) -> bool:
        return bool(self._connection.renegotiate_pending())

    @property
    def renegotiations(self) -> int:
        return int(self._connection.total_renegotiations())

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        async with _Use(self, "send"):
            await self._take_time("send_all")
            self._connection.bio_write(bytes(data))
            try:
                while True:
                    self._echo += self._connection.recv(1)
            except SSL.WantReadError:
                pass
            except SSL.ZeroReturnError:
                self._connection.shutdown()
            self._something_new.set()
            self._something_new = Event()
            await self._take_time("send_all")

    async def wait_send_all_might_not_block(self) -> None:
        async with _Use(self, "send"):
            await self._take_time("wait_send_all_might_not_block")

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        async with _Use(self, "receive"):
            await self._take_time("receive_some")
            while True:
                news = self._something_new
                output = self._output()
                if output:
                    await self._take_time("receive_some")
                    return output
                await news.wait()

    def _output(self) -> bytes:
        """The server's output: its own, or else one byte of the echo."""
        for _ in range(2):
            try:
                return bytes(self._connection.bio_read(65536))
            except SSL.WantReadError:
                if not self._echo:
                    break
            try:
                self._connection.send(self._echo[:1])
            except SSL.WantReadError:
                # Only when the renegotiation is further; the same byte has to be tried again.
                continue
            self._echo = self._echo[1:]
        return b""

    async def aclose(self) -> None:
        self._connection.bio_shutdown()
        await checkpoint()

    async def _take_time(self, method: str) -> None:
        for _ in range(CHECKPOINTS_WHEN_SLOW if method == self._slow else 1):
            await checkpoint()


class _Use:
    """One task's use of one direction of the peer."""

    def __init__(self, peer: RenegotiatingPeer, direction: str) -> None:
        self._users = peer.in_use
        self._direction = direction

    async def __aenter__(self) -> None:
        assert self._direction not in self._users, f"two tasks {self._direction} at once"
        self._users.add(self._direction)

    async def __aexit__(self, *_exc: Any) -> None:
        self._users.remove(self._direction)
