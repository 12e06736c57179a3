"""Expands the configuration into the `Table` that packets are decided by.

Listens become port ranges of a VIP; backends get their slots; answers get the segments of
`l4lb.control.replies`, with a frontend for each VIP, protocol and port that a backend's address and
port must be replaced with. A backend that keeps ports needs only the address replaced: its frontends have
port 0, one for each VIP and protocol.

The configuration has passed `l4lb.control.conflicts`: nothing overlaps, and everything has room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import NamedTuple, Protocol

from l4lb.control.affinity import affinity_prefix
from l4lb.control.alike import are_alike
from l4lb.control.pool import AddressPool, Path
from l4lb.control.replies import Claim, collect_claims, sweep
from l4lb.control.slots import SlotRegistry
from l4lb.dataplane import hashing as native_hashing
from l4lb.dataplane.custom import Guard
from l4lb.dataplane.table import BackendEntry, PortRange, ReplyFrontend, ReplySegment, ServiceEntry, Table
from l4lb.model import Address, Backend, Forward, L4Config, OnFailure, OnNoBackend, Scheduler, Service

LARGE_LOOKUP = 65537
"""Places of the table of the schedulers that choose by it: a prime, as Maglev needs."""
SMALL_LOOKUP = 16381
"""Places where the table only answers while the flow table is full."""

_DEFAULT_SOURCES = {4: (bytes([198, 18, 0, 0]), 15), 6: (bytes([1]) + bytes(15), 64)}
"""Where the outer source of IPIP is from unless configured: RFC 2544 and RFC 6666 keep these from being
used."""
_DEFAULT_NEW_FLOWS_S = 60
"""As many new flows as fill the table in the life of one that is never answered (SYN_RECV)."""

SHARED_LOOKUPS = (251, 1021, 4093, 16381)
"""Places where the kernel has the table as well, as a list in a rule: the first with a hundred for each
backend."""

_BY_LOOKUP = frozenset({Scheduler.MAGLEV, Scheduler.SOURCE_HASH})


FrontendKey = tuple[bytes, int, int]
"""VIP, protocol and port (0: any)."""


class Hashing(Protocol):
    """`l4lb.dataplane.hashing` or its twin, `l4lb.dataplane.reference.hashing`."""

    def maglev_permutation(self, key: bytes, name: bytes, size: int) -> tuple[int, int]:
        """The offset and skip of a backend."""

    def maglev_lookup(
        self, permutations: Sequence[tuple[int, int]], weights: Sequence[int], slots: Sequence[int], size: int
    ) -> bytes:
        """The slot of a backend for each place."""


class _Member(NamedTuple):
    """A backend as its Maglev table sees it; sorts by name."""

    name: str
    weight: int
    slot: int


class _Lookup(NamedTuple):
    """All that the content of a Maglev table depends on."""

    key: bytes
    size: int
    members: tuple[_Member, ...]


class LookupCache:
    """The Maglev tables of the last expansion by service: one takes longer to fill than all else here."""

    def __init__(self) -> None:
        self._tables: dict[str, tuple[_Lookup, bytes]] = {}

    def fill(
        self, lookups: Mapping[str, _Lookup], hashing: Hashing, kept: Iterable[str] = ()
    ) -> dict[str, bytes]:
        """The tables of `lookups`. Those of the last time are taken over; those that are not asked for, and
        are not of the services that are `kept`, are forgotten."""
        before = self._tables
        self._tables = {name: before[name] for name in kept if name in before}
        for name, lookup in lookups.items():
            known = before.get(name)
            if known is None or known[0] != lookup:
                known = lookup, _fill_lookup(lookup, hashing)
            self._tables[name] = known
        return {name: self._tables[name][1] for name in lookups}


Custom = Callable[[Service], Guard | None]
"""The user's own scheduler of a service, if it has one that is loaded."""


def no_custom(_: Service) -> None:
    """Where no code of users is run."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an expansion depends on besides the configuration: the host, and how the daemon runs.

    `paths` has the way to every backend of a mode that `needs_paths`. `key` is the 16-byte hash key, `seed`
    that of the hash in the kernel's rules.
    """

    key: bytes
    seed: int = 0
    replies_seen: bool = False
    learns: bool = False
    workers: int = 1
    paths: Mapping[Address, Path] = field(default_factory=dict)
    pool: AddressPool = field(default_factory=AddressPool)
    custom: Custom = no_custom


@dataclass(frozen=True, slots=True)
class Expansion:
    """A table with all that it was made of, but for the slots."""

    config: L4Config
    around: Surroundings
    table: Table


