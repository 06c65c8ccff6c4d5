"""The stack of a call as text."""

from __future__ import annotations

import asyncio
import sys
import weakref

import nurseryio
from nurseryio._base.call_stack import (
    MOST_FRAMES,
    MOST_FRAMES_OF_DEADLINE,
    call_stack,
    calls_if_wanted,
    place_in,
    place_of,
    stack_if_wanted,
    text_of,
)
from nurseryio._base.watchers import look_for_debug, unwatch, watch


def deep(depth: int) -> str:
    return call_stack(sys._getframe()) if depth == 0 else deep(depth - 1)


def test_call_stack_ends_with_the_innermost_line_and_its_text() -> None:
    lines = deep(0).splitlines()
    assert lines[-2].endswith("in deep")
    assert lines[-1].startswith("    return call_stack(sys._getframe())")


def test_call_stack_shows_the_innermost_frames_of_a_deep_stack() -> None:
    assert deep(2 * MOST_FRAMES).count("  File ") in (MOST_FRAMES, 3, 4)  # repeated lines are cut
    assert call_stack(None) == ""


async def test_call_stack_leaves_out_the_library() -> None:
    found: list[str] = []

    async def child() -> None:
        found.append(call_stack(sys._getframe()))

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
    assert "in child" in found[0]
    assert "_run_child" not in found[0]


def test_call_stack_keeps_no_frame_alive() -> None:
    class Local:
        pass

    def inner() -> tuple[str, weakref.ref[Local]]:
        local = Local()
        return call_stack(sys._getframe()), weakref.ref(local)

    text, reference = inner()
    assert "in inner" in text
    assert reference() is None


class Watches:
    """A watcher that is not interested in anything but the stacks."""

    def made(self, thing: object) -> None:
        raise NotImplementedError


def test_stack_of_a_cancel_is_wanted_while_there_are_watchers_or_in_debug_mode() -> None:
    async def in_mode(debug: bool) -> str | None:
        asyncio.get_running_loop().set_debug(debug)
        return stack_if_wanted()

    me = Watches()
    try:
        assert stack_if_wanted() is None
        assert asyncio.run(in_mode(False)) is None
        assert "in in_mode" in (asyncio.run(in_mode(True)) or "")
        watch(me)
        assert "test_stack_of_a_cancel_is_wanted" in (stack_if_wanted() or "")
        assert "in in_mode" in (asyncio.run(in_mode(False)) or "")
    finally:
        unwatch(me)
        look_for_debug(list)
    assert stack_if_wanted() is None


def test_calls_that_are_kept_make_the_same_text_and_name_their_innermost_line() -> None:
    def calls() -> tuple[str | None, str]:
        kept, text = calls_if_wanted(), call_stack(sys._getframe())
        assert kept is not None
        assert place_of(kept) == place_in(text_of(kept)) == place_in(text)
        return place_in(text), text_of(kept)

    me = Watches()
    watch(me)
    try:
        place, text = calls()
    finally:
        unwatch(me)
    assert place is not None
    assert place.startswith("test_call_stack.py:")
    assert place.endswith(" in calls()")
    assert text.count("  File ") <= MOST_FRAMES_OF_DEADLINE
    assert "kept, text = calls_if_wanted()" in text.splitlines()[-1]
    assert calls_if_wanted() is None


def test_place_in_a_stack_is_that_of_its_last_line_whatever_the_source_says() -> None:
    stack = '  File "/srv/a b.py", line 7, in work\n    print("""\n  File "x.py", line 1, in x'
    assert place_in(stack) == "x.py:1 in x()"
    assert place_in('  File "/srv/a b.py", line 7, in work') == "a b.py:7 in work()"
    assert place_in("") is None
