"""From counters to rates: what the `top` of both programs shows. Pure; time is handed in.

A rate is the difference of two samples divided by the time between them. A daemon that was started anew
counts from 0: there is no rate across that. A backend that comes into being has its first rate a sample
later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
Key = tuple[str, str | None]
"""Service or pool, and backend; None is the whole of it."""

HISTORY = 60
"""Samples that a sparkline goes back."""
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Measures:
    """What of a row is shown: `counters` with the names of their rates, `gauges`, which are added up for the
    whole, and what is `kept` as it is. `whole` is the key of what a backend belongs to, `line` the rate that
    a sparkline shows."""

    whole: str
    counters: Mapping[str, str]
    gauges: tuple[str, ...]
    kept: tuple[str, ...]
    line: str


@dataclass(slots=True)
class Rates:
    """The rates of every backend and of what they belong to, sample by sample."""

    measures: Measures
    rows: list[dict[str, Any]] = field(default_factory=list)
    """After each `update`: a row for every service or pool, its backends behind it. Rates are None where
    there is none."""
    _before: dict[Key, Row] = field(default_factory=dict)
    _before_s: float | None = None
    _history: dict[Key, deque[float]] = field(default_factory=dict)

    def update(self, backends: Iterable[Row], now_s: float) -> bool:
        """Takes a sample, `backends` as in `backends ls`; false where there is none before it."""
        sample = _with_wholes(backends, self.measures)
        elapsed = None if self._before_s is None else now_s - self._before_s
        self.rows = [self._row(key, row, elapsed) for key, row in sample.items()]
        self._history = {key: self._history[key] for key in sample}
        self._before, self._before_s = sample, now_s
        return any(row[self.measures.line] is not None for row in self.rows)

    def forget(self) -> None:
        """Begins anew, for what comes is counted by another daemon. Sparklines stay."""
        self._before, self._before_s = {}, None

    def history(self, whole: str, backend: str | None) -> list[float]:
        """The rate `line` of the last samples, the oldest first."""
        return list(self._history.get((whole, backend), ()))

    def _row(self, key: Key, row: Row, elapsed: float | None) -> dict[str, Any]:
        before = self._before.get(key)
        rates: dict[str, float | None] = {}
        for counter, name in self.measures.counters.items():
            rates[name] = _rate(row.get(counter), before.get(counter) if before else None, elapsed)
        history = self._history.setdefault(key, deque(maxlen=HISTORY))
        if (latest := rates[self.measures.line]) is not None:
            history.append(latest)
        names = *self.measures.gauges, *self.measures.kept
        gauges = {name: row.get(name) for name in names if name in row}
        return {self.measures.whole: key[0], "backend": key[1], **rates, **gauges}


def sparkline(values: Iterable[float], width: int) -> str:
    """The last `width` values as bars; the highest of them is a whole one, and 0 the smallest."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in shown)


def _with_wholes(backends: Iterable[Row], measures: Measures) -> dict[Key, Row]:
    """A row for every service or pool, the sum of its backends, before these."""
    grouped: dict[str, list[Row]] = {}
    for row in backends:
        grouped.setdefault(row[measures.whole], []).append(row)
    sample: dict[Key, Row] = {}
    for whole, rows in grouped.items():
        sample[whole, None] = {name: _sum(rows, name) for name in (*measures.counters, *measures.gauges)}
        sample.update(((whole, row["backend"]), row) for row in rows)
    return sample


def _sum(rows: Iterable[Row], name: str) -> int | None:
    values = [row.get(name) for row in rows]
    return None if None in values else sum(value for value in values if value is not None)


def _rate(now: int | None, before: int | None, elapsed: float | None) -> float | None:
    if now is None or before is None or elapsed is None or elapsed <= 0 or now < before:
        return None
    return round((now - before) / elapsed, 1)
