"""The plan of the network as plain data: who stands where. The package's top describes the shapes."""

from __future__ import annotations

from dataclasses import dataclass

VIP4 = "203.0.113.0/24"
VIP6 = "2001:db8:f::/64"
CLIENTS4, CLIENTS6 = "10.1.0.0/24", "2001:db8:1::/64"
BACKENDS4, BACKENDS6 = "10.2.0.0/24", "2001:db8:2::/64"
DEFAULT4, DEFAULT6 = "0.0.0.0/0", "::/0"
# b1 is .11 and the last usable address is .254.
LAST_BACKEND = 240

THROUGH_GATEWAY = "through-gateway"
PAST_GATEWAY = "past-gateway"
ONE_ARMED = "one-armed"
OWN_ROUTER = "own-router"
SHAPES = (THROUGH_GATEWAY, PAST_GATEWAY, ONE_ARMED, OWN_ROUTER)
SMALL_MTUS = ("none", "client", "backends", "both")
SMALL_MTU = 1400

Routes = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface of a host; `v4` and `v6` are bare addresses, None on the bridge's ports."""

    name: str
    v4: str | None = None
    v6: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One host: its interfaces and its routes (destination, next hop)."""

    name: str
    interfaces: tuple[Interface, ...]
    routes: Routes = ()
    forwards: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A virtual cable between (host, interface) and (host, interface); `mtu` None is the usual 1500."""

    a: tuple[str, str]
    b: tuple[str, str]
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Topology:
    """All hosts and cables of a lab."""

    hosts: tuple[Plan, ...]
    links: tuple[Link, ...]


def backend_names(count: int) -> tuple[str, ...]:
    """b1, b2, … for `count` backends."""
    return tuple(f"b{n}" for n in range(1, count + 1))


def plan(backends: int, shape: str = THROUGH_GATEWAY, small_mtu: str = "none") -> Topology:
    """A topology with this many backends (1 to LAST_BACKEND); ValueError for what cannot be."""
    _check(backends, shape, small_mtu)
    client_hops = small_mtu in ("client", "both")
    backend_hops = small_mtu in ("backends", "both")
    # Who stands on the backends' segment, in the order of the bridge's ports.
    segment = [("hop4", "eth1") if backend_hops else ("gateway", "lan0")]
    if shape in (PAST_GATEWAY, ONE_ARMED):
        segment.append(("client", "eth1" if shape == PAST_GATEWAY else "eth0"))
    if shape == OWN_ROUTER:
        segment.append(("peer", "eth0"))
    segment += [(name, "eth0") for name in backend_names(backends)]

    links = []
    if client_hops:
        links += [
            Link(("client", "eth0"), ("hop1", "eth0")),
            Link(("hop1", "eth1"), ("hop2", "eth0"), SMALL_MTU),
            Link(("hop2", "eth1"), ("gateway", "wan0")),
        ]
    elif shape != ONE_ARMED:
        links.append(Link(("client", "eth0"), ("gateway", "wan0")))
    if backend_hops:
        links += [
            Link(("gateway", "lan0"), ("hop3", "eth0")),
            Link(("hop3", "eth1"), ("hop4", "eth0"), SMALL_MTU),
        ]
    links += [Link(end, ("lan", end[0])) for end in segment]

    hosts = [_client(shape, client_hops), _gateway(shape, client_hops, backend_hops)]
    hosts.append(Plan("lan", tuple(Interface(name) for name, _ in segment)))
    if shape == OWN_ROUTER:
        hosts.append(Plan("peer", (_at("eth0", 2, 3),), _by(2, 1, VIP4, VIP6)))
    hosts += _client_hops() if client_hops else ()
    hosts += _backend_hops() if backend_hops else ()
    routes = _ways_back(shape, backend_hops)
    hosts += [
        Plan(name, (_at("eth0", 2, 10 + n),), routes)
        for n, name in enumerate(backend_names(backends), start=1)
    ]
    return Topology(tuple(hosts), tuple(links))


