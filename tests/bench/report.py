"""Measures as a table for people and as the JSON that `./scripts/bench NAME --json` ends with."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from tests.bench.runner import Series, human

Better = Literal["more", "less"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is meant to reach: `ours`, or `ours / of` where a peer is named. Informational."""

    limit: float
    of: str | None = None
    sense: Literal["at_least", "at_most"] = "at_least"


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity of ours beside that of each peer."""

    name: str
    unit: str
    better: Better
    ours: Series
    peers: Mapping[str, Series] = field(default_factory=dict)
    targets: Sequence[Target] = ()

    def ratio(self, peer: str) -> float | None:
        """Ours by the peer's: the median of the rounds' ratios; None where a round gave the peer 0."""
        ratios = self.ratios(peer)
        return statistics.median(ratios) if ratios else None

    def ratios(self, peer: str) -> list[float]:
        """The ratio of each round: what the machine did to both sides alike falls out of it."""
        theirs = self.peers[peer].values
        if not all(theirs) or len(theirs) != len(self.ours.values):
            return []
        return [a / b for a, b in zip(self.ours.values, theirs, strict=True)]

    def met(self, target: Target) -> bool | None:
        """Whether a target is reached; None where the ratio does not exist."""
        value = self.ours.median if target.of is None else self.ratio(target.of)
        if value is None:
            return None
        return value >= target.limit if target.sense == "at_least" else value <= target.limit


def to_json(name: str, measures: Sequence[Measure], machine: Mapping[str, Any]) -> dict[str, Any]:
    """The object that the contract describes; several measures are listed under `measures`."""
    objects = [_measure_json(measure, machine) for measure in measures]
    return objects[0] if len(objects) == 1 else {"name": name, "measures": objects}


def _measure_json(measure: Measure, machine: Mapping[str, Any]) -> dict[str, Any]:
    every = {"ours": measure.ours, **measure.peers}
    return {
        "name": measure.name,
        "unit": measure.unit,
        "better": measure.better,
        "ours": measure.ours.median,
        "peers": {peer: series.median for peer, series in measure.peers.items()},
        "ratio": {peer: measure.ratio(peer) for peer in measure.peers},
        "ratio_spread": {
            peer: [min(ratios), max(ratios)] for peer in measure.peers if (ratios := measure.ratios(peer))
        },
        "runs": len(measure.ours.values),
        "spread": {side: [series.low, series.high] for side, series in every.items()},
        "targets": [
            {"of": target.of or "ours", target.sense: target.limit, "met": measure.met(target)}
            for target in measure.targets
        ],
        "machine": dict(machine),
    }


def print_table(name: str, measures: Sequence[Measure], machine: Mapping[str, Any], console: Console) -> None:
    """One block a measure: ours first, then each peer with the ratio, and the targets beside them."""
    for measure in measures:
        console.print()
        runs = len(measure.ours.values)
        rounds = "1 round" if runs == 1 else f"median of {runs} rounds"
        console.print(f"[bold]{name}: {measure.name}[/]  {measure.unit}, {rounds}", highlight=False)
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column("", min_width=16)
        table.add_column("median", justify="right", min_width=9)
        table.add_column("spread", justify="right", min_width=19)
        table.add_column("ours / it", justify="right")
        table.add_column("target")
        for side in (None, *measure.peers):
            table.add_row(*_cells(measure, side))
        console.print(table)
    versions = ", ".join(f"{program} {version}" for program, version in machine["versions"].items())
    host = f"kernel {machine['kernel']}, {machine['cores']} cores ({machine['cpu']})"
    console.print(f"\n{host}, load {machine['load']}; {versions}", style="dim", highlight=False)


def _cells(measure: Measure, peer: str | None) -> Iterator[str]:
    series = measure.ours if peer is None else measure.peers[peer]
    ratio = None if peer is None else measure.ratio(peer)
    yield f"  {peer or 'ours'}"
    yield human(series.median)
    yield f"{human(series.low)} - {human(series.high)}"
    yield "" if peer is None else "-" if ratio is None else f"{ratio:.3g}"
    yield "; ".join(_target_text(measure, target) for target in measure.targets if target.of == peer)


def _target_text(measure: Measure, target: Target) -> str:
    sign = "≥" if target.sense == "at_least" else "≤"
    outcome = {True: "[green]met[/]", False: "[red]missed[/]", None: "no ratio"}[measure.met(target)]
    return f"{sign} {human(target.limit)} {outcome}"
