"""Where packets go, as the kernel's events tell it: devices, neighbours' link-layer addresses, routes.

What goes past the IP stack goes by what the kernel has said once. So all neighbours are followed, and that
one has another address, or none any more, is a change of ways. The kernel forgets a neighbour that nobody
asks for, and what goes past the IP stack asks for none. So backends with direct return whose entries are not
confirmed are said to be in use (NTF_USE), every `REFRESH_S`: the kernel then resolves what is missing and
probes what is old, as it would for packets, and finds out as soon that a backend no longer answers. (Those
of NAT may be many hops away; for them the packets do whose flows are learned anew.)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Flag, auto
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.control.fastpath import Device
from l4lb.model import Address

REFRESH_S = 5.0
"""As long as the kernel itself waits before it probes a neighbour that it uses (delay_first_probe_time)."""
_CONFIRMED_S = 30.0
"""After so long a confirmation is old, whatever the kernel has said (base_reachable_time)."""
_ARPHRD_ETHER = 1
_IFF_UP = 1
_NTF_USE = 1
_REACHABLE, _STALE, _DELAY, _PROBE, _NOARP, _PERMANENT = 0x02, 0x04, 0x08, 0x10, 0x40, 0x80
_KNOWN = _REACHABLE | _STALE | _DELAY | _PROBE | _NOARP | _PERMANENT
_BY_HAND = _NOARP | _PERMANENT
_ETHERNET_BYTES = 6
_MAX_KNOWN = 65536
"""Neighbours that are remembered; the oldest are forgotten first."""
Wanted = Collection[tuple[Address, str]]
"""Backends, each with the name of the device that leads to it."""
Clock = Callable[[], float]
"""Seconds, from any beginning."""


class Change(Flag):
    """What a message has changed."""

    NONE = 0
    DEVICES = auto()
    """The devices that are up, or what is known of one."""
    WAYS = auto()
    """The next hop of packets, or its link-layer address, may be another one."""


@dataclass(frozen=True, slots=True)
class _Entry:
    state: int
    link_address: bytes
    since_s: float

    @property
    def usable(self) -> bytes:
        """The link-layer address, while the kernel would send to it."""
        return self.link_address if self.state & _KNOWN else b""


class Neighbours:
    """What is known of devices and neighbours. Belongs to the event loop that it is used in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._devices: dict[int, Device] = {}
        self._entries: dict[tuple[Address, int], _Entry] = {}
        self._wanted: frozenset[tuple[Address, str]] = frozenset()

    @property
    def devices(self) -> list[Device]:
        """The devices that are up, by index."""
        return [device for _, device in sorted(self._devices.items())]

    def want(self, wanted: Wanted) -> None:
        """From now on these are kept resolved."""
        self._wanted = frozenset(wanted)

    async def read(self) -> None:
        """Reads all anew. NetlinkError or OSError."""
        self._devices, self._entries = {}, {}
        async with AsyncIPRoute() as route:
            async for message in await route.get_links():
                self._on_link(message, gone=False)
            for family in (AF_INET, AF_INET6):
                async for message in await route.get_neighbours(family):
                    self._on_neighbour(message, gone=False)

    def on_event(self, message: Any) -> Change:
        """Takes one of the kernel's messages in."""
        kind = message["event"]
        if kind in ("RTM_NEWLINK", "RTM_DELLINK"):
            return self._on_link(message, gone=kind == "RTM_DELLINK")
        if kind in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
            return self._on_neighbour(message, gone=kind == "RTM_DELNEIGH")
        return Change.WAYS if kind in ("RTM_NEWROUTE", "RTM_DELROUTE") else Change.NONE

    async def refresh(self) -> None:
        """Has the kernel resolve or confirm what is wanted; what was set by hand stays as it is."""
        due = self.due()
        if not due:
            return
        async with AsyncIPRoute() as route:
            for address, index in due:
                try:
                    await route.neigh("replace", dst=str(address), ifindex=index, flags=_NTF_USE, state=0)
                except NetlinkError:
                    continue  # the device has just gone

    def due(self) -> list[tuple[Address, int]]:
        """The wanted neighbours, each with the index of its device, that are missing or not confirmed."""
        indices = {device.name: device.index for device in self._devices.values()}
        places = ((address, indices[name]) for address, name in self._wanted if name in indices)
        return [place for place in places if self._is_due(self._entries.get(place))]

    def _is_due(self, entry: _Entry | None) -> bool:
        if entry is None:
            return True
        if entry.state & _BY_HAND:
            return False
        return not entry.state & _REACHABLE or self._clock() - entry.since_s > _CONFIRMED_S

    def _on_link(self, message: Any, *, gone: bool) -> Change:
        if message["family"] != AF_UNSPEC:
            return Change.NONE  # a bridge says something about its port
        index = message["index"]
        before = self._devices.pop(index, None)
        if not gone and message["flags"] & _IFF_UP:
            self._devices[index] = _device(message)
        return Change.NONE if self._devices.get(index) == before else Change.DEVICES | Change.WAYS

    def _on_neighbour(self, message: Any, *, gone: bool) -> Change:
        """One that comes leads nobody another way, and that an entry went for which there was no more use is
        no news of the neighbour: should it come back with another address, that is."""
        device = self._devices.get(message["ifindex"])
        if not message.get("dst") or device is None or not device.is_a_way:
            return Change.NONE
        key = ip_address(message.get("dst")), device.index
        wanted = (key[0], device.name) in self._wanted
        if gone and not wanted:
            return Change.NONE
        before = self._entries.pop(key, None)
        if not gone:
            self._entries[key] = _Entry(message["state"], _bytes(message.get("lladdr")), self._clock())
            if len(self._entries) > _MAX_KNOWN:
                del self._entries[next(iter(self._entries))]
        after = self._entries.get(key)
        if before is None or not before.usable or (after is not None and after.usable == before.usable):
            return Change.NONE
        return Change.WAYS


@asynccontextmanager
async def open_events() -> AsyncIterator[AsyncIterator[Any]]:
    """The kernel's messages about links, neighbours and routes from now on. Reading them fails with OSError
    or NetlinkError where some were lost."""
    async with AsyncIPRoute() as route:
        await route.bind(
            groups=rtnl.RTMGRP_NEIGH | rtnl.RTMGRP_LINK | rtnl.RTMGRP_IPV4_ROUTE | rtnl.RTMGRP_IPV6_ROUTE
        )

        async def messages() -> AsyncIterator[Any]:
            while True:
                async for message in route.get():
                    yield message

        yield messages()


def _device(message: Any) -> Device:
    address = _bytes(message.get("address")) if message["ifi_type"] == _ARPHRD_ETHER else b""
    enslaved = message.get("master") is not None
    return Device(message["index"], message.get("ifname"), message.get("mtu"), address, enslaved)


def _bytes(address: str | None) -> bytes:
    """A link-layer address, empty where it is not one of ethernet."""
    found = bytes.fromhex(address.replace(":", "")) if address else b""
    return found if len(found) == _ETHERNET_BYTES else b""
