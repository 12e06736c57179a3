"""Affinity that services share: which of their backends are one host.

Services that name the same group remember a client once, at the host that it last went to. A host is an
address that each of them has a backend at, whatever its port; what one remembers as its own slot, another
reads as its own slot at the same address. An address that some service of the group lacks (a backend that was
added or removed at run time in one of them) is no host, and nor is a sorry server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from l4lb.dataplane.table import ServiceEntry


@dataclass(frozen=True, slots=True)
class AffinityGroup:
    """`services` are indices into `Table.services`; each of `hosts` has one slot for each of them, in their
    order."""

    name: str
    services: tuple[int, ...]
    hosts: tuple[tuple[int, ...], ...]


def affinity_owner(service: ServiceEntry) -> str:
    """The name that the places of a service's clients go by; no service is called like a group."""
    return service.name if service.affinity_group is None else f"group {service.affinity_group}"


def affinity_groups(services: Sequence[ServiceEntry]) -> list[AffinityGroup]:
    """The groups of a table's services, in the order of their first one."""
    members: dict[str, list[int]] = {}
    for index, service in enumerate(services):
        if service.affinity_group is not None:
            members.setdefault(service.affinity_group, []).append(index)
    return [
        AffinityGroup(name, tuple(indices), _hosts([_slots_by_address(services[i]) for i in indices]))
        for name, indices in members.items()
    ]


def _slots_by_address(service: ServiceEntry) -> dict[bytes, int]:
    """The first backend at each address."""
    slots: dict[bytes, int] = {}
    for backend in service.backends:
        if not backend.sorry:
            slots.setdefault(backend.address, backend.slot)
    return slots


def _hosts(services: Sequence[dict[bytes, int]]) -> tuple[tuple[int, ...], ...]:
    return tuple(
        tuple(slots[address] for slots in services)
        for address in services[0]
        if all(address in slots for slots in services)
    )
