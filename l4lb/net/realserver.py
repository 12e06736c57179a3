"""Makes a host a backend that answers for VIPs itself, and takes it back.

What is missing is made, and written into a journal of its own before it is made; what is there already is the
operator's and stays. A run that fails takes back what it made. The journal lies below /run: after a reboot
both it and the changes are gone.
"""

from __future__ import annotations

import copy
import errno
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from l4lb.control.realserver import (
    TABLE,
    Clamp,
    GuePort,
    HostVip,
    Setting,
    Step,
    Tunnel,
    clamp_names,
    clamp_script,
)
from l4lb.errors import CapabilityError, L4lbError
from l4lb.model import Address
from l4lb.net import fou, nft
from l4lb.net.made import Made, RealServerJournal

_PROC_SYS_NET = Path("/proc/sys/net")
_IFA_F_NODAD = 2
_FOREVER = 0xFFFFFFFF
_NFT_TIMEOUT_S = 60
_TUNNEL_PROTOCOL = {"ipip": 4, "sit": 41, "ip6tnl": 0}
"""What a kind of tunnel carries inside; 0 is both families."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing on the host: what it is, and whether it was (or, in a dry run, would be) changed."""

    what: str
    changed: bool


def apply(journal: RealServerJournal, steps: Sequence[Step], *, dry_run: bool = False) -> Iterator[Outcome]:
    """Makes what is missing, telling each thing as it is done.

    CapabilityError where the kernel lacks something, L4lbError where something else is in the way; then what
    this run has made is taken back.
    """
    before = copy.deepcopy(journal.made)
    try:
        with IPRoute() as route:
            for step in steps:
                match step:
                    case Tunnel():
                        yield _apply_tunnel(journal, route, step, dry_run)
                    case GuePort():
                        yield _apply_gue_port(journal, step, dry_run)
                    case Setting():
                        yield _apply_setting(journal, step, dry_run)
                    case Clamp():
                        yield from _apply_clamp(journal, step, dry_run)
                    case HostVip():
                        yield _apply_vip(journal, route, step, dry_run)
    except L4lbError:
        for _ in undo(journal, keep=before):
            pass
        raise


def undo(journal: RealServerJournal, *, keep: Made | None = None, dry_run: bool = False) -> Iterator[str]:
    """Takes back what the journal has and `keep` has not, the VIPs first; yields a line each.

    What somebody has removed by hand is left out.
    """
    kept = keep or Made()
    made = copy.deepcopy(journal.made)
    with IPRoute() as route:
        for device, vip in [entry for entry in made.vips if entry not in kept.vips]:
            if dry_run or _remove_vip(route, device, ip_address(vip)):
                yield f"removed {vip} from {device}"
            if not dry_run:
                journal.made.vips.remove((device, vip))
                journal.write()
        yield from _undo_clamps(journal, kept, dry_run)
        for name, value in made.settings.items():
            if name in kept.settings:
                continue
            if dry_run or _restore(name, value):
                yield f"set {_shown(name)} back to {value}"
            if not dry_run:
                del journal.made.settings[name]
                journal.write()
        for version, port in [port for port in made.gue_ports if port not in kept.gue_ports]:
            if dry_run or fou.remove_gue_port(version, port):
                yield f"ended GUE over IPv{version} on port {port}"
            if not dry_run:
                journal.made.gue_ports.remove((version, port))
                journal.write()
        for name in [name for name in made.tunnels if name not in kept.tunnels]:
            if dry_run or _remove_tunnel(route, name):
                yield f"removed the tunnel {name}"
            if not dry_run:
                journal.made.tunnels.remove(name)
                journal.write()


