"""The directive ``picture``: one of the files of ``docs/pictures``, in light and in dark.

The argument is the name of the picture, the content is its text alternative. The theme shows the
version that fits its colours, and hides the other one from screen readers too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Picture(SphinxDirective):
    """``.. picture:: name`` with the text alternative as content."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return an image for each palette, in a frame that can be scrolled with the keyboard."""
        self.assert_has_content()
        name, alternative = self.arguments[0], " ".join(self.content)
        images = [
            nodes.image(
                uri=f"/pictures/{name}-{palette}.svg",
                alt=alternative,
                classes=["picture", f"only-{palette}"],
            )
            for palette in ("light", "dark")
        ]
        frame = '<div class="picture-frame" role="group" aria-label="Picture" tabindex="0">'
        return [
            nodes.raw("", frame, format="html"),
            *images,
            nodes.raw("", "</div>", format="html"),
        ]


def setup(app: Any) -> dict[str, bool]:
    """Register the directive, and the style of its frame."""
    app.add_directive("picture", Picture)
    app.config.html_static_path.append(str(Path(__file__).with_name("picture_static")))
    app.add_css_file("pictures.css")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
