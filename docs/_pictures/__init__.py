"""Makes the pictures of the documentation: ``python docs/_pictures [NAME ...]``.

* ``svg``: shapes, in a light and a dark palette;
* ``record``: what the tasks of a run did, and when;
* ``scenes``: the programs;
* ``drawings``: from a recorded run to a drawing, and the list of the pictures.

Each picture is the record of a real run, under virtual time. The files are in ``docs/pictures``.
The pictures of the page on performance are drawn by ``benchmarks/plot.py``, with the same shapes.
Needs Python 3.11 or newer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "pictures"


def files(names: list[str] | None = None) -> Iterator[tuple[Path, str]]:
    """Make each picture, and give its path and text, in each palette."""
    from .drawings import PICTURES
    from .svg import PALETTES

    for name in names or list(PICTURES):
        drawing = PICTURES[name]()
        for palette in PALETTES:
            yield FOLDER / f"{name}-{palette}.svg", drawing.render(palette)
