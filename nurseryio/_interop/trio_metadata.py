"""The metadata of the distribution "trio" while ``import trio`` gives nurseryio.

``importlib.metadata.version("trio")`` has to agree with ``trio.__version__``, because packages
choose their Trio support by either. The import hook in ``as_trio`` returns the distribution.

Rule 1: a query by name gets the stand-in, also if the real Trio is installed. The module that
``import trio`` gives has that version and those names.

Rule 2: a listing of all distributions has Trio once. It has the real Trio if that is installed,
because a listing describes the disk. Otherwise it has the stand-in.

Rule 3: a query with another path is about other folders, so the stand-in is not in its answer.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.metadata import Distribution, DistributionFinder
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

PROJECT = "trio"


class StandInDistribution(Distribution):
    """The distribution "trio", of the version that the stand-in follows. It has no files."""

    def __init__(self, version: str, library: str) -> None:
        self._texts = {
            "METADATA": (
                "Metadata-Version: 2.1\n"
                f"Name: {PROJECT}\n"
                f"Version: {version}\n"
                f"Summary: {library} stands in for Trio in this process\n"
                f"Requires-Dist: {library}\n"
            ),
            "INSTALLER": f"{library}\n",
            "top_level.txt": f"{PROJECT}\n",
        }

    def read_text(self, filename: str | os.PathLike[str]) -> str | None:
        """Return a metadata file; None if there is no such file."""
        return self._texts.get(str(filename))

    def locate_file(self, path: str | os.PathLike[str]) -> NoReturn:
        """Raise FileNotFoundError, because the stand-in is not on the disk."""
        raise FileNotFoundError(f"{path}: the distribution {PROJECT!r} exists in this process only")


def find_stand_in(
    context: DistributionFinder.Context, version: str, library: str
) -> Iterator[Distribution]:
    """Return the stand-in's distribution if a query is about it, as ``find_distributions`` does."""
    if "path" in vars(context):
        return
    if context.name is None:
        if _is_installed():
            return
    elif context.name.lower() != PROJECT:
        return
    yield StandInDistribution(version, library)


def _is_installed() -> bool:
    """Whether the real Trio is installed."""
    context = DistributionFinder.Context(name=PROJECT)
    return any(True for _ in PathFinder.find_distributions(context))
