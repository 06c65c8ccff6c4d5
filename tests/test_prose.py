"""The check of the language of docstrings and comments."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import prose

PLAIN = "The task waits for its children and wakes when the last of them has ended. " * 20


def check(tmp_path: Path, docstring: str, comment: str = "A comment.") -> int:
    (tmp_path / "module.py").write_text(f'"""{docstring}"""\n\nx = 1\n# {comment}\n')
    return prose.main(tmp_path)


def test_plain_language_passes_the_prose_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, PLAIN + "What is this? It is no longer here.") == 0
    assert "plain" in capsys.readouterr().out


@pytest.mark.parametrize(
    "habit",
    [
        "What a task holds is kept.",
        "Kept by whoever waits.",
        "A task of ours.",
        "A task is no scope.",
        "It tells the task.",
        "It strikes the task.",
    ],
)
@pytest.mark.parametrize("where", ["docstring", "comment"])
def test_a_prose_habit_over_its_budget_fails_and_is_shown_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], habit: str, where: str
) -> None:
    if where == "docstring":
        assert check(tmp_path, PLAIN + habit) == 1
    else:
        assert check(tmp_path, PLAIN, habit) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert f"module.py:{1 if where == 'docstring' else 4}: " in lines[1]


def test_a_prose_habit_within_its_budget_passes(tmp_path: Path) -> None:
    assert check(tmp_path, PLAIN * 10 + "What a task holds is kept.") == 0