def _check(backends: int, shape: str, small_mtu: str) -> None:
    if not 1 <= backends <= LAST_BACKEND:
        raise ValueError(f"a lab has 1 to {LAST_BACKEND} backends, not {backends}")
    if shape not in SHAPES:
        raise ValueError(f"a lab's shape is one of {', '.join(SHAPES)}, not {shape!r}")
    if small_mtu not in SMALL_MTUS:
        raise ValueError(f"the side with the small MTU is one of {', '.join(SMALL_MTUS)}, not {small_mtu!r}")
    if shape == ONE_ARMED and small_mtu != "none":
        raise ValueError("a one-armed lab is a single segment: it has no place for a small MTU")
    if shape == OWN_ROUTER and small_mtu in ("backends", "both"):
        raise ValueError("with their own router the backends share the gateway's segment: no routers between")


def _client(shape: str, client_hops: bool) -> Plan:
    if shape == ONE_ARMED:
        return Plan("client", (_at("eth0", 2, 2),), _by(2, 1, VIP4, VIP6))
    routes = _by(1, 1, VIP4, VIP6)
    if client_hops:
        routes += _by(1, 1, "10.6.0.0/24", "2001:db8:6::/64")
    if shape == PAST_GATEWAY:
        return Plan("client", (_at("eth0", 1, 2), _at("eth1", 2, 2)), routes)
    return Plan("client", (_at("eth0", 1, 2),), routes + _by(1, 1, BACKENDS4, BACKENDS6))


def _gateway(shape: str, client_hops: bool, backend_hops: bool) -> Plan:
    lan = _at("lan0", 3 if backend_hops else 2, 1)
    interfaces = (lan,) if shape == ONE_ARMED else (_at("wan0", 6 if client_hops else 1, 1), lan)
    routes: Routes = ()
    if client_hops:
        routes += _by(6, 2, CLIENTS4, CLIENTS6)
    if backend_hops:
        routes += _by(3, 2, BACKENDS4, BACKENDS6)
    return Plan("gateway", interfaces, routes, forwards=True)


def _ways_back(shape: str, backend_hops: bool) -> Routes:
    """The routes of a backend."""
    if shape == OWN_ROUTER:
        return ()
    if shape != PAST_GATEWAY:
        return _by(2, 1, DEFAULT4, DEFAULT6)
    routes = _by(2, 2, DEFAULT4, DEFAULT6)
    if backend_hops:  # the gateway is not on the segment
        routes += _by(2, 1, "10.3.0.0/24", "2001:db8:3::/64")
    return routes


def _client_hops() -> list[Plan]:
    return [
        Plan("hop1", (_at("eth0", 1, 1), _at("eth1", 5, 1)), _by(5, 2, DEFAULT4, DEFAULT6), forwards=True),
        Plan(
            "hop2",
            (_at("eth0", 5, 2), _at("eth1", 6, 2)),
            _by(5, 1, CLIENTS4, CLIENTS6) + _by(6, 1, DEFAULT4, DEFAULT6),
            forwards=True,
        ),
    ]


def _backend_hops() -> list[Plan]:
    return [
        Plan(
            "hop3",
            (_at("eth0", 3, 2), _at("eth1", 4, 1)),
            _by(4, 2, BACKENDS4, BACKENDS6) + _by(3, 1, DEFAULT4, DEFAULT6),
            forwards=True,
        ),
        Plan("hop4", (_at("eth0", 4, 2), _at("eth1", 2, 1)), _by(4, 1, DEFAULT4, DEFAULT6), forwards=True),
    ]


def _at(name: str, network: int, host: int) -> Interface:
    """An interface with its addresses, 10.N.0.H and 2001:db8:N::H."""
    return Interface(name, f"10.{network}.0.{host}", f"2001:db8:{network}::{host}")


def _by(network: int, host: int, v4: str, v6: str) -> Routes:
    """Routes to a network of each family by a next hop."""
    return ((v4, f"10.{network}.0.{host}"), (v6, f"2001:db8:{network}::{host}"))
