"""Random sequences of packets, time and tables over both cores: they decide, count and remember alike.

Tables are small and timers short, so that flow tables fill and flows expire. `make fuzz` searches longer.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4lb.dataplane.custom import Guard
from l4lb.dataplane.decision import State
from l4lb.dataplane.selection import Order, Selection
from l4lb.dataplane.table import MAX_SLOTS, Table, Timeouts
from l4lb.model import Forward, Protocol, Scheduler
from tests.support.packets import packed, patch, tcp, udp
from tests.support.schedulers import Moody
from tests.support.tables import Slots, Svc, make_table
from tests.support.twins import FIRST_PORT, Twins, Workers

searching = settings(
    deadline=None,
    # The same examples in every run, unless the profile was chosen for searching.
    derandomize=settings.get_current_profile_name() != "fuzz",
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

TIMEOUTS = Timeouts(
    syn_recv=300, established=2_000, fin_wait=700, time_wait=500, close=100, close_wait=400, udp=600
)
SLOTS = Slots()

# Service, what it listens on, the endpoints that it may have, and how it may forward.
ANY_WAY = tuple(Forward)
TUNNELS = (Forward.IPIP, Forward.GUE)
SERVICES = [
    ("web", ("192.0.2.1:80/tcp",), ("10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080"), ANY_WAY),
    ("alias", ("192.0.2.2:80/tcp",), ("10.2.0.11:8080", "10.2.0.12:8080"), ANY_WAY),
    ("range", ("192.0.2.1:7000-7002/udp", "192.0.2.1:90-91/tcp"), ("10.2.0.11", "10.2.0.21"), ANY_WAY),
    ("dns", ("192.0.2.1:53/udp", "192.0.2.2:53/udp"), ("10.2.0.41:5353", "10.2.0.42:5353"), ANY_WAY),
    (
        "six",
        ("[2001:db8:1::1]:80/tcp", "[2001:db8:1::1]:53/udp"),
        ("[fd00::11]:8080", "[fd00::12]:8080"),
        ANY_WAY,
    ),
    ("over six", ("192.0.2.3:80/tcp", "192.0.2.3:53/udp"), ("fd00::31", "fd00::32"), TUNNELS),
    ("over four", ("[2001:db8:1::3]:80/tcp",), ("10.3.0.31", "10.3.0.32"), TUNNELS),
]
PORTS = st.integers(40_000, 40_007)
POOL = ("10.2.0.1", "10.2.0.2", "fd00::1")
POOL_PORTS = st.integers(FIRST_PORT - 1, FIRST_PORT + 2 * Workers.PORTS)
"""Those of both workers, and one beside them."""
SMALL_MTU, MTU = 70, 110
"""Just above a TCP packet without payload inside IPIP; with payload inside GUE over IPv6."""


@dataclass(frozen=True)
class Plan:
    """What a table is made of: it prints itself shorter than the table."""

    services: tuple[Svc, ...]
    replies_seen: bool
    learns: bool
    new_flows: int


@lru_cache(maxsize=1 << 12)
def cached_table(plan: Plan) -> Table:
    return make_table(
        *plan.services,
        slots=SLOTS,
        replies_seen=plan.replies_seen,
        timeouts=TIMEOUTS,
        learns=plan.learns,
        new_flows=plan.new_flows,
        pool=POOL,
    )


@st.composite
def services(draw: st.DrawFn) -> tuple[Svc, ...]:
    chosen = []
    for name, listens, endpoints, ways in SERVICES:
        if draw(st.integers(0, 7)) == 7:
            continue  # not configured
        most = draw(MOST)
        weights = [draw(st.sampled_from([1, 1, 2, 3, 0, None, None])) for _ in endpoints]
        backends = tuple(
            f"{end} x{weight}{draw(st.sampled_from(most))}{draw(SORRY)}"
            for end, weight in zip(endpoints, weights, strict=True)
            if weight is not None
        )
        forward = draw(st.sampled_from(ways))
        service = Svc(name, listens, backends, draw(st.sampled_from(Scheduler)), forward, draw(LIMITS))
        if forward.is_tunnel:
            service = replace(service, mtu=draw(st.sampled_from([0, SMALL_MTU, MTU])), sources=draw(SOURCES))
        elif forward is Forward.MASQUERADE and name != "six":
            service = replace(service, pool=draw(st.sampled_from([None, None, (0, 1), (1, 1), (0, 0)])))
        service = replace(
            service,
            affinity=draw(AFFINITIES),
            group=draw(GROUPS),
            one_packet=draw(st.sampled_from([False, False, True])),
            rejects=draw(st.booleans()),
        )
        service = replace(service, custom=draw(CUSTOM))
        chosen.append(replace(service, kernel_seed=draw(st.sampled_from([None, None, 0, 0xFFFF_FFFF]))))
    return tuple(chosen)


LIMITS = st.sampled_from([*[(0, 0)] * 5, (4, 0), (0, 6), (2, 5)])
SOURCES = st.sampled_from(
    [("198.18.0.0/15", "100::/64"), ("10.2.0.1/32", "fd00::1/128"), ("0.0.0.0/1", "fd00::/8")]
)
CUSTOM = st.sampled_from([*[None] * 5, Guard(Moody("any"))])
"""Without a state of its own, for both cores ask it."""
MOST = st.sampled_from([("",), ("", " max1", " max5"), (" max1", " max2")])
"""Connections that backends of a service may have."""
AFFINITIES = st.sampled_from([*[(0, 0)] * 3, (32, 1_000), (24, 400), (128, 150), (1, 2_000)])
GROUPS = st.sampled_from([None, None, "one", "one", "two"])
SORRY = st.sampled_from([*[""] * 7, " sorry"])
SLOT_NUMBERS = st.integers(0, sum(len(endpoints) for _, _, endpoints, _ in SERVICES))
GIVEN_UP = st.frozensets(SLOT_NUMBERS, max_size=8)
plans = st.builds(Plan, services(), st.booleans(), st.booleans(), st.sampled_from([0, 0, 0, 3]))


@lru_cache(maxsize=1 << 14)
def cached_packet(
    ends: tuple[str, str, str], flags: str, payload: int, ttl: int = 64, df: bool = False
) -> bytes:
    source, destination, protocol = ends
    data = bytes(range(payload))
    hops: dict[str, Any] = {"hlim" if source.startswith("[") else "ttl": ttl}
    packet = (
        tcp(source, destination, flags, data, **hops)
        if protocol == "tcp"
        else udp(source, destination, data, **hops)
    )
    # The flag leaves the header's checksum wrong, which is to stay wrong by the same.
    return patch(packet, 6, "40") if df and not source.startswith("[") else packet


@st.composite
def listeners(draw: st.DrawFn) -> tuple[str, str, str, tuple[str, ...]]:
    """A client, a VIP that is or was configured, its protocol, and the endpoints behind it."""
    _, listens, endpoints, _ = draw(st.sampled_from(SERVICES))
    vip, protocol = draw(st.sampled_from(listens)).split("/")
    host, _, ports = vip.rpartition(":")
    first, _, last = ports.partition("-")
    port = draw(st.integers(int(first), int(last or first)))
    client = (
        "[2001:db8::7]" if host.startswith("[") else draw(st.sampled_from(["198.51.100.7", "198.51.100.8"]))
    )
    return f"{client}:{draw(PORTS)}", f"{host}:{port}", protocol, endpoints


FLAGS = st.sampled_from(["S", "A", "PA", "FA", "R", "RA", "SA", "SF", "F", ""])


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """A packet to a service, or from one of its backends to a client or the pool, known or not."""
    client, vip, protocol, endpoints = draw(listeners())
    source, destination = client, vip
    towards = draw(st.sampled_from(["service", "client", "pool"]))
    if towards != "service":
        source, destination = from_endpoint(draw(st.sampled_from(endpoints)), vip), client
    if towards == "pool" or source.startswith("[") != destination.startswith("["):
        pool = "[fd00::1]" if source.startswith("[") else draw(st.sampled_from(POOL[:2]))
        destination = f"{pool}:{draw(POOL_PORTS)}"
    return cached_packet(
        (source, destination, protocol),
        draw(FLAGS),
        draw(st.sampled_from([0, 0, 3, 8, 60])),
        draw(st.sampled_from([64, 64, 64, 2, 1, 0])),
        draw(st.booleans()),
    )


def from_endpoint(endpoint: str, vip: str) -> str:
    """An endpoint with its port, or the VIP's where it keeps that."""
    if "]:" in endpoint or ("." in endpoint and ":" in endpoint):
        return endpoint
    host = f"[{endpoint}]" if ":" in endpoint else endpoint
    return f"{host}:{vip.rpartition(':')[2]}"


