"""What is allowed and will probably be regretted: advice about a configuration, with reasons.

`advise` looks at values alone; `locate` says where in the file each advice is about. The rules are those by
which one chooses a balancer's settings: does the scheduler see how the servers differ, can what it counts be
counted, do clients come one to an address, does a session need its server, and are failures noticed early and
not too easily. Recommended are an interval of 5 to 10 s, two or three results before a change, and a timeout
of 3 to 5 s; what is said here begins where a setting does harm, not where it leaves the recommendation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network

from l4lb.control.affinity import group_of
from l4lb.control.field import Field
from l4lb.control.judgement import WEIGHTED
from l4lb.control.placed import PlacedConfig
from l4lb.control.quorum import needed_for
from l4lb.control.units import show_duration
from l4lb.model import (
    Backend,
    BelowQuorum,
    HealthCheck,
    L4Config,
    Network,
    Protocol,
    Quorum,
    Scheduler,
    Service,
)

Path = tuple[str | int, ...]

SHORT_INTERVAL_S = 1.0
"""Checks that come more often are a load of their own."""

_TURNS = (Scheduler.ROUND_ROBIN, Scheduler.WEIGHTED_ROUND_ROBIN)
_COUNTING = (Scheduler.LEAST_CONNECTIONS, Scheduler.WEIGHTED_LEAST_CONNECTIONS)
_PRIVATE = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
"""RFC 1918."""


@dataclass(frozen=True, slots=True)
class Advice:
    """`path` are the keys below the section that lead to what it is about, a default where the file says
    nothing; `text` is the reason and, after a semicolon, what to do.
    """

    path: Path
    text: str


def advise(config: L4Config) -> list[Advice]:
    """All that there is to say, service by service."""
    members = Counter(map(group_of, config.services))
    return [
        Advice(("services", number, *keys), text)
        for number, service in enumerate(config.services)
        for keys, text in _about(service, members)
    ]


def _about(service: Service, members: Counter[str | None]) -> Iterator[tuple[Path, str]]:
    """By the keys below the service; `members` says how many services an affinity group has."""
    for rule in _RULES:
        yield from rule(service)
    group = group_of(service)
    if group is not None and members[group] == 1:
        yield (
            ("affinity", "group"),
            "no other service is of this group, so nothing is shared; name it in another one, or remove it",
        )


def locate(config: PlacedConfig) -> list[tuple[str, str]]:
    """The advice about a file as (`FILE:LINE:COLUMN: KEY`, text), in the order of the file.

    Where the file leaves a key out, the place is that of what the key would stand in.
    """
    return place(advise(config.value), config.field)


def place(advices: Iterable[Advice], section: Field) -> list[tuple[str, str]]:
    """Advice about a section with its places, as `locate` returns it."""
    found = [(section.at(advice.path), advice.text) for advice in advices]
    found.sort(key=lambda pair: (pair[0].node.line, pair[0].node.column))
    return [(field.place, text) for field, text in found]


def _weights(service: Service) -> Iterator[tuple[Path, str]]:
    if (better := WEIGHTED.get(service.scheduler)) is None:
        return
    groups: dict[int, set[int]] = {}
    for backend in _taking(service):
        groups.setdefault(backend.backup, set()).add(backend.weight)
    if any(len(weights) > 1 for weights in groups.values()):
        yield (
            ("scheduler",),
            f"the backends' weights differ, and {service.scheduler} does not look at them; use {better}",
        )


def _shared_addresses(service: Service) -> Iterator[tuple[Path, str]]:
    """IPv6 clients have addresses of their own, and those of private networks are seen as they are."""
    if len(_taking(service)) < 2 or service.listens[0].address.version == 6:
        return
    if service.allow and all(_is_private(network) for network in service.allow):
        return
    if service.affinity is not None:
        yield (
            ("affinity",),
            "clients behind one NAT address all go to one backend; keep affinity only where sessions need "
            "it, or tell clients apart by a cookie at layer 7",
        )
    elif service.scheduler is Scheduler.SOURCE_HASH:
        yield (
            ("scheduler",),
            "clients behind one NAT address all go to one backend; use maglev, which hashes their ports too, "
            "unless sessions need this",
        )


def _sessions(service: Service) -> Iterator[tuple[Path, str]]:
    if service.scheduler not in _TURNS or service.affinity is not None or len(_taking(service)) < 2:
        return
    spans = [one for one in service.listens if one.protocol is Protocol.TCP]
    if len({port for one in spans for port in (one.first_port, one.last_port)}) > 1:
        yield (
            ("scheduler",),
            f"the service has several ports, and {service.scheduler} sends a client's connections to "
            "different backends; where they belong to one session, add affinity or use source-hash",
        )


def _counting(service: Service) -> Iterator[tuple[Path, str]]:
    if service.scheduler in _COUNTING and all(one.protocol is Protocol.UDP for one in service.listens):
        yield (
            ("scheduler",),
            "UDP flows have no end that could be seen, so the fewest of them is not the least load; "
            "use weighted-round-robin or maglev",
        )


def _redundancy(service: Service) -> Iterator[tuple[Path, str]]:
    if len(_serving(service)) == 1:
        yield ("backends",), "there is one backend, and when it fails the service fails; add another"
    elif service.health is None and service.passive is None:
        yield (
            (),
            "there is no health check, so a dead backend goes on getting its share of new flows; "
            "add health or passive",
        )


def _quorum(service: Service) -> Iterator[tuple[Path, str]]:
    """Where it is lost by one failure, by nothing that is seen, or not by what is not believed."""
    apology = next((backend for backend in service.backends if backend.sorry), None)
    backends = _serving(service)
    if apology is None and service.quorum == Quorum():
        return
    if service.panic_threshold:
        key = "sorry_server" if apology else "quorum"
        yield (
            ("panic_threshold",),
            f"with a smaller part of the backends up than {service.panic_threshold:.0%} the checks are not "
            f"believed, so {key} is without effect then; remove one of the two",
        )
    refuses = service.below_quorum is BelowQuorum.REFUSE
    needed = needed_for(service.quorum, sum(1 for backend in backends if not backend.backup))
    if refuses and needed == len(backends) > 1 and not service.quorum.hysteresis:
        yield (
            ("quorum",),
            "every backend has to be up, so one that fails takes the service from all others; "
            f"use {needed - 1} or less",
        )


def _checks(service: Service) -> Iterator[tuple[Path, str]]:
    if service.health is not None:
        yield from advise_check(service.health)


def advise_check(check: HealthCheck) -> Iterator[tuple[Path, str]]:
    """What there is to say of an active check, by the keys below what it belongs to."""
    if check.interval_s < SHORT_INTERVAL_S:
        yield (
            ("health", "interval"),
            f"a check every {show_duration(check.interval_s)} is a load on backends, and pauses that mean "
            "nothing look like failures; use 1s or more, and passive to be quick",
        )
    if check.fall == 1:
        yield (
            ("health", "fall"),
            "one failed check takes a backend out, and one lost packet is enough for that; use 2 or 3",
        )
    yield from _timeout(check)


def _timeout(check: HealthCheck) -> Iterator[tuple[Path, str]]:
    if check.timeout_s >= check.interval_s:
        yield (
            ("health", "timeout"),
            f"a check may take {show_duration(check.timeout_s)} and the next is due after "
            f"{show_duration(check.interval_s)}, so a backend that hangs is checked less often than "
            "the interval says; make the timeout shorter than the interval",
        )


_RULES: tuple[Callable[[Service], Iterator[tuple[Path, str]]], ...] = (
    _weights,
    _shared_addresses,
    _sessions,
    _counting,
    _redundancy,
    _quorum,
    _checks,
)


def _taking(service: Service) -> list[Backend]:
    """The backends that take new flows."""
    return [backend for backend in _serving(service) if backend.weight]


def _serving(service: Service) -> list[Backend]:
    """All but the sorry server."""
    return [backend for backend in service.backends if not backend.sorry]


def _is_private(network: Network) -> bool:
    return isinstance(network, IPv4Network) and any(network.subnet_of(private) for private in _PRIVATE)
