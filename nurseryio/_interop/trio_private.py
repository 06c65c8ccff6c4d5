"""Trio's private names that published packages use: which ones the stand-in has, and the others.

``as_trio`` makes the modules, and looks up here what is in a private one. The list of names comes
from a search of public repositories. ``docs/migration/private-names.md`` shows it as a table.

Rule 1: a private module of Trio has all public names of Trio, because they are defined in private
modules there: ``trio._core._run.Nursery`` is ``trio.Nursery``. A name whose definition has another
name in Trio is there under that name as well: ``trio._threads.to_thread_run_sync``.

Rule 2: a private name is offered only if it can mean the same here. Otherwise the import or the
access raises an error of one sentence, which says what to use instead.

Rule 3: two classes get one private attribute of Trio each, when ``provide_trio`` is called. One of
them is asyncio's ``CancelledError``, which is ``trio.Cancelled`` here.
"""

from __future__ import annotations

import importlib
import os
import random
import socket
import types
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias

from .._base import abcs
from .._base.errors import Cancelled, CancelReason
from .._core import anyio_hook
from .._core.task import Task, current_task
from .._nursery.nursery import Nursery
from .._nursery.task_status import TaskStatus
from .._run.introspection import in_trio_run, in_trio_task
from . import trio_util

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._base.errors import CancelSource

LIBRARY = __name__.partition(".")[0]

# The public modules in which a private module's names are looked up, in this order.
_PUBLIC = ("", ".lowlevel", ".abc", ".socket", ".testing")

# Public names that have another name in the private module that defines them.
_DEFINED_AS = {
    "trio._threads": {
        "to_thread_run_sync": ("to_thread", "run_sync"),
        "current_default_thread_limiter": ("to_thread", "current_default_thread_limiter"),
        "from_thread_run": ("from_thread", "run"),
        "from_thread_run_sync": ("from_thread", "run_sync"),
        "from_thread_check_cancelled": ("from_thread", "check_cancelled"),
    }
}

# The private modules of Trio that have a stand-in.
PRIVATE_MODULES = (
    "trio._abc",
    "trio._channel",
    "trio._core",
    "trio._core._entry_queue",
    "trio._core._exceptions",
    "trio._core._ki",
    "trio._core._local",
    "trio._core._mock_clock",
    "trio._core._parking_lot",
    "trio._core._run",
    "trio._core._run_context",
    "trio._core._thread_cache",
    "trio._core._traps",
    "trio._core._unbounded_queue",
    "trio._dtls",
    "trio._file_io",
    "trio._highlevel_generic",
    "trio._highlevel_open_tcp_listeners",
    "trio._highlevel_open_tcp_stream",
    "trio._highlevel_open_unix_stream",
    "trio._highlevel_serve_listeners",
    "trio._highlevel_socket",
    "trio._highlevel_ssl_helpers",
    "trio._path",
    "trio._signals",
    "trio._socket",
    "trio._ssl",
    "trio._subprocess",
    "trio._sync",
    "trio._threads",
    "trio._timeouts",
    "trio._unix_pipes",
    "trio._util",
    "trio.testing._check_streams",
    "trio.testing._checkpoints",
    "trio.testing._memory_streams",
    "trio.testing._network",
    "trio.testing._raises_group",
    "trio.testing._sequencer",
    "trio.testing._trio_test",
)

# Packages that cannot work on the stand-in: the advice of the error when they are imported.
REFUSED_PACKAGES = {
    "trio_asyncio": "asyncio code can be awaited as it is, so leave the package out",
}

_OWN_LOOP = "asyncio's loop waits for the system here, so leave the part out"

_OWN_TESTS = "Trio's own tests are for Trio alone, so copy what you need from them"

