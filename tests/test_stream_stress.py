"""Random programs on streams of every kind: each byte arrives, and each call ends as documented.

A bounded part of what ``python -m harness.stream_stress`` runs. ``NURSERYIO_STREAM_PROGRAMS`` sets
how many programs each kind runs on each cell of the loop matrix, ``NURSERYIO_SEED`` the first seed.
"""

from __future__ import annotations

import os
import zlib

import pytest
from harness.matrix import Case
from harness.stream_kinds import KINDS
from harness.stream_stress import LAST, Piece, Program, find_difference

PROGRAMS = int(os.environ.get("NURSERYIO_STREAM_PROGRAMS", "8"))
SEED = os.environ.get("NURSERYIO_SEED")

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="uses pipes and socket pairs")


@pytest.mark.limit(max(60.0, PROGRAMS))
@pytest.mark.parametrize("kind", KINDS)
async def test_stream_stress_random_programs_lose_no_byte_and_end(
    loop_case: Case, kind: str
) -> None:
    # Each cell tries other programs.
    first = zlib.crc32(str(loop_case).encode()) if SEED is None else int(SEED)
    for seed in range(first, first + PROGRAMS):
        await Program(KINDS[kind], seed).run()


# -- the model itself -------------------------------------------------------------


def pieces(*sent: bool) -> list[Piece]:
    """Pieces of four bytes each, and whether their sends have returned."""
    return [Piece(bytes([number]) + b"abc", done) for number, done in enumerate(sent)]


@pytest.mark.parametrize(
    ("sent", "received", "whole", "exact"),
    [
        ((True, True), b"\0abc\1abc", True, True),
        ((True, True), b"\0abc\1a", False, False),
        ((True, False, True), b"\0abc\1a\2abc", True, False),
        ((True, False, True), b"\0abc\2abc", True, False),
        ((True, False), b"\0abc", True, True),
        ((), b"", True, True),
    ],
)
def test_the_stream_stress_model_accepts(
    sent: tuple[bool, ...], received: bytes, whole: bool, exact: bool
) -> None:
    assert find_difference(pieces(*sent), received, whole, exact) is None


@pytest.mark.parametrize(
    ("sent", "received", "whole", "exact", "why"),
    [
        ((True, True), b"\0abc\1ab", True, False, "missing"),
        ((True, True), b"\0abc", True, False, "missing"),
        ((True, True), b"\0abc\1ab", False, True, "an end in order"),
        ((True, True), b"\0ab\1abc", False, False, "not what was sent"),
        ((True, True), b"\1abc", False, False, "not what was sent"),
        ((True, False), b"\0abc\1abx", False, False, "too many"),
        ((True,), b"\0abc\0abc", False, False, "too many"),
        ((True, True), b"\0bac\1abc", False, False, "not what was sent"),
    ],
)
def test_the_stream_stress_model_refuses(
    sent: tuple[bool, ...], received: bytes, whole: bool, exact: bool, why: str
) -> None:
    assert why in str(find_difference(pieces(*sent), received, whole, exact))


def test_stream_stress_numbers_of_pieces_are_below_all_other_bytes() -> None:
    program = Program(KINDS["memory"], 1)
    for number in range(LAST):
        data = program.piece(number).data
        assert data[0] == number and min(data[1:], default=255) > LAST
