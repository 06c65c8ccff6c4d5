"""Functions of Trio that cannot work on asyncio. Each raises an error that says why.

Rule: importing these names works. Calling them raises an error that says what to do instead.
"""

from __future__ import annotations

from typing import NoReturn


def start_guest_run(*_args: object, **_options: object) -> NoReturn:
    """Not possible here, and not needed: tasks of this library are asyncio tasks already.

    Raises:
        NotImplementedError: always.

    Checkpoint: no.

    Trio: ``trio.lowlevel.start_guest_run``.
    """
    raise NotImplementedError(
        "start_guest_run() makes Trio a guest of a foreign loop; nurseryio always runs on the "
        "asyncio loop that is there, so await your function in it. For another host loop (Qt, "
        "Tk) use an asyncio loop made for it"
    )


def _no_detaching(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"{name}() moves a coroutine between schedulers; an asyncio task owns its coroutine and "
        "does not give it away. Await it in a task of its own instead"
    )


async def permanently_detach_coroutine_object(*_args: object) -> NoReturn:
    """Not possible here: an asyncio task owns its coroutine.

    Raises:
        NotImplementedError: always.

    Checkpoint: no.

    Trio: ``trio.lowlevel.permanently_detach_coroutine_object``.
    """
    raise _no_detaching("permanently_detach_coroutine_object")


async def temporarily_detach_coroutine_object(*_args: object) -> NoReturn:
    """Not possible here: an asyncio task owns its coroutine.

    Raises:
        NotImplementedError: always.

    Checkpoint: no.

    Trio: ``trio.lowlevel.temporarily_detach_coroutine_object``.
    """
    raise _no_detaching("temporarily_detach_coroutine_object")


async def reattach_detached_coroutine_object(*_args: object) -> NoReturn:
    """Not possible here: an asyncio task owns its coroutine.

    Raises:
        NotImplementedError: always.

    Checkpoint: no.

    Trio: ``trio.lowlevel.reattach_detached_coroutine_object``.
    """
    raise _no_detaching("reattach_detached_coroutine_object")
