"""Programs of the documentation in a web page: which of them run there, and the files they need.

This module has the table of names that a page lacks, the search for the npm package of Pyodide, and
the archive of Python packages. Sphinx is not needed for it: ``run_in_page.py`` connects it to the
documentation, and the tests of nurseryio in Pyodide use the same archive.

Rule: everything comes from this machine. Nothing is downloaded, neither now nor by the pages.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import os
import shutil
import zipfile
import zlib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# The release of Pyodide that the pages run. The Makefile and CI install it from npm.
PYODIDE = "314.0.7"
# The variable that names the folder of the npm package, and the folder if it is not set.
VARIABLE = "NURSERYIO_PYODIDE"
USUAL = ROOT / "node_modules" / "pyodide"
# The files that a page loads. The lock file lists Pyodide's own packages, which are not used.
FILES = (
    "pyodide.mjs",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
    "README.md",
)

# The packages that nurseryio needs there. Not all are needed on each Python.
REQUIREMENTS = ("anyio", "idna", "exceptiongroup", "typing_extensions", "sniffio")

# Names that a program in a page cannot use, by the part that a page lacks. `docs/browser.md` has
# the reasons. A program with one of them as a name, attribute, argument or module has no button.
LACKING = {
    "worker processes": "to_process to_interpreter multiprocessing",
    "threads": "to_thread from_thread start_thread_soon threading concurrent run_in_executor "
    "open_portal shared_portal",
    "files in threads": "open_file wrap_file Path pathlib tempfile TemporaryFile "
    "NamedTemporaryFile TemporaryDirectory open_stdin open_stdout open_stderr sendfile",
    "files that a reader could open": "TraceFile write_timeline",
    "processes": "run_process open_process subprocess multiprocessing fork "
    "create_subprocess_exec create_subprocess_shell",
    "signals": "open_signal_receiver stop_on_signals signal raise_signal add_signal_handler SIGINT",
    "observers": "Watchdog serve_monitor dump_on_signal Monitor",
    "sockets": "socket socketpair fromfd from_stdlib_socket getaddrinfo getnameinfo "
    "getprotobyname open_tcp_stream open_tcp_listeners serve_tcp open_unix_socket "
    "open_unix_listeners serve_unix open_ssl_over_tcp_stream open_ssl_over_tcp_listeners "
    "serve_ssl_over_tcp open_connection start_server create_server create_connection "
    "create_datagram_endpoint open_stream_to_socket_listener SocketStream SocketListener "
    "DTLSEndpoint",
    "TLS": "ssl SSLStream SSLListener trustme OpenSSL",
    "descriptors": "wait_readable wait_writable FdStream pipe",
    "a loop of the program's own": "loop_factory clock MockClock Runner new_event_loop uvloop "
    "strict_exception_groups restrict_keyboard_interrupt_to_checkpoints start_guest_run "
    "run_until_complete get_event_loop set_task_factory eager_task_factory RunVar anyio.run "
    "nurseryio_test trio_test",
    "packages": "pytest unittest httpx trio uvicorn fastapi aiohttp hypercorn opentelemetry "
    "anyio_pytest redis asyncpg psycopg",
}
NAMES = {name: part for part, names in LACKING.items() for name in names.split()}


def lacking(text: str) -> str:
    """The part that a program needs and a page lacks; empty if it can run in a page.

    Raises:
        SyntaxError: this Python is too old for the program.
    """
    tree = compile(
        text,
        "<program>",
        "exec",
        flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    assert isinstance(tree, ast.Module)
    for node in ast.walk(tree):
        for name in _names(node):
            if name in NAMES:
                return NAMES[name]
    if all(isinstance(node, (*DEFINING, ast.Assign)) or _is_text(node) for node in tree.body):
        return "anything to run"
    return ""


DEFINING = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        inside = node.value
        dotted = [f"{inside.id}.{node.attr}"] if isinstance(inside, ast.Name) else []
        return [node.attr, *dotted]
    if isinstance(node, ast.keyword):
        return [node.arg or ""]
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "").partition(".")[0], *(alias.name for alias in node.names)]
    return []


# -- files -----------------------------------------------------------------------


def folder() -> Path:
    """The folder of the npm package, which may not be there."""
    return Path(os.environ.get(VARIABLE) or USUAL)


def why_not() -> str:
    """The reason why the pages cannot have Pyodide; empty if they can."""
    described = folder() / "package.json"
    if not described.is_file():
        return f"needs the npm package pyodide@{PYODIDE}, in node_modules or {VARIABLE}"
    version = json.loads(described.read_text(encoding="utf-8"))["version"]
    if version != PYODIDE:
        return f"needs pyodide@{PYODIDE}, and {folder()} has {version}"
    return ""


def pack(archive: Path | io.BytesIO) -> None:
    """Write the library and its requirements into a zip file, the same bytes each time."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        _add(packed, ROOT / "nurseryio")
        for name in REQUIREMENTS:
            found = importlib.util.find_spec(name)
            if found is not None and found.origin is not None:
                origin = Path(found.origin)
                _add(packed, origin.parent if origin.name == "__init__.py" else origin)
        version = metadata.version("nurseryio")
        described = f"Metadata-Version: 2.1\nName: nurseryio\nVersion: {version}\n"
        _write(packed, f"nurseryio-{version}.dist-info/METADATA", described)


def _add(packed: zipfile.ZipFile, path: Path, below: str = "") -> None:
    """Add a module, or a package with its data."""
    inside = [file for file in path.rglob("*.*") if file.suffix in (".py", ".html", ".typed")]
    for file in [path] if path.is_file() else sorted(inside):
        name = below + file.relative_to(path.parent).as_posix()
        _write(packed, name, file.read_text(encoding="utf-8"))


def _write(packed: zipfile.ZipFile, name: str, text: str) -> None:
    packed.writestr(zipfile.ZipInfo(name), text, zipfile.ZIP_DEFLATED)


def write_bundle(target: Path) -> None:
    """Put Pyodide, the packages, and ``bundle.json``, which names them, into a folder of the site.

    The names change with the contents, so a browser may keep the files for ever.
    """
    pyodide = target / f"pyodide-{PYODIDE}"
    pyodide.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if not (pyodide / name).is_file():
            shutil.copyfile(folder() / name, pyodide / name)
    buffer = io.BytesIO()
    pack(buffer)
    with zipfile.ZipFile(buffer, "a") as packed:
        for file in sorted((ROOT / "examples" / "tutorial").glob("*.py")):
            _add(packed, file, "examples/")
    data = buffer.getvalue()
    for old in target.glob("packages-*.zip"):
        old.unlink()
    packages = target / f"packages-{hashlib.sha256(data).hexdigest()[:12]}.zip"
    packages.write_bytes(data)
    bundle = {
        "pyodide": f"{pyodide.name}/",
        "packages": packages.name,
        "megabytes": round((_transferred(pyodide) + len(data)) / 1e6, 1),
    }
    (target / "bundle.json").write_text(json.dumps(bundle), encoding="utf-8")


def _transferred(pyodide: Path) -> int:
    """The bytes that a server sends which compresses, as nearly all do."""
    kept = pyodide / "transferred"
    if not kept.is_file():
        sizes = (len(zlib.compress((pyodide / name).read_bytes())) for name in FILES[:-1])
        kept.write_text(str(sum(sizes)), encoding="utf-8")
    return int(kept.read_text(encoding="utf-8"))
