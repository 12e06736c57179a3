"""From counters to rates: what `l4lb top` shows. Pure; time is handed in.

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
"""Service and backend; None is the service as a whole."""

HISTORY = 60
"""Samples that a sparkline goes back."""
COUNTERS = {
    "packets_in": "packets_in_per_s",
    "bytes_in": "bytes_in_per_s",
    "packets_out": "packets_out_per_s",
    "bytes_out": "bytes_out_per_s",
    "scheduled": "new_flows_per_s",
}
GAUGES = ("flows", "active")
_KEPT = ("weight", "effective_weight", "state")
_BARS = "▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class Rates:
    """The rates of every backend and service, sample by sample."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """After each `update`: a row for every service, its backends behind it. Rates are None where there is
    none."""
    _before: dict[Key, Row] = field(default_factory=dict)
    _before_s: float | None = None
    _history: dict[Key, deque[float]] = field(default_factory=dict)

    def update(self, backends: Iterable[Row], now_s: float) -> bool:
        """Takes a sample, `backends` as in `l4lb backends ls`; false where there is none before it."""
        sample = _with_services(backends)
        elapsed = None if self._before_s is None else now_s - self._before_s
        self.rows = [self._row(key, row, elapsed) for key, row in sample.items()]
        self._history = {key: self._history[key] for key in sample}
        self._before, self._before_s = sample, now_s
        return any(row["packets_in_per_s"] is not None for row in self.rows)

    def forget(self) -> None:
        """Begins anew, for what comes is counted by another daemon. Sparklines stay."""
        self._before, self._before_s = {}, None

    def history(self, service: str, backend: str | None) -> list[float]:
        """Packets in a second of the last samples, the oldest first."""
        return list(self._history.get((service, backend), ()))

    def _row(self, key: Key, row: Row, elapsed: float | None) -> dict[str, Any]:
        before = self._before.get(key)
        rates: dict[str, float | None] = {}
        for counter, name in COUNTERS.items():
            rates[name] = _rate(row.get(counter), before.get(counter) if before else None, elapsed)
        history = self._history.setdefault(key, deque(maxlen=HISTORY))
        if rates["packets_in_per_s"] is not None:
            history.append(rates["packets_in_per_s"])
        gauges = {name: row.get(name) for name in (*GAUGES, *_KEPT) if name in row}
        return {"service": key[0], "backend": key[1], **rates, **gauges}


def sparkline(values: Iterable[float], width: int) -> str:
    """The last `width` values as bars; the highest of them is a whole one, and 0 the smallest."""
    shown = list(values)[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return _BARS[0] * len(shown)
    return "".join(_BARS[round(value / top * (len(_BARS) - 1))] for value in shown)


def _with_services(backends: Iterable[Row]) -> dict[Key, Row]:
    """A row for every service, the sum of its backends, before these."""
    grouped: dict[str, list[Row]] = {}
    for row in backends:
        grouped.setdefault(row["service"], []).append(row)
    sample: dict[Key, Row] = {}
    for service, rows in grouped.items():
        sample[service, None] = {name: _sum(rows, name) for name in (*COUNTERS, *GAUGES)}
        sample.update(((service, row["backend"]), row) for row in rows)
    return sample


def _sum(rows: Iterable[Row], name: str) -> int | None:
    values = [row.get(name) for row in rows]
    return None if None in values else sum(value for value in values if value is not None)


def _rate(now: int | None, before: int | None, elapsed: float | None) -> float | None:
    if now is None or before is None or elapsed is None or elapsed <= 0 or now < before:
        return None
    return round((now - before) / elapsed, 1)
