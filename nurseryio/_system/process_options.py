"""Types of the options for starting a child process. For type checkers; no code runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from _typeshed import StrOrBytesPath


class HasFileno(Protocol):
    """An open file of any kind."""

    def fileno(self) -> int:
        """The file descriptor."""


class ProcessOptions(TypedDict, total=False):
    """The options of ``subprocess.Popen`` that are passed on, on all systems."""

    executable: StrOrBytesPath | None
    preexec_fn: Callable[[], object] | None
    close_fds: bool
    shell: bool
    cwd: StrOrBytesPath | None
    env: Mapping[bytes, StrOrBytesPath] | Mapping[str, StrOrBytesPath] | None
    restore_signals: bool
    start_new_session: bool
    pass_fds: Collection[int]
    user: str | int | None
    group: str | int | None
    extra_groups: Iterable[str | int] | None
    umask: int
    pipesize: int
    # Python 3.11 and later.
    process_group: int | None
    # Windows.
    startupinfo: Any
    creationflags: int


class RunOptions(ProcessOptions, total=False):
    """The options that ``run_process`` passes on: also where the output is written."""

    stdout: int | HasFileno | None
    stderr: int | HasFileno | None
