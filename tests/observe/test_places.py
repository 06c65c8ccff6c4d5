"""The lines at which tasks and threads are."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import nurseryio
from nurseryio._observe.places import Place, places_of, program_place, rank_of_place, stack_of
from nurseryio.testing import wait_all_tasks_blocked


def frame_in(file: str, function: str = "work") -> types.FrameType:
    """A frame of a function in a file of this name."""
    names: dict[str, Any] = {"sys": sys}
    exec(compile(f"def {function}():\n    return sys._getframe()", file, "exec"), names)
    frame: types.FrameType = names[function]()
    return frame


def test_a_place_reads_as_file_line_function_and_source() -> None:
    place = Place("/srv/app.py", 3, "main", "await x()")
    assert str(place) == "app.py:3 in main(): await x()"
    assert str(Place("/srv/app.py", 3, "main", "")) == "app.py:3 in main()"


def test_places_of_has_the_text_of_the_line_and_an_empty_one_for_a_file_that_is_gone() -> None:
    frame = sys._getframe()
    line = frame.f_lineno
    (place,) = places_of([(frame, line - 1)])
    assert place == Place(__file__, line - 1, frame.f_code.co_name, "frame = sys._getframe()")
    (gone,) = places_of([(frame_in("/no/such/file.py"), 2)])
    assert gone.text == ""


def test_rank_of_place_is_higher_for_the_program_than_for_packages_and_0_for_the_library() -> None:
    assert rank_of_place(frame_in("/srv/app.py").f_code) == 2
    assert rank_of_place(frame_in("/srv/lib/site-packages/tool.py").f_code) == 1
    assert rank_of_place(os.path.join.__code__) == 1
    assert rank_of_place(nurseryio.sleep.__code__) == 0


async def test_places_of_leaves_out_the_frames_of_nurseryio_and_asyncio() -> None:
    async def child() -> None:
        await nurseryio.sleep_forever()

    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child)
        await wait_all_tasks_blocked()
        (task,) = nursery.child_tasks
        frames = list(task.iter_await_frames())
        assert len(frames) > 1
        assert [place.function for place in places_of(frames)] == ["child"]
        nursery.cancel_scope.cancel()


def test_program_place_is_the_innermost_place_outside_packages_and_the_standard_library() -> None:
    program = Place("/srv/app.py", 1, "main", "")
    package = Place(os.path.join("/env", "site-packages", "httpx", "_client.py"), 2, "get", "")
    library = Place(os.__file__, 3, "walk", "")
    frozen = Place("<frozen runpy>", 4, "run", "")
    assert program_place([frozen, program, package, library]) is program
    assert program_place([package, library]) is library
    assert program_place([]) is None


def test_stack_of_has_the_outermost_frame_first() -> None:
    frame = sys._getframe()
    stack = list(stack_of(frame))
    assert stack[-1][0] is frame
    assert stack[0][0].f_back is None
    assert list(stack_of(None)) == []
