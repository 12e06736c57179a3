"""Schedulers that a user writes in Python: `scheduler: {python: package.module:Class}`.

    class FewestOpen(Scheduler):
        def choose(self, flow: NewFlow, backends: Sequence[Candidate]) -> int:
            return min(range(len(backends)), key=lambda number: backends[number].open)

There is one object for each service, for as long as the service names the class. `choose` is called once for
each new flow that a scheduler is asked about (docs/design/decision.md, section 15), never for packets of
known ones, and never by two threads at once. It holds Python's lock and its worker's meanwhile: it should
return in microseconds, and must neither wait for anything nor touch the balancer.

An exception or an answer that is no number of a backend is counted, kept as `Guard.trouble`, and answered by
the hash in its place; it never ends a worker.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple


class NewFlow(NamedTuple):
    """A flow that begins. Addresses are 4 or 16 bytes (`ipaddress.ip_address` reads them); `protocol` is 6
    for TCP and 17 for UDP; `hash` are 64 bits, the same on every gateway with the same key."""

    client: bytes
    client_port: int
    vip: bytes
    vip_port: int
    protocol: int
    hash: int


class Candidate(NamedTuple):
    """A backend that can take the flow: it has weight, and room for a connection more.

    `port` 0 keeps the client's. `flows` are all that are remembered, over all workers; `active` the
    established TCP ones of these, and `open` those that are not closing, which `max_connections` limits (0:
    no limit).
    """

    address: bytes
    port: int
    weight: int
    max_connections: int
    flows: int
    active: int
    open: int


class Scheduler(ABC):
    """To be derived from. `service` is the name of the service that it is for."""

    def __init__(self, service: str) -> None:
        self.service = service

    @abstractmethod
    def choose(self, flow: NewFlow, backends: Sequence[Candidate]) -> int:
        """The number in `backends`, of which there is at least one, that the flow goes to.

        They stand in the order of the configuration, without those that are down, drained or full.
        """


class Guard:
    """A user's scheduler as the cores ask it: what it answers is checked, what it raises stays here."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.failures = 0
        """Flows that it had no answer for."""
        self.trouble = ""
        """What went wrong the last time."""

    def pick(self, flow: NewFlow, backends: Sequence[Candidate]) -> int | None:
        """The number of a backend, or None where the hash has to decide."""
        chosen, trouble = _ask(self._scheduler, flow, backends)
        if trouble:
            self.failures += 1
            self.trouble = trouble
        return chosen

    def foresee(self, flow: NewFlow, backends: Sequence[Candidate]) -> int | None:
        """As `pick`, asked of a copy: nothing changes. None, too, where it cannot be copied."""
        try:
            twin = deepcopy(self._scheduler)
        except Exception:
            return None
        return _ask(twin, flow, backends)[0]

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        return Foreseeing(self._scheduler)


class Foreseeing(Guard):
    """The guard of a balancer that only looks ahead."""

    def pick(self, flow: NewFlow, backends: Sequence[Candidate]) -> int | None:
        """See `Guard.foresee`."""
        return self.foresee(flow, backends)


def _ask(scheduler: Scheduler, flow: NewFlow, backends: Sequence[Candidate]) -> tuple[int | None, str]:
    """The number of a backend or None, and what is wrong."""
    try:
        chosen = scheduler.choose(flow, backends)
    except Exception as error:
        return None, f"{type(error).__name__}: {error}"
    if not isinstance(chosen, int) or isinstance(chosen, bool) or not 0 <= chosen < len(backends):
        return None, f"choose returned {chosen!r}, which is no number from 0 to {len(backends) - 1}"
    return chosen, ""
