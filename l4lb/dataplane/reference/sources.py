"""Limits of a source (docs/design/decision.md, section 10): what one client address has, and begins.

A source stands in the one group of 8 places that its hash names. An attacker with many addresses can fill
groups, but that costs neither memory nor time; those who meet a full group are let through, and counted.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from l4lb.dataplane.reference.hashing import service_number, siphash, spread
from l4lb.dataplane.table import ServiceEntry, Table

GROUPS = 8192
GROUP = 8


class Source(NamedTuple):
    """A client address of a service, which is known by its number."""

    service: int
    client: bytes


@dataclass(slots=True)
class Place:
    """What a source has: its flows, and those that it began in a second."""

    source: Source
    second: int
    flows: int = 0
    begun: int = 0

    def is_free(self, second: int) -> bool:
        """Whether nothing of it counts any more."""
        return self.flows == 0 and self.second != second


class Sources:
    """The table, shared by all workers. A group holds its places in order, but for those never used."""

    def __init__(self) -> None:
        self._groups: dict[int, list[Place]] = defaultdict(list)
        self.untracked = 0
        """Flows whose source met a full group."""

    def begin(self, source: Source, hash_: int, second: int, limits: ServiceEntry) -> bool:
        """Whether `source` may begin a flow; counts it if so. `hash_` is the source hash."""
        place = self._place(source, hash_, second)
        if place is None:
            self.untracked += 1
            return True
        if place.second != second:
            place.second, place.begun = second, 0
        if 0 < limits.source_new_flows <= place.begun or 0 < limits.source_flows <= place.flows:
            return False
        place.begun += 1
        return True

    def count(self, source: Source, hash_: int, difference: int) -> None:
        """Add `difference` to the flows of `source`, if it has a place."""
        place = self._find(source, hash_)
        if place is not None:
            place.flows = max(place.flows + difference, 0)

    def _place(self, source: Source, hash_: int, second: int) -> Place | None:
        """The place of `source`; a free one if it had none; None where there is none."""
        found = self._find(source, hash_)
        if found is not None:
            return found
        group = self._groups[_group_of(source, hash_)]
        new = Place(source, second)
        for i, place in enumerate(group):
            if place.is_free(second):
                group[i] = new
                return new
        if len(group) == GROUP:
            return None
        group.append(new)
        return new

    def _find(self, source: Source, hash_: int) -> Place | None:
        group = self._groups.get(_group_of(source, hash_), ())
        return next((place for place in group if place.source == source), None)


class Limits:
    """One worker's view of the table: it knows the numbers of services, and which a slot belongs to."""

    def __init__(self, key: bytes, sources: Sources) -> None:
        self._key = key
        self._sources = sources
        self._services: dict[int, int] = {}

    def publish(self, table: Table) -> None:
        """Learn the services of slots. Slots that are gone keep theirs, for flows may remember them."""
        for service in table.services:
            number = self._number(service)
            for backend in service.backends:
                self._services[backend.slot] = number

    def allow(self, service: ServiceEntry, client: bytes, now_ms: int) -> bool:
        """Whether the client may begin a flow of `service`; counts it if so."""
        if not service.source_new_flows and not service.source_flows:
            return True
        source = Source(self._number(service), client)
        return self._sources.begin(source, siphash(self._key, client), now_ms // 1000, service)

    def count(self, slot: int, client: bytes, difference: int) -> None:
        """A flow of the client to `slot` was inserted (1) or removed (-1)."""
        source = Source(self._services[slot], client)
        self._sources.count(source, siphash(self._key, client), difference)

    def _number(self, service: ServiceEntry) -> int:
        return service_number(self._key, service.name)


def _group_of(source: Source, hash_: int) -> int:
    return spread(source.service, hash_, GROUPS)
