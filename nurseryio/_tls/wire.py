"""Moving bytes between a TLS engine and the stream that carries them, for two tasks at once.

This module has :class:`TLSWire`. The stream that carries the encrypted bytes is called the
transport. :class:`TLSWire` moves bytes in both directions, and makes sure that the transport never
has two senders or two receivers at a time. The knowledge of TLS is in ``engine``.

A task that sends and a task that receives use one engine at the same time. The sender may find
that the engine needs input, and the receiver may find that it has output: because of a
renegotiation, or a key update. These rules make that safe:

Rule 1: there is no other ``await`` between asking the engine and starting to wait. So the engine's
answer is still true when the wait begins.

Rule 2: output stays in the engine until a task has the send lock. So the output leaves in order,
and no output is lost when a task is cancelled while it waits for the lock.

Rule 3: the task that has the send lock sends all output there is, including the other task's.

Rule 4: if a task needs input while another task is fetching some, it waits for that task. Then it
asks the engine again, because the input that arrived may be enough.

Rule 5: input can make the engine produce output: key updates, refused renegotiations, requests that
a peer may repeat without end. That output cannot leave while another task is blocked in sending.
So once more than ``MOST_UNSENT`` bytes of output wait, no input is fetched until they have been
sent.
"""

from __future__ import annotations

from typing import Generic, NoReturn, TypeVar

from .._base import BrokenResourceError, ClosedResourceError, Stream
from .._net.stream import SocketStream
from .._sync import ParkingLot
from .engine import RECORD, TLSEngine

__all__ = ["TLSWire"]

StreamT = TypeVar("StreamT", bound=Stream)

# The number of bytes to receive at once: several whole records with their headers. It is below the
# size from which on malloc asks the system for fresh memory each time.
RECEIVE_SIZE = 6 * (RECORD + 256)

# The number of bytes of output that may wait while input is fetched. The output that one fetch
# causes can be a few times as large as the input.
MOST_UNSENT = 65536

# The number of pieces of input that are thrown away before closing, at most. A peer that has sent
# more than that, unread, has to expect that the connection is reset.
MOST_DISCARDED = 8


class TLSWire(Generic[StreamT]):
    """A TLS engine together with the stream that carries its bytes.

    Args:
        transport: Carries the encrypted bytes.
        engine: Encrypts and decrypts them.
    """

    __slots__ = (
        "_arrival",
        "_closed",
        "_pulling",
        "_send_queue",
        "draining",
        "engine",
        "send_locked",
        "write_failed",
        "transport",
    )

    def __init__(self, transport: StreamT, engine: TLSEngine) -> None:
        self.transport = transport
        self.engine = engine
        # Whether a task has the send lock, and the tasks that wait for it.
        self.send_locked = False
        self._send_queue = ParkingLot()
        # Whether that task will send all output before it releases the lock.
        self.draining = False
        # Whether a task is fetching input, and the tasks that wait until it has.
        self._pulling = False
        self._arrival = ParkingLot()
        # An unknown part of some output was sent. The peer could not decrypt anything after it.
        self.write_failed = False
        # Whether that is because the transport was closed on this side.
        self._closed = False

    async def flush(self) -> None:
        """Send the output of the engine, and return when all of it has been sent.

        Raises:
            BrokenResourceError: Something that was to be sent before was not, or not completely.
            ClosedResourceError: The transport was closed while that was sent.

        Checkpoint: yes, if there is output or another task is sending.
        """
        await self._send()

    async def wait_writable(self) -> None:
        """Wait, with the send lock, until sending on the transport might not block.

        Raises:
            BrokenResourceError: Something that was to be sent before was not, or not completely.
            ClosedResourceError: The transport was closed while that was sent.

        Checkpoint: yes.
        """
        # The receiving task may be waiting for the lock, with output to send.
        await self._send(wait=True)

    async def pull(self) -> None:
        """Feed the engine with more input, or wait while another task does.

        The caller must make sure that the engine's output has been sent, or is being sent by
        another task. :meth:`exchange` does that.

        Checkpoint: yes.
        """
        if self._pulling:
            await self._arrival.park()
            return
        self._pulling = True
        try:
            self.engine.feed(await self.transport.receive_some(RECEIVE_SIZE))
        finally:
            self._pulling = False
            if self._arrival:
                self._arrival.unpark_all()

    async def exchange(self) -> None:
        """Send output or fetch input, for an engine that has just asked for input.

        Output is sent first, because the input may be the peer's answer to it. If another task is
        sending all output, it sends this output too. Waiting for that task would stop both
        directions, so this method waits for it only if there is much output (rule 5).

        Raises:
            BrokenResourceError: The output cannot be sent.

        Checkpoint: yes.
        """
        unsent = self.engine.unsent
        if unsent and (not self.draining or unsent > MOST_UNSENT):
            await self.flush()
        else:
            await self.pull()

    async def discard_arrived(self) -> None:
        """Throw away the input that has arrived at a socket which is about to be closed.

        Closing a socket that has unread input resets the connection. The system then also throws
        away the output that it has not sent yet. With TLS 1.3 there may be input that no task waits
        for, because servers send session tickets at any time.

        Checkpoint: no.
        """
        if self._pulling or not isinstance(self.transport, SocketStream):
            return
        for _ in range(MOST_DISCARDED):
            if not self.transport.socket.is_readable():
                return
            if not await self.transport.receive_some(RECEIVE_SIZE):
                return

    async def _send(self, wait: bool = False) -> None:
        """Send all output with the send lock.

        Args:
            wait: First wait until the transport has room.
        """
        while self.send_locked:
            await self._send_queue.park()
        if self.write_failed:
            self._raise_failure()
        self.send_locked = True
        try:
            if wait:
                await self.transport.wait_send_all_might_not_block()
            self.draining = True
            while data := self.engine.output():
                await self.transport.send_all(data)
        except BaseException as error:
            if self.draining:
                self.write_failed = True
                self._closed = isinstance(error, ClosedResourceError)
            raise
        finally:
            self.send_locked = self.draining = False
            if self._send_queue:
                self._send_queue.unpark_all()

    def _raise_failure(self) -> NoReturn:
        if self._closed:
            raise ClosedResourceError("the stream that carries the TLS data was closed")
        raise BrokenResourceError("sending on the stream that carries the TLS data has failed")
