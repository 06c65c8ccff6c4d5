"""Parts that work without an event loop: errors, interfaces, outcomes, threads, signals.

``errors`` has the exception classes, ``CancelReason``, and the text of errors about misnesting;
``exc_fields`` reads fields of exceptions that other code has defined; ``util`` checks calls and
numbers, and makes names for display. ``forked`` resets state in a forked child; ``watchers`` has
who looks from outside; ``call_stack`` shows the stack of a call; ``outcome`` has ``Value`` and
``Error``; ``unsupported`` has the errors for parts that a platform lacks; ``library_name`` has
sniffio's answer in callbacks; ``thread_cache`` has worker threads; ``lazy_exports`` has lazy names;
``abcs`` has the interfaces; ``instruments`` the table of hooks. ``exception_groups`` makes groups
and takes ``Cancelled`` out of them. ``signal_handlers`` replaces and restores signal handlers;
``signal_wakeup`` lets a signal wake a loop. The handler of Ctrl-C is in ``_core.ki``, its effect in
``_run.ctrl_c``.
"""

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
