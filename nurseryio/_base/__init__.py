"""Pure parts: errors, interfaces, outcomes and other things that need no loop."""

from __future__ import annotations

from .abcs import (
    AsyncResource as AsyncResource,
    Channel as Channel,
    Clock as Clock,
    HalfCloseableStream as HalfCloseableStream,
    HostnameResolver as HostnameResolver,
    Instrument as Instrument,
    Listener as Listener,
    ReceiveChannel as ReceiveChannel,
    ReceiveStream as ReceiveStream,
    SendChannel as SendChannel,
    SendStream as SendStream,
    SocketFactory as SocketFactory,
    Stream as Stream,
)
from .errors import (
    BrokenResourceError as BrokenResourceError,
    BusyResourceError as BusyResourceError,
    Cancelled as Cancelled,
    CancelReason as CancelReason,
    ClosedResourceError as ClosedResourceError,
    EndOfChannel as EndOfChannel,
    NeedHandshakeError as NeedHandshakeError,
    RunFinishedError as RunFinishedError,
    TooSlowError as TooSlowError,
    TrioDeprecationWarning as TrioDeprecationWarning,
    TrioInternalError as TrioInternalError,
    WouldBlock as WouldBlock,
)
from .outcome import (
    Error as Error,
    Outcome as Outcome,
    Value as Value,
    acapture as acapture,
    capture as capture,
)
from .util import (
    ConflictDetector as ConflictDetector,
    Final as Final,
    NoPublicConstructor as NoPublicConstructor,
    coroutine_or_error as coroutine_or_error,
    generic_function as generic_function,
)
