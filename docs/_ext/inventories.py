"""Links to other projects' documentation, from lists that are kept here.

``sphinx.ext.intersphinx`` reads the inventory of a project, by default from the network. The build
of this documentation needs no network: the lists are files in ``inventories/``, one name a line,
and :func:`mapping` writes them in intersphinx's own form before the build.

To renew a list, give this file an inventory, which is ``objects.inv`` in a project's documentation:

    python docs/_ext/inventories.py python https://docs.python.org/3/objects.inv

Of Python's names, only those are kept that a reader of this documentation may meet.
"""

from __future__ import annotations

import re
import sys
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).with_name("inventories")

SITES = {
    "anyio": "https://anyio.readthedocs.io/en/stable/",
    "python": "https://docs.python.org/3/",
    "trio": "https://trio.readthedocs.io/en/stable/",
}

# The names to keep; all of a project that is not here. The second line is of builtin exceptions.
KEPT = {
    "python": re.compile(
        r"(asyncio|concurrent\.futures|contextlib|contextvars|pathlib|queue|signal|socket|ssl"
        r"|subprocess|threading|unittest)(\..*)?"
        r"|[A-Z]\w*(Error|Exception|ExceptionGroup|Exit|Interrupt|Warning|Iteration)"
        r"|(bool|bytes|bytearray|dict|float|frozenset|int|list|memoryview|object|open|set|str|tuple)"
        r"|collections\.abc\.\w+|typing\.\w+|types\.\w+|enum\.(Enum|IntEnum)|os\.(PathLike|fork)"
        r"|logging(\.(Logger|getLogger))?|functools\.partial|inspect\.\w+|faulthandler(\.\w+)?"
        r"|io(\..*)?|abc\.ABC|math\.inf|time\.(monotonic|sleep)|sys\.\w*(hook|limit)|weakref\.ref"
        r"|atexit\.register|pickle\.\w+Error|runpy\.\w+|multiprocessing|select\.\w+|selectors\.\w+|email\.message\.Message"
    ),
}

HEADER = "# Sphinx inventory version 2\n# Project: {}\n# Version: {}\n"
COMPRESSED = "# The remainder of this file is compressed using zlib.\n"


def mapping(folder: Path) -> dict[str, tuple[str, str]]:
    """Write the inventories into a folder; the value of ``intersphinx_mapping``."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for project, site in SITES.items():
        version, lines = read(project)
        target = folder / f"{project}.inv"
        content = packed(project, version, lines)
        # An inventory that is newer than the last build makes Sphinx read every page again.
        if not target.exists() or target.read_bytes() != content:
            target.write_bytes(content)
        found[project] = (site, str(target))
    return found


def read(project: str) -> tuple[str, list[str]]:
    """A list: the version of the project's documentation, and a line for each name."""
    first, *lines = (FOLDER / f"{project}.txt").read_text(encoding="utf-8").splitlines()
    return first, lines


def names(project: str) -> Iterator[tuple[str, str]]:
    """The names of a list, each with its role: ``("asyncio.gather", "function")``."""
    for line in read(project)[1]:
        name, role, _ = line.split(" ", 2)
        yield name, role.removeprefix("py:")


def packed(project: str, version: str, lines: list[str]) -> bytes:
    """An inventory in intersphinx's form."""
    body = zlib.compress(("\n".join(lines) + "\n").encode())
    return (HEADER.format(project, version) + COMPRESSED).encode() + body


def unpacked(content: bytes, project: str) -> tuple[str, list[str]]:
    """The version, and the lines to keep, of an inventory in intersphinx's form."""
    _form, _project, version, _compression, body = content.split(b"\n", 4)
    lines = zlib.decompress(body).decode().splitlines()
    kept = KEPT.get(project, re.compile(".*"))
    return version.decode().removeprefix("# Version: "), sorted(
        # Names with blanks are headings.
        line
        for line in lines
        if (name := re.match(r"(\S+) py:\w+ ", line)) and kept.fullmatch(name[1])
    )


def main(project: str, source: str) -> None:
    """Renew the list of a project from an address or a file."""
    if "://" in source:
        with urllib.request.urlopen(source) as answer:
            content = answer.read()
    else:
        content = Path(source).read_bytes()
    version, lines = unpacked(content, project)
    text = "\n".join([version, *lines]) + "\n"
    (FOLDER / f"{project}.txt").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
