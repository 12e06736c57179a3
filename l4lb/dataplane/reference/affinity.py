"""Where the last new flow of a client went (docs/design/decision.md, section 12).

A client stands in the one group of 8 places that its hash names. Whoever has many addresses can crowd
others out of their groups, but that costs neither memory nor time: those are scheduled once more, and
counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from l4lb.dataplane.affinity_group import affinity_groups, affinity_owner
from l4lb.dataplane.reference.hashing import service_number, siphash, spread
from l4lb.dataplane.table import ServiceEntry

GROUPS = 32768
GROUP = 8

Hosts = Mapping[int, int]
"""What a service of an affinity group makes of the slots of all of them: its own slot at the same host."""


class Client(NamedTuple):
    """A client network of a service, or of a group of them, which is known by its number; the address ends
    with zeros."""

    owner: int
    network: bytes


@dataclass(slots=True)
class Place:
    """Where a client's flows go, and to what millisecond."""

    client: Client
    slot: int
    ends_ms: int


class Affinities:
    """The table, shared by all workers. A group holds its places in order, but for those never used."""

    def __init__(self) -> None:
        self._groups: dict[int, list[Place]] = defaultdict(list)
        self.crowded_out = 0
        """Places that were taken before they had ended."""

    def choose(
        self,
        service: ServiceEntry,
        hosts: Hosts | None,
        address: bytes,
        key: bytes,
        now_ms: int,
        has_room: Callable[[int], bool],
        schedule: Callable[[], int | None],
    ) -> tuple[int | None, bool]:
        """The slot for a new flow, and whether it is that of the client's last one. Else `schedule` says
        it, or None. Who meets no room where he belongs goes elsewhere and belongs there still. What only
        one service of a group has is not remembered for all of them."""
        client = Client(service_number(key, affinity_owner(service)), mask(address, service.affinity_prefix))
        group = self._groups[spread(client.owner, siphash(key, client.network), GROUPS)]
        place = next((place for place in group if place.client == client), None)
        belongs = None
        if place is not None and now_ms < place.ends_ms:
            belongs = _backend_for(service, hosts, place.slot)
        keeps = belongs is not None and has_room(belongs)
        slot = belongs if keeps else schedule()
        if slot is None:
            return None, False
        if belongs is None and hosts is not None and slot not in hosts:
            return slot, False
        new = Place(client, slot if belongs is None else belongs, now_ms + service.affinity_ms)
        if place is not None:
            group[group.index(place)] = new
        else:
            self._occupy(group, new, now_ms)
        return slot, keeps

    def _occupy(self, group: list[Place], new: Place, now_ms: int) -> None:
        for i, place in enumerate(group):
            if now_ms >= place.ends_ms:
                group[i] = new
                return
        if len(group) < GROUP:
            group.append(new)
            return
        soonest = min(range(GROUP), key=lambda i: group[i].ends_ms)
        group[soonest] = new
        self.crowded_out += 1


def mask(address: bytes, prefix: int) -> bytes:
    """The network of `prefix` bits, or of all that it has, that an address of 4 or 16 bytes is in."""
    spare = max(8 * len(address) - prefix, 0)
    return (int.from_bytes(address) >> spare << spare).to_bytes(len(address))


def hosts_of(services: Sequence[ServiceEntry]) -> list[Hosts | None]:
    """By service, None where it is of no group."""
    found: list[Hosts | None] = [None] * len(services)
    for group in affinity_groups(services):
        for place, service in enumerate(group.services):
            found[service] = {slot: host[place] for host in group.hosts for slot in host}
    return found


def _backend_for(service: ServiceEntry, hosts: Hosts | None, slot: int) -> int | None:
    """The slot of the service that a remembered one stands for, if it has weight: one that drains has
    none."""
    own = next((backend for backend in service.backends if backend.slot == slot), None)
    if own is None and hosts is not None:
        own = next((backend for backend in service.backends if backend.slot == hosts.get(slot)), None)
    return own.slot if own is not None and own.weight > 0 else None
