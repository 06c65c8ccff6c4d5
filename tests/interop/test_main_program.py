"""``python -m nurseryio program`` and ``python program`` show the same, and end with one status."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from harness import source

# The namespace and the paths that a program sees, and an error below two calls.
SHOW = """
import sys
seen = {name: value for name, value in globals().items() if name not in ("sys", "__builtins__")}
print(sorted(seen.items()), type(__builtins__), sys.argv, sys.path[0])
print(sys.modules["__main__"].__dict__ is globals())
def fail():
    raise ValueError("mine")
fail()
"""

GROUP = """
import sys
if sys.version_info < (3, 11):
    from exceptiongroup import ExceptionGroup
try:
    raise KeyError(1)
except KeyError:
    raise ExceptionGroup("two", [ValueError(1), OSError(2)])
"""

HOOK = """
import sys, traceback
def hook(kind, error, tb):
    print("hook", kind, error is sys.last_value, tb is error.__traceback__ is sys.last_traceback)
    print([frame.name for frame in traceback.extract_tb(tb)])
sys.excepthook = hook
1 / 0
"""

INTERRUPT = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(10)
"""

AT_EXIT = """
import atexit, sys
name = "still there"
atexit.register(lambda: print(sys.modules["__main__"].name))
"""

EXIT_IN_CALL = """
import atexit, sys
class Local:
    def __del__(self):
        print("finalized")
def generate():
    try:
        yield
    finally:
        print("closed")
def main():
    local = Local()
    sys.exit(3)
generator = generate()
next(generator)
atexit.register(print, "at exit")
main()
"""

ODD_ERROR = """
class Odd(Exception):
    __traceback__ = property()
raise Odd
"""

# On 3.10, exceptiongroup shows errors by Python code, which reads the sources in a zip file, and
# which does not work for every class of errors.
NEEDS_3_11 = ("odd_error.py", "archive.zip")

PROGRAMS = {
    "show": SHOW,
    "group": GROUP,
    "hook": HOOK,
    "interrupt": INTERRUPT,
    "at_exit": AT_EXIT,
    "odd_error": ODD_ERROR,
    "exit_in_call": EXIT_IN_CALL,
    "exit_status": "import sys; sys.exit(7)",
    "exit_message": "import sys; sys.exit('why')",
    "syntax": "x = = 1",
    "encoding": b"# coding: latin-1\nprint(ascii('\xe9'))\nraise ValueError('\xe9')",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the programs as scripts, and one of them in a package, a folder and a zip."""
    root = tmp_path_factory.mktemp("programs")
    for name, program in PROGRAMS.items():
        text = program if isinstance(program, bytes) else program.encode()
        (root / f"{name}.py").write_bytes(text)
    package = root / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(SHOW)
    bad = root / "bad"
    bad.mkdir()
    (bad / "__init__.py").write_text("")
    with zipfile.ZipFile(root / "archive.zip", "w") as archive:
        archive.write(package / "__main__.py", "__main__.py")
    return root


def ends(folder: Path, *arguments: str) -> tuple[int, str, str]:
    """The exit status, output and errors of a Python process."""
    paths = [str(source.ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=False,
    )
    # runpy's frames are in the tracebacks of ``python -m``.
    errors = re.sub(r'  File "[^"]*runpy[^"]*", .*\n(    .*\n)*', "", done.stderr)
    return done.returncode, re.sub("0x[0-9a-f]+", "ADDRESS", done.stdout), errors


@pytest.mark.parametrize(
    "arguments",
    [
        *([f"{name}.py", "-m", "x"] for name in PROGRAMS),
        ["../programs/./show.py"],
        ["package/"],
        ["archive.zip"],
        ["bad"],
        ["-m", "show", "x"],
        ["-m", "package"],
        ["-m", "bad"],
        ["-m", "no_such_module"],
        ["-m", "no_such_package.module"],
        ["-m", "syntax"],
        ["-c", SHOW, "x"],
    ],
    ids=lambda arguments: " ".join(arguments)[:20].replace("\n", " "),
)
def test_a_program_run_by_python_m_nurseryio_sees_and_shows_what_python_itself_does(
    arguments: list[str], folder: Path
) -> None:
    if sys.version_info < (3, 11) and arguments[0] in NEEDS_3_11:
        pytest.skip("exceptiongroup shows the error")
    if arguments[0].startswith(".."):
        arguments = [os.path.join("..", folder.name, ".", "show.py")]
    expected = ends(folder, *arguments)
    assert ends(folder, "-m", "nurseryio", *arguments) == expected


@pytest.mark.parametrize("change", ["del sys.excepthook", "sys.excepthook = None"])
def test_a_program_of_python_m_nurseryio_without_an_excepthook_shows_its_own_error_alone(
    change: str, folder: Path
) -> None:
    status, _, errors = ends(folder, "-m", "nurseryio", "-c", f"import sys\n{change}\n1 / 0")
    assert status == 1
    assert re.findall(r"^(\w+Error):", errors, re.MULTILINE) in (
        ["ZeroDivisionError"],
        ["TypeError", "ZeroDivisionError"],  # Python itself has called the hook
    )
    assert "in show" not in errors
