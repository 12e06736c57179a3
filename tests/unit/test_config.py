"""What a configuration says, and where it ends: limits, secrets, time."""

from __future__ import annotations

import time
from ipaddress import ip_address

import pytest

from l4lb.control.config import parse_config
from l4lb.errors import ConfigError
from l4lb.model import (
    Backend,
    Datapath,
    FlowSettings,
    Forward,
    L4Config,
    Listen,
    Protocol,
    QueueSettings,
    Scheduler,
    Service,
)
from tests.support.configs import error_of, l4, second, web

VIP = ip_address("203.0.113.10")


def test_every_key_is_read() -> None:
    config = parse_config(
        """
l4:
  datapath: mark
  workers: 4
  queue: {first: 8, length: 4096}
  flow_table: {capacity: 4096}
  hash_key: 00112233445566778899AABBccddeeff
  vip_interface: eth0
  services:
    - name: web
      listen: [203.0.113.10:80/tcp, 203.0.113.10:443/tcp]
      forward: nat
      scheduler: least-connections
      backends:
        - 10.2.0.11:8080
        - {address: "10.2.0.12:8080", weight: 0}
""",
        "lb.yaml",
    )
    assert config == L4Config(
        datapath=Datapath.MARK,
        workers=4,
        queue=QueueSettings(8, 4096),
        flows=FlowSettings(4096),
        hash_key=bytes.fromhex("00112233445566778899aabbccddeeff"),
        vip_interface="eth0",
        services=(
            Service(
                name="web",
                listens=(Listen(VIP, Protocol.TCP, 80, 80), Listen(VIP, Protocol.TCP, 443, 443)),
                forward=Forward.NAT,
                scheduler=Scheduler.LEAST_CONNECTIONS,
                backends=(
                    Backend(ip_address("10.2.0.11"), 8080, 1),
                    Backend(ip_address("10.2.0.12"), 8080, 0),
                ),
            ),
        ),
    )


def test_everything_but_services_has_the_default_of_the_model() -> None:
    config = parse_config(web(), "lb.yaml")
    assert config == L4Config(services=config.services)
    (service,) = config.services
    assert service == Service("web", service.listens, service.backends)


@pytest.mark.parametrize(
    ("listen", "backend", "listens"),
    [
        ("203.0.113.10:80/udp", "10.2.0.11:8080", ["203.0.113.10:80/udp"]),
        ("203.0.113.10:53/tcp+udp", "10.2.0.11", ["203.0.113.10:53/tcp", "203.0.113.10:53/udp"]),
        ("203.0.113.10:8000-8100/tcp", "10.2.0.11", ["203.0.113.10:8000-8100/tcp"]),
        ("203.0.113.10:80-80/tcp", "10.2.0.11:8080", ["203.0.113.10:80/tcp"]),
        ("203.0.113.10:any/udp", "10.2.0.11", ["203.0.113.10:any/udp"]),
        ("203.0.113.10:1-65535/udp", "10.2.0.11", ["203.0.113.10:any/udp"]),
        ('"[2001:DB8:0::10]:80/tcp"', '"[2001:db8::11]:8080"', ["[2001:db8::10]:80/tcp"]),
        ('"[2001:db8::10]:80/tcp"', '"[2001:db8::11]"', ["[2001:db8::10]:80/tcp"]),
        (
            "[203.0.113.10:80/tcp, 203.0.113.11:80/tcp]",
            "10.2.0.11",
            ["203.0.113.10:80/tcp", "203.0.113.11:80/tcp"],
        ),
        (
            "[203.0.113.10:1-9/tcp, 203.0.113.10:10-19/tcp]",
            "10.2.0.1",
            ["203.0.113.10:1-9/tcp", "203.0.113.10:10-19/tcp"],
        ),
    ],
)
def test_listens(listen: str, backend: str, listens: list[str]) -> None:
    (service,) = parse_config(web(listen, f"[{backend}]"), "lb.yaml").services
    assert [str(one) for one in service.listens] == listens
    assert service.backends[0].name == backend.strip('"').removesuffix("]").removeprefix(
        "[" if backend.endswith(']"') else ""
    )


@pytest.mark.parametrize("value", ["none", "null", "~", ""])
def test_addresses_may_be_left_alone(value: str) -> None:
    assert parse_config(web(more=f"  vip_interface: {value}\n"), "lb.yaml").vip_interface is None


@pytest.mark.parametrize("scheduler", list(Scheduler))
def test_schedulers(scheduler: Scheduler) -> None:
    config = parse_config(web(more=f"      scheduler: {scheduler}\n      max_connections: 9\n"), "lb.yaml")
    assert config.services[0].scheduler is scheduler


@pytest.mark.parametrize("name", ["on", "80", "1.5", "0x10", '"null"', "a" * 64, "2026-01-01", "a_b.c-d"])
def test_a_scalar_is_what_its_key_makes_of_it(name: str) -> None:
    (service,) = parse_config(web().replace("web", name), "lb.yaml").services
    assert service.name == name.strip('"')


