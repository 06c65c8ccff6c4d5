"""Helpers of the stream checks: makers of pairs, expected errors, clean-up, calls with assertions.

The helpers do not know of a particular check, and do not use a test framework.
"""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

from .._base import AsyncResource, ReceiveStream, SendStream
from .._net.generic import aclose_forcefully
from .checkpoints import assert_checkpoints

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from typing import TypeAlias

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

Left = TypeVar("Left", bound=AsyncResource)
Right = TypeVar("Right", bound=AsyncResource)

if TYPE_CHECKING:
    StreamMaker: TypeAlias = Callable[[], Awaitable[tuple[Left, Right]]]
    Bytes: TypeAlias = bytes | bytearray | memoryview


@asynccontextmanager
async def fresh(maker: StreamMaker[Left, Right]) -> AsyncIterator[tuple[Left, Right]]:
    """Make a new pair for one check; both streams are closed forcefully at its end."""
    left, right = await maker()
    try:
        yield left, right
    finally:
        try:
            await aclose_forcefully(left)
        finally:
            await aclose_forcefully(right)


@contextmanager
def expect(error: type[BaseException], *, in_group: bool = False) -> Iterator[None]:
    """Check that the body raises this error: bare, or as the one error of a group.

    Raises:
        AssertionError: if it raises nothing, or in the wrong form. Other errors pass through.
    """
    __tracebackhide__ = True
    try:
        yield
    except BaseExceptionGroup as group:
        if not in_group:
            raise AssertionError(f"expected a bare {error.__name__}, got {group!r}") from group
        if len(group.exceptions) != 1 or not isinstance(group.exceptions[0], error):
            raise AssertionError(f"expected a group of one {error.__name__}, got {group!r}") from (
                group
            )
    except error as exc:
        if in_group:
            raise AssertionError(f"expected a group of one {error.__name__}, got {exc!r}") from exc
    else:
        raise AssertionError(f"expected {error.__name__}, got no error")


async def send(stream: SendStream, data: Bytes) -> None:
    """Send, and check that it is a checkpoint and returns nothing."""
    with assert_checkpoints():
        result: object = await stream.send_all(data)  # type: ignore[func-returns-value]
    assert result is None, f"send_all() must return None, not {result!r}"


async def receive(stream: ReceiveStream, max_bytes: int | None = None) -> bytes | bytearray:
    """Receive, and check that it is a checkpoint."""
    with assert_checkpoints():
        return await stream.receive_some(max_bytes)


async def receive_exactly(stream: ReceiveStream, expected: bytes) -> None:
    """Receive one byte at most, and check that it is the expected one (or the end)."""
    got = await receive(stream, 1)
    assert got == expected, f"receive_some(1) must return {expected!r} here, not {bytes(got)!r}"


async def wait_writable(stream: SendStream) -> None:
    """Wait until a send might not block, and check that it is a checkpoint."""
    with assert_checkpoints():
        await stream.wait_send_all_might_not_block()


async def close(resource: AsyncResource) -> None:
    """Close, and check that it is a checkpoint."""
    with assert_checkpoints():
        await resource.aclose()
