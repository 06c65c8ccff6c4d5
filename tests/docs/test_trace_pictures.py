"""The pictures of the documentation: made by a script from traces of real runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from harness import source

FOLDER = source.ROOT / "docs/_pictures"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trace_pictures", FOLDER / "traces.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


make = _load()


@pytest.mark.parametrize("name", make.PICTURES)
def test_each_picture_is_drawn_from_a_run_with_all_that_it_shows(name: str, tmp_path: Path) -> None:
    make.main([name, "--folder", str(tmp_path)])
    picture = make.PICTURES[name]
    for scheme in ("light", "dark"):
        path = tmp_path / f"{name}-{scheme}.svg"
        root = ElementTree.parse(path).getroot()
        space = {"svg": "http://www.w3.org/2000/svg"}
        assert root.findtext("svg:title", namespaces=space) == picture.title
        assert root.findtext("svg:desc", namespaces=space) == picture.text
        assert root.get("role") == "img"
        width = float(root.get("width", ""))
        for text in root.iterfind("svg:text", space):
            assert 0 < float(text.get("x", "")) < width
        committed = ElementTree.parse(FOLDER / path.name).getroot()
        assert _tracks(committed) == _tracks(root)


def _tracks(root: ElementTree.Element) -> list[str]:
    """The names of the tracks in a picture."""
    texts = root.iterfind("{http://www.w3.org/2000/svg}text")
    return [text.text or "" for text in texts if text.get("x") == "10.0"]


def test_the_failing_child_cancels_its_nursery_and_no_task_is_left() -> None:
    timeline = make.trace_of(make.PICTURES["failing-child"])
    tracks = {track.name: track for track in timeline.tracks.values()}
    assert list(tracks) == ["main", "download A", "download B", "download C"]
    assert [mark[:2] for mark in tracks["download B"].marks] == [
        ("error", "OSError: connection lost")
    ]
    (nursery,) = (each for each in tracks["main"].slices if each.kind == "nursery")
    assert nursery.cancelled > 0
    ends = [max(each.end for each in tracks[name].slices) for name in list(tracks)[1:]]
    assert max(ends) <= nursery.end


def test_the_stubborn_task_ends_with_the_timeout() -> None:
    timeline = make.trace_of(make.PICTURES["timeout"])
    tracks = {track.name: track for track in timeline.tracks.values()}
    (scope,) = (each for each in tracks["main"].slices if each.kind == "scope")
    waits = [each for each in tracks["stubborn"].slices if each.kind == "wait"]
    assert waits[-1].end <= scope.end
    assert scope.details["cancelled"] == "cancelled due to deadline"
