"""The flow table (docs/design/decision.md, section 6).

A flow stands in one of the two groups of 16 places that its hash names, so finding it, inserting it and
finding that there is no room cost the same however full the table is. A flow never moves. An expired
flow is removed by a packet of its own, by a new flow that finds both its groups full, or by `expire`;
until then it counts as a flow of its backend and of its source, and keeps its masquerade port.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from l4lb.dataplane.decision import State
from l4lb.dataplane.reference.counters import SharedCounters
from l4lb.dataplane.reference.ports import PoolPort
from l4lb.dataplane.reference.sources import Limits
from l4lb.dataplane.reference.states import is_open

GROUP = 16
TICK_MS = 100


class FlowKey(NamedTuple):
    """What tells flows apart. Addresses are 4 or 16 bytes."""

    client: bytes
    client_port: int
    vip: bytes
    vip_port: int
    protocol: int


@dataclass(slots=True, eq=False)
class FlowEntry:
    """A remembered flow; `deadline` is in units of 100 ms."""

    key: FlowKey
    slot: int
    state: State
    deadline: int
    packets: int
    octets: int
    source: PoolPort | None = None
    """What a masqueraded flow shows its backend."""

    def expired(self, now_ms: int) -> bool:
        """Whether the flow's time has run out."""
        return now_ms // TICK_MS >= self.deadline


Group = dict[FlowKey, FlowEntry]
"""At most `GROUP` flows. Which of its places a flow has does not matter, so none is kept here."""


class FlowTable:
    """Flows of one worker, counted by slot in `shared` and by source in `limits`."""

    def __init__(self, capacity: int, shared: SharedCounters, limits: Limits) -> None:
        self.capacity = 1 << (max(capacity, GROUP) - 1).bit_length()
        self._groups: list[Group] = [{} for _ in range(self.capacity // GROUP)]
        self._shared = shared
        self._limits = limits
        self._by_source: dict[PoolPort, FlowEntry] = {}

    @property
    def groups(self) -> int:
        """Groups of places."""
        return len(self._groups)

    @property
    def taken_ports(self) -> Collection[PoolPort]:
        """The masquerade ports that flows have."""
        return self._by_source.keys()

    def find_source(self, source: PoolPort) -> FlowEntry | None:
        """The flow, expired or not, that has this masquerade port."""
        return self._by_source.get(source)

    def __len__(self) -> int:
        return sum(map(len, self._groups))

    def __iter__(self) -> Iterator[FlowEntry]:
        return (entry for group in self._groups for entry in group.values())

    def find(self, key: FlowKey, hash_: int, now_ms: int) -> FlowEntry | None:
        """The flow of `key`; an expired one is removed and counts as unknown."""
        entry = self.peek(key, hash_)
        if entry is not None and entry.expired(now_ms):
            self.remove(entry, hash_)
            return None
        return entry

    def peek(self, key: FlowKey, hash_: int) -> FlowEntry | None:
        """The flow of `key`, expired or not."""
        first, second = self._groups_of(hash_)
        return first.get(key) or second.get(key)

    def find_room(self, hash_: int, now_ms: int) -> Group | None:
        """The group for a new flow, or None. Where both are full their expired flows are removed."""
        first, second = self._groups_of(hash_)
        if len(first) == len(second) == GROUP:
            self._expire(first, now_ms)
            self._expire(second, now_ms)
        emptier = second if len(second) < len(first) else first
        return emptier if len(emptier) < GROUP else None

    def insert(self, group: Group, entry: FlowEntry) -> None:
        """Remember `entry` in a group that `find_room` gave."""
        group[entry.key] = entry
        if entry.source is not None:
            self._by_source[entry.source] = entry
        self._count(entry, 1)
        self._limits.count(entry.slot, entry.key.client, 1)

    def renew(self, entry: FlowEntry, state: State, deadline: int) -> None:
        """Give a remembered flow its state and deadline after a packet."""
        was_active, is_active = entry.state is State.ESTABLISHED, state is State.ESTABLISHED
        change = is_open(state) - is_open(entry.state)
        self._shared.count(entry.slot, active=is_active - was_active, open=change)
        entry.state = state
        entry.deadline = deadline

    def remove(self, entry: FlowEntry, hash_: int) -> None:
        """Forget a remembered flow."""
        for group in self._groups_of(hash_):
            if entry.key in group:
                self._remove(group, entry)

    def expire(self, now_ms: int) -> int:
        """Remove every expired flow; returns how many."""
        return sum(self._expire(group, now_ms) for group in self._groups)

    def remove_slot(self, slot: int, first_group: int, groups: int) -> int:
        """Forget the flows of `slot` in some groups; returns how many there were."""
        removed = 0
        for group in self._groups[first_group : first_group + groups]:
            for entry in [entry for entry in group.values() if entry.slot == slot]:
                self._remove(group, entry)
                removed += 1
        return removed

    def _groups_of(self, hash_: int) -> tuple[Group, Group]:
        mask = len(self._groups) - 1
        mixed = hash_ * 0x9E37_79B9_7F4A_7C15 % (1 << 64)
        return self._groups[hash_ & mask], self._groups[(mixed >> 32) & mask]

    def _expire(self, group: Group, now_ms: int) -> int:
        expired = [entry for entry in group.values() if entry.expired(now_ms)]
        for entry in expired:
            self._remove(group, entry)
        return len(expired)

    def _remove(self, group: Group, entry: FlowEntry) -> None:
        del group[entry.key]
        if entry.source is not None:
            del self._by_source[entry.source]
        self._count(entry, -1)
        self._limits.count(entry.slot, entry.key.client, -1)

    def _count(self, entry: FlowEntry, change: int) -> None:
        active, open_ = entry.state is State.ESTABLISHED, is_open(entry.state)
        self._shared.count(entry.slot, flows=change, active=change * active, open=change * open_)
