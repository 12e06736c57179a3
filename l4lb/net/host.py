"""Addresses, routes and sysctls that balancing needs, set through pyroute2 and /proc and put back on exit.

Only what is missing is changed: an address that the host already has, or forwarding that is already on,
stays the operator's and is left alone at the end.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from socket import AF_INET, AF_INET6
from typing import Any, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.errors import CapabilityError, L4lbError
from l4lb.model import Address
from l4lb.net.journal import Journal

_PROC_SYS = Path("/proc/sys")
_ROUTE_PROTOCOL = 108
"""What `ip route` shows as the origin of our routes: proto 108."""
_MAIN = 254
_ONLINK = 4  # RTNH_F_ONLINK
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


@dataclass(frozen=True, slots=True)
class HostNeeds:
    """What balancing needs of the host.

    `vips` but for `withdrawn` are added to `vip_interface`, unless that is None. `neighbours` are backends
    with direct return, each with its interface: the kernel must resolve their link-layer address, although
    the packet is for the VIP.
    """

    vips: Collection[Address]
    vip_interface: str | None
    neighbours: Collection[tuple[Address, str]] = ()
    withdrawn: Collection[Address] = ()


def prepare_host(journal: Journal, needs: HostNeeds) -> None:
    """Makes the host forward the families of the VIPs, answer for them, and reach its neighbours.

    What a former run or configuration added and is no longer wanted is removed.
    """
    wanted = sorted(set(needs.vips), key=lambda vip: (vip.version, vip))
    for version in sorted({vip.version for vip in wanted}):
        _set_sysctl(journal, _FORWARDING[version], "1")
    # Packets that leave by the interface that they came from would make the kernel send clients past the
    # gateway.
    interfaces = {interface for address, interface in needs.neighbours if address.version == 4}
    for name in ("all", *sorted(interfaces)) if interfaces else ():
        _set_sysctl(journal, f"net/ipv4/conf/{name}/send_redirects", "0")
    held = [vip for vip in wanted if vip not in needs.withdrawn]
    addresses = [(needs.vip_interface, _host(vip)) for vip in held] if needs.vip_interface else []
    routes = sorted((interface, _host(address)) for address, interface in set(needs.neighbours))
    with IPRoute() as route:
        _change(journal, journal.changes.addresses, addresses, _Addresses(route))
        _change(journal, journal.changes.routes, routes, _Routes(route))


def _host(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


class _Kind(Protocol):
    """Addresses or routes: (interface, address/prefix length) either way."""

    def present(self) -> set[str]:
        """Those that the host has, whoever added them."""

    def add(self, interface: str, address: str) -> None:
        """Adds one; L4lbError where it cannot be."""

    def remove(self, interface: str, address: str) -> bool:
        """Removes one; false where it was gone already."""


def _change(
    journal: Journal, noted: list[tuple[str, str]], wanted: list[tuple[str, str]], kind: _Kind
) -> None:
    """Adds what is missing and removes what we added and is not wanted."""
    unwanted = [entry for entry in noted if entry not in wanted]
    for entry in unwanted:
        kind.remove(*entry)
        noted.remove(entry)
    present = kind.present() if wanted else set()
    missing = [entry for entry in wanted if entry[1] not in present]
    # Written once for all, before the first: an entry in the journal that was never added does no harm.
    noted.extend(entry for entry in missing if entry not in noted)
    if unwanted or missing:
        journal.write()
    for entry in missing:
        kind.add(*entry)


def restore_host(journal: Journal) -> list[str]:
    """Puts back everything in the journal; returns what was done, a line each."""
    done = []
    with IPRoute() as route:
        for interface, address in journal.changes.addresses:
            if _Addresses(route).remove(interface, address):
                done.append(f"removed {address} from {interface}")
        for interface, address in journal.changes.routes:
            if _Routes(route).remove(interface, address):
                done.append(f"removed the route to {address} by {interface}")
        journal.changes.addresses.clear()
        journal.changes.routes.clear()
        journal.write()
    for name, value in list(journal.changes.sysctls.items()):
        try:
            (_PROC_SYS / name).write_text(value)
            done.append(f"set {name.replace('/', '.')} back to {value}")
        except FileNotFoundError:
            pass  # an interface that is gone took its settings along
        del journal.changes.sysctls[name]
        journal.write()
    return done


def _set_sysctl(journal: Journal, name: str, value: str) -> None:
    path = _PROC_SYS / name
    try:
        before = path.read_text().strip()
        if before == value:
            return
        journal.changes.sysctls.setdefault(name, before)
        journal.write()
        path.write_text(value)
    except PermissionError as error:
        raise CapabilityError(f"{path}: may not be written; run as root") from error
    except OSError as error:
        raise L4lbError(f"{path}: {error.strerror}; set {name.replace('/', '.')}={value} by hand") from error


class _Addresses:
    def __init__(self, route: Any) -> None:
        self._route = route

    def present(self) -> set[str]:
        found = set()
        for message in self._route.get_addr():
            address = message.get("local") or message.get("address")
            if address:
                found.add(_host(ip_interface(address).ip))
        return found

    def add(self, interface: str, address: str) -> None:
        host, prefix = address.split("/")
        what = f"{address} on {interface}"
        index = _index(self._route, interface)
        _ask(lambda: self._route.addr("add", index=index, address=host, prefixlen=int(prefix)), what)

    def remove(self, interface: str, address: str) -> bool:
        host, prefix = address.split("/")
        return _done(
            lambda: self._route.addr(
                "del", index=_index(self._route, interface), address=host, prefixlen=int(prefix)
            )
        )


class _Routes:
    """Host routes by way of the host itself: the next hop stays the backend when the destination is the VIP
    again."""

    def __init__(self, route: Any) -> None:
        self._route = route

    def present(self) -> set[str]:
        found = set()
        for family in (AF_INET, AF_INET6):
            for message in self._route.get_routes(family=family, table=_MAIN):
                address = message.get("dst")
                if address and address == message.get("gateway"):
                    found.add(_host(ip_interface(address).ip))
        return found

    def add(self, interface: str, address: str) -> None:
        _ask(lambda: self._route.route("add", **self._words(interface, address)), f"the route to {address}")

    def remove(self, interface: str, address: str) -> bool:
        return _done(lambda: self._route.route("del", **self._words(interface, address)))

    def _words(self, interface: str, address: str) -> dict[str, Any]:
        host = address.split("/")[0]
        return {
            "dst": address,
            "gateway": host,
            "oif": _index(self._route, interface),
            "flags": _ONLINK,
            "proto": _ROUTE_PROTOCOL,
            "table": _MAIN,
            "family": AF_INET6 if ":" in host else AF_INET,
        }


def _ask(action: Callable[[], Any], what: str) -> None:
    try:
        action()
    except NetlinkError as error:
        if error.code == errno.EPERM:
            raise CapabilityError(f"{what}: needs CAP_NET_ADMIN; run as root") from error
        if error.code != errno.EEXIST:
            raise L4lbError(f"{what}: cannot be added: {error}") from error


def _done(action: Callable[[], Any]) -> bool:
    try:
        action()
    except (NetlinkError, L4lbError):
        return False  # it is gone already, with its interface or by hand
    return True


def _index(route: Any, interface: str) -> int:
    found = list(route.link_lookup(ifname=interface))
    if not found:
        raise L4lbError(f"l4.vip_interface: there is no interface {interface}; `ip link` lists them")
    return int(found[0])
