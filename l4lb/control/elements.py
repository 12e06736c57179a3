"""The elements of the rules' sets and maps: what the nftables table knows of services and backends.

Sets that are asked about an address, a protocol and a port come in pairs: `NAME` holds single ports and is a
hash, `NAME_ranges` holds port ranges and is slower to ask; rules leave the empty one of a pair out.

| set or map | of the packet | means |
|---|---|---|
| vips | destination address | an address of some service |
| servers | source or destination address | an address of some backend that answers for a VIP |
| services | destination | balanced: to be queued |
| whole | destination | the same, and user space needs all of the packet (tunnels, masquerade) |
| guards | destination | the chain that asks who may be served |
| failing | destination | the chain for what user space did not decide |
| endpoints | source | from a backend that answers for a VIP |
| asked | source | the same, and user space must say for which VIP |
| answers | source | the chain that writes the one VIP that it can be |
| answer_marks | mark | the chain that writes the VIP that user space said |
| backends, ports | mark | the backend's address, and its port where packets have another |
| recalled | mark | the backend's address, for flows that the kernel has learned |
| restored | mark | the VIP that is written back behind the route (direct return) |
| hurried | mark | NAT that the fast path learns behind the route (`rules`) |
| kept | mark | those of `restored`: on Linux 6.1 a map cannot be asked whether it has a key |
| pools, pool | destination | an address of the masquerade pool; the queue of its port |
| icmp_targets | destination address | where ICMP errors about what we send go |
| tunnelled | mark | a check of a backend in a tunnel |
| quoted | address in an ICMP error | an address of some backend |

The sets of addresses are asked first, for they are quick to say that a packet is none of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network

from l4lb.control.check_way import asks_vip
from l4lb.dataplane.table import ReplyFrontend, ServiceEntry, Table, forward_mark, reply_mark
from l4lb.model import Forward, OnFailure, Protocol, Service

Place = tuple[bytes, int, int, int, str]
"""Address, protocol, first and last port, and what follows it in a map."""
Endpoint = tuple[bytes, int, int, int, tuple[ReplyFrontend, ...]]
SIZES = {4: 4, 6: 16}


def families(table: Table) -> list[int]:
    """The IP versions that a table has to do with."""
    found = {len(address) for address, _ in (*table.vips, *table.endpoints)}
    found |= {len(backend.address) for service in table.services for backend in service.backends}
    return [version for version, size in SIZES.items() if size in found]


def frontends(table: Table) -> dict[int, tuple[Protocol, ReplyFrontend]]:
    """Every frontend with its protocol, by index."""
    return {
        frontend.index: (Protocol(protocol), frontend)
        for (_, protocol), segments in table.endpoints.items()
        for segment in segments
        for frontend in segment.frontends
    }


def collect_elements(
    table: Table, services: Sequence[Service], previous: Table | None, *, marks: bool
) -> dict[str, list[str]]:
    """The elements of every set and map, by its name, as nft writes them.

    `services` are those that `table` was made of. With `marks` the kernel carries decisions out. The marks of
    `previous` stay known: a packet that was decided by it may still be on its way.
    """
    known = [t for t in (previous, table) if t is not None]
    hashed = {service.name for service in services if service.on_failure is OnFailure.HASH}
    found: dict[str, list[str]] = {}
    for family, size in SIZES.items():
        endpoints = [endpoint for endpoint in _endpoints(table) if len(endpoint[0]) == size]
        # Where user space is asked, the kernel can still answer for it if it has to.
        single = [e for e in endpoints if len(e[4]) == 1 and (marks or hashed)]
        several = [e for e in endpoints if len(e[4]) > 1 or not marks]
        places = [place for place in _places(table) if len(place[1][0]) == size]
        pairs: dict[str, Iterable[Place]] = {
            "services": (place for entry, place in places if not needs_whole(entry)),
            "whole": (place for entry, place in places if needs_whole(entry)),
            "guards": _jumps(
                places, {s.name: f" : jump {guard_chain(s)}" for s in services if is_guarded(s)}
            ),
            "failing": _jumps(
                places,
                {
                    s.name: f" : goto {failure_chain(s)}"
                    for s in services
                    if s.on_failure is not OnFailure.DROP
                },
            ),
            "endpoints": ((*e[:4], "") for e in endpoints),
            "asked": ((*e[:4], "") for e in several),
            "answers": ((*e[:4], f" : goto {answer_chain(Protocol(e[1]), e[4][0])}") for e in single),
        }
        for name, several_places in pairs.items():
            found[f"{name}{family}"], found[f"{name}_ranges{family}"] = _split(several_places)
        vips = {address for address, _ in table.vips if len(address) == size}
        found[f"vips{family}"] = [text(vip) for vip in sorted(vips)]
        servers = {endpoint[0] for endpoint in endpoints}
        found[f"servers{family}"] = [text(server) for server in sorted(servers)]
        found[f"answer_marks{family}"] = [
            f"{reply_mark(index):#x} : goto {answer_chain(protocol, frontend)}"
            for index, (protocol, frontend) in frontends(table).items()
            if marks and len(frontend.address) == size
        ]
        carried = dict(_carried(known, hashed, marks=marks, size=size))
        found[f"backends{family}"] = [f"{mark:#x} : {text(address)}" for mark, address in carried.items()]
        # No `previous` here: a learned flow must not outlive its backend.
        gone = table.resets | table.moves
        recalled = (
            dict(_carried([table], set(), marks=marks, size=size, without=gone)) if table.learns else {}
        )
        found[f"recalled{family}"] = [f"{mark:#x} : {text(address)}" for mark, address in recalled.items()]
        restored = [(mark, vip) for mark, vip in _restored(known) if len(vip) == size]
        found[f"restored{family}"] = [f"{mark:#x} : {text(vip)}" for mark, vip in restored]
        found[f"kept{family}"] = [f"{mark:#x}" for mark, _ in restored]
        found[f"pools{family}"] = [text(address) for address in table.pool if len(address) == size]
        found[f"icmp_targets{family}"] = _icmp_targets(table, size)
        found[f"quoted{family}"] = [f"0x{address.hex()}" for address in _quoted(table, size)]
    found["tunnelled"] = [
        f"{forward_mark(backend.slot):#x}"
        for service, entry in zip(services, table.services, strict=True)
        if entry.forward.is_tunnel
        for configured, backend in zip(service.backends, entry.backends, strict=True)
        if asks_vip(service, configured)
    ]
    found["ports"] = [
        f"{forward_mark(slot):#x} : {port}"
        for slot, port in _changed_ports(known, hashed, marks=marks).items()
    ]
    return found


def needs_whole(entry: ServiceEntry) -> bool:
    """Whether user space needs all of each packet, one segment at a time."""
    return entry.forward.is_tunnel or entry.forward is Forward.MASQUERADE


def is_guarded(service: Service) -> bool:
    """Whether some clients are not served."""
    return bool(service.allow or service.deny)


def guard_chain(service: Service) -> str:
    """The chain that drops who may not be served."""
    return f"guard_{service.name}"


def failure_chain(service: Service) -> str:
    """The chain for what user space did not decide."""
    return f"failed_{service.name}" if service.on_failure is OnFailure.HASH else "pass"


def answer_chain(protocol: Protocol, frontend: ReplyFrontend) -> str:
    """The chain that writes a VIP as the source: `from_203.0.113.10_tcp_80`.

    Named by what it writes, so that it stays the same when the configuration around it changes.
    """
    address = text(frontend.address).replace(":", "-")
    return f"from_{address}_{protocol.name.lower()}_{frontend.port or 'any'}"


@lru_cache(maxsize=1 << 17)
def text(address: bytes) -> str:
    """An address of 4 or 16 bytes as people write it. Kept, for each is written in several sets at every
    change."""
    return str(ip_address(address))


def _places(table: Table) -> Iterator[tuple[ServiceEntry, Place]]:
    for (address, protocol), ranges in table.vips.items():
        for r in ranges:
            yield table.services[r.service], (address, protocol, r.first, r.last, "")


def _jumps(places: Iterable[tuple[ServiceEntry, Place]], chains: dict[str, str]) -> Iterator[Place]:
    for entry, place in places:
        if entry.name in chains:
            yield (*place[:4], chains[entry.name])


def _endpoints(table: Table) -> Iterator[Endpoint]:
    for (address, protocol), segments in table.endpoints.items():
        for segment in segments:
            yield address, protocol, segment.first, segment.last, segment.frontends


def frontends_with_other_ports(table: Table) -> set[int]:
    """The frontends with a port that some backend answers from another port for."""
    return {
        frontend.index
        for segments in table.endpoints.values()
        for segment in segments
        for frontend in segment.frontends
        if frontend.port and (segment.first, segment.last) != (frontend.port, frontend.port)
    }


def _carried(
    tables: Iterable[Table],
    hashed: set[str],
    *,
    marks: bool,
    size: int,
    without: frozenset[int] = frozenset(),
) -> Iterator[tuple[int, bytes]]:
    """Mark and address of every backend that the kernel sends packets to.

    Those of a later table come before those of an earlier one.
    """
    for table in tables:
        for service in table.services:
            vips = len(service.vips) if service.forward is Forward.DSR else 1
            if needs_whole(service) or not (vips and _is_carried(service, hashed, marks=marks)):
                continue
            for backend in service.backends:
                if len(backend.address) == size and backend.slot not in without:
                    for n in range(vips):
                        yield forward_mark(backend.slot, n), backend.address


def _is_carried(service: ServiceEntry, hashed: set[str], *, marks: bool) -> bool:
    return marks or service.forward is Forward.DSR or service.name in hashed


def _restored(tables: Iterable[Table]) -> list[tuple[int, bytes]]:
    found = {
        forward_mark(backend.slot, n): vip
        for table in tables
        for service in table.services
        if service.forward is Forward.DSR
        for n, vip in enumerate(service.vips)
        for backend in service.backends
    }
    return list(found.items())


def _icmp_targets(table: Table, size: int) -> list[str]:
    networks = {ip_network((address, size * 8)) for address in table.pool if len(address) == size}
    for service in table.services:
        for backend in service.backends:
            if service.forward.is_tunnel and len(backend.source) == size:
                networks.add(ip_network((backend.source, backend.source_prefix)))
    # An interval set takes no overlaps.
    apart = [n for n in networks if not any(n != other and n.subnet_of(other) for other in networks)]  # type: ignore[arg-type]
    return [str(network) for network in sorted(apart, key=str)]


def _quoted(table: Table, size: int) -> list[bytes]:
    addresses = {address for address, _ in table.endpoints}
    for service in table.services:
        if service.forward is Forward.DSR:
            addresses |= {backend.address for backend in service.backends}
    return sorted(address for address in addresses if len(address) == size)


def _changed_ports(tables: Iterable[Table], hashed: set[str], *, marks: bool) -> dict[int, int]:
    """The port of every slot to which the kernel sends packets that come with another one."""
    found: dict[int, int] = {}
    for table in tables:
        asked: dict[int, set[int]] = {}
        for ranges in table.vips.values():
            for r in ranges:
                asked.setdefault(r.service, set()).update((r.first, r.last))
        for number, service in enumerate(table.services):
            if service.forward is not Forward.NAT or not _is_carried(service, hashed, marks=marks):
                continue
            for backend in service.backends:
                if backend.port and asked[number] != {backend.port}:
                    found[backend.slot] = backend.port
                else:
                    found.pop(backend.slot, None)
    return found


def _split(places: Iterable[Place]) -> tuple[list[str], list[str]]:
    """Elements with a single port, and those with a range; each with the value that follows it in a map."""
    single: list[str] = []
    ranges: list[str] = []
    for address, protocol, first, last, value in places:
        start = f"{text(address)} . {Protocol(protocol).name.lower()} . {first}"
        if first == last:
            single.append(start + value)
        else:
            ranges.append(f"{start}-{last}{value}")
    return single, ranges
