"""One host of a lab, as its user sees it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.lab import namespace as ns
from tests.support.lab import process
from tests.support.lab.process import Argv, Process
from tests.support.lab.topology import Plan
from tests.support.lab.wait import wait_for

TCP_LISTEN = 0x0A


class Host:
    """A namespace with a name, addresses, and programs that run in it."""

    def __init__(self, plan: Plan, namespace: str, track: Callable[[Process], None], directory: Path) -> None:
        self.plan = plan
        self.name = plan.name
        self.namespace = namespace
        self._track = track
        self.directory = directory
        self._started = 0

    def __repr__(self) -> str:
        return f"<Host {self.namespace}>"

    @property
    def v4(self) -> str:
        """Its first IPv4 address (the gateway's: the one towards the client)."""
        return self._address("v4")

    @property
    def v6(self) -> str:
        """Its first IPv6 address."""
        return self._address("v6")

    def _address(self, family: str) -> str:
        for interface in self.plan.interfaces:
            address: str | None = getattr(interface, family)
            if address is not None:
                return address
        raise ValueError(f"{self.name} has no addresses: it is a bridge")

    @property
    def interfaces(self) -> tuple[str, ...]:
        """Names of its interfaces, without lo."""
        return tuple(interface.name for interface in self.plan.interfaces)

    def run(
        self, argv: Argv, *, check: bool = True, timeout: float = 30.0, **kw: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end. See `process.run`; further words go to subprocess.run."""
        return process.run(self.namespace, argv, check=check, timeout=timeout, **kw)

    def popen(self, argv: Argv, *, log: str | None = None, **kw: Any) -> Process:
        """Start a program here that goes on; the lab ends it in `down` at the latest.

        Its output goes to the file `log` in the lab's directory (`<host>-<n>-<program>.log` if not
        given) unless `stdout` is passed on to subprocess.Popen.
        """
        self._started += 1
        file = None
        if "stdout" not in kw:
            file = self.directory / (log or f"{self.name}-{self._started}-{Path(argv[0]).name}.log")
        started = Process(self.namespace, argv, file, **kw)
        self._track(started)
        return started

    @contextlib.contextmanager
    def enter(self) -> Iterator[None]:
        """Run Python here: this thread's sockets, threads and children are the host's until the end."""
        with ns.enter(self.namespace):
            yield

    def pids(self) -> set[int]:
        """Processes that run here."""
        return ns.pids_inside([self.namespace])

    def listening(self, proto: str = "tcp") -> set[int]:
        """Ports that are bound here and wait for clients, over IPv4 and IPv6."""
        ports = set()
        with self.enter():
            for table in (proto, f"{proto}6"):
                with contextlib.suppress(FileNotFoundError):
                    lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]
                    for line in lines:
                        _, local, _, state, *_ = line.split()
                        if proto != "tcp" or int(state, 16) == TCP_LISTEN:
                            ports.add(int(local.rpartition(":")[2], 16))
        return ports

    def wait_listening(
        self, port: int, proto: str = "tcp", timeout: float = 10.0, process: Process | None = None
    ) -> None:
        """Wait until a program here listens on the port; at once an error if `process` has ended."""

        def ready() -> bool:
            if process is not None:
                process.check_running()
            return port in self.listening(proto)

        wait_for(ready, timeout, f"a program in {self.namespace} to listen on {port}/{proto}")
