"""What the packet path reads: the configuration in the shape in which packets ask for it.

`l4lb.control.expand` builds a `Table`; the native core compiles it into flat arrays, the reference
reads it as it is. A table is immutable: a change publishes a new one.

*Slots.* A backend of a service is a small integer for as long as it is configured and any flow
remembers it, so flows and counters survive a change of the configuration around them.

*Marks* (the `mark` datapath): a packet on its way in carries `forward_mark(slot)`, one on its way
back `reply_mark(frontend)`. Where the kernel has to put the destination back (direct return), the mark also
says which of the service's VIPs it was; with `MARK_LEARN` the kernel is to remember the mark for the flow
(`offload`). `MARK_MASK` covers the bits that are ours while a packet is decided;
the others are the operator's and are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from l4lb.dataplane.custom import Guard
from l4lb.dataplane.decision import State
from l4lb.model import Forward, Scheduler

MAX_SLOTS = 1 << 16
MAX_FRONTENDS = 1 << 16
MAX_CANDIDATES = 16
"""Frontends that one backend endpoint may answer for."""

MARK_PENDING = 0x8000_0000
"""Set by the rules before a packet is queued; still set where user space never decided."""
MARK_DECIDED = 0x4000_0000
"""Set by the verdict, with what was decided."""
MARK_LEARN = MARK_PENDING | MARK_DECIDED
"""Decided, and to be remembered by the kernel."""
MAX_REJECTIONS = 1000
"""ICMP errors that a worker sends in a second because no backend takes new flows."""
LEARN_AFTER = 6
"""Packets from its client after which a flow is worth learning."""
MARK_REPLY = 0x0008_0000
MARK_INDEX = 0x0007_FFFF
MARK_VIP_SHIFT = 17
MAX_MARKED_VIPS = 4
"""VIPs of one service that a forward mark can tell apart: two bits above the slot's seventeen."""
MARK_MASK = MARK_PENDING | MARK_DECIDED | MARK_REPLY | MARK_INDEX


def forward_mark(slot: int, vip: int = 0) -> int:
    """The mark that sends a packet, which came for its service's VIP number `vip`, to the backend in
    `slot`."""
    return MARK_DECIDED | vip << MARK_VIP_SHIFT | (slot + 1)


def reply_mark(frontend: int) -> int:
    """The mark that gives an answer the source address and port of `frontend`."""
    return MARK_DECIDED | MARK_REPLY | (frontend + 1)


@dataclass(frozen=True, slots=True)
class BackendEntry:
    """A backend in its slot. `address` is 4 or 16 bytes; `port` 0 keeps the packet's port.

    Tunnels: `mtu` is the largest packet on the way to the backend (0: unknown, nothing is too big), and the
    outer source address is `source` with the bits behind `source_prefix` taken from the flow's hash.
    Masquerade: `pool` is the first of the addresses in `Table.pool` to choose from, and how many.
    With `max_connections` open flows it takes no new ones; 0 is no limit. A `sorry` server is no host that an
    affinity group could share.
    """

    slot: int
    address: bytes
    port: int
    weight: int
    mtu: int = 0
    source: bytes = b""
    source_prefix: int = 0
    pool: tuple[int, int] = (0, 0)
    max_connections: int = 0
    sorry: bool = False


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """A service with its backends in the order of the configuration.

    `lookup` is the Maglev table: slots, in native-endian 16-bit numbers, empty where no backend has weight.
    Every service has one, for it also answers when the flow table is full. `vips` numbers the VIPs of a
    service with direct return; with tunnels it has the one that checks ask. `source_new_flows` and
    `source_flows` are the limits of one client address, 0 for none. With a `kernel_seed` places of `lookup`
    are found by the hash that the kernel's rules have, so that both choose alike. New flows of a client, its
    address cut to `affinity_prefix` bits (0: no affinity; all of an address where it has fewer), go where the
    last one went, for `affinity_ms` milliseconds from that; services of one `affinity_group`, which have both
    alike, share that (`l4lb.dataplane.affinity_group`). `one_packet` remembers no UDP flow: every
    datagram is scheduled (not with masquerade, whose answers need a flow). With `rejects` clients are told
    where no backend takes new flows.
    `custom` chooses in place of the scheduler, which stands in where it has no answer.
    """

    name: str
    scheduler: Scheduler
    backends: tuple[BackendEntry, ...]
    lookup: bytes
    forward: Forward = Forward.NAT
    vips: tuple[bytes, ...] = ()
    source_new_flows: int = 0
    source_flows: int = 0
    kernel_seed: int | None = None
    affinity_prefix: int = 0
    affinity_ms: int = 0
    affinity_group: str | None = None
    one_packet: bool = False
    rejects: bool = False
    custom: Guard | None = None


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
    of TCP; otherwise states are those seen from the client's side alone. (Masqueraded flows are always seen
    from both sides, those with direct return and in tunnels never.) `learns` is true where the kernel
    remembers established flows (`offload`). `new_flows` is how many flows a second a worker remembers from
    their first packet, 0 for all. Flows to the slots in `resets` are given up: TCP clients are answered
    with a reset, UDP goes to another backend; flows to those in `moves` go to another backend with their
    next packet. Neither keeps a slot from new flows: that is what weight 0 does. `pool` are the source
    addresses of masquerade, `gue_port` the destination port of GUE.
    """

    services: tuple[ServiceEntry, ...]
    vips: Mapping[tuple[bytes, int], tuple[PortRange, ...]]
    endpoints: Mapping[tuple[bytes, int], tuple[ReplySegment, ...]]
    replies_seen: bool
    timeouts: Timeouts = field(default_factory=Timeouts)
    learns: bool = False
    new_flows: int = 0
    resets: frozenset[int] = frozenset()
    moves: frozenset[int] = frozenset()
    pool: tuple[bytes, ...] = ()
    gue_port: int = 6080


def learned_slots(table: Table) -> frozenset[int]:
    """The slots whose established flows the kernel remembers: not those whose flows are given up."""
    if not table.learns:
        return frozenset()
    return frozenset(
        backend.slot
        for service in table.services
        if service.forward in (Forward.NAT, Forward.DSR)
        for backend in service.backends
        if backend.slot not in table.resets and backend.slot not in table.moves
    )