def needs_paths(forward: Forward) -> bool:
    """Whether it has to be known how the host reaches the backends."""
    return forward is not Forward.NAT


def expand(
    config: L4Config,
    slots: SlotRegistry,
    around: Surroundings,
    *,
    lookups: LookupCache | None = None,
    indices: Mapping[FrontendKey, int] | None = None,
    hashing: Hashing = native_hashing,
    previous: Expansion | None = None,
) -> Table:
    """The table of `config`, for whose backends `slots` has slots and `around.pool` addresses.

    `lookups` is kept by the caller from one expansion to the next. Frontends keep the indices that they had
    in the table of `previous`, for answers marked with them may be on their way, or without it those of
    `indices` (`frontend_indices`). What is as it was in `previous` is taken over; `slots` are then a later
    state of the slots that it was made with.
    """
    entries = _kept_entries(config, around, previous)
    fresh = [service for service in config.services if service.name not in entries]
    backends = {service.name: _expand_backends(config, service, slots, around) for service in fresh}
    tables = (lookups or LookupCache()).fill(
        {service.name: _lookup(service, backends[service.name], around.key) for service in fresh},
        hashing,
        kept=entries,
    )
    for service in fresh:
        entries[service.name] = _entry(service, backends[service.name], tables[service.name], around)
    services = tuple(entries[service.name] for service in config.services)
    if previous is not None and previous.around == around and are_alike(previous.config, config):
        vips, endpoints = previous.table.vips, previous.table.endpoints
    else:
        known = frontend_indices(previous.table) if previous else indices or {}
        vips = _expand_vips(config.services)
        endpoints = _expand_endpoints(config.services, [entry.backends for entry in services], known)
    new_flows = config.flows.new_flows or config.flows.capacity // _DEFAULT_NEW_FLOWS_S
    return Table(
        services=services,
        vips=vips,
        endpoints=endpoints,
        replies_seen=around.replies_seen,
        learns=around.learns,
        new_flows=max(1, new_flows // around.workers),
        pool=tuple(address.packed for address in around.pool.addresses),
        gue_port=config.tunnel.port,
    )


def _kept_entries(
    config: L4Config, around: Surroundings, previous: Expansion | None
) -> dict[str, ServiceEntry]:
    """The entries of the services that are what they were, by name."""
    if previous is None or (previous.around, previous.config.tunnel) != (around, config.tunnel):
        return {}
    before = {
        service.name: (service, entry)
        for service, entry in zip(previous.config.services, previous.table.services, strict=True)
    }
    kept = {}
    for service in config.services:
        known, entry = before.get(service.name, (None, None))
        # The user's own scheduler is no part of the configuration: its module may have been loaded anew.
        if entry is not None and known == service and entry.custom is around.custom(service):
            kept[service.name] = entry
    return kept


def _entry(
    service: Service, backends: tuple[BackendEntry, ...], lookup: bytes, around: Surroundings
) -> ServiceEntry:
    return ServiceEntry(
        name=service.name,
        scheduler=service.scheduler,
        backends=backends,
        lookup=lookup,
        forward=service.forward,
        vips=_vips(service),
        source_new_flows=service.limits.new_flows or 0,
        source_flows=service.limits.flows or 0,
        kernel_seed=around.seed if service.on_failure is OnFailure.HASH else None,
        rejects=service.on_no_backend is OnNoBackend.REJECT,
        affinity_prefix=affinity_prefix(service),
        affinity_ms=round(service.affinity.timeout_s * 1000) if service.affinity else 0,
        affinity_group=service.affinity.group if service.affinity else None,
        one_packet=service.one_packet,
        custom=around.custom(service),
    )


def _vips(service: Service) -> tuple[bytes, ...]:
    """With direct return those that marks tell apart; with tunnels the one that checks ask."""
    vips = tuple(dict.fromkeys(listen.address.packed for listen in service.listens))
    if service.forward.is_tunnel:
        return vips[:1]
    return vips if service.forward is Forward.DSR else ()


def _expand_backends(
    config: L4Config, service: Service, slots: SlotRegistry, around: Surroundings
) -> tuple[BackendEntry, ...]:
    return tuple(_expand_backend(config, service, backend, slots, around) for backend in service.backends)


def _expand_backend(
    config: L4Config, service: Service, backend: Backend, slots: SlotRegistry, around: Surroundings
) -> BackendEntry:
    keeps_port = service.forward.answers_itself
    entry = BackendEntry(
        slot=slots.slot(service.name, backend.name),
        address=backend.address.packed,
        port=0 if keeps_port else backend.port or 0,
        weight=backend.weight,
        max_connections=backend.max_connections or 0,
        sorry=backend.sorry,
    )
    if service.forward is Forward.MASQUERADE:
        return replace(entry, pool=around.pool.range_for(backend, around.paths))
    if service.forward.is_tunnel:
        path = around.paths[backend.address]
        source, prefix = _tunnel_source(config, service.forward, backend, path)
        return replace(entry, mtu=path.mtu, source=source, source_prefix=prefix)
    return entry


def _tunnel_source(config: L4Config, forward: Forward, backend: Backend, path: Path) -> tuple[bytes, int]:
    """The network, as address and prefix length, that the outer source is taken from."""
    version = backend.address.version
    for network in config.tunnel.sources:
        if network.version == version:
            return network.network_address.packed, network.prefixlen
    if forward is Forward.GUE:
        return path.source.packed, backend.address.max_prefixlen
    return _DEFAULT_SOURCES[version]


def _expand_vips(services: Sequence[Service]) -> dict[tuple[bytes, int], tuple[PortRange, ...]]:
    vips: dict[tuple[bytes, int], list[PortRange]] = {}
    for number, service in enumerate(services):
        for listen in service.listens:
            ranges = vips.setdefault((listen.address.packed, int(listen.protocol)), [])
            ranges.append(PortRange(listen.first_port, listen.last_port, number))
    return {vip: tuple(sorted(ranges, key=lambda r: r.first)) for vip, ranges in vips.items()}


def _expand_endpoints(
    services: Sequence[Service],
    entries: Sequence[tuple[BackendEntry, ...]],
    known: Mapping[FrontendKey, int],
) -> dict[tuple[bytes, int], tuple[ReplySegment, ...]]:
    indices = dict(known)
    taken = set(indices.values())
    free = (index for index in count() if index not in taken)

    def frontend(claim: Claim) -> ReplyFrontend:
        listen = services[claim.service].listens[claim.listen]
        backend = entries[claim.service][claim.backend]
        vip, port = listen.address.packed, listen.first_port if backend.port else 0
        identity = (vip, int(listen.protocol), port)
        if identity not in indices:
            indices[identity] = next(free)
        index = indices[identity]
        return ReplyFrontend(index, vip, port, backend.slot)

    endpoints: dict[tuple[bytes, int], tuple[ReplySegment, ...]] = {}
    for (address, protocol), claims in collect_claims(services).items():
        segments: list[ReplySegment] = []
        for first, last, here in sweep(claims):
            frontends = tuple(map(frontend, here))
            if segments and segments[-1].last == first - 1 and segments[-1].frontends == frontends:
                first = segments.pop().first
            segments.append(ReplySegment(first, last, frontends))
        endpoints[address, int(protocol)] = tuple(segments)
    return endpoints


def frontend_indices(table: Table) -> dict[FrontendKey, int]:
    """The index of every frontend of a table, by VIP, protocol and port."""
    return {
        (frontend.address, protocol, frontend.port): frontend.index
        for (_, protocol), segments in table.endpoints.items()
        for segment in segments
        for frontend in segment.frontends
    }


def _lookup(service: Service, entries: tuple[BackendEntry, ...], key: bytes) -> _Lookup:
    members = sorted(
        _Member(backend.name, weight, entry.slot)
        for backend, entry, weight in zip(service.backends, entries, _lookup_weights(service), strict=True)
    )
    size = LARGE_LOOKUP if service.scheduler in _BY_LOOKUP else SMALL_LOOKUP
    if service.on_failure is OnFailure.HASH:
        wanted = 100 * len(members)
        size = next((places for places in SHARED_LOOKUPS if places >= wanted), SHARED_LOOKUPS[-1])
    return _Lookup(key, size, tuple(members))


def _lookup_weights(service: Service) -> list[int]:
    """With failover what is hashed goes where all goes: to the first."""
    weights = [backend.weight for backend in service.backends]
    if service.scheduler is not Scheduler.FAILOVER:
        return weights
    first = next((number for number, weight in enumerate(weights) if weight), None)
    return [int(number == first) for number in range(len(weights))]


def _fill_lookup(lookup: _Lookup, hashing: Hashing) -> bytes:
    key, size, members = lookup
    permutations = [hashing.maglev_permutation(key, member.name.encode(), size) for member in members]
    weights, slots = [member.weight for member in members], [member.slot for member in members]
    return hashing.maglev_lookup(permutations, weights, slots, size)
