"""Make the pictures of the documentation: ``python docs/_pictures/make.py [NAME ...]``.

Each is the record of a real run of a program in `scenes`, under virtual time. The files are in
``docs/pictures``, in a light and a dark version. Needs Python 3.11 or newer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pictures import PICTURES
from svg import PALETTES

FOLDER = Path(__file__).parents[1] / "pictures"


def files(names: list[str] | None = None) -> Iterator[tuple[Path, str]]:
    """Make each picture, and give its path and text, in each palette."""
    for name in names or list(PICTURES):
        drawing = PICTURES[name]()
        for palette in PALETTES:
            yield FOLDER / f"{name}-{palette}.svg", drawing.render(palette)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for path, text in files(sys.argv[1:]):
        path.write_text(text, encoding="utf-8")
        print(path)