@st.composite
def talks(draw: st.DrawFn) -> Step:
    client, vip, protocol, _ = draw(listeners())
    senders = st.sampled_from("><")
    flags = draw(st.lists(st.tuples(senders, FLAGS), min_size=1, max_size=5))
    return Talk(client, vip, protocol, ((">", "S"), *flags))


@st.composite
def abandoned(draw: st.DrawFn) -> Step:
    client, vip, protocol, _ = draw(listeners())
    flags = draw(st.lists(FLAGS, min_size=1, max_size=3))
    return Abandon(
        client, vip, protocol, tuple(flags), draw(st.sampled_from([0, 3, 60])), draw(st.booleans())
    )


# Steps print themselves in an example that fails.


@dataclass(frozen=True)
class Send:
    packet: bytes
    worker: int = 0
    kernel: tuple[tuple[str, int], ...] = ()

    def take(self, twins: Twins) -> None:
        twins.decide(self.packet, worker=self.worker, **dict(self.kernel))


@dataclass(frozen=True)
class Talk:
    """Packets of one connection both ways, answered by whom the first of them reached."""

    client: str
    vip: str
    protocol: str
    flags: tuple[tuple[str, str], ...]
    """Who sends (`>` the client, `<` the backend), and TCP flags."""

    def take(self, twins: Twins) -> None:
        backend, shown = "", ""
        for sender, flags in self.flags:
            if sender == ">":
                packet = cached_packet((self.client, self.vip, self.protocol), flags, 0)
                twins.ask(packet)
                decision = twins.decide(packet)
                out = decision.packet
                if decision.slot >= 0 and out is not None and is_of(out, self.protocol):
                    shown, backend = read_ends(out)
            elif backend:
                twins.decide(cached_packet((backend, shown, self.protocol), flags, 3))


