"""Bytes with structure, and from other places than sockets.

``buffered``: ``BufferedReceiveStream``, for lines, messages and exact numbers of bytes.
``file_sending``: ``sendfile``, a file over a stream. ``temporary``: temporary files, directories.
``standard``: the standard input, output and error of the program as streams.
Streams over sockets and descriptors are in ``_net``, files with async methods in ``_system``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .buffered import BufferedReceiveStream as BufferedReceiveStream
    from .file_sending import sendfile as sendfile
    from .standard import (
        StandardReceiveStream as StandardReceiveStream,
        StandardSendStream as StandardSendStream,
        open_stderr as open_stderr,
        open_stdin as open_stdin,
        open_stdout as open_stdout,
    )
    from .temporary import (
        NamedTemporaryFile as NamedTemporaryFile,
        TemporaryDirectory as TemporaryDirectory,
        TemporaryFile as TemporaryFile,
    )
