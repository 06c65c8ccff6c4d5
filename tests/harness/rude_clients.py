"""Clients of an HTTP server that disconnect at random, and their leftovers in its process.

This module has the clients, and a look at a process from outside. The checks of the server are in
``test_load.py``.

Rule: each client has its own random generator, with a seed, which decides what the client does.
"""

from __future__ import annotations

import os
import random
import socket
import struct
from collections import Counter
from pathlib import Path

import nurseryio

# With this option closing a socket resets the connection.
RESET = struct.pack("ii", 1, 0)


async def visit(port: int, path: str, rng: random.Random) -> str:
    """One client from its connection to its end; returns how it behaved."""
    request = f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode()
    behaviour = rng.choice(["polite", "polite", "leaves", "leaves", "resets", "half a request"])
    async with await nurseryio.open_tcp_stream("127.0.0.1", port) as stream:
        if behaviour == "half a request":
            await stream.send_all(request[: rng.randrange(len(request))])
            return behaviour
        await stream.send_all(request)
        if behaviour == "polite":
            answer = b"".join([bytes(data) async for data in stream])
            assert answer.startswith(b"HTTP/1.1 200 OK"), answer
            return behaviour
        with nurseryio.move_on_after(rng.random() * 0.05):
            async for _ in stream:
                pass
        if behaviour == "resets":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return behaviour


async def visits(port: int, path: str, count: int, *, at_a_time: int) -> Counter[str]:
    """So many visits by a crowd of clients; returns how often they behaved how."""

    async def client(number: int) -> str:
        return await visit(port, path, random.Random(number))

    async with nurseryio.amap(client, range(count), limit=at_a_time, ordered=False) as behaviours:
        return Counter([behaviour async for behaviour in behaviours])


def open_files_of(pid: int) -> int:
    """How many file descriptors a process has open; needs Linux."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_of(pid: int) -> int:
    """How much memory a process occupies, in bytes; needs Linux."""
    resident = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return resident * os.sysconf("SC_PAGE_SIZE")
