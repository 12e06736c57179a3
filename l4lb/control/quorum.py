"""Whether enough backends of a service are up, and what the service is by that.

The rule is keepalived's (keepalived/check/ipwrapper.c, `update_quorum_state`): `hysteresis` keeps a count
that goes to and fro around the quorum from switching the service each time.

    quorum is lost      when none is up, or fewer than quorum - hysteresis
    quorum is regained  when at least quorum + hysteresis are up

Backends are counted, not their weights as in keepalived: a weight is a share, which checks and operators
change while the service runs, and 100 of them on one server are no redundancy. Backends of weight 0 do not
count, for they take nothing; backups do, for they stand in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

from l4lb.model import Quorum


class ServiceState(StrEnum):
    """What a service is, for people."""

    UP = "up"
    DEGRADED = "degraded"
    """It takes new flows, although it has lost its quorum, or its checks are not believed (panic)."""
    SORRY = "sorry"
    """New flows go to the sorry server."""
    DOWN = "down"
    """New flows are rejected or dropped."""


@dataclass(slots=True)
class Standing:
    """What is known of a service as a whole.

    `up` are the backends that count, of `backends` without the sorry server; `needed` is the quorum as a
    number. `since_s` is the time of the last change of `state`, None where there was none.
    """

    has_quorum: bool = True
    state: ServiceState = ServiceState.UP
    up: int = 0
    backends: int = 0
    needed: int = 1
    panics: bool = False
    since_s: float | None = None

    @property
    def why(self) -> str:
        """A sentence for people."""
        counted = f"{self.up} of {self.backends} backends up, quorum {self.needed}"
        if self.panics:
            return f"{counted}; most seem down, so the checks are not believed"
        return counted if self.has_quorum else f"{counted}, lost"


def needed_for(quorum: Quorum, ordinary: int) -> int:
    """The quorum as a number, of so many ordinary backends; a part is rounded up, and is never none."""
    if quorum.part is None:
        return quorum.backends
    # Six decimal places are what a part can be written with; beyond is what floats add.
    return max(1, ceil(round(quorum.part * ordinary, 6)))


def has_quorum(had: bool, up: int, needed: int, hysteresis: int, most: int) -> bool:
    """The rule above. `most` are all backends there are: once all of them are up, no more is asked for."""
    if had:
        return up > 0 and up >= needed - hysteresis
    return up >= min(needed + hysteresis, max(needed, most))
