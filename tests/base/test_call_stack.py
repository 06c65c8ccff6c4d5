"""The stack of a call as text."""

from __future__ import annotations

import sys
import weakref

import nurseryio
from nurseryio._base.call_stack import MOST_FRAMES, call_stack


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
