"""The elements of the rules' sets and maps: what the nftables table knows of services and backends.

Sets that are asked about an address, a protocol and a port come in pairs: `NAME` holds single ports and is a
hash, `NAME_ranges` holds port ranges and is slower to ask; rules leave the empty one of a pair out.

| set or map | of the packet | means |
|---|---|---|
| vips | destination address | an address of some service |
| servers | source or destination address | an address of some backend |
| services | destination | balanced: to be queued |
| endpoints | source | from a backend that answers for a VIP |
| asked | source | the same, and user space must say for which VIP |
| answers | source | the chain that writes the one VIP that it can be |
| answer_marks | mark | the chain that writes the VIP that user space said |
| backends, ports | mark | the backend's address, and its port where packets have another |

The two sets of addresses are asked first, for they are quick to say that a packet is none of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from l4lb.dataplane.table import ReplyFrontend, Table, forward_mark, reply_mark
from l4lb.model import Protocol

Endpoint = tuple[bytes, int, int, int, tuple[ReplyFrontend, ...]]


def families(table: Table) -> list[int]:
    """The IP versions that a table has to do with."""
    sizes = {len(address) for address, _ in (*table.vips, *table.endpoints)}
    return [version for version, size in ((4, 4), (6, 16)) if size in sizes]


def frontends(table: Table) -> dict[int, tuple[Protocol, ReplyFrontend]]:
    """Every frontend with its protocol, by index."""
    return {
        frontend.index: (Protocol(protocol), frontend)
        for (_, protocol), segments in table.endpoints.items()
        for segment in segments
        for frontend in segment.frontends
    }


def collect_elements(table: Table, previous: Table | None, *, marks: bool) -> dict[str, list[str]]:
    """The elements of every set and map, by its name, as nft writes them.

    With `marks` the kernel carries decisions out. The marks of `previous` stay known: a packet that was
    decided by it may still be on its way.
    """
    known = [t for t in (previous, table) if t is not None]
    found: dict[str, list[str]] = {}
    for family in sorted({version for t in known for version in families(t)}):
        size = 4 if family == 4 else 16
        endpoints = [endpoint for endpoint in _endpoints(table) if len(endpoint[0]) == size]
        single = [e for e in endpoints if len(e[4]) == 1 and marks]
        several = [e for e in endpoints if len(e[4]) > 1 or not marks]
        pairs = {
            "services": _split(s for s in _services(table) if len(s[0]) == size),
            "endpoints": _split((*e[:4], "") for e in endpoints),
            "asked": _split((*e[:4], "") for e in several),
            "answers": _split((*e[:4], f" : goto {answer_chain(Protocol(e[1]), e[4][0])}") for e in single),
        }
        for name, (ports, ranges) in pairs.items():
            found[f"{name}{family}"], found[f"{name}_ranges{family}"] = ports, ranges
        vips = {address for address, _ in table.vips if len(address) == size}
        found[f"vips{family}"] = [text(vip) for vip in sorted(vips)]
        servers = {endpoint[0] for endpoint in endpoints}
        found[f"servers{family}"] = [text(server) for server in sorted(servers)]
        found[f"answer_marks{family}"] = [
            f"{reply_mark(index):#x} : goto {answer_chain(protocol, frontend)}"
            for index, (protocol, frontend) in frontends(table).items()
            if marks and len(frontend.address) == size
        ]
        found[f"backends{family}"] = [
            f"{forward_mark(slot):#x} : {text(address)}"
            for slot, (address, _) in _slots(known).items()
            if marks and len(address) == size
        ]
    if marks:
        found["ports"] = [f"{forward_mark(slot):#x} : {port}" for slot, port in _changed_ports(known).items()]
    else:
        found["ports"] = []
    return found


def answer_chain(protocol: Protocol, frontend: ReplyFrontend) -> str:
    """The chain that writes a VIP as the source: `from_203.0.113.10_tcp_80`.

    Named by what it writes, so that it stays the same when the configuration around it changes.
    """
    address = text(frontend.address).replace(":", "-")
    return f"from_{address}_{protocol.name.lower()}_{frontend.port or 'any'}"


def text(address: bytes) -> str:
    """An address of 4 or 16 bytes as people write it."""
    return str(ip_address(address))


def _services(table: Table) -> Iterator[tuple[bytes, int, int, int, str]]:
    for (address, protocol), ranges in table.vips.items():
        for r in ranges:
            yield address, protocol, r.first, r.last, ""


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


def _slots(tables: Iterable[Table]) -> dict[int, tuple[bytes, int]]:
    """Address and port of every slot; those of a later table come before those of an earlier one."""
    return {
        backend.slot: (backend.address, backend.port)
        for table in tables
        for service in table.services
        for backend in service.backends
    }


def _changed_ports(tables: Iterable[Table]) -> dict[int, int]:
    """The port of every slot to which packets come with another one."""
    found: dict[int, int] = {}
    for table in tables:
        asked: dict[int, set[int]] = {}
        for ranges in table.vips.values():
            for r in ranges:
                asked.setdefault(r.service, set()).update((r.first, r.last))
        for number, service in enumerate(table.services):
            for backend in service.backends:
                if backend.port and asked[number] != {backend.port}:
                    found[backend.slot] = backend.port
                else:
                    found.pop(backend.slot, None)
    return found


def _split(entries: Iterable[tuple[bytes, int, int, int, str]]) -> tuple[list[str], list[str]]:
    """Elements with a single port, and those with a range; each with the value that follows it in a map."""
    single: list[str] = []
    ranges: list[str] = []
    for address, protocol, first, last, value in entries:
        start = f"{text(address)} . {Protocol(protocol).name.lower()} . {first}"
        if first == last:
            single.append(start + value)
        else:
            ranges.append(f"{start}-{last}{value}")
    return single, ranges
