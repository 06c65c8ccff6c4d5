"""A trace as an HTML page that draws it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.browser import BROWSER, Page, browser

import nurseryio
from nurseryio._telemetry.timeline import MARKER, Timeline, read_trace
from nurseryio.instruments import TraceFile, write_timeline

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="draws in a headless browser: install chromium"
)


async def child() -> None:
    with nurseryio.move_on_after(5):
        await nurseryio.sleep(0.05)


async def fails() -> None:
    await nurseryio.sleep(0.06)
    raise ValueError("bad")


async def main() -> None:
    with nurseryio.CancelScope(), pytest.raises(Exception):
        async with nurseryio.open_nursery() as nursery:
            nursery.start_soon(child, name="</script><b>child")
            nursery.start_soon(fails, name="fails")
            nursery.start_soon(nurseryio.sleep_forever, name="sibling")


def a_trace(folder: Path) -> Path:
    nurseryio.run(main, instruments=[TraceFile(folder / "trace.json")])
    return folder / "trace.json"


# -- the file -------------------------------------------------------------------------


def test_the_slices_that_a_killed_program_left_open_have_a_width(tmp_path: Path) -> None:
    path = a_trace(tmp_path)
    lines = path.read_text(encoding="utf-8").splitlines()
    last = max(number for number, line in enumerate(lines) if '"ph":"B"' in line)
    path.write_text("\n".join(lines[: last + 1]), encoding="utf-8")
    timeline = Timeline(read_trace(path))
    left = [
        slice
        for track in timeline.tracks.values()
        for slice in track.slices
        if slice.details.get("end") == "not in the trace"
    ]
    assert left
    assert all(slice.end == timeline.length for slice in left)
    assert all(slice.end > slice.start for slice in left)


def test_a_trace_that_was_closed_is_not_drawn_longer(tmp_path: Path) -> None:
    timeline = Timeline(read_trace(a_trace(tmp_path)))
    ends = [slice.end for track in timeline.tracks.values() for slice in track.slices]
    assert timeline.length == max(ends)


def test_write_timeline_makes_one_page_with_the_events_and_no_address(tmp_path: Path) -> None:
    write_timeline(a_trace(tmp_path), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert MARKER not in page
    assert not re.findall(r"https?://", page)
    data = page.partition('type="application/json">')[2].partition("</script>")[0]
    names = [track["name"] for track in json.loads(data)["tracks"]]
    assert "</script><b>child" in names


def test_write_timeline_of_a_trace_that_was_cut_off(tmp_path: Path) -> None:
    path = a_trace(tmp_path)
    text = path.read_text(encoding="utf-8")
    whole = list(read_trace(path))
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    some = list(read_trace(path))
    assert 0 < len(some) < len(whole)
    assert some == whole[: len(some)]
    write_timeline(path, tmp_path / "page.html")
    open_at_the_end = [
        slice
        for track in Timeline(some).tracks.values()
        for slice in track.slices
        if slice.details.get("end") == "not in the trace"
    ]
    assert open_at_the_end
    assert {slice.end for slice in open_at_the_end} == {Timeline(some).length}


def test_write_timeline_of_a_file_that_is_no_trace_is_an_error(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match="other' is not a trace file"):
        write_timeline(other, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(FileNotFoundError):
        write_timeline(tmp_path / "missing", tmp_path / "page.html")


def test_timeline_has_slices_nested_and_cancelled_at_their_marks(tmp_path: Path) -> None:
    timeline = Timeline(read_trace(a_trace(tmp_path)))
    tracks = {track.name: track for track in timeline.tracks.values()}
    host = tracks[f"{__name__}.main"]
    (nursery,) = (each for each in host.slices if each.kind == "nursery")
    assert nursery.level == 1
    ((kind, reason, time),) = [mark for mark in host.marks if mark[0] == "cancel"]
    assert nursery.details["cancelled"] == reason
    assert nursery.start < nursery.cancelled == time <= nursery.end
    ((kind, name, _),) = tracks["fails"].marks
    assert (kind, name) == ("error", "ValueError: bad")
    names = {number: track.name for number, track in timeline.tracks.items()}
    arrows = {(kind, names[a], names[b]) for kind, a, _, b, _ in timeline.arrows}
    assert ("spawn", host.name, "fails") in arrows
    assert ("cancel", "fails", "sibling") in arrows


def test_timeline_of_a_trace_whose_beginning_is_missing() -> None:
    ids = {"pid": 1, "tid": 1}
    timeline = Timeline(
        [
            {"ph": "E", "ts": 1.5, **ids},
            {"ph": "f", "id": 7, "cat": "wake", "ts": 2, **ids},
            {"ph": "X", "cat": "step", "name": "step", "ts": 2, "dur": 1, **ids},
        ]
    )
    (track,) = timeline.tracks.values()
    ((slice,), marks) = track.slices, track.marks
    assert (slice.start, slice.end, slice.level, marks) == (500, 1500, 0, [])
    assert timeline.arrows == []


# -- the page -------------------------------------------------------------------------


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "profile") as page:
        yield page


def open_timeline(page: Page, trace: Path) -> None:
    write_timeline(trace, trace.with_suffix(".html"))
    page.open(trace.with_suffix(".html").as_uri(), "document.documentElement.dataset.ready")


def position(page: Page, name: str, kind: str) -> tuple[float, float]:
    """The middle of the first slice of a kind on a track, in the window."""
    x, y = page.run(
        f"""(() => {{
          const box = canvas.getBoundingClientRect();
          const track = tracks.find(track => track.name === {json.dumps(name)});
          for (let i = 0; i < track.slices.length; i += STRIDE)
            if (texts[track.slices[i + KIND]] === {json.dumps(kind)})
              return [
                box.left + x(track.slices[i + START] + track.slices[i + LENGTH] / 2),
                box.top + track.top - scroll + (track.slices[i + LEVEL] + .5) * ROW];
        }})()"""
    )
    return x, y


def shown(page: Page) -> str:
    text: str = page.run("details.textContent")
    return text


def span(page: Page) -> float:
    value: float = page.run("to - from")
    return value


@needs_browser
@pytest.mark.limit(120)
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_the_timeline_draws_and_shows_the_details_of_a_slice_on_click(
    page: Page, tmp_path: Path, width: int, dark: bool
) -> None:
    page.look_like(width, 700, dark=dark)
    open_timeline(page, a_trace(tmp_path))
    assert page.run("document.documentElement.scrollWidth") == width
    assert shown(page) == "Choose a slice to see what it is."
    page.click(*position(page, "</script><b>child", "scope"))
    assert shown(page).startswith("</script><b>child: scope, deadline in 5.00 s\n")
    page.click(*position(page, "</script><b>child", "wait"))
    assert "\ntext: sleeps for another 0.0" in shown(page)
    assert "\nat: test_timeline.py:" in shown(page)
    page.click(*position(page, f"{__name__}.main", "nursery"))
    assert "\ncancelled: cancelled due to nursery with reason" in shown(page)
    # It is drawn in the colours of the scheme.
    x, y = position(page, f"{__name__}.main", "nursery")
    colour = page.run(
        f"""(() => {{
          const box = canvas.getBoundingClientRect(), ratio = devicePixelRatio;
          draw();
          return [...pen.getImageData(({x} - box.left) * ratio, ({y} - box.top - 6) * ratio, 1, 1)
            .data].slice(0, 3);
        }})()"""
    )
    assert colour == ([47, 90, 36] if dark else [191, 224, 178])


@needs_browser
@pytest.mark.limit(120)
def test_the_timeline_zooms_by_wheel_and_keys_and_buttons(page: Page, tmp_path: Path) -> None:
    page.look_like(1280, 700)
    open_timeline(page, a_trace(tmp_path))
    whole = span(page)
    x, y = position(page, "fails", "wait")
    under = page.run(f"time({x} - canvas.getBoundingClientRect().left)")
    page.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100)
    page.run("new Promise(requestAnimationFrame)")
    assert span(page) < whole
    # The time under the pointer stays there.
    again = page.run(f"time({x} - canvas.getBoundingClientRect().left)")
    assert again == pytest.approx(under, abs=whole / 500)
    page.run("canvas.focus()")
    page.key("0", "0")
    assert span(page) == whole
    page.key("+", "+")
    assert span(page) == pytest.approx(whole / 2)
    before = page.run("from")
    page.key("ArrowRight")
    assert page.run("from") > before
    page.run("document.getElementById('all').click()")
    assert span(page) == whole
    page.run("document.getElementById('in').click()")
    assert span(page) == pytest.approx(whole / 2)


@needs_browser
@pytest.mark.limit(120)
def test_the_timeline_can_be_used_by_keys_alone(page: Page, tmp_path: Path) -> None:
    page.look_like(1280, 700)
    open_timeline(page, a_trace(tmp_path))
    page.key("/")
    assert page.run("document.activeElement.id") == "search"
    page.call("Input.insertText", text="FAILS")
    assert page.run("rows.map(row => row.name)") == ["fails"]
    count: str = page.run("document.getElementById('count').textContent")
    assert count == "1 of 4 tasks"
    page.key("Enter")
    assert page.run("document.activeElement.id") == "view"
    assert shown(page).startswith("fails: step\n")
    page.key(".", ".")
    assert "text: sleeps for another 0.0" in shown(page)
    page.key(".", ".")
    assert "ValueError: bad" in shown(page)
    page.key("z", "z")
    assert span(page) < page.run("last") / 10
    page.key("Escape")
    assert shown(page) == "Choose a slice to see what it is."
    page.run("search.value = ''; search.dispatchEvent(new Event('input'))")
    for expected in (f"{__name__}.main", "</script><b>child", "fails", "sibling"):
        page.key("]", "]")
        assert shown(page).startswith(f"{expected}: ")


@needs_browser
@pytest.mark.limit(120)
def test_the_timeline_moves_and_zooms_by_touch(page: Page, tmp_path: Path) -> None:
    page.look_like(390, 700, touch=True)
    open_timeline(page, a_trace(tmp_path))
    whole = span(page)
    middle = page.run("canvas.getBoundingClientRect().top + 100")
    page.touch("touchStart", (150, middle), (250, middle))
    page.touch("touchMove", (100, middle), (300, middle))
    page.touch("touchEnd")
    assert span(page) == pytest.approx(whole / 2, rel=0.05)
    assert shown(page) == "Choose a slice to see what it is."
    before = page.run("from")
    page.touch("touchStart", (200, middle))
    page.touch("touchMove", (150, middle))
    page.touch("touchMove", (100, middle))
    page.touch("touchEnd")
    assert page.run("from") > before
    assert span(page) == pytest.approx(whole / 2, rel=0.05)


def made_up(tasks: int, steps: int) -> list[dict[str, Any]]:
    """The events of many tasks that are made at once and wait in turn."""
    events: list[dict[str, Any]] = []
    for tid in range(1, tasks + 1):
        ids = {"pid": 1, "tid": tid}
        name = f"task {tid} " + "with a long name " * (tid % 5)
        events.append({"ph": "M", "name": "thread_name", "args": {"name": name}, **ids})
        events.append({"ph": "B", "cat": "scope", "name": "scope", "ts": tid, **ids})
        for step in range(steps):
            start = tid + step * 1000.0
            events.append({"ph": "X", "cat": "step", "name": "step", "ts": start, "dur": 5, **ids})
            events.append({"ph": "B", "cat": "wait", "name": "wait", "ts": start + 5, **ids})
            events.append({"ph": "E", "ts": start + 1000, **ids})
        events.append({"ph": "E", "ts": tid + steps * 1000.0, **ids})
    return events


@needs_browser
@pytest.mark.limit(120)
def test_the_timeline_of_5000_tasks_draws_and_scrolls_and_finds(page: Page, tmp_path: Path) -> None:
    trace = tmp_path / "many.json"
    lines = [json.dumps(event) for event in made_up(5000, 20)]
    trace.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    page.look_like(1280, 700)
    open_timeline(page, trace)
    # A frame draws the tracks in view alone: its work does not grow with the number of tasks.
    drawn = page.run(
        """(() => {
          const fill = pen.fillRect; let count = 0;
          pen.fillRect = (...box) => { count++; fill.apply(pen, box); };
          draw(); pen.fillRect = fill; return count;
        })()"""
    )
    assert 20 < drawn < 2000
    page.run("canvas.focus()")
    page.key("End")
    assert page.run("rows[rows.length - 1].top - scroll < canvas.clientHeight")
    page.run("search.value = 'task 4321 '; search.dispatchEvent(new Event('input'))")
    assert page.run("rows.length") == 1
    assert page.run("document.getElementById('count').textContent") == "1 of 5,000 tasks"
