"""The backends of NAT whose flows can be told by their mark alone, and so be learned by the fast path.

A service that has one address and one port for clients: what its flows came for follows from the backend, and
needs no look at the flow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from l4lb.control.elements import is_guarded
from l4lb.dataplane.table import ServiceEntry, Table, forward_mark, learned_slots
from l4lb.model import Forward, Service


@dataclass(frozen=True, slots=True)
class Translation:
    """What NAT makes of packets with `mark` and of their answers: (`vip`, `vip_port`) ↔ (`backend`,
    `backend_port`), addresses of 4 or 16 bytes."""

    mark: int
    vip: bytes
    vip_port: int
    backend: bytes
    backend_port: int


def translations(table: Table, services: Sequence[Service]) -> Iterator[Translation]:
    """Every backend of `services`, which `table` was made of, that has one.

    Those are left out whose flows user space or the rules have to see: services that not everybody may use
    or that remember no flow, and backends whose flows end now.
    """
    origins = _origins(table)
    learned = learned_slots(table)
    for number, (service, entry) in enumerate(zip(services, table.services, strict=True)):
        asked = origins.get(number, set())
        if len(asked) != 1 or not _may_be_learned(service, entry):
            continue
        ((vip, port),) = asked
        for backend in entry.backends:
            if backend.slot in learned and len(backend.address) == len(vip):
                mark = forward_mark(backend.slot)
                yield Translation(mark, vip, port, backend.address, backend.port or port)


def _may_be_learned(service: Service, entry: ServiceEntry) -> bool:
    return entry.forward is Forward.NAT and not entry.one_packet and not is_guarded(service)


def _origins(table: Table) -> dict[int, set[tuple[bytes, int]]]:
    """The addresses and ports of each service; none where a range is among them."""
    found: dict[int, set[tuple[bytes, int]]] = {}
    ranges = set()
    for (address, _), places in table.vips.items():
        for place in places:
            found.setdefault(place.service, set()).add((address, place.first))
            if place.first != place.last:
                ranges.add(place.service)
    return {number: asked for number, asked in found.items() if number not in ranges}