# For modules and names that are refused: the advice at the end of the sentence.
ADVICE = {
    "trio.MultiError": "Trio has removed it, so use ExceptionGroup",
    "trio.hazmat": "Trio has renamed it, so import trio.lowlevel",
    "trio._core._io_epoll": _OWN_LOOP,
    "trio._core._io_kqueue": _OWN_LOOP,
    "trio._core._instrumentation": "use trio.lowlevel.add_instrument",
    "trio._core._io_common": _OWN_LOOP,
    "trio._core._io_windows": _OWN_LOOP,
    "trio._core._ki.KIManager": "nurseryio.run handles Ctrl-C, so leave the part out",
    "trio._core._multierror": "Trio has removed MultiError, so use ExceptionGroup",
    "trio._core._run.Runner": "use the functions of trio.lowlevel",
    "trio._core._run.setup_runner": "use trio.run",
    "trio._core._run.unrolled_run": "use trio.run",
    "trio._core._tests": _OWN_TESTS,
    "trio._core._thread_cache.THREAD_CACHE": "use trio.lowlevel.start_thread_soon",
    "trio._core._thread_cache.WorkerThread": "use trio.lowlevel.start_thread_soon",
    "trio._core._traps._async_yield": "use trio.lowlevel.wait_task_rescheduled",
    "trio._core._wakeup_socketpair": _OWN_LOOP,
    "trio._core._windows_cffi": _OWN_LOOP,
    "trio._deprecate": "use warnings.warn(text, trio.TrioDeprecationWarning)",
    "trio._highlevel_serve_listeners._serve_one_listener": "use trio.serve_listeners",
    "trio._repl": f"start a console by python -m {LIBRARY}",
    "trio._socket._resolve_address_nocp": "use trio.socket.getaddrinfo",
    "trio._subprocess_platform": "use trio.Process and trio.run_process",
    "trio._tests": _OWN_TESTS,
    "trio._unix_pipes.PipeReceiveStream": "Trio has removed it, so use trio.lowlevel.FdStream",
    "trio._unix_pipes.PipeSendStream": "Trio has removed it, so use trio.lowlevel.FdStream",
    "trio._util.signal_raise": "use signal.raise_signal",
    "trio._version": "use trio.__version__",
    "trio.testing._fake_net": "use the memory streams of trio.testing",
}


def refusal(name: str) -> str:
    """The sentence of the error for a private name of Trio that is not offered."""
    advice = {**ADVICE, **REFUSED_PACKAGES}.get(name, "use Trio's public names")
    return f"{LIBRARY} stands in for Trio in this process, without {name}: {advice}"


def find(module: str, name: str) -> Any:
    """The value of a name in a private module.

    Raises:
        AttributeError: The name is not offered.
    """
    offered = private_names(module)
    if name in offered:
        return offered[name]
    if not name.startswith("_") and f"{module}.{name}" not in ADVICE:
        for public in _PUBLIC:
            # The stand-in first: its own ``run`` has the loop that the program has chosen.
            value = vars(importlib.import_module(f"trio{public}")).get(name)
            if value is None:
                value = getattr(importlib.import_module(LIBRARY + public), name, None)
            if value is not None and not isinstance(value, types.ModuleType):
                return value
    raise AttributeError(refusal(f"{module}.{name}"))


