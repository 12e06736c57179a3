"""A table asked by slot and by backend address, for the few questions that packets do not ask."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from l4lb.dataplane.table import BackendEntry, ReplyFrontend, ServiceEntry, Table
from l4lb.model import Forward


class Member(NamedTuple):
    """A backend and its service, with the service's number."""

    number: int
    service: ServiceEntry
    backend: BackendEntry


class TableIndex:
    """Dictionaries over one table, built once: a table may have 65,536 backends."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._by_slot: dict[int, Member] = {}
        self._direct: dict[bytes, list[Member]] = {}
        self._tunnel_ends: set[bytes] = set()
        for number, service in enumerate(table.services):
            for backend in service.backends:
                member = Member(number, service, backend)
                self._by_slot[backend.slot] = member
                if service.forward is Forward.DSR:
                    self._direct.setdefault(backend.address, []).append(member)
                elif service.forward.is_tunnel:
                    self._tunnel_ends.add(backend.address)

    def member(self, slot: int) -> Member | None:
        """The backend in `slot`, if it is configured."""
        return self._by_slot.get(slot)

    def service(self, vip: bytes, port: int, protocol: int) -> int | None:
        """The number of the service that listens there."""
        ranges = self.table.vips.get((vip, protocol), ())
        at = bisect_right(ranges, port, key=lambda r: r.first) - 1
        return ranges[at].service if at >= 0 and port <= ranges[at].last else None

    def frontends(self, address: bytes, port: int, protocol: int) -> tuple[ReplyFrontend, ...]:
        """What the backend endpoint answers for."""
        segments = self.table.endpoints.get((address, protocol), ())
        at = bisect_right(segments, port, key=lambda s: s.first) - 1
        return segments[at].frontends if at >= 0 and port <= segments[at].last else ()

    def direct(self, address: bytes) -> list[Member]:
        """The backends with direct return at this address."""
        return self._direct.get(address, [])

    def ends_tunnel(self, address: bytes) -> bool:
        """Whether some service's packets travel in a tunnel to this address."""
        return address in self._tunnel_ends
