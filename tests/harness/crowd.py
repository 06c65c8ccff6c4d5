"""Several threads that call one function at the same time.

``in_threads`` makes the calls. A :class:`Doorway` takes the place of a function of the library that
must not be called by two threads at a time: each call waits for a second one to come in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

# How long (seconds) a call waits in a doorway for another one. A correct library lets none in.
WAIT = 0.1
TIMEOUT = 30.0


def in_threads(function: Callable[[], Any], number: int = 2) -> list[Any]:
    """Call a function in some threads at the same time. Returns the results, or raises an error."""
    results: list[Any] = []
    errors: list[BaseException] = []
    barrier = threading.Barrier(number)

    def call() -> None:
        try:
            barrier.wait(TIMEOUT)
            results.append(function())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    assert len(results) == number
    return results


class Doorway:
    """A function that counts its calls. Each call waits shortly for another thread's."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._second = threading.Event()
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        with self._lock:
            self.calls += 1
            if self.calls > 1:
                self._second.set()
        self._second.wait(WAIT)
        return self._function(*args, **options)
