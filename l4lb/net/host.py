"""Addresses and sysctls that balancing needs, set through pyroute2 and /proc and put back on exit.

Only what is missing is changed: an address that the host already has, or forwarding that is already on,
stays the operator's and is left alone at the end.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.errors import CapabilityError, L4lbError
from l4lb.model import Address
from l4lb.net.journal import Journal

_PROC_SYS = Path("/proc/sys")
_FORWARDING = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}


def prepare_host(journal: Journal, vips: Iterable[Address], interface: str | None) -> None:
    """Makes the host forward the families of the VIPs and answer for them on `interface`.

    VIPs that a former run or configuration added and that are no longer wanted are removed.
    """
    wanted = sorted(set(vips), key=lambda vip: (vip.version, vip))
    for version in sorted({vip.version for vip in wanted}):
        _set_sysctl(journal, _FORWARDING[version], "1")
    addresses = [(interface, f"{vip}/{vip.max_prefixlen}") for vip in wanted] if interface else []
    with IPRoute() as route:
        unwanted = [entry for entry in journal.changes.addresses if entry not in addresses]
        for entry in unwanted:
            _remove_address(route, *entry)
            journal.changes.addresses.remove(entry)
        present = _present(route)
        missing = [entry for entry in addresses if entry[1] not in present]
        # Written once for all, before the first: an address in the journal that was never added does no harm.
        journal.changes.addresses.extend(entry for entry in missing if entry not in journal.changes.addresses)
        if unwanted or missing:
            journal.write()
        for entry in missing:
            _add_address(route, *entry)


def restore_host(journal: Journal) -> list[str]:
    """Puts back everything in the journal; returns what was done, a line each."""
    done = []
    with IPRoute() as route:
        for interface, address in journal.changes.addresses:
            if _remove_address(route, interface, address):
                done.append(f"removed {address} from {interface}")
        journal.changes.addresses.clear()
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


def _present(route: Any) -> set[str]:
    """Every address of the host as address/longest prefix."""
    found = set()
    for message in route.get_addr():
        address = message.get("local") or message.get("address")
        if address:
            ip = ip_interface(address).ip
            found.add(f"{ip}/{ip.max_prefixlen}")
    return found


def _add_address(route: Any, interface: str, address: str) -> None:
    host, prefix = address.split("/")
    try:
        route.addr("add", index=_index(route, interface), address=host, prefixlen=int(prefix))
    except NetlinkError as error:
        if error.code == errno.EPERM:
            raise CapabilityError(f"{address} on {interface}: needs CAP_NET_ADMIN; run as root") from error
        if error.code != errno.EEXIST:
            raise L4lbError(f"{address} on {interface}: cannot be added: {error}") from error


def _remove_address(route: Any, interface: str, address: str) -> bool:
    host, prefix = address.split("/")
    try:
        route.addr("del", index=_index(route, interface), address=host, prefixlen=int(prefix))
    except (NetlinkError, L4lbError):
        return False  # it is gone already, with its interface or by hand
    return True


def _index(route: Any, interface: str) -> int:
    found = list(route.link_lookup(ifname=interface))
    if not found:
        raise L4lbError(f"l4.vip_interface: there is no interface {interface}; `ip link` lists them")
    return int(found[0])