def is_of(packet: bytes, protocol: str) -> bool:
    """Whether a packet without extension headers has this transport; those of tunnels and ICMP have not."""
    return packet[9 if packet[0] >> 4 == 4 else 6] == Protocol[protocol.upper()]


def read_ends(packet: bytes) -> tuple[str, str]:
    """Where a packet like those of `cached_packet` comes from and goes to."""
    size, at = (4, 20) if packet[0] == 0x45 else (16, 40)
    hosts = (ip_address(packet[at - 2 * size : at - size]), ip_address(packet[at - size : at]))
    ports = (int.from_bytes(packet[at : at + 2]), int.from_bytes(packet[at + 2 : at + 4]))
    source, destination = (
        f"{host}:{port}" if size == 4 else f"[{host}]:{port}" for host, port in zip(hosts, ports, strict=True)
    )
    return source, destination


@dataclass(frozen=True)
class Flood:
    """Enough connections of one service to fill a worker's table."""

    first_port: int
    count: int

    def take(self, twins: Twins) -> None:
        for port in range(self.first_port, self.first_port + self.count):
            ends = (f"198.51.100.9:{port}", "192.0.2.1:80", "tcp")
            twins.decide(cached_packet(ends, "S", 0), rewrite=False)


@dataclass(frozen=True)
class Ask:
    packet: bytes
    worker: int

    def take(self, twins: Twins) -> None:
        twins.ask(self.packet, worker=self.worker)


@dataclass(frozen=True)
class AskSource:
    """Whose is this masquerade source?"""

    address: str
    port: int
    protocol: Protocol
    worker: int

    def take(self, twins: Twins) -> None:
        twins.ask_source((packed(self.address), self.port, self.protocol), worker=self.worker)


@dataclass(frozen=True)
class Wait:
    milliseconds: int

    def take(self, twins: Twins) -> None:
        twins.now_ms += self.milliseconds


@dataclass(frozen=True)
class Publish:
    plan: Plan

    def take(self, twins: Twins) -> None:
        twins.publish(cached_table(self.plan))


@dataclass(frozen=True)
class GiveUp:
    """The same table, with other slots whose flows are given up."""

    resets: frozenset[int]
    moves: frozenset[int]

    def take(self, twins: Twins) -> None:
        twins.publish(replace(twins.table, resets=self.resets, moves=self.moves))


