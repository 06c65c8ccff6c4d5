"""Lines of the engine at which an exception may do harm, each with the reason.

A line is named by its module, the qualified name of its function, and its text without the
indentation. An entry that is not needed any more fails the test.
"""

from __future__ import annotations

SHORT_LIST: dict[str, str] = {}
