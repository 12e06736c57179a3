"""Health checks and what acts on them: what is read from each key, and the defaults."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from l4lb.control.config import parse_config
from l4lb.model import (
    Affinity,
    Backend,
    CheckType,
    Expectation,
    Forward,
    HealthCheck,
    OnDown,
    PassiveCheck,
    Service,
    Via,
)
from tests.support.configs import web

V6 = '"[2001:db8::10]:80/tcp"'
V6_BACKENDS = '["[2001:db8:2::11]"]'


def read(more: str, listen: str = "203.0.113.10:80/tcp", backends: str = "[10.2.0.11:8080]") -> Service:
    (service,) = parse_config(web(listen, backends, f"      {more}\n"), "lb.yaml").services
    return service


def health(keys: str) -> HealthCheck:
    check = read(f"health: {{{keys}}}").health
    assert check is not None
    return check


def test_the_example_of_the_interface_is_read() -> None:
    (service,) = parse_config(
        """
l4:
  datapath: auto
  workers: auto
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      forward: nat
      scheduler: maglev
      affinity: {by: client-ip, mask: 32, timeout: 300s}
      health: {type: http, path: /health, interval: 5s, timeout: 3s, rise: 2, fall: 3,
               expect: {status: 200, body: OK}}
      backends:
        - 10.2.0.11:8080
        - {address: "10.2.0.12:8080", weight: 3}
        - {address: "10.2.0.13:8080", backup: true}
