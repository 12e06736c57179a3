"""What services that share affinity must have alike, each with the line that an operator reads."""

from __future__ import annotations

import pytest

from l4lb.control.affinity import describe_affinity
from l4lb.control.config import parse_config
from l4lb.model import Affinity
from tests.support.configs import error_of, rows, second, web

TWO, TWO_TLS = "[10.2.0.11:8080, 10.2.0.12:8080]", "[10.2.0.12:8443, 10.2.0.11:8443]"
GROUP = "{group: shop}"


def shop(
    affinity: str = GROUP,
    tls_affinity: str = GROUP,
    backends: str = TWO,
    tls_backends: str = TWO_TLS,
    tls_listen: str = "203.0.113.10:443/tcp",
    more: str = "",
) -> str:
    """Services `web` and `api`: `backends` at 5:17, `tls_backends` at 9:17, `tls_affinity` at 10:17."""
    return (
        web(backends=backends, more=f"      affinity: {affinity}\n")
        + second(tls_listen, tls_backends)
        + f"      affinity: {tls_affinity}\n"
        + more
    )


_API = "l4.services[1]"
_SHARED = 'in service "web" of the same group, which are to share one entry; make them the same'

NAMES = {
    "a list": (
        shop(tls_affinity="{group: [shop]}"),
        f"10:25: {_API}.affinity.group: must be a name, not a list",
    ),
    "no name": (
        shop(tls_affinity="{group: the shop}"),
        f'10:25: {_API}.affinity.group: "the shop" is not a name; use the characters a-z, 0-9, _, . and -',
    ),
    "unknown key": (
        shop(tls_affinity="{groups: shop}"),
        f'10:18: {_API}.affinity.groups: unknown key; did you mean "group"?',
    ),
}
CLIENTS = {
    "mask": (
        shop(tls_affinity="{mask: 24, group: shop}"),
        f"10:24: {_API}.affinity.mask: the mask is 24, and 32 {_SHARED}",
    ),
    "mask by default": (
        shop(affinity="{mask: 24, group: shop}"),
        f"10:17: {_API}.affinity: the mask is 32, and 24 {_SHARED}",
    ),
    "timeout": (
        shop(tls_affinity="{group: shop, timeout: 90s}"),
        f"10:40: {_API}.affinity.timeout: the timeout is 90s, and 5m {_SHARED}",
    ),
    "family": (
        shop(tls_listen='"[2001:db8::10]:443/tcp"', tls_backends='["[2001:db8:2::11]:8443"]'),
        f"10:25: {_API}.affinity.group: the service is for IPv6, and service "
        '"web" of the same group for IPv4; use a group for each family',
    ),
}
HOSTS = {
    "more": (
        shop(tls_backends="[10.2.0.11:8443, 10.2.0.12:8443, 10.2.0.13:8443]"),
        f'9:50: {_API}.backends[2]: service "web" of the same affinity group has no backend at 10.2.0.13; '
        "add one there, or remove this one",
    ),
    "fewer": (
        shop(tls_backends="[10.2.0.11:8443]"),
        f'10:25: {_API}.affinity.group: service "web" of the same group has a backend at 10.2.0.12, and this '
        "one has not; add one here, or remove that one",
    ),
    "others": (
        shop(tls_backends="[10.2.0.11:8443, {address: 10.2.0.14:8443}]"),
        f'9:44: {_API}.backends[1].address: service "web" of the same affinity group has no backend at '
        "10.2.0.14; add one there, or remove this one",
    ),
    "one twice": (
        shop(tls_backends="[10.2.0.11:8443, 10.2.0.12:8443, 10.2.0.11:8444]"),
        f"9:50: {_API}.backends[2]: 10.2.0.11 is the address of {_API}.backends[0] too, and in an affinity "
        "group a host has one backend; remove one of the two, or give the service no group",
    ),
}


@pytest.mark.parametrize(("text", "expected"), rows(names=NAMES, clients=CLIENTS, hosts=HOSTS))
def test_the_error_is_one_line_with_its_position(text: str, expected: str) -> None:
    assert error_of(lambda: parse_config(text, "lb.yaml")) == f"lb.yaml:{expected}"


@pytest.mark.parametrize(
    "text",
    [
        shop(),
        shop("{group: shop, mask: 24}", "{mask: 24, group: shop, timeout: 5m}"),
        shop(tls_affinity="{group: other}", tls_backends="[10.2.0.13:8443]"),
        shop(tls_affinity="client-ip", tls_backends="[10.2.0.13:8443]"),
        shop(more="      sorry_server: 10.2.0.19:80\n"),
        shop(tls_backends="[10.2.0.12:8443, {address: 10.2.0.11:8443, weight: 0}]"),
        shop(
            tls_affinity="{group: shop6}",
            tls_listen='"[2001:db8::10]:443/tcp"',
            tls_backends='["[2001:db8:2::11]:8443"]',
        ),
    ],
    ids=["alike", "by default", "other groups", "no group", "sorry server", "weights", "families"],
)
def test_what_may_differ(text: str) -> None:
    assert len(parse_config(text, "lb.yaml").services) == 2


def test_the_group_is_read_and_described() -> None:
    web_service, api = parse_config(shop("{mask: 24, group: shop}", "{mask: 24, group: shop}"), "x").services
    assert web_service.affinity == Affinity(prefix4=24, group="shop")
    assert describe_affinity(api, [web_service, api]) == "client-ip/24 for 5m, group shop with web"
    assert describe_affinity(api, [api]) == "client-ip/24 for 5m, group shop with no other service"
    plain = parse_config(web(more="      affinity: client-ip\n"), "x").services
    assert describe_affinity(plain[0], [*plain, api]) == "client-ip/32 for 5m"
    bare = parse_config(web(), "x").services
    assert describe_affinity(bare[0], bare) is None
