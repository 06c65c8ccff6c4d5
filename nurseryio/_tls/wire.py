"""The way between a TLS engine and the stream that carries its bytes, shared by two tasks.

What lives here: :class:`TLSWire`, which moves bytes both ways and sees to it that the stream
underneath never has two senders or two receivers. What does not: any knowledge of TLS.

A task that sends and a task that receives work at once, on one engine. Each of them may find that
the engine has something to send, or needs something from the peer, which is really the other
one's trade (a renegotiation, a key update). The rules that make this safe:

Rule 1: between asking the engine and starting to wait there is no other await. So what the engine
said is true when the wait begins.

Rule 2: output stays in the engine until its sender has the turn, so it leaves in order, and a task
that is cancelled while it waits for the turn takes nothing with it.

Rule 3: whoever has the turn sends everything there is, the other task's output included.

Rule 4: a task that needs input while the other is fetching some waits for that one and then asks
the engine again; what arrived may have been enough.

Rule 5: input draws output: key updates, refused renegotiations, whatever a peer may ask for again
and again. While another task is blocked sending, that output cannot leave. Once more than
``MOST_UNSENT`` bytes wait, no input is fetched until they have left.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from .._base import BrokenResourceError, ClosedResourceError, Stream
from .._net.stream import SocketStream
from .._sync import ParkingLot
from .engine import RECORD, TLSEngine

__all__ = ["TLSWire"]

StreamT = TypeVar("StreamT", bound=Stream)

# Bytes to ask the stream for: some whole records with what is around them, and below the size from
# which on malloc asks the system for fresh memory each time.
RECEIVE_SIZE = 6 * (RECORD + 256)

# Bytes of output that may wait while input is fetched. One fetch can draw a few times its own size.
MOST_UNSENT = 65536

# Pieces of input that are thrown away before closing, at most. A peer that has sent more than that
# without being listened to will not be surprised.
MOST_DISCARDED = 8


class TLSWire(Generic[StreamT]):
    """A stream with the TLS engine that speaks on it.

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
        # Some task has the turn to send; the others wait here.
        self.send_locked = False
        self._send_queue = ParkingLot()
        # ... and will not give it back before all output is on its way.
        self.draining = False
        # Some task is fetching input; the others wait here.
        self._pulling = False
        self._arrival = ParkingLot()
        # An unknown part of some output was sent: nothing after it would make sense to the peer.
        self.write_failed = False
        # ... because the stream was closed on this side.
        self._closed = False

    async def flush(self) -> None:
        """Send what the engine has put out, and return when all of it has been sent.

        Raises:
            BrokenResourceError: Something that was to be sent before was not, or not completely.
            ClosedResourceError: The stream was closed while that was sent.

        Checkpoint: yes, if there is output or somebody else is sending.
        """
        await self._acquire_send_lock()
        try:
            await self._drain()
        finally:
            self._release_send_lock()

    async def wait_writable(self) -> None:
        """Wait until sending on the stream might not block, with the turn to send.

        Raises:
            BrokenResourceError: Something that was to be sent before was not, or not completely.
            ClosedResourceError: The stream was closed while that was sent.

        Checkpoint: yes.
        """
        await self._acquire_send_lock()
        try:
            await self.transport.wait_send_all_might_not_block()
            # The receiving task may have had to wait behind us.
            await self._drain()
        finally:
            self._release_send_lock()

    async def pull(self) -> None:
        """Feed the engine with more input, or wait while another task does.

        Only for an engine without output; see :meth:`exchange`.

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
        """Do what brings an engine further that has just said that it needs input.

        Output first: the input may be the peer's answer to it. If another task is sending, that
        task sends this output too, and waiting for it would stop both directions. So that is done
        only if there is much of it (rule 5).

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
        """Throw the input away that has arrived at a socket, as it is about to be closed.

        A socket that is closed with input in it resets the connection, and then the system also
        throws away what it had still to send. With TLS 1.3 there may be input that nobody expects:
        servers send session tickets at a time of their choice.

        Checkpoint: no.
        """
        if self._pulling or not isinstance(self.transport, SocketStream):
            return
        for _ in range(MOST_DISCARDED):
            if not self.transport.socket.is_readable():
                return
            if not await self.transport.receive_some(RECEIVE_SIZE):
                return

    async def _acquire_send_lock(self) -> None:
        while self.send_locked:
            await self._send_queue.park()
        if self._closed:
            raise ClosedResourceError("the stream that carries the TLS data was closed")
        if self.write_failed:
            raise BrokenResourceError("sending on the stream that carries the TLS data has failed")
        self.send_locked = True

    def _release_send_lock(self) -> None:
        self.send_locked = False
        if self._send_queue:
            self._send_queue.unpark_all()

    async def _drain(self) -> None:
        self.draining = True
        try:
            while data := self.engine.output():
                await self.transport.send_all(data)
        except BaseException as error:
            self.write_failed = True
            self._closed = isinstance(error, ClosedResourceError)
            raise
        finally:
            self.draining = False
