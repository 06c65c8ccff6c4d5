"""``python -m nurseryio``: runs a script or module as Python does; ``import trio`` is nurseryio."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import matrix, source

import nurseryio
from nurseryio._interop import cli

PROGRAM = """
import asyncio, sys, trio
async def main():
    await trio.sleep(0)
    print(type(asyncio.get_running_loop()).__module__.partition(".")[0], sys.argv[1:], __name__)
trio.run(main)
"""

needs_uvloop = pytest.mark.skipif("uvloop" not in matrix.KINDS, reason="uvloop is not installed")


def run(
    folder: Path, *arguments: str, code: int = 0, PYTHONPATH: str = "", **more: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, and check how it ends."""
    paths = [str(source.ROOT), os.environ.get("PYTHONPATH", ""), PYTHONPATH]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "nurseryio", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        check=False,
        **more,
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def script(tmp_path: Path) -> Path:
    file = tmp_path / "scripts" / "program.py"
    file.parent.mkdir()
    file.write_text(PROGRAM, encoding="utf-8")
    return file


def test_python_m_nurseryio_passes_a_script_its_arguments_whatever_they_look_like(
    tmp_path: Path, script: Path
) -> None:
    done = run(tmp_path, str(script), "-m", "--loop", "x")
    assert done.stdout == "asyncio ['-m', '--loop', 'x'] __main__\n"


@needs_uvloop
@pytest.mark.parametrize("option", [["--loop", "uvloop"], ["--loop=uvloop"]])
def test_python_m_nurseryio_runs_a_script_on_uvloop_if_asked_for(
    tmp_path: Path, script: Path, option: list[str]
) -> None:
    assert run(tmp_path, *option, str(script)).stdout == "uvloop [] __main__\n"


def test_python_m_nurseryio_lets_a_script_import_the_modules_beside_it(
    tmp_path: Path, script: Path
) -> None:
    (script.parent / "beside.py").write_text("NAME = 'beside'", encoding="utf-8")
    script.write_text("import beside; print(beside.NAME)", encoding="utf-8")
    assert run(tmp_path, "scripts/program.py").stdout == "beside\n"


def test_python_m_nurseryio_runs_a_module_as_python_m_does(tmp_path: Path) -> None:
    (tmp_path / "module_for_trio.py").write_text(PROGRAM, encoding="utf-8")
    assert run(tmp_path, "-m", "module_for_trio", "-x").stdout == "asyncio ['-x'] __main__\n"


def test_python_m_nurseryio_runs_a_program_that_is_passed_as_text(tmp_path: Path) -> None:
    assert run(tmp_path, "-c", PROGRAM, "-m").stdout == "asyncio ['-m'] __main__\n"


def test_python_m_nurseryio_runs_the_main_module_of_a_package(tmp_path: Path) -> None:
    package = tmp_path / "package_for_trio"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    (package / "__main__.py").write_text(PROGRAM, encoding="utf-8")
    assert run(tmp_path, "-m", "package_for_trio").stdout == "asyncio [] __main__\n"


def test_python_m_nurseryio_exits_with_the_code_of_the_program(
    tmp_path: Path, script: Path
) -> None:
    script.write_text(
        "import sys, trio\n"
        "async def fails():\n    sys.exit(7)\n"
        "async def main():\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        nursery.start_soon(fails)\n"
        "trio.run(main)\n",
        encoding="utf-8",
    )
    assert run(tmp_path, str(script), code=7).stderr == ""


def test_ctrl_c_ends_a_program_of_python_m_nurseryio_as_python_would(
    tmp_path: Path, script: Path
) -> None:
    script.write_text(
        "import os, signal, trio\n"
        "async def main():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    await trio.sleep(10)\n"
        "trio.run(main)\n",
        encoding="utf-8",
    )
    done = run(tmp_path, str(script), code=-signal.SIGINT)
    lines = done.stderr.splitlines()
    assert "KeyboardInterrupt" in lines
    # Python 3.11 and later show the notes of an error.
    notes = lines[lines.index("KeyboardInterrupt") + 1 :]
    assert notes == [] or "there were tasks" in notes[0]


def test_python_m_nurseryio_help(tmp_path: Path) -> None:
    assert run(tmp_path, "--help").stdout == cli.USAGE
    assert run(tmp_path, "-h").stdout == cli.USAGE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trace"], "name the program to trace: a script, or a module after -m"),
        (["-i", "x.py"], "-i opens the console, and takes no program"),
        (["--loop"], "--loop needs a value"),
        (["-m"], "-m needs a value"),
        (["-c"], "-c needs a value"),
        (["--loop", "trio", "x.py"], "--loop must be one of asyncio, uvloop, not 'trio'"),
        (["--fast"], "there is no option --fast"),
        (["-m=x"], "there is no option -m"),
    ],
)
def test_python_m_nurseryio_refuses_a_wrong_command_line_with_the_reason(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    done = run(tmp_path, *arguments, code=2)
    assert done.stderr.endswith(f"error: {message}\n")
    assert done.stderr.startswith("usage:")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (
            ["no-such-script.py"],
            2,
            "python -m nurseryio: error: there is no file 'no-such-script.py'",
        ),
        (["-m", "nosuch"], 1, f"{sys.executable}: No module named nosuch"),
        (["-m", "json.nosuch"], 1, f"{sys.executable}: No module named json.nosuch"),
    ],
)
def test_python_m_nurseryio_reports_a_program_that_is_not_there_in_one_line(
    arguments: list[str], code: int, line: str, tmp_path: Path
) -> None:
    assert run(tmp_path, *arguments, code=code).stderr == f"{line}\n"


def test_python_m_nurseryio_version_shows_the_version(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"nurseryio {nurseryio.__version__}\n"


def test_python_m_nurseryio_without_uvloop_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(SystemExit) as caught:
        cli.main(["--loop", "uvloop", __file__])
    assert caught.value.code == 2
    assert "pip install 'nurseryio[uvloop]'" in capsys.readouterr().err


def test_python_m_nurseryio_runs_pytest_with_warnings_as_errors(tmp_path: Path) -> None:
    # Files as an installed nurseryio has them. pytest rewrites the modules of installed plugins.
    installed = tmp_path / "installed"
    for file, text in {
        "plugin_for_pytest.py": "",
        "nurseryio/__init__.py": "",
        "nurseryio_plugin-1.dist-info/METADATA": "Name: nurseryio-plugin\nVersion: 1\n",
        "nurseryio_plugin-1.dist-info/entry_points.txt": "[pytest11]\nplugin=plugin_for_pytest\n",
        "nurseryio_plugin-1.dist-info/RECORD": "nurseryio/__init__.py,,\n",
    }.items():
        path = installed / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    (tmp_path / "test_it.py").write_text(
        "import nurseryio, trio\ndef test_names():\n    assert trio.Event is nurseryio.Event\n",
        encoding="utf-8",
    )
    # Plugins that may be installed, and warn.
    others = ("asyncio", "looptime_chronometers", "looptime_plugin", "looptime_timeproxies")
    blocked = [argument for name in ("cacheprovider", *others) for argument in ("-p", f"no:{name}")]
    done = run(tmp_path, "-m", "pytest", *blocked, PYTHONPATH=str(installed))
    assert "1 passed" in done.stdout
