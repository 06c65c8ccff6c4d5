"""TLS over any stream: :class:`SSLStream`.

This module has the methods of a TLS stream, and decides what each may do in which state. The state
is in ``state``, the protocol (around the standard library's ``ssl``) in ``engine``. Traffic on the
transport is in ``wire``, and the attributes that report on the connection are in ``info``.

asyncio's own TLS is not used, for two reasons. It hides whether the end of the data was signed by
the peer or the connection was just cut off. And its buffer has no limit.

Rule 1: no data is sent or received before the handshake is done. OpenSSL would do a handshake on
its own, but without a check of the host name.

Rule 2: a handshake, send or unwrap that failed or was cancelled leaves an unknown state behind. So
it breaks the stream at once, and every later call raises an error. A cancelled receive breaks
nothing.

Rule 3: a ``close_notify`` means "this is all the data". So it is sent only if that is true, and
never while a task is still sending.

Rule 4: memory is bounded. Data is encrypted in pieces, each piece is sent before the next is
encrypted, and input is fetched only when a task needs it.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Generic, TypeVar

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

if TYPE_CHECKING:
    from .._resolver.resolver import AddressFormat

__all__ = ["SSLStream"]

StreamT = TypeVar("StreamT", bound=Stream)

# The number of bytes that are encrypted at once. It is large enough to need few calls, and small
# enough for the bytes to stay in the processor's cache until the socket gets them.
PIECE = 131072


class SSLStream(TLSInfo, Stream, Generic[StreamT], metaclass=Final):
    """An encrypted connection over another stream, which carries the encrypted bytes.

    The handshake, in which certificates are exchanged and checked, is done when data is first sent
    or received, or by :meth:`do_handshake`. One task may send while another receives.

    If the handshake, a send or :meth:`unwrap` fails or is cancelled, the stream is broken. (It is
    unknown then how much of the data reached the peer.) Any later use of the stream raises
    :exc:`BrokenResourceError`. A receive can be cancelled without harm. To limit how long a silent
    peer can keep the handshake waiting, put ``do_handshake()`` into a scope with a deadline. Close
    the stream if the deadline passes.

    The stream has the attributes and methods by which the ``ssl`` module reports on a connection:
    ``context``, ``server_side``, ``server_hostname``, ``session``, ``session_reused``,
    ``pending()``, ``getpeercert()``, ``cipher()``, ``shared_ciphers()``, ``compression()``,
    ``version()``, ``selected_alpn_protocol()``, ``get_channel_binding()``,
    ``verify_client_post_handshake()``; from Python 3.13 on ``get_verified_chain()`` and
    ``get_unverified_chain()``; from 3.15 on ``group()``, ``client_sigalg()`` and
    ``server_sigalg()``. An attribute that is known only after the handshake raises
    :exc:`NeedHandshakeError` before it.

    Args:
        transport_stream: The stream that carries the encrypted bytes. From now on it belongs to
            this stream, and is closed with it. Kept as the attribute ``transport_stream``.
        ssl_context: The settings: protocol versions, certificates, trusted authorities. For a
            client it is usually ``ssl.create_default_context()``.
        server_hostname: For a client: the host name for which the server's certificate must be
            valid. It is also sent to the server, which may have several names. International
            names are encoded by IDNA 2008.
        server_side: True for the server's end.
        https_compatible: Whether a connection may end without a ``close_notify``. The TLS standard
            requires this signed message before the connection is closed. Without it, an attacker
            who can cut the connection can cut off the end of the data unnoticed. Most HTTPS
            implementations do not send it, because an HTTP message says itself where it ends. With
            False, the default, a ``close_notify`` is sent before closing, and ``receive_some``
            raises :exc:`BrokenResourceError` at an end without one. With True it is neither sent
            nor expected.

    Raises:
        TypeError: ``transport_stream`` is not a stream, or ``ssl_context`` is not an
            ``ssl.SSLContext``, or ``server_hostname`` is neither text nor bytes.
        ValueError: ``server_hostname`` is empty, or is not a valid host name, or is missing
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
        # Tasks that wait until another task has done the handshake, or has closed the stream.
        self._close_waiters = ParkingLot()
        # Whether a task is in a method that sends, or in one that receives.
        self._sending = False
        self._receiving = False
        # Whether some of the data given to send_all may not have been sent.
        self._partially_sent = False

    def __repr__(self) -> str:
        side = "server" if self.server_side else f"client of {self.server_hostname!r}"
        return f"<SSLStream: {side}, {self._state}, over {self.transport_stream!r}>"

    @property
    def _ssl_object(self) -> ssl.SSLObject:
        return self._engine.ssl_object

    @property
    def local_address(self) -> AddressFormat:
        """The ``local_address`` of the transport stream, for example of a :class:`SocketStream`.

        Raises:
            AttributeError: Streams of the transport's kind have no addresses.
            BrokenResourceError: The system cannot say it.
            ClosedResourceError: The stream is closed, and the address was not read before.
        """
        return self._address("local_address")

    @property
    def remote_address(self) -> AddressFormat:
        """The ``remote_address`` of the transport stream; see :attr:`local_address`."""
        return self._address("remote_address")

    def _address(self, name: str) -> AddressFormat:
        if self.transport_stream is None:  # after unwrap()
            raise ClosedResourceError("this TLS stream was closed")
        return getattr(self.transport_stream, name)

    def _is_handshake_done(self) -> bool:
        return self._state.handshake is Handshake.DONE

    def _check(self) -> None:
        """Raise an error with the reason if the stream cannot be used."""
        if self._wire.write_failed:
            self._state.lose("sending was cut short")
        self._state.check()

    # -- handshake --------------------------------------------------------------

    async def do_handshake(self) -> None:
        """Make sure that the handshake is done: do it, or wait for the task that is doing it.

        This call is not necessary. Use it to look at the peer's certificate before any data is
        sent, or to limit how long the peer may take:

            with nurseryio.fail_after(10):
                await stream.do_handshake()

        If the handshake fails or is cancelled, the stream is broken.

        Raises:
            BrokenResourceError: The handshake failed, for example because the peer's certificate
                is not trusted, has expired or is for another host name. ``__cause__`` is then the
                error of the ``ssl`` module. Or the connection was lost.
            ClosedResourceError: The stream is closed, or was closed meanwhile.

        Checkpoint: yes.
        """
        self._check()
        if self._state.handshake is Handshake.DONE:
            await checkpoint()
        else:
            await self._ensure_handshake()

    async def _ensure_handshake(self) -> None:
        """Do the handshake, or wait for it. Not a checkpoint if the handshake is done."""
        if self._state.handshake is Handshake.NOT_STARTED:
            await checkpoint_if_cancelled()
            await self._do_handshake()
        elif self._state.handshake is not Handshake.DONE:
            while self._state.handshake is Handshake.RUNNING:
                await self._close_waiters.park()
            # The handshake may have failed, or another task may have closed the stream since.
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
        """Send the alert with the reason of a failed handshake, if the connection still works."""
        try:
            if self._engine.has_output:
                await self._wire.flush()
        except (BrokenResourceError, ClosedResourceError):
            pass

    # -- data -------------------------------------------------------------------

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait until data has arrived, and return it decrypted.

        This call can be cancelled without harm, unless it is doing the handshake.

        Args:
            max_bytes: The most bytes to return, at least 1; None for all that have arrived.

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
            if self._wire.write_failed or self._state.life is not Life.USABLE:
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
                self._check()  # the stream may have been closed meanwhile
                self._state.lose("receiving failed", error)
                raise BrokenResourceError(explain(error)) from error
            if data is not None:
                # OpenSSL may have put out an answer to the peer. It is sent with the next output,
                # or before the next wait for input. A wait here could lose the data.
                return data
            await self._wire.exchange()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send all of ``data``, waiting while the connection cannot take more.

        If this call fails or is cancelled after it began to send, the stream is broken.

        Args:
            data: The bytes to send.

        Raises:
            BrokenResourceError: The connection was lost, or the handshake failed.
            BusyResourceError: Another task is sending on this stream.
            ClosedResourceError: The stream is closed, or was closed meanwhile.
            TypeError: ``data`` is not a buffer, or is a buffer that is not contiguous.

        Checkpoint: yes.
        """
        if self._sending:
            raise BusyResourceError("another task is sending data on this TLS stream")
        self._sending = True
        view: memoryview | None = None
        try:
            if self._wire.write_failed or self._state.life is not Life.USABLE:
                self._check()
            if type(data) is not bytes:
                data = view = bytes_view(data)
            if self._state.handshake is not Handshake.DONE:
                await self._ensure_handshake()
            if data:
                task = current_task()
                if needs_checkpoint(task):
                    # Raise the cancellation here, before anything is encrypted: nothing breaks yet.
                    await checkpoint()
                    self._check()
                await self._encrypt(data)
            else:
                await checkpoint()
        finally:
            self._sending = False
            if view is not None:
                # So that a bytearray can be resized again, even if an error refers to this frame.
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
        """Wait until ``send_all`` might not have to wait.

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
        """End the encryption, with a ``close_notify`` from both sides, and return the transport.

        This is for the rare protocols that continue in plain text on the same connection.
        Afterwards this object is closed, and its ``transport_stream`` is None. If this call fails
        or is cancelled, the stream is broken.

        Returns:
            The transport stream, and the bytes that it had already received after the end of the
            encrypted data. Treat them as if you had received them from the transport stream.

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
        """Close the connection, and the transport stream.

        This first does the handshake if there was none yet, and sends a ``close_notify``. It does
        not wait for the peer's. If the ``close_notify`` cannot be sent or is cancelled, the
        transport stream is closed all the same.

        No ``close_notify`` is sent if the stream is broken or ``https_compatible``, or if another
        task is sending or doing the handshake. That other task then gets
        :exc:`ClosedResourceError`, and the peer learns that the data is not complete. If another
        task is already closing the stream, this call waits for it.

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
        """Wait until another task has closed the stream.

        If this wait is cancelled, close the transport at once, which also ends that task's wait.
        """
        try:
            while self._state.life is Life.CLOSING:
                await self._close_waiters.park()
        except BaseException:
            await aclose_forcefully(transport)
            raise

    async def _say_goodbye(self) -> None:
        # In a cancelled scope send no ``close_notify``, although a transport might take it.
        await checkpoint_if_cancelled()
        try:
            await self._ensure_handshake()
            await self._send_close_notify()
        except ClosedResourceError:
            # Another task in ``aclose`` was cancelled, and has closed the transport.
            pass

    async def _send_close_notify(self) -> None:
        try:
            self._engine.shut_down()
        except ssl.SSLError:
            # The peer sent data that no task will read, or is gone. The engine has put out the
            # ``close_notify`` all the same.
            pass
        try:
            if self._engine.has_output:
                await self._wire.flush()
            await self._wire.discard_arrived()
        except BrokenResourceError:
            # If both sides close at the same time, the later ``close_notify`` does not arrive.
            pass
