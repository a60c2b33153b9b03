"""Numbers and tables in words, as several stages print them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from fercache.scoring.intervals import RELIABLE_FROM


def digits(*values: float) -> list[str]:
    """Scores, as cells of a table."""
    return [f"{value:.4f}" for value in values]


def span(low: float | None, high: float | None) -> str:
    """An interval; one recording has none."""
    return "-" if low is None or high is None or math.isnan(low) else f"{low:.4f} to {high:.4f}"


def about_intervals(recordings: int) -> str:
    """What the 95 % intervals over so many labelled recordings are, and how far they can be relied on."""
    if recordings < 2:
        return "No interval: one recording says nothing of others."
    words = f"95 %: jackknife over {recordings} recordings, with a t distribution"
    if recordings < RELIABLE_FROM:
        return (
            f"{words}; below {RELIABLE_FROM} recordings such intervals hold the true value less often"
            " (in simulations with 20: 88 to 99 %, with 10: 80 to 99 %)."
        )
    return f"{words}."


def or_none(value: float) -> float | None:
    """As JSON holds it, which has no nan."""
    return None if math.isnan(value) else float(value)


def or_nan(value: float | None) -> float:
    """Back from JSON."""
    return math.nan if value is None else value


def names(stems: Sequence[str], paths: Sequence[object]) -> list[str]:
    """Short names where they tell files apart, else the whole paths."""
    return list(stems) if len(set(stems)) == len(stems) else [str(path) for path in paths]


def counts(of_files: Sequence[int]) -> str:
    """How many of something there are in each of some files: one number where it is the same."""
    low, high = min(of_files), max(of_files)
    return str(low) if low == high else f"{low} to {high}"


def as_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "  ".join([f"{first[0]:<{first[1]}}", *(f"{text:>{width}}" for text, width in others)])

    return [line(row) for row in [columns, *rows]]
