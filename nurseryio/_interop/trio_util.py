"""The helpers in Trio's private module ``trio._util``, for packages that import them.

``trio_private`` offers them. Each has the signature, the result and the errors that it has in Trio
0.35. This library itself has helpers of its own in ``_base.util``.
"""

from __future__ import annotations

import signal
import sys
import typing
from abc import ABCMeta
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from .._base.errors import Cancelled
from .._base.exception_groups import raise_keeping_context
from .._base.util import ConflictDetector, coroutine_or_error

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "ConflictDetector",
    "MultipleExceptionError",
    "NoPublicConstructor",
    "async_wraps",
    "coroutine_or_error",
    "final",
    "is_main_thread",
    "name_asyncgen",
    "raise_saving_context",
    "raise_single_exception_from_group",
    "wraps",
]

T = TypeVar("T")

raise_saving_context = raise_keeping_context


def final(cls: type[T]) -> type[T]:
    """Decorate a class that must not be subclassed: a subclass raises TypeError."""

    def refuse(subclass: type) -> NoReturn:
        raise TypeError(
            f"{subclass.__module__}.{subclass.__qualname__} does not support subclassing"
        )

    setattr(cls, "__init_subclass__", classmethod(refuse))  # noqa: B010
    if sys.version_info >= (3, 11):
        typing.final(cls)  # sets an attribute from this version on
    return cls


class NoPublicConstructor(ABCMeta):
    """Metaclass of classes whose instances are made by ``X._create(...)`` alone."""

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(f"{cls.__module__}.{cls.__qualname__} has no public constructor")

    def _create(cls: type[T], *args: Any, **kwargs: Any) -> T:
        made: T = type.__call__(cls, *args, **kwargs)
        return made


def is_main_thread() -> bool:
    """Whether this is the thread in which Python calls the handlers of signals."""
    try:
        signal.signal(signal.SIGINT, signal.getsignal(signal.SIGINT))
    except (TypeError, ValueError):
        return False
    return True


def async_wraps(
    cls: type, wrapped_cls: type, attr_name: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Name an async method after the sync method of another class that it calls."""

    def decorator(func: Callable[..., Any]) -> Callable[..., Any]:
        func.__name__ = attr_name
        func.__qualname__ = f"{cls.__qualname__}.{attr_name}"
        original = f"{wrapped_cls.__module__}.{wrapped_cls.__qualname__}.{attr_name}"
        func.__doc__ = f"Like :meth:`~{original}`, but async."
        return func

    return decorator


def name_asyncgen(agen: Any) -> str:
    """The full name of the function that has made an async generator."""
    code = getattr(agen, "ag_code", None)
    if code is None:
        return repr(agen)
    frame = agen.ag_frame
    module = None if frame is None else frame.f_globals.get("__name__")
    name = getattr(agen, "__qualname__", code.co_name)
    return f"{module or f'<{code.co_filename}>'}.{name}"


class MultipleExceptionError(Exception):
    """The group of :func:`raise_single_exception_from_group` has several errors."""


def raise_single_exception_from_group(eg: BaseExceptionGroup[BaseException]) -> NoReturn:
    """Raise the only error of a group. Errors that are ``Cancelled`` do not count.

    Args:
        eg: the group. A group inside it counts as one error.

    Raises:
        MultipleExceptionError: the group has several errors. Its cause is the group.
        KeyboardInterrupt: the group has one. The cause of the new one is the group.
        SystemExit: the same.
        BaseException: the only error, or the first ``Cancelled`` if there are no others.
    """
    for exc in eg.exceptions:
        if isinstance(exc, (KeyboardInterrupt, SystemExit)):
            raise type(exc)(*exc.args) from eg
    errors = [exc for exc in eg.exceptions if not isinstance(exc, Cancelled)]
    if len(errors) > 1:
        raise MultipleExceptionError(
            "Attempted to unwrap exceptiongroup with multiple non-cancelled exceptions. "
            "This is often caused by a bug in the caller."
        ) from eg
    raise_keeping_context((errors or eg.exceptions)[0])
