"""The build hook: when it compiles the C module, and that a wheel is pure if that fails."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from harness import source

FILE = source.ROOT / "hatch_build.py"
if not FILE.exists():
    pytest.skip("needs the build hook of the checkout", allow_module_level=True)


class App:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_warning(self, message: str) -> None:
        self.warnings.append(message)


@pytest.fixture
def hook_module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a stand-in for hatchling, on a Python that the C file is for."""
    name = "hatchling.builders.hooks.plugin.interface"
    interface: Any = types.ModuleType(name)
    interface.BuildHookInterface = object
    for number in range(1, 6):
        part = ".".join(name.split(".")[:number])
        monkeypatch.setitem(
            sys.modules, part, interface if part == name else types.ModuleType(part)
        )
    for variable in ("NURSERYIO_PURE", "NURSERYIO_COMPILE"):
        monkeypatch.delenv(variable, raising=False)
    spec = importlib.util.spec_from_file_location("hatch_build", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    running(module)
    return module


def running(module: Any, version: tuple[int, ...] = (3, 13), **variables: object) -> None:
    """Have the hook believe that it runs on this Python."""
    module.sys = types.SimpleNamespace(
        version_info=version, implementation=types.SimpleNamespace(name="cpython")
    )
    module.sysconfig = types.SimpleNamespace(get_config_var=variables.get)


def hook(module: Any, root: Path) -> Any:
    made = module.CompileHook()
    made.root, made.app = str(root), App()
    return made


def new_build_data() -> dict[str, Any]:
    return {"pure_python": True, "infer_tag": False, "force_include": {}}


def test_a_wheel_is_compiled_and_an_editable_installation_only_if_asked(
    hook_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hook_module.why_not("standard") is None
    assert "editable" in hook_module.why_not("editable")
    monkeypatch.setenv("NURSERYIO_COMPILE", "1")
    assert hook_module.why_not("editable") is None


def test_other_pythons_and_the_pure_variable_make_a_pure_wheel(
    hook_module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(hook_module, Py_GIL_DISABLED=1)
    assert "free-threaded" in hook_module.why_not("standard")
    for version in ((3, 11, 0), (3, 16, 0)):
        running(hook_module, version)
        assert "3.12 to 3.15" in hook_module.why_not("standard")
    monkeypatch.setenv("NURSERYIO_PURE", "1")
    assert hook_module.why_not("standard") == "NURSERYIO_PURE is set"


def test_the_compiled_module_is_put_into_the_wheel(
    hook_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = tmp_path / "_speedups.so"
    monkeypatch.setattr(hook_module, "compile_into", lambda _folder, _root: made)
    data = new_build_data()
    builder = hook(hook_module, tmp_path)
    builder.initialize("standard", data)
    builder.finalize("standard", data, "")
    assert data == {
        "pure_python": False,
        "infer_tag": True,
        "force_include": {str(made): "nurseryio/_speedups.so"},
    }


def test_the_compiled_module_of_an_editable_installation_is_put_beside_the_package(
    hook_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = tmp_path / "_speedups.so"
    made.write_bytes(b"compiled")
    (tmp_path / "nurseryio").mkdir()
    monkeypatch.setenv("NURSERYIO_COMPILE", "1")
    monkeypatch.setattr(hook_module, "compile_into", lambda _folder, _root: made)
    data = new_build_data()
    builder = hook(hook_module, tmp_path)
    builder.initialize("editable", data)
    builder.finalize("editable", data, "")
    assert data == new_build_data()
    assert (tmp_path / "nurseryio" / "_speedups.so").read_bytes() == b"compiled"


@pytest.mark.parametrize("error", [OSError("no compiler"), SystemExit("error: gcc failed")])
def test_without_a_compiler_the_wheel_is_pure_and_the_builder_is_told(
    error: BaseException,
    hook_module: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    def fail(_folder: Path, _root: Path) -> Path:
        raise error

    monkeypatch.setattr(hook_module, "compile_into", fail)
    data, made = new_build_data(), hook(hook_module, tmp_path)
    made.initialize("standard", data)
    assert data == new_build_data()
    assert made.app.warnings == [f"nurseryio is built without its C module: {error}"]
    monkeypatch.setenv("NURSERYIO_COMPILE", "1")
    with pytest.raises(type(error)):
        made.initialize("standard", data)


def test_compiling_that_was_asked_for_and_is_not_possible_is_an_error(
    hook_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NURSERYIO_COMPILE", "1")
    running(hook_module, (3, 16))
    with pytest.raises(RuntimeError, match=r"cannot be compiled as asked: .* 3.12 to 3.15"):
        hook(hook_module, tmp_path).initialize("standard", new_build_data())
