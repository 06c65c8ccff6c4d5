"""The network rows as data: what the client does, targets, and what is and is not equal.

Targets are ratios to the raw `asyncio.Protocol` on the same loop, of the server's CPU time per
operation.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..libraries import STOCK


@dataclass(frozen=True)
class NetworkRow:
    """One network row.

    Attributes:
        name: Key on the command line.
        title: What the table calls it.
        target: The ratio to the raw Protocol that nurseryio has to reach, or None.
        kind: Which service the server gives: echo, sink, source or caller; `visit` is echo with a
            connection each time.
        size: Bytes of a message, or of the whole transfer for sink and source.
        connections: How many are open at once.
        times: Waves of messages (echo), visits, calls, or transfers in a round.
        tls: Whether the connection is encrypted.
        default_malloc: Whether the server runs with the C library's own choice of memory mapping.
    """

    name: str
    title: str
    target: float | None
    kind: str
    size: int
    connections: int
    times: int
    tls: bool = False
    default_malloc: bool = False

    @property
    def service(self) -> str:
        """Which service the server has to run."""
        return "echo" if self.kind == "visit" else self.kind

    def target_on(self, loop: str) -> float | None:
        """Return the ratio to reach on a loop, or None."""
        # What that row is about, a mapping for each read, happens on the stock loop alone.
        return None if self.default_malloc and loop != STOCK else self.target

    def scaled(self, share: float) -> int:
        """Return the waves, visits or transfers of a round that has this part of the full size."""
        return max(1, round(self.times * share))

    def work(self, times: int) -> tuple[int, float]:
        """Return operations and megabytes (both ways) in so many waves, visits or transfers."""
        operations = times * (self.connections if self.kind == "echo" else 1)
        ways = 2 if self.service == "echo" else 1
        return operations, ways * operations * self.size / 1e6

    @property
    def fairness(self) -> str:
        """What is equal and what is not equal between the servers."""
        return (
            _FAIRNESS[self.kind]
            + (_TLS if self.tls else "")
            + (_MALLOC if self.default_malloc else "")
        )


_FAIRNESS = {
    "echo": "Equal: the same client sends on every connection, then collects every echo. Not equal:"
    " the raw protocols have no task; Trio's and our send_all is a checkpoint and returns when the"
    " kernel has all bytes, the others buffer up to a high-water mark.",
    "visit": "Equal: connect, one 64-byte echo, close, one after the other. Not equal: the stream"
    " servers make a task for each connection, and ours and Trio's close it when the handler ends.",
    "caller": "Equal: connect to a numeric address, close, one after the other. Not equal: a"
    " transport closes its socket one iteration of the loop later, and Trio's and our stream at"
    " once.",
    "sink": "Equal: one connection, read to the end, count. Not equal: a raw Protocol gets up to"
    " 256 KiB at a time, ours as much as soon as a whole buffer came at once, the others"
    " ask for at most 64 KiB.",
    "source": "Equal: one connection, pieces of 64 KiB with back-pressure. Not equal: asyncio's"
    " transport keeps what the kernel does not take at once and lets the program go on; send_all"
    " waits until the kernel has it.",
}
_TLS = (
    " TLS 1.3 by each library's own layer: asyncio's or uvloop's transport, Trio's and anyio's"
    " SSLObject."
)
_MALLOC = (
    " The server process runs with the C library's default memory mapping, as users have it: until"
    " the first connection has ended, each of the stock loop's 256 KiB reads for a plain Protocol"
    " is a mapping of its own."
)
KIB, MIB = 1024, 1024 * 1024

ROWS: tuple[NetworkRow, ...] = (
    NetworkRow("echo_64", "echo 64 B, 1 connection", 1.25, "echo", 64, 1, 2000),
    NetworkRow("echo_64_x50", "echo 64 B, 50 connections", 1.25, "echo", 64, 50, 60),
    NetworkRow("echo_64_x100", "echo 64 B, 100 connections", 1.25, "echo", 64, 100, 30),
    NetworkRow("echo_64_x500", "echo 64 B, 500 connections", 1.25, "echo", 64, 500, 6),
    NetworkRow("echo_16k", "echo 16 KiB, 1 connection", None, "echo", 16 * KIB, 1, 1500),
    NetworkRow("echo_16k_x50", "echo 16 KiB, 50 connections", None, "echo", 16 * KIB, 50, 40),
    NetworkRow("echo_16k_x500", "echo 16 KiB, 500 connections", None, "echo", 16 * KIB, 500, 4),
    NetworkRow("echo_64k", "echo 64 KiB, 1 connection", 1.15, "echo", 64 * KIB, 1, 1000),
    NetworkRow("echo_1m", "echo 1 MiB, 1 connection", None, "echo", MIB, 1, 60),
    NetworkRow("echo_1m_x50", "echo 1 MiB, 50 connections", None, "echo", MIB, 50, 2),
    NetworkRow("visit", "accept, one echo, close", 1.2, "visit", 64, 1, 400),
    NetworkRow("connect", "connect, close", None, "caller", 0, 1, 400),
    NetworkRow("stream_in", "stream in", 1.3, "sink", 64 * MIB, 1, 1),
    NetworkRow("stream_out", "stream out", 1.0, "source", 64 * MIB, 1, 1),
    NetworkRow("tls_echo_64", "TLS echo 64 B, 1 connection", None, "echo", 64, 1, 1000, tls=True),
    NetworkRow(
        "tls_echo_16k", "TLS echo 16 KiB, 1 connection", None, "echo", 16 * KIB, 1, 600, tls=True
    ),
    NetworkRow(
        "tls_echo_64_x50", "TLS echo 64 B, 50 connections", None, "echo", 64, 50, 20, tls=True
    ),
    NetworkRow("tls_stream_out", "TLS stream out", None, "source", 16 * MIB, 1, 1, tls=True),
    NetworkRow(
        "echo_64_x100_malloc",
        "echo 64 B, 100 connections, default malloc",
        0.6,
        "echo",
        64,
        100,
        30,
        default_malloc=True,
    ),
)
BY_NAME: dict[str, NetworkRow] = {row.name: row for row in ROWS}
