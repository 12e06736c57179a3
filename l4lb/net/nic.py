"""Looks at the interface that a family's packets come in by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from socket import AF_INET, AF_INET6
from typing import Any

from pyroute2 import IPRoute

from l4lb.control.realserver import Nic
from l4lb.errors import ConfigError
from l4lb.model import Address

_MAIN_TABLE = 254
_IFF_UP = 1
_IFF_LOOPBACK = 8
_SCOPE_UNIVERSE = 0
_FAMILIES = {4: AF_INET, 6: AF_INET6}


def find_nic(name: str | None, versions: Iterable[int]) -> Nic:
    """The interface of that name; without one, that of the families' default route, or the host's only one.

    ConfigError where there is none, or several could be meant.
    """
    with IPRoute() as route:
        if name is not None:
            index = _find(route, "--interface", name)
        else:
            index = _choose(route, sorted(set(versions)))
        link = next(iter(route.get_links(index)))
        addresses = tuple(_addresses(route, index))
        return Nic(link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_MTU"), addresses)


def demand_interface(option: str, name: str) -> None:
    """ConfigError where there is no interface of that name."""
    with IPRoute() as route:
        _find(route, option, name)


def _find(route: Any, option: str, name: str) -> int:
    found = list(route.link_lookup(ifname=name))
    if not found:
        raise ConfigError(f"{option} {name}: there is no such interface; `ip link` lists them")
    return int(found[0])


def _choose(route: Any, versions: list[int]) -> int:
    indices = {version: _default(route, version) for version in versions}
    chosen = {index for index in indices.values() if index is not None}
    if not chosen:
        links = [link for link in route.get_links() if link["flags"] & _IFF_UP]
        chosen = {link["index"] for link in links if not link["flags"] & _IFF_LOOPBACK}
    if len(chosen) == 1:
        return int(chosen.pop())
    why = "the VIPs' families leave by different ones" if len(indices) > 1 else "there is no default route"
    if not chosen:
        why = "none is up"
    raise ConfigError(f"no interface can be chosen: {why}; name it with --interface")


def _default(route: Any, version: int) -> int | None:
    """The interface of the family's preferred default route in the main table."""
    best: tuple[int, int] | None = None
    for message in route.get_default_routes(family=_FAMILIES[version], table=_MAIN_TABLE):
        hops = message.get_attr("RTA_MULTIPATH") or ()
        index = message.get_attr("RTA_OIF") or (hops[0]["oif"] if hops else None)
        if index is not None:
            candidate = (message.get_attr("RTA_PRIORITY") or 0, int(index))
            best = candidate if best is None else min(best, candidate)
    return best[1] if best else None


def _addresses(route: Any, index: int) -> Iterator[Address]:
    for message in route.get_addr(index=index):
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if text and message["scope"] == _SCOPE_UNIVERSE:
            yield ip_address(text)
