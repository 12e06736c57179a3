"""What the kernel's messages about links and neighbours change."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from l4lb.control.fastpath import Device
from l4lb.net.neighbours import Neighbours

BACKEND = ip_address("10.2.0.11")
MAC = "02:00:00:00:00:0b"
REACHABLE, STALE, FAILED, PERMANENT = 0x02, 0x04, 0x20, 0x80


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def link(event: str = "RTM_NEWLINK", *, family: int = 0, up: bool = True, **changed) -> dict:
    message = {"event": event, "family": family, "index": 3, "flags": int(up), "ifi_type": 1}
    return {**message, "ifname": "lan0", "mtu": 1500, "address": "02:00:00:00:00:03", **changed}


def neighbour(
    state: int, mac: str | None = MAC, event: str = "RTM_NEWNEIGH", dst: str = "10.2.0.11", index: int = 3
) -> dict:
    return {"event": event, "ifindex": index, "dst": dst, "lladdr": mac, "state": state}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock) -> Neighbours:
    """One device and one backend behind it."""
    made = Neighbours(clock)
    made.want({(BACKEND, "lan0")})
    assert made.on_event(link())
    return made


def test_an_address_counts_while_the_kernel_would_use_it(known):
    assert known.sight().neighbours == {}
    assert known.on_event(neighbour(REACHABLE))
    assert known.sight().neighbours == {(BACKEND, 3): bytes.fromhex(MAC.replace(":", ""))}
    assert not known.on_event(neighbour(STALE))
    assert known.on_event(neighbour(FAILED, None))
    assert known.sight().neighbours == {}
    assert known.on_event(neighbour(REACHABLE, "02:00:00:00:00:0c"))
    assert known.on_event(neighbour(REACHABLE, MAC))
    assert known.on_event(neighbour(STALE, MAC, "RTM_DELNEIGH"))
    assert known.sight().neighbours == {}


def test_others_and_addresses_that_are_not_of_ethernet_do_not_count(known):
    for message in (
        neighbour(REACHABLE, dst="10.2.0.99"),
        neighbour(REACHABLE, index=4),
        neighbour(REACHABLE, "0a:00:00:01"),
    ):
        assert not known.on_event(message)
    assert known.sight().neighbours == {}


def test_links_that_change(known):
    assert known.sight().devices == (Device(3, "lan0", 1500, bytes.fromhex("020000000003")),)
    assert not known.on_event(link())
    assert known.on_event(link(mtu=9000))
    assert known.on_event(link(mtu=9000, master=7))
    assert known.sight().devices[0].enslaved
    assert not known.on_event(link("RTM_DELLINK", family=7)), "a bridge's port, not the device"
    assert known.on_event(link(up=False))
    assert known.sight().devices == ()
    assert known.on_event(link(ifi_type=65534, address=None))
    assert known.sight().devices[0].address == b""
    assert known.on_event(link("RTM_DELLINK"))


def test_what_is_not_confirmed_is_due(known, clock):
    assert known.due() == [(BACKEND, 3)]
    known.on_event(neighbour(REACHABLE))
    assert known.due() == []
    known.on_event(neighbour(STALE))
    assert known.due() == [(BACKEND, 3)]
    known.on_event(neighbour(REACHABLE))
    clock.now += 31
    assert known.due() == [(BACKEND, 3)], "a confirmation grows old, even if no event says so"
    known.on_event(neighbour(PERMANENT))
    assert known.due() == []
    known.on_event(link(up=False))
    assert known.due() == []