""",
        "lb.yaml",
    ).services
    assert service == Service(
        name="web",
        listens=service.listens,
        backends=(
            Backend(ip_address("10.2.0.11"), 8080),
            Backend(ip_address("10.2.0.12"), 8080, 3),
            Backend(ip_address("10.2.0.13"), 8080, 1, 1),
        ),
        affinity=Affinity(32, 128, 300),
        health=HealthCheck(CheckType.HTTP, path="/health", expect=Expectation(((200, 200),), "OK")),
    )


def test_every_key_of_an_http_check_is_read() -> None:
    assert health(
        "type: https, interval: 250ms, timeout: 10ms, rise: 1, fall: 100, port: 8443, path: '/h?a=b', "
        "method: POST, host: www.example.com, headers: {X-Check: l4lb, Accept: '*/*'}, verify: false, "
        "expect: {status: [200, 301-302], body: OK, match: '^ok(ay)?$'}"
    ) == HealthCheck(
        type=CheckType.HTTPS,
        interval_s=0.25,
        timeout_s=0.01,
        rise=1,
        fall=100,
        port=8443,
        path="/h?a=b",
        method="POST",
        host="www.example.com",
        headers=(("X-Check", "l4lb"), ("Accept", "*/*")),
        verify=False,
        expect=Expectation(((200, 200), (301, 302)), "OK", "^ok(ay)?$"),
    )


@pytest.mark.parametrize("kind", [kind for kind in CheckType if kind is not CheckType.EXEC])
def test_only_the_type_is_needed(kind: CheckType) -> None:
    assert health(f"type: {kind}") == HealthCheck(kind)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("type: udp, payload: ping", HealthCheck(CheckType.UDP, payload=b"ping")),
        ('type: udp, payload: "a\\n\\xe9"', HealthCheck(CheckType.UDP, payload="a\né".encode())),
        ("type: udp, payload_hex: 00fF10", HealthCheck(CheckType.UDP, payload=b"\x00\xff\x10")),
        (
            "type: udp, expect: {match: pong}",
            HealthCheck(CheckType.UDP, expect=Expectation(pattern="pong")),
        ),
        ("type: tls, via: backend", HealthCheck(CheckType.TLS, via=Via.BACKEND)),
        ("type: dns, query: www.example.com.", HealthCheck(CheckType.DNS, query="www.example.com.")),
        ("type: dns, query: _sip._udp.example.com, port: 5353",
         HealthCheck(CheckType.DNS, query="_sip._udp.example.com", port=5353)),
        ("type: tls, host: a, verify: true", HealthCheck(CheckType.TLS, host="a")),
        (
            "type: exec, command: [/bin/check, -v, '']",
            HealthCheck(CheckType.EXEC, command=("/bin/check", "-v", "")),
        ),
        ("type: exec, command: /bin/check", HealthCheck(CheckType.EXEC, command=("/bin/check",))),
    ],
)  # fmt: skip
def test_keys_of_one_type(keys: str, expected: HealthCheck) -> None:
    assert health(keys) == expected


@pytest.mark.parametrize("kind", [CheckType.EXEC, CheckType.SYN, CheckType.PING, CheckType.HTTP])
@pytest.mark.parametrize("forward", list(Forward))
def test_every_mode_can_be_checked(forward: Forward, kind: CheckType) -> None:
    command = ", command: [/bin/check]" if kind is CheckType.EXEC else ""
    more = f"health: {{type: {kind}{command}}}\n      forward: {forward}"
    assert read(more, backends="[10.2.0.11]").health is not None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("true", PassiveCheck()),
        ("false", None),
        ("{}", PassiveCheck()),
        ("{failures: 3, inhibit: 1s, longest: 1m}", PassiveCheck(3, 1, 60)),
        ("{inhibit: 10m}", PassiveCheck(5, 600, 600)),
    ],
)
def test_passive(value: str, expected: PassiveCheck | None) -> None:
    assert read(f"passive: {value}").passive == expected


@pytest.mark.parametrize(
    ("value", "v4", "v6"),
    [
        ("client-ip", Affinity(), Affinity()),
        ("{}", Affinity(), Affinity()),
        ("{mask: 24}", Affinity(prefix4=24), Affinity(prefix6=24)),
        ("{by: client-ip, timeout: 1h}", Affinity(timeout_s=3600), Affinity(timeout_s=3600)),
    ],
)
def test_the_mask_of_affinity_is_of_the_family_of_the_service(value: str, v4: Affinity, v6: Affinity) -> None:
    assert read(f"affinity: {value}").affinity == v4
    assert read(f"affinity: {value}", V6, V6_BACKENDS).affinity == v6


def test_what_acts_on_health() -> None:
    service = read("{health}\n      on_down: move\n      slow_start: 30s\n      panic_threshold: 50%\n"
                   "      drain_timeout: 0s".replace("{health}", "passive: true"))  # fmt: skip
    assert (service.on_down, service.slow_start_s) == (OnDown.MOVE, 30)
    assert (service.panic_threshold, service.drain_timeout_s) == (0.5, 0)
    assert read("health: {type: tcp}\n      panic_threshold: 0.25").panic_threshold == 0.25


def test_nothing_that_does_nothing_needs_a_check() -> None:
    assert read("slow_start: 0s\n      panic_threshold: 0") == read("passive: false")


@pytest.mark.parametrize(
    ("listen", "on_down"),
    [
        ("203.0.113.10:80/tcp+udp", OnDown.RESET),
        ("203.0.113.10:80/udp", OnDown.MOVE),
        ("203.0.113.10:80/udp", OnDown.KEEP),
    ],
)
def test_on_down(listen: str, on_down: OnDown) -> None:
    assert read(f"on_down: {on_down}", listen).on_down is on_down


@pytest.mark.parametrize(("value", "priority"), [("true", 1), ("false", 0), ("1", 1), ("100", 100)])
def test_backup(value: str, priority: int) -> None:
    backends = f"[10.2.0.11:8080, {{address: 10.2.0.12:8080, backup: {value}}}]"
    assert [b.backup for b in read("passive: true", backends=backends).backends] == [0, priority]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("127.0.0.1:9100", ("127.0.0.1", 9100)),
        ("0.0.0.0:9100", ("0.0.0.0", 9100)),
        ('"[::1]:9100"', ("::1", 9100)),
        ('"[::]:1"', ("::", 1)),
        ("203.0.113.10:9100", ("203.0.113.10", 9100)),
    ],
)
def test_metrics(value: str, expected: tuple[str, int]) -> None:
    config = parse_config(web(more=f"  metrics: {value}\n"), "lb.yaml")
    assert config.metrics == (ip_address(expected[0]), expected[1])
