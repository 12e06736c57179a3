"""The plan of the network as plain data: who stands where, and the `ip` lines that build it."""

from __future__ import annotations

from dataclasses import dataclass

VIP4 = "203.0.113.0/24"
VIP6 = "2001:db8:f::/64"
CLIENTS4, CLIENTS6 = "10.1.0.0/24", "2001:db8:1::/64"
BACKENDS4, BACKENDS6 = "10.2.0.0/24", "2001:db8:2::/64"
# b1 is .11 and the last usable address is .254.
LAST_BACKEND = 240
FIRST_INDEX = 10


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
    routes: tuple[tuple[str, str], ...] = ()
    forwards: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A virtual cable between (host, interface) and (host, interface)."""

    a: tuple[str, str]
    b: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Topology:
    """All hosts and cables of a lab."""

    hosts: tuple[Plan, ...]
    links: tuple[Link, ...]


def backend_names(count: int) -> tuple[str, ...]:
    """b1, b2, … for `count` backends."""
    return tuple(f"b{n}" for n in range(1, count + 1))


def plan(backends: int) -> Topology:
    """The topology of the package's drawing with this many backends (1 to LAST_BACKEND)."""
    if not 1 <= backends <= LAST_BACKEND:
        raise ValueError(f"a lab has 1 to {LAST_BACKEND} backends, not {backends}")
    client = Plan(
        "client",
        (Interface("eth0", "10.1.0.2", "2001:db8:1::2"),),
        routes=(
            (VIP4, "10.1.0.1"),
            (VIP6, "2001:db8:1::1"),
            (BACKENDS4, "10.1.0.1"),
            (BACKENDS6, "2001:db8:1::1"),
        ),
    )
    gateway = Plan(
        "gateway",
        (
            Interface("wan0", "10.1.0.1", "2001:db8:1::1"),
            Interface("lan0", "10.2.0.1", "2001:db8:2::1"),
        ),
        forwards=True,
    )
    servers = tuple(
        Plan(
            name,
            (Interface("eth0", f"10.2.0.{10 + n}", f"2001:db8:2::{10 + n}"),),
            routes=(("0.0.0.0/0", "10.2.0.1"), ("::/0", "2001:db8:2::1")),
        )
        for n, name in enumerate(backend_names(backends), start=1)
    )
    lan = Plan("lan", (Interface("gateway"), *(Interface(server.name) for server in servers)))
    links = (
        Link(("client", "eth0"), ("gateway", "wan0")),
        Link(("gateway", "lan0"), ("lan", "gateway")),
        *(Link((server.name, "eth0"), ("lan", server.name)) for server in servers),
    )
    return Topology((client, gateway, lan, *servers), links)


def link_lines(topology: Topology, namespace_of: dict[str, str]) -> list[str]:
    """The batch for `ip` on the host: every cable made straight between two namespaces.

    The two ends get different interface numbers on purpose. Where they happen to be equal the kernel does
    not take the pair for a stacked device and reports its carrier up to a second late
    (linkwatch_urgent_event in net/core/link_watch.c).
    """
    return [
        f"link add {link.a[1]} index {FIRST_INDEX + 2 * n} netns {namespace_of[link.a[0]]} type veth"
        f" peer name {link.b[1]} index {FIRST_INDEX + 2 * n + 1} netns {namespace_of[link.b[0]]}"
        for n, link in enumerate(topology.links)
    ]


def host_lines(host: Plan) -> list[str]:
    """The batch for `ip` inside one host's namespace."""
    lines = ["link set lo up"]
    if host.name == "lan":
        # No spanning tree and no snooping: a port forwards at once, and neighbour discovery is not learnt.
        lines.append("link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        lines.append("link set br0 up")
    for interface in host.interfaces:
        if host.name == "lan":
            lines.append(f"link set {interface.name} master br0")
        if interface.v4:
            lines.append(f"addr add {interface.v4}/24 dev {interface.name}")
        if interface.v6:
            lines.append(f"addr add {interface.v6}/64 dev {interface.name} nodad")
        lines.append(f"link set {interface.name} up")
    lines += [f"route add {destination} via {via}" for destination, via in host.routes]
    return lines


def sysctls(host: Plan) -> dict[str, str]:
    """Settings below /proc/sys/net, written before the host has interfaces.

    A namespace inherits some of the machine's settings: those that matter are all said here.
    """
    settings = {
        # No duplicate address detection: an address can be used at once.
        "ipv6/conf/all/accept_dad": "0",
        "ipv6/conf/default/accept_dad": "0",
        "ipv6/conf/default/dad_transmits": "0",
        "ipv6/conf/all/disable_ipv6": "0",
        "ipv6/conf/default/disable_ipv6": "0",
        "ipv6/conf/default/accept_ra": "0",
        "ipv4/conf/all/rp_filter": "0",
        "ipv4/conf/default/rp_filter": "0",
        "ipv4/ip_forward": str(int(host.forwards)),
        "ipv6/conf/all/forwarding": str(int(host.forwards)),
        "ipv6/conf/default/forwarding": str(int(host.forwards)),
        # Unprivileged programs may answer on the services' real ports.
        "ipv4/ip_unprivileged_port_start": "0",
        # Benchmarks open many short connections from one address.
        "ipv4/ip_local_port_range": "1024 65535",
    }
    if host.name == "lan":
        settings |= {f"bridge/bridge-nf-call-{family}tables": "0" for family in ("ip", "ip6", "arp")}
    return settings
