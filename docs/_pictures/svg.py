"""SVG text for the pictures: shapes in two palettes, light and dark.

A drawing is made once, with names of colours. `render()` puts in the colours of one palette. So the
two files of a picture differ in nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

# The contrast of each text to its ground is at least 4.5 to 1. Bars carry text in the colour "on".
# As the colour of a text, the colour of a bar has a name with "_text".
PALETTES = {
    "light": {
        "ground": "#ffffff",
        "text": "#1f2328",
        "quiet": "#57606a",
        "line": "#8c959f",
        "grid": "#e4e7eb",
        "block": "#f3f5f7",
        "work": "#2f7d63",
        "work_text": "#2a7259",
        "cleanup": "#96600f",
        "fault": "#c62f39",
        "fault_text": "#c62f39",
        "other": "#3b6fb5",
        "on": "#ffffff",
    },
    "dark": {
        "ground": "#131416",
        "text": "#e6edf3",
        "quiet": "#9aa4af",
        "line": "#6e7681",
        "grid": "#2a2f36",
        "block": "#1d2126",
        "work": "#27795d",
        "work_text": "#56c596",
        "cleanup": "#8f5b10",
        "fault": "#d2434c",
        "fault_text": "#ff7b83",
        "other": "#386db5",
        "on": "#ffffff",
    },
}

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"
CODE = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def number(value: float) -> str:
    """Return a coordinate with at most one digit behind the point."""
    return f"{value:.1f}".removesuffix(".0")


class Drawing:
    """Shapes in the order in which they were added.

    Colours are keys of a palette. The size is in CSS pixels.
    """

    def __init__(self, title: str, width: float, height: float) -> None:
        self.title = title
        self.width, self.height = width, height
        self._shapes: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        colour: str = "text",
        size: float = 13,
        anchor: str = "start",
        code: bool = False,
        bold: bool = False,
    ) -> None:
        """Add one line of text, with its baseline at ``y``."""
        if f"{colour}_text" in PALETTES["light"]:
            colour += "_text"
        family = CODE if code else FONT
        weight = ' font-weight="600"' if bold else ""
        self._shapes.append(
            f'<text x="{number(x)}" y="{number(y)}" fill="{{{colour}}}" font-size="{number(size)}" '
            f'text-anchor="{anchor}" font-family="{family}"{weight}>{braced(text)}</text>'
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: str,
        *,
        edge: str | None = None,
        round_by: float = 3,
        dashed: bool = False,
    ) -> None:
        """Add a rectangle; ``edge`` is the colour of its border."""
        border = "" if edge is None else f' stroke="{{{edge}}}" stroke-width="1.5"'
        border += ' stroke-dasharray="5 4"' if dashed else ""
        self._shapes.append(
            f'<rect x="{number(x)}" y="{number(y)}" width="{number(width)}" '
            f'height="{number(height)}" rx="{number(round_by)}" fill="{{{colour}}}"{border}/>'
        )

    def line(
        self,
        points: Iterable[tuple[float, float]],
        colour: str = "line",
        *,
        width: float = 1.5,
        dashed: bool = False,
        arrow: bool = False,
    ) -> None:
        """Add a line through points; ``arrow`` puts a head at its end."""
        points = list(points)
        path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._shapes.append(
            f'<polyline points="{path}" fill="none" stroke="{{{colour}}}" '
            f'stroke-width="{number(width)}" stroke-linejoin="round"{dash}/>'
        )
        if arrow:
            self._head(points[-2], points[-1], colour)

    def _head(self, before: tuple[float, float], at: tuple[float, float], colour: str) -> None:
        x, y = at
        dx, dy = x - before[0], y - before[1]
        length = (dx * dx + dy * dy) ** 0.5 or 1.0
        dx, dy = dx / length * 7, dy / length * 7
        corners = [(x, y), (x - dx - dy / 2, y - dy + dx / 2), (x - dx + dy / 2, y - dy - dx / 2)]
        path = " ".join(f"{number(a)},{number(b)}" for a, b in corners)
        self._shapes.append(f'<polygon points="{path}" fill="{{{colour}}}"/>')

    def cross(self, x: float, y: float, colour: str = "fault") -> None:
        """Add a cross, which stands for an error."""
        for dx in (-5, 5):
            self.line([(x - dx, y - 5), (x + dx, y + 5)], colour, width=2.5)

    def render(self, palette: str) -> str:
        """Return the SVG file in one palette, a key of `PALETTES`."""
        colours = PALETTES[palette]
        size = f'width="{number(self.width)}" height="{number(self.height)}"'
        body = "\n".join(shape.format_map(colours) for shape in self._shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
            f'viewBox="0 0 {number(self.width)} {number(self.height)}" role="img">\n'
            f"<title>{escape(self.title)}</title>\n"
            f'<rect width="100%" height="100%" fill="{colours["ground"]}"/>\n{body}\n</svg>\n'
        )


def braced(text: str) -> str:
    """Return text for a shape that `str.format_map` will go through."""
    return escape(text).replace("{", "{{").replace("}", "}}")