def _apply_tunnel(journal: RealServerJournal, route: Any, tunnel: Tunnel, dry_run: bool) -> Outcome:
    what = f"tunnel {tunnel.name} to {tunnel.local}, MTU {tunnel.mtu}"
    present = _find_link(route, tunnel.name)
    if present is not None:
        info = present.get_attr("IFLA_LINKINFO")
        data = info.get_attr("IFLA_INFO_DATA") if info else None
        local = data.get_attr(f"IFLA_{tunnel.kind.upper()}_LOCAL") if data else None
        if local == str(tunnel.local) and info.get_attr("IFLA_INFO_KIND") == tunnel.kind:
            return Outcome(what, False)
        raise L4lbError(
            f"{tunnel.name}: is there already and ends at {local}; remove it (--undo, or ip link del)"
        )
    if dry_run:
        return Outcome(what, True)
    if tunnel.name not in journal.made.tunnels:
        journal.made.tunnels.append(tunnel.name)
        journal.write()
    words = {f"{tunnel.kind}_local": str(tunnel.local), f"{tunnel.kind}_proto": _TUNNEL_PROTOCOL[tunnel.kind]}
    try:
        route.link("add", ifname=tunnel.name, mtu=tunnel.mtu, kind=tunnel.kind, **words)
        made = _find_link(route, tunnel.name)
        if made is not None:
            route.link("set", index=made["index"], state="up")
    except NetlinkError as error:
        if error.code == errno.EOPNOTSUPP:
            raise CapabilityError(
                f"the kernel has no tunnels of the kind {tunnel.kind} (neither built in nor as a module); "
                "name what decapsulates in its place with --tunnel-device"
            ) from error
        raise L4lbError(f"{tunnel.name}: cannot be made: {error}") from error
    return Outcome(what, True)


def _apply_gue_port(journal: RealServerJournal, wanted: GuePort, dry_run: bool) -> Outcome:
    what = f"GUE over IPv{wanted.version} on port {wanted.port}"
    if fou.gue_port_exists(wanted.version, wanted.port):
        return Outcome(what, False)
    if not dry_run:
        entry = (wanted.version, wanted.port)
        if entry not in journal.made.gue_ports:
            journal.made.gue_ports.append(entry)
            journal.write()
        fou.add_gue_port(*entry)
    return Outcome(what, True)


def _apply_setting(journal: RealServerJournal, setting: Setting, dry_run: bool) -> Outcome:
    what = f"{_shown(setting.path)}={setting.value}"
    path = _PROC_SYS_NET / setting.path
    try:
        before = path.read_text().strip()
        if before in setting.enough:
            return Outcome(f"{_shown(setting.path)}={before}", False)
        if not dry_run:
            journal.made.settings.setdefault(setting.path, before)
            journal.write()
            path.write_text(setting.value)
    except FileNotFoundError:
        if dry_run:  # of a tunnel that would be made first
            return Outcome(what, True)
        raise L4lbError(f"{path}: is not there; does the interface exist?") from None
    except PermissionError as error:
        raise CapabilityError(f"{path}: may not be written; run as root, outside of a container") from error
    except OSError as error:
        raise L4lbError(f"{path}: {error.strerror}; set {what} by hand") from error
    return Outcome(what, True)


def _apply_clamp(journal: RealServerJournal, clamp: Clamp, dry_run: bool) -> Iterator[Outcome]:
    present = _present_clamps()
    entries = {vip: (clamp.version, clamp.mss, str(vip)) for vip in clamp.vips}
    missing = tuple(vip for vip, entry in entries.items() if entry not in (present or ()))
    for vip in clamp.vips:
        if vip not in missing:
            yield Outcome(f"MSS {clamp.mss} from {vip}", False)
    if not missing:
        return
    if not dry_run:
        made = journal.made
        made.table = made.table or present is None
        made.clamps.extend(entries[vip] for vip in missing if entries[vip] not in made.clamps)
        journal.write()
        nft.run_nft("\n".join(clamp_script(Clamp(missing, clamp.mss))) + "\n")
        # Another MSS of before would go on to hold where it is smaller.
        others = [c for c in made.clamps if ip_address(c[2]) in missing and c[1] != clamp.mss]
        _remove_clamps(journal, others)
    for vip in missing:
        yield Outcome(f"MSS {clamp.mss} from {vip}", True)


