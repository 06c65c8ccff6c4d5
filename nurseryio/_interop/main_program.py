"""Run a file, a module or a text as the module ``__main__``, as Python's own command line does.

``runpy`` is not used: its frames would be in each traceback, and it takes the module ``__main__``
away at the program's end, when ``atexit`` functions and threads still need it. The arguments of the
command line are in ``cli``.

Rule 1: the program gets the ``sys.argv``, ``sys.path[0]`` and ``__main__`` that Python gives it.

Rule 2: an error that ends the program leaves this module as it is. So Python itself finds the exit
status, prints the exit message and ends the process by SIGINT after Ctrl-C. Only the traceback is
cut to the program's frames, when Python asks ``sys.excepthook`` to show it.
"""

from __future__ import annotations

import builtins
import importlib.machinery
import importlib.util
import io
import linecache
import os
import pkgutil
import sys
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from .._base.exc_fields import is_a, set_traceback, traceback_of

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import TracebackType

NAME = "__main__"
TEXT = "<string>"


def run_file(file: str, arguments: list[str]) -> None:
    """Run a script, or a folder or zip file with a module ``__main__``.

    Args:
        file: the path, as it is in the command line.
        arguments: the program's own arguments.
    """
    try:
        sys.argv[:] = [file, *arguments]
        path = _absolute(file)
        importer = pkgutil.get_importer(path)
        if importer is None:
            _set_first_path(os.path.dirname(os.path.realpath(file)))
            code, loader = _load(path)
            exec(code, _make_main({"__file__": path, "__loader__": loader}, cached=None))
        else:
            _set_first_path(path)
            spec = importer.find_spec(NAME)
            if spec is None:
                _stop(f"can't find {NAME!r} module in {path!r}")
            _run_spec(spec)
    except BaseException as exc:
        _hide_frames_before_the_program(exc)
        raise


def run_module(name: str, arguments: list[str]) -> None:
    """Run a module, or the module ``__main__`` of a package, as ``python -m`` does.

    Args:
        name: the module's full name.
        arguments: the program's own arguments.
    """
    try:
        sys.argv[:] = ["-m", *arguments]
        spec = _find_spec(name)
        sys.argv[0] = spec.origin or name
        _run_spec(spec)
    except BaseException as exc:
        _hide_frames_before_the_program(exc)
        raise


def run_text(text: str, arguments: list[str]) -> None:
    """Run a text, as ``python -c`` does.

    Args:
        text: the program.
        arguments: the program's own arguments.
    """
    try:
        sys.argv[:] = ["-c", *arguments]
        _set_first_path("")
        if sys.version_info >= (3, 13):
            # From this version on, tracebacks show the lines of such a program.
            lines = text.splitlines(keepends=True)
            linecache.cache[TEXT] = (len(text), None, lines, TEXT)
        code = compile(text, TEXT, "exec", dont_inherit=True)
        exec(code, _make_main({"__loader__": importlib.machinery.BuiltinImporter}))
    except BaseException as exc:
        _hide_frames_before_the_program(exc)
        raise


# -- finding the program --------------------------------------------------------


def _absolute(file: str) -> str:
    """The path from the root, not normalized, as Python shows it in tracebacks."""
    try:
        return os.path.join(os.getcwd(), file)
    except OSError:
        return file  # the current folder does not exist any more


def _load(path: str) -> tuple[CodeType, Any]:
    """The code of a script, and the loader that ``inspect`` may ask for its source."""
    if path.endswith(".pyc"):
        compiled = importlib.machinery.SourcelessFileLoader(NAME, path)
        code = compiled.get_code(NAME)
        assert code is not None
        return code, compiled
    with io.open_code(path) as stream:
        code = compile(stream.read(), path, "exec", dont_inherit=True)
    return code, importlib.machinery.SourceFileLoader(NAME, path)


def _find_spec(name: str) -> ModuleSpec:
    """The spec of the module that ``python -m name`` runs. Without one, end the program."""
    try:
        spec = importlib.util.find_spec(name)
        package = spec
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.{NAME}")
    except (ImportError, AttributeError, TypeError, ValueError) as exc:
        if _is_of_the_program(exc):
            raise
        _stop(
            f"Error while finding module specification for {name!r} ({type(exc).__name__}: {exc})"
        )
    if spec is not None:
        return spec
    if package is not None:
        _stop(
            f"No module named {name}.{NAME}; {name!r} is a package and cannot be directly executed"
        )
    _stop(f"No module named {name}")


def _is_of_the_program(exc: BaseException) -> bool:
    """Whether an error was raised by a package while it was imported, not by the import system."""
    traceback = traceback_of(exc)
    while traceback is not None:
        if "importlib" not in traceback.tb_frame.f_code.co_filename and (
            traceback.tb_frame.f_globals is not globals()
        ):
            return True
        traceback = traceback.tb_next
    return False


def _stop(message: str) -> NoReturn:
    """End the program with a message and status 1, as Python does."""
    raise SystemExit(f"{sys.executable}: {message}")


# -- running it -----------------------------------------------------------------


def _set_first_path(folder: str) -> None:
    """Replace the current folder, which ``python -m`` puts first, if it has put it there."""
    if not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
        sys.path[0] = folder


def _run_spec(spec: ModuleSpec) -> None:
    loader: Any = spec.loader
    code = None if loader is None else loader.get_code(spec.name)
    if code is None:
        _stop(f"No code object available for {spec.name}")
    fields = {
        "__file__": spec.origin,
        "__loader__": loader,
        "__package__": spec.parent,
        "__spec__": spec,
    }
    exec(code, _make_main(fields, cached=spec.cached))


def _make_main(fields: dict[str, Any], **more: str | None) -> dict[str, Any]:
    """Make a new module ``__main__``. Returns its namespace.

    Args:
        fields: the fields that Python sets for such a program.
        more: ``cached``, if Python before 3.15 sets ``__cached__``.
    """
    module = ModuleType(NAME)
    vars(module).update({"__builtins__": builtins, **fields})
    if sys.version_info < (3, 15) and "cached" in more:
        vars(module)["__cached__"] = more["cached"]
    if sys.version_info < (3, 14):
        vars(module)["__annotations__"] = {}
    sys.modules[NAME] = module
    return vars(module)


def _hide_frames_before_the_program(exc: BaseException) -> None:
    """Have Python show the error that ends the program without the frames that started it.

    Python does not show a SystemExit. The hook would keep its frames, and so the program's objects,
    until after the ``atexit`` functions.
    """
    hook = getattr(sys, "excepthook", None)
    if is_a(exc, SystemExit) or not callable(hook):
        return
    traceback = traceback_of(exc)
    while traceback is not None and traceback.tb_frame.f_globals is globals():
        traceback = traceback.tb_next

    def show(
        kind: type[BaseException], error: BaseException, shown: TracebackType | None
    ) -> object:
        sys.excepthook = hook
        if error is exc:
            set_traceback(error, traceback)
            sys.last_traceback = shown = traceback
        return hook(kind, error, shown)

    sys.excepthook = show
