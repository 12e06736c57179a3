"""Which checks go through the VIP, and for how long their packets are remembered."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from l4lb.control.check_way import asks_vip, lease_s
from l4lb.control.config import parse_config
from l4lb.model import CheckType, Service

ANSWERED = {CheckType.UDP: "expect: {body: x}, ", CheckType.EXEC: "command: /bin/true, "}


def service(health: str, forward: str = "dsr") -> Service:
    text = f"""
l4:
  services:
    - name: web
      forward: {forward}
      listen: 203.0.113.10:80/tcp
      health: {{{health}}}
      backends: [10.2.0.11]
"""
    return parse_config(text, "test").services[0]


def asks(health: str, forward: str = "dsr") -> bool:
    made = service(health, forward)
    return asks_vip(made, made.backends[0])


@pytest.mark.parametrize("kind", CheckType)
def test_where_backends_answer_themselves_all_that_has_ports_goes_through_the_vip(kind):
    health = f"{ANSWERED.get(kind, '')}type: {kind}"
    for forward in ("dsr", "ipip", "gue"):
        assert asks(health, forward) == (kind not in (CheckType.PING, CheckType.EXEC))
    for forward in ("nat", "masquerade"):
        assert not asks(health, forward)


def test_a_backend_of_the_other_family_is_asked_itself():
    made = service("type: tcp", "ipip")
    other = replace(made.backends[0], address=ip_address("2001:db8::11"))
    assert [asks_vip(made, backend) for backend in (made.backends[0], other)] == [True, False]


def test_an_operator_may_have_the_backend_itself_asked():
    assert asks("type: tcp, via: vip")
    assert not asks("type: tcp, via: backend")


def test_where_silence_is_good_the_backend_itself_is_asked_for_its_icmp_errors():
    assert not asks("type: udp")
    assert asks("type: udp, expect: {match: pong}")


def test_a_packet_is_remembered_for_as_long_as_the_slowest_check_takes():
    assert lease_s([]) is None
    assert lease_s([service("type: tcp, timeout: 9s", "nat"), service("type: ping, timeout: 9s")]) is None
    both = [service("type: tcp, timeout: 2500ms"), service("type: tcp, timeout: 100ms")]
    assert lease_s([*both, service("type: tcp, via: backend, timeout: 60s")]) == 4
