"""The constants of the standard library's ``socket``, as far as this Python and system have them.

The public module ``nurseryio.socket`` re-exports all of them. Type checkers read
``constants.pyi`` beside this file, because they cannot follow a list that is made at run time.

Rule: ``SO_REUSEADDR`` is left out on Windows. There it lets two programs take the same port.
"""

from __future__ import annotations

import socket
import sys

# Python has this constant from 3.12 on; Linux has had it for much longer.
if sys.platform == "linux":
    IP_BIND_ADDRESS_NO_PORT = 24

globals().update(
    {
        name: getattr(socket, name)
        for name in socket.__all__
        if name.isupper() and not (name == "SO_REUSEADDR" and sys.platform == "win32")
    }
)

__all__ = [name for name in globals() if name.isupper()]
