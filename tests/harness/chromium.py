"""Web pages in headless Chromium, driven by its DevTools protocol over a pair of pipes.

This module serves a folder on loopback, starts Chromium, and calls JavaScript in a page. It notes
everything that the page should not do: errors and warnings in its console, and requests to other
hosts. Workers of the page are included.

Rule: nothing waits without a limit. A command that Chromium does not answer in time fails.
"""

from __future__ import annotations

import fcntl
import functools
import http.server
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Seconds for the answer to one command, and for a condition in the page.
PATIENCE = 60.0


def program() -> str | None:
    """The path of Chromium; None if it is not here."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Broken(Exception):
    """Chromium, or JavaScript in a page, has failed."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as any static host does, and give its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def end_headers(self) -> None:
            self.send_header("Cache-Control", "no-cache")
            super().end_headers()

        def copyfile(self, source: Any, outputfile: Any) -> None:
            try:
                super().copyfile(source, outputfile)
            except ConnectionError:  # the page has gone
                pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class Chromium:
    """A running browser with one page.

    Attributes:
        complaints: What the page and its workers have complained about, since `open`.
        requests: The addresses that they have asked for, since `open`.
    """

    def __init__(self, *options: str) -> None:
        path = program()
        assert path is not None
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._rest = b""
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        their_in, self._out = os.pipe()
        self._in, their_out = os.pipe()

        def place_pipes() -> None:  # at the two numbers where Chromium looks for them
            one, two = fcntl.fcntl(their_in, fcntl.F_DUPFD, 20), fcntl.fcntl(
                their_out, fcntl.F_DUPFD, 20
            )
            os.dup2(one, 3)
            os.dup2(two, 4)

        try:
            self._process = subprocess.Popen(
                [path, *OPTIONS, f"--user-data-dir={self._profile.name}", *options, "about:blank"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                preexec_fn=place_pipes,
                pass_fds=(3, 4),
                start_new_session=True,
            )
        finally:
            os.close(their_in)
            os.close(their_out)
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        self._watch(self._session)
        self.call("Page.enable")

    def close(self) -> None:
        """End the browser and remove its profile."""
        os.close(self._out)  # the browser ends when its pipe does
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        self._profile.cleanup()

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- commands ----------------------------------------------------------------

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its answer."""
        number = self._send(method, parameters, self._session)
        deadline = time.monotonic() + PATIENCE
        while True:
            message = self._receive(deadline - time.monotonic())
            if message.get("id") == number:
                if "error" in message:
                    raise Broken(f"{method}: {message['error']['message']}")
                result: dict[str, Any] = message["result"]
                return result

    def open(self, address: str) -> None:
        """Load a page, and wait until it is complete."""
        self.call("Page.navigate", url="about:blank")
        self.complaints.clear()
        self.requests.clear()
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page. A promise is awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise Broken(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def until(self, condition: str, patience: float = PATIENCE) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        deadline = time.monotonic() + patience
        while not (value := self.run(condition)):
            if time.monotonic() > deadline:
                raise Broken(f"{condition} is not true after {patience} seconds: {self.complaints}")
            time.sleep(0.02)
        return value

    # -- messages ----------------------------------------------------------------

    def _send(self, method: str, parameters: dict[str, Any], session: str) -> int:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        return self._number

    def _receive(self, patience: float) -> dict[str, Any]:
        deadline = time.monotonic() + patience
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise Broken("Chromium has ended" if ready else "Chromium does not answer")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message)
        return message

    def _watch(self, session: str) -> None:
        for method in ("Runtime.enable", "Log.enable", "Network.enable"):
            self._send(method, {}, session)
        workers = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        self._send("Target.setAutoAttach", workers, session)
        self._send("Runtime.runIfWaitingForDebugger", {}, session)

    def _note(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Target.attachedToTarget":
            if parameters["sessionId"] != self._session and self._session:
                self._watch(parameters["sessionId"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            text = details.get("exception", {}).get("description", details["text"])
            self.complaints.append(f"exception: {text}")
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
            said = [str(arg.get("value", arg.get("description"))) for arg in parameters["args"]]
            self.complaints.append(f"{parameters['type']}: {' '.join(said)}")
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            entry = parameters["entry"]
            self.complaints.append(f"{entry['level']}: {entry['text']} {entry.get('url', '')}")
