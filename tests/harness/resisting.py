"""Exceptions and objects that resist: their classes refuse what libraries do with exceptions.

``raise`` and ``except`` work with every exception here, so programs have them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, NoReturn

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


@dataclass(frozen=True)
class Frozen(Exception):
    """The most common form: no attribute can be assigned."""

    key: str = "k"


@dataclass(frozen=True)
class Unhashable(Exception):
    """Its hash fails as well."""

    keys: Any = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", [])


class Refusing(Exception):
    """Assigning raises an error that is not an AttributeError."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise ZeroDivisionError(name)


class Shadowing(Exception):
    """Its fields are others than the interpreter's."""

    __slots__ = ("__cause__", "__context__", "__notes__", "__suppress_context__", "__traceback__")


class Fields(Exception):
    """Its fields are properties that raise."""

    @property
    def _raises(self) -> NoReturn:
        raise ZeroDivisionError

    __traceback__ = __context__ = __cause__ = __notes__ = __suppress_context__ = _raises
    args = _raises


class NoTraceback(Exception):
    """``with_traceback`` returns nothing."""

    def with_traceback(self, _tb: object) -> None:  # type: ignore[override]
        """Return nothing."""


class RaisingMethods(Exception):
    """Every method that other code might call raises."""

    def _raise(self, *_args: object) -> Any:
        raise ZeroDivisionError

    with_traceback = add_note = _raise
    __eq__ = __ne__ = __bool__ = __len__ = __hash__ = _raise
    __repr__ = __str__ = __reduce__ = _raise


class Classless(Exception):
    """``isinstance()`` asks for its class, and that raises. pytest cannot show such an error."""

    @property
    def __class__(self) -> NoReturn:  # type: ignore[override]
        raise ZeroDivisionError


class NeedsArguments(Exception):
    """``type(error)(*error.args)`` raises."""

    def __init__(self, *, code: int) -> None:
        super().__init__("a text")
        self.code = code


class Odd(BaseException):
    """Not an Exception, frozen, and false."""

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise ZeroDivisionError(name)

    def __bool__(self) -> bool:
        return False


KINDS: list[Any] = [
    Frozen,
    Unhashable,
    Refusing,
    Shadowing,
    Fields,
    NoTraceback,
    RaisingMethods,
    NeedsArguments,
    Odd,
]


def make(kind: Any) -> BaseException:
    """A new exception of one of these classes."""
    error: BaseException = kind(code=3) if kind is NeedsArguments else kind()
    return error


# -- groups ---------------------------------------------------------------------


class DeriveRaises(BaseExceptionGroup[BaseException]):
    """``derive`` raises."""

    def derive(self, excs: Any) -> NoReturn:
        raise ZeroDivisionError("derive")


class DerivesNone(BaseExceptionGroup[BaseException]):
    """``derive`` returns nothing."""

    def derive(self, excs: Any) -> None:  # type: ignore[override]
        """Return nothing."""


class DerivesText(BaseExceptionGroup[BaseException]):
    """``derive`` returns something that is not a group."""

    def derive(self, excs: Any) -> Any:
        return "text"


class DropsErrors(BaseExceptionGroup[BaseException]):
    """``derive`` drops all but the first error."""

    def derive(self, excs: Any) -> Any:
        return DropsErrors(self.message, excs[:1])


class DerivesItself(BaseExceptionGroup[BaseException]):
    """``derive`` returns all errors again."""

    def derive(self, excs: Any) -> Any:
        return self


class OtherSignature(BaseExceptionGroup[BaseException]):
    """A constructor with its own parameters, and without a matching ``derive``."""

    def __new__(cls, errors: Any, *, code: int) -> OtherSignature:
        return super().__new__(cls, "a message", errors)

    def __init__(self, errors: Any, *, code: int) -> None:
        pass


class FrozenGroup(BaseExceptionGroup[BaseException]):
    """No attribute can be assigned once it is made."""

    def derive(self, excs: Any) -> Any:
        return FrozenGroup(self.message, excs)

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") or name.startswith("__"):
            raise ZeroDivisionError(name)
        super().__setattr__(name, value)  # the backport for 3.10 sets its own fields


class HidesErrors(BaseExceptionGroup[BaseException]):
    """Its attributes say something else than it holds."""

    exceptions = ()  # type: ignore[assignment]
    message = None  # type: ignore[assignment]
    __dict__ = None  # type: ignore[assignment]
    __notes__ = 5  # type: ignore[assignment]


GROUPS = [
    DeriveRaises,
    DerivesNone,
    DerivesText,
    DropsErrors,
    DerivesItself,
    OtherSignature,
    FrozenGroup,
    HidesErrors,
]


def make_group(kind: Any, errors: list[BaseException]) -> BaseExceptionGroup[BaseException]:
    """A new group of one of these classes."""
    made: Any = kind(errors, code=3) if kind is OtherSignature else kind("a message", errors)
    group: BaseExceptionGroup[BaseException] = made
    return group


# -- things that have no name ---------------------------------------------------


class Nameless:
    """Every attribute raises, and so does ``repr``."""

    def __getattr__(self, name: str) -> NoReturn:
        raise RuntimeError(name)

    def __repr__(self) -> NoReturn:
        raise RuntimeError("repr")


class OddName:
    """Its names are not strings."""

    def __init__(self) -> None:
        self.__qualname__ = self.__name__ = 5
        self.__module__ = ()  # type: ignore[assignment]


class Text(str):
    """A string that cannot be shown."""

    __slots__ = ()

    def __repr__(self) -> NoReturn:
        raise RuntimeError("repr")

    __str__ = __format__ = __repr__  # type: ignore[assignment]
