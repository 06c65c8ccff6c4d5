"""System calls that fail: each call that the library makes is counted, and one of them raises.

This module has the calls, the errors that their manual pages name, and :class:`Faults`, which puts
itself between the library and Python's functions. The programs are in ``syscall_programs``, the
verdict is in ``syscall_injection``.

Rule 1: only calls on behalf of the library fail, whichever module of Python makes them: ``socket``,
``subprocess``, a loop that registers a descriptor for us. A loop's own calls work.

Rule 2: a call that is to fail is not made, except where the error means that the wanted state
exists already: a descriptor is gone whatever ``close`` says; one that epoll calls known is
registered, and one that it calls unknown is not.

Rule 3: EINTR is left out, because Python makes the call again by itself.
"""

from __future__ import annotations

import _thread
import errno
import io
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

_CLOSED = "EBADF ENOTSOCK"
_ROOM = "EMFILE ENFILE ENOBUFS ENOMEM"
_NETWORK = "ECONNRESET ETIMEDOUT EHOSTUNREACH ENETUNREACH ENETDOWN"

# The errors of each call, by its manual page: accept(2), connect(2), tcp(7), ip(7) and so on.
_ERRORS = {
    "socket": f"EACCES EAFNOSUPPORT EINVAL EPROTONOSUPPORT {_ROOM}",
    "socketpair": "EAFNOSUPPORT EMFILE ENFILE EOPNOTSUPP EPROTONOSUPPORT",
    "dup": "EBADF EMFILE",
    "accept": f"EAGAIN ECONNABORTED EINVAL EOPNOTSUPP EPERM EPROTO ENOPROTOOPT EHOSTDOWN ENONET "
    f"EHOSTUNREACH ENETUNREACH ENETDOWN ETIMEDOUT {_CLOSED} {_ROOM}",
    "connect": f"EACCES EPERM EADDRINUSE EADDRNOTAVAIL EAFNOSUPPORT EAGAIN EALREADY ECONNREFUSED "
    f"EISCONN ENETUNREACH EHOSTUNREACH EPROTOTYPE ETIMEDOUT {_CLOSED}",
    "bind": f"EACCES EADDRINUSE EADDRNOTAVAIL EINVAL ENOENT ENOMEM EROFS {_CLOSED}",
    "listen": f"EADDRINUSE EOPNOTSUPP {_CLOSED}",
    "recv": f"EAGAIN ECONNREFUSED EINVAL ENOMEM ENOBUFS ENOTCONN {_NETWORK} {_CLOSED}",
    "send": "EAGAIN EACCES EALREADY EDESTADDRREQ EINVAL EISCONN EMSGSIZE ENOBUFS ENOMEM ENOTCONN "
    f"EOPNOTSUPP EPERM EPIPE {_NETWORK} {_CLOSED}",
    "shutdown": f"EINVAL ENOTCONN {_CLOSED}",
    "getsockopt": f"EINVAL ENOPROTOOPT {_CLOSED}",
    "setsockopt": f"EDOM EINVAL EISCONN ENOBUFS ENOMEM ENOPROTOOPT EPERM {_CLOSED}",
    "getsockname": f"EINVAL ENOBUFS {_CLOSED}",
    "getpeername": f"EINVAL ENOBUFS ENOTCONN {_CLOSED}",
    "epoll_create": "EMFILE ENFILE ENOMEM EINVAL",
    "epoll_add": "EBADF EEXIST EINVAL ELOOP ENOMEM ENOSPC EPERM",
    "epoll_mod": "EBADF EINVAL ENOENT ENOMEM",
    "epoll_del": "EBADF EINVAL ENOENT",
    "epoll_wait": "EBADF EINVAL",
    "fcntl": "EBADF EPERM",
    "ioctl": "EBADF EINVAL ENOTTY",
    "read": "EAGAIN EBADF EINVAL EIO EISDIR",
    "write": "EAGAIN EBADF EDESTADDRREQ EDQUOT EFBIG EINVAL EIO ENOSPC EPERM EPIPE",
    "close": "EBADF EIO ENOSPC EDQUOT",
    "pipe": "EMFILE ENFILE ENOMEM",
    "open": "EACCES EMFILE ENFILE ENOENT ENOMEM ENOSPC EPERM EROFS",
    "stat": "EACCES EBADF EIO ELOOP ENOENT ENOMEM ENOTDIR",
    "chmod": "EACCES EIO ENOENT EPERM EROFS",
    "unlink": "EACCES EBUSY EIO ENOENT EPERM EROFS",
    "fork": "EAGAIN ENOMEM ENOSYS",
    "pidfd_open": "EINVAL EMFILE ENFILE ENODEV ENOMEM ENOSYS EPERM",
    "kill": "EPERM",
    "getaddrinfo": "EAI_AGAIN EAI_FAIL EAI_MEMORY EAI_NONAME EMFILE ENOMEM",
    "clone": "EAGAIN",
}

