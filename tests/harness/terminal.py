"""A program in a terminal, as a user sees it: typed keys, and what is on the screen.

Rule: nothing waits for a time. A test waits for a text that the program shows, and a program that
does not show it is ended after ``PATIENCE``.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import termios
import time
from collections.abc import Sequence
from types import TracebackType

# Seconds after which a program that does not show the expected text is ended.
PATIENCE = 30.0

# Seconds after which keys that had no effect are pressed again.
AGAIN = 5.0

CTRL_C = "\x03"
CTRL_D = "\x04"
TAB = "\t"

ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b[=>]|\x1b[()][0-9A-B]")


class Terminal:
    """A program whose standard input, output and error are a terminal, which controls it."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], folder: str) -> None:
        self._master, slave = pty.openpty()
        try:
            self._process = subprocess.Popen(
                command,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                cwd=folder,
                env=environment,
                start_new_session=True,
                # So that Ctrl-C is the terminal's.
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        finally:
            os.close(slave)
        self._raw = b""
        # How much of the text was taken by wait_for().
        self._taken = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    @property
    def text(self) -> str:
        """All that was shown, without the sequences that move the cursor and set colours."""
        return ESCAPES.sub("", self._raw.decode("utf-8", "replace")).replace("\r", "")

    def press(self, keys: str) -> None:
        """Type some keys."""
        os.write(self._master, keys.encode())

    def press_until(self, keys: str, text: str) -> None:
        """Type some keys, again and again, until a text is shown.

        For Ctrl-C always: a signal that arrives just before a call begins to block, such as
        ``time.sleep()`` or that of ``readline``, does not end the call, and is handled after it.
        Python looks for signals before such a call, and may wait for other threads in between.
        """
        deadline = time.monotonic() + PATIENCE
        place = -1
        while place < 0:
            assert time.monotonic() < deadline, (
                f"not shown: {text!r}, but:\n{self.text[self._taken :]}"
            )
            self.press(keys)
            again = time.monotonic() + AGAIN
            while place < 0 and (left := again - time.monotonic()) > 0:
                assert self._read(left), f"ended without {text!r}:\n{self.text[self._taken :]}"
                place = self.text.find(text, self._taken)
        self._taken = place + len(text)

    def enter(self, line: str) -> None:
        """Type a line."""
        self.press(line + "\n")

    def wait_for(self, text: str) -> str:
        """Read until a text is shown, after the one that was waited for before.

        Returns:
            The text from there to its end.
        """
        deadline = time.monotonic() + PATIENCE
        while (place := self.text.find(text, self._taken)) < 0:
            left = deadline - time.monotonic()
            assert left > 0, f"not shown: {text!r}, but:\n{self.text[self._taken :]}"
            assert self._read(left), f"ended without {text!r}:\n{self.text[self._taken :]}"
        before, self._taken = self._taken, place + len(text)
        return self.text[before : self._taken]

    def wait(self) -> int:
        """Read until the program ends. Returns its exit status, negative for a signal."""
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0 and self._read(left):
            pass
        return self._process.wait(max(deadline - time.monotonic(), 1))

    def _read(self, patience: float) -> bool:
        """Read once, for some seconds at most; False if the program has ended."""
        if not select.select([self._master], [], [], patience)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the program has closed the terminal
            return False
        self._raw += data
        return bool(data)