@dataclass(frozen=True)
class Abandon:
    """A flow begins, its backend's flows are given up, and the client sends on."""

    client: str
    vip: str
    protocol: str
    flags: tuple[str, ...]
    payload: int
    is_reset: bool

    def take(self, twins: Twins) -> None:
        ends = (self.client, self.vip, self.protocol)
        slots = frozenset({twins.decide(cached_packet(ends, "S", 0)).slot} - {-1})
        GiveUp(*((slots, frozenset[int]()) if self.is_reset else (frozenset[int](), slots))).take(twins)
        for flags in self.flags:
            packet = cached_packet(ends, flags, self.payload)
            twins.ask(packet)
            twins.decide(packet)


@dataclass(frozen=True)
class Expire:
    def take(self, twins: Twins) -> None:
        twins.expire()


@dataclass(frozen=True)
class RemoveFlows:
    """Forget the flows of a slot in some of the groups, of which there are one or two."""

    slot: int
    first_group: int
    groups: int

    def take(self, twins: Twins) -> None:
        twins.remove_flows(self.slot, self.first_group, self.groups)


@dataclass(frozen=True)
class Select:
    """A page of flows, and the page behind each of its flows."""

    limit: int
    order: Order
    descending: bool
    state: State | None
    network: tuple[str, int] | None

    def take(self, twins: Twins) -> None:
        ranks = array("I", [(slot * 7919) % 5 for slot in range(MAX_SLOTS)]).tobytes()
        network = None if self.network is None else (packed(self.network[0]), self.network[1])
        wish = Selection(
            twins.now_ms, self.limit, self.order, self.descending, network, None, ranks, self.state
        )
        wish = replace(wish, timeouts=twins.table.timeouts)
        for flow in twins.select(wish):
            twins.select(replace(wish, after=wish.place_of(flow)))


Step = (
    Send | Talk | Flood | Ask | AskSource | Wait | Publish | GiveUp | Abandon | Expire | RemoveFlows | Select
)


@st.composite
def damaged(draw: st.DrawFn) -> Send:
    """A packet with some bytes changed, and cut or padded; a cut one has the length that it had."""
    packet = draw(packets())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(packet) - 1))
        packet = patch(packet, at, f"{draw(st.integers(0, 255)):02x}")
    have = draw(st.integers(0, len(packet) + 8))
    kernel: dict[str, int] = {name: draw(st.booleans()) for name in ("checksum_ready", "gso", "rewrite")}
    kernel["length"] = max(have, len(packet))
    return Send((packet + bytes(8))[:have], 0, tuple(kernel.items()))


workers = st.integers(0, 1)
sent = st.builds(Send, packets(), workers)
steps = st.lists(
    st.one_of(
        st.builds(Wait, st.sampled_from([0, 1, 99, 100, 250, 400, 1_000])),  # what examples shrink to
        sent,
        talks(),
        talks(),
        damaged(),
        st.builds(Flood, PORTS, st.integers(4, 24)),
        st.builds(Publish, plans),
        st.builds(Publish, plans),
        st.builds(GiveUp, GIVEN_UP, GIVEN_UP),
        abandoned(),
        st.builds(Ask, packets(), workers),
        st.builds(AskSource, st.sampled_from(POOL), POOL_PORTS, st.sampled_from(Protocol), workers),
        st.just(Expire()),
        st.builds(RemoveFlows, SLOT_NUMBERS, st.integers(0, 2), st.integers(0, 3)),
        st.builds(
            Select,
            st.integers(0, 8),
            st.sampled_from(Order),
            st.booleans(),
            st.sampled_from([None, State.ESTABLISHED, State.UDP]),
            st.sampled_from([None, None, ("198.51.100.0", 24), ("198.51.100.9", 29), ("2001:db8::", 32)]),
        ),
    ),
    min_size=20,
    max_size=60,
)


@searching
@given(plan=plans, capacity=st.sampled_from([1, 32]), steps=steps)
def test_the_cores_are_twins(plan: Plan, capacity: int, steps: list[Step]) -> None:
    twins = Twins(cached_table(plan), capacity=capacity, workers=2)
    for step in steps:
        step.take(twins)
    twins.compare()
    twins.now_ms += 10_000
    twins.expire()
    twins.compare()
    assert twins.native.balancers[0].flow_count() == 0