# No error: the call takes, or returns, a single byte.
SHORT = "short"

ERRORS: dict[str, list[str]] = {call: names.split() for call, names in _ERRORS.items()}
for _call in ("send", "recv", "write", "read"):
    ERRORS[_call].append(SHORT)
# Functions that can be short: those for streams.
_CAN_BE_SHORT = {"send", "recv", "write", "read"}

# Methods of sockets, and the calls that they make.
_METHODS = {
    "_accept": "accept",
    "connect": "connect",
    "connect_ex": "connect",
    "bind": "bind",
    "listen": "listen",
    "recv": "recv",
    "recv_into": "recv",
    "recvfrom": "recv",
    "recvfrom_into": "recv",
    "recvmsg": "recv",
    "recvmsg_into": "recv",
    "send": "send",
    "sendto": "send",
    "sendmsg": "send",
    "shutdown": "shutdown",
    "getsockopt": "getsockopt",
    "setsockopt": "setsockopt",
    "getsockname": "getsockname",
    "getpeername": "getpeername",
    "setblocking": "ioctl",
    "dup": "dup",
    "close": "close",
}

# Functions of modules.
_FUNCTIONS: list[tuple[Any, str, str]] = [
    (socket, "socketpair", "socketpair"),
    (socket, "getaddrinfo", "getaddrinfo"),
    (os, "read", "read"),
    (os, "write", "write"),
    (os, "close", "close"),
    (os, "pipe", "pipe"),
    (os, "dup", "dup"),
    (os, "open", "open"),
    (io, "open", "open"),
    (os, "stat", "stat"),
    (os, "chmod", "chmod"),
    (os, "unlink", "unlink"),
    (os, "get_blocking", "fcntl"),
    (os, "set_blocking", "fcntl"),
    (os, "pidfd_open", "pidfd_open"),
    (os, "kill", "kill"),
    (subprocess, "_fork_exec", "fork"),
    (threading.Thread, "start", "clone"),
]

# Python's modules that make calls for other code.
_TRANSPARENT = {"socket", "selectors", __name__}
# Popen's other calls do not matter: above all its pipe for errors of the child.
_OF_POPEN = {"fork", "open", "pipe", "kill"}
_OF_LOOP = {
    "_add_reader",
    "add_reader",
    "_add_writer",
    "add_writer",
    "_remove_reader",
    "remove_reader",
    "_remove_writer",
    "remove_writer",
}
# Of asyncio's transports: an adapter has to cope with their errors.
_OF_TRANSPORT = {
    "_read_ready",
    "_read_ready__data_received",
    "_read_ready__get_buffer",
    "write",
    "_write_send",
    "_write_sendmsg",
    "_write_ready",
}


def make_error(name: str) -> Exception:
    """The exception that Python raises for an error of the system."""
    if name.startswith("EAI_"):
        number = getattr(socket, name)
        return socket.gaierror(number, f"injected {name}")
    number = getattr(errno, name)
    return OSError(number, os.strerror(number))


@dataclass(frozen=True)
class Aim:
    """Which calls fail, and how.

    Attributes:
        call: a key of ``ERRORS``.
        occurrence: the first call that fails, from 1 up.
        error: the name of an error.
        times: how many calls in a row fail.
    """

    call: str
    occurrence: int
    error: str
    times: int = 1

    def __str__(self) -> str:
        often = "" if self.times == 1 else f", {self.times} times"
        return f"{self.error} from {self.call} number {self.occurrence}{often}"


