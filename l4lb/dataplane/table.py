"""What the packet path reads: the configuration in the shape in which packets ask for it.

`l4lb.control.expand` builds a `Table`; the native core compiles it into flat arrays, the reference
reads it as it is. A table is immutable: a change publishes a new one.

*Slots.* A backend of a service is a small integer for as long as it is configured and any flow
remembers it, so flows and counters survive a change of the configuration around them.

*Marks* (the `mark` datapath): a packet on its way in carries `forward_mark(slot)`, one on its way
back `reply_mark(frontend)`. `MARK_MASK` covers the bits that are ours while a packet is decided;
the others are the operator's and are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from l4lb.dataplane.decision import State
from l4lb.model import Scheduler

MAX_SLOTS = 1 << 16
MAX_FRONTENDS = 1 << 16
MAX_CANDIDATES = 16
"""Frontends that one backend endpoint may answer for."""

MARK_PENDING = 0x8000_0000
"""Set by the rules before a packet is queued; still set where user space never decided."""
MARK_DECIDED = 0x4000_0000
"""Set by the verdict, with what was decided."""
MARK_REPLY = 0x0008_0000
MARK_INDEX = 0x0007_FFFF
MARK_MASK = MARK_PENDING | MARK_DECIDED | MARK_REPLY | MARK_INDEX


def forward_mark(slot: int) -> int:
    """The mark that sends a packet to the backend in `slot`."""
    return MARK_DECIDED | (slot + 1)


def reply_mark(frontend: int) -> int:
    """The mark that gives an answer the source address and port of `frontend`."""
    return MARK_DECIDED | MARK_REPLY | (frontend + 1)


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """A backend in its slot. `address` is 4 or 16 bytes; `port` 0 keeps the packet's port."""

    slot: int
    address: bytes
    port: int
    weight: int


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """A service with its backends in the order of the configuration.

    `lookup` is the Maglev table: slots, in native-endian 16-bit numbers, empty where no backend has
    weight. Every service has one, for it also answers when the flow table is full.
    """

    name: str
    scheduler: Scheduler
    backends: tuple[BackendEntry, ...]
    lookup: bytes


@dataclass(frozen=True, slots=True)
class PortRange:
    """The inclusive port range of one VIP and protocol that belongs to `service`."""

    first: int
    last: int
    service: int


@dataclass(frozen=True, slots=True)
class ReplyFrontend:
    """What a backend's answer may have to look like.

    `index` numbers the (VIP, protocol, port) pairs of the whole table; `port` 0 keeps the packet's
    source port; `slot` is the backend that answers for it.
    """

    index: int
    address: bytes
    port: int
    slot: int


@dataclass(frozen=True, slots=True)
class ReplySegment:
    """Source ports of a backend address and protocol, and the frontends that they answer for."""

    first: int
    last: int
    frontends: tuple[ReplyFrontend, ...]


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Milliseconds that a flow stays in a state without a packet. The values are those of IPVS."""

    syn_recv: int = 60_000
    established: int = 900_000
    fin_wait: int = 120_000
    time_wait: int = 120_000
    close: int = 10_000
    close_wait: int = 60_000
    udp: int = 300_000

    def of(self, state: State) -> int:
        """Milliseconds for `state`; 0 for `State.NONE`."""
        return (
            0,
            self.syn_recv,
            self.established,
            self.fin_wait,
            self.time_wait,
            self.close,
            self.close_wait,
            self.udp,
        )[state]


@dataclass(frozen=True, slots=True)
class Table:
    """Everything that a decision needs besides the packet, the time and the flows.

    `vips` maps (address, protocol) to disjoint port ranges in ascending order; `endpoints` maps
    (backend address, protocol) to disjoint segments in ascending order. `replies_seen` is true
    where every answer passes the core (`rewrite`, `reference`), which then follows both directions
    of TCP; otherwise states are those seen from the client's side alone.
    """

    services: tuple[ServiceEntry, ...]
    vips: Mapping[tuple[bytes, int], tuple[PortRange, ...]]
    endpoints: Mapping[tuple[bytes, int], tuple[ReplySegment, ...]]
    replies_seen: bool
    timeouts: Timeouts = field(default_factory=Timeouts)
