"""The directive for pictures shows one file for light and one for dark, with a text alternative."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import source

pytest.importorskip("sphinx", reason="needs sphinx: python -m pip install '.[docs]'")

EXTENSIONS = source.ROOT / "docs/_ext"
CONF = f"""
import sys
sys.path.insert(0, {str(EXTENSIONS)!r})
extensions = ["picture_directive"]
"""
SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'


def build(folder: Path, page: str) -> subprocess.CompletedProcess[str]:
    """Build a site of one page with two pictures' files."""
    (folder / "pictures").mkdir()
    for palette in ("light", "dark"):
        (folder / f"pictures/tree-{palette}.svg").write_text(SVG, encoding="utf-8")
    (folder / "conf.py").write_text(CONF, encoding="utf-8")
    (folder / "index.rst").write_text(page, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-b", "html", folder, folder / "out"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_picture_has_an_image_for_each_theme_and_a_frame_that_scrolls(tmp_path: Path) -> None:
    done = build(tmp_path, "Title\n=====\n\n.. picture:: tree\n\n   A tree of\n   two tasks.\n")
    assert (done.returncode, done.stderr) == (0, "")
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    images = re.findall(r"<img [^>]*>", page)
    assert ['alt="A tree of two tasks."' in image for image in images] == [True, True]
    assert [re.search(r"only-\w+", image)[0] for image in images] == ["only-light", "only-dark"]  # type: ignore[index]
    frame = re.search(r'<div class="picture-frame"[^>]*>', page)
    assert frame and 'tabindex="0"' in frame[0]
    assert "pictures.css" in page
    assert (tmp_path / "out/_static/pictures.css").is_file()
    assert {path.name for path in (tmp_path / "out/_images").iterdir()} == {
        "tree-light.svg",
        "tree-dark.svg",
    }


def test_a_picture_without_a_text_alternative_is_an_error(tmp_path: Path) -> None:
    done = build(tmp_path, "Title\n=====\n\n.. picture:: tree\n")
    assert done.returncode != 0
    assert "picture" in done.stderr
