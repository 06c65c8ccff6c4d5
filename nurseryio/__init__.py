"""Structured concurrency for asyncio: nurseries, cancel scopes and streams, as Trio has them.

Everything here works in any asyncio task::

    async with nurseryio.open_nursery() as nursery:  # ends when both children have ended
        nursery.start_soon(fetch, "one")
        nursery.start_soon(fetch, "two")

    with nurseryio.fail_after(5):  # raises TooSlowError after five seconds
        await fetch("three")

``nurseryio.run(main)`` starts a program, like ``asyncio.run(main())``.

Tasks      ``open_nursery``, ``gather``, ``race``, ``amap``
Time       ``fail_after``, ``move_on_after``, ``CancelScope``, ``sleep``
Waiting    ``Event``, ``Lock``, ``Semaphore``, ``CapacityLimiter``, ``Condition``
Objects    ``open_memory_channel``
Bytes      ``open_tcp_stream``, ``serve_tcp``; the same with TLS, and for Unix sockets
System     ``run_process``, ``open_file``, ``Path``, ``open_signal_receiver``

More is in the modules ``to_thread`` and ``from_thread``, ``to_process`` and ``to_interpreter``
(code that computes), ``aio`` (asyncio and anyio code),
``instruments`` (looking at a running program), ``testing``, ``lowlevel``, ``socket`` and ``abc``.
The names are Trio's: ``import nurseryio as trio``. The documentation is at
https://nurseryio.readthedocs.io.

For people who read the code: the library has rooms (subpackages), from the ground floor up. A room
imports only from floors of a smaller number, and a public module may import from every room. The
map of a room is at the top of its ``__init__``::

    1   _asyncio                                      the border with asyncio
    2   _base                                         parts that need no loop
    3   _core                                         the engine
    4   _nursery                                      scopes, timeouts, nurseries
    5   _loop, _observe, _sync                        the loop's reports; tracing; locks, channels
    6   _run                                          run, Ctrl-C, tokens
    7   _telemetry, _resolver                         warnings, traces, spans; name look-up
    8   _net                                          sockets, streams, servers
    9   _dtls, _tls, _system, _interop, _checks       DTLS; TLS; threads, processes, files; other
                                                      libraries; checks for tests
    10  _bytes, _portal, _workers                     lines, sendfile, temporary files, stdin;
                                                      async functions for plain code; console;
                                                      worker processes, subinterpreters
    11  testing                                       virtual clock, memory streams, pytest plugin

Public modules only re-export, and each public name is in exactly one of them. A name that not every
program needs is loaded when it is first used.

PYTEST_DONT_REWRITE, because this module has no assertions. Without this word pytest would warn,
wherever nurseryio was imported before pytest could rewrite the assertions of its plugins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base import (
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
from ._base.lazy_exports import lazy_exports, preload as preload
from ._nursery import (
    TASK_STATUS_IGNORED as TASK_STATUS_IGNORED,
    CancelScope as CancelScope,
    Nursery as Nursery,
    TaskStatus as TaskStatus,
    __compiled__ as __compiled__,
    current_effective_deadline as current_effective_deadline,
    current_time as current_time,
    fail_after as fail_after,
    fail_at as fail_at,
    move_on_after as move_on_after,
    move_on_at as move_on_at,
    move_on_at_stop as move_on_at_stop,
    open_nursery as open_nursery,
    sleep as sleep,
    sleep_forever as sleep_forever,
    sleep_until as sleep_until,
    stop_requested as stop_requested,
    wait_stop_requested as wait_stop_requested,
)
from ._sync import (
    Event as Event,
    EventStatistics as EventStatistics,
    Lock as Lock,
    LockStatistics as LockStatistics,
    MemoryChannelStatistics as MemoryChannelStatistics,
    MemoryReceiveChannel as MemoryReceiveChannel,
    MemorySendChannel as MemorySendChannel,
    Semaphore as Semaphore,
    StrictFIFOLock as StrictFIFOLock,
    open_memory_channel as open_memory_channel,
)

if TYPE_CHECKING:
    from . import (
        abc as abc,
        aio as aio,
        from_thread as from_thread,
        instruments as instruments,
        lowlevel as lowlevel,
        socket as socket,
        testing as testing,
        to_interpreter as to_interpreter,
        to_process as to_process,
        to_thread as to_thread,
    )
    from ._bytes import (
        BufferedReceiveStream as BufferedReceiveStream,
        NamedTemporaryFile as NamedTemporaryFile,
        StandardReceiveStream as StandardReceiveStream,
        StandardSendStream as StandardSendStream,
        TemporaryDirectory as TemporaryDirectory,
        TemporaryFile as TemporaryFile,
        open_stderr as open_stderr,
        open_stdin as open_stdin,
        open_stdout as open_stdout,
        sendfile as sendfile,
    )
    from ._dtls import (
        DTLSChannel as DTLSChannel,
        DTLSChannelStatistics as DTLSChannelStatistics,
        DTLSEndpoint as DTLSEndpoint,
    )
    from ._net import (
        SocketListener as SocketListener,
        SocketStream as SocketStream,
        StapledStream as StapledStream,
        aclose_forcefully as aclose_forcefully,
        open_tcp_listeners as open_tcp_listeners,
        open_tcp_stream as open_tcp_stream,
        open_unix_listeners as open_unix_listeners,
        open_unix_socket as open_unix_socket,
        serve_listeners as serve_listeners,
        serve_tcp as serve_tcp,
        serve_unix as serve_unix,
    )
    from ._nursery import (
        ServiceNursery as ServiceNursery,
        open_service_nursery as open_service_nursery,
    )
    from ._run.run import run as run
    from ._sync import (
        CapacityLimiter as CapacityLimiter,
        CapacityLimiterStatistics as CapacityLimiterStatistics,
        ChildFailure as ChildFailure,
        Condition as Condition,
        ConditionStatistics as ConditionStatistics,
        Supervisor as Supervisor,
        SupervisorStatistics as SupervisorStatistics,
        TaskHandle as TaskHandle,
        amap as amap,
        as_safe_channel as as_safe_channel,
        gather as gather,
        open_supervisor as open_supervisor,
        race as race,
        wait_children as wait_children,
    )
    from ._system import (
        AsyncIOWrapper as AsyncIOWrapper,
        Path as Path,
        PosixPath as PosixPath,
        Process as Process,
        WindowsPath as WindowsPath,
        open_file as open_file,
        open_signal_receiver as open_signal_receiver,
        run_process as run_process,
        stop_on_signals as stop_on_signals,
        terminate_process_group as terminate_process_group,
        wrap_file as wrap_file,
    )
    from ._tls import (
        SSLListener as SSLListener,
        SSLStream as SSLStream,
        open_ssl_over_tcp_listeners as open_ssl_over_tcp_listeners,
        open_ssl_over_tcp_stream as open_ssl_over_tcp_stream,
        serve_ssl_over_tcp as serve_ssl_over_tcp,
    )

__version__ = "0.2.0"

# Where the names that are loaded on first use come from.
_LAZY = {
    "_bytes.buffered": "BufferedReceiveStream",
    "_bytes.file_sending": "sendfile",
    "_bytes.standard": (
        "StandardReceiveStream StandardSendStream open_stderr open_stdin open_stdout"
    ),
    "_bytes.temporary": "NamedTemporaryFile TemporaryDirectory TemporaryFile",
    "_dtls.endpoint": "DTLSEndpoint",
    "_dtls.channel": "DTLSChannel DTLSChannelStatistics",
    "_net.generic": "StapledStream aclose_forcefully",
    "_net.stream": "SocketStream",
    "_net.listener": "SocketListener",
    "_tls.stream": "SSLStream",
    "_tls.listener": "SSLListener",
    "_tls.over_tcp": "open_ssl_over_tcp_listeners open_ssl_over_tcp_stream serve_ssl_over_tcp",
    "_net.tcp_listen": "open_tcp_listeners serve_tcp",
    "_net.tcp_connect": "open_tcp_stream",
    "_net.serve": "serve_listeners",
    "_net.unix": "open_unix_listeners open_unix_socket serve_unix",
    "_nursery.services": "ServiceNursery open_service_nursery",
    "_run.run": "run",
    "_sync.children": "wait_children",
    "_sync.condition": "Condition ConditionStatistics",
    "_sync.limiter": "CapacityLimiter CapacityLimiterStatistics",
    "_sync.results": "amap gather race",
    "_sync.safe_channel": "as_safe_channel",
    "_sync.supervisor": "ChildFailure Supervisor SupervisorStatistics open_supervisor",
    "_sync.task_handle": "TaskHandle",
    "_system.path": "Path PosixPath WindowsPath",
    "_system.process": "Process",
    "_system.run_process": "run_process terminate_process_group",
    "_system.files": "AsyncIOWrapper open_file wrap_file",
    "_system.signals": "open_signal_receiver",
    "_system.stop_signals": "stop_on_signals",
    "": (
        "abc aio from_thread instruments lowlevel socket testing to_interpreter to_process "
        "to_thread"
    ),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_exports(globals(), _LAZY)
