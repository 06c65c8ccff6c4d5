"""Hints in errors, for names and arguments that readers know from asyncio and other libraries.

``nursery.create_task`` does not exist, and its ``AttributeError`` says what to write instead. The
error about a keyword argument that was given to ``start_soon()`` for the child gets a note.

Rule: a hint costs nothing until the error is raised. :class:`Elsewhere` is an attribute of the
class, so objects are made, and their other attributes are found, as without it. The note is added
when the error leaves a nursery, because a function that takes all keyword arguments would make each
call slower.
"""

from __future__ import annotations

from typing import NoReturn

from .exc_fields import add_note, args_of, notes_of

# Between the name of the function and the name of the argument, in Python's text.
_UNEXPECTED = "() got an unexpected keyword argument '"
_METHODS = ("Nursery.start", "Nursery.start_soon", "run_sync")


class Elsewhere:
    """An attribute that a class does not have. Reading it raises the error that says so.

    An object may have an attribute of this name nevertheless, if its class allows new attributes.

    Args:
        instead: what to write instead.
    """

    __slots__ = ("_instead", "_name")

    def __init__(self, instead: str) -> None:
        self._instead = instead
        self._name = "?"

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"<not here: {self._instead}>"

    def __get__(self, instance: object, owner: type) -> NoReturn:
        # The first part is Python's text.
        which = f"{owner.__name__!r} object" if instance is not None else f"type {owner.__name__!r}"
        raise AttributeError(f"{which} has no attribute {self._name!r}: {self._instead}")


def explain_keyword(error: TypeError) -> None:
    """Add a note to the error about a keyword argument that was meant for the child."""
    arguments = args_of(error)
    if not arguments or type(arguments[0]) is not str:
        return
    method, _, rest = arguments[0].partition(_UNEXPECTED)
    if method in _METHODS and not notes_of(error):
        name = rest.partition("'")[0]
        add_note(
            error,
            "pass keyword arguments of the function with functools.partial: "
            f"{method.lower()}(partial(f, {name}=...))",
        )
