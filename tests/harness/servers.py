"""Database servers for one test: PostgreSQL and Redis, on loopback, stopped after the test.

This module finds the programs, starts them on a free port with their files in a temporary
directory, and ends them. It skips tests that need a program or package which is not installed. The
tests use the servers.

Rule 1: nothing of the machine's own servers is touched, neither their files nor their ports.
Rule 2: a test that is skipped says what to install.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import net, programs

# Where Debian and its kin keep the programs of PostgreSQL that are not meant for every day.
POSTGRES_HOMES = "/usr/lib/postgresql/*/bin"


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def needs_packages(*names: str) -> pytest.MarkDecorator:
    """Marks tests that are skipped unless these modules can be imported."""
    missing = [name for name in names if not _is_installed(name)]
    reason = f"needs {', '.join(missing)}: python -m pip install '.[examples]'"
    return pytest.mark.skipif(bool(missing), reason=reason)


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """A Redis server without files; its URL."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("needs redis-server: apt-get install redis-server")
    port = net.free_port()
    with _directory() as directory:
        process = subprocess.Popen(
            [
                server,
                "--bind",
                "127.0.0.1",
                "--port",
                str(port),
                "--save",
                "",
                "--appendonly",
                "no",
            ],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        with process:
            try:
                programs.connect(port).close()
                yield f"redis://127.0.0.1:{port}"
            finally:
                process.terminate()


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL server with an empty database; its URL."""
    pg_ctl, initdb = _postgres_program("pg_ctl"), _postgres_program("initdb")
    if not (pg_ctl and initdb):
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    port = net.free_port()
    with _directory() as directory:
        as_user = _not_as_root(directory)
        options: dict[str, Any] = {
            **as_user,
            "cwd": directory,
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "timeout": programs.PATIENCE,
            "check": True,
        }
        data = directory / "data"
        subprocess.run(
            [initdb, "-D", data, "-A", "trust", "-U", "tests", "-E", "UTF8", "--no-sync"], **options
        )
        served = f"-h 127.0.0.1 -p {port} -k {directory} -c fsync=off"
        log = directory / "log"
        subprocess.run([pg_ctl, "-w", "-D", data, "-l", log, "-o", served, "start"], **options)
        try:
            yield f"postgresql://tests@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run([pg_ctl, "-w", "-D", data, "-m", "immediate", "stop"], **options)


def _postgres_program(name: str) -> str | None:
    """The path of a program of PostgreSQL: the one on PATH, or else Debian's newest."""
    homes = sorted(map(str, Path("/").glob(POSTGRES_HOMES.lstrip("/"))), reverse=True)
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(homes))


def _not_as_root(directory: Path) -> dict[str, Any]:
    """Arguments for Popen: PostgreSQL refuses to run as root, so its own user does it then."""
    if os.geteuid() != 0:
        return {}
    try:
        shutil.chown(directory, "postgres", "postgres")
    except LookupError:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
    return {"user": "postgres", "group": "postgres", "extra_groups": []}


@contextlib.contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nurseryio-") as name:
        yield Path(name)
