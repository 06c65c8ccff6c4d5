"""Lines of the engine at which an exception may do harm, each with the reason.

A line is named by its module, the qualified name of its function, and its text without the
indentation. An entry that is not needed any more fails the test.
"""

from __future__ import annotations

SHORT_LIST: dict[str, str] = {
    "thread_cache:_Worker._do_job:deliver(outcome)": (
        "A call that fails before it begins cannot be told from a function that fails, and a "
        "user's function must not be called twice. It is in a worker thread, where Ctrl-C is never "
        "raised, and a few frames deep: only lack of memory can raise here."
    ),
}
