"""What a scenario gets and what it gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.lab import Lab, LabError


class IncapableError(LabError):
    """This machine lacks a privilege or a kernel feature that the scenario needs."""


@dataclass(frozen=True)
class Stage:
    """What a scenario works with.

    `datapath` replaces the configuration's if it is given, `requests` the scenario's number of requests and
    of datagrams; `say` tells what goes on; with `keep` the programs shall be left running.
    """

    lab: Lab
    datapath: str | None
    keep: bool
    say: Callable[[str], None]
    requests: int | None = None


@dataclass
class BackendResult:
    """What one backend did, as the client saw it."""

    address: str
    weight: int
    connections: int = 0
    requests: int = 0
    datagrams: int = 0
    bytes: int = 0


@dataclass
class Result:
    """The outcome; `as_json` is the object that `--json` ends with."""

    scenario: str
    requests: int = 0
    failed: int = 0
    datagrams: int = 0
    lost: int = 0
    backends: dict[str, BackendResult] = field(default_factory=dict)
    evidence: dict[str, int | float | str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    balancer: list[dict[str, Any]] = field(default_factory=list)
    """The balancer's own rows, for the table."""
    timeline: list[tuple[float, str]] = field(default_factory=list)
    """What happened after so many seconds, where the scenario is a story."""
    good: str = ""
    """What there is to say if all went well."""

    @property
    def ok(self) -> bool:
        """Whether everything went as it should."""
        return not self.problems

    def check(self, what: str, ours: object, theirs: object) -> None:
        """Note a problem where two counts differ."""
        if ours != theirs:
            self.problems.append(f"{what}: {ours} against {theirs}")

    def prove(self, name: str, value: float | str, holds: bool, wish: str) -> None:
        """Note a piece of evidence, and a problem where it does not hold; `wish` completes "it should be"."""
        self.evidence[name] = value
        if not holds:
            self.problems.append(f"{name} is {value} and should be {wish}")

    def as_json(self) -> dict[str, Any]:
        """The object of `--json`."""
        return {
            "scenario": self.scenario,
            "ok": self.ok,
            "why": "; ".join(self.problems) or None,
            "requests": self.requests,
            "failed": self.failed,
            "datagrams": self.datagrams,
            "lost": self.lost,
            "backends": {
                name: {
                    "weight": backend.weight,
                    "connections": backend.connections,
                    "requests": backend.requests,
                    "datagrams": backend.datagrams,
                    "bytes": backend.bytes,
                }
                for name, backend in self.backends.items()
            },
            "evidence": self.evidence,
        }
