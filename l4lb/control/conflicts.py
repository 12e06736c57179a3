"""The rules between the parts of a configuration, each of which is right in itself.

An address, protocol and port belong to one service; clients are of one address family; an answer can be told
apart from every other; nothing is balanced in a circle; the tables of the packet path have room; what acts on
health has a check to act on; what shares affinity has the same hosts (`affinity`); and what `modes` asks for.
The first rule that is broken raises ConfigError, of two services at the later one.

*Sharing a backend.* Only answers of `nat` come to the gateway from an endpoint, and have to be told apart.
Those of `masquerade` are told by the pool address and port that they go to, which no VIP or backend has; with
`dsr`, `ipip` and `gue` a server answers from the VIP, past the gateway. So services of different modes may
share backends and ports, and only those of `nat` are counted here.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from l4lb.control.affinity import check_affinity_groups
from l4lb.control.field import Field
from l4lb.control.message import quoted
from l4lb.control.modes import check_mode
from l4lb.control.placed import PlacedService
from l4lb.control.quorum_keys import check_quorum
from l4lb.control.replies import collect_claims, sweep
from l4lb.dataplane.table import MAX_CANDIDATES, MAX_FRONTENDS, MAX_SLOTS
from l4lb.model import Address, Backend, Forward, Listen, OnDown, Protocol, Scheduler

MAX_BACKENDS = MAX_SLOTS - 1
"""Backends of all services together."""
MAX_SERVICE_BACKENDS = 10_000
"""Backends of one service: the smaller Maglev table has 16381 places, and each backend needs one."""
MAX_LISTENS = MAX_FRONTENDS
MAX_PAIRS = 1 << 20
"""Pairs of a listen and a backend behind it in services of `nat`: each is a claim on an answer."""


def check_service(service: PlacedService) -> None:
    """The rules within one service."""
    if len(service.backends) > MAX_SERVICE_BACKENDS:
        raise service.backends[MAX_SERVICE_BACKENDS].error(
            f"a service has at most {MAX_SERVICE_BACKENDS} backends, this one has {len(service.backends)}; "
            "split the service"
        )
    _check_room([service])
    _check_families(service)
    _check_ports(service)
    check_mode(service)
    _check_doubles(service)
    _check_backups(service)
    check_quorum(service)
    _check_health_is_known(service)
    _check_reset(service)
    _check_overflow(service)
    _check_one_packet(service)


def check_metrics(endpoint: tuple[Address, int], field: Field, services: Sequence[PlacedService]) -> None:
    """A service takes what comes for its address and port before a program of this host sees it."""
    address, port = endpoint
    for service in services:
        for listen in service.value.listens:
            if (
                listen.address == address
                and listen.protocol is Protocol.TCP
                and listen.first_port <= port <= listen.last_port
            ):
                raise field.error(
                    f"service {quoted(service.value.name)} listens on {listen} and would get what comes "
                    "here; use another port"
                )


def check_services(services: Sequence[PlacedService]) -> None:
    """The rules between services."""
    _check_names(services)
    _check_overlaps(services)
    _check_circles(services)
    _check_room(services)
    _check_answers(services)
    _check_unremembered(services)
    check_affinity_groups(services)


def _check_families(service: PlacedService) -> None:
    """Clients speak one family; the backends' is a matter of the mode."""
    first = service.value.listens[0]
    for listen, field in zip(service.value.listens, service.listens, strict=True):
        if listen.address.version != first.address.version:
            raise field.error(
                f"is IPv{listen.address.version}, but the service listens on {first}; "
                "use one service a family"
            )
    for network, field in service.networks:
        if network.version != first.address.version:
            raise field.error(
                f"is IPv{network.version}, but the service listens on {first}; "
                f"use IPv{first.address.version} networks"
            )


def _check_ports(service: PlacedService) -> None:
    listen = max(service.value.listens, key=lambda listen: listen.last_port - listen.first_port)
    ports = listen.last_port - listen.first_port + 1
    if ports == 1:
        return
    for backend, field in zip(service.value.backends, service.backends, strict=True):
        if backend.port is not None:
            raise field.error(
                f"a range of {ports} ports ({listen}) cannot go to one port; "
                "leave the port out, so that packets keep theirs"
            )


def _check_doubles(service: PlacedService) -> None:
    seen: dict[tuple[Address, int | None], Field] = {}
    for backend, field in zip(service.value.backends, service.backends, strict=True):
        # One that keeps the port of a listen is the same server as one with that port.
        same: list[int | None] = [backend.port]
        if backend.port is None:
            same += [listen.first_port for listen in service.value.listens]
        elif any(listen.first_port == backend.port for listen in service.value.listens):
            same.append(None)
        for port in same:
            if other := seen.get((backend.address, port)):
                raise field.error(f"{backend.name} is the same server as {other.path}; remove one of the two")
        seen[backend.address, backend.port] = field


def _check_backups(service: PlacedService) -> None:
    if all(backend.backup or backend.sorry for backend in service.value.backends):
        raise service.keys["backends"].error(
            "all of them are backups, with nothing to be a backup for; make at least one an ordinary one"
        )


def _check_health_is_known(service: PlacedService) -> None:
    value = service.value
    if value.health or value.passive:
        return
    for key, given in (("slow_start", value.slow_start_s), ("panic_threshold", value.panic_threshold)):
        if given:
            raise service.keys[key].error(
                "without a check no backend goes down or comes up; add health or passive, or remove it"
            )