def private_names(module: str) -> dict[str, Any]:
    """The private names that are offered in a private module."""
    if module in _DEFINED_AS:
        return {
            name: getattr(importlib.import_module(f"{LIBRARY}.{public}"), attribute)
            for name, (public, attribute) in _DEFINED_AS[module].items()
        }
    if module == "trio._abc":
        return {name: getattr(abcs, name) for name in ("ReceiveType", "SendType", "T_resource")}
    if module == "trio._core._run_context":
        return {"GLOBAL_RUN_CONTEXT": RUN_CONTEXT}
    if module == "trio._core._run":
        return {
            # pytest-trio and hypothesis make the order of tasks reproducible, as it always is here.
            "_ALLOW_DETERMINISTIC_SCHEDULING": True,
            "_hypothesis_plugin_setup": lambda: None,
            "_r": _RANDOM,
            "GLOBAL_RUN_CONTEXT": RUN_CONTEXT,
            # A nursery is its own manager here.
            "NurseryManager": Nursery,
            "_TaskStatus": TaskStatus,
            "_TaskStatusIgnored": TaskStatus,
        }
    if module == "trio._file_io":
        return {
            "AsyncIOWrapper": importlib.import_module(f"{LIBRARY}._system.files").AsyncIOWrapper
        }
    if module == "trio._highlevel_open_unix_stream":
        return {"close_on_error": close_on_error, "has_unix": hasattr(socket, "AF_UNIX")}
    if module == "trio._socket":
        socket_type = importlib.import_module(f"{LIBRARY}.socket").SocketType
        return {"AddressFormat": Any, "_SocketType": socket_type}
    if module == "trio._ssl":
        return {"T_Stream": importlib.import_module(f"{LIBRARY}._tls.stream").StreamT}
    if module == "trio._subprocess":
        return {"HasFileno": HasFileno, "StrOrBytesPath": StrOrBytesPath}
    if module == "trio._util":
        return {name: getattr(trio_util, name) for name in trio_util.__all__}
    return {}


_RANDOM = random.Random(0)

StrOrBytesPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class HasFileno(Protocol):
    """An object that has a file descriptor."""

    def fileno(self) -> int:
        """Return the file descriptor."""


@contextmanager
def close_on_error(resource: Any) -> Iterator[Any]:
    """Close a socket or another object if the block raises an error."""
    try:
        yield resource
    except BaseException:
        resource.close()
        raise


class RunContext:
    """``GLOBAL_RUN_CONTEXT``: whether this thread is in a run and in a task. It is read-only."""

    __slots__ = ()

    @property
    def task(self) -> Task:
        """The running task."""
        if not in_trio_task():
            raise AttributeError("no task is running in this thread")
        return current_task()

    @property
    def runner(self) -> RunnerStandIn:
        """An object that stands for the run."""
        if not in_trio_run():
            raise AttributeError("no event loop is running in this thread")
        return RunnerStandIn()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{LIBRARY} stands in for Trio in this process, where GLOBAL_RUN_CONTEXT has only task "
            f"and runner, not {name!r}: use the functions of trio.lowlevel"
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        self._refuse(name)

    def __delattr__(self, name: str) -> NoReturn:
        self._refuse(name)

    def _refuse(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{LIBRARY} stands in for Trio in this process, where GLOBAL_RUN_CONTEXT.{name} cannot "
            "be changed: start a run of its own in another thread, or in a process that is spawned"
        )


RUN_CONTEXT = RunContext()


class RunnerStandIn:
    """``GLOBAL_RUN_CONTEXT.runner``. It has only the one attribute that packages ask about."""

    __slots__ = ()

    is_guest = False

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{LIBRARY} stands in for Trio in this process, without the attribute {name!r} of "
            "Trio's Runner: use the functions of trio.lowlevel"
        )


class CancelStatus:
    """``Task._cancel_status``: whether a scope cancels the task now."""

    __slots__ = ("_task",)

    def __init__(self, task: Task) -> None:
        self._task = task

    @property
    def effectively_cancelled(self) -> bool:
        """Whether the next checkpoint of the task raises ``Cancelled`` for a scope."""
        task = self._task
        return task.scope._effective and not anyio_hook.protects(task)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"{LIBRARY} stands in for Trio in this process, where Task._cancel_status has only "
            f"effectively_cancelled, not {name!r}: keep the CancelScope in a variable of your own"
        )


def _create_cancelled(
    cls: type[Cancelled],
    *,
    source: CancelSource = "unknown",
    reason: str | None = None,
    source_task: str | None = None,
) -> Cancelled:
    """Make a ``Cancelled`` that any cancelled scope of this library catches."""
    return cls(CancelReason(source, reason, source_task))


def offer_attributes() -> None:
    """Give classes the private attributes of Trio that published packages use (rule 3)."""
    setattr(Task, "_cancel_status", property(CancelStatus))  # noqa: B010
    setattr(Cancelled, "_create", classmethod(_create_cancelled))  # noqa: B010