@pytest.mark.parametrize(
    "text", [web(), "\ufeff" + web(), web().replace("\n", "\r\n"), "---\n" + web() + "...\n"]
)
def test_line_ends_byte_order_mark_and_document_marks(text: str) -> None:
    assert parse_config(text, "lb.yaml") == parse_config(web(), "lb.yaml")


def test_a_service_says_how_many_connections_its_backends_may_have() -> None:
    backends = "[10.2.0.11:8080, {address: 10.2.0.12:8080}, {address: 10.2.0.13:8080, max_connections: 7}]"
    (service,) = parse_config(web(backends=backends, more="      max_connections: 100\n"), "lb.yaml").services
    assert service.max_connections == 100
    assert [backend.max_connections for backend in service.backends] == [100, 100, 7]
    (service,) = parse_config(web(backends=backends), "lb.yaml").services
    assert [backend.max_connections for backend in service.backends] == [None, None, 7]


def test_one_packet_is_read_and_may_share_its_service_with_tcp() -> None:
    (service,) = parse_config(
        web("203.0.113.53:53/tcp+udp", "[10.2.0.21:5353]", more="      one_packet: true\n"), "lb.yaml"
    ).services
    assert service.one_packet


def test_services_may_share_a_backend_and_all_weights_may_be_0() -> None:
    config = parse_config(web(backends="[{address: 10.2.0.11:8080, weight: 0}]", more=second()), "lb.yaml")
    assert [service.backends[0].name for service in config.services] == ["10.2.0.11:8080"] * 2


def test_the_same_port_on_another_protocol_or_address_does_not_overlap() -> None:
    parse_config(
        web(more=second("[203.0.113.10:80/udp, 203.0.113.11:80/tcp, 203.0.113.10:81/tcp]")), "lb.yaml"
    )


def test_16_listens_for_one_endpoint_are_allowed() -> None:
    listens = ", ".join(f"203.0.113.10:{port}/tcp" for port in range(1, 17))
    parse_config(web(f"[{listens}]"), "lb.yaml")


def test_the_17th_service_that_shares_an_endpoint_is_named() -> None:
    services = "".join(second(f"203.0.113.{i}:80/tcp", name=f"s{i}") for i in range(17))
    assert error_of(lambda: parse_config("l4:\n  services:\n" + services, "lb.yaml")).startswith(
        "lb.yaml:53:18: l4.services[16].backends[0]: "
        "10.2.0.11:8080/tcp would answer for more than 16 listens;"
    )


def backend_list(count: int, first: int = 0) -> str:
    return (
        "[" + ", ".join(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(first, first + count)) + "]"
    )


def test_a_service_has_at_most_10000_backends() -> None:
    assert len(parse_config(web(backends=backend_list(10_000)), "lb.yaml").services[0].backends) == 10_000
    assert error_of(lambda: parse_config(web(backends=backend_list(10_001)), "lb.yaml")).endswith(
        ": l4.services[0].backends[10000]: "
        "a service has at most 10000 backends, this one has 10001; split the service"
    )


def test_all_services_have_at_most_65535_backends() -> None:
    services = "".join(
        second(f"203.0.113.{i}:80/tcp", backend_list(10_000, i * 10_000), f"s{i}") for i in range(6)
    )
    last = second("203.0.113.6:80/tcp", backend_list(5_536, 60_000), "s6")
    assert error_of(lambda: parse_config("l4:\n  services:\n" + services + last, "lb.yaml")) == (
        "lb.yaml:21:7: l4.services[6]: "
        "with this service there are 65536 backends, and there is room for 65535; "
        "divide the services between several balancers"
    )


def test_listens_times_backends_are_bounded() -> None:
    listens = ", ".join(f"203.0.113.10:{port}/tcp" for port in range(1, 1050, 1))
    assert "there are 1049000 pairs of a listen and a backend, and there is room for 1048576;" in error_of(
        lambda: parse_config(web(f"[{listens}]", backend_list(1000)), "lb.yaml")
    )


def test_a_key_is_never_repeated_in_a_message() -> None:
    secret = "00112233445566778899aabbccddeef"
    for wrong in (secret, secret + "g", secret + "00"):
        with pytest.raises(ConfigError) as caught:
            parse_config(l4(f"hash_key: {wrong}"), "lb.yaml")
        assert secret not in str(caught.value)


def test_the_name_of_the_file_stays_on_the_line() -> None:
    assert error_of(lambda: parse_config("", "a\nb.yaml")).startswith("a\\nb.yaml:1:1: ")


def test_a_large_configuration_is_read_quickly() -> None:
    services = "".join(
        second(
            f"203.0.{i >> 8}.{i & 255}:80/tcp",
            "[" + ", ".join(f"10.{i >> 8}.{i & 255}.{n}:8080" for n in range(1, 21)) + "]",
            f"s{i}",
        )
        for i in range(1000)
    )
    began = time.process_time()
    config = parse_config("l4:\n  services:\n" + services, "lb.yaml")
    assert time.process_time() - began < 2, "0.25 s when written; this bound only finds what is not linear"
    assert sum(len(service.backends) for service in config.services) == 20_000
