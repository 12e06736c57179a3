"""Backends' link-layer addresses as the kernel knows them, and the devices that lead to them.

Read once through pyroute2, then followed by the kernel's events. The kernel forgets a neighbour that nobody
asks for, and what goes past the IP stack asks for none. So entries that are not confirmed are said to be in
use (NTF_USE), every `REFRESH_S`: the kernel then resolves what is missing and probes what is old, as it would
for packets, and finds out as soon that a backend no longer answers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AF_UNSPEC
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import rtnl
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.control.fastpath import Device, Sight
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
_FAMILIES = {4: AF_INET, 6: AF_INET6}
Wanted = Collection[tuple[Address, str]]
"""Backends, each with the name of the device that leads to it."""
Clock = Callable[[], float]
"""Seconds, from any beginning."""


@dataclass(frozen=True, slots=True)
class _Entry:
    state: int
    link_address: bytes
    since_s: float


class Neighbours:
    """What is known of devices and neighbours. Belongs to the event loop that it is used in."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._devices: dict[int, Device] = {}
        self._entries: dict[tuple[Address, int], _Entry] = {}
        self._wanted: frozenset[tuple[Address, str]] = frozenset()

    def sight(self) -> Sight:
        """The devices that are up, and the addresses of the wanted neighbours that are known."""
        found = {
            key: entry.link_address
            for key, entry in self._entries.items()
            if entry.state & _KNOWN and entry.link_address
        }
        return Sight(tuple(device for _, device in sorted(self._devices.items())), found)

    def want(self, wanted: Wanted) -> None:
        """From now on these are wanted; nothing is known yet."""
        self._wanted = frozenset(wanted)
        self._devices, self._entries = {}, {}

    async def read(self, wanted: Wanted) -> None:
        """Reads all anew; from now on these are `wanted`. NetlinkError or OSError."""
        self.want(wanted)
        async with AsyncIPRoute() as route:
            async for message in await route.get_links():
                self._on_link(message, gone=False)
            for device in self._devices.values():
                versions = {address.version for address, name in self._wanted if name == device.name}
                for version in sorted(versions):
                    async for message in await route.get_neighbours(_FAMILIES[version], ifindex=device.index):
                        self._on_neighbour(message, gone=False)

    def on_event(self, message: Any) -> bool:
        """Takes one of the kernel's messages in; true where what is seen has changed by it."""
        kind = message["event"]
        if kind in ("RTM_NEWLINK", "RTM_DELLINK"):
            return self._on_link(message, gone=kind == "RTM_DELLINK")
        if kind in ("RTM_NEWNEIGH", "RTM_DELNEIGH"):
            return self._on_neighbour(message, gone=kind == "RTM_DELNEIGH")
        return False

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

    def _on_link(self, message: Any, *, gone: bool) -> bool:
        if message["family"] != AF_UNSPEC:
            return False  # a bridge says something about its port
        index = message["index"]
        before = self._devices.pop(index, None)
        if not gone and message["flags"] & _IFF_UP:
            self._devices[index] = _device(message)
        return self._devices.get(index) != before

    def _on_neighbour(self, message: Any, *, gone: bool) -> bool:
        if not message.get("dst"):
            return False
        key = ip_address(message.get("dst")), message["ifindex"]
        device = self._devices.get(key[1])
        if device is None or (key[0], device.name) not in self._wanted:
            return False
        before = self._entries.pop(key, None)
        if not gone:
            self._entries[key] = _Entry(message["state"], _bytes(message.get("lladdr")), self._clock())
        return _usable(self._entries.get(key)) != _usable(before)


@asynccontextmanager
async def open_events() -> AsyncIterator[AsyncIterator[Any]]:
    """The kernel's messages about links and neighbours from now on. Reading them fails with OSError or
    NetlinkError where some were lost."""
    async with AsyncIPRoute() as route:
        await route.bind(groups=rtnl.RTMGRP_NEIGH | rtnl.RTMGRP_LINK)

        async def messages() -> AsyncIterator[Any]:
            while True:
                async for message in route.get():
                    yield message

        yield messages()


def _usable(entry: _Entry | None) -> bytes:
    return entry.link_address if entry is not None and entry.state & _KNOWN else b""


def _device(message: Any) -> Device:
    address = _bytes(message.get("address")) if message["ifi_type"] == _ARPHRD_ETHER else b""
    enslaved = message.get("master") is not None
    return Device(message["index"], message.get("ifname"), message.get("mtu"), address, enslaved)


def _bytes(address: str | None) -> bytes:
    """A link-layer address, empty where it is not one of ethernet."""
    found = bytes.fromhex(address.replace(":", "")) if address else b""
    return found if len(found) == _ETHERNET_BYTES else b""
