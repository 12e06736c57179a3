"""Which counter stands in which column.

The layout follows from the configuration alone, so that master, steward and workers agree without a word.
Columns of one object stand together, in the order of its enumeration in `ext/l7/counters.pxd`; names and
kinds follow from the members' names: what ends in `_TOTAL`, is a class of statuses or a bucket only grows,
all else is a gauge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from l7.counters import (
    BackendColumn,
    Counters,
    EndColumn,
    ListenerColumn,
    PoolColumn,
    RouteColumn,
    Row,
    WorkerColumn,
)
from l7.model import L7Config

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, float("inf"))
"""Upper bounds of the histogram of a route's times. A column counts only what is above the bound before its
own; readers add them up."""

SPARE_BACKENDS = 32
"""Columns in each pool for backends that are added while it runs; what goes beyond shares the last."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One counter: the metric's name without prefix, its labels, and whether it only grows."""

    metric: str
    labels: Labels
    grows: bool

    @property
    def name(self) -> str:
        """`route_requests_total{route="api"}`."""
        if not self.labels:
            return self.metric
        labels = ",".join([f'{key}="{_escaped(value)}"' for key, value in self.labels])
        return f"{self.metric}{{{labels}}}"


class Layout:
    """The columns of a configuration, and where each object's begin."""

    def __init__(self, config: L7Config, refusals: Sequence[str] = ()) -> None:
        """`refusals` are the words for what the parser refuses, by its number."""
        self.columns: list[Column] = []
        self.worker = self._place("worker", WorkerColumn, ())
        self.ends = self._place_words("ends_total", "reason", end_words())
        self.refusals = self._place_words("refused_total", "reason", refusals)
        self.listeners = {
            listener.name: self._place("listener", ListenerColumn, (("listener", listener.name),))
            for listener in config.listeners
        }
        self.routes = [self._place("route", RouteColumn, (("route", route.name),)) for route in config.routes]
        """By the route's number."""
        self.pools: dict[str, int] = {}
        self._backends: dict[tuple[str, str], int] = {}
        self._spare: dict[str, list[int]] = {}
        for pool in config.pools:
            label = ("pool", pool.name)
            self.pools[pool.name] = self._place("pool", PoolColumn, (label,))
            for backend in pool.backends:
                self._backends[pool.name, backend.name] = self._place(
                    "backend", BackendColumn, (label, ("backend", backend.name))
                )
            self._spare[pool.name] = [
                self._place("backend", BackendColumn, (label, ("backend", f"added {number}")))
                for number in range(1, SPARE_BACKENDS + 1)
            ]

    def backend(self, pool: str, backend: str, spare: int | None = None) -> int:
        """Where a backend's columns begin. One that is not in the file has the place that the steward chose
        for it, `spare` from 0 on."""
        at = self._backends.get((pool, backend))
        if at is not None:
            return at
        places = self._spare[pool]
        return places[len(places) - 1 if spare is None else min(spare, len(places) - 1)]

    def __len__(self) -> int:
        return len(self.columns)

    def snapshot(self, totals: Iterable[int]) -> dict[str, int]:
        """What only grows and is not 0, by name: to be carried over to another layout."""
        return {
            column.name: total
            for column, total in zip(self.columns, totals, strict=True)
            if total and column.grows
        }

    def carry(self, row: Row, snapshot: Mapping[str, int]) -> None:
        """Adds an earlier run's counts to `row`, those that still have a column."""
        for number, column in enumerate(self.columns):
            if column.grows and (amount := snapshot.get(column.name)):
                row.increase(number, amount)

    def clear_gauges(self, row: Row) -> None:
        """Sets to 0 what a worker that is gone had open."""
        for number, column in enumerate(self.columns):
            if not column.grows:
                row[number] = 0

    def counters(self, workers: int) -> Counters:
        """Memory for that many workers and one row more, the last, for what is carried over."""
        return Counters(workers + 1, len(self))

    def _place(self, prefix: str, members: type[IntEnum], labels: Labels) -> int:
        first = len(self.columns)
        self.columns.extend(_columns(prefix, members, labels))
        return first

    def _place_words(self, metric: str, label: str, words: Iterable[str]) -> int:
        first = len(self.columns)
        self.columns.extend(Column(metric, ((label, word),), True) for word in words)
        return first


def end_words() -> list[str]:
    """How a request can end, in the words of the log: `done`, `client-closed`, … by number."""
    return [word.replace("_", "-") for word in _members(EndColumn)]


def _members(members: type[IntEnum]) -> list[str]:
    """The members' names in their order, without the common prefix and the member that counts them."""
    ordered = sorted(members, key=lambda member: member.value)
    prefix = ordered[0].name.split("_")[0] + "_"
    return [member.name.removeprefix(prefix).lower() for member in ordered if not _counts(member)]


def _counts(member: IntEnum) -> bool:
    return member.name.endswith("_COLUMNS")


def _columns(prefix: str, members: type[IntEnum], labels: Labels) -> Iterator[Column]:
    for name in _members(members):
        if name == "first_bucket":
            for bound_s in BUCKETS_S:
                text = "+Inf" if bound_s == float("inf") else f"{bound_s:g}"
                yield Column(f"{prefix}_seconds_bucket", (*labels, ("le", text)), True)
        elif name.endswith("xx"):
            yield Column(f"{prefix}_answers_total", (*labels, ("class", name)), True)
        else:
            yield Column(f"{prefix}_{name}", labels, name.endswith("_total"))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
