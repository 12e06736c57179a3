"""What all workers have counted: the ledgers of the current generation and of those that still end what they
have, added up by name.

Names and labels are those of `l7.proxy.layout`. A backend that was added by a command has a spare place,
whose label gives way to the backend's own name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from l7.counters import Counters
from l7.proxy.layout import Column, Labels

Name = tuple[str, Labels]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The counters of one generation, and what stands in which column."""

    number: int
    columns: Sequence[Column]
    counters: Counters

    def dump(self) -> dict[str, Any]:
        """What another program needs besides the counters' descriptor, for `load`."""
        columns = [[column.metric, column.labels, column.grows] for column in self.columns]
        return {"number": self.number, "rows": self.counters.rows, "columns": columns}

    @classmethod
    def load(cls, dumped: Mapping[str, Any], descriptor: int) -> Ledger:
        """The ledger that `dump` was called on, with the same memory."""
        columns = [
            Column(metric, tuple((key, value) for key, value in labels), grows)
            for metric, labels, grows in dumped["columns"]
        ]
        return cls(dumped["number"], columns, Counters(dumped["rows"], len(columns), descriptor))

    def carry_to(self, other: Ledger) -> None:
        """Adds what only grows to the last row of another ledger, where it has a column for it."""
        row = other.counters.row(other.counters.rows - 1)
        places = {(column.metric, column.labels): n for n, column in enumerate(other.columns)}
        for column, total in zip(self.columns, self.counters.totals(), strict=True):
            place = places.get((column.metric, column.labels))
            if column.grows and total and place is not None:
                row.increase(place, total)


@dataclass(slots=True)
class Counts:
    """Counters by metric and labels. `spares` are pool and label of spare places, and whose they are."""

    columns: Sequence[Column]
    sums: dict[Name, int]
    spares: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def of(self, metric: str, *labels: tuple[str, str]) -> int:
        """One counter, or 0 where there is none."""
        return self.sums.get((metric, labels), 0)

    def total(self, metric: str) -> int:
        """The sum over all labels."""
        return sum(value for (name, _), value in self.sums.items() if name == metric)

    def by_label(self, metric: str) -> dict[str, int]:
        """Of a metric with one label: its values."""
        return {labels[0][1]: value for (name, labels), value in self.sums.items() if name == metric}

    def samples(self) -> Iterator[tuple[Column, Labels, int]]:
        """All counters in the order of the layout, spare places only where a backend has them."""
        for column in self.columns:
            labels = column.labels
            if column.metric.startswith("backend_") and labels[1][1].startswith("added "):
                owner = self.spares.get((labels[0][1], labels[1][1]))
                if owner is None:
                    continue
                labels = labels[0], ("backend", owner)
            yield column, labels, self.sums[column.metric, column.labels]


def count(ledgers: Iterable[Ledger], spares: Mapping[tuple[str, str], str]) -> Counts:
    """Adds up; the first ledger is the current one, whose columns are shown."""
    current, *older = ledgers
    sums: dict[Name, int] = {(column.metric, column.labels): 0 for column in current.columns}
    for ledger in (current, *older):
        for column, value in zip(ledger.columns, ledger.counters.totals(), strict=True):
            name = column.metric, column.labels
            if name in sums:
                sums[name] += value
    return Counts(current.columns, sums, spares)


def spare_label(number: int) -> str:
    """The label of a spare place, by the number that the roster gave it."""
    return f"added {number + 1}"
