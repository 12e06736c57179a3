"""Forwarding modes and what belongs to them: what is read, and what is allowed where."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from l4lb.control.config import parse_config
from l4lb.model import (
    Datapath,
    FlowSettings,
    Forward,
    L4Config,
    MasqueradeSettings,
    OnFailure,
    Service,
    SourceLimits,
    TunnelSettings,
)
from tests.support.configs import l4, second, web

KEEPING_PORTS = [Forward.DSR, Forward.IPIP, Forward.GUE]
TUNNELS = [Forward.IPIP, Forward.GUE]
V6 = '"[2001:db8::10]:80/tcp"'
V6_BACKEND = '["[2001:db8:2::11]"]'


def read(text: str) -> L4Config:
    return parse_config(text, "lb.yaml")


def read_service(text: str) -> Service:
    (service,) = read(text).services
    return service


def key(name: str, value: str) -> str:
    return f"      {name}: {value}\n"


def section(name: str, value: str) -> str:
    return f"  {name}: {value}\n"


def test_every_key_is_read() -> None:
    config = read(
        """
l4:
  datapath: offload
  flow_table: {capacity: 4096, new_flows: 50}
  masquerade: {addresses: [10.2.0.1, 2001:db8:2::1], ports: 2048-4095}
  tunnel: {sources: [10.9.0.0/16, 100::/64], port: 6081}
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      forward: masquerade
      on_failure: pass
      allow: [10.0.0.0/8, 192.0.2.7]
      deny: [10.1.0.0/16]
      limits: {new_flows: 20, flows: 100}
      backends: [10.2.0.11:8080]