def _apply_vip(journal: RealServerJournal, route: Any, wanted: HostVip, dry_run: bool) -> Outcome:
    vip, device = wanted.address, wanted.device
    what = f"{vip} on {device}"
    link = _find_link(route, device)
    if link is not None and _has_address(route, link["index"], vip):
        return Outcome(what, False)
    if dry_run:
        return Outcome(what, True)
    if link is None:
        raise L4lbError(f"{what}: the device is gone; run again when it is there")
    if (device, str(vip)) not in journal.made.vips:
        journal.made.vips.append((device, str(vip)))
        journal.write()
    words: dict[str, int] = {}
    if vip.version == 6:
        words = {"preferred_lft": 0, "valid_lft": _FOREVER, "flags": _IFA_F_NODAD}
    try:
        route.addr("add", index=link["index"], address=str(vip), prefixlen=vip.max_prefixlen, **words)
    except NetlinkError as error:
        if error.code == errno.EPERM:
            raise CapabilityError(f"{what}: needs CAP_NET_ADMIN; run as root") from error
        hint = f"; is net.ipv6.conf.{device}.disable_ipv6 set?" if vip.version == 6 else ""
        raise L4lbError(f"{what}: cannot be added: {error}{hint}") from error
    return Outcome(what, True)


def _has_address(route: Any, index: int, wanted: Address) -> bool:
    for message in route.get_addr(index=index):
        found = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if found and ip_address(found) == wanted:
            return True
    return False


def _undo_clamps(journal: RealServerJournal, kept: Made, dry_run: bool) -> Iterator[str]:
    gone = [clamp for clamp in journal.made.clamps if clamp not in kept.clamps]
    table = journal.made.table and not kept.table
    present = _present_clamps() if gone or table else None
    for clamp in gone:
        if present and clamp in present:
            yield f"removed the MSS {clamp[1]} from {clamp[2]}"
    if table and present is not None:
        yield f"deleted table inet {TABLE}"
    if dry_run:
        return
    if table:
        nft.delete_table(TABLE)
        journal.made.table = False
        journal.made.clamps = [clamp for clamp in journal.made.clamps if clamp not in gone]
        journal.write()
    else:
        _remove_clamps(journal, gone)


def _remove_clamps(journal: RealServerJournal, gone: Sequence[tuple[int, int, str]]) -> None:
    present = _present_clamps() if gone else None
    for entry in gone:
        _, mss, vip = entry
        if present and entry in present:
            _, vips = clamp_names(Clamp((ip_address(vip),), mss))
            nft.run_nft(f"delete element inet {TABLE} {vips} {{ {vip} }}\n")
        journal.made.clamps.remove(entry)
        journal.write()


def _present_clamps() -> set[tuple[int, int, str]] | None:
    """(family, MSS, VIP) of every clamp that stands, ours or not; None where there is no table."""
    if not nft.table_exists(TABLE):
        return None
    command = [shutil.which("nft") or "nft", "--json", "list", "table", "inet", TABLE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=_NFT_TIMEOUT_S)
    if result.returncode:
        raise L4lbError(f"nft: table inet {TABLE} cannot be listed: {result.stderr.strip()}")
    found: set[tuple[int, int, str]] = set()
    for entry in json.loads(result.stdout)["nftables"]:
        name = entry.get("set", {}).get("name", "")
        family, _, mss = name.partition("_vips_")
        if family in ("ipv4", "ipv6") and mss.isdigit():
            found.update((int(family[-1]), int(mss), vip) for vip in entry["set"].get("elem", ()))
    return found


def _remove_vip(route: Any, device: str, vip: Address) -> bool:
    link = _find_link(route, device)
    if link is None:
        return False
    try:
        route.addr("del", index=link["index"], address=str(vip), prefixlen=vip.max_prefixlen)
    except NetlinkError:
        return False
    return True


def _restore(name: str, value: str) -> bool:
    try:
        (_PROC_SYS_NET / name).write_text(value)
    except FileNotFoundError:
        return False  # an interface that is gone took its settings along
    except OSError as error:
        raise L4lbError(f"{_shown(name)}: {error.strerror}; set it to {value} by hand") from error
    return True


def _remove_tunnel(route: Any, name: str) -> bool:
    link = _find_link(route, name)
    if link is None:
        return False
    try:
        route.link("del", index=link["index"])
    except NetlinkError as error:
        raise L4lbError(f"{name}: cannot be removed: {error}") from error
    return True


def _find_link(route: Any, name: str) -> Any:
    found = list(route.link_lookup(ifname=name))
    return next(iter(route.get_links(found[0]))) if found else None


def _shown(path: str) -> str:
    return f"net/{path}" if "." in path else f"net.{path.replace('/', '.')}"
