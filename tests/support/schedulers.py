"""Schedulers as users write them, good and bad ones."""

from __future__ import annotations

import time
from collections.abc import Sequence

from l4lb.dataplane.custom import Candidate, NewFlow, Scheduler


class ByPort(Scheduler):
    """By the client's port alone."""

    def choose(self, flow: NewFlow, backends: Sequence[Candidate]) -> int:
        return flow.client_port % len(backends)


class InTurn(Scheduler):
    """Has a state, which a preview must not change."""

    turn = -1

    def choose(self, flow: NewFlow, backends: Sequence[Candidate]) -> int:
        self.turn += 1
        return self.turn % len(backends)


class Moody(Scheduler):
    """Now and then it fails, in each of the ways."""

    def choose(self, flow: NewFlow, backends: Sequence[Candidate]) -> int:
        match flow.client_port % 5:
            case 0:
                raise LookupError("no mood")
            case 1:
                return len(backends)
            case 2:
                return None  # type: ignore[return-value]
        return sum(backend.flows + backend.open for backend in backends) % len(backends)


class Sleepy(Scheduler):
    """Lets go of Python's lock while it is asked."""

    def choose(self, flow: NewFlow, backends: Sequence[Candidate]) -> int:
        time.sleep(0.001)
        return 0


class Unmade(Scheduler):
    """Cannot be made."""

    def __init__(self, service: str) -> None:
        raise RuntimeError("no licence")

    def choose(self, flow: NewFlow, backends: Sequence[Candidate]) -> int:
        return 0


class Abstract(Scheduler):
    """Has no choose."""


class WrongWords(Scheduler):
    """Has another choose."""

    def choose(self, flow: NewFlow) -> int:  # type: ignore[override]
        return 0


class Stranger:
    """Is no scheduler."""
