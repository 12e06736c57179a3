"""Random sequences of packets, time and tables over both cores: they decide, count and remember alike.

Tables are small and timers short, so that flow tables fill and flows expire. `make fuzz` searches longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from l4lb.dataplane.table import Table, Timeouts
from l4lb.model import Scheduler
from tests.support.packets import patch, tcp, udp
from tests.support.tables import Slots, Svc, make_table
from tests.support.twins import Twins

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

# Service, what it listens on, and the endpoints that it may have.
SERVICES = [
    ("web", ("192.0.2.1:80/tcp",), ("10.2.0.11:8080", "10.2.0.12:8080", "10.2.0.13:8080")),
    ("alias", ("192.0.2.2:80/tcp",), ("10.2.0.11:8080", "10.2.0.12:8080")),
    ("range", ("192.0.2.1:7000-7002/udp", "192.0.2.1:90-91/tcp"), ("10.2.0.11", "10.2.0.21")),
    ("dns", ("192.0.2.1:53/udp", "192.0.2.2:53/udp"), ("10.2.0.41:5353", "10.2.0.42:5353")),
    ("six", ("[2001:db8:1::1]:80/tcp", "[2001:db8:1::1]:53/udp"), ("[fd00::11]:8080", "[fd00::12]:8080")),
]
PORTS = st.integers(40_000, 40_007)


@lru_cache(maxsize=1 << 12)
def cached_table(services: tuple[Svc, ...], replies_seen: bool) -> Table:
    return make_table(*services, slots=SLOTS, replies_seen=replies_seen, timeouts=TIMEOUTS)


@st.composite
def services(draw: st.DrawFn) -> tuple[Svc, ...]:
    chosen = []
    for name, listens, endpoints in SERVICES:
        if draw(st.integers(0, 7)) == 7:
            continue  # not configured
        weights = [draw(st.sampled_from([1, 1, 2, 3, 0, None, None])) for _ in endpoints]
        backends = tuple(
            f"{end} x{weight}" for end, weight in zip(endpoints, weights, strict=True) if weight is not None
        )
        chosen.append(Svc(name, listens, backends, draw(st.sampled_from(Scheduler))))
    return tuple(chosen)


tables = st.builds(cached_table, services(), st.booleans())


@lru_cache(maxsize=1 << 14)
def cached_packet(ends: tuple[str, str, str], flags: str, payload: int) -> bytes:
    source, destination, protocol = ends
    data = bytes(range(payload))
    return tcp(source, destination, flags, data) if protocol == "tcp" else udp(source, destination, data)


@st.composite
def listeners(draw: st.DrawFn) -> tuple[str, str, str, tuple[str, ...]]:
    """A client, a VIP that is or was configured, its protocol, and the endpoints behind it."""
    _, listens, endpoints = draw(st.sampled_from(SERVICES))
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
    """A packet to a service or from one of its backends, known or not."""
    client, vip, protocol, endpoints = draw(listeners())
    source, destination = client, vip
    if draw(st.booleans()):
        near = draw(st.sampled_from(endpoints))
        kept = vip.rpartition(":")[2]
        source, destination = near if ":" in near else f"{near}:{kept}", client
    return cached_packet((source, destination, protocol), draw(FLAGS), draw(st.sampled_from([0, 0, 3, 8])))


@st.composite
def talks(draw: st.DrawFn) -> Step:
    client, vip, protocol, _ = draw(listeners())
    senders = st.sampled_from("><")
    flags = draw(st.lists(st.tuples(senders, FLAGS), min_size=1, max_size=5))
    return Talk(client, vip, protocol, ((">", "S"), *flags))


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
        backend = ""
        for sender, flags in self.flags:
            if sender == ">":
                packet = cached_packet((self.client, self.vip, self.protocol), flags, 0)
                twins.ask(packet)
                backend = read_destination(twins.decide(packet).packet) or backend
            elif backend:
                twins.decide(cached_packet((backend, self.client, self.protocol), flags, 3))


def read_destination(packet: bytes | None) -> str:
    """Where a packet of `cached_packet` goes to."""
    if packet is None:
        return ""
    size = 4 if packet[0] == 0x45 else 16
    end = 20 if size == 4 else 40
    address, port = ip_address(packet[end - size : end]), int.from_bytes(packet[end + 2 : end + 4])
    return f"{address}:{port}" if size == 4 else f"[{address}]:{port}"


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
class Wait:
    milliseconds: int

    def take(self, twins: Twins) -> None:
        twins.now_ms += self.milliseconds


@dataclass(frozen=True)
class Publish:
    table: Table

    def take(self, twins: Twins) -> None:
        twins.publish(self.table)


@dataclass(frozen=True)
class Expire:
    def take(self, twins: Twins) -> None:
        twins.expire()


Step = Send | Talk | Flood | Ask | Wait | Publish | Expire


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
        st.builds(Publish, tables),
        st.builds(Publish, tables),
        st.builds(Ask, packets(), workers),
        st.just(Expire()),
    ),
    min_size=20,
    max_size=60,
)


@searching
@given(table=tables, capacity=st.sampled_from([1, 32]), steps=steps)
def test_the_cores_are_twins(table: Table, capacity: int, steps: list[Step]) -> None:
    twins = Twins(table, capacity=capacity, workers=2)
    for step in steps:
        step.take(twins)
    twins.compare()
    twins.now_ms += 10_000
    twins.expire()
    twins.compare()
    assert twins.native.balancers[0].flow_count() == 0
