"""A headless Chromium, driven through its debugging pipe: real clicks, wheels, keys and touches.

The pipe needs no network and no other package. Chromium reads commands from descriptor 3 and writes
answers to descriptor 4: JSON texts, each with a zero byte after it.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
PATIENCE = 60.0
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking --disable-quic "
    "--disable-component-update --disable-sync --no-first-run --hide-scrollbars "
    "--remote-debugging-pipe"
).split()


PageT = TypeVar("PageT", bound="Page")


class Page:
    """One page of the browser."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._rest = b""
        self._numbers = count(1)
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the debugging protocol and return its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        data = memoryview(json.dumps(message).encode() + b"\0")
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._message()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> dict[str, Any]:
        parts = [self._rest]
        while b"\0" not in parts[-1]:
            if not select.select([self._from], [], [], PATIENCE)[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._from, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            parts.append(part)
        text, _, self._rest = b"".join(parts).partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def run(self, script: str) -> Any:
        """The value of a script, awaited if it is a promise."""
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:2000])
        return result["result"].get("value")

    def open(self, address: str, ready: str = "document.readyState === 'complete'") -> None:
        """Open an address, and wait until a script is true there."""
        self.call("Page.navigate", url=address)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(RuntimeError):  # the page is being replaced
                if self.run(f"location.href === {json.dumps(address)} && ({ready})"):
                    return
            time.sleep(0.02)
        raise TimeoutError(f"{address} is not ready")

    def look_like(
        self, width: int, height: int, *, dark: bool = False, touch: bool = False, scale: float = 1
    ) -> None:
        """Set the size of the window, the colour scheme and whether it is a phone."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=touch,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch, maxTouchPoints=2)
        scheme = "dark" if dark else "light"
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )

    def mouse(self, kind: str, x: float, y: float, **details: Any) -> None:
        """A mouse event: mousePressed, mouseReleased, mouseMoved, mouseWheel."""
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **details)

    def click(self, x: float, y: float) -> None:
        """A click of the left button."""
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", buttons=1, clickCount=1)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        """A touch event: touchStart, touchMove, touchEnd, with all fingers that are down."""
        fingers = [{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)]
        self.call("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)

    def key(self, key: str, text: str = "") -> None:
        """Press a key."""
        details: dict[str, Any] = {"text": text} if text else {}
        codes = {"Enter": 13, "Tab": 9, "Escape": 27}
        if key in codes:
            details["windowsVirtualKeyCode"] = codes[key]
        if key == "Enter":
            details["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **details)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def picture(self, path: Path) -> None:
        """Write a picture of the page, as PNG."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def browser(profile: Path, kind: type[PageT] = Page) -> Iterator[PageT]:  # type: ignore[assignment]
    """A browser with one page, and with a profile that this call makes."""
    assert BROWSER is not None
    read_commands, write_commands = os.pipe()
    read_answers, write_answers = os.pipe()
    # The child gets both ends under their numbers by a shell, without code between fork and exec.
    command = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
    process = subprocess.Popen(
        ["/bin/bash", "-c", command, "browser", BROWSER, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(read_commands, write_answers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(read_commands)
    os.close(write_answers)
    try:
        yield kind(write_commands, read_answers)
    finally:
        os.close(write_commands)
        os.close(read_answers)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its helpers, which may outlive it
        process.wait()
