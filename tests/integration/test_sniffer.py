"""A packet is seen once, whatever devices it passes, and also where the ingress hook sends it away."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.support.lab import Host, Lab

pytestmark = pytest.mark.root
TAKEN_AWAY = """
table netdev away {
    chain in {
        type filter hook ingress device "inner" priority 0; policy accept;
        udp dport 9 drop
    }
}
"""


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Host]:
    """Two ends of a cable in one host; behind one of them a bridge, and a device for the tag 10."""
    gateway = lab.gateway
    gateway.run(["ip", "link", "add", "outer", "type", "veth", "peer", "name", "inner"])
    gateway.run(["ip", "link", "add", "over", "type", "bridge"])
    for name in ("outer", "inner", "over"):
        gateway.run(["ip", "link", "set", name, "up"])
    yield gateway
    gateway.run(["ip", "link", "del", "over"])
    gateway.run(["ip", "link", "del", "outer"])


def sent_and_seen(host: Host, port: int = 7, tag: int = 0, to: str = "inner") -> list[str]:
    """The devices at which a datagram is seen."""
    address = json.loads(host.run(["ip", "-j", "link", "show", to]).stdout)[0]["address"]
    # A program of its own, for it sees the host's devices in /sys, too.
    words = [sys.executable, "-m", "tests.integration.sniff_one", address, str(port), str(tag)]
    return host.run(words).stdout.split()


def test_a_packet_is_seen_where_it_comes_in(host):
    assert sent_and_seen(host) == ["inner"]


def test_what_the_ingress_hook_takes_is_seen_before(host):
    host.run(["nft", "-f", "-"], input=TAKEN_AWAY)
    try:
        assert sent_and_seen(host, port=9) == ["inner"]
    finally:
        host.run(["nft", "delete", "table", "netdev", "away"])


def test_a_tagged_frame_is_not_seen_below_the_device_for_its_tag(host):
    assert sent_and_seen(host, tag=10) == []


def test_a_tagged_frame_is_seen_at_the_device_for_its_tag(host):
    words = ["ip", "link", "add", "link", "inner", "name", "inner.10", "type", "vlan", "id", "10"]
    added = host.run(words, check=False)
    if added.returncode:
        pytest.skip(f"this kernel has no VLAN devices: {added.stderr.strip()}")
    host.run(["ip", "link", "set", "inner.10", "up"])
    try:
        assert sent_and_seen(host, tag=10) == ["inner.10"]
    finally:
        host.run(["ip", "link", "del", "inner.10"])


def test_a_frame_for_a_bridge_is_seen_at_the_bridge(host):
    host.run(["ip", "link", "set", "inner", "master", "over"])
    try:
        assert sent_and_seen(host, to="over") == ["over"]
    finally:
        host.run(["ip", "link", "set", "inner", "nomaster"])
