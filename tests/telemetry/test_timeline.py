"""A trace as an HTML page that draws it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import nurseryio
from nurseryio._telemetry.timeline import MARKER, read_trace
from nurseryio.instruments import TraceFile, write_timeline

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

needs_browser = pytest.mark.skipif(
    BROWSER is None, reason="draws in a headless browser: install chromium"
)

# Clicks in the middle of each row of the first 12, at 25 places, until a slice of the scope is hit.
ACTIONS = """
<script>
  const found = new Set();
  const mouse = (kind, x, y) => canvas.dispatchEvent(Object.assign(
    new PointerEvent(kind, { clientX: x, clientY: y, bubbles: true, pointerId: 1 })));
  canvas.setPointerCapture = () => {};
  const box = canvas.getBoundingClientRect();
  for (const track of rows) for (let level = 0; level < track.levels; level++)
  for (let i = 1; i < 25; i++) {
    const px = box.left + LABEL + i / 25 * width();
    const py = box.top + track.top + (level + .5) * ROW;
    mouse("pointerdown", px, py); mouse("pointerup", px, py);
    found.add(details.textContent);
  }
  const before = to - from;
  canvas.dispatchEvent(new WheelEvent("wheel", {
    deltaY: -1, clientX: box.left + 400, clientY: box.top + 50, cancelable: true }));
  const zoomed = (to - from) / before;
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "0" }));
  const whole = from === first && to === last;
  const result = { found: [...found], zoomed, whole, rows: rows.map(row => row.name) };
  const out = document.createElement("pre");
  out.id = "result"; out.textContent = JSON.stringify(result);
  document.body.append(out);
</script>
"""


class Pre(HTMLParser):
    """The text of the element with the id "result"."""

    text = ""
    inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = ("id", "result") in attrs

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.text += data


async def child() -> None:
    with nurseryio.move_on_after(5):
        await nurseryio.sleep(0.05)


async def main() -> None:
    async with nurseryio.open_nursery() as nursery:
        nursery.start_soon(child, name="</script><b>child")


def a_trace(folder: Path) -> Path:
    nurseryio.run(main, instruments=[TraceFile(folder / "trace.json")])
    return folder / "trace.json"


def test_write_timeline_makes_one_page_with_the_events_and_no_address(tmp_path: Path) -> None:
    write_timeline(a_trace(tmp_path), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert MARKER not in page
    assert not re.findall(r"https?://", page)
    data = page.partition('type="application/json">')[2].partition("</script>")[0]
    events = json.loads(data)
    assert {"name": "</script><b>child"} in [event.get("args") for event in events]


def test_write_timeline_of_a_trace_that_was_cut_off(tmp_path: Path) -> None:
    path = a_trace(tmp_path)
    text = path.read_text(encoding="utf-8")
    whole = read_trace(path)
    path.write_text(text[: len(text) // 2], encoding="utf-8")
    some = read_trace(path)
    assert 0 < len(some) < len(whole)
    assert some == whole[: len(some)]
    write_timeline(path, tmp_path / "page.html")


def test_write_timeline_of_a_file_that_is_no_trace_is_an_error(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("hello", encoding="utf-8")
    with pytest.raises(ValueError, match="other' is not a trace file"):
        write_timeline(other, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    with pytest.raises(FileNotFoundError):
        write_timeline(tmp_path / "missing", tmp_path / "page.html")


@needs_browser
@pytest.mark.limit(120)
def test_the_timeline_draws_zooms_and_shows_the_details_of_a_slice(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_timeline(a_trace(tmp_path), page)
    page.write_text(page.read_text(encoding="utf-8").replace("</html>", ACTIONS + "</html>"))
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--window-size=1200,700",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
        timeout=100,
    )
    parser = Pre()
    parser.feed(done.stdout)
    result: dict[str, Any] = json.loads(parser.text)
    assert "</script><b>child" in result["rows"]
    assert result["zoomed"] == pytest.approx(0.8)
    assert result["whole"]
    assert any(
        shown.startswith("</script><b>child: scope, deadline in 5.00 s\n")
        for shown in result["found"]
    )
    assert any("text: sleeps for another 0.0" in shown for shown in result["found"])
