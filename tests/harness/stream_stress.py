"""Random programs on pairs of streams of every kind, and a model that knows each byte.

``python -m harness.stream_stress --runs N --seed S`` in ``tests`` runs programs of all kinds on all
loops; the ordinary tests run a few of each. A failure shows the kind, the seed and what was done.

At each end of a pair one task sends and one receives, in pieces of random sizes. Their calls are
cancelled in random iterations of the loop: by a scope, by a deadline, or natively. Other tasks try
to use the same direction meanwhile, and close. A program ends in one of three ways: in order on
both sides; with data in one direction and a close right behind it; rudely, by a close, a reset or a
cancellation at a random moment.

The invariants:

1. The program ends.
2. The bytes received are those that were sent, in order: whole pieces, and of a piece whose send
   was cancelled or failed a prefix. If the end came in order, nothing is missing.
3. A cancelled receive loses nothing.
4. ``b""`` is received only at an end. Where the end is signed, only if nothing was cut off.
5. ``ClosedResourceError`` is for this end closed, ``BrokenResourceError`` for a peer that has gone
   or a stream that a cancelled send has broken, ``BusyResourceError`` for a second task. No other
   error comes.
6. After ``aclose`` each method raises ``ClosedResourceError``. A second ``aclose`` does nothing.
7. No descriptor, task or registration with the loop is left.

To be told apart, each piece begins with a byte below 32, its number, and has none in it.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import nurseryio
from harness import clean, matrix
from harness.limit import stacks_of_tasks
from harness.net import reset
from harness.stream_kinds import KINDS, Kind
from nurseryio import BrokenResourceError, BusyResourceError, CancelScope, ClosedResourceError
from nurseryio._core.loop_state import loop_state
from nurseryio._loop.readiness import waits

# Real seconds after which a program hangs. It takes a few milliseconds.
LIMIT = 15.0

# The number of the last piece of a direction; the others have those below.
LAST = 31

# The bytes that pieces are made of: no byte below 32.
POOL = bytes(random.Random(1).choices(range(32, 256), k=1 << 18))

SIZES = ((1, 8), (2, 300), (300, 3_000), (3_000, 30_000), (30_000, 150_000))
RUDE = ("close", "close", "forcefully", "reset", "cancel", "both")
HOW = ("plain", "plain", "scope", "deadline", "native")


@dataclass
class Piece:
    """The data of one call of ``send_all``."""

    data: bytes
    # Whether the call has returned, so that every byte must arrive.
    sent: bool = False


@dataclass
class End:
    """One end of a pair, and what the model knows of it."""

    name: str
    stream: Any
    pieces: list[Piece] = field(default_factory=list)
    received: bytearray = field(default_factory=bytearray)
    # Directions that a call is just using: "send", "receive".
    in_use: set[str] = field(default_factory=set)
    # The other end has ended: b"" was received.
    ended: bool = False
    # The program has begun to close this end; has ended its sending direction.
    closing: bool = False
    said_eof: bool = False
    # A call was cancelled that may have broken the stream.
    hurt: bool = False
    # A call has raised BrokenResourceError.
    broken: bool = False

    @property
    def usable(self) -> bool:
        """Whether calls may be expected to succeed."""
        return not (self.closing or self.broken)


def find_difference(pieces: list[Piece], received: bytes, whole: bool, exact: bool) -> str | None:
    """The problem with the bytes that were received; None if there is none.

    Args:
        pieces: the data that was sent.
        received: all data that has arrived.
        whole: whether the end was reached in order, so that nothing may be missing.
        exact: whether what has arrived must end where a piece ends.
    """
    position = 0
    behind = False  # the end of what was received
    for number, piece in enumerate(pieces):
        common = _common(piece.data, received, position)
        position += common
        if common == len(piece.data):
            continue
        behind = behind or position == len(received)
        if not behind and piece.sent:
            return f"byte {position} is not what was sent: piece {number}, byte {common}"
        if behind and whole and piece.sent:
            return f"piece {number} of {len(pieces)} is missing from its byte {common} on"
        if exact and common:
            return f"an end in order after {common} of {len(piece.data)} bytes of piece {number}"
    if position < len(received):
        return f"{len(received) - position} bytes too many, from {position} on"
    return None


def _common(data: bytes, received: bytes, position: int) -> int:
    """How many bytes of ``data`` stand in ``received`` at a position."""
    if received.startswith(data, position):
        return len(data)
    most = min(len(data), len(received) - position)
    low, high = 0, most  # the common prefix is at least low long, and at most high
    while low < high:
        middle = (low + high + 1) // 2
        if data[low:middle] == received[position + low : position + middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Program:
    """One program. The seed decides what it does.

    Args:
        kind: the kind of pair.
        seed: together with the kind it decides what is done.
    """

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind = kind
        self.seed = seed
        self.random = random.Random(f"{kind.name} {seed}")
        self.ends: tuple[End, End]
        self.log: list[str] = []
        self.problems: list[str] = []
        # No handshake is made first: whatever is cancelled may break it.
        self.lazy = kind.breaks and self.random.random() < 0.15
        # A stream over TLS is of no use after a cancelled send: some programs go without.
        self.cancels_sends = not kind.breaks or self.random.random() < 0.5
        self.mode = self.random.choice(("orderly", "orderly", "one way", "rude", "rude"))

    # -- running --

    async def run(self) -> None:
        """Run it and judge it."""
        loop = asyncio.get_running_loop()
        tasks, descriptors = asyncio.all_tasks(), clean.open_descriptors()
        main = asyncio.ensure_future(self._main())
        await asyncio.wait([main], timeout=LIMIT)
        if not main.done():
            self.problem("1: hangs", stacks_of_tasks(asyncio.all_tasks() - tasks))
            main.cancel()
            await asyncio.wait([main], timeout=LIMIT)
        elif main.exception() is not None:
            self.problem("5: other error", repr(main.exception()))
        for _ in range(20):
            if not (asyncio.all_tasks() - tasks or open_now() - descriptors):
                break
            await asyncio.sleep(0)
        left = {task for task in asyncio.all_tasks() - tasks if not clean.is_system(task)}
        if left:
            self.problem("7: tasks are left", repr(left))
        if more := open_now() - descriptors:
            self.problem("7: descriptors are left", repr(more))
        if table := dict(waits(loop_state(loop))):
            self.problem("7: registrations are left", repr(table))
        if self.problems:
            text = [f"kind {self.kind.name!r}, seed {self.seed}, {self.mode}", *self.problems]
            raise AssertionError("\n".join([*text, "what was done:", *self.log[-40:]]))

    async def _main(self) -> None:
        async with self.kind.open() as pair:
            self.ends = (End("A", pair[0]), End("B", pair[1]))
            if self.random.random() < 0.5:
                self.ends = (self.ends[1], self.ends[0])
            if self.kind.breaks and not self.lazy:
                async with nurseryio.open_nursery() as nursery:
                    for end in self.ends:
                        if hasattr(end.stream, "do_handshake"):
                            nursery.start_soon(end.stream.do_handshake)
            if self.mode == "orderly":
                await self.orderly()
            elif self.mode == "one way":
                await self.one_way()
            else:
                await self.rude()
            for end in self.ends:
                # After a rude end no peer is there for a close_notify.
                await (self.close_forcefully if self.mode == "rude" else self.close)(end)
                await self.check_closed(end)

    def problem(self, kind: str, detail: str = "") -> None:
        """Put down that something is wrong."""
        self.problems.append(f"{kind}: {detail}")

    def note(self, *what: object) -> None:
        """Put down what was done."""
        self.log.append(" ".join(map(str, what)))

    def other(self, end: End) -> End:
        """The peer of an end."""
        return self.ends[self.ends[0] is end]

    # -- the three ways to end --

    async def orderly(self) -> None:
        """Both send and receive, up to a last piece, and then end in some order."""
        async with nurseryio.open_nursery() as nursery:
            for end in self.ends:
                nursery.start_soon(self.send_some, end, self.random.randint(0, 6))
                nursery.start_soon(self.receive_until_last, end)
            nursery.start_soon(self.compete)
        one, other = self.ends
        intact = one.usable and other.usable
        if intact:
            if all(hasattr(end.stream, "send_eof") for end in self.ends):
                await self.send_eof(one)
                await self.expect_end(other)
                await self.send_eof(other)
                await self.expect_end(one)
            else:
                async with nurseryio.open_nursery() as nursery:
                    nursery.start_soon(self.close, one)
                    nursery.start_soon(self.expect_end, other)
        for end in self.ends:
            self.judge_data(end, whole=intact)

    async def one_way(self) -> None:
        """One sends and closes; the other one receives to the end. Perhaps it answers then."""
        one, other = self.ends
        answers = hasattr(one.stream, "send_eof") and self.random.random() < 0.5

        async def there() -> None:
            await self.send_some(one, self.random.randint(1, 6))
            await (self.send_eof(one) if answers and one.usable else self.close(one))

        async def back() -> None:
            await self.receive_to_end(other)
            if answers and other.usable:
                await self.send_some(other, self.random.randint(1, 6))
            await self.close(other)

        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(there)
            nursery.start_soon(back)
            nursery.start_soon(self.compete)
            if answers:
                nursery.start_soon(self.receive_to_end, one)
        intact = not (one.broken or other.broken)
        self.judge_data(other, whole=intact)
        self.judge_data(one, whole=intact)

    async def rude(self) -> None:
        """Something happens at a random moment."""
        one, other = self.ends
        with CancelScope() as scope:
            async with nurseryio.open_nursery() as nursery:
                for end in self.ends:
                    nursery.start_soon(self.send_some, end, 30)
                    nursery.start_soon(self.receive_to_end, end)
                nursery.start_soon(self.compete)
                await self.turns(self.random.choice((3, 10, 30, 100)))
                how = self.random.choice(
                    ("close", "close", "forcefully", "reset", "cancel", "both")
                )
                self.note(one.name, how)
                if how == "close":
                    await self.close(one)
                elif how == "forcefully":
                    await self.close_forcefully(one)
                elif how == "reset" and self.kind.resets:
                    one.closing = True
                    reset(one.stream)
                elif how == "both" and not self.kind.lockstep:
                    nursery.start_soon(self.close, one)
                    nursery.start_soon(self.close, other)
                    nursery.start_soon(self.close, one)
                else:
                    for end in self.ends:
                        end.hurt = True
                    scope.cancel()
        for end in self.ends:
            self.judge_data(end, whole=False)

    # -- what the tasks do --

    async def send_some(self, end: End, count: int) -> None:
        """Send some pieces and the last one, as long as that works."""
        for number in range(count + 1):
            if not end.usable:
                break
            await self.turns(self.random.choice((0, 0, 0, 1, 5)))
            if self.random.random() < 0.1 and not self.lazy:
                await self.attempt(end, "send", end.stream.wait_send_all_might_not_block)
            how = self.random.choice(HOW) if self.cancels_sends else "plain"
            if number == count:
                piece, how = Piece(bytes([LAST])), "plain"
            else:
                piece = self.piece(len(end.pieces) % LAST)
            end.pieces.append(piece)
            data = self.random.choice((bytes, bytes, bytearray, memoryview))(piece.data)
            outcome, _ = await self.attempt(
                end, "send", functools.partial(end.stream.send_all, data), how
            )
            self.note(end.name, "sends", len(piece.data), how, outcome)
            piece.sent = outcome == "done"
        if end.broken and not end.closing:
            # The other one would wait for ever.
            await self.close_forcefully(end)

    def piece(self, number: int) -> Piece:
        """A piece of a random size with that number."""
        size = self.random.randint(*self.random.choice(SIZES))
        start = self.random.randrange(len(POOL) - size)
        return Piece(bytes([number]) + POOL[start : start + size - 1])

    async def receive_until_last(self, end: End) -> None:
        """Receive up to the last piece."""
        while not end.ended and end.usable and end.received[-1:] != bytes([LAST]):
            await self.receive(end)
        if end.ended and not self.other(end).closing:
            self.problem("4: an end that nobody has made", end.name)
        if not end.usable or end.ended:
            await self.close(end)

    async def receive_to_end(self, end: End) -> None:
        """Receive until there is no more."""
        while not end.ended and end.usable:
            await self.turns(self.random.choice((0, 0, 0, 1, 5)))
            await self.receive(end)
        if end.ended and not (self.other(end).closing or self.other(end).said_eof):
            self.problem("4: an end that nobody has made", end.name)

    async def receive(self, end: End) -> None:
        """One call of ``receive_some``."""
        most = self.random.choice((None, None, 1, 100, 5000, 65536))
        how = self.random.choice(HOW)
        outcome, data = await self.attempt(
            end, "receive", functools.partial(end.stream.receive_some, most), how
        )
        self.note(end.name, "receives", most, how, outcome, None if data is None else len(data))
        if outcome == "done":
            if most is not None and len(data) > most:
                self.problem("2: more than asked for", f"{len(data)} of {most}")
            end.received += data
            end.ended = not data

    async def compete(self) -> None:
        """Try to use directions that are in use."""
        for _ in range(self.random.randint(0, 3)):
            await self.turns(self.random.choice((1, 3, 10)))
            end = self.random.choice(self.ends)
            for way in ("receive", "send"):
                if way not in end.in_use:
                    continue
                calls: list[Callable[[], Awaitable[Any]]]
                if way == "receive":
                    calls = [functools.partial(end.stream.receive_some, 1)]
                else:
                    calls = [
                        functools.partial(end.stream.send_all, b""),
                        end.stream.wait_send_all_might_not_block,
                    ]
                try:
                    with CancelScope() as scope:
                        self.later(200, scope.cancel)
                        await self.random.choice(calls)()
                except BusyResourceError:
                    continue
                except ClosedResourceError:
                    if end.closing or end.said_eof:
                        continue
                except BrokenResourceError:
                    if self.may_break(end):
                        continue
                if way in end.in_use:
                    self.problem("5: a second task is let in", f"{end.name} {way}")

    async def attempt(
        self, end: End, way: str, call: Callable[[], Awaitable[Any]], how: str = "plain"
    ) -> tuple[str, Any]:
        """Make one call, and perhaps cancel it.

        Returns:
            "done", "cancelled", "closed" or "broken", and what the call returned.
        """

        async def called() -> Any:
            end.in_use.add(way)
            try:
                return await call()
            except asyncio.CancelledError:
                end.hurt = end.hurt or way == "send" or self.lazy
                raise
            finally:
                end.in_use.discard(way)

        turns = self.random.choice((0, 1, 2, 4, 10))
        try:
            if how == "scope":
                with CancelScope() as scope:
                    self.later(turns, scope.cancel)
                    return "done", await called()
            elif how == "deadline":
                with nurseryio.move_on_after(self.random.random() * 0.001):
                    return "done", await called()
            elif how == "native":
                return "done", await self.natively(called, turns)
            else:
                return "done", await called()
        except asyncio.CancelledError:
            if how != "native" or self.is_cancelled():
                raise
        except ClosedResourceError:
            if not end.closing and not (way == "send" and end.said_eof):
                self.problem("5: closed by nobody", f"{end.name} {way}")
            return "closed", None
        except BrokenResourceError as error:
            if not self.may_break(end):
                self.problem("5: broken by nobody", f"{end.name} {way}: {error}")
            end.broken = True
            return "broken", None
        return "cancelled", None

    async def natively(self, called: Callable[[], Awaitable[Any]], turns: int) -> Any:
        """Make the call in an asyncio task that is cancelled after some iterations of the loop."""
        task = asyncio.ensure_future(called())
        self.later(turns, task.cancel)
        try:
            await asyncio.wait([task])
        finally:
            if not task.done():
                task.cancel()
                with CancelScope(shield=True):
                    await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # it is retrieved, also if this task is cancelled as well
        return task.result()

    def is_cancelled(self) -> bool:
        """Whether the whole program is."""
        return nurseryio.current_effective_deadline() == -float("inf")

    def may_break(self, end: End) -> bool:
        """Whether there is a reason for an end to be broken."""
        other = self.other(end)
        return other.closing or (self.kind.breaks and (end.hurt or other.hurt))

    async def send_eof(self, end: End) -> None:
        """End the sending direction."""
        end.said_eof = True
        await self.attempt(end, "eof", end.stream.send_eof)
        outcome, _ = await self.attempt(end, "send", functools.partial(end.stream.send_all, b"x"))
        if outcome == "done":
            self.problem("5: sends after its end", end.name)

    async def expect_end(self, end: End) -> None:
        """Nothing more is to be received, however often one asks."""
        for _ in range(2):
            outcome, data = await self.attempt(end, "receive", end.stream.receive_some)
            if outcome != "done" or data:
                self.problem("2: no end", f"{end.name} {outcome} {data!r:.50}")

    async def close(self, end: End) -> None:
        """Close an end."""
        end.closing = True
        try:
            await end.stream.aclose()
        except BrokenResourceError:
            # The handshake that precedes the close_notify.
            if not self.lazy:
                raise
        self.note(end.name, "closed")

    async def close_forcefully(self, end: End) -> None:
        """Close an end without close_notify."""
        end.closing = True
        await nurseryio.aclose_forcefully(end.stream)
        self.note(end.name, "closed forcefully")

    async def check_closed(self, end: End) -> None:
        """A closed stream does nothing."""
        await end.stream.aclose()
        methods: list[Callable[[], Awaitable[Any]]] = [
            end.stream.receive_some,
            functools.partial(end.stream.send_all, b"x"),
            functools.partial(end.stream.send_all, b""),
            end.stream.wait_send_all_might_not_block,
        ]
        if hasattr(end.stream, "send_eof") and not end.said_eof:
            methods.append(end.stream.send_eof)
        for method in methods:
            try:
                with nurseryio.move_on_after(1):
                    await method()
            except ClosedResourceError:
                continue
            except Exception as error:
                self.problem("6: not closed", f"{end.name}, {method}: {error!r}")
            else:
                # Closing a closed half is not an error where aclose replaces send_eof.
                if method != getattr(end.stream, "send_eof", None):
                    self.problem("6: works when closed", f"{end.name}, {method}")

    def judge_data(self, end: End, whole: bool) -> None:
        """Compare what an end has received with what the other one has sent."""
        exact = self.kind.signed and end.ended and not self.other(end).said_eof
        wrong = find_difference(self.other(end).pieces, end.received, whole, exact)
        if wrong is not None:
            self.problem("2: wrong data", f"{end.name}: {wrong}")

    # -- time --

    async def turns(self, count: int) -> None:
        """Let the loop turn."""
        for _ in range(count):
            await asyncio.sleep(0)

    def later(self, turns: int, function: Callable[[], object]) -> None:
        """Call a function after some iterations of the loop."""
        loop = asyncio.get_running_loop()
        if turns:
            loop.call_soon(self.later, turns - 1, function)
        else:
            loop.call_soon(function)


def open_now() -> set[tuple[int, str]]:
    """The open descriptors, without the spare one that uvloop opens with its first transport."""
    return {item for item in clean.open_descriptors() if item[1] != os.devnull}


def main(arguments: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m harness.stream_stress", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="programs of each kind on each loop")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--kind", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--loop", nargs="*", default=list(matrix.KINDS), choices=matrix.KINDS)
    options = parser.parse_args(arguments)
    failures = 0
    for loop_kind in options.loop:
        for name in options.kind:
            began = time.monotonic()
            failed = 0

            async def programs(name: str = name) -> None:
                nonlocal failed
                for seed in range(options.seed, options.seed + options.runs):
                    try:
                        await Program(KINDS[name], seed).run()
                    except AssertionError as error:
                        failed += 1
                        if failed <= 3:
                            print(error, file=sys.stderr)

            matrix.run_case(matrix.Case(loop_kind, "run"), programs)
            seconds = time.monotonic() - began
            print(
                f"{name} on {loop_kind}: {options.runs} programs, {failed} failed, {seconds:.1f} s"
            )
            failures += failed
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