class Faults:
    """Counts the library's calls, and raises in some.

    Args:
        aim: which calls fail; None has all of them work.
    """

    def __init__(self, aim: Aim | None = None) -> None:
        self.aim = aim
        self.active = False
        self.counts: Counter[str] = Counter()
        # The errors that were raised, and where the first one was.
        self.raised: list[Exception] = []
        self.where = ""
        # How many calls were short.
        self.shortened = 0
        self._undo: list[Callable[[], None]] = []
        self._lock = _thread.allocate_lock()

    def __enter__(self) -> Faults:
        for method, call in _METHODS.items():
            self._wrap(socket.socket, method, call)
        for place, name, call in _FUNCTIONS:
            if hasattr(place, name):
                self._wrap(place, name, call)
        self._wrap_init()
        self._wrap_epoll()
        return self

    def __exit__(self, *_exc: object) -> None:
        while self._undo:
            self._undo.pop()()

    def check(self, call: str, frame: FrameType | None) -> bool:
        """Count a call that is about to be made, and raise if it is to fail.

        Returns:
            Whether it is to be short.
        """
        if not self.active:
            return False
        found = _whose(call, frame)
        if found is None:
            return False
        with self._lock:
            self.counts[call] += 1
            number = self.counts[call]
            aim = self.aim
            if aim is None or call != aim.call:
                return False
            if not aim.occurrence <= number < aim.occurrence + aim.times:
                return False
            if aim.error == SHORT:
                return True
            error: Exception
            if call == "clone":
                error = RuntimeError("can't start new thread")
            else:
                error = make_error(aim.error)
            self.raised.append(error)
            if not self.where:
                self.where = found
        raise error

    def _replace(self, place: Any, name: str, value: Any) -> None:
        own = vars(place).get(name, self)
        before = getattr(place, name)
        setattr(place, name, value)
        if own is self:
            self._undo.append(lambda: delattr(place, name))
        else:
            self._undo.append(lambda: setattr(place, name, before))

    def _wrap(self, place: Any, name: str, call: str) -> None:
        function = getattr(place, name)
        afterwards = call == "close"

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if name == "connect_ex":
                try:
                    self.check(call, sys._getframe(1))
                except OSError as error:
                    return error.errno
                return function(*args, **kwargs)
            if not afterwards:
                if self.check(call, sys._getframe(1)) and name in _CAN_BE_SHORT:
                    return function(*self._shorten(call, args), **kwargs)
                return function(*args, **kwargs)
            result = function(*args, **kwargs)
            self.check(call, sys._getframe(1))
            return result

        self._replace(place, name, wrapped)

    def _shorten(self, call: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of a call that takes or returns one byte; that of a datagram does not."""
        target, what, *others = args
        if isinstance(target, socket.socket) and target.type != socket.SOCK_STREAM:
            return args
        self.shortened += 1
        return (target, 1 if call in ("recv", "read") else memoryview(what)[:1], *others)

    def _wrap_init(self) -> None:
        init = socket.socket.__init__

        def __init__(sock: Any, *args: Any, **kwargs: Any) -> None:
            if len(args) < 4 and kwargs.get("fileno") is None:
                self.check("socket", sys._getframe(1))
            init(sock, *args, **kwargs)

        self._replace(socket.socket, "__init__", __init__)

    def _wrap_epoll(self) -> None:
        if not hasattr(select, "epoll"):
            return
        faults, real_epoll = self, select.epoll

        class Epoll:
            """An epoll object whose calls can fail."""

            def __init__(self, *args: Any) -> None:
                faults.check("epoll_create", sys._getframe(1))
                self._real = real_epoll(*args)
                self.fileno = self._real.fileno

            @classmethod
            def fromfd(cls, fd: int) -> Any:
                self = cls.__new__(cls)
                self._real = real_epoll.fromfd(fd)
                self.fileno = self._real.fileno
                return self

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_details: object) -> None:
                self.close()

            @property
            def closed(self) -> bool:
                return self._real.closed

            def close(self) -> None:
                self._real.close()

            def register(self, *args: Any) -> None:
                try:
                    faults.check("epoll_add", sys._getframe(1))
                except FileExistsError:
                    self._real.register(*args)
                    raise
                self._real.register(*args)

            def modify(self, *args: Any) -> None:
                try:
                    faults.check("epoll_mod", sys._getframe(1))
                except FileNotFoundError:
                    self._real.unregister(args[0])
                    raise
                self._real.modify(*args)

            def unregister(self, *args: Any) -> None:
                self._real.unregister(*args)
                faults.check("epoll_del", sys._getframe(1))

            def poll(self, *args: Any) -> Any:
                frame = sys._getframe(1)
                if frame.f_globals.get("__name__") != "selectors":
                    faults.check("epoll_wait", frame)
                return self._real.poll(*args)

        from nurseryio._asyncio import epoll

        self._replace(select, "epoll", Epoll)
        self._replace(epoll, "_epoll", Epoll)
        self._replace(selectors.EpollSelector, "_selector_cls", Epoll)


def _whose(call: str, frame: FrameType | None) -> str | None:
    """Where in the library a call comes from; None if it is not made on its behalf."""
    while frame is not None:
        module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module == "nurseryio._loop.watching":
            return None  # a question, with a number that is refused anyway
        if module.startswith("nurseryio"):
            return f"{module}:{frame.f_lineno} {function}"
        if module == "asyncio.selector_events" and function in _OF_TRANSPORT:
            return f"{module} {function}"
        if module == "subprocess":
            if call not in _OF_POPEN:
                return None
        elif module == "asyncio.selector_events":
            if function not in _OF_LOOP:
                return None
        elif module not in _TRANSPARENT and not module.startswith("pathlib"):
            return None
        frame = frame.f_back
    return None


def watched_uvloop(faults: Faults) -> Any:
    """A loop of uvloop's whose registering of descriptors can fail."""
    import uvloop

    class Loop(uvloop.Loop):  # type: ignore[misc,name-defined,unused-ignore]
        def add_reader(self, *args: Any) -> None:
            faults.check("epoll_add", sys._getframe(1))
            super().add_reader(*args)

        def add_writer(self, *args: Any) -> None:
            faults.check("epoll_add", sys._getframe(1))
            super().add_writer(*args)

    return Loop()
