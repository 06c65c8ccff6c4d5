"""A decorator that runs one async test function without the help of a test framework.

This module has :func:`nurseryio_test`, which is also called ``trio_test``, as in Trio. The pytest
plugin is in ``pytest_plugin``.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, TypeVar

from .._base import Clock, Instrument
from .._run import run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from typing_extensions import ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")


def nurseryio_test(fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Turn an async test function into a plain one that runs it in :func:`nurseryio.run`.

    ::

        @nurseryio_test
        async def test_sleeping():
            await nurseryio.sleep(0.01)

    If a keyword argument is a clock or an instrument, the run uses it. (pytest passes fixtures as
    keyword arguments.)

    Args:
        fn: the async function.

    Returns:
        A plain function with the same arguments and result.

    Raises:
        ValueError: when the function is called with more than one clock.

    Trio: ``trio.testing.trio_test``.
    """
    return run_by(run, fn)


def run_by(run: Callable[..., T], fn: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Do the same as :func:`nurseryio_test`, with another function in place of ``run``."""

    @wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        __tracebackhide__ = True
        clocks = [value for value in kwargs.values() if isinstance(value, Clock)]
        if len(clocks) > 1:
            raise ValueError("too many clocks spoil the broth!")
        return run(
            partial(fn, *args, **kwargs),
            clock=clocks[0] if clocks else None,
            instruments=[value for value in kwargs.values() if isinstance(value, Instrument)],
        )

    return wrapper


trio_test = nurseryio_test
