"""libvirt on this host: installed, and started by hand where no init system does it.

Emulation is asked for whatever /dev/kvm says: where it exists but cannot be used, everything is slow and
nothing says why. What was started here is ended by `stop`; what ran already is used and left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.support.vm.steps import WORK, VmLabError, run, say, step

PACKAGES = (
    *("vagrant", "vagrant-libvirt", "libvirt-daemon-system", "libvirt-daemon-system-sysv", "libvirt-clients"),
    *("qemu-system-x86", "qemu-utils", "debootstrap", "dnsmasq-base", "iptables", "rsync", "openssh-client"),
)
_STARTED = WORK / "started.json"
_QEMU_CONF = Path("/etc/libvirt/qemu.conf")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_READY_WITHIN_S = 60.0
_ENDS_WITHIN_S = 20.0


def install() -> None:
    """Installs the packages that are missing."""
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package}\n", *PACKAGES],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    missing = [package for package in PACKAGES if f"installed {package}" not in shown]
    if missing:
        with step(f"installing {', '.join(missing)}"):
            run(["apt-get", "update"])
            # The -sysv package keeps apt from pulling an init system onto a host that has none.
            run(
                [
                    "apt-get",
                    "-o",
                    "DPkg::Lock::Timeout=300",
                    "install",
                    "-y",
                    "--no-install-recommends",
                    *missing,
                ],
                env={"DEBIAN_FRONTEND": "noninteractive"},
            )


def answers() -> bool:
    """Whether a libvirtd answers."""
    found = shutil.which("virsh") and subprocess.run(
        ["virsh", "-c", "qemu:///system", "version"], capture_output=True, check=False, timeout=60
    )
    return bool(found and found.returncode == 0)


def start() -> None:
    """Starts libvirtd, with its log daemon, unless one answers."""
    if answers():
        return
    with step("starting libvirt"):
        _run_as_root()
        pids: dict[str, int] = {}
        # libvirt makes the host a router for its networks, and leaves it one.
        started = {"pids": pids, "forwarding": _FORWARDING.read_text(), "tables": _tables()}
        for name in ("virtlogd", "libvirtd"):
            # A daemon that was killed leaves its file, and the next one refuses to start.
            Path(f"/run/{name}.pid").unlink(missing_ok=True)
            run([f"/usr/sbin/{name}", "--daemon"])
            pids[name] = _pid_of(name)
            WORK.mkdir(parents=True, exist_ok=True)
            _STARTED.write_text(json.dumps(started))
        until_s = time.monotonic() + _READY_WITHIN_S
        while not answers():
            if time.monotonic() > until_s:
                raise VmLabError(
                    f"libvirtd does not answer after {_READY_WITHIN_S:.0f} s; see its log in /var/log/libvirt"
                )
            time.sleep(0.2)


def stop() -> None:
    """Ends the daemons that `start` started, and what they leave behind."""
    if not _STARTED.exists():
        return
    started = json.loads(_STARTED.read_text())
    for name, pid in reversed(started["pids"].items()):
        _end(name, pid)
    _FORWARDING.write_text(started["forwarding"])
    _STARTED.unlink()
    _remove_chains()
    for table in _tables():
        if table not in started["tables"]:
            _remove_if_empty(table)
    say("libvirt is stopped")


def _run_as_root() -> None:
    """As an unprivileged user QEMU cannot open what exists but is closed to it, and libvirtd probes it anew
    at every look: four seconds each."""
    text = _QEMU_CONF.read_text()
    wanted = text
    for key in ("user", "group"):
        if not re.search(rf'^{key} = "root"', wanted, re.MULTILINE):
            wanted += f'{key} = "root"\n'
    if wanted != text:
        _QEMU_CONF.write_text(wanted)


def _pid_of(name: str) -> int:
    until_s = time.monotonic() + _READY_WITHIN_S
    while time.monotonic() < until_s:
        try:
            return int(Path(f"/run/{name}.pid").read_text())
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
    raise VmLabError(f"{name} has not started after {_READY_WITHIN_S:.0f} s; see /var/log/libvirt")


def _end(name: str, pid: int) -> None:
    """Ends a process, if the id is still its."""
    try:
        if Path(f"/proc/{pid}/comm").read_text().strip() != name:
            return
        os.kill(pid, signal.SIGTERM)
        until_s = time.monotonic() + _ENDS_WITHIN_S
        while Path(f"/proc/{pid}").exists():
            if time.monotonic() > until_s:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
    except (FileNotFoundError, ProcessLookupError):
        pass


def _tables() -> list[str]:
    """Those of the packet filter, by family and name."""
    return _printed("nft", "list", "tables").replace("table ", "").splitlines()


def _remove_if_empty(table: str) -> None:
    """Takes a table of iptables away that has nothing but chains that let everything through: libvirt leaves
    them."""
    family, _, name = table.partition(" ")
    command = {"ip": "iptables", "ip6": "ip6tables"}.get(family)
    listed = _printed(command, "-t", name, "-S").splitlines() if command else []
    if listed and all(line.startswith("-P ") and line.endswith(" ACCEPT") for line in listed):
        run(["nft", "delete", "table", family, name], check=False)


def _printed(*words: str) -> str:
    """What a command prints; nothing where it fails."""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def _remove_chains() -> None:
    """Takes libvirt's own chains out of the packet filter, which it leaves there."""
    for command in ("iptables", "ip6tables"):
        for table in ("filter", "nat", "mangle"):
            listed = _printed(command, "-t", table, "-S").splitlines()
            lines = [line for line in listed if "LIBVIRT_" in line]
            rules = [line.split() for line in lines if line.startswith("-A") and " -j LIBVIRT_" in line]
            for rule in rules:
                run([command, "-t", table, "-D", *rule[1:]], check=False)
            chains = [line.split()[1] for line in lines if line.startswith("-N")]
            for word in ("-F", "-X"):
                for chain in chains:
                    run([command, "-t", table, word, chain], check=False)
