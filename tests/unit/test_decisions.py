"""What the daemon says of packets that were seen."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from l4lb.cli.decisions import decide_packets
from l4lb.control.config import parse_config
from l4lb.control.rehearsal import Rehearsal
from l4lb.errors import ConfigError
from l4lb.net.questions import MAX_PACKETS, pack_packets, unpack_packets
from tests.support.cores import KEY
from tests.support.packets import tcp, udp

CONFIG = """
l4:
  services:
    - name: web
      listen: 203.0.113.10:80/tcp
      scheduler: maglev
      deny: [192.0.2.0/24]
      backends: [10.2.0.11:8080, 10.2.0.12:8080]
    - name: six
      listen: "[2001:db8:f::10]:53/udp"
      backends: ["[2001:db8:2::11]:53"]
"""
NOW = 50_000
CLIENT, WEB = "198.51.100.7:40000", "203.0.113.10:80"


@pytest.fixture
def scene() -> Any:
    """Two workers that share nothing but the configuration."""
    rehearsals = [Rehearsal(parse_config(CONFIG, "test"), KEY) for _ in range(2)]
    first = rehearsals[0]
    return SimpleNamespace(
        config=first.config,
        slots=first.slots,
        table=replace(first.table, learns=True),
        workers=[SimpleNamespace(number=n, balancer=r.balancer) for n, r in enumerate(rehearsals)],
        learned=frozenset(range(3)),
    )


def decide(scene: Any, packet: bytes, now: int = NOW) -> dict[str, Any]:
    (row,) = decide_packets(scene, [packet], now)
    return row


def test_a_packet_whose_flow_is_not_known_gets_what_would_be_decided(scene):
    row = decide(scene, tcp(CLIENT, WEB))
    assert (row["verdict"], row["reason"], row["known"]) == ("forward", "scheduled", False)
    assert row["service"] == "web" and row["backend"].startswith("10.2.0.1")
    assert scene.workers[0].balancer.flow_count() == 0


def test_the_first_packet_of_a_known_flow_was_scheduled_and_later_ones_follow(scene):
    balancer = scene.workers[1].balancer
    syn, ack = tcp(CLIENT, WEB), tcp(CLIENT, WEB, "A")
    slot = balancer.decide(syn, NOW, rewrite=False).slot
    row = decide(scene, syn)
    assert (row["reason"], row["known"], row["state"]) == ("scheduled", True, "syn_recv")
    assert row["backend"] == scene.slots.owner(slot).backend
    for _ in range(8):
        balancer.decide(ack, NOW, rewrite=False)
    row = decide(scene, ack)
    assert (row["reason"], row["state"], row["offloaded"]) == ("flow", "established", True)


def test_a_flow_whose_time_is_over_is_not_known(scene):
    scene.workers[0].balancer.decide(tcp(CLIENT, WEB), NOW, rewrite=False)
    assert decide(scene, tcp(CLIENT, WEB), NOW + 10**7)["known"] is False


@pytest.mark.parametrize(
    ("packet", "service", "verdict", "reason"),
    [
        (tcp("192.0.2.9:1", WEB), "web", "drop", "denied"),
        (tcp(CLIENT, WEB, "R"), "web", "drop", "no_flow"),
        (tcp(CLIENT, "203.0.113.10:81"), None, "accept", "not_balanced"),
        (udp("[2001:db8::7]:9", "[2001:db8:f::10]:53"), "six", "forward", "scheduled"),
        (b"\x45", None, "drop", "truncated"),
        (b"", None, "drop", "truncated"),
        (b"\xff" * 60, None, "drop", "malformed"),
    ],
)
def test_every_packet_has_a_reason(scene, packet, service, verdict, reason):
    row = decide(scene, packet)
    assert (row["service"], row["verdict"], row["reason"]) == (service, verdict, reason)
    assert row["why"] and not row["known"]


def test_a_question_has_the_beginning_of_a_packet_and_its_length():
    packet = tcp(CLIENT, WEB, "A", b"x" * 3000)
    (asked,) = unpack_packets(pack_packets([(packet[:300], len(packet))]))
    assert len(asked) == len(packet)
    assert asked[:256] == packet[:256] and not any(asked[256:])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"packets": "ab"},
        {"packets": [["zz", 1]]},
        {"packets": [["ab", -1]]},
        {"packets": [["ab", 10**9]]},
        {"packets": [["ab", "1"]]},
        {"packets": [[12, 1]]},
        {"packets": ["ab"]},
        {"packets": [5]},
        {"packets": [["ab", 1]] * (MAX_PACKETS + 1)},
    ],
)
def test_a_question_of_another_form_is_refused(body):
    with pytest.raises(ConfigError):
        unpack_packets(body)
