"""TLS over any stream: :class:`SSLStream`.

What lives here: the states of a TLS stream, and what each method may do in which. What does not:
the protocol (:mod:`tls_engine`, around the standard library's ``ssl``), the traffic on the stream
underneath (:mod:`tls_wire`), what can be asked about the connection (:mod:`tls_info`). asyncio's
own TLS is not used: it hides from its user whether the end of the data was signed by the peer or
cut off by somebody else, and it buffers without a limit.

Rule 1: no byte of data passes before the handshake is done. OpenSSL would do one on its own, but
without looking at the host name.

Rule 2: what a failed or cancelled handshake, send or unwrap leaves behind is unknown, so each of
them breaks the stream at once and says so for ever after. A cancelled receive breaks nothing.

Rule 3: a ``close_notify`` says "you have got everything". So it is sent only if that is true, never
from under a task that is still sending.

Rule 4: memory is bounded: data is encrypted in pieces, each is sent before the next, and input is
fetched when somebody wants it.
"""

from __future__ import annotations

import ssl
from typing import Generic, TypeVar

from .._base import BrokenResourceError, BusyResourceError, ClosedResourceError, Final, Stream
from .._core import checkpoint, checkpoint_if_cancelled, current_task
from .._core.traps import needs_checkpoint
from .._net.generic import aclose_forcefully
from .._net.stream import bytes_view, check_max_bytes
from .._resolver.hostname import encode_hostname
from .._sync import ParkingLot
from .engine import TLSEngine, check_context, explain, is_end_of_input
from .info import TLSInfo
from .state import Handshake, Life, TLSState
from .wire import TLSWire

__all__ = ["SSLStream"]

StreamT = TypeVar("StreamT", bound=Stream)

# Bytes that are encrypted at once: enough to keep the calls few, and small enough to stay in the
# processor's cache on the way to the socket.
PIECE = 131072


