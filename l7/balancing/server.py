"""One backend of a pool, as one worker sees it.

Three things decide whether it is given requests, each with an owner of its own:

* `state` is what the steward says: checks, operators, the file;
* `ejected_until_s` is what this worker's own requests say (`passive`);
* `active` against `max_connections` is how much it has to do now.

`weight` is what the operator wants, `effective_weight` what the schedulers use: a backend that came up less
than `slow_start_s` ago takes part of its weight, a tenth at first.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from l4lb.control.health import PassiveJudge
from l7.model import Backend, PassiveCheck

SLOW_STEPS = 10
_KEPT = 0.8
"""Part of the old average that stays when a new time comes in: about the last ten requests count."""


class State(StrEnum):
    """What the steward says of a backend."""

    UP = "up"
    DOWN = "down"
    """By checks: nobody goes there."""
    DRAINING = "draining"
    """Only sessions that it has go there."""
    DISABLED = "disabled"
    """Nobody goes there, sessions neither."""


class Outcome(StrEnum):
    """What became of a request that a backend was given."""

    OK = "ok"
    FAILED = "failed"
    """Refused, broken, timed out, or answered with a status that counts as failure."""
    NEUTRAL = "neutral"
    """Nothing that says anything about the backend: the client went away."""


class Server:
    """A backend. `number` is its place among all backends of the configuration, for counters."""

    __slots__ = (
        "_passive",
        "active",
        "average_s",
        "backend",
        "current",
        "effective_weight",
        "ejected_until_s",
        "endpoints",
        "idle",
        "is_backup",
        "judge",
        "max_connections",
        "name",
        "number",
        "state",
        "up_since_s",
        "waiting_since_s",
        "weight",
        "why",
    )

    def __init__(self, backend: Backend, passive: PassiveCheck | None, number: int = -1) -> None:
        self.backend = backend
        self.name = backend.name
        self.number = number
        self.weight = backend.weight
        self.effective_weight = backend.weight
        self.is_backup = backend.is_backup
        self.max_connections = backend.max_connections
        self.state = State.UP
        self.why = ""
        self.up_since_s: float | None = None
        """When it came up, while it starts slowly."""
        self.ejected_until_s = 0.0
        self._passive = passive
        self.judge = self._new_judge()
        self.active = 0
        """Requests and upgraded connections that it has now."""
        self.current = 0
        """Its account in smooth weighted round-robin."""
        self.average_s = 0.0
        """Moving average of the time to the first byte of an answer; 0 before the first."""
        self.idle: Any = []
        """What leads to it, with the connections that are kept: the business of `l7.proxy`."""
        self.endpoints: tuple[tuple[str, int], ...] = ()
        """Addresses and ports that it stands for: one, or what its name resolves to."""
        if not isinstance(backend.address.host, str):
            self.endpoints = ((str(backend.address.host), backend.address.port),)

    def _new_judge(self) -> PassiveJudge | None:
        return None if self._passive is None else PassiveJudge(self._passive)

    def acquit(self) -> None:
        """Forgets what its requests said of it: somebody who knows better says that it is up."""
        self.ejected_until_s = 0.0
        self.judge = self._new_judge()

    @property
    def is_full(self) -> bool:
        """Whether it has as many requests as it may."""
        return self.max_connections is not None and self.active >= self.max_connections

    def is_ready(self, now_s: float) -> bool:
        """Whether it may be chosen for a new session."""
        return (
            self.state is State.UP
            and self.effective_weight > 0
            and self.ejected_until_s <= now_s
            and bool(self.endpoints)
        )

    def keeps_sessions(self, now_s: float) -> bool:
        """Whether a session that it has may go on with it: while it drains, too, and with weight 0."""
        return (
            self.state in (State.UP, State.DRAINING)
            and self.ejected_until_s <= now_s
            and bool(self.endpoints)
        )

    def refresh_weight(self, slow_start_s: float, now_s: float) -> bool:
        """Brings `effective_weight` up to date; whether it changed.

        Weights are multiplied by SLOW_STEPS where the pool starts backends slowly, so that a tenth is a
        number.
        """
        if not slow_start_s:
            weight = self.weight
        else:
            step = SLOW_STEPS
            if self.up_since_s is not None:
                step = 1 + int((now_s - self.up_since_s) / slow_start_s * SLOW_STEPS)
                if step >= SLOW_STEPS:
                    step, self.up_since_s = SLOW_STEPS, None
            weight = self.weight * step
        changed = weight != self.effective_weight
        self.effective_weight = weight
        return changed

    def took(self, seconds: float) -> None:
        """Takes the time to the first byte of an answer into the average."""
        self.average_s = self.average_s * _KEPT + seconds * (1 - _KEPT) if self.average_s else seconds
