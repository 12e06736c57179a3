"""The labs' networks as plans: every address once, every next hop on a wire."""

from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_interface

import pytest

from tests.support.lab import SHAPES, SMALL_MTUS, topology
from tests.support.lab.lab import HOST

IMPOSSIBLE = {
    *(("one-armed", side) for side in SMALL_MTUS if side != "none"),
    ("own-router", "backends"),
    ("own-router", "both"),
}
POSSIBLE = [pair for pair in itertools.product(SHAPES, SMALL_MTUS) if pair not in IMPOSSIBLE]


@pytest.mark.parametrize(("shape", "small_mtu"), POSSIBLE)
def test_a_plan_is_whole(shape: str, small_mtu: str) -> None:
    plan = topology.plan(2, shape, small_mtu)
    ends = [end for link in plan.links for end in (link.a, link.b)]
    interfaces = [(host.name, interface.name) for host in plan.hosts for interface in host.interfaces]
    assert sorted(ends) == sorted(interfaces)
    for family in ("v4", "v6"):
        addresses = [a for h in plan.hosts for i in h.interfaces if (a := getattr(i, family)) is not None]
        assert len(addresses) == len(set(addresses))
    for host in plan.hosts:
        assert HOST.fullmatch(host.name)
        networks = [ip_interface(f"{i.v4}/24").network for i in host.interfaces if i.v4]
        networks += [ip_interface(f"{i.v6}/64").network for i in host.interfaces if i.v6]
        for _, via in host.routes:
            assert any(ip_address(via) in network for network in networks), (host.name, via)
            assert any(via in (i.v4, i.v6) for h in plan.hosts for i in h.interfaces), (host.name, via)


@pytest.mark.parametrize(("shape", "small_mtu"), POSSIBLE)
def test_clients_and_backends_keep_their_addresses(shape: str, small_mtu: str) -> None:
    hosts = {host.name: host for host in topology.plan(2, shape, small_mtu).hosts}
    assert hosts["b2"].interfaces[0].v4 == "10.2.0.12"
    assert hosts["client"].interfaces[0].v4 == ("10.2.0.2" if shape == "one-armed" else "10.1.0.2")


@pytest.mark.parametrize(("shape", "small_mtu"), [*sorted(IMPOSSIBLE), ("round", "none"), (SHAPES[0], "all")])
def test_what_cannot_be_is_refused(shape: str, small_mtu: str) -> None:
    with pytest.raises(ValueError, match=r"lab's shape|small MTU|routers between"):
        topology.plan(1, shape, small_mtu)


def test_only_links_between_routers_are_small() -> None:
    small = [link for link in topology.plan(1, small_mtu="both").links if link.mtu is not None]
    assert [(link.a[0], link.b[0], link.mtu) for link in small] == [
        ("hop1", "hop2", 1400),
        ("hop3", "hop4", 1400),
    ]