def _check_reset(service: PlacedService) -> None:
    """Only TCP has a way to tell a client that its connection is over."""
    value = service.value
    if value.on_down is OnDown.RESET and all(listen.protocol is Protocol.UDP for listen in value.listens):
        raise service.keys["on_down"].error("reset is for TCP, and the service listens on UDP only; use move")


def _check_overflow(service: PlacedService) -> None:
    if service.value.scheduler is not Scheduler.OVERFLOW:
        return
    for backend, field in zip(service.value.backends, service.backends, strict=True):
        if backend.max_connections is None and backend.weight == 1 and not backend.sorry:
            raise field.error(
                "with overflow it has to be known how many connections a backend may have; "
                "give it max_connections, or a weight above 1, which then says it"
            )


def _check_one_packet(service: PlacedService) -> None:
    """Nothing is remembered of a datagram, so nothing that depends on that has an effect."""
    value = service.value
    if not value.one_packet:
        return
    protocols = {listen.protocol for listen in value.listens}
    field = service.keys["one_packet"]
    if Protocol.UDP not in protocols:
        raise field.error("is for datagrams, and the service listens on TCP only; remove it")
    if value.forward is Forward.MASQUERADE:
        raise field.error("with masquerade an answer needs a flow that is remembered; use nat, or remove it")
    if protocols != {Protocol.UDP}:
        return
    if value.limits.flows is not None or any(b.max_connections is not None for b in value.backends):
        raise field.error(
            "nothing is remembered that limits.flows or max_connections could count; remove these, or it"
        )


def _check_names(services: Sequence[PlacedService]) -> None:
    seen: dict[str, PlacedService] = {}
    for service in services:
        if other := seen.get(service.value.name):
            raise service.keys["name"].error(
                f"{quoted(service.value.name)} is the name of {other.field.path} too; change one of the two"
            )
        seen[service.value.name] = service


def _check_overlaps(services: Sequence[PlacedService]) -> None:
    """Inserts listen after listen; those before are disjoint, so only the neighbours can overlap."""
    taken: dict[tuple[Address, Protocol], list[tuple[int, Listen, PlacedService]]] = {}
    for service in services:
        for listen, field in zip(service.value.listens, service.listens, strict=True):
            ranges = taken.setdefault((listen.address, listen.protocol), [])
            at = bisect_left(ranges, listen.first_port, key=lambda entry: entry[0])
            for _, other, owner in ranges[max(at - 1, 0) : at + 1]:
                if other.first_port <= listen.last_port and listen.first_port <= other.last_port:
                    whose = "this service" if owner is service else f"service {quoted(owner.value.name)}"
                    raise field.error(
                        f"{listen} overlaps with {other} of {whose}; change or remove one of the two"
                    )
            ranges.insert(at, (listen.first_port, listen, service))


def _check_circles(services: Sequence[PlacedService]) -> None:
    vips = {listen.address: service for service in services for listen in service.value.listens}
    for service in services:
        for backend, field in zip(service.value.backends, service.backends, strict=True):
            if owner := vips.get(backend.address):
                raise field.error(
                    f"{backend.address} is an address that service {quoted(owner.value.name)} listens on, "
                    "packets would go in a circle; name the servers themselves"
                )


def _check_room(services: Sequence[PlacedService]) -> None:
    backends = listens = pairs = 0
    for service in services:
        # With direct return the kernel has a mark for each backend and VIP.
        vips = {listen.address for listen in service.value.listens}
        backends += len(service.backends) * (len(vips) if service.value.forward is Forward.DSR else 1)
        listens += len(service.listens)
        if service.value.forward is Forward.NAT:
            pairs += len(service.backends) * len(service.listens)
        for count, most, what in (
            (backends, MAX_BACKENDS, "backends"),
            (listens, MAX_LISTENS, "listens"),
            (pairs, MAX_PAIRS, "pairs of a listen and a backend"),
        ):
            if count > most:
                raise service.field.error(
                    f"with this service there are {count} {what}, and there is room for {most}; "
                    "divide the services between several balancers"
                )


def _check_answers(services: Sequence[PlacedService]) -> None:
    for (_, protocol), claims in collect_claims(service.value for service in services).items():
        if len(claims) <= MAX_CANDIDATES:
            continue
        for first, _, here in sweep(claims):
            if len(here) > MAX_CANDIDATES:
                one_too_many = here[MAX_CANDIDATES]
                service = services[one_too_many.service]
                backend = service.value.backends[one_too_many.backend]
                endpoint = f"{Backend(backend.address, first).name}/{protocol.name.lower()}"
                raise service.backends[one_too_many.backend].error(
                    f"{endpoint} would answer for more than {MAX_CANDIDATES} listens; "
                    "give the server further addresses or ports"
                )


def _check_unremembered(services: Sequence[PlacedService]) -> None:
    """The answer to a datagram of `one_packet` is of no flow, so its endpoint has to say whose it is."""
    if not any(service.value.one_packet for service in services):
        return
    for (_, protocol), claims in collect_claims(service.value for service in services).items():
        for _, _, here in sweep(claims) if protocol is Protocol.UDP else ():
            single = next((claim for claim in here if services[claim.service].value.one_packet), None)
            if single is None or len(here) == 1:
                continue
            listens = [str(services[claim.service].value.listens[claim.listen]) for claim in here]
            raise (
                services[single.service]
                .backends[single.backend]
                .error(
                    f"it answers for {' and '.join(listens)}, and with one_packet no flow says for which; "
                    "give the server an address or port for each"
                )
            )
