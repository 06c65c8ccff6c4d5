"""Each error that users meet has an entry on the page of questions, and each entry a real error."""

from __future__ import annotations

import re

import pytest
from harness import error_texts, source
from harness.error_texts import GAP, ErrorText

PAGE = (source.ROOT / "docs/faq.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^<!-- errors -->\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ENTRIES = [line for block in BLOCKS for line in block.splitlines()]

# Texts without an entry: the beginning of a module's name, a part of the text, and the reason.
EXCEPTIONS: tuple[tuple[str, str, str], ...] = (
    ("_checks", "", "the checks report what is wrong with the code under test"),
    ("_base.util", "never called", "after a call that always raises"),
    ("_nursery.nursery", "never called", "after a call that always raises"),
    ("_telemetry.trace_file", "nothing was written", "the instrument logs it and goes on"),
    ("_telemetry.monitor", "a request is", "the answer to a client that is none of ours"),
    ("_interop.commands", "is not a file", "a reason in the last lines of the command trace"),
    ("_net.serve", "a server ends by", "a list without listeners, as in Trio"),
)

# Entries whose text no call of an exception class has.
MADE_ELSEWHERE = {
    "cancelled due to …": "the text of a CancelReason",
    "… ran out of time…": "the text of a TooSlowError, made when it is read",
}


def pattern(entry: str) -> re.Pattern[str]:
    """What matches the texts that an entry is for."""
    return re.compile(".*".join(re.escape(part) for part in entry.split(GAP)))


def has_exception(error: ErrorText) -> bool:
    return any(error.module.startswith(m) and part in error.text for m, part, _ in EXCEPTIONS)


def test_each_error_that_users_meet_has_an_entry() -> None:
    patterns = [pattern(entry) for entry in ENTRIES]
    missing = [
        str(error)
        for error in error_texts.collected()
        if not has_exception(error) and not any(p.fullmatch(error.text) for p in patterns)
    ]
    assert not missing, "add to docs/faq.md:\n" + "\n".join(missing)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_is_for_an_error_of_the_library(entry: str) -> None:
    if entry in MADE_ELSEWHERE:
        made = entry.replace(GAP, "").strip()
        assert any(made in module.text for module in source.modules().values())
    else:
        assert any(pattern(entry).fullmatch(error.text) for error in error_texts.collected())


def test_no_entry_is_so_wide_that_it_matches_everything() -> None:
    assert not [entry for entry in ENTRIES if len(re.findall(r"\w", entry)) < 5]


def test_an_exception_is_still_needed() -> None:
    found = error_texts.collected()
    for module, part, reason in EXCEPTIONS:
        assert reason
        assert any(e.module.startswith(module) and part in e.text for e in found), part


def test_the_texts_of_errors_are_found_in_constants_conditions_and_calls() -> None:
    texts = {error.text for error in error_texts.collected()}
    assert "enter the nursery first: 'async with open_nursery() as nursery:'" in texts
    assert "Each CancelScope may only be used for a single 'with' block" in texts
    assert f"attempted to exit {GAP} which had already been exited" in texts


def test_each_section_with_errors_says_what_to_do() -> None:
    sections = re.split(r"^##+ ", PAGE, flags=re.MULTILINE)[1:]
    with_errors = [section for section in sections if "<!-- errors -->" in section]
    assert len(with_errors) == len(BLOCKS)
    for section in with_errors:
        text = re.sub(r"<!-- errors -->|```.*?```", "", section, flags=re.DOTALL)
        assert len(text.partition("\n")[2].split()) >= 8, section.partition("\n")[0]
