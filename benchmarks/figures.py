"""From rounds to ratios: the only place where measured numbers are condensed.

Rounds of the libraries are interleaved, so the i-th sample of one library was taken next to the
i-th of another. A ratio is the median of the quotients of such neighbours: what disturbs the
machine for a while disturbs both.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def paired_ratio(samples: Sequence[float], base: Sequence[float]) -> float:
    """Return the median of sample/base over the rounds that both have."""
    pairs = [s / b for s, b in zip(samples, base, strict=False) if b > 0]
    return statistics.median(pairs) if pairs else float("nan")


def spread(samples: Sequence[float], base: Sequence[float]) -> float:
    """Return half the distance between the quartiles of the paired ratios.

    How far to trust the median.
    """
    pairs = [s / b for s, b in zip(samples, base, strict=False) if b > 0]
    if len(pairs) < 4:
        return float("nan")
    low, _, high = statistics.quantiles(pairs, n=4)
    return (high - low) / 2


def met(ratio: float, target: float | None) -> str:
    """Return the word for the table.

    Whether a ratio reaches its target, as printed with two decimals.
    """
    if target is None or ratio != ratio:
        return ""
    return "met" if round(ratio, 2) <= target else "not met"
