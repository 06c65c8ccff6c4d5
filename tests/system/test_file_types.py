"""The types for wrapped files name every attribute that a wrapper may have, once."""

from __future__ import annotations

import ast
import io
from collections import Counter
from typing import Any

import pytest
from harness import source

from nurseryio._system import file_types
from nurseryio._system.files import IN_THREAD, PASSED_THROUGH

PROTOCOLS = {
    name: thing
    for name, thing in vars(file_types).items()
    if isinstance(thing, type) and thing.__module__ == file_types.__name__
}


def names_in(protocol: type) -> set[str]:
    return {name for name in vars(protocol) if not name.startswith("_")}


def test_each_attribute_of_the_async_file_wrapper_is_in_one_protocol() -> None:
    counted = Counter(name for protocol in PROTOCOLS.values() for name in names_in(protocol))
    assert set(counted.values()) == {1}
    assert counted.keys() == PASSED_THROUGH | IN_THREAD | {"close", "detach"}


def test_the_async_file_wrapper_declares_each_attribute_for_the_files_that_have_it() -> None:
    tree = source.modules()["_system.files"].tree
    (wrapper,) = (
        n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "AsyncIOWrapper"
    )
    declared = {}
    for node in ast.walk(wrapper):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.args.posonlyargs:
            self = node.args.posonlyargs[0]
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self = node.args.args[0]
        else:
            continue
        if self.annotation is not None:
            wrapped = ast.unparse(self.annotation).partition("ft.")[2].rstrip("]").partition("[")[0]
            is_async = isinstance(node, ast.AsyncFunctionDef)
            declared[node.name] = (wrapped, is_async)
    for name in PASSED_THROUGH | IN_THREAD:
        protocol, is_async = declared[name]
        assert name in names_in(PROTOCOLS[protocol]), name
        assert is_async == (name in IN_THREAD), name


@pytest.mark.parametrize(
    ("protocol", "file"),
    [
        ("Base", io.RawIOBase),
        ("Text", io.TextIOWrapper),
        ("Buffered", io.BufferedReader),
        ("Peeks", io.BufferedReader),
        ("ReadsOnce", io.BytesIO),
        ("Raw", io.FileIO),
        ("InMemory", io.StringIO),
        ("InMemoryBinary", io.BytesIO),
    ],
)
def test_each_file_protocol_matches_the_io_modules_classes(protocol: str, file: Any) -> None:
    assert names_in(PROTOCOLS[protocol]) <= set(dir(file))