"""
    )
    assert config == L4Config(
        services=(
            Service(
                name="web",
                listens=config.services[0].listens,
                backends=config.services[0].backends,
                forward=Forward.MASQUERADE,
                on_failure=OnFailure.PASS,
                allow=(ip_network("10.0.0.0/8"), ip_network("192.0.2.7/32")),
                deny=(ip_network("10.1.0.0/16"),),
                limits=SourceLimits(new_flows=20, flows=100),
            ),
        ),
        datapath=Datapath.OFFLOAD,
        flows=FlowSettings(4096, 50),
        masquerade=MasqueradeSettings((ip_address("10.2.0.1"), ip_address("2001:db8:2::1")), 2048, 4095),
        tunnel=TunnelSettings((ip_network("10.9.0.0/16"), ip_network("100::/64")), 6081),
    )


@pytest.mark.parametrize("name", ["flow_table", "masquerade", "tunnel"])
def test_an_empty_section_has_the_defaults_of_the_model(name: str) -> None:
    assert read(web(more=section(name, "{}"))) == read(web())


def test_a_part_of_a_section_leaves_the_other_part_at_its_default() -> None:
    config = read(
        web(
            more=section("flow_table", "{new_flows: 9}")
            + section("masquerade", "{ports: 1-256}")
            + section("tunnel", "{port: 1}")
        )
    )
    assert config.flows == FlowSettings(new_flows=9)
    assert config.masquerade == MasqueradeSettings((), 1, 256)
    assert config.tunnel == TunnelSettings((), 1)
    assert read_service(web(more=key("limits", "{flows: 10000000}"))).limits == SourceLimits(None, 10_000_000)
    assert read_service(web(more=key("limits", "{}"))).limits == SourceLimits()


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ('["10.1.2.3"]', "10.1.2.3/32"),
        ("10.1.2.3/32", "10.1.2.3/32"),
    ],
)
def test_networks(text: str, network: str) -> None:
    assert read_service(web(more=key("allow", text))).allow == (ip_network(network),)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("::/0", "::/0"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("[2001:db8::/32]", "2001:db8::/32"),
        ('"[2001:db8::/32]"', "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1/128"),
        ('["[2001:db8::1]"]', "2001:db8::1/128"),
    ],
)
def test_networks_of_ipv6_need_no_brackets(text: str, network: str) -> None:
    assert read_service(web(V6, V6_BACKEND, key("deny", text))).deny == (ip_network(network),)


@pytest.mark.parametrize(
    "text", ["[2001:db8:2::1]", '["2001:db8:2::1"]', '["[2001:db8:2::1]"]', "2001:db8:2::1"]
)
def test_a_masquerade_address_needs_no_brackets(text: str) -> None:
    config = read(web(more=section("masquerade", f"{{addresses: {text}}}")))
    assert config.masquerade.addresses == (ip_address("2001:db8:2::1"),)


@pytest.mark.parametrize("forward", KEEPING_PORTS)
@pytest.mark.parametrize(
    "listen",
    ["203.0.113.10:80/tcp", "203.0.113.10:80/tcp+udp", "[203.0.113.10:80/tcp, 203.0.113.11:80-80/udp]"],
)
def test_the_port_that_packets_keep_means_the_same_as_none(forward: Forward, listen: str) -> None:
    more = key("forward", forward)
    with_port = read_service(web(listen, "[10.2.0.11:80, {address: 10.2.0.12:80, weight: 2}]", more))
    assert with_port == read_service(web(listen, "[10.2.0.11, {address: 10.2.0.12, weight: 2}]", more))
    assert [backend.name for backend in with_port.backends] == ["10.2.0.11", "10.2.0.12"]


@pytest.mark.parametrize("forward", [Forward.NAT, Forward.MASQUERADE])
def test_a_port_of_its_own_stays_with_a_backend(forward: Forward) -> None:
    assert read_service(web(backends="[10.2.0.11:80]", more=key("forward", forward))).backends[0].port == 80


@pytest.mark.parametrize("forward", list(Forward))
@pytest.mark.parametrize("ports", ["80", "8000-8100", "any"])
def test_every_mode_knows_ranges(forward: Forward, ports: str) -> None:
    service = read_service(web(f"203.0.113.10:{ports}/udp", "[10.2.0.11]", key("forward", forward)))
    assert (service.forward, service.backends[0].port) == (forward, None)


@pytest.mark.parametrize("forward", TUNNELS)
def test_tunnels_lead_from_each_family_to_each(forward: Forward) -> None:
    both = '["[2001:db8:2::11]", 10.2.0.11]'
    for listen in (V6, "203.0.113.10:80/tcp"):
        service = read_service(web(listen, both, key("forward", forward)))
        assert [backend.address.version for backend in service.backends] == [6, 4]


def test_dsr_has_room_for_4_addresses_with_any_number_of_listens() -> None:
    listens = ", ".join(f"203.0.113.{1 + n % 4}:{n}/tcp+udp" for n in range(1, 101))
    service = read_service(web(f"[{listens}]", "[10.2.0.11]", key("forward", "dsr")))
    assert len(service.listens) == 200


@pytest.mark.parametrize(
    ("forward", "on_failure"),
    [
        (forward, on_failure)
        for forward in Forward
        for on_failure in OnFailure
        if on_failure is not OnFailure.HASH or forward in (Forward.NAT, Forward.DSR)
    ],
)
def test_on_failure(forward: Forward, on_failure: OnFailure) -> None:
    more = key("forward", forward) + key("on_failure", on_failure)
    assert read_service(web(backends="[10.2.0.11]", more=more)).on_failure is on_failure


@pytest.mark.parametrize("forward", [forward for forward in Forward if forward is not Forward.NAT])
def test_only_answers_of_nat_are_told_apart_by_their_endpoint(forward: Forward) -> None:
    """17 services share one endpoint and port with each other and with 16 of nat."""
    others = "".join(
        second(f"203.0.113.{n}:80/tcp", "[10.2.0.11]", f"other{n}") + key("forward", forward)
        for n in range(17)
    )
    nat = "".join(second(f"203.0.114.{n}:80/tcp", "[10.2.0.11]", f"nat{n}") for n in range(16))
    assert len(read(f"l4:\n  services:\n{others}{nat}").services) == 33


def test_only_pairs_of_nat_are_claims() -> None:
    listens = ", ".join(f"203.0.113.10:{port}/tcp" for port in range(1, 1050))
    backends = "[" + ", ".join(f"10.2.{n >> 8}.{n & 255}" for n in range(1000)) + "]"
    assert len(read_service(web(f"[{listens}]", backends, key("forward", "dsr"))).listens) == 1049


def test_networks_of_a_service_may_overlap() -> None:
    service = read_service(
        web(more=key("allow", "[10.0.0.0/8, 10.1.0.0/16]") + key("deny", "[10.1.0.0/16, 10.1.1.1]"))
    )
    assert (len(service.allow), len(service.deny)) == (2, 2)


def test_a_pool_needs_only_the_families_that_masquerade() -> None:
    pool = section("masquerade", "{addresses: [10.2.0.1]}")
    read(web(more=key("forward", "masquerade") + second(V6, V6_BACKEND) + pool))
    read(web(V6, V6_BACKEND, key("forward", "masquerade") + section("masquerade", "{ports: 1024-2047}")))


def test_64_addresses_may_masquerade() -> None:
    addresses = ", ".join(f"10.3.0.{n}" for n in range(64))
    assert (
        len(read(web(more=section("masquerade", f"{{addresses: [{addresses}]}}"))).masquerade.addresses) == 64
    )


def test_the_order_of_sections_does_not_matter() -> None:
    services = (
        "services: [{name: a, listen: 203.0.113.10:80/tcp, forward: masquerade, backends: [10.2.0.11]}]"
    )
    pool = "masquerade: {addresses: [10.2.0.1]}"
    assert read(l4(f"{services}, {pool}")) == read(l4(f"{pool}, {services}"))
