"""The lab as a whole: up, down, and its hosts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.support.lab import lines, topology
from tests.support.lab import namespace as ns
from tests.support.lab.errors import LabError, unavailable
from tests.support.lab.host import Host
from tests.support.lab.process import Process
from tests.support.lab.wait import wait_for

DEFAULT_PREFIX = "l4lb"
STATE = Path("/run/l4lb-lab")
SHAPE_FILE = "shape"
PREFIX = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
HOST = re.compile(r"client|gateway|lan|peer|hop[1-4]|b[1-9][0-9]*")
READY_TIMEOUT_S = 10.0
OFFLOADS = ("tso", "gso", "gro", "tx", "rx", "sg")


def unique_prefix(word: str = DEFAULT_PREFIX) -> str:
    """A prefix that no other running lab has."""
    return f"{word}-{os.getpid()}-{secrets.token_hex(2)}"


def existing_labs() -> dict[str, list[str]]:
    """Prefix → hosts of the labs on this machine, up or left behind."""
    found: dict[str, list[str]] = {}
    names = sorted(entry.name for entry in ns.DIRECTORY.iterdir()) if ns.DIRECTORY.is_dir() else []
    for name in names:
        prefix, _, host = name.rpartition("-")
        if PREFIX.fullmatch(prefix) and HOST.fullmatch(host):
            found.setdefault(prefix, []).append(host)
    # A namespace alone may be anyone's: a lab has its directory too.
    return {prefix: hosts for prefix, hosts in found.items() if (STATE / prefix).is_dir()}


class Lab:
    """A client, a gateway and backends in namespaces `<prefix>-<host>`; a context manager.

    `shape` and `small_mtu` choose the network (the package's top draws them).
    `offloads=False` turns segmentation and checksum offload off on every interface.
    `directory` holds logs and sockets while the lab is up, and goes with it.
    """

    def __init__(
        self,
        prefix: str | None = None,
        backends: int = 3,
        *,
        shape: str = topology.THROUGH_GATEWAY,
        small_mtu: str = "none",
        offloads: bool = True,
    ) -> None:
        self.prefix = prefix if prefix is not None else unique_prefix()
        if not PREFIX.fullmatch(self.prefix):
            raise ValueError(f"a lab's prefix is of a-z, 0-9 and single dashes, not {self.prefix!r}")
        self.shape = shape
        self.small_mtu = small_mtu
        self.offloads = offloads
        self.directory = STATE / self.prefix
        self._topology = topology.plan(backends, shape, small_mtu)
        self._processes: list[Process] = []
        self._hosts = {
            plan.name: Host(plan, f"{self.prefix}-{plan.name}", self._processes.append, self.directory)
            for plan in self._topology.hosts
        }

    @classmethod
    def attach(cls, prefix: str) -> Lab:
        """The lab that is up under this prefix, made by whomever; LabError if there is none."""
        hosts = existing_labs().get(prefix, [])
        backends = sum(name.startswith("b") for name in hosts)
        if not backends or "gateway" not in hosts:
            raise LabError(f"no lab with the prefix {prefix!r} is up: run ./scripts/lab up --prefix {prefix}")
        try:
            shape, small_mtu = (STATE / prefix / SHAPE_FILE).read_text().split()
        except (OSError, ValueError) as error:
            raise LabError(
                f"the lab {prefix!r} is half built: run ./scripts/lab down --prefix {prefix}"
            ) from error
        return cls(prefix, backends, shape=shape, small_mtu=small_mtu)

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def hosts(self) -> dict[str, Host]:
        """All hosts by name, the bridge's `lan` too."""
        return dict(self._hosts)

    def host(self, name: str) -> Host:
        """A host by its name: client, gateway, lan, b1, b2, … and those of the shape."""
        try:
            return self._hosts[name]
        except KeyError:
            raise LabError(f"the lab has no host {name!r}: it has {', '.join(self._hosts)}") from None

    @property
    def client(self) -> Host:
        """The host that asks."""
        return self._hosts["client"]

    @property
    def gateway(self) -> Host:
        """The host that balances."""
        return self._hosts["gateway"]

    @property
    def backends(self) -> list[Host]:
        """The hosts that answer, in order."""
        return [host for name, host in self._hosts.items() if HOST.fullmatch(name) and name[0] == "b"]

    def up(self) -> None:
        """Build the lab and return when packets can flow; what stood under this prefix is removed first."""
        reason = unavailable()
        if reason is not None:
            raise LabError(reason)
        self.down()
        try:
            with _exclusive():
                self.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
                (self.directory / SHAPE_FILE).write_text(f"{self.shape} {self.small_mtu}\n")
                self._build()
            self._wait_ready()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Remove the lab with all that runs in it; also one that a killed process left. Safe to repeat."""
        for process in self._processes:
            process.terminate()
        while self._processes:
            self._processes.pop().stop()
        with _exclusive():
            names = self._existing_namespaces()
            ns.end_processes(names)
            if names:
                ns.ip(f"netns delete {name}" for name in names)
            shutil.rmtree(self.directory, ignore_errors=True)

    def leave(self) -> None:
        """Let the lab and its programs outlive this object: `down` is then another process's task."""
        self._processes.clear()

    def _existing_namespaces(self) -> list[str]:
        if not ns.DIRECTORY.is_dir():
            return []
        ours = re.compile(f"{re.escape(self.prefix)}-({HOST.pattern})")
        return sorted(entry.name for entry in ns.DIRECTORY.iterdir() if ours.fullmatch(entry.name))

    def _build(self) -> None:
        hosts = self._hosts.values()
        ns.ip(f"netns add {host.namespace}" for host in hosts)
        for host in hosts:
            ns.write_sysctls(host.namespace, lines.sysctls(host.plan))
        ns.ip(lines.link_lines(self._topology, {host.name: host.namespace for host in hosts}))
        for host in hosts:
            ns.ip(lines.host_lines(host.plan), host.namespace)
            if not self.offloads:
                self._turn_offloads_off(host)

    def _turn_offloads_off(self, host: Host) -> None:
        for interface in host.interfaces:
            host.run(["ethtool", "-K", interface, *(word for name in OFFLOADS for word in (name, "off"))])

    def _wait_ready(self) -> None:
        for host in self._hosts.values():
            wait_for(lambda host=host: _links_up(host), READY_TIMEOUT_S, f"the links of {host.namespace}")  # type: ignore[misc]


def _links_up(host: Host) -> bool:
    """Whether every interface has its carrier, and every port of the bridge forwards."""
    shown = subprocess.run(
        ["ip", "-n", host.namespace, "-json", "-details", "link", "show"],
        capture_output=True,
        text=True,
        timeout=ns.COMMAND_TIMEOUT_S,
        check=True,
    )
    for link in json.loads(shown.stdout):
        info = link.get("linkinfo", {})
        if link["ifname"] in host.interfaces and link["operstate"] != "UP":
            return False
        if info.get("info_slave_kind") == "bridge" and info["info_slave_data"]["state"] != "forwarding":
            return False
    return True


@contextlib.contextmanager
def _exclusive() -> Iterator[None]:
    """One process at a time builds or removes; the lock is the state directory itself."""
    STATE.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(STATE, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