class SSLStream(TLSInfo, Stream, Generic[StreamT], metaclass=Final):
    """An encrypted connection over another stream, which carries the encrypted bytes.

    The handshake, in which certificates are exchanged and checked, happens by itself when data is
    first sent or received, or in :meth:`do_handshake`. One task may send while another receives.

    If the handshake, a send or :meth:`unwrap` fails or is cancelled, the stream is broken: nobody
    can know how much of it reached the peer. Whatever is tried on it later raises
    :exc:`BrokenResourceError`. A receive can be cancelled without harm. So put a scope with a
    deadline around ``do_handshake()`` to be rid of a peer that keeps silent, and close the stream
    if it fires.

    Everything that the ``ssl`` module knows about a connection can be asked here too: ``context``,
    ``server_side``, ``server_hostname``, ``session``, ``session_reused``, ``pending()``,
    ``getpeercert()``, ``cipher()``, ``shared_ciphers()``, ``compression()``, ``version()``,
    ``selected_alpn_protocol()``, ``get_channel_binding()``. What only the handshake can tell raises
    :exc:`NeedHandshakeError` before it.

    Args:
        transport_stream: The stream that carries the encrypted bytes. From now on it belongs to
            this stream, and is closed with it. Kept as the attribute ``transport_stream``.
        ssl_context: What to offer and whom to trust; for a client as a rule
            ``ssl.create_default_context()``.
        server_hostname: For a client: the name that the server's certificate must be valid for,
            also sent to the server, which may have several. International names are encoded by
            IDNA 2008.
        server_side: True for the server's end.
        https_compatible: Whether an end without goodbye is an ordinary one. The TLS standard wants
            a signed ``close_notify`` before the connection is closed, as without it an attacker
            who can cut the connection can cut off the end of the data unnoticed. Most HTTPS
            implementations leave it out, and HTTP knows by itself where a message ends. With
            False, the default, a ``close_notify`` is sent before closing, and an end without one
            raises :exc:`BrokenResourceError` from ``receive_some``. With True none is sent and
            none expected.

    Raises:
        TypeError: ``transport_stream`` is not a stream, ``ssl_context`` not an ``ssl.SSLContext``,
            or ``server_hostname`` neither text nor bytes.
        ValueError: ``server_hostname`` is empty, or cannot be the name of a host, or is missing
            although the context checks host names.
        ssl.SSLError: ``ssl_context`` was made for the other side.

    Trio: ``trio.SSLStream``.
    """

    transport_stream: StreamT

    def __init__(
        self,
        transport_stream: StreamT,
        ssl_context: ssl.SSLContext,
        *,
        server_hostname: str | bytes | None = None,
        server_side: bool = False,
        https_compatible: bool = False,
    ) -> None:
        check_context(ssl_context, server_side=server_side)
        if not hasattr(transport_stream, "receive_some"):
            raise TypeError(
                f"SSLStream needs a stream to carry its bytes, not {transport_stream!r}; "
                "for a socket, give SocketStream(socket)"
            )
        if isinstance(server_hostname, (str, bytes)):
            server_hostname = encode_hostname(server_hostname)
        self._engine = TLSEngine(
            ssl_context, server_side=server_side, server_hostname=server_hostname
        )
        self._wire: TLSWire[StreamT] = TLSWire(transport_stream, self._engine)
        self.transport_stream = transport_stream
        self._https_compatible = https_compatible
        self._state = TLSState()
        # Tasks that wait for a handshake or a goodbye that another one is doing.
        self._close_waiters = ParkingLot()
        # A task is in a method that sends, or that receives.
        self._sending = False
        self._receiving = False
        # Of the data given to send_all, some has been sent and some has not.
        self._partially_sent = False

    def __repr__(self) -> str:
        side = "server" if self.server_side else f"client of {self.server_hostname!r}"
        return f"<SSLStream: {side}, {self._state}, over {self.transport_stream!r}>"

    @property
    def _ssl_object(self) -> ssl.SSLObject:
        return self._engine.ssl_object

    def _is_handshake_done(self) -> bool:
        return self._state.handshake is Handshake.DONE

    def _check(self) -> None:
        """Raise the error that tells why the stream cannot be used, if it cannot."""
        if self._wire.write_failed:
            self._state.lose("sending was cut short")
        self._state.check()

    # -- handshake --------------------------------------------------------------

    async def do_handshake(self) -> None:
        """Make sure that the handshake is done: do it, or wait for the task that is doing it.

        Calling this is not necessary, but the place to look at the peer's certificate before any
        data is sent, or to limit how long the peer may take:

            with nurseryio.fail_after(10):
                await stream.do_handshake()

        If it fails or is cancelled, the stream is broken.

        Raises:
            BrokenResourceError: The handshake failed, for example as the peer's certificate is not
                trusted, has expired or is for another host name; ``__cause__`` is the error of the
                ``ssl`` module. Or the connection was lost.
            ClosedResourceError: The stream is closed, or was closed meanwhile.

        Checkpoint: yes.
        """
        self._check()
        if self._state.handshake is Handshake.DONE:
            await checkpoint()
        else:
            await self._ensure_handshake()

    async def _ensure_handshake(self) -> None:
        """Do the handshake, or wait for it. Not a checkpoint if it is done."""
        if self._state.handshake is Handshake.NOT_STARTED:
            await checkpoint_if_cancelled()
            await self._do_handshake()
        elif self._state.handshake is not Handshake.DONE:
            while self._state.handshake is Handshake.RUNNING:
                await self._close_waiters.park()
            # It has failed, or somebody has closed the stream right behind it.
            self._check()

    async def _do_handshake(self) -> None:
        engine, wire = self._engine, self._wire
        self._state.handshake = Handshake.RUNNING
        try:
            while not engine.handshake():
                if engine.has_output:
                    await wire.flush()
                await wire.pull()
            if engine.has_output:
                await wire.flush()
        except ssl.SSLError as error:
            self._state.lose("the TLS handshake failed", error)
            await self._send_alert()
            raise BrokenResourceError(f"the TLS handshake failed: {explain(error)}") from error
        except BaseException as error:
            self._state.lose("the TLS handshake did not complete", error)
            raise
        else:
            self._state.handshake = Handshake.DONE
        finally:
            if self._state.handshake is Handshake.RUNNING:
                self._state.handshake = Handshake.FAILED
            self._close_waiters.unpark_all()

    async def _send_alert(self) -> None:
        """Let the peer know why its handshake failed, if it is still there to hear it."""
        try:
            if self._engine.has_output:
                await self._wire.flush()
        except (BrokenResourceError, ClosedResourceError):
            pass

    # -- data -------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait until data has arrived, and return it decrypted.

        Can be cancelled without harm, except during a handshake that it started itself.

        Args:
            max_bytes: The most bytes to return, at least 1; None for whatever has arrived.

        Returns:
            At least one byte; ``b""`` after the peer's ``close_notify``, or, with
            ``https_compatible``, after the end of the connection.

        Raises:
            BrokenResourceError: The connection was lost, or ended without a ``close_notify``
                (``__cause__`` then is an ``ssl.SSLEOFError``), or the handshake failed.
            BusyResourceError: Another task is receiving on this stream.
            ClosedResourceError: The stream is closed, or was closed meanwhile.
            TypeError: ``max_bytes`` is not an integer.
            ValueError: ``max_bytes`` is less than 1.

        Checkpoint: yes.
        """
        if max_bytes is not None:
            max_bytes = check_max_bytes(max_bytes)
        if self._receiving:
            raise BusyResourceError("another task is receiving data on this TLS stream")
        self._receiving = True
        try:
            self._check()
            if self._state.handshake is not Handshake.DONE:
                await self._ensure_handshake()
            if not self._engine.needs_input:
                await checkpoint()
            elif self._engine.has_output:
                await self._wire.exchange()
            else:
                await self._wire.pull()
            return await self._decrypt(max_bytes)
        except BrokenResourceError as error:
            if self._https_compatible and is_end_of_input(error.__cause__):
                await checkpoint()
                return b""
            raise
        finally:
            self._receiving = False

    async def _decrypt(self, max_bytes: int | None) -> bytes:
        while True:
            try:
                data = self._engine.decrypt(max_bytes)
            except ssl.SSLError as error:
                self._check()  # it may have been closed meanwhile
                self._state.lose("receiving failed", error)
                raise BrokenResourceError(explain(error)) from error
            if data is not None:
                # An answer that OpenSSL has put out goes with the next output, or before the next
                # input is waited for. A wait here could lose the data.
                return data
            await self._wire.exchange()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send all of ``data``, waiting as long as the way is congested.

        If this fails or is cancelled after it began, the stream is broken.

        Args:
            data: The bytes to send.

        Raises:
            BrokenResourceError: The connection was lost, or the handshake failed.
            BusyResourceError: Another task is sending on this stream.
            ClosedResourceError: The stream is closed, or was closed meanwhile.
            TypeError: ``data`` is not a buffer, or one that is not contiguous.

        Checkpoint: yes.
        """
        if self._sending:
            raise BusyResourceError("another task is sending data on this TLS stream")
        self._sending = True
        view: memoryview | None = None
        try:
            self._check()
            if type(data) is not bytes:
                data = view = bytes_view(data)
            if self._state.handshake is not Handshake.DONE:
                await self._ensure_handshake()
            if data:
                task = current_task()
                if needs_checkpoint(task):
                    # Looked at here, before anything is encrypted.
                    await checkpoint()
                    self._check()
                await self._encrypt(data)
            else:
                await checkpoint()
        finally:
            self._sending = False
            if view is not None:
                # A bytearray can be resized again, also if an error keeps this frame.
                view.release()

    async def _encrypt(self, data: bytes | memoryview) -> None:
        engine, wire = self._engine, self._wire
        self._partially_sent = True
        sent = 0
        try:
            while sent < len(data):
                if len(data) <= PIECE and not sent:
                    count = engine.encrypt(data)
                else:
                    with memoryview(data)[sent : sent + PIECE] as piece:
                        count = engine.encrypt(piece)
                if count:
                    await wire.flush()
                    sent += count
                else:
                    await wire.exchange()
        except ssl.SSLError as error:
            self._state.lose("sending failed", error)
            raise BrokenResourceError(explain(error)) from error
        except BaseException as error:
            self._state.lose("sending was cut short", error)
            raise
        self._partially_sent = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` has a chance of not having to wait.

        Raises:
            BrokenResourceError: The connection was lost.
            BusyResourceError: Another task is sending on this stream.
            ClosedResourceError: The stream is closed, or was closed meanwhile.

        Checkpoint: yes.
        """
        if self._sending:
            raise BusyResourceError("another task is sending data on this TLS stream")
        self._sending = True
        try:
            self._check()
            await self._wire.wait_writable()
        finally:
            self._sending = False

    # -- the end ----------------------------------------------------------------

    async def unwrap(self) -> tuple[StreamT, bytes]:
        """End the encryption, with a goodbye from both sides, and give the stream underneath back.

        For protocols that go on in plain text on the same connection, which is rare. Afterwards
        this object is closed, and its ``transport_stream`` is None. If it fails or is cancelled,
        the stream is broken.

        Returns:
            The stream underneath, and the bytes that were already received from it beyond the end
            of the encrypted data: treat them as if you had received them from it.

        Raises:
            BrokenResourceError: The peer did not agree, or the connection was lost.
            BusyResourceError: Another task is sending or receiving on this stream.
            ClosedResourceError: The stream is closed, or was closed meanwhile.

        Checkpoint: yes.
        """
        if self._sending or self._receiving:
            raise BusyResourceError("another task is using this TLS stream")
        self._sending = self._receiving = True
        try:
            self._check()
            await checkpoint()
            await self._ensure_handshake()
            await self._shut_down()
        finally:
            self._sending = self._receiving = False
        self._state.life = Life.CLOSED
        transport = self.transport_stream
        self.transport_stream = None  # type: ignore[assignment]
        return transport, self._engine.leftover()

    async def _shut_down(self) -> None:
        engine, wire = self._engine, self._wire
        try:
            while not engine.shut_down():
                await wire.exchange()
            if engine.has_output:
                await wire.flush()
        except ssl.SSLError as error:
            self._state.lose("ending the encryption failed", error)
            raise BrokenResourceError(
                f"the peer did not end the encryption with us: {explain(error)}"
            ) from error
        except BaseException as error:
            self._state.lose("ending the encryption was cut short", error)
            raise

    async def aclose(self) -> None:
        """Close the connection, and the stream underneath.

        Sends a ``close_notify`` first, after a handshake if there was none yet, and does not wait
        for the peer's. Without that goodbye it closes if the stream is broken, if it is
        ``https_compatible``, and if another task is just sending or doing the handshake: that task
        gets :exc:`ClosedResourceError`, and the peer learns that the data is not complete. If the
        goodbye fails or is cancelled, the stream underneath is closed all the same. A second task
        that closes waits for the goodbye of the first.

        Raises:
            BrokenResourceError: The stream had not been used, and its handshake failed.

        Checkpoint: yes.
        """
        if self._state.life is Life.CLOSED:
            await checkpoint()
            return
        transport = self.transport_stream
        if self._state.life is Life.CLOSING:
            await self._wait_for_other_close(transport)
            return
        goodbye = (
            self._state.life is Life.USABLE
            and not self._https_compatible
            and not self._partially_sent
            and self._state.handshake is not Handshake.RUNNING
        )
        self._state.life = Life.CLOSING
        try:
            if goodbye:
                await self._say_goodbye()
        except BaseException:
            await aclose_forcefully(transport)
            raise
        else:
            await transport.aclose()
        finally:
            self._state.life = Life.CLOSED
            self._close_waiters.unpark_all()

    async def _wait_for_other_close(self, transport: StreamT) -> None:
        """Let another task finish its goodbye; if we have no time for that, it has none either."""
        try:
            while self._state.life is Life.CLOSING:
                await self._close_waiters.park()
        except BaseException:
            await aclose_forcefully(transport)
            raise

    async def _say_goodbye(self) -> None:
        # A transport may send a little even in a cancelled scope; nothing is signed there.
        await checkpoint_if_cancelled()
        try:
            await self._ensure_handshake()
            await self._send_close_notify()
        except ClosedResourceError:
            # Another task had no time for goodbyes.
            pass

    async def _send_close_notify(self) -> None:
        try:
            self._engine.shut_down()
        except ssl.SSLError:
            # The peer sent data that nobody will read, or is gone. The goodbye is there anyway.
            pass
        try:
            if self._engine.has_output:
                await self._wire.flush()
            await self._wire.discard_arrived()
        except BrokenResourceError:
            # Both may close at the same time; then the later goodbye does not arrive.
            pass
