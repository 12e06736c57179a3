"""Gives each backend of a service its slot, the small number by which packets, flows and counters know it.

* A backend keeps its slot for as long as it is configured.
* The slot of a backend that is no longer configured stays reserved while flows remember it, and over the next
  assignment at least: until the new table is published, packets are still sent there. A backend that
  returns in this time gets its slot back, and with it its flows.
* New backends get the lowest free slots. Where none is left, those go that were given up just now and have no
  flows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from l4lb.dataplane.table import MAX_SLOTS
from l4lb.errors import L4lbError
from l4lb.model import L4Config


class Owner(NamedTuple):
    """The identity of a slot's backend."""

    service: str
    backend: str


class SlotRegistry:
    """Who has which slot. `copy` before a change that may yet fail, and keep the copy once it has not."""

    def __init__(self, slots: int = MAX_SLOTS) -> None:
        self._slots = slots
        self._configured: dict[Owner, int] = {}
        self._reserved: dict[Owner, int] = {}
        self._owners: dict[int, Owner] = {}
        """The last owner of every slot that ever had one."""

    def copy(self) -> SlotRegistry:
        """A registry of its own with the same content."""
        twin = SlotRegistry(self._slots)
        twin._configured = dict(self._configured)
        twin._reserved = dict(self._reserved)
        twin._owners = dict(self._owners)
        return twin

    def dump(self) -> dict[str, list[tuple[str, str, int]]]:
        """Who has which slot, for `load`."""
        return {
            "configured": [(*owner, slot) for owner, slot in self._configured.items()],
            "reserved": [(*owner, slot) for owner, slot in self._reserved.items()],
            "owners": [(*owner, slot) for slot, owner in self._owners.items()],
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Iterable[Sequence[Any]]]) -> SlotRegistry:
        """A registry with the content of another one."""
        found = cls()
        found._configured = {Owner(service, backend): slot for service, backend, slot in dumped["configured"]}
        found._reserved = {Owner(service, backend): slot for service, backend, slot in dumped["reserved"]}
        found._owners = {slot: Owner(service, backend) for service, backend, slot in dumped["owners"]}
        return found

    def assign(self, config: L4Config, in_use: Callable[[int], int]) -> None:
        """Give every backend of `config` a slot; `in_use(slot)` is the number of flows that remember it.

        Raises L4lbError where there is no room; nothing has changed then.
        """
        wanted = [Owner(s.name, b.name) for s in config.services for b in s.backends]
        stays = set(wanted)
        gone = {owner: slot for owner, slot in self._configured.items() if owner not in stays}
        held = {
            owner: slot for owner, slot in self._reserved.items() if owner not in stays and in_use(slot) > 0
        }
        known = self._configured | self._reserved
        kept = {owner: known[owner] for owner in wanted if owner in known}
        new = [owner for owner in wanted if owner not in known]

        taken = {*kept.values(), *gone.values(), *held.values()}
        free = (slot for slot in range(self._slots) if slot not in taken)
        last_resort = (slot for slot in sorted(gone.values()) if in_use(slot) == 0)
        assigned = dict(zip(new, chain(free, last_resort), strict=False))
        if len(assigned) < len(new):
            raise L4lbError(
                f"no slot is left for {len(new) - len(assigned)} of {len(wanted)} backends: removed backends "
                f"still have {len(held | gone)} of the {self._slots}; wait until their flows have ended"
            )
        reused = set(assigned.values())
        self._configured = kept | assigned
        self._reserved = held | {owner: slot for owner, slot in gone.items() if slot not in reused}
        self._owners.update((slot, owner) for owner, slot in self._configured.items())

    def slot(self, service: str, backend: str) -> int:
        """The slot of a backend that is configured, or was and has flows. Raises KeyError for any other."""
        owner = Owner(service, backend)
        found = self._configured.get(owner)
        return self._reserved[owner] if found is None else found

    def owners(self) -> Iterable[tuple[int, Owner]]:
        """Every slot that has, or had, an owner, with the last one."""
        return self._owners.items()

    def owner(self, slot: int) -> Owner:
        """The service and the backend that have, or had last, the slot. Raises KeyError if none ever had."""
        return self._owners[slot]
