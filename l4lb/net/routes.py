"""How the host reaches backends, asked of the kernel's routing table through pyroute2."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.control.pool import Path
from l4lb.errors import L4lbError
from l4lb.model import Address


def find_paths(addresses: Iterable[Address]) -> dict[Address, Path]:
    """The path to each address. L4lbError names the one that has none."""
    wanted = sorted(set(addresses), key=lambda address: (address.version, address))
    if not wanted:
        return {}
    with IPRoute() as route:
        links = {link["index"]: link for link in route.get_links()}
        return {address: _find_path(route, links, address) for address in wanted}


def _find_path(route: Any, links: dict[int, Any], address: Address) -> Path:
    try:
        found = next(iter(route.route("get", dst=str(address))), None)
    except NetlinkError as error:
        raise _unreachable(address, str(error)) from error
    link = links.get(found.get("oif")) if found is not None else None
    if found is None or link is None or not found.get("prefsrc"):
        raise _unreachable(address, "the kernel names no interface and source")
    gateway = found.get("gateway")
    metrics = found.get("metrics")
    mtu = metrics.get("mtu") if metrics is not None else None
    return Path(
        interface=link.get("ifname"),
        source=ip_address(found.get("prefsrc")),
        # A host route by way of itself is one that a run of ours has made.
        gateway=None if gateway in (None, str(address)) else ip_address(gateway),
        mtu=min(mtu or link.get("mtu"), link.get("mtu")),
    )


def _unreachable(address: Address, why: str) -> L4lbError:
    return L4lbError(
        f"backend {address}: there is no route to it ({why}); "
        f"`ip route get {address}` shows what the kernel says"
    )
