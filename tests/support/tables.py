"""Small tables for the packet path, made of a few words.

    web = Svc("web", ["192.0.2.1:80/tcp"], ["10.2.0.11:8080", "10.2.0.12:8080 x3"])
    make_table(web)
    far = Svc("far", ["192.0.2.2:80/tcp"], ["10.3.0.11"], forward=Forward.GUE, mtu=1400)
    kept = Svc("kept", ["192.0.2.3:80/tcp"], ["10.3.0.12:80"], forward=Forward.MASQUERADE, limits=(10, 100))
    make_table(far, kept, pool=("10.2.0.1", "10.2.0.2"))

It is no second `l4lb.control.expand`: enough for tests of the packet path, and independent of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from itertools import pairwise

from l4lb.dataplane.custom import Guard
from l4lb.dataplane.reference.hashing import maglev_permutation, maglev_table
from l4lb.dataplane.table import (
    BackendEntry,
    PortRange,
    ReplyFrontend,
    ReplySegment,
    ServiceEntry,
    Table,
    Timeouts,
)
from l4lb.model import FIRST_PORT, LAST_PORT, Backend, Forward, Listen, Protocol, Scheduler
from tests.support.cores import KEY

LOOKUP_SIZE = 251
"""Places of the Maglev tables: a prime, small enough to build one for every example."""


@dataclass(frozen=True)
class Svc:
    """A service. Listens: `192.0.2.1:80/tcp`, `:8000-8003/tcp`, `:any/udp`; backends: `10.2.0.11:8080`,
    `10.2.0.11` (port kept), each with ` x3` for weight 3, ` max2` for two connections and ` sorry` for the
    sorry server. `limits` are the new flows a second and the flows of one source, 0 for none; `sources` the
    networks of outer source addresses, one a family; `pool` the part of the table's pool that backends take,
    if not all of their family; `affinity` the bits of a client network and milliseconds, 0 for none, and
    `group` with whom it is shared."""

    name: str
    listens: Sequence[str]
    backends: Sequence[str]
    scheduler: Scheduler = Scheduler.ROUND_ROBIN
    forward: Forward = Forward.NAT
    limits: tuple[int, int] = (0, 0)
    mtu: int = 0
    sources: tuple[str, ...] = ("198.18.0.0/15", "100::/64")
    pool: tuple[int, int] | None = None
    kernel_seed: int | None = None
    affinity: tuple[int, int] = (0, 0)
    group: str | None = None
    one_packet: bool = False
    custom: Guard | None = None
    rejects: bool = False


@dataclass
class Slots:
    """Gives every backend of a service a slot and keeps it from table to table."""

    numbers: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, service: str, backend: Backend) -> int:
        return self.numbers.setdefault((service, backend.name), len(self.numbers))


def make_table(
    *services: Svc,
    slots: Slots | None = None,
    replies_seen: bool = True,
    timeouts: Timeouts | None = None,
    learns: bool = False,
    new_flows: int = 0,
    resets: Collection[int] = (),
    moves: Collection[int] = (),
    pool: Sequence[str] = (),
) -> Table:
    """A table of `services`; slots are numbered in the order of the text unless `slots` knows better.

    `pool` has the IPv4 addresses before the IPv6 ones: each backend takes all of its family.
    """
    slots = slots or Slots()
    entries = []
    vips: dict[tuple[bytes, int], list[PortRange]] = defaultdict(list)
    answers: dict[tuple[bytes, int], list[tuple[int, int, ReplyFrontend]]] = defaultdict(list)
    frontends: dict[tuple[bytes, int, int], int] = {}
    for number, service in enumerate(services):
        backends = [parse_backend(text) for text in service.backends]
        entries.append(_entry(service, backends, slots, pool))
        for listen in map(parse_listen, service.listens):
            vip, protocol = listen.address.packed, listen.protocol
            vips[vip, protocol].append(PortRange(listen.first_port, listen.last_port, number))
            for backend in backends if service.forward is Forward.NAT else ():
                for first, last, port in _answers(listen, backend):
                    index = frontends.setdefault((vip, protocol, port), len(frontends))
                    frontend = ReplyFrontend(index, vip, port, slots.of(service.name, backend))
                    answers[backend.address.packed, protocol].append((first, last, frontend))
    return Table(
        services=tuple(entries),
        vips={key: tuple(sorted(ranges, key=lambda r: r.first)) for key, ranges in vips.items()},
        endpoints={key: _segments(ranges) for key, ranges in answers.items()},
        replies_seen=replies_seen,
        timeouts=timeouts or Timeouts(),
        learns=learns,
        new_flows=new_flows,
        resets=frozenset(resets),
        moves=frozenset(moves),
        pool=tuple(ip_address(address).packed for address in pool),
    )


def parse_listen(text: str) -> Listen:
    where, _, protocol = text.rpartition("/")
    host, _, ports = where.rpartition(":")
    first, _, last = f"{FIRST_PORT}-{LAST_PORT}".partition("-") if ports == "any" else ports.partition("-")
    address = ip_address(host.strip("[]"))
    return Listen(address, Protocol[protocol.upper()], int(first), int(last or first))


def parse_backend(text: str) -> Backend:
    endpoint, *words = text.split()
    weight = next((word[1:] for word in words if word.startswith("x")), "1")
    most = next((word[3:] for word in words if word.startswith("max")), None)
    host, port = endpoint, None
    if "]:" in endpoint or ("." in endpoint and ":" in endpoint):
        host, _, number = endpoint.rpartition(":")
        port = int(number)
    return Backend(
        ip_address(host.strip("[]")),
        port,
        int(weight),
        sorry="sorry" in words,
        max_connections=int(most) if most else None,
    )


def _entry(service: Svc, backends: list[Backend], slots: Slots, pool: Sequence[str]) -> ServiceEntry:
    entries = tuple(_backend_entry(service, backend, slots, pool) for backend in backends)
    by_name = sorted(zip(backends, entries, strict=True), key=lambda pair: pair[0].name)
    permutations = [maglev_permutation(KEY, b.name.encode(), LOOKUP_SIZE) for b, _ in by_name]
    places = maglev_table(permutations, [b.weight for b, _ in by_name], LOOKUP_SIZE)
    lookup = memoryview(bytearray(2 * len(places))).cast("H")
    for place, index in enumerate(places):
        lookup[place] = by_name[index][1].slot
    is_dsr = service.forward is Forward.DSR
    vips = dict.fromkeys(parse_listen(text).address.packed for text in service.listens) if is_dsr else ()
    return ServiceEntry(
        service.name,
        service.scheduler,
        entries,
        lookup.tobytes(),
        service.forward,
        tuple(vips),
        *service.limits,
        service.kernel_seed,
        *service.affinity,
        service.group,
        service.one_packet,
        service.rejects,
        service.custom,
    )


def _backend_entry(service: Svc, backend: Backend, slots: Slots, pool: Sequence[str]) -> BackendEntry:
    version = backend.address.version
    entry = BackendEntry(
        slots.of(service.name, backend),
        backend.address.packed,
        backend.port or 0,
        backend.weight,
        max_connections=backend.max_connections or 0,
        sorry=backend.sorry,
    )
    if service.forward.is_tunnel:
        networks = map(ip_network, service.sources)
        source = next(network for network in networks if network.version == version)
        return replace(
            entry, mtu=service.mtu, source=source.network_address.packed, source_prefix=source.prefixlen
        )
    if service.forward is Forward.MASQUERADE:
        if service.pool is not None:
            return replace(entry, pool=service.pool)
        mine = [index for index, address in enumerate(pool) if ip_address(address).version == version]
        return replace(entry, pool=(mine[0], len(mine)) if mine else (0, 0))
    return entry


def _answers(listen: Listen, backend: Backend) -> list[tuple[int, int, int]]:
    """(first, last) source ports of the backend's answers and the frontend's port, 0 for the same."""
    if backend.port is None:
        return [(listen.first_port, listen.last_port, 0)]
    ports = range(listen.first_port, listen.last_port + 1)
    return [(backend.port, backend.port, port) for port in ports]


def _segments(ranges: list[tuple[int, int, ReplyFrontend]]) -> tuple[ReplySegment, ...]:
    """Overlapping ranges cut into disjoint ones."""
    cuts = sorted({first for first, _, _ in ranges} | {last + 1 for _, last, _ in ranges})
    segments = []
    for first, end in pairwise(cuts):
        here = tuple(frontend for low, high, frontend in ranges if low <= first and end - 1 <= high)
        if here:
            segments.append(ReplySegment(first, end - 1, here))
    return tuple(segments)
