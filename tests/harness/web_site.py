"""The site of the documentation in a headless browser, which notes everything that a page asks for.

``build`` makes the site as ``make docs`` does, ``served`` is a plain static host, and
``WatchedPage`` notes complaints and requests of a page and of its workers.
"""

from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from . import source
from .browser import BROWSER, PATIENCE, Page

sys.path.append(str(source.ROOT / "docs" / "_ext"))

import page_bundle

NEEDED = ("sphinx", "furo", "myst_parser")


def why_no_site() -> str:
    """The reason why the site cannot be built and looked at here; empty if it can."""
    if BROWSER is None:
        return "needs Chromium"
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    return f"needs {', '.join(missing)}: python -m pip install '.[docs]'" if missing else ""


def why_no_buttons() -> str:
    """The reason why the site has no Run buttons here; empty if it has."""
    return why_no_site() or page_bundle.why_not()


def build(target: Path, pages: Path = source.ROOT / "docs", *options: str) -> str:
    """Build the site into a folder. Returns what Sphinx says."""
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-b", "html", *options, pages, target / "html"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(source.ROOT)},
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as any static host does. Gives its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        timeout = 1.0  # of a connection that a browser opens in advance, and its thread

        def log_message(self, *_: object) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            with suppress(ConnectionError):  # the page has gone
                super().copyfile(source, outputfile)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class WatchedPage(Page):
    """A page that notes what it and its workers do.

    Attributes:
        complaints: Errors and warnings in the console, and failed requests, since `visit`.
        requests: The addresses that were asked for since `visit`.
        before_worker: A script for each new worker, to be run before its own.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.before_worker = ""
        super().__init__(to_browser, from_browser)
        self._watch()
        self.call("Page.enable")

    def visit(self, address: str) -> None:
        """Open an address, after everything of the page before it is gone."""
        self.open("about:blank")
        self.complaints.clear()
        self.requests.clear()
        self.open(address)

    def until(self, condition: str, patience: float = PATIENCE) -> Any:
        """Wait until a script is true, and return its value."""
        deadline = time.monotonic() + patience
        while not (value := self.run(condition)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not true after {patience} s: {condition} {self.complaints}")
            time.sleep(0.02)
        return value

    def _watch(self) -> None:
        for method in ("Runtime.enable", "Log.enable", "Network.enable"):
            self.call(method)
        self.call(
            "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True
        )

    def _message(self) -> dict[str, Any]:
        message = super()._message()
        method, params = message.get("method"), message.get("params", {})
        if method == "Target.attachedToTarget" and params["waitingForDebugger"]:
            self._start(params["sessionId"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"])[:1000])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(params["args"])[:1000])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
        return message

    def _start(self, session: str) -> None:
        """Watch a worker as well, and let it begin. Its answers are not waited for."""
        commands: list[tuple[str, dict[str, Any]]] = [
            (method, {}) for method in ("Runtime.enable", "Log.enable", "Network.enable")
        ]
        if self.before_worker:
            commands.append(("Runtime.evaluate", {"expression": self.before_worker}))
        commands.append(("Runtime.runIfWaitingForDebugger", {}))
        for method, params in commands:
            message = {
                "id": next(self._numbers),
                "method": method,
                "params": params,
                "sessionId": session,
            }
            os.write(self._to, json.dumps(message).encode() + b"\0")
