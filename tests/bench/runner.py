"""Takes the sides of a comparison in turns and keeps every result.

On a shared machine a side measured alone at another minute is worth nothing. So every round measures every
side, odd rounds in the opposite order, and what is compared are ratios within a round, by their median.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Sample = Mapping[str, float]
"""What one measurement of one side gave: quantity → value."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to measure. `seconds` is one measurement of one side; `quick` is for smoke tests."""

    runs: int
    seconds: float
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Series:
    """The results of one side, one for each round."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


def alternate(
    sides: Mapping[str, Callable[[], Sample]], runs: int, what: str = ""
) -> dict[str, dict[str, Series]]:
    """Measures every side `runs` times, in turns. Returns quantity → side → results."""
    found: dict[str, dict[str, list[float]]] = {}
    for turn in range(runs):
        order = list(sides)
        if turn % 2:
            order.reverse()
        progress(f"bench: {what or 'round'} {turn + 1} of {runs}:")
        for name in order:
            progress(f" {name}")
            sample = sides[name]()
            for key, value in sample.items():
                progress(f" {human(value)}")
                found.setdefault(key, {}).setdefault(name, []).append(value)
            progress(",")
        progress("\n")
    return {
        key: {name: Series(tuple(by_side[name])) for name in sides if name in by_side}
        for key, by_side in found.items()
    }


_line_open = False


def progress(text: str) -> None:
    """Says what is going on, on standard error; a line grows until it is ended."""
    global _line_open
    print(text, end="", file=sys.stderr, flush=True)
    _line_open = not text.endswith("\n")


def end_progress() -> None:
    """Ends the line that `progress` left open, if any."""
    if _line_open:
        progress("\n")


def human(value: float) -> str:
    """A figure of about four digits, for people."""
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"
