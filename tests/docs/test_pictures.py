"""The pictures of the documentation are those of real runs, readable in light and dark."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter

import pytest
from harness import source

if str(source.ROOT / "docs") not in sys.path:
    sys.path.append(str(source.ROOT / "docs"))

import _pictures
from _pictures import svg

DOCS = source.ROOT / "docs"
FOLDER = DOCS / "pictures"


needs_timeout = pytest.mark.skipif(sys.version_info < (3, 11), reason="needs asyncio.timeout")

PAGES = {page: page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md")}
USED = [
    (page, *found)
    for page, text in PAGES.items()
    for found in re.findall(r"^```\{picture\} ([\w-]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]
NAMES = sorted({path.stem.rpartition("-")[0] for path in FOLDER.glob("*.svg")})

# Its data depend on the buffers of the system's sockets a little.
OF_SOCKETS = {"streams"}


@needs_timeout
def test_a_picture_is_what_its_program_does_today() -> None:
    from _pictures.drawings import PICTURES

    for path, text in _pictures.files([name for name in PICTURES if name not in OF_SOCKETS]):
        assert path.read_text(encoding="utf-8") == text, "run `python docs/_pictures`"


@needs_timeout
def test_back_pressure_the_picture_shows_a_bounded_and_an_unbounded_sender() -> None:
    from _pictures import scenes
    from _pictures.drawings import run

    record, _ = run(scenes.streams)
    most = Counter[str]()
    for name, _, value in record.values:
        most[name] = max(most[name], int(value))
    assert most[scenes.ASYNCIO] > 40
    assert most[scenes.NURSERYIO] < 10


def test_each_picture_has_a_light_and_a_dark_version() -> None:
    files = {path.name for path in FOLDER.iterdir()}
    assert files == {f"{name}-{palette}.svg" for name in NAMES for palette in svg.PALETTES}


def test_each_picture_is_on_a_page_and_each_directive_has_a_file() -> None:
    assert {name for _, name, _ in USED} == set(NAMES)


def test_each_picture_has_a_text_alternative_of_some_length() -> None:
    for page, name, alternative in USED:
        assert len(alternative.split()) >= 15, (page.name, name)


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_a_valid_svg_with_a_title(name: str) -> None:
    for palette in svg.PALETTES:
        tree = ElementTree.parse(FOLDER / f"{name}-{palette}.svg").getroot()
        title = tree.find("{http://www.w3.org/2000/svg}title")
        assert title is not None and title.text
        width = float(tree.attrib["width"])
        for text in tree.iter("{http://www.w3.org/2000/svg}text"):
            # A character is about 0.6 of the size wide.
            half = len(text.text or "") * float(text.attrib["font-size"]) * 0.3
            x, anchor = float(text.attrib["x"]), text.attrib["text-anchor"]
            left = {"start": x, "middle": x - half, "end": x - 2 * half}[anchor]
            assert left > -30 and left + 2 * half < width + 30, text.text


def luminance(colour: str) -> float:
    """The relative luminance of a colour, as the WCAG define it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("palette", svg.PALETTES)
def test_the_contrast_of_text_in_pictures_is_enough(palette: str) -> None:
    colours = svg.PALETTES[palette]
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    for name in ("text", "quiet", "work_text", "fault_text"):
        for ground in ("ground", "block"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for bar in ("work", "cleanup", "other"):
        assert contrast(colours["on"], colours[bar]) >= 4.5, bar


def test_both_palettes_have_the_same_colours() -> None:
    light, dark = svg.PALETTES.values()
    assert light.keys() == dark.keys()
