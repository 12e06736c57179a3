"""What the kernel's messages about links, neighbours and routes change."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from l4lb.control.fastpath import Device
from l4lb.net.neighbours import Change, Neighbours

BACKEND = ip_address("10.2.0.11")
MAC = "02:00:00:00:00:0b"
MOVED = Change.DEVICES | Change.WAYS
OTHER = "10.2.0.99"
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
    """One device and one wanted backend behind it."""
    made = Neighbours(clock)
    made.want({(BACKEND, "lan0")})
    assert made.on_event(link()) == MOVED
    return made


def test_a_backend_that_has_another_address_or_none_is_a_change(known):
    assert not known.on_event(neighbour(REACHABLE)), "nothing could go by what was not known"
    assert not known.on_event(neighbour(STALE))
    assert known.on_event(neighbour(FAILED, None)) == Change.WAYS
    assert not known.on_event(neighbour(FAILED, None))
    assert not known.on_event(neighbour(REACHABLE, "02:00:00:00:00:0c"))
    assert known.on_event(neighbour(REACHABLE, MAC)) == Change.WAYS
    assert known.on_event(neighbour(STALE, MAC, "RTM_DELNEIGH")) == Change.WAYS


def test_others_are_followed_too_but_not_that_the_kernel_forgets_them(known):
    assert not known.on_event(neighbour(REACHABLE, dst=OTHER))
    assert not known.on_event(neighbour(STALE, event="RTM_DELNEIGH", dst=OTHER))
    assert not known.on_event(neighbour(REACHABLE, dst=OTHER))
    assert not known.on_event(neighbour(STALE, event="RTM_DELNEIGH", dst=OTHER))
    assert known.on_event(neighbour(REACHABLE, "02:00:00:00:00:0c", dst=OTHER)) == Change.WAYS
    assert known.on_event(neighbour(FAILED, None, dst=OTHER)) == Change.WAYS


def test_what_cannot_be_gone_by_is_no_change(known):
    for mac in (MAC, "02:00:00:00:00:0c"):
        assert not known.on_event(neighbour(REACHABLE, mac, index=4)), "a device that is not up"
    assert not known.on_event(neighbour(REACHABLE, "0a:00:00:01"))
    assert not known.on_event(neighbour(REACHABLE)), "the one before was not of ethernet"


def test_routes_that_change(known):
    for event in ("RTM_NEWROUTE", "RTM_DELROUTE"):
        assert known.on_event({"event": event}) == Change.WAYS
    assert not known.on_event({"event": "RTM_NEWADDR"})


def test_links_that_change(known):
    assert known.devices == [Device(3, "lan0", 1500, bytes.fromhex("020000000003"))]
    assert not known.on_event(link())
    assert known.on_event(link(mtu=9000)) == MOVED
    assert known.on_event(link(mtu=9000, master=7)) == MOVED
    assert known.devices[0].enslaved
    assert not known.on_event(link("RTM_DELLINK", family=7)), "a bridge's port, not the device"
    assert known.on_event(link(up=False)) == MOVED
    assert known.devices == []
    assert known.on_event(link(ifi_type=65534, address=None)) == MOVED
    assert known.devices[0].address == b""
    assert known.on_event(link("RTM_DELLINK")) == MOVED


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
