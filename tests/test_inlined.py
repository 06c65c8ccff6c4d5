"""Code that is inlined for speed is still the code that it was copied from."""

from __future__ import annotations

import ast

import pytest
from harness import inlined, source
from harness.inlined import ORDINARY, Mark

# Of copies that are simplified: the function, and fingerprints of it and of the copy. After a
# change of one side look at the other, and then enter what the test shows.
FINGERPRINTS: dict[str, tuple[str, str]] = {
    "_core.cancel_ledger.native_requests": ("9bcb57ad", "c86124e8"),
    "_nursery.nursery.Nursery._spawn": ("cb8a15aa", "005844a6"),
    "_nursery.scope.CancelScope.__exit__": ("0af93f0e", "1f6cc857"),
    "_nursery.timeouts._sleep": ("f0c0592b", "6b7d6f14"),
}


def test_every_inlined_mark_can_be_read() -> None:
    assert len(inlined.marks()) == inlined.count_of_comments() > 20


@pytest.mark.parametrize("mark", inlined.marks(), ids=str)
def test_an_inlined_copy_has_not_drifted_from_its_source(mark: Mark) -> None:
    if mark.option == ORDINARY:
        assert FINGERPRINTS.get(mark.function) == inlined.fingerprint(mark)
    else:
        assert inlined.difference(mark) is None


def test_no_fingerprint_of_inlined_code_is_left_over() -> None:
    assert FINGERPRINTS.keys() == {m.function for m in inlined.marks() if m.option == ORDINARY}


SOURCE = '''
def add(self, when, function):
    """Add."""
    self.number = number = self.number + 1
    try:
        push(self.heap, [when, number, function])
    except BaseException:
        self.number -= 1
        raise
    if when < self.armed:
        self.arm(when)
    return number


def is_open(self):
    return self.state is OPEN and not is_full(self)


def is_full(self):
    return len(self.heap) > 10
'''


def compare(
    monkeypatch: pytest.MonkeyPatch, copy: str, function: str = "add", rest: str = ""
) -> str | None:
    """The difference that is found between a copy, in a function, and the source above."""
    return compare_marked(monkeypatch, f"# inlined: _a.b.{function}{rest}\n{copy}")


def compare_marked(monkeypatch: pytest.MonkeyPatch, marked: str) -> str | None:
    """The same for code that has its mark already."""
    lines = "".join(f"    {line}\n" for line in marked.splitlines())
    text = f"{SOURCE}\n\ndef place(loop, due):\n{lines}"
    module = source.Module("_a.b", source.PACKAGE / "b.py")
    monkeypatch.setitem(module.__dict__, "text", text)
    monkeypatch.setitem(module.__dict__, "tree", ast.parse(text))
    monkeypatch.setattr(source, "modules", lambda: {"_a.b": module})
    (mark,) = inlined.marks()
    return inlined.difference(mark)


COPY = """\
loop.number = entry.number = n = loop.number + 1
try:
    push(loop.heap, [due + 1, n, None])
except BaseException:
    loop.number -= 1
    raise
if due + 1 < loop.armed:
    loop.arm(due + 1)
"""
UNGUARDED = COPY.replace("try:\n    ", "").replace(
    "except BaseException:\n    loop.number -= 1\n    raise\n", ""
)


def test_an_inlined_copy_may_have_other_names_and_further_targets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compare(monkeypatch, COPY) is None


@pytest.mark.parametrize(
    "old, new",
    [
        ("n, None", "n + 1, None"),  # another expression
        ("if due + 1 <", "if due <"),  # a name that means two things
        ("loop.arm(", "loop.fire("),
        ("loop.number -= 1", "pass"),
        ("BaseException", "Exception"),
        ("if due + 1 < loop.armed:\n    loop.arm(due + 1)\n", ""),
    ],
)
def test_an_inlined_copy_that_has_drifted_is_found(
    monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    assert old in COPY
    assert compare(monkeypatch, COPY.replace(old, new)) is not None


def test_an_inlined_copy_may_be_a_part_or_leave_out_its_guard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert compare(monkeypatch, COPY[: COPY.index("if ")], rest="[:2]") is None
    assert compare(monkeypatch, UNGUARDED, rest=", unguarded") is None
    assert compare(monkeypatch, UNGUARDED) is not None
    assert compare(monkeypatch, COPY, rest=", nearly") is not None


@pytest.mark.parametrize("full", ["is_full(loop)", "len(loop.heap) > 10"])
def test_a_condition_may_be_inlined_with_the_function_that_it_calls(
    monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    copy = f"if loop.state is OPEN and not {full}:\n    pass"
    assert compare(monkeypatch, copy, "is_open") is None
    assert compare(monkeypatch, copy.replace("not ", ""), "is_open") is not None


@pytest.mark.parametrize("operator", ["or not", "or", "and"])
def test_an_operand_of_a_condition_may_be_inlined(
    monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    copy = f"""\
if (
    due
    # inlined: _a.b.is_open
    {operator} (loop.state is OPEN and not is_full(loop))
):
    pass
"""
    assert compare_marked(monkeypatch, copy) is None
    assert compare_marked(monkeypatch, copy.replace("OPEN", "CLOSED")) is not None


def test_an_inlined_mark_of_a_missing_function_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for function in ("remove", "add.inner"):
        with pytest.raises(LookupError):
            compare(monkeypatch, COPY, function)
