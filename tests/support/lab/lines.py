"""What is run to build a planned network: lines for `ip`, and settings below /proc/sys/net."""

from __future__ import annotations

from tests.support.lab.topology import Link, Plan, Topology

FIRST_INDEX = 10


def link_lines(topology: Topology, namespace_of: dict[str, str]) -> list[str]:
    """The batch for `ip` on the host: every cable made straight between two namespaces.

    The two ends get different interface numbers on purpose. Where they happen to be equal the kernel does
    not take the pair for a stacked device and reports its carrier up to a second late
    (linkwatch_urgent_event in net/core/link_watch.c).
    """
    return [
        f"link add {link.a[1]}{_mtu(link)} index {FIRST_INDEX + 2 * n} netns {namespace_of[link.a[0]]}"
        " type veth"
        f" peer name {link.b[1]}{_mtu(link)} index {FIRST_INDEX + 2 * n + 1} netns {namespace_of[link.b[0]]}"
        for n, link in enumerate(topology.links)
    ]


def _mtu(link: Link) -> str:
    return f" mtu {link.mtu}" if link.mtu is not None else ""


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
        # As the kernel has it: routers tell of shorter ways, and hosts believe them.
        **{
            f"ipv4/conf/{which}/{name}": "1"
            for which in ("all", "default")
            for name in ("send_redirects", "accept_redirects")
        },
        "ipv6/conf/all/accept_redirects": "1",
        "ipv6/conf/default/accept_redirects": "1",
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
