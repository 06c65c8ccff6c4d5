"""importlib.metadata's answers about the distribution "trio" while nurseryio stands in for it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, DistributionFinder
from pathlib import Path

import pytest

from nurseryio._interop.trio_metadata import StandInDistribution, find_stand_in

# A real Trio that may be installed is not found.
START = """
import sys
import importlib.metadata as metadata
import nurseryio.testing
import nurseryio._interop.as_trio as as_trio
sys.path[:] = [path for path in sys.path if "site-packages" not in path] + sys.argv[1:]
def listed():
    return [(found.metadata["Name"], found.version) for found in metadata.distributions()]
"""

Says = Callable[..., list[str]]


@pytest.fixture
def says() -> Says:
    """The lines that a program prints, in a process with these folders on its path."""

    def run(text: str, *folders: Path) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", START + text, *map(str, folders)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


@pytest.fixture
def real_trio(tmp_path: Path) -> Path:
    """A folder in which a Trio is installed."""
    info = tmp_path / "real" / "trio-0.30.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trio\nVersion: 0.30.0\n")
    (info / "top_level.txt").write_text("trio\n")
    return info.parent


def test_importlib_metadata_has_the_version_of_the_trio_stand_in(says: Says) -> None:
    text = """
stand_in = as_trio.provide_trio()
print(metadata.version("trio") == metadata.version("Trio") == stand_in.__version__)
print(metadata.metadata("trio")["Name"], metadata.requires("trio"), metadata.files("trio"))
print(metadata.packages_distributions()["trio"])
print(listed().count(("trio", stand_in.__version__)), metadata.distribution("trio").entry_points)
"""
    lines = says(text)
    assert lines[:3] == ["True", "trio ['nurseryio'] None", "['trio']"]
    assert lines[3].startswith("1 ")


def test_the_metadata_of_the_trio_stand_in_is_withdrawn_with_its_finder(says: Says) -> None:
    text = """
def version():
    try:
        return metadata.version("trio")
    except metadata.PackageNotFoundError:
        return "none"
before = version()
as_trio.provide_trio()
during = version()
sys.meta_path[:] = [found for found in sys.meta_path if not isinstance(found, as_trio.Finder)]
print(before, during, version())
"""
    assert says(text) == ["none 0.35.0 none"]


def test_a_query_by_name_gets_the_trio_stand_in_and_a_listing_the_installed_trio(
    says: Says, real_trio: Path
) -> None:
    text = """
print(metadata.version("trio"), [pair for pair in listed() if pair[0] == "trio"])
as_trio.provide_trio()
print(metadata.version("trio"), [pair for pair in listed() if pair[0] == "trio"])
print([found.version for found in metadata.distributions(name="trio", path=sys.argv[1:])])
print(metadata.packages_distributions()["trio"])
"""
    assert says(text, real_trio) == [
        "0.30.0 [('trio', '0.30.0')]",
        "0.35.0 [('trio', '0.30.0')]",
        "['0.30.0']",
        "['trio']",
    ]


def test_find_stand_in_answers_queries_about_trio_alone() -> None:
    def found(**query: object) -> list[Distribution]:
        return list(find_stand_in(DistributionFinder.Context(**query), "1.2", "library"))

    assert [one.version for one in found(name="TRIO")] == ["1.2"]
    assert found(name="anyio") == found(name="trio", path=["/"]) == found(path=["/"]) == []


def test_the_distribution_of_the_trio_stand_in_has_no_files() -> None:
    distribution = StandInDistribution("1.2", "library")
    assert distribution.read_text("RECORD") is None
    with pytest.raises(FileNotFoundError, match="exists in this process only"):
        distribution.locate_file("trio/__init__.py")
